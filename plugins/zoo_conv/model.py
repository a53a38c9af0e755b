"""Convolutional autoencoders for any image size, odd ones included.

Strided convolutions in place of pooling after Springenberg et al. (arXiv 1412.6806); the residual
blocks are those of He et al. (arXiv 1512.03385), basic form.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import ImageInput, Preprocessing, Unfit
from zoo_conv import ConvConfig


class ConvAutoencoder(nn.Module):
    """Halve the image once a stage, project to `features`, and decode back to the exact size."""

    preprocessing = Preprocessing()  # -1..1, the range of the decoder's tanh

    def __init__(self, config: ConvConfig, input: ImageInput, blocks: int) -> None:
        super().__init__()
        self.features = config.features
        sizes = _sizes(config, input)
        channels = [input.channels, *config.channels]
        encoder: list[nn.Module] = []
        decoder: list[nn.Module] = []
        for stage, (before, after) in enumerate(pairwise(channels)):
            encoder += [_down(before, after), *(ResidualBlock(after) for _ in range(blocks))]
            up = doubling(after, before, sizes[stage], sizes[stage + 1], last=stage == 0)
            decoder = [*(ResidualBlock(after) for _ in range(blocks)), up, *decoder]
        code = (channels[-1], *sizes[-1])
        flat = code[0] * code[1] * code[2]
        self.encoder = nn.Sequential(*encoder, nn.Flatten(), nn.Linear(flat, config.features))
        self.decoder = nn.Sequential(
            nn.Linear(config.features, flat), nn.ReLU(), nn.Unflatten(1, code), *decoder
        )


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside the identity, N x C x H x W in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(inputs)))
        return F.relu(inputs + self.norm2(self.conv2(hidden)))


def _sizes(config: ConvConfig, input: ImageInput) -> list[tuple[int, int]]:
    """Return height and width before each stage and after the last; raises `Unfit`."""
    if not config.channels:
        raise Unfit(
            "channels is empty: a convolutional backbone needs a stage. Type: channels 32,64"
        )
    sizes = [(input.height, input.width)]
    for _ in config.channels:
        if max(sizes[-1]) == 1:
            fitting = ",".join(str(count) for count in config.channels[: len(sizes) - 1])
            advice = f"Type: channels {fitting}" if fitting else "Use another backbone."
            raise Unfit(
                f"{len(config.channels)} stages halve {input} below one pixel;"
                f" at most {len(sizes) - 1} fit. {advice}"
            )
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def _down(before: int, after: int) -> nn.Module:
    conv = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())


def doubling(
    before: int, after: int, size: tuple[int, int], halved: tuple[int, int], *, last: bool
) -> nn.Module:
    # A transposed convolution returns 2n - 1; an even size needs one more row or column.
    padding = (size[0] - 2 * halved[0] + 1, size[1] - 2 * halved[1] + 1)
    conv = nn.ConvTranspose2d(
        before, after, 3, stride=2, padding=1, output_padding=padding, bias=last
    )
    if last:
        return nn.Sequential(conv, nn.Tanh())
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())
