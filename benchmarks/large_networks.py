"""Four torchvision networks as backbones, with random weights: what `export_memory.py` exports."""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo.api import BackboneSpec, ImageInput, Preprocessing, hookimpl, knob

SIZES = {"resnet50": 224, "vit_b_32": 224, "inception_v3": 299, "vgg16": 224}
"""The networks by torchvision's names, and the height and width that each was made for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LargeConfig:
    size: int = knob(0, "height and width of its input; 0: what it was made for", low=0)


def build(name: str, config: LargeConfig, input: ImageInput) -> Any:
    from torch import nn
    from torchvision import models

    only = {"aux_logits": False, "transform_input": False, "init_weights": False}
    network = getattr(models, name)(weights=None, **(only if name == "inception_v3" else {}))
    if name == "vgg16":
        features = 25088
        network = nn.Sequential(network.features, network.avgpool, nn.Flatten())
    elif name == "vit_b_32":
        features = network.hidden_dim
        network.heads = nn.Identity()
    else:
        features = network.fc.in_features
        network.fc = nn.Identity()
    backbone: Any = nn.Module()
    backbone.features, backbone.encoder, backbone.decoder = features, network, None
    size = config.size or SIZES[name]
    backbone.preprocessing = Preprocessing(
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=(size, size), channels=3
    )
    return backbone


def spec(name: str) -> BackboneSpec:
    return BackboneSpec(
        name=name.replace("_", "-"),
        summary=f"{name} of torchvision, random weights",
        config=LargeConfig,
        build=lambda config, input: build(name, config, input),
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [spec(name) for name in SIZES]
