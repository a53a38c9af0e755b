"""The adversarial autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from zoo.api import Backbone, Losses
from zoo_objectives.configs import AdversarialConfig
from zoo_objectives.scale import decoded_shape


class Adversarial(nn.Module):
    """Reconstruct, and fool a discriminator that is trained beside (arXiv 1511.05644).

    `on` "code" holds codes against draws of a standard normal prior, as in the paper,
    "reconstruction" reconstructions against inputs, as in a GAN (arXiv 1406.2661). It is one loss:
    the generator's term goes through the discriminator with its weights detached, the
    discriminator's sees what is judged detached, so that one backward pass gives each the gradient
    of its own loss. Parts: `reconstruction`, the mean squared error; `generator` and
    `discriminator`, cross entropies in nats; `caught`, the share that the discriminator tells
    right, 0.5 where it can only guess.
    """

    def __init__(self, config: AdversarialConfig, backbone: Backbone) -> None:
        super().__init__()
        self.on, self.weight = config.on, config.weight
        if self.on == "code":
            self.discriminator = _of_codes(backbone.features, config.width)
        else:
            self.discriminator = _of_pictures(decoded_shape(backbone)[0], config.channels)

    def forward(self, backbone: Backbone, inputs: Tensor, raw: Tensor) -> Losses:
        assert backbone.decoder is not None  # the spec's needs_decoder
        code = backbone.encoder(inputs)
        decoded = backbone.decoder(code)
        made, true = (code, torch.randn_like(code)) if self.on == "code" else (decoded, inputs)
        generator = _entropy(self._frozen(made), 1.0)
        on_made, on_true = self.discriminator(made.detach()), self.discriminator(true)
        discriminator = (_entropy(on_made, 0.0) + _entropy(on_true, 1.0)) / 2
        reconstruction = F.mse_loss(decoded, inputs)
        return Losses(
            reconstruction + self.weight * generator + discriminator,
            reconstruction=reconstruction,
            generator=generator,
            discriminator=discriminator,
            caught=torch.cat([on_made < 0, on_true > 0]).float().mean(),
        )

    def _frozen(self, made: Tensor) -> Tensor:
        """Judge with the weights as constants: the gradient is that of `made` alone."""
        weights = {n: p.detach() for n, p in self.discriminator.named_parameters()}
        judged: Tensor = functional_call(self.discriminator, weights, (made,))
        return judged


# Neither has batch normalization, whose statistics would be counted once for each of three calls.


def _of_codes(features: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 1),
    )


def _of_pictures(channels: int, first: int) -> nn.Sequential:
    """Judge places of a picture and average: any size will do (as PatchGAN, arXiv 1611.07004)."""
    return nn.Sequential(
        nn.Conv2d(channels, first, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(first, 2 * first, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * first, 1, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def _entropy(judged: Tensor, truth: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(judged, torch.full_like(judged, truth))
