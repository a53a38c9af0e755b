"""What is watched in training: the figure of validation, and a loss that is no number."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from zoo.api import TrainConfig
from zoo.errors import NotFinite
from zoo.training.places import Place


@dataclasses.dataclass(frozen=True)
class Goal:
    """The part of the losses that tells how good a module is, and whether more of it is better."""

    part: str = "total"
    rises: bool = False

    def better(self, figure: float, than: float | None) -> bool:
        if than is None:
            return True
        return figure > than if self.rises else figure < than

    @property
    def word(self) -> str:
        return "loss" if self.part == "total" else self.part


LOSS = Goal()


class Finite:
    """Whether every loss so far was finite; on a device, asked for now and then only.

    There a question waits for all that was queued, so a step that failed is noted on the device.
    """

    def __init__(self, config: TrainConfig, place: Place) -> None:
        self._config, self._place = config, place
        # One of several processes that stopped by itself would leave the others waiting for it.
        self._at_once = place.device.type == "cpu" and place.world == 1
        self._failed = torch.full((), 0, dtype=torch.int64, device=place.device)

    def see(self, total: Tensor, epoch: int, step: int) -> None:
        """Look at the loss of step `step`, from 1; raises `NotFinite` at once on a CPU."""
        if self._at_once:
            value = total.item()
            if not math.isfinite(value):
                raise _no_number("", value, epoch, step, self._config)
        else:
            fresh = (self._failed == 0) & ~torch.isfinite(total.detach())
            self._failed = torch.where(fresh, step, self._failed)

    def check(self, epoch: int) -> None:
        """Raise `NotFinite` where a step failed; waits for the device."""
        if self._at_once:
            return
        steps = [int(each) for each in self._place.each(self._failed) if int(each)]
        if steps:
            raise _no_number("", math.nan, epoch, min(steps), self._config)


def check_means(means: dict[str, float], epoch: int, step: int, config: TrainConfig) -> None:
    """Raise `NotFinite` where an epoch's mean is no number."""
    for name, value in means.items():
        if not math.isfinite(value):
            part = "" if name == "total" else f" part '{name}'"
            raise _no_number(part, value, epoch, step, config)


def _no_number(part: str, value: float, epoch: int, step: int, config: TrainConfig) -> NotFinite:

    return NotFinite(
        f"The loss{part} is {value} at step {step:,}, in epoch {epoch}."
        f" Type a smaller --lr than {config.lr:g}.",
        config.lr,
    )
