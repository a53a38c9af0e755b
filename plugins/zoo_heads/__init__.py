"""Classification heads: features in, logits out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from zoo.api import HeadSpec, hookimpl, knob

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearHeadConfig:
    norm: bool = knob(
        False, "bring features to mean 0 and variance 1 first, as probes of frozen ones like it"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlpHeadConfig:
    widths: tuple[int, ...] = knob((128,), "hidden widths", low=1)
    dropout: float = knob(0.0, "share of hidden units dropped", low=0.0, high=0.95)


def build_linear(config: LinearHeadConfig, features: int, classes: int) -> nn.Module:
    """Return one linear layer, with `norm` behind a plain batch norm (arXiv 2111.06377, A.1)."""
    from torch import nn

    linear = nn.Linear(features, classes)
    if not config.norm:
        return linear
    return nn.Sequential(nn.BatchNorm1d(features, affine=False), linear)


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
        HeadSpec(
            name="linear", summary="one linear layer", config=LinearHeadConfig, build=build_linear
        ),
        HeadSpec(
            name="mlp",
            summary="hidden layers with ReLU and dropout, then a linear one",
            config=MlpHeadConfig,
            build=build_mlp,
        ),
    ]
