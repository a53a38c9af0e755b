"""Pretraining objectives: without labels, over any backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.api import Backbone, NoConfig, ObjectiveSpec, hookimpl
from zoo_objectives.configs import (
    AdversarialConfig,
    ContrastiveConfig,
    DenoiseConfig,
    DistillConfig,
    MaskedConfig,
    RedundancyConfig,
    SparseConfig,
    VariationalConfig,
)

if TYPE_CHECKING:
    from torch import nn


def build_reconstruct(config: NoConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.reconstruction import Reconstruct

    return Reconstruct(backbone)


def build_denoise(config: DenoiseConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.reconstruction import Denoise

    return Denoise(config, backbone)


def build_masked(config: MaskedConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.masked import Masked

    return Masked(config, backbone)


def build_sparse(config: SparseConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.sparse import Sparse

    return Sparse(config, backbone)


def build_variational(config: VariationalConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.variational import Variational

    return Variational(config, backbone)


def build_adversarial(config: AdversarialConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.adversarial import Adversarial

    return Adversarial(config, backbone)


def build_contrastive(config: ContrastiveConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.contrastive import Contrastive

    return Contrastive(config, backbone)


def build_redundancy(config: RedundancyConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.redundancy import Redundancy

    return Redundancy(config, backbone)


def build_distill(config: DistillConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.distill import Distill

    return Distill(config, backbone)


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
            name="masked",
            summary="predict masked squares of the input: SimMIM",
            config=MaskedConfig,
            build=build_masked,
            needs_decoder=True,
        ),
        ObjectiveSpec(
            name="sparse",
            summary="return the input through a code of which little is active",
            config=SparseConfig,
            build=build_sparse,
            needs_decoder=True,
        ),
        ObjectiveSpec(
            name="variational",
            summary="VAE and β-VAE: a code drawn from a learned normal distribution",
            config=VariationalConfig,
            build=build_variational,
            needs_decoder=True,
        ),
        ObjectiveSpec(
            name="adversarial",
            summary="return the input, and fool a discriminator of codes or pictures",
            config=AdversarialConfig,
            build=build_adversarial,
            needs_decoder=True,
            watch="reconstruction",
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
        ObjectiveSpec(
            name="distill",
            summary="answer as a trained run or an ONNX file does: Hinton's distillation, FitNets",
            config=DistillConfig,
            build=build_distill,
        ),
    ]
