"""What a classifier looked at: SmoothGrad, and whether its maps depend on the weights at all."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

NOISE = 0.15
"""Deviation of the noise, as a share of each example's range of values (arXiv 1706.03825)."""
PASSED_BELOW = 0.5
"""Mean rank correlation under which a sanity check has passed; the paper draws no line itself."""

Maps = Callable[[nn.Module, Tensor], Tensor]
"""A model and raw examples, N x C x H x W -> maps, N x H x W."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sanity:
    """Rank correlations of the maps of a trained model with those of the same, reinitialised.

    One an example; NaN where a map is constant. `mean` and `deviation` leave these out.
    """

    maps: Tensor
    control: Tensor
    correlations: list[float]

    @property
    def defined(self) -> list[float]:
        return [value for value in self.correlations if not np.isnan(value)]

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.defined)) if self.defined else None

    @property
    def deviation(self) -> float:
        return float(np.std(self.defined))

    @property
    def passed(self) -> bool:
        return self.mean is not None and self.mean < PASSED_BELOW


def smoothgrad(model: nn.Module, raw: Tensor, *, samples: int, seed: int = 0) -> Tensor:
    """Return how much each place of an input moves the logit of the class that is predicted.

    raw: N x C x H x W, on the scale of bytes -> N x H x W, not negative: the largest absolute value
    over the channels of the gradient, averaged over `samples` noisy copies (arXiv 1706.03825).
    """
    model.eval()
    raw = raw.float()
    with torch.no_grad():
        chosen = model(raw).argmax(1, keepdim=True)
    spread = raw.flatten(1)
    deviation = NOISE * (spread.amax(1) - spread.amin(1)).view(-1, 1, 1, 1)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(raw)
    for _ in range(samples):
        noisy = raw + deviation * torch.randn(raw.shape, generator=generator)
        noisy.requires_grad_(True)
        score = model(noisy).gather(1, chosen).sum()
        total += torch.autograd.grad(score, noisy)[0]
    return (total / samples).abs().amax(1)


def reinitialised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return a copy whose weights are drawn anew.

    A layer that can be reset is; of a parameter whose layer cannot, the values are shuffled. The
    global generator is left as it was.
    """
    other = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in other.modules():
            reset: Any = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for parameter in module.parameters(recurse=False):
                order = torch.randperm(parameter.numel())
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other.eval()


def check(model: nn.Module, raw: Tensor, maps: Maps, *, seed: int = 0) -> Sanity:
    """Compare a model's maps with those of the same model with weights drawn anew.

    Maps that stay alike show the input, not what the model learned: the model parameter
    randomization test of Adebayo et al. (arXiv 1810.03292), all layers at once.
    """
    from scipy.stats import rankdata

    trained, control = maps(model, raw), maps(reinitialised(model, seed), raw)
    correlations = []
    for one, other in zip(trained.flatten(1), control.flatten(1), strict=True):
        ranks = [rankdata(each.double().numpy()) for each in (one, other)]
        varied = all(np.isfinite(rank).all() and np.ptp(rank) > 0 for rank in ranks)
        correlations.append(float(np.corrcoef(*ranks)[0, 1]) if varied else float("nan"))
    return Sanity(maps=trained, control=control, correlations=correlations)
