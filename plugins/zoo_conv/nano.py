"""A convolutional classifier of a few thousand weights, for files of some kilobytes.

Convolutions take no padding while there is room, so that maps shrink early and what is computed
shrinks with them. The last map is averaged with learned weights, one a place and channel, as
MobileFaceNets do (arXiv 1804.07573): where a stroke lies tells digits apart, and a mean forgets it.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from zoo.api import ImageInput, Preprocessing, Unfit
from zoo_conv import ConvNanoConfig
from zoo_conv.model import doubling

Size = tuple[int, int]
ROOM = 5
"""Pixels along an axis from which a convolution goes without padding there."""


class NanoAutoencoder(nn.Module):
    """Pairs of 3×3 convolutions, halved in between, averaged with learned weights into a code.

    The decoder is there for pretraining alone: one strided convolution a halving.
    """

    preprocessing = Preprocessing()  # -1..1, the range of the decoder's tanh

    def __init__(self, config: ConvNanoConfig, input: ImageInput) -> None:
        super().__init__()
        if not config.channels:
            raise Unfit("channels is empty: conv-nano needs a convolution. Type: channels 8,12,16")
        self.features = config.channels[-1]
        size = (input.height, input.width)
        blocks: list[nn.Module] = []
        sizes = [size]  # of the decoder's maps, the last one first
        for place, (before, after) in enumerate(pairwise((input.channels, *config.channels)), 1):
            halves = place % 2 == 0 and place < len(config.channels)
            block, size = _block(before, after, size, halves=halves)
            blocks.append(block)
            if halves:
                sizes.append(_halved(sizes[-1]))
        self.encoder = nn.Sequential(*blocks, WeightedMean(self.features, size))
        self.decoder = mirrored(self.features, self.features, input.channels, sizes)


class WeightedMean(nn.Module):
    """Average each channel with weights of its own, N x C x H x W -> N x C; a mean at first."""

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, size, groups=channels)
        nn.init.constant_(self.conv.weight, 1 / (size[0] * size[1]))
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.flatten(self.conv(inputs), 1)


def _block(before: int, after: int, size: Size, *, halves: bool) -> tuple[nn.Module, Size]:
    """Return a convolution, its norm and its pooling, and the size of what comes out."""
    padding = (int(size[0] < ROOM), int(size[1] < ROOM))
    size = (size[0] - 2 + 2 * padding[0], size[1] - 2 + 2 * padding[1])
    conv = nn.Conv2d(before, after, 3, padding=padding, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(after), nn.ReLU()]
    if halves:
        # The last row and column of an odd size are pooled too, not lost.
        layers.append(nn.MaxPool2d(2, ceil_mode=size[0] % 2 == 1 or size[1] % 2 == 1))
        size = _halved(size)
    return nn.Sequential(*layers), size


def mirrored(features: int, width: int, channels: int, sizes: list[Size]) -> nn.Module:
    """Return a decoder of `width` channels and one strided convolution a halving.

    `sizes` are those of its maps, the last one first.
    """
    code = (width, *sizes[-1])
    layers: list[nn.Module] = [
        nn.Linear(features, code[0] * code[1] * code[2]),
        nn.ReLU(),
        nn.Unflatten(1, code),
    ]
    for size, halved in reversed(list(pairwise(sizes))):
        last = size is sizes[0]
        layers.append(doubling(width, channels if last else width, size, halved, last=last))
    if len(sizes) == 1:
        layers += [nn.Conv2d(width, channels, 3, padding=1), nn.Tanh()]
    return nn.Sequential(*layers)


def _halved(size: Size) -> Size:
    return (size[0] + 1) // 2, (size[1] + 1) // 2
