"""The exponential moving average of a module's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from zoo.training.places import like, local


class Average:
    """Average what a module's state holds, step by step, with a decay that warms up.

    After step t: average = d · average + (1 - d) · weights, d = min(decay, (1 + t) / (10 + t)), as
    in TensorFlow's ExponentialMovingAverage: without the warm-up a short run's average would be its
    first weights. Running statistics of norms are averaged alike; counters and masks are copied.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._module = module
        self.tensors = {name: tensor.clone() for name, tensor in self._live.items()}
        # Counters have no average, nor has a mask of infinities.
        self._averaged = [
            name
            for name, tensor in self.tensors.items()
            if tensor.is_floating_point() and bool(torch.isfinite(local(tensor)).all())
        ]

    @property
    def _live(self) -> dict[str, Tensor]:
        return state_of(self._module)  # a module may put other tensors in place of its buffers

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after step `step`, counted from 1, into the average."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        live = self._live
        names = self._averaged
        held = [local(self.tensors[name]) for name in names]  # shards average as the whole does
        torch._foreach_lerp_(held, [local(live[name]) for name in names], share)
        for name in live.keys() - set(names):
            self.tensors[name].copy_(live[name])

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        put(self.tensors, tensors)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the module within this block, and the weights back after it."""
        kept = {name: tensor.clone() for name, tensor in self._live.items()}
        put(self._live, self.tensors)
        try:
            yield
        finally:
            put(self._live, kept)

    def keep(self) -> None:
        """Put the average into the module for good."""
        put(self._live, self.tensors)


@torch.no_grad()
def put(live: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a module's own, each under its name."""
    for name, tensor in live.items():
        given = tensors[name]
        tensor.copy_(given if type(given) is type(tensor) else like(given, tensor))


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a module's state, the very ones it computes with."""
    found = module.state_dict(keep_vars=True)
    return {n: t.detach() for n, t in found.items() if isinstance(t, Tensor)}
