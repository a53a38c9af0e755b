"""Losses and outputs in evaluation mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.api import Losses, TrainConfig
from zoo.data import Batches
from zoo.errors import OutOfMemory, ran_out
from zoo.memory import MEMORY, smaller
from zoo.training.devices import autocast, seed_everything
from zoo.training.footprint import batch_that_fits
from zoo.training.places import Place
from zoo.training.stopping import Stop, Stopped


class Means:
    """Sums of losses over examples, kept on the device: reading them is what synchronizes."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, losses: Losses, count: int) -> None:
        self.count += count
        for name, value in {"total": losses.total.detach(), **losses.parts}.items():
            weighted = value.float() * count
            self.sums[name] = self.sums[name] + weighted if name in self.sums else weighted

    def summed(self, place: Place) -> Means:
        """Return the sums over all processes."""
        if place.world == 1:
            return self
        whole = Means()
        names = sorted(self.sums)  # in the order in which every process has them
        own = torch.tensor(float(self.count), device=place.device, dtype=torch.float64)
        values = torch.stack([own, *(self.sums[name].double() for name in names)])
        count, *sums = place.total(values)
        whole.count, whole.sums = round(float(count)), dict(zip(names, sums, strict=True))
        return whole

    def means(self) -> dict[str, float]:
        return {name: float(value) / max(1, self.count) for name, value in self.sums.items()}


@torch.no_grad()
def evaluate_losses(
    module: nn.Module,
    batches: Batches,
    seed: int,
    *,
    config: TrainConfig | None = None,
    stop: Stop | None = None,
    place: Place | None = None,
) -> dict[str, float]:
    """Return the mean losses of a module in evaluation mode.

    What an objective draws is drawn from the same seed each time, and leaves training's own
    random numbers as they were, so that epochs compare. `config` says in which precision.
    Raises `Stopped` where `stop` was asked for.
    """
    module.eval()
    means = Means()
    config, place = config or TrainConfig(), place or Place(batches.device)
    used = {p.device for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=used):
        seed_everything(seed)
        for whole in batches:
            batch = place.share(whole)
            with autocast(config, batches.device):
                losses = module(*batch)
            means.add(losses, len(batch[0]))
            if stop and stop.asked:
                raise Stopped
    return means.summed(place).means()


@torch.no_grad()
def outputs(
    module: nn.Module, inputs: Tensor, *, batch_size: int | None = None, memory: int = MEMORY
) -> Tensor:
    """Return a module's outputs for all inputs, in evaluation mode, on the CPU.

    Without a batch size it is 256, or what `memory`, in bytes, allows; where memory ends, half of
    it. Raises `OutOfMemory` where one example is too much.
    """
    module.eval()
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    size = batch_size or batch_that_fits(module, inputs[:3].to(device), memory)
    try:
        return smaller(lambda some: _in_batches(module, inputs, some, device), size)
    except Exception as error:
        if not ran_out(error):
            raise
        raise OutOfMemory("PyTorch ran out of memory on a single example.") from error


def _in_batches(module: nn.Module, inputs: Tensor, size: int, device: torch.device) -> Tensor:
    """Copy what comes out at once: a view of it would hold a batch's whole activations."""
    found: Tensor | None = None
    for start in range(0, max(1, len(inputs)), size):
        part = module(inputs[start : start + size].to(device))
        if found is None:
            found = part.new_empty((len(inputs), *part.shape[1:]), device="cpu")
        found[start : start + size] = part
    assert found is not None
    return found
