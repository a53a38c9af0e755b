"""Learning from views without negatives: VICReg and Barlow Twins."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import Backbone, Losses, gather
from zoo_objectives.configs import RedundancyConfig
from zoo_objectives.projector import TwoViews, enough

SMALLEST_VARIANCE = 1e-4
"""What VICReg adds to a variance, so that its root has a gradient at 0."""
SMALLEST_DEVIATION = 1e-5
"""What batch normalization adds to the variance in Barlow Twins."""


class Redundancy(nn.Module):
    """Bring two views together and keep their embedding's dimensions apart.

    `kind` "vicreg" is VICReg (arXiv 2105.04906), "barlow" Barlow Twins (arXiv 2103.03230). Both
    are computed over the rows of all processes. `deviation` is the mean standard deviation of the
    embedding's dimensions: near 0 it has collapsed. Raises `Unfit` for a batch of one.
    """

    def __init__(self, config: RedundancyConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.two = TwoViews(config, config.widths, backbone)

    def forward(self, backbone: Backbone, inputs: Tensor, raw: Tensor) -> Losses:
        first, second = (gather(z) for z in self.two(backbone, inputs))
        enough(first)
        with torch.autocast(first.device.type, enabled=False):
            if self.config.kind == "barlow":
                return barlow_twins(first, second, self.config.redundancy)
            weights = self.config.invariance, self.config.variance, self.config.covariance
            return vicreg(first, second, weights)


def vicreg(first: Tensor, second: Tensor, weights: tuple[float, float, float]) -> Losses:
    """Weigh invariance, variance and covariance of two embeddings, N x D each.

    As in the authors' code, whose weights are the usual ones: `invariance` is the mean squared
    difference, `variance` the mean over dimensions and views of max(0, 1 - deviation),
    `covariance` the sum over both views of squared covariances off the diagonal, divided by D.
    """
    invariance = F.mse_loss(first, second)
    deviations = [(z.var(0) + SMALLEST_VARIANCE).sqrt() for z in (first, second)]
    variance = torch.cat([F.relu(1 - deviation) for deviation in deviations]).mean()
    centred = [z - z.mean(0) for z in (first, second)]
    covariances = [_off_diagonal(z.T @ z / (len(z) - 1)).square().sum() for z in centred]
    covariance = torch.stack(covariances).sum() / first.shape[1]
    parts = {"invariance": invariance, "variance": variance, "covariance": covariance}
    total = torch.stack([w * p for w, p in zip(weights, parts.values(), strict=True)]).sum()
    return Losses(total, **parts, deviation=torch.cat(deviations).mean())


def barlow_twins(first: Tensor, second: Tensor, weight: float) -> Losses:
    """Make the cross-correlation of two embeddings, N x D each, the identity.

    `on_diagonal` is the sum of (1 - c_ii)², `off_diagonal` that of c_ij², before its weight.
    """
    deviations = [z.std(0, correction=0) for z in (first, second)]
    one, two = (
        (z - z.mean(0)) / (z.var(0, correction=0) + SMALLEST_DEVIATION).sqrt()
        for z in (first, second)
    )
    correlation = one.T @ two / len(one)  # D x D
    on_diagonal = (1 - correlation.diagonal()).square().sum()
    off_diagonal = _off_diagonal(correlation).square().sum()
    return Losses(
        on_diagonal + weight * off_diagonal,
        on_diagonal=on_diagonal,
        off_diagonal=off_diagonal,
        deviation=torch.cat(deviations).mean(),
    )


def _off_diagonal(square: Tensor) -> Tensor:
    """Return a D x D tensor with zeros on its diagonal."""
    return square - torch.diag(square.diagonal())
