"""What objectives and recipes are tried on: two small backbones and a small set of pictures."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.api import BackboneSpec, ImageInput, NoConfig, Teacher
from zoo.pipeline.teaching import Library
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


TEACHER = "kit"
"""What a required text of an objective is given: it may name a teacher, and this is one."""


class Classifier:
    """A teacher of the kit: a fixed linear map from bytes of any size to four logits."""

    kind: Literal["logits", "features"] = "logits"
    width = 4
    input = ImageInput(channels=1, height=8, width=8)

    def __call__(self, raw: Tensor) -> Tensor:
        values = raw.flatten(1).float() / 255
        generator = torch.Generator().manual_seed(4)
        weights = torch.randn(values.shape[1], self.width, generator=generator)
        logits: Tensor = (values - 0.5) @ weights.to(values.device) / values.shape[1] ** 0.5
        return logits


class Lender:
    """Lend the kit's own teacher by its name, any other by what `others` finds."""

    def __init__(self, others: Library) -> None:
        self._others = others
        self.asked = False

    def teacher(self, text: str) -> Teacher:
        if text != TEACHER:
            return self._others.teacher(text)
        self.asked = True
        return Classifier()


def pictures(input: ImageInput, count: int = 64) -> Tensor:
    """Return blurred blobs at random places, uint8 N x C x H x W: there is something to learn."""
    generator = torch.Generator().manual_seed(3)
    middle = torch.rand(count, input.channels, 2, 1, 1, generator=generator)
    rows = torch.linspace(0, 1, input.height).view(1, 1, -1, 1)
    columns = torch.linspace(0, 1, input.width).view(1, 1, 1, -1)
    distance = (rows - middle[:, :, 0]) ** 2 + (columns - middle[:, :, 1]) ** 2
    return (255 * torch.exp(-distance / 0.05)).to(torch.uint8)
