"""The variational autoencoder."""

from __future__ import annotations

from torch import Tensor, nn, randn_like

from zoo.api import Backbone, Losses, gather
from zoo_objectives.configs import VariationalConfig
from zoo_objectives.scale import Scale

ACTIVE = 0.01
"""The variance of a unit's mean over the data above which it says something of them."""


class Variational(nn.Module):
    """The negative evidence lower bound (VAE, arXiv 1312.6114; with `beta`, β-VAE, ICLR 2017).

    Own layers make the features the mean and the log-variance of a normal posterior, as wide as the
    features; a sample of it is decoded. Pixels are normal about what is decoded, with `deviation`
    on the scale where white is 1. `total` is the bound's cost in nats per value of the input,
    without constants: squared error / (2 deviation²) + beta x KL / values. Parts: `reconstruction`,
    the mean squared error of preprocessed values as in `reconstruct`; `kl`, the divergence from the
    standard normal prior, in nats per example; `active`, the share of units whose mean varies by
    more than 0.01 within the batch (arXiv 1509.00519).
    """

    def __init__(self, config: VariationalConfig, backbone: Backbone) -> None:
        super().__init__()
        self.beta, self.deviation = config.beta, config.deviation
        self.scale = Scale(backbone)
        self.mean = nn.Linear(backbone.features, backbone.features)
        self.log_variance = nn.Linear(backbone.features, backbone.features)

    def codes(self, backbone: Backbone, inputs: Tensor) -> Tensor:
        """Return the means of the posteriors, N x features: the decoder takes a draw about them."""
        means: Tensor = self.mean(backbone.encoder(inputs))
        return means

    def forward(self, backbone: Backbone, inputs: Tensor, raw: Tensor) -> Losses:
        assert backbone.decoder is not None  # the spec's needs_decoder
        features = backbone.encoder(inputs)
        mean, log_variance = self.mean(features), self.log_variance(features)
        sample = mean + (0.5 * log_variance).exp() * randn_like(mean)
        error = backbone.decoder(sample) - inputs
        kl = divergence(mean.float(), log_variance.float())
        likelihood = (error * self.scale.std).square().mean() / (2 * self.deviation**2)
        every = gather(mean.detach().float())
        return Losses(
            likelihood + self.beta * kl / inputs[0].numel(),
            reconstruction=error.square().mean(),
            kl=kl,
            active=(every.var(0, correction=0) > ACTIVE).float().mean(),
        )


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(0, 1)) of an example, in nats, as the mean over N."""
    each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return each.sum(1).mean()
