"""What objectives and recipes are tried on: two small backbones and a small set of pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.api import BackboneSpec, ImageInput, NoConfig
from zoo.registry import Entry

FEATURES = 12


class _Small(nn.Module):
    """Batch statistics, a hidden layer and, where asked for, a decoder."""

    def __init__(self, input: ImageInput, *, decodes: bool) -> None:
        super().__init__()
        self.features = FEATURES
        self.encoder = nn.Sequential(
            nn.Conv2d(input.channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * input.height * input.width, FEATURES),
        )
        self.decoder = (
            nn.Sequential(nn.Linear(FEATURES, math.prod(input.shape)), nn.Unflatten(1, input.shape))
            if decodes
            else None
        )


def _with_decoder(config: NoConfig, input: ImageInput) -> nn.Module:
    return _Small(input, decodes=True)


def _encoder_only(config: NoConfig, input: ImageInput) -> nn.Module:
    return _Small(input, decodes=False)


AUTOENCODER = Entry(
    "backbone",
    BackboneSpec(name="kit-autoencoder", summary="of the kit", build=_with_decoder),
    "zoo",
    "-",
)
ENCODER = Entry(
    "backbone",
    BackboneSpec(name="kit-encoder", summary="of the kit", build=_encoder_only),
    "zoo",
    "-",
)


def pictures(input: ImageInput, count: int = 64) -> Tensor:
    """Return blurred blobs at random places, uint8 N x C x H x W: there is something to learn."""
    generator = torch.Generator().manual_seed(3)
    middle = torch.rand(count, input.channels, 2, 1, 1, generator=generator)
    rows = torch.linspace(0, 1, input.height).view(1, 1, -1, 1)
    columns = torch.linspace(0, 1, input.width).view(1, 1, 1, -1)
    distance = (rows - middle[:, :, 0]) ** 2 + (columns - middle[:, :, 1]) ** 2
    return (255 * torch.exp(-distance / 0.05)).to(torch.uint8)
