"""Convolutions behind a strided stem: few maps of many channels, as CPUs like them.

The stem looks at patches, as that of vision transformers does (arXiv 2010.11929), but overlapping
ones. Each further stage is one 3×3 convolution at full depth, halved by pooling rather than by a
stride: on processors with matrix units a strided convolution takes nearly as long as one without.
"""

from __future__ import annotations

from torch import nn

from zoo.api import ImageInput, Preprocessing, Unfit
from zoo_conv import ConvPatchConfig
from zoo_conv.nano import WeightedMean, mirrored

Size = tuple[int, int]


class PatchAutoencoder(nn.Module):
    """A 4×4 stem of stride 2, 3×3 convolutions halved in between, averaged with learned weights.

    The decoder is there for pretraining alone: one strided convolution a halving.
    """

    preprocessing = Preprocessing()  # -1..1, the range of the decoder's tanh

    def __init__(self, config: ConvPatchConfig, input: ImageInput) -> None:
        super().__init__()
        if len(config.channels) < 2:
            raise Unfit(
                "channels needs the stem's and one more: conv-patch has no other stage."
                " Type: channels 64,64"
            )
        self.features = config.channels[-1]
        sizes = [(input.height, input.width)]
        stem, *rest = config.channels
        sizes.append(_halved(sizes[0], input, config))
        padding = (1 + sizes[0][0] % 2, 1 + sizes[0][1] % 2)
        blocks = [_block(nn.Conv2d(input.channels, stem, 4, 2, padding, bias=False), stem)]
        for place, after in enumerate(rest):
            if place:
                sizes.append(_halved(sizes[-1], input, config))
                blocks[-1].append(nn.MaxPool2d(2, ceil_mode=True))
            blocks.append(_block(nn.Conv2d(stem, after, 3, padding=1, bias=False), after))
            stem = after
        self.encoder = nn.Sequential(*blocks, WeightedMean(self.features, sizes[-1]))
        self.decoder = mirrored(self.features, config.channels[0], input.channels, sizes)


def _block(conv: nn.Conv2d, channels: int) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())


def _halved(size: Size, input: ImageInput, config: ConvPatchConfig) -> Size:
    """Return half a size, odd ones rounded up; raises `Unfit` where there is nothing to halve."""
    if max(size) == 1:
        raise Unfit(
            f"{len(config.channels)} channels halve {input} below one pixel. Type fewer: channels"
            f" {','.join(map(str, config.channels[:-1]))}"
        )
    return (size[0] + 1) // 2, (size[1] + 1) // 2
