"""Pretraining objectives: without labels, over any backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.api import Backbone, NoConfig, ObjectiveSpec, hookimpl
from zoo_objectives.configs import ContrastiveConfig, DenoiseConfig, RedundancyConfig

if TYPE_CHECKING:
    from torch import nn


def build_reconstruct(config: NoConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.reconstruction import Reconstruct

    return Reconstruct()


def build_denoise(config: DenoiseConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.reconstruction import Denoise

    return Denoise(config, backbone)


def build_contrastive(config: ContrastiveConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.contrastive import Contrastive

    return Contrastive(config, backbone)


def build_redundancy(config: RedundancyConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.redundancy import Redundancy

    return Redundancy(config, backbone)


@hookimpl
def zoo_objectives() -> list[ObjectiveSpec]:
    return [
        ObjectiveSpec(
            name="reconstruct",
            summary="return the input: mean squared error",
            build=build_reconstruct,
            needs_decoder=True,
        ),
        ObjectiveSpec(
            name="denoise",
            summary="return the clean input from a masked or noisy one",
            config=DenoiseConfig,
            build=build_denoise,
            needs_decoder=True,
        ),
        ObjectiveSpec(
            name="contrastive",
            summary="find a picture's other view among those of a batch: SimCLR",
            config=ContrastiveConfig,
            build=build_contrastive,
        ),
        ObjectiveSpec(
            name="redundancy",
            summary="bring two views together, keep dimensions apart: VICReg, Barlow Twins",
            config=RedundancyConfig,
            build=build_redundancy,
        ),
    ]
