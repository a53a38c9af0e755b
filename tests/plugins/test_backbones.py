"""Every registered backbone on odd sizes; on those it declares, the conformance kit checks it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import ImageInput
from zoo.errors import Unfit, UsageError
from zoo.models import Preprocess
from zoo.pipeline.assembly import Part, build_backbone, preprocess_for
from zoo.registry import Entry, Registry

REGISTRY = Registry.installed()
ENTRIES = REGISTRY.entries("backbone")
BATCH = 4


def build(entry: Entry, input: ImageInput, seed: int = 0, **options: Any) -> tuple[Any, Preprocess]:
    torch.manual_seed(seed)
    backbone = build_backbone(Part(entry, entry.configure(options)), input)
    return backbone, preprocess_for(input, input, backbone)


def raw_bytes(input: ImageInput, count: int = BATCH, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *input.shape), dtype=torch.uint8, generator=generator)


def check_gradients(module: nn.Module, loss: Tensor) -> None:
    """Assert that a loss reaches every parameter with finite numbers."""
    module.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"{name} is out of reach"
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), f"{name} gets nothing but zeros"


def check(entry: Entry, input: ImageInput, **options: Any) -> None:
    """Hold a backbone to its contract on one size of input."""
    backbone, preprocess = build(entry, input, **options)
    raw = raw_bytes(input)
    inputs = preprocess(raw)

    backbone.train()
    codes = backbone.encoder(inputs)
    assert codes.shape == (BATCH, backbone.features)
    assert codes.dtype == torch.float32
    labels = torch.arange(BATCH) % 3
    logits = nn.Linear(backbone.features, 3)(codes)
    check_gradients(backbone.encoder, F.cross_entropy(logits, labels))
    if backbone.decoder is not None:
        back = backbone.decoder(backbone.encoder(inputs))
        assert back.shape == inputs.shape
        check_gradients(backbone, F.mse_loss(back, inputs))

    # A batch statistic in evaluation mode would make an answer depend on its neighbours.
    backbone.eval()
    with torch.no_grad():
        together = backbone.encoder(inputs)
        alone = torch.cat([backbone.encoder(one) for one in inputs.split(1)])
        assert torch.allclose(together, alone, atol=1e-5)
        if backbone.decoder is not None:
            apart = torch.cat([backbone.decoder(one) for one in alone.split(1)])
            assert torch.allclose(backbone.decoder(together), apart, atol=1e-5)

    twin, other = build(entry, input, **options)[0], build(entry, input, seed=1, **options)[0]
    fresh = build(entry, input, **options)[0].state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in twin.state_dict().items())
    assert any(not torch.equal(t, fresh[name]) for name, t in other.state_dict().items())

    # What is trained by now, its running statistics included, comes back whole.
    other.load_state_dict(load(save(backbone.state_dict())))
    other.eval()
    with torch.no_grad():
        assert torch.equal(other.encoder(inputs), together)


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])
@given(channels=st.sampled_from([1, 3]), height=st.integers(8, 40), width=st.integers(8, 40))
@example(channels=1, height=8, width=40)
@example(channels=3, height=31, width=9)
@settings(max_examples=4, deadline=None)
def test_any_size(entry: Entry, channels: int, height: int, width: int) -> None:
    check(entry, ImageInput(channels=channels, height=height, width=width))


def test_the_built_in_ones_are_there() -> None:
    assert {"mlp", "conv", "conv-residual"} <= set(REGISTRY.names("backbone"))


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("mlp", {"widths": (32, 16), "features": 9, "activation": "relu"}),
    ("mlp", {"widths": (32, 16), "features": 9, "activation": "gelu"}),
    ("mlp", {"widths": (32, 16), "features": 9, "activation": "tanh"}),
    ("mlp", {"widths": (), "features": 5}),
    ("mlp", {"widths": (9,), "features": 4, "output": "linear"}),
    ("conv", {"channels": (4,), "features": 3}),
    ("conv", {"channels": (4, 3, 5, 6), "features": 7}),
    ("conv-residual", {"channels": (4, 6), "features": 3, "blocks": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), OPTIONS)
@pytest.mark.parametrize("input", [ImageInput(channels=1, height=28, width=28),
                                   ImageInput(channels=3, height=13, width=9)])  # fmt: skip
def test_options(name: str, options: dict[str, Any], input: ImageInput) -> None:
    check(REGISTRY.lookup("backbone", name), input, **options)
    backbone = build(REGISTRY.lookup("backbone", name), input, **options)[0]
    assert backbone.features == options["features"]


# --- mlp ------------------------------------------------------------------------------------

MNIST = ImageInput(channels=1, height=28, width=28)


def linear_sizes(module: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)]


def leaves(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if not list(part.children())]


def test_the_tutorials_mlp() -> None:
    """784-128-64-12-3 and back, ReLU between, Tanh last."""
    entry = REGISTRY.lookup("backbone", "mlp")
    backbone = build(entry, MNIST, widths=(128, 64, 12), features=3)[0]
    assert linear_sizes(backbone.encoder) == [(784, 128), (128, 64), (64, 12), (12, 3)]
    assert linear_sizes(backbone.decoder) == [(3, 12), (12, 64), (64, 128), (128, 784)]
    between = [type(m).__name__ for m in leaves(backbone.encoder)]
    assert between == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    after = [type(m).__name__ for m in leaves(backbone.decoder)]
    assert after == [*["Linear", "ReLU"] * 3, "Linear", "Tanh", "Unflatten"]
    count = sum(p.numel() for p in backbone.parameters())
    assert count == sum(a * b + b for a, b in linear_sizes(backbone))


@pytest.mark.parametrize(("output", "bounded"), [("tanh", True), ("linear", False)])
def test_the_range_of_the_mlps_decoder(output: str, bounded: bool) -> None:
    backbone = build(REGISTRY.lookup("backbone", "mlp"), MNIST, output=output)[0]
    back = backbone.decoder(torch.full((1, backbone.features), 1e4))
    assert bool((back.abs() <= 1).all()) == bounded


def test_dropout_is_in_the_mlps_encoder_and_in_training_alone() -> None:
    entry = REGISTRY.lookup("backbone", "mlp")
    backbone, preprocess = build(entry, MNIST, dropout=0.5, norm=True)
    kinds = {m.p for m in backbone.encoder.modules() if isinstance(m, nn.Dropout)}
    assert kinds == {0.5}
    assert not [m for m in backbone.decoder.modules() if isinstance(m, nn.Dropout)]
    norms = [m for m in backbone.encoder.modules() if isinstance(m, nn.BatchNorm1d)]
    assert [norm.num_features for norm in norms] == [512, 256]
    inputs = preprocess(raw_bytes(MNIST))
    assert not torch.equal(backbone.encoder(inputs), backbone.encoder(inputs))
    backbone.eval()
    assert torch.equal(backbone.encoder(inputs), backbone.encoder(inputs))


# --- conv -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conv", "conv-residual"])
@pytest.mark.parametrize(
    ("side", "fitting"), [((8, 8), 3), ((9, 9), 4), ((1, 40), 6), ((2, 2), 1), ((28, 28), 5)]
)
def test_too_many_stages(name: str, side: tuple[int, int], fitting: int) -> None:
    entry = REGISTRY.lookup("backbone", name)
    input = ImageInput(channels=1, height=side[0], width=side[1])
    channels = tuple(range(2, fitting + 3))
    with pytest.raises(Unfit) as caught:
        build(entry, input, channels=channels)
    advised = ",".join(map(str, channels[:fitting]))
    assert str(caught.value) == (
        f"backbone '{name}': {fitting + 1} stages halve {input} below one pixel;"
        f" at most {fitting} fit. Type: channels {advised}"
    )
    check_shapes(entry, input, channels[:fitting])


def check_shapes(entry: Entry, input: ImageInput, channels: tuple[int, ...]) -> None:
    backbone, preprocess = build(entry, input, channels=channels)
    inputs = preprocess(raw_bytes(input))
    assert backbone.decoder(backbone.encoder(inputs)).shape == inputs.shape


@pytest.mark.parametrize("name", ["conv", "conv-residual"])
def test_no_stage_at_all(name: str) -> None:
    with pytest.raises(Unfit, match=f"backbone '{name}': channels is empty") as caught:
        build(REGISTRY.lookup("backbone", name), MNIST, channels=())
    assert "Type: channels 32,64" in str(caught.value)


@pytest.mark.parametrize("name", ["conv", "conv-residual"])
def test_one_pixel_cannot_be_halved(name: str) -> None:
    """What the message advises to type has to be a value that the option takes."""
    entry = REGISTRY.lookup("backbone", name)
    with pytest.raises(Unfit) as caught:
        build(entry, ImageInput(channels=1, height=1, width=1))
    assert "halve 1×1×1 below one pixel" in str(caught.value)
    assert "Type: channels none" not in str(caught.value)


def test_blocks_stand_in_every_stage() -> None:
    small = {"channels": (4, 6, 8), "features": 5}

    def blocks(name: str, **options: Any) -> tuple[int, int]:
        backbone = build(REGISTRY.lookup("backbone", name), MNIST, **small, **options)[0]
        counts = [
            sum(type(m).__name__ == "ResidualBlock" for m in part.modules())
            for part in (backbone.encoder, backbone.decoder)
        ]
        return counts[0], counts[1]

    assert blocks("conv") == (0, 0)
    assert blocks("conv-residual") == (3, 3)
    assert blocks("conv-residual", blocks=2) == (6, 6)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mlp", {"features": 0}, "features"),
        ("mlp", {"widths": (4, 0)}, "widths"),
        ("mlp", {"dropout": 1.0}, "dropout"),
        ("mlp", {"activation": "selu"}, "activation"),
        ("conv", {"channels": (0,)}, "channels"),
        ("conv", {"blocks": 1}, "unknown option 'blocks'"),
        ("conv-residual", {"blocks": 0}, "blocks"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        REGISTRY.lookup("backbone", name).configure(options)
    assert str(caught.value).startswith(f"backbone '{name}': ")
    assert words in str(caught.value)


def test_a_residual_block_is_the_identity_where_its_branch_is_zero() -> None:
    entry = REGISTRY.lookup("backbone", "conv-residual")
    backbone = build(entry, MNIST, channels=(4,))[0].eval()
    (block,) = (m for m in backbone.encoder.modules() if type(m).__name__ == "ResidualBlock")
    nn.init.zeros_(block.norm2.weight)
    hidden = torch.rand(2, 4, 5, 3)
    assert torch.allclose(block(hidden), hidden)


def test_every_pixel_is_seen() -> None:
    """No stride and no padding leaves a row or a column of the image without influence."""
    for entry, side in itertools.product(ENTRIES, [(28, 28), (9, 14)]):
        input = ImageInput(channels=1, height=side[0], width=side[1])
        backbone, preprocess = build(entry, input)
        inputs = preprocess(raw_bytes(input)).requires_grad_()
        backbone.encoder(inputs).square().sum().backward()
        assert inputs.grad is not None
        assert bool((inputs.grad.abs().sum(0) > 0).all()), entry.name
