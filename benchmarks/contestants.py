"""The loops that are compared. Each trains a workload's fresh copy and returns its epochs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import Compose, Normalize, ToTensor
from workloads import Workload

from zoo.training import Epoch, fit


@dataclasses.dataclass(frozen=True)
class Lap:
    """One epoch; the accuracy was measured after the clock had stopped."""

    seconds: float
    loss: float | None = None
    accuracy: float | None = None


def ours(workload: Workload) -> list[Lap]:
    """`zoo.training.fit`, without validation."""
    module = workload.fresh()
    laps: list[Lap] = []

    def record(epoch: Epoch) -> None:
        laps.append(Lap(epoch.seconds, epoch.train["total"], workload.accuracy(module)))

    fit(module, workload.batches(), workload.config, on_epoch=record)
    return laps


def tutorial(workload: Workload) -> list[Lap]:
    """The loop of the tutorials: PIL images of torchvision, a DataLoader with 2 workers."""
    return over_loader(workload, tutorial_loader(workload))


def over_loader(workload: Workload, loader: DataLoader[tuple[Tensor, Tensor]]) -> list[Lap]:
    """Train on what a DataLoader yields, preprocessed inputs and labels, as tutorials do."""
    module = workload.fresh()
    optimizer, schedule = optimizer_of(workload, module)
    laps = []
    for _ in workload.orders:
        started = time.perf_counter()
        running = 0.0
        for inputs, labels in loader:
            loss = workload.loss(module, inputs, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if schedule:
                schedule.step()
            running += loss.item() * len(inputs)
        mean = running / len(workload.train)
        laps.append(Lap(time.perf_counter() - started, mean, workload.accuracy(module)))
    return laps


def bare(workload: Workload, *, as_trained: bool = False) -> list[Lap]:
    """The shortest loop by hand: rows of the uint8 tensor, floats from -1 to 1, the same step.

    Its optimizer is fused, as ours is. It logs the mean loss and nothing else. `as_trained` lays
    the weights out in memory as `fit` does.
    """
    module = workload.as_trained() if as_trained else workload.fresh()
    images, labels = workload.examples.inputs, workload.labels
    optimizer, schedule = optimizer_of(workload, module, fused=True)
    laps = []
    for order in workload.orders:
        started = time.perf_counter()
        running = torch.zeros(())
        for chosen in order:
            inputs = to_floats(images.index_select(0, chosen))
            loss = workload.loss(module, inputs, labels.index_select(0, chosen))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if schedule:
                schedule.step()
            running += loss.detach() * len(chosen)
        mean = running.item() / len(workload.train)
        laps.append(Lap(time.perf_counter() - started, mean, workload.accuracy(module)))
    return laps


class Order:
    """The batches of positions that a DataLoader is to take, epoch after epoch."""

    def __init__(self, workload: Workload) -> None:
        self._epochs = iter([[c.tolist() for c in order] for order in workload.orders])
        self._steps = len(workload.orders[0])

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[list[int]]:
        yield from next(self._epochs)


def tutorial_loader(workload: Workload) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return the tutorials' loader; only the order is ours, and its seed drawn aside."""
    reader = getattr(torchvision.datasets, workload.torchvision)
    images = reader(str(workload.root), transform=Compose([ToTensor(), Normalize((0.5,), (0.5,))]))
    # Without a generator of its own a loader would draw from the one that the objective uses.
    return DataLoader(
        images, batch_sampler=Order(workload), num_workers=2, generator=torch.Generator()
    )


def optimizer_of(
    workload: Workload, module: nn.Module, *, fused: bool | None = None
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
    """Return the workload's optimizer and schedule, built by torch's classes alone."""
    config = workload.config
    trained = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trained, "weight_decay": 0.0}]
    if config.weight_decay:  # not for biases and the scales of norms
        matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    else:
        optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=fused)
    if config.schedule == "constant":
        return optimizer, None
    assert config.schedule == "one-cycle", config.schedule
    steps = sum(map(len, workload.orders)) + 1  # as many as fit gives it
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=config.lr, total_steps=steps, cycle_momentum=False
    )


def to_floats(raw: Tensor) -> Tensor:
    """Return bytes as floats from -1 to 1: what both backbones are given."""
    return raw.to(torch.float32).mul_(2 / 255).sub_(1)
