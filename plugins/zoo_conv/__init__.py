"""Convolutional autoencoders."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from zoo.api import BackboneSpec, ImageInput, hookimpl, knob

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvConfig:
    channels: tuple[int, ...] = knob((32, 64, 128), "channels of the stages, each halves", low=1)
    features: int = knob(64, "width of the code", low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvResidualConfig(ConvConfig):
    blocks: int = knob(1, "residual blocks a stage", low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNanoConfig:
    channels: tuple[int, ...] = knob(
        (8, 8, 12, 12, 16),
        "channels of the 3×3 convolutions; each two are followed by a halving",
        low=1,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvPatchConfig:
    channels: tuple[int, ...] = knob(
        (64, 64, 256),
        "channels of the 4×4 stem, then of the 3×3 convolutions, halved in between",
        low=1,
    )


def build_conv(config: ConvConfig, input: ImageInput) -> nn.Module:
    from zoo_conv.model import ConvAutoencoder

    return ConvAutoencoder(config, input, blocks=0)


def build_residual(config: ConvResidualConfig, input: ImageInput) -> nn.Module:
    from zoo_conv.model import ConvAutoencoder

    return ConvAutoencoder(config, input, blocks=config.blocks)


def build_nano(config: ConvNanoConfig, input: ImageInput) -> nn.Module:
    from zoo_conv.nano import NanoAutoencoder

    return NanoAutoencoder(config, input)


def build_patch(config: ConvPatchConfig, input: ImageInput) -> nn.Module:
    from zoo_conv.patch import PatchAutoencoder

    return PatchAutoencoder(config, input)


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [
        BackboneSpec(
            name="conv",
            summary="convolutional autoencoder: strided convolutions and their transposes",
            config=ConvConfig,
            build=build_conv,
        ),
        BackboneSpec(
            name="conv-residual",
            summary="convolutional autoencoder with residual blocks in every stage",
            config=ConvResidualConfig,
            build=build_residual,
        ),
        BackboneSpec(
            name="conv-nano",
            summary="a few thousand weights: unpadded convolutions and a learned average",
            config=ConvNanoConfig,
            build=build_nano,
        ),
        BackboneSpec(
            name="conv-patch",
            summary="quick on CPUs: a strided stem, wide convolutions, a learned average",
            config=ConvPatchConfig,
            build=build_patch,
        ),
    ]
