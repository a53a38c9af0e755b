"""Contrastive learning of views: SimCLR."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import Backbone, Losses, gather
from zoo_objectives.configs import ContrastiveConfig
from zoo_objectives.projector import TwoViews, enough


class Contrastive(nn.Module):
    """NT-Xent, the normalized and temperature-scaled cross entropy (SimCLR, arXiv 2002.05709).

    Each view of a batch of N has to find its picture's other view among the 2N - 1 others, those
    of all processes, by cosine similarity of what the projector makes of the features. Parts:
    `found`, the share of views that find it; `alignment`, the mean squared distance of the two
    views, and `uniformity`, the logarithm of the mean of exp(-2 d²) over pairs of pictures, both on
    the unit sphere (arXiv 2005.10242): both fall as features get better.
    Raises `Unfit` for a batch of one.
    """

    def __init__(self, config: ContrastiveConfig, backbone: Backbone) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.two = TwoViews(config, config.widths, backbone)

    def forward(self, backbone: Backbone, inputs: Tensor, raw: Tensor) -> Losses:
        first, second = (gather(F.normalize(z)) for z in self.two(backbone, inputs))
        enough(first)
        with torch.autocast(first.device.type, enabled=False):
            return nt_xent(first, second, self.temperature)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Losses:
    """Return the loss of two views, N x D each, of length 1, and what it shows of them."""
    count = len(first)
    both = torch.cat([first, second])
    cosines = both @ both.T
    itself = torch.eye(2 * count, dtype=torch.bool, device=both.device)
    logits = (cosines / temperature).masked_fill(itself, -math.inf)
    other = torch.arange(2 * count, device=both.device).roll(count)
    with torch.no_grad():
        found = (logits.argmax(1) == other).float().mean()
        alignment = (first - second).square().sum(1).mean()
        # Pairs of different pictures, each view with views of its own draw.
        apart = torch.stack([cosines[:count, :count], cosines[count:, count:]])
        potential = (4 * apart - 4).exp()[:, ~itself[:count, :count]]  # d² = 2 - 2 cos
        uniformity = potential.mean(1).log().mean()
    return Losses(
        F.cross_entropy(logits, other),
        found=found,
        alignment=alignment,
        uniformity=uniformity,
    )
