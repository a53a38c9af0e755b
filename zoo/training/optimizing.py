"""One optimizer step: update rules, the learning rate of every step, the gradient's norm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from zoo.api import TrainConfig
from zoo.errors import BadOption, Unfit
from zoo.training.places import like


def check_training(config: TrainConfig) -> None:
    """Refuse options that contradict each other, before any data is loaded; `BadOption`."""
    if config.warmup and config.schedule == "one-cycle":
        raise BadOption(
            "warmup: the schedule one-cycle warms up by itself. Type --schedule cosine or constant,"
            " or leave --warmup out."
        )
    if config.warmup > config.epochs > 0:
        raise BadOption(f"warmup: {config.warmup:g} epochs are more than --epochs {config.epochs}.")
    if config.nesterov and (config.optimizer != "sgd" or config.momentum == 0):
        raise BadOption("nesterov: it is a way of momentum. Type --optimizer sgd --momentum 0.9.")
    for name, wanted in (("patience", config.patience), ("keep", config.keep == "best")):
        if wanted and config.validation == 0:
            raise BadOption(f"{name}: there is no validation figure with --validation 0.")


class Optimizer:
    """torch's optimizer of a module's trained parameters, told the learning rate of each step.

    `rates` gives the factor of the learning rate of parameters by name; 1 where there is none.
    A parameter without a gradient, as in a frozen stage, stays as it is.
    """

    def __init__(
        self,
        module: nn.Module,
        config: TrainConfig,
        steps_per_epoch: int,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self._config = config
        self._per_epoch = steps_per_epoch
        groups = _groups(module, config, rates or {})
        self.parameters = [p for group in groups for p in group["params"]]
        fused = all(p.is_floating_point() for p in self.parameters)  # not of complex numbers
        if config.optimizer == "sgd":
            # torch has no fused sgd of shards.
            fused = fused and not any(isinstance(p, DTensor) for p in self.parameters)
            self.torch: torch.optim.Optimizer = torch.optim.SGD(
                groups, config.lr, config.momentum, nesterov=config.nesterov, fused=fused
            )
        elif config.optimizer == "adam":
            self.torch = torch.optim.Adam(groups, config.lr, fused=fused)
        else:
            assert config.optimizer == "adamw", config.optimizer
            self.torch = torch.optim.AdamW(groups, config.lr, fused=fused)
        self._still = self._without_momentum()

    def step(self, number: int) -> float:
        """Take step `number`, from 0, with the gradients at hand; return its learning rate."""
        lr = learning_rate(self._config, number, self._per_epoch)
        for group in self.torch.param_groups:
            group["lr"] = lr * group["factor"]
        if self._config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self._config.clip_norm)
        if self._still:
            self._begin_momentum()
        self.torch.step()
        for parameter in self.parameters:
            parameter.grad = None  # torch's zero_grad takes ten times as long for it
        return lr

    def _begin_momentum(self) -> None:
        """Give what is trained from now on a momentum too: torch's sgd takes all or none."""
        for parameter in self._still:
            if parameter.grad is not None:
                self.torch.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self._still = self._without_momentum()

    def _without_momentum(self) -> list[nn.Parameter]:
        if self._config.optimizer != "sgd" or not self._config.momentum:
            return []
        held = self.torch.state
        return [p for p in self.parameters if "momentum_buffer" not in held[p]]

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the moments, and what else there is for each parameter."""
        tensors, rest = {}, {}
        for index, values in self.torch.state_dict()["state"].items():
            for name, value in values.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{index}.{name}"] = value
                else:
                    rest[f"{index}.{name}"] = value
        return tensors, rest

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor], rest: Mapping[str, Any]) -> None:
        state: dict[int, dict[str, Any]] = {}
        for key, value in {**rest, **tensors}.items():
            index, _, name = key.partition(".")
            parameter = self.parameters[int(index)]
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                # Laid out as its parameter is: fused updates walk both in memory's order.
                value = like(value, parameter)
            state.setdefault(int(index), {})[name] = value
        groups = self.torch.state_dict()["param_groups"]
        self.torch.load_state_dict({"state": state, "param_groups": groups})
        self._still = self._without_momentum()


def learning_rate(config: TrainConfig, step: int, per_epoch: int) -> float:
    """Return the learning rate of step `step`, from 0: a function of the step and nothing else.

    cosine falls to 0 (arXiv 1608.03983, no restarts); one-cycle rises from a 25th over three tenths
    of the run and falls to a 250,000th (arXiv 1708.07120), as torch's OneCycleLR does, its momentum
    left alone. With a warm-up of w steps, step s < w takes the share (s + 1) / w of the rate.
    """
    steps = per_epoch * config.epochs
    if config.schedule == "one-cycle":
        peak = 0.3 * (steps + 1) - 1
        if step <= peak:
            return _cosine(config.lr / 25, config.lr, step / peak)
        return _cosine(config.lr, config.lr / 25 / 1e4, (step - peak) / (steps - peak))
    warm = round(config.warmup * per_epoch)
    if step < warm:
        return config.lr * (step + 1) / warm
    if config.schedule == "cosine":
        return _cosine(config.lr, 0.0, (step - warm) / max(1, steps - warm))
    assert config.schedule == "constant", config.schedule
    return config.lr


def _cosine(start: float, stop: float, share: float) -> float:
    return stop + (start - stop) / 2.0 * (math.cos(math.pi * share) + 1)


def _groups(
    module: nn.Module, config: TrainConfig, rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Sort the trained parameters by factor of the rate and by whether they decay."""
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        # Biases and the scales of norms are vectors; decay is for matrices and kernels.
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        factor = rates.get(name, 1.0)
        empty = {"params": [], "weight_decay": decay, "factor": factor}
        groups.setdefault((factor, decay), empty)["params"].append(parameter)
    if not groups:
        raise Unfit("Nothing is left to train: every parameter is frozen.")
    return [groups[key] for key in sorted(groups, reverse=True)]
