"""One optimizer step: the rate of every step, the gradient's norm, batches that make one step."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.api import Losses, TrainConfig
from zoo.data import Batches
from zoo.errors import BadOption
from zoo.training import check_training, fit
from zoo.training.optimizing import learning_rate

PLAIN = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}


class Slope(nn.Module):
    """Its loss is the sum of its parameters: plain SGD moves each by the rate of the step."""

    def __init__(self, names: str = "a") -> None:
        super().__init__()
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.zeros((), dtype=torch.float64)))
        self.before: list[dict[str, float]] = []

    def forward(self, inputs: Tensor) -> Losses:
        self.before.append({name: p.item() for name, p in self.named_parameters()})
        return Losses(sum(self.parameters(), torch.zeros((), dtype=torch.float64)))

    def moves(self, name: str = "a") -> list[float]:
        """By how much each step lowered a parameter."""
        places = [each[name] for each in self.before] + [getattr(self, name).item()]
        return [first - second for first, second in itertools.pairwise(places)]


def ones(count: int) -> Tensor:
    return torch.ones(count, 1)


# --- the learning rate ----------------------------------------------------------------------


def risen(config: TrainConfig, step: int, warm: int) -> float:
    return config.lr * (step + 1) / warm


def by_formula(config: TrainConfig, step: int, per_epoch: int, warm: int) -> float:
    """The rate of a step: constant or cosine, after a warm-up of so many steps."""
    if step < warm:
        return risen(config, step, warm)
    if config.schedule == "constant":
        return config.lr
    share = (step - warm) / (per_epoch * config.epochs - warm)
    return config.lr * 0.5 * (1 + math.cos(math.pi * share))


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize(
    ("epochs", "per_epoch", "warmup", "warm"),
    [
        (1, 1, 0.0, 0), (3, 7, 0.0, 0), (3, 7, 1.0, 7), (4, 10, 0.25, 2), (4, 10, 0.33, 3),
        (4, 10, 0.38, 4),
        (2, 5, 2.0, 10),
    ],
)  # fmt: skip
def test_constant_and_cosine_with_and_without_a_warm_up(
    schedule: str, epochs: int, per_epoch: int, warmup: float, warm: int
) -> None:
    config = TrainConfig(epochs=epochs, schedule=schedule, warmup=warmup, lr=0.3)  # type: ignore[arg-type]
    found = [learning_rate(config, step, per_epoch) for step in range(epochs * per_epoch)]
    wanted = [by_formula(config, s, per_epoch, warm) for s in range(epochs * per_epoch)]
    assert found == pytest.approx(wanted, rel=1e-12)
    if warm:
        assert found[0] == pytest.approx(0.3 / warm)
        assert found[warm - 1] == 0.3
    assert max(found) == 0.3


@given(epochs=st.integers(1, 9), per_epoch=st.integers(1, 30), lr=st.floats(1e-6, 10))
@settings(max_examples=40, deadline=None)
def test_one_cycle_is_torchs_to_the_bit(epochs: int, per_epoch: int, lr: float) -> None:
    steps = epochs * per_epoch
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=steps + 1, cycle_momentum=False
    )
    wanted = []
    for _ in range(steps):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    config = TrainConfig(epochs=epochs, lr=lr, schedule="one-cycle")
    assert [learning_rate(config, step, per_epoch) for step in range(steps)] == wanted


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle"])
@pytest.mark.parametrize(("size", "accumulate"), [(4, 1), (4, 2), (3, 4)])
def test_every_step_takes_its_own_rate(schedule: str, size: int, accumulate: int) -> None:
    """26 examples: batches of 4 are 7, of 3 are 9; two or four of them make a step."""
    per_epoch = math.ceil(math.ceil(26 / size) / accumulate)
    changes = {"schedule": schedule, "batch_size": size, "accumulate": accumulate}
    config = TrainConfig(epochs=3, lr=0.5, **{**PLAIN, **changes})  # type: ignore[arg-type]
    module = Slope()
    epochs = fit(module, Batches((ones(26),), size), config)
    moves = [move for move in module.moves() if move]
    wanted = [learning_rate(config, step, per_epoch) for step in range(3 * per_epoch)]
    assert moves == pytest.approx(wanted, rel=1e-9)
    assert [epoch.lr for epoch in epochs] == wanted[per_epoch - 1 :: per_epoch]


def test_parameters_have_rates_of_their_own() -> None:
    config = TrainConfig(epochs=2, lr=0.5, **{**PLAIN, "schedule": "cosine"})  # type: ignore[arg-type]
    module = Slope("abc")
    fit(module, Batches((ones(12),), 4), config, rates={"a": 0.25, "c": 0.0})
    wanted = [learning_rate(config, step, 3) for step in range(6)]
    assert module.moves("b") == pytest.approx(wanted)  # 1 where none is given
    assert module.moves("a") == pytest.approx([0.25 * rate for rate in wanted])
    assert module.moves("c") == [0.0] * 6


def test_a_rate_multiplies_decay_and_moment_alike() -> None:
    """AdamW at a third of the rate is AdamW of a third of the learning rate."""

    def trained(lr: float, rates: dict[str, float]) -> Tensor:
        torch.manual_seed(0)
        module = Line(3)
        config = TrainConfig(epochs=3, lr=lr, weight_decay=0.3, schedule="cosine")
        fit(module, Batches(points(21), 4), config, rates=rates)
        return module.weight.detach()

    assert torch.allclose(trained(0.03, {"weight": 1 / 3, "bias": 1 / 3}), trained(0.01, {}))


class Phase(nn.Module):
    """One complex weight, which is to become 1 + 1j."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.complex64))

    def forward(self, inputs: Tensor) -> Losses:
        return Losses((self.weight - (1 + 1j)).abs().square())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_complex_weights_are_trained(optimizer: Any) -> None:
    module = Phase()
    config = TrainConfig(epochs=20, batch_size=1, lr=0.1, optimizer=optimizer, weight_decay=0.0)
    fit(module, Batches((ones(10),), 1), config)
    assert abs(module.weight.item() - (1 + 1j)) < 0.2


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"warmup": 0.5},
            "warmup: the schedule one-cycle warms up by itself. Type --schedule cosine or constant,"
            " or leave --warmup out.",
        ),
        (
            {"warmup": 2.5, "epochs": 2, "schedule": "cosine"},
            "warmup: 2.5 epochs are more than --epochs 2.",
        ),
        (
            {"nesterov": True},
            "nesterov: it is a way of momentum. Type --optimizer sgd --momentum 0.9.",
        ),
        (
            {"nesterov": True, "optimizer": "sgd", "momentum": 0.0},
            "nesterov: it is a way of momentum. Type --optimizer sgd --momentum 0.9.",
        ),
        (
            {"patience": 3, "validation": 0},
            "patience: there is no validation figure with --validation 0.",
        ),
        (
            {"keep": "best", "validation": 0},
            "keep: there is no validation figure with --validation 0.",
        ),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadOption) as caught:
        check_training(TrainConfig(**options))  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"warmup": 2.0, "epochs": 2, "schedule": "constant"},
        {"warmup": 1.0, "epochs": 0, "schedule": "cosine"},
        {"nesterov": True, "optimizer": "sgd"},
        {"patience": 1, "keep": "best"},
        {"validation": 0},
    ],
)
def test_options_that_go_together(options: dict[str, object]) -> None:
    check_training(TrainConfig(**options))  # type: ignore[arg-type]


# --- gradients ------------------------------------------------------------------------------


class Line(nn.Module):
    """A linear map in double precision, with a matrix and a vector to train."""

    def __init__(self, width: int, outputs: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, width, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(outputs, dtype=torch.float64))

    def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
        found = inputs @ self.weight.T + self.bias
        return Losses(((found - targets) ** 2).sum(1).mean())


def points(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(count, 3, dtype=torch.float64, generator=generator)
    return inputs, torch.stack([inputs.sum(1), inputs[:, 0] ** 2], 1)


def line() -> Line:
    torch.manual_seed(1)
    return Line(3)


def closely(module: nn.Module, other: nn.Module) -> bool:
    pairs = zip(module.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in pairs)


@pytest.mark.parametrize("bound", [0.05, 4.0, 1e6])
def test_a_gradient_is_scaled_down_to_its_largest_norm(bound: float) -> None:
    config = TrainConfig(epochs=3, lr=0.02, clip_norm=bound, **PLAIN)  # type: ignore[arg-type]
    ours, theirs = line(), line()
    fit(ours, Batches(points(20), 4, seed=0), config)
    batches, scales = Batches(points(20), 4, seed=0), []
    for _ in range(3):
        for batch in batches:
            loss = theirs(*batch).total
            gradients = torch.autograd.grad(loss, list(theirs.parameters()))
            # One norm over all numbers there are, matrices' and vectors' alike.
            norm = math.sqrt(sum(float(g) ** 2 for each in gradients for g in each.flatten()))
            scales.append(min(1.0, bound / norm))
            with torch.no_grad():
                for parameter, gradient in zip(theirs.parameters(), gradients, strict=True):
                    parameter -= 0.02 * gradient * scales[-1]
    # torch adds 1e-6 to the norm that it divides by.
    assert torch.allclose(ours.weight, theirs.weight, rtol=1e-5, atol=1e-7)
    assert torch.allclose(ours.bias, theirs.bias, rtol=1e-5, atol=1e-7)
    clipped = [scale < 1 for scale in scales]
    assert {0.05: all(clipped), 4.0: len(set(clipped)) == 2, 1e6: not any(clipped)}[bound]


def test_a_norm_that_is_never_reached_changes_no_bit() -> None:
    config = {"epochs": 2, "lr": 0.02, **PLAIN}
    ours, theirs = line(), line()
    fit(ours, Batches(points(20), 4), TrainConfig(**config, clip_norm=1e6))  # type: ignore[arg-type]
    fit(theirs, Batches(points(20), 4), TrainConfig(**config))  # type: ignore[arg-type]
    assert torch.equal(ours.weight, theirs.weight)


# --- several batches, one step --------------------------------------------------------------


@given(count=st.integers(2, 60), size=st.integers(2, 9), many=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_batches_that_are_accumulated_are_one_larger_batch(
    count: int, size: int, many: int
) -> None:
    """Last batches and last groups of any size: each example weighs alike in its step."""
    shared = {"epochs": 2, "lr": 0.05, "schedule": "cosine", "optimizer": "sgd", "clip_norm": 3.0}
    ours, theirs = line(), line()
    found = fit(
        ours,
        Batches(points(count), size, seed=5),
        TrainConfig(batch_size=size, accumulate=many, **shared),  # type: ignore[arg-type]
    )
    wanted = fit(
        theirs,
        Batches(points(count), size * many, seed=5),
        TrainConfig(batch_size=size * many, **shared),  # type: ignore[arg-type]
    )
    assert closely(ours, theirs)
    assert [e.train["total"] for e in found] == pytest.approx([e.train["total"] for e in wanted])
    assert [e.lr for e in found] == [e.lr for e in wanted]


def test_a_parameter_without_a_gradient_stays_where_it_is() -> None:
    """As in a stage that is frozen for now: neither decay nor moments move it."""

    class Half(Line):
        def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
            return Losses(((inputs @ self.weight.T + self.bias.detach() - targets) ** 2).mean())

    module = Half(3)
    before = module.bias.detach().clone()
    fit(module, Batches(points(20), 4), TrainConfig(epochs=1, clip_norm=1.0))
    assert torch.equal(module.bias, before)
    assert module.bias.grad is None


class Deep(Line):
    """A line behind another matrix."""

    def __init__(self) -> None:
        super().__init__(3)
        self.first = nn.Parameter(torch.randn(3, 3, dtype=torch.float64))

    def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
        return super().forward(inputs @ self.first, targets)


def deep() -> Deep:
    torch.manual_seed(1)
    return Deep()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_parameter_may_begin_to_train_later(optimizer: str) -> None:
    """As a stage that thaws: its first step is one with no moment before it."""
    module, other = deep(), deep()

    def thaw(epoch: int) -> None:
        module.first.requires_grad_(epoch > 1)

    options = {"epochs": 3, "lr": 0.01, "optimizer": optimizer, "schedule": "constant"}
    config = TrainConfig(**options, weight_decay=0.1)  # type: ignore[arg-type]
    fit(module, Batches(points(12), 4), config, before_epoch=thaw)
    # Two optimizers that know nothing of each other, the one made an epoch later.
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    more = {"momentum": 0.9} if optimizer == "sgd" else {}
    plain = {"params": [other.bias], "weight_decay": 0.0}
    early = kind[optimizer]([plain, {"params": [other.weight]}], 0.01, weight_decay=0.1, **more)  # type: ignore[operator]
    late = kind[optimizer]([other.first], 0.01, weight_decay=0.1, **more)  # type: ignore[operator]
    for epoch in range(3):
        for batch in Batches(points(12), 4):
            other(*batch).total.backward()
            early.step()
            if epoch:
                late.step()
            other.zero_grad()
    assert closely(module, other)
