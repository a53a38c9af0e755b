"""The only training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zoo.api import Losses, TrainConfig
from zoo.data import Batches
from zoo.errors import TrainingError, UsageError
from zoo.progress import Task, current

Scheduler = torch.optim.lr_scheduler.LRScheduler


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One line of `metrics.jsonl`: means over the epoch's examples; `lr` is the last step's."""

    epoch: int
    seconds: float
    lr: float
    train: dict[str, float]
    validation: dict[str, float] | None


def fit(
    module: nn.Module,
    batches: Batches,
    config: TrainConfig,
    *,
    validation: Batches | None = None,
    watch: str = "total",
    title: str = "training",
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train a module whose `forward(*batch)` returns `Losses`; return its epochs.

    Parameters with `requires_grad` off are not trained. `watch` is the part shown as progress.
    `on_epoch` is called after each epoch. Raises `TrainingError` where the loss is not finite.
    """
    epochs: list[Epoch] = []
    if config.epochs == 0:
        return epochs
    optimizer = _optimizer(module, config)
    scheduler = _scheduler(optimizer, config, len(batches) * config.epochs)
    total = batches.examples * config.epochs
    with current().task(title, total, "examples") as task:
        for number in range(1, config.epochs + 1):
            started = time.perf_counter()
            module.train()
            sums = _Means()
            for batch in batches:
                losses: Losses = module(*batch)
                optimizer.zero_grad(set_to_none=True)
                losses.total.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                lr = optimizer.param_groups[0]["lr"]
                scheduler.step()
                sums.add(losses, len(batch[0]))
                if task.due():
                    done = (number - 1) * batches.examples + sums.count
                    _show(task, done, total, number, config.epochs, watch, sums, epochs)
            train = sums.means()  # waits for the device
            seconds = time.perf_counter() - started
            held = evaluate_losses(module, validation, config.seed) if validation else None
            _check_finite(train, number, config)
            _check_finite(held or {}, number, config)
            epochs.append(Epoch(number, seconds, lr, train, held))
            on_epoch(epochs[-1])
            _show(
                task, number * batches.examples, total, number, config.epochs, watch, sums, epochs
            )
    return epochs


def _check_finite(means: dict[str, float], epoch: int, config: TrainConfig) -> None:
    for name, value in means.items():
        if not math.isfinite(value):
            part = "" if name == "total" else f" part '{name}'"
            raise TrainingError(
                f"The loss{part} is {value} in epoch {epoch}."
                f" Type a smaller --lr than {config.lr:g}."
            )


@torch.no_grad()
def evaluate_losses(module: nn.Module, batches: Batches, seed: int) -> dict[str, float]:
    """Return the mean losses of a module in evaluation mode.

    What an objective draws is drawn from the same seed each time, and leaves training's own
    random numbers as they were, so that epochs compare.
    """
    module.eval()
    sums = _Means()
    used = {p.device for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=used):
        torch.manual_seed(seed)
        for batch in batches:
            sums.add(module(*batch), len(batch[0]))
    return sums.means()


@torch.no_grad()
def outputs(module: nn.Module, inputs: Tensor, *, batch_size: int = 256) -> Tensor:
    """Return a module's outputs for all inputs, in evaluation mode, on the CPU."""
    module.eval()
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    parts = [module(part.to(device)).cpu() for part in torch.split(inputs, batch_size)]
    return torch.cat(parts)


def seed_everything(seed: int) -> None:
    """Seed torch's global generators, those of every device included."""
    torch.manual_seed(seed)


def resolve_device(name: str) -> torch.device:
    """Return the device of a `--device` text; raises `UsageError` where it is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"The device '{name}' cannot be used: {reason}\nType --device cpu, or auto."
        ) from None
    if device.type == "meta":
        raise UsageError("The device 'meta' holds no numbers. Type --device cpu, or auto.")
    return device


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[int]:
    """Use `count` CPU threads within this block, or as many as torch chose; yields the number."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


class _Means:
    """Sums of losses over examples, kept on the device: reading them is what synchronizes."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, losses: Losses, count: int) -> None:
        self.count += count
        for name, value in {"total": losses.total.detach(), **losses.parts}.items():
            weighted = value * count
            self._sums[name] = self._sums[name] + weighted if name in self._sums else weighted

    def means(self) -> dict[str, float]:
        return {name: float(value) / max(1, self.count) for name, value in self._sums.items()}


def _show(
    task: Task,
    done: int,
    total: int,
    epoch: int,
    of: int,
    watch: str,
    sums: _Means,
    epochs: list[Epoch],
) -> None:
    means = sums.means()
    text = f"epoch {epoch}/{of}  loss {means.get(watch, means['total']):.4f}"
    if epochs and epochs[-1].validation:
        held = epochs[-1].validation
        name = "accuracy" if "accuracy" in held else watch
        text += f"  validation {name if name != 'total' else 'loss'} {held[name]:.4f}"
    task.update(done, total, text)


def _optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise TrainingError("Nothing is left to train: every parameter is frozen.")
    # Biases and the scales of norms are vectors; decay is for matrices and kernels.
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.lr, fused=True)
    assert config.optimizer == "adamw", config.optimizer
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def _scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig, steps: int) -> Scheduler:
    if config.schedule == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=config.lr, total_steps=steps + 1, cycle_momentum=False
        )
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    assert config.schedule == "constant", config.schedule
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
