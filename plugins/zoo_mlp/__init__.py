"""The MLP autoencoder."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from zoo.api import BackboneSpec, ImageInput, hookimpl, knob

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlpConfig:
    widths: tuple[int, ...] = knob((512, 256), "hidden widths of the encoder", low=1)
    features: int = knob(64, "width of the code", low=1)
    activation: Literal["relu", "gelu", "tanh"] = knob("relu", "between hidden layers")
    norm: bool = knob(False, "batch normalization after each hidden layer")
    dropout: float = knob(0.0, "share of hidden units dropped in the encoder", low=0.0, high=0.95)
    output: Literal["tanh", "linear"] = knob("tanh", "last activation of the decoder")


def build(config: MlpConfig, input: ImageInput) -> nn.Module:
    from zoo_mlp.model import MlpAutoencoder

    return MlpAutoencoder(config, input)


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [
        BackboneSpec(
            name="mlp",
            summary="fully connected autoencoder; the tutorial's: --widths 128,64,12 --features 3",
            config=MlpConfig,
            build=build,
        )
    ]
