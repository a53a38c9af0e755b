"""Every registered head turns features into logits; the built-in ones are what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional as F

from zoo.errors import BadOption
from zoo.pipeline.assembly import Part, build_head
from zoo.registry import Entry, Registry

REGISTRY = Registry.installed()
ENTRIES = REGISTRY.entries("head")
every = pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])


def build(entry: Entry | str, features: int, classes: int, seed: int = 0, **options: Any) -> Any:
    found = REGISTRY.lookup("head", entry) if isinstance(entry, str) else entry
    torch.manual_seed(seed)
    return build_head(Part(found, found.configure(options)), features, classes)


@every
@pytest.mark.parametrize("features", [1, 3, 64])
@pytest.mark.parametrize("classes", [2, 10, 26])
def test_any_width_and_any_number_of_classes(entry: Entry, features: int, classes: int) -> None:
    head = build(entry, features, classes)
    codes = torch.randn(7, features)
    logits = head(codes)
    assert logits.shape == (7, classes)
    assert logits.dtype == torch.float32
    F.cross_entropy(logits, torch.arange(7) % classes).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, f"{name} is out of reach"
        assert bool(parameter.grad.isfinite().all()), name


@every
def test_logits_not_probabilities(entry: Entry) -> None:
    """Cross entropy and the exported softmax expect them unbounded."""
    logits = build(entry, 8, 4).eval()(torch.randn(50, 8) * 30)
    assert bool((logits < 0).any())
    assert bool((logits > 1).any())
    assert not torch.allclose(logits.exp().sum(1), torch.ones(50), atol=1e-3)  # log-softmax


@every
def test_an_answer_does_not_depend_on_its_neighbours(entry: Entry) -> None:
    head = build(entry, 8, 4).eval()
    codes = torch.randn(6, 8)
    with torch.no_grad():
        alone = torch.cat([head(code) for code in codes.split(1)])
        assert torch.allclose(head(codes), alone, atol=1e-5)


@every
def test_one_seed_builds_one_head_and_its_weights_come_back(entry: Entry) -> None:
    first, second, other = build(entry, 8, 4), build(entry, 8, 4), build(entry, 8, 4, seed=1)
    state = second.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in first.state_dict().items())
    assert any(not torch.equal(t, state[name]) for name, t in other.state_dict().items())
    other.load_state_dict(load(save(first.state_dict())))
    codes = torch.randn(6, 8)
    assert torch.equal(other.eval()(codes), first.eval()(codes))


@every
def test_it_learns_what_is_separable(entry: Entry) -> None:
    torch.manual_seed(0)
    labels = torch.arange(90) % 3
    codes = torch.randn(90, 5) * 0.3 + 2 * torch.eye(5)[labels]
    head = build(entry, 5, 3)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(head(codes), labels).backward()
        optimizer.step()
    hits = (head.eval()(codes).argmax(1) == labels).float().mean()
    assert hits.item() > 0.98


def linear_sizes(head: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in head.modules() if isinstance(m, nn.Linear)]


def test_linear_is_one_layer() -> None:
    head = build("linear", 64, 10)
    assert linear_sizes(head) == [(64, 10)]
    assert sum(p.numel() for p in head.parameters()) == 650
    codes = torch.randn(3, 64)
    weight, bias = head.parameters()
    assert torch.allclose(head(codes), codes @ weight.T + bias, atol=1e-5)


@pytest.mark.parametrize(
    ("widths", "sizes"),
    [
        ((128,), [(64, 128), (128, 10)]),
        ((32, 16, 8), [(64, 32), (32, 16), (16, 8), (8, 10)]),
        ((), [(64, 10)]),
    ],
)
def test_the_layers_of_mlp(widths: tuple[int, ...], sizes: list[tuple[int, int]]) -> None:
    head = build("mlp", 64, 10, widths=widths).eval()
    assert linear_sizes(head) == sizes
    hidden = codes = torch.randn(3, 64)
    layers = [m for m in head.modules() if isinstance(m, nn.Linear)]
    for number, layer in enumerate(layers, 1):
        hidden = hidden @ layer.weight.T + layer.bias
        hidden = hidden.clamp(min=0) if number < len(layers) else hidden
    assert torch.allclose(head(codes), hidden, atol=1e-5)


def test_dropout_is_for_training_alone() -> None:
    head = build("mlp", 8, 4, dropout=0.5)
    codes = torch.randn(6, 8)
    assert not torch.equal(head(codes), head(codes))
    head.eval()
    assert torch.equal(head(codes), head(codes))
    still = build("mlp", 8, 4)  # by default there is none
    assert torch.equal(still(codes), still(codes))


def test_dropout_drops_its_share_of_hidden_units() -> None:
    head = build("mlp", 8, 4, widths=(4000,), dropout=0.3)
    seen: list[torch.Tensor] = []
    last = [m for m in head.modules() if isinstance(m, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    codes = torch.randn(1, 8)
    head.train()(codes)
    head.eval()(codes)
    trained, whole = seen
    alive = whole > 0
    assert (trained[alive] == 0).float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert torch.allclose(trained[trained > 0], whole[trained > 0] / 0.7, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mlp", {"widths": (0,)}, "head 'mlp': widths"),
        ("mlp", {"dropout": 1.0}, "head 'mlp': dropout"),
        ("mlp", {"dropout": -0.1}, "head 'mlp': dropout"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadOption, match=words):
        build(name, 8, 4, **options)


def test_a_linear_head_with_norm_sees_features_of_mean_0_and_variance_1() -> None:
    head = build("linear", 5, 3, norm=True)
    codes = torch.randn(64, 5) * torch.tensor([1.0, 10.0, 0.1, 3.0, 7.0]) + 4
    standard = (codes - codes.mean(0)) / codes.std(0, correction=0)
    assert torch.allclose(head(codes), head[1](standard), atol=1e-3)
    assert [name for name, _ in head.named_parameters()] == ["1.weight", "1.bias"]
