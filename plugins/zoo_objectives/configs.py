"""The options of every objective; light, for `zoo pretrain --help` reads them."""

from __future__ import annotations

import dataclasses
from typing import Literal

from zoo.api import knob


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoiseConfig:
    noise: float = knob(
        0.3,
        "masking: share of pixels blackened; salt-pepper: share made black or white;"
        " gaussian: deviation, white is 1",
        low=0.0,
        high=1.0,
    )
    kind: Literal["masking", "gaussian", "salt-pepper"] = knob(
        "masking", "how the input is corrupted"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseConfig:
    kind: Literal["kl", "l1", "top-k"] = knob(
        "kl",
        "kl: penalty on each unit's mean; l1: on each value; top-k: the largest alone are used",
    )
    weight: float = knob(0.003, "kl, l1: weight of the penalty, summed over the units", low=0.0)
    activation: float = knob(
        0.05, "kl: mean activation of a unit that is aimed at", low=0.001, high=0.999
    )
    keep: float = knob(0.25, "top-k: share of the units that is used", low=0.001, high=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariationalConfig:
    beta: float = knob(1.0, "weight of the divergence from the prior; 1: a plain VAE", low=0.0)
    deviation: float = knob(
        0.2, "deviation of a pixel about what is decoded, white is 1", low=0.01, high=10.0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    on: Literal["code", "reconstruction"] = knob(
        "code", "what is judged: the code against a normal prior, or pictures against inputs"
    )
    weight: float = knob(0.1, "weight of fooling the discriminator", low=0.0)
    width: int = knob(256, "code: hidden width of the discriminator", low=1)
    channels: int = knob(32, "reconstruction: first channels of the discriminator", low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedConfig:
    patch: int = knob(4, "side of a masked square", low=1)
    ratio: float = knob(0.6, "share of the squares that is masked", low=0.01, high=1.0)
    fill: Literal["learned", "black"] = knob("learned", "what a masked pixel holds")
    loss: Literal["l2", "l1"] = knob("l2", "squared or absolute error of masked pixels")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig:
    teacher: str = knob(help="a finished run's folder or name, latest, or an .onnx file")
    temperature: float = knob(
        4.0, "of a classifier: what logits are divided by", low=0.1, high=100.0
    )
    match: Literal["cosine", "mse"] = knob(
        "cosine", "of a pretraining: how features are held against the teacher's"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """How two views of a picture are drawn, and what they are projected through."""

    crop: float = knob(
        0.4, "smallest share of the picture that a view shows; 1: all of it", low=0.05, high=1.0
    )
    shift: float = knob(
        0.1, "largest move beyond the picture, as a share of its side", low=0.0, high=0.5
    )
    rotate: float = knob(15.0, "turn by up to so many degrees", low=0.0, high=180.0)
    flip: bool = knob(False, "mirror half of the views: where left and right mean the same")
    brightness: float = knob(0.4, "largest change of brightness", low=0.0, high=1.0)
    contrast: float = knob(0.4, "largest change of contrast", low=0.0, high=1.0)
    colour: float = knob(0.4, "largest change of each channel of several", low=0.0, high=1.0)
    blur: float = knob(0.0, "probability that a view is blurred", low=0.0, high=1.0)
    erase: float = knob(0.0, "probability that a rectangle is blackened", low=0.0, high=1.0)
    noise: float = knob(0.0, "deviation of added noise, white is 1", low=0.0, high=1.0)
    norm: bool = knob(True, "batch normalization in the projector")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(ViewsConfig):
    widths: tuple[int, ...] = knob((256, 128), "widths of the projector, its output last", low=1)
    temperature: float = knob(0.2, "what similarities are divided by", low=0.01, high=10.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RedundancyConfig(ViewsConfig):
    kind: Literal["vicreg", "barlow"] = knob("vicreg", "which loss: VICReg's or Barlow Twins'")
    widths: tuple[int, ...] = knob((512, 512), "widths of the projector, its output last", low=1)
    invariance: float = knob(25.0, "vicreg: weight of the views' squared distance", low=0.0)
    variance: float = knob(25.0, "vicreg: weight of the deviation that falls short of 1", low=0.0)
    covariance: float = knob(1.0, "vicreg: weight of the squared covariances", low=0.0)
    redundancy: float = knob(0.005, "barlow: weight of what is off the diagonal", low=0.0)
