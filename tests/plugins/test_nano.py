"""The smallest backbone and its recipe; that they conform is asked with all the others."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from zoo.api import ImageInput, RecipeSpec
from zoo.errors import Unfit
from zoo.models import Classifier
from zoo.pipeline.assembly import Part, build_backbone, build_head, preprocess_for
from zoo.registry import Registry

REGISTRY = Registry.installed()
ENTRY = REGISTRY.lookup("backbone", "conv-nano")
RECIPE: RecipeSpec = REGISTRY.lookup("recipe", "mnist-nano").spec
MNIST = ImageInput(channels=1, height=28, width=28)
FP32_BYTES, INT8_BYTES = 26_000, 11_000
"""What the recipe's files may take, of 1,000 bytes a kilobyte."""
SMALL_BUT_WHOLE = 3_600
"""Bytes of a file that are no weights: metadata, nodes and names."""


def build(input: ImageInput = MNIST, **options: Any) -> Any:
    torch.manual_seed(0)
    return build_backbone(Part(ENTRY, ENTRY.configure(options)), input)


def classifier() -> Classifier:
    """Build what the recipe exports, untrained but for the running statistics of its norms."""
    backbone = build(**RECIPE.backbone.options)
    head = REGISTRY.lookup("head", RECIPE.head.name)
    part = Part(head, head.configure(dict(RECIPE.head.options)))
    whole = Classifier(
        preprocess_for(MNIST, MNIST, backbone),
        backbone.encoder,
        build_head(part, backbone.features, 10),
    )
    whole.train()
    whole(torch.randint(0, 256, (32, *MNIST.shape), dtype=torch.uint8))
    return whole.eval()


def test_the_exported_weights_leave_room_for_the_file() -> None:
    """A norm is folded into its convolution: each is left with its kernel and a bias."""
    folded = 0
    for module in classifier().modules():
        if isinstance(module, nn.Conv2d):
            folded += module.weight.numel() + module.out_channels
        elif isinstance(module, nn.Linear):
            folded += module.weight.numel() + module.out_features
    assert folded == 5_034
    assert 4 * folded + SMALL_BUT_WHOLE <= FP32_BYTES


def test_the_graph_is_as_small_as_its_weights() -> None:
    """What the exporter makes of it: no norm is left, and each convolution feeds a Relu at once."""
    from zoo.export.graph import to_graph

    graph = to_graph(classifier(), MNIST).graph
    kinds = [node.op_type for node in graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("Conv") == len(RECIPE.backbone.options["channels"]) + 1
    for conv, after in itertools.pairwise(kinds):
        if conv == "Conv":
            assert after in ("Relu", "Flatten")
    assert graph.ByteSize() <= FP32_BYTES


@pytest.mark.parametrize(
    ("side", "sides"),
    [(28, [26, 12, 10, 4, 4, 1]), (8, [6, 2, 2, 1, 1, 1]), (33, [31, 15, 13, 6, 4, 1])],
)
def test_maps_shrink_while_there_is_room(side: int, sides: list[int]) -> None:
    backbone = build(ImageInput(channels=1, height=side, width=side)).eval()
    hidden, found = torch.rand(2, 1, side, side), []
    for part in backbone.encoder:
        hidden = part(hidden)
        found.append(hidden.shape[2] if hidden.ndim == 4 else 1)
    assert found == sides
    assert hidden.shape == (2, 16)


def test_the_last_map_is_averaged_at_first_and_its_places_count_later() -> None:
    last = build().encoder[-1]
    hidden = torch.rand(3, 16, 4, 4)
    assert torch.allclose(last(hidden), hidden.mean((2, 3)), atol=1e-6)
    nn.init.zeros_(last.conv.weight)
    last.conv.weight.data[:, :, 0, 3] = 1
    assert torch.equal(last(hidden), hidden[:, :, 0, 3])


@pytest.mark.parametrize("channels", [(3,), (3, 4), (3, 4, 5), (2, 2, 2, 2, 2, 2, 2, 2, 2)])
def test_any_number_of_convolutions(channels: tuple[int, ...]) -> None:
    input = ImageInput(channels=3, height=9, width=14)
    backbone = build(input, channels=channels)
    pictures = torch.rand(4, *input.shape)
    codes = backbone.encoder(pictures)
    assert codes.shape == (4, channels[-1])
    assert backbone.decoder(codes).shape == pictures.shape


def test_no_convolution_is_refused() -> None:
    with pytest.raises(Unfit, match=r"channels is empty.*Type: channels"):
        build(channels=())


def test_the_smallest_pictures_pass() -> None:
    for height, width in itertools.product((1, 2, 3), repeat=2):
        input = ImageInput(channels=1, height=height, width=width)
        backbone = build(input)
        pictures = torch.rand(4, *input.shape)
        assert backbone.decoder(backbone.encoder(pictures)).shape == pictures.shape
