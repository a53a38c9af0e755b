"""A fully connected autoencoder (Hinton and Salakhutdinov, Science 313, 2006)."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import nn

from zoo.api import ImageInput, Preprocessing
from zoo_mlp import MlpConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class MlpAutoencoder(nn.Module):
    """Encode C x H x W through `widths` to `features`, and decode through the same, mirrored."""

    preprocessing = Preprocessing()  # -1..1, the range of the decoder's tanh

    def __init__(self, config: MlpConfig, input: ImageInput) -> None:
        super().__init__()
        self.features = config.features
        size = math.prod(input.shape)
        sizes = [size, *config.widths, config.features]
        output = [nn.Tanh()] if config.output == "tanh" else []
        self.encoder = nn.Sequential(nn.Flatten(), *_layers(sizes, config, config.dropout))
        self.decoder = nn.Sequential(
            *_layers(sizes[::-1], config, 0.0), *output, nn.Unflatten(1, input.shape)
        )


def _layers(sizes: list[int], config: MlpConfig, dropout: float) -> list[nn.Module]:
    """Return linear layers of these sizes with what stands between them, none after the last."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        if layers:
            layers += [nn.BatchNorm1d(before)] if config.norm else []
            layers += [ACTIVATIONS[config.activation]()]
            layers += [nn.Dropout(dropout)] if dropout else []
        layers.append(nn.Linear(before, after))
    return layers
