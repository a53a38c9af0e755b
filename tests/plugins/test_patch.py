"""The backbone behind a strided stem; that it conforms is asked with all the others."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from zoo.api import ImageInput
from zoo.errors import Unfit
from zoo.pipeline.assembly import Part, build_backbone
from zoo.registry import Registry

ENTRY = Registry.installed().lookup("backbone", "conv-patch")
MNIST = ImageInput(channels=1, height=28, width=28)


def build(input: ImageInput = MNIST, **options: Any) -> Any:
    torch.manual_seed(0)
    return build_backbone(Part(ENTRY, ENTRY.configure(options)), input)


@pytest.mark.parametrize(("side", "sides"), [(28, [7, 7, 1]), (33, [9, 9, 1]), (8, [2, 2, 1])])
def test_the_stem_and_each_pooling_halve_and_odd_sizes_are_rounded_up(
    side: int, sides: list[int]
) -> None:
    backbone = build(ImageInput(channels=1, height=side, width=side)).eval()
    hidden, found = torch.rand(2, 1, side, side), []
    for part in backbone.encoder:
        hidden = part(hidden)
        found.append(hidden.shape[2] if hidden.ndim == 4 else 1)
    assert found[1:] == sides  # the stem's is not pooled
    assert found[0] == -(-side // 2)
    assert hidden.shape == (2, 256)


def test_every_pixel_reaches_the_code() -> None:
    for height, width in ((28, 28), (9, 14)):
        backbone = build(ImageInput(channels=1, height=height, width=width)).eval()
        picture = torch.rand(1, 1, height, width, requires_grad=True)
        backbone.encoder(picture).square().sum().backward()
        assert bool((picture.grad != 0).all())


@pytest.mark.parametrize("channels", [(3, 4), (3, 4, 5), (2, 3, 4, 5)])
def test_any_number_of_convolutions(channels: tuple[int, ...]) -> None:
    input = ImageInput(channels=3, height=9, width=14)
    backbone = build(input, channels=channels)
    codes = backbone.encoder(torch.rand(4, *input.shape))
    assert codes.shape == (4, channels[-1])
    assert backbone.decoder(codes).shape == (4, *input.shape)
    strided = [m for m in backbone.encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [m.stride for m in strided[:-1]] == [(2, 2)] + [(1, 1)] * (len(channels) - 1)


def test_too_few_channels_or_too_many_are_refused() -> None:
    for channels in ((), (3,)):
        with pytest.raises(Unfit, match=r"channels needs the stem's and one more.*Type: channels"):
            build(channels=channels)
    with pytest.raises(
        Unfit, match=r"5 channels halve 1×4×4 below one pixel. Type fewer: channels"
    ):
        build(ImageInput(channels=1, height=4, width=4), channels=(2, 2, 2, 2, 2))


def test_small_pictures_pass() -> None:
    for height, width in itertools.product((2, 3), repeat=2):
        input = ImageInput(channels=1, height=height, width=width)
        backbone = build(input, channels=(4, 8))
        pictures = torch.rand(4, *input.shape)
        assert backbone.decoder(backbone.encoder(pictures)).shape == pictures.shape
