"""Pretraining objectives of the autoencoder family."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from zoo.api import Backbone, NoConfig, ObjectiveSpec, hookimpl, knob

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoiseConfig:
    noise: float = knob(
        0.3,
        "masking: share of pixels blackened; gaussian: deviation, white is 1",
        low=0.0,
        high=1.0,
    )
    kind: Literal["masking", "gaussian"] = knob("masking", "how the input is corrupted")


def build_reconstruct(config: NoConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.reconstruction import Reconstruct

    return Reconstruct()


def build_denoise(config: DenoiseConfig, backbone: Backbone) -> nn.Module:
    from zoo_objectives.reconstruction import Denoise

    return Denoise(config, backbone)


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
    ]
