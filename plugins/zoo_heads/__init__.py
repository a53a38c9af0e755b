"""Classification heads: features in, logits out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from zoo.api import HeadSpec, NoConfig, hookimpl, knob

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlpHeadConfig:
    widths: tuple[int, ...] = knob((128,), "hidden widths", low=1)
    dropout: float = knob(0.0, "share of hidden units dropped", low=0.0, high=0.95)


def build_linear(config: NoConfig, features: int, classes: int) -> nn.Module:
    from torch import nn

    return nn.Linear(features, classes)


def build_mlp(config: MlpHeadConfig, features: int, classes: int) -> nn.Module:
    from torch import nn

    layers: list[nn.Module] = []
    for width in config.widths:
        layers += [nn.Linear(features, width), nn.ReLU(), nn.Dropout(config.dropout)]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, classes))


@hookimpl
def zoo_heads() -> list[HeadSpec]:
    return [
        HeadSpec(name="linear", summary="one linear layer", build=build_linear),
        HeadSpec(
            name="mlp",
            summary="hidden layers with ReLU and dropout, then a linear one",
            config=MlpHeadConfig,
            build=build_mlp,
        ),
    ]
