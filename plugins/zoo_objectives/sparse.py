"""Autoencoders whose codes are sparse."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import Backbone, Losses, gather
from zoo_objectives.configs import SparseConfig


class Sparse(nn.Module):
    """Mean squared error through a code of which little is active; `total` adds a penalty.

    "kl": the code is the sigmoid of the features, and the penalty the sum over units of the
    divergence KL(activation || mean activation in the batch) (Ng, Sparse autoencoder, CS294A
    lecture notes, 2011). "l1": the code is the ReLU of the features, and the penalty the sum of its
    values (Glorot et al., Deep sparse rectifier neural networks, AISTATS 2011). "top-k": the
    features with the largest values are decoded, the others are 0, without a penalty (k-sparse
    autoencoders, arXiv 1312.5663). `activation` is the mean of the sigmoids, `active` the share of
    values that are not 0.
    """

    def __init__(self, config: SparseConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.kept = max(1, round(config.keep * backbone.features))

    def forward(self, backbone: Backbone, inputs: Tensor, raw: Tensor) -> Losses:
        assert backbone.decoder is not None  # the spec's needs_decoder
        code, penalty, parts = self.code(backbone.encoder(inputs))
        reconstruction = F.mse_loss(backbone.decoder(code), inputs)
        if penalty is None:
            return Losses(reconstruction, **parts)
        total = reconstruction + self.config.weight * penalty
        return Losses(total, reconstruction=reconstruction, penalty=penalty, **parts)

    def codes(self, backbone: Backbone, inputs: Tensor) -> Tensor:
        """Return what the decoder takes, N x features."""
        return self.code(backbone.encoder(inputs))[0]

    def code(self, features: Tensor) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Return what is decoded, N x features, the penalty and what to tell of the code."""
        if self.config.kind == "kl":
            code = features.sigmoid()
            means = gather(code).float().mean(0)  # of all processes' examples
            parts = {"activation": means.mean()}
            return code, kl_divergence(self.config.activation, means).sum(), parts
        if self.config.kind == "l1":
            code = features.relu()
            parts = {"active": (code > 0).float().mean()}
            return code, code.float().sum(1).mean(), parts
        code = largest(features, self.kept)
        return code, None, {"active": (code != 0).float().mean()}


def kl_divergence(wanted: float, means: Tensor) -> Tensor:
    """Return KL(Bernoulli(wanted) || Bernoulli(mean)) of each mean, in nats."""
    means = means.clamp(1e-6, 1 - 1e-6)  # a saturated unit has a mean of 1 in float32
    on, off = torch.full_like(means, wanted), torch.full_like(means, 1 - wanted)
    return on * (on / means).log() + off * (off / (1 - means)).log()


def largest(features: Tensor, count: int) -> Tensor:
    """Keep the `count` largest values of each row; the others become 0."""
    values, places = features.topk(count, dim=1)
    return torch.zeros_like(features).scatter(1, places, values)
