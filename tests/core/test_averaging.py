"""Which weights are validated and kept: the average, the best epoch's, the last one's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import pipeline
from zoo.api import Component, FinetuneConfig, Losses, TrainConfig
from zoo.data import Batches
from zoo.pipeline import Workspace
from zoo.training import Epoch, Goal, evaluate_losses, fit, kept_of

CONFIG = {"epochs": 4, "batch_size": 8, "optimizer": "sgd", "lr": 0.1, "schedule": "constant"}

State = dict[str, Tensor]


class Net(nn.Module):
    """A small network with the statistics and the counter of a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1)
        )

    def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
        found = self.net(inputs).flatten()
        return Losses(
            F.mse_loss(found, targets), near=(found - targets).abs().lt(0.5).float().mean()
        )


def examples(count: int, seed: int = 7) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return inputs, inputs.sum(1).tanh()


def made() -> Net:
    torch.manual_seed(0)
    return Net()


def batches() -> Batches:
    return Batches(examples(45), 8, seed=0)


def held() -> Batches:
    return Batches(examples(20, seed=8), 8)


def state(module: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**(CONFIG | changes))  # type: ignore[arg-type]


def equal(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


# --- the moving average ---------------------------------------------------------------------


def averages(decay: float, accumulate: int = 1) -> list[State]:
    """Train by hand in double, and return the average after each epoch, statistics included."""
    module, average, step, found = made(), state(made()), 0, []
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    ordered = batches()
    module.train()
    for _ in range(4):
        pending: list[tuple[Tensor, ...]] = []
        epoch = list(ordered)
        for number, batch in enumerate(epoch, 1):
            pending.append(batch)
            if len(pending) < accumulate and number < len(epoch):
                continue
            examples = sum(len(each[0]) for each in pending)
            for each in pending:
                (module(*each).total * len(each[0]) / examples).backward()
            optimizer.step()
            optimizer.zero_grad()
            pending, step = [], step + 1
            d = min(decay, (1 + step) / (10 + step))
            for name, tensor in module.state_dict().items():
                if tensor.is_floating_point():
                    average[name] = d * average[name].double() + (1 - d) * tensor.double()
                else:
                    average[name] = tensor.clone()
        found.append({name: tensor.clone() for name, tensor in average.items()})
    return found


def validated(average: State) -> float:
    module = made()
    module.load_state_dict(average)
    return evaluate_losses(module, held(), 0)["total"]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("decay", [0.5, 0.9, 0.99])
def test_the_average_is_what_is_validated_and_left(decay: float, accumulate: int) -> None:
    """It warms up: in 24 steps (1 + t) / (10 + t) comes past 0.5, and not to 0.9."""
    module = made()
    told = fit(
        module,
        batches(),
        config(ema=decay, accumulate=accumulate, weight_decay=0.0),
        validation=held(),
    )
    wanted = averages(decay, accumulate)
    for name, tensor in module.state_dict().items():
        assert torch.allclose(tensor.double(), wanted[-1][name].double(), atol=1e-5), name
    assert int(module.net[1].num_batches_tracked) == 4 * 6  # counted, not averaged
    for epoch, average in zip(told, wanted, strict=True):
        assert epoch.validation is not None
        assert epoch.validation["total"] == pytest.approx(validated(average), rel=1e-4)


def test_averaging_leaves_training_alone() -> None:
    """The weights that are trained are never the average's, in whatever epoch it is validated."""
    plain = fit(made(), batches(), config(), validation=held())
    averaged = fit(made(), batches(), config(ema=0.9), validation=held())
    assert [e.train for e in averaged] == [e.train for e in plain]
    assert [e.validation for e in averaged] != [e.validation for e in plain]


def test_a_constant_that_is_infinite_stays_so() -> None:
    """As a mask of attention does, which many keep in their state."""
    mask = torch.full((2, 2), -torch.inf).triu(1)

    class Masked(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", mask.clone())

        def forward(self, inputs: Tensor, targets: Tensor) -> Losses:
            assert torch.equal(self.mask, mask)  # type: ignore[arg-type]
            return super().forward(inputs, targets)

    module = Masked()
    fit(module, batches(), config(ema=0.9, keep="best"), validation=held())
    assert torch.equal(module.mask, mask)  # type: ignore[arg-type]


# --- the best epoch -------------------------------------------------------------------------


class Falling(nn.Module):
    """Each step moves its weight by one; it is told what it is worth in each epoch."""

    def __init__(self, figures: list[float], part: str = "total") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))
        self.register_buffer("steps", torch.zeros(1))
        self.register_buffer("anew", torch.zeros(1))
        self.figures, self.part, self.asked = figures, part, 0

    def forward(self, inputs: Tensor) -> Losses:
        if self.training:
            self.steps += 1
            self.anew = self.anew + 1  # not in place, as many write it
            return Losses(-self.weight.sum(), figure=torch.zeros(()))
        figure = torch.tensor(self.figures[self.asked])
        self.asked += 1
        worth = figure if self.part == "total" else torch.zeros(())
        return Losses(worth, figure=figure)


ONE_STEP = Batches((torch.ones(3, 1),), 3)
"""One step an epoch, and one batch of validation."""

FALLING, RISING = Goal(), Goal("figure", rises=True)

UNIT = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}


def judged(
    figures: list[float], goal: Goal = FALLING, **changes: object
) -> tuple[Falling, list[Epoch]]:
    module = Falling(figures, goal.part)
    epochs = fit(
        module,
        ONE_STEP,
        config(epochs=len(figures), **UNIT, **changes),
        validation=ONE_STEP,
        goal=goal,
    )
    return module, epochs


@pytest.mark.parametrize(
    ("figures", "goal", "best"),
    [
        ([5.0, 3.0, 4.0, 4.0], FALLING, 2),
        ([5.0, 3.0, 4.0, 3.0], FALLING, 2),  # of equal ones the first
        ([5.0, 4.0, 3.0, 2.0], FALLING, 4),
        ([1.0, 2.0, 3.0, 4.0], FALLING, 1),
        ([5.0, 3.0, 4.0, 4.0], RISING, 1),
        ([0.1, 0.3, 0.2, 0.3], RISING, 2),
        ([0.0, 0.0, 0.5, 0.4], RISING, 3),
        ([-1.0, -2.0, -1.5, 0.0], Goal("figure"), 2),
    ],
)
def test_the_best_epochs_weights_are_kept(figures: list[float], goal: Goal, best: int) -> None:
    module, epochs = judged(figures, goal, keep="best")
    assert len(epochs) == 4
    assert module.weight.item() == best
    assert kept_of(epochs, config(keep="best"), goal).epoch == best
    assert kept_of(epochs, config(), goal).epoch == 4
    assert module.steps.item() == best  # what lies beside the weights is the same epoch's
    last, _ = judged(figures, goal)
    assert last.weight.item() == 4


def test_a_run_states_the_figures_of_the_weights_it_keeps(workspace: Workspace) -> None:
    training = TrainConfig(epochs=6, batch_size=20, lr=0.05, keep="best", threads=1)
    run = pipeline.finetune(
        backbone=Component("mlp", widths=(8,), features=4),
        training=training,
        finetune=FinetuneConfig(labels=200),
        workspace=workspace,
    )
    reached = [epoch["validation"]["accuracy"] for epoch in run.metrics()]
    assert run.record.metrics["validation"]["accuracy"] == max(reached)
    assert run.record.metrics["kept_epoch"] == 1 + reached.index(max(reached))


def test_the_best_epochs_average_is_kept() -> None:
    """Weight t after step t; the average by its formula, that of the second epoch."""
    module, _ = judged([5.0, 3.0, 4.0, 4.0], keep="best", ema=0.5)
    average = 0.0
    for step in (1, 2):
        d = min(0.5, (1 + step) / (10 + step))
        average = d * average + (1 - d) * step
    assert module.weight.item() == pytest.approx(average)


@pytest.mark.parametrize("options", [{"keep": "best"}, {"ema": 0.5}, {"keep": "best", "ema": 0.5}])
def test_a_buffer_that_is_assigned_anew_is_kept_with_the_weights(options: dict[str, Any]) -> None:
    module, _ = judged([5.0, 3.0, 4.0, 4.0], **options)
    assert module.anew.item() == pytest.approx(module.weight.item())
    assert module.weight.item() != 4


def test_the_best_of_a_real_module_is_the_epoch_it_was() -> None:
    """Against one that was stopped there; a rate this large makes the figures jump."""
    best = made()
    epochs = fit(best, batches(), config(epochs=7, keep="best"), validation=held())
    losses = [epoch.validation["total"] for epoch in epochs if epoch.validation]
    number = losses.index(min(losses)) + 1
    assert 1 < number < 7
    stopped = made()
    fit(stopped, batches(), config(epochs=number), validation=held())
    assert equal(state(best), state(stopped))


# --- patience -------------------------------------------------------------------------------


def stops_after(figures: list[float], patience: int, goal: Goal) -> int:
    """After which epoch patience is at its end, by looking back from each."""
    sign = 1 if goal.rises else -1
    for epoch in range(1, len(figures) + 1):
        seen = [sign * figure for figure in figures[:epoch]]
        if epoch - (seen.index(max(seen)) + 1) >= patience:
            return epoch
    return len(figures)


@pytest.mark.parametrize("goal", [FALLING, RISING], ids=["falls", "rises"])
@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize(
    "figures",
    [
        [5.0, 4.0, 3.0, 2.0, 1.0, 0.5],
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        [3.0, 4.0, 2.0, 3.0, 3.0, 1.0],
        [2.0, 2.0, 2.0, 2.0, 2.0, 2.0],  # as good is not better
    ],
)
def test_training_stops_when_patience_ends(figures: list[float], patience: int, goal: Goal) -> None:
    module, epochs = judged(figures, goal, patience=patience)
    assert len(epochs) == stops_after(figures, patience, goal)
    assert module.weight.item() == len(epochs)  # the last epoch's, unless the best is kept
    assert module.asked == len(epochs)


def test_patience_and_the_best_weights_go_together() -> None:
    module, epochs = judged([3.0, 2.0, 4.0, 4.0, 1.0], patience=2, keep="best")
    assert len(epochs) == 4
    assert module.weight.item() == 2


def test_a_goal_says_what_is_better() -> None:
    assert Goal().better(1.0, 2.0)
    assert not Goal().better(2.0, 2.0)
    assert Goal(rises=True).better(3.0, 2.0)
    assert not Goal(rises=True).better(2.0, 2.0)
    for goal in (Goal(), Goal(rises=True)):
        assert goal.better(0.0, None)
        assert not goal.better(math.nan, 1.0)
    assert (Goal().word, Goal("accuracy", rises=True).word) == ("loss", "accuracy")


def test_without_validation_the_last_weights_are_kept() -> None:
    ours, theirs = made(), made()
    fit(ours, batches(), config(keep="best", patience=1))
    fit(theirs, batches(), config())
    assert equal(state(ours), state(theirs))
