"""Whether a module trains, and in which layout: one step, before there is anything to train on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from zoo.api import Losses, TrainConfig
from zoo.errors import ran_out
from zoo.training.devices import autocast, generators_kept, lay_out
from zoo.training.places import Batch, Place, innermost


@dataclasses.dataclass(frozen=True)
class Tried:
    """What came of a trial: the config to train with.

    `error` is what it raised laid out, where it trains contiguous alone and `config` says so. It
    was not `tried` where memory did not suffice: training itself will say so, if it must.
    """

    config: TrainConfig
    error: Exception | None = None
    tried: bool = True


def try_step(
    build: Callable[[], nn.Module], batch: Batch, held: Batch, config: TrainConfig, place: Place
) -> Tried:
    """Build a module and take a step as `fit` would: on `batch`, then on `held` in evaluation.

    Where a layout is asked for and only that fails, with another build it goes on without, and the
    config that is returned says so. Raises what the module raises in any layout; torch's generators
    stay as they were, but for what `build` draws.
    """
    error: Exception | None = None
    for laid_out in (True, False) if innermost(config, place) else (False,):
        try:
            _step(build(), batch, held, config, place, laid_out)
        except Exception as raised:
            if ran_out(raised):
                return Tried(config, tried=False)
            if not laid_out:
                raise
            error = raised
            continue
        if error is not None:
            config = dataclasses.replace(config, channels_last=False)
        return Tried(config, error)
    raise AssertionError("the last layout either goes or raises")


def _step(
    module: nn.Module,
    batch: Batch,
    held: Batch,
    config: TrainConfig,
    place: Place,
    laid_out: bool,
) -> None:
    module.to(place.device)
    if laid_out:
        lay_out(module)
    with generators_kept(place.device), torch.enable_grad():
        module.train()
        with autocast(config, place.device):
            losses: Losses = module(*(tensor.to(place.device) for tensor in batch))
        trained = [weight for weight in module.parameters() if weight.requires_grad]
        if trained:  # where nothing is left to train, `fit` says so
            torch.autograd.grad(losses.total, trained, allow_unused=True)
        module.eval()
        with torch.no_grad(), autocast(config, place.device):
            module(*(tensor.to(place.device) for tensor in held))
