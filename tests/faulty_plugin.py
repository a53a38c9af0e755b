"""Components that each break one rule; the conformance kit must catch each by the rule's name.

`zoo plugin check tests/faulty_plugin.py` shows them all.
"""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any, Literal

from zoo.api import (
    BackboneSpec,
    Component,
    Dataset,
    DatasetSpec,
    Examples,
    HeadSpec,
    ImageInput,
    Losses,
    NoConfig,
    ObjectiveSpec,
    RecipeSpec,
    TrainConfig,
    hookimpl,
    knob,
)

INPUTS = (
    ImageInput(channels=1, height=8, width=8),
    ImageInput(channels=3, height=9, width=5),
)


def backbone(fault: str) -> Any:
    """Return a build of a sound small autoencoder, but for one fault."""

    def build(config: Any, input: ImageInput) -> Any:
        import torch
        from torch import Tensor, nn

        size = input.channels * input.height * input.width

        class Encoder(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(size, 6)
                if fault == "unused-parameter":
                    self.unused = nn.Parameter(torch.ones(3))
                if fault == "detached-parameter":
                    self.scale = nn.Parameter(torch.ones(6))
                if fault == "hidden-state":
                    self.direction = torch.randn(6)  # neither parameter nor buffer
                if fault == "unseeded":
                    with torch.no_grad():
                        self.linear.bias.fill_(random.random())

            def forward(self, inputs: Tensor) -> Tensor:
                codes: Tensor = self.linear(inputs.flatten(1))
                if fault == "batch-dependent":
                    codes = codes - codes.mean(0)
                if fault == "blind-to-the-dark":
                    brightest = inputs.flatten(1).amax(1, keepdim=True)
                    codes = codes + (brightest + 1).log()  # black is -1
                if fault == "detached-parameter":
                    codes = codes * self.scale.detach()
                if fault == "hidden-state":
                    codes = codes + self.direction
                if fault == "unexportable":
                    values, vectors = torch.linalg.eigh(codes.T @ codes)
                    codes = codes + 0 * (values.sum() + vectors.sum())
                if fault == "fixed-batch":
                    codes = torch.stack([codes[number] for number in range(len(codes))])
                if fault == "eight-at-a-time":
                    codes = codes.reshape(8, 6)
                if fault == "random-answers":
                    codes = codes + torch.rand_like(codes)
                if fault == "wide":
                    codes = torch.cat([codes, codes], 1)
                return codes

        class Backbone(nn.Module):
            features = 6

            def __init__(self) -> None:
                super().__init__()
                self.encoder = Encoder()
                shape = (input.width, input.height, input.channels)
                shape = shape if fault == "turned-decoder" else input.shape
                self.decoder = nn.Sequential(nn.Linear(6, size), nn.Unflatten(1, shape))
                if fault == "stray-parameter":
                    self.token = nn.Parameter(torch.zeros(4))
                if fault == "indivisible" and 8 % config.heads:
                    raise ValueError("8 is not divisible by heads")
                if fault == "two-choices" and config.activation == "swish":
                    raise KeyError("swish")

        return Backbone()

    return build


FAULTY_BACKBONES = (
    "sound",
    "batch-dependent",
    "blind-to-the-dark",
    "unused-parameter",
    "detached-parameter",
    "stray-parameter",
    "turned-decoder",
    "unseeded",
    "unexportable",
    "fixed-batch",
    "hidden-state",
    "eight-at-a-time",
    "random-answers",
    "wide",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoChoices:
    activation: Literal["relu", "swish"] = knob("relu", "one of them does not work")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Indivisible:
    heads: int = knob(4, "not every number of them works", low=1, high=8)


@dataclasses.dataclass(kw_only=True)
class Restless:
    """A config that does not come back as it was given."""

    width: int = knob(4, "grows")

    def __post_init__(self) -> None:
        self.width += 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ambiguous:
    word: str | None = knob("none", "the text none, which means None")


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [
        *(
            BackboneSpec(name=fault, summary="", build=backbone(fault), inputs=INPUTS)
            for fault in FAULTY_BACKBONES
        ),
        BackboneSpec(
            name="two-choices",
            summary="",
            build=backbone("two-choices"),
            config=TwoChoices,
            inputs=INPUTS,
        ),
        BackboneSpec(
            name="indivisible",
            summary="",
            build=backbone("indivisible"),
            config=Indivisible,
            inputs=INPUTS,
        ),
        BackboneSpec(
            name="restless", summary="", build=backbone(""), config=Restless, inputs=INPUTS
        ),
        BackboneSpec(
            name="ambiguous", summary="", build=backbone(""), config=Ambiguous, inputs=INPUTS
        ),
    ]


def objective(fault: str) -> Any:
    def build(config: NoConfig, backbone: Any) -> Any:
        from torch import Tensor, nn

        class Objective(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                if fault == "keeps-the-backbone":
                    self.kept = backbone.encoder

            def forward(self, backbone: Any, inputs: Tensor, raw: Tensor) -> Losses:
                code = backbone.encoder(inputs)
                error = (backbone.decoder(code) - inputs).square().mean()
                if fault == "forgets-the-decoder":
                    return Losses(code.square().mean())
                return Losses(error, rising=-error)

        return Objective()

    return build


@hookimpl
def zoo_objectives() -> list[ObjectiveSpec]:
    return [
        ObjectiveSpec(
            name=fault,
            summary="",
            build=objective(fault),
            needs_decoder=True,
            watch="rising" if fault == "watches-what-rises" else "total",
        )
        for fault in ("keeps-the-backbone", "forgets-the-decoder", "watches-what-rises")
    ]


def softmax_head(config: NoConfig, features: int, classes: int) -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(features, classes), nn.Softmax(1))


@hookimpl
def zoo_heads() -> list[HeadSpec]:
    return [HeadSpec(name="softmax", summary="", build=softmax_head)]


def dataset(fault: str) -> Any:
    def build(config: NoConfig, root: Path) -> Dataset:
        import torch

        def draw(seed: int, count: int) -> Examples:
            generator = torch.Generator().manual_seed(seed)
            bright = 2 if fault == "dim" else 256
            inputs = torch.randint(
                0, bright, (count, 1, 8, 8), dtype=torch.uint8, generator=generator
            )
            labels = torch.arange(count) % (2 if fault == "absent-class" else 3)
            if fault == "labels-out-of-range":
                labels = labels + 1
            if fault == "shuffled-anew":
                inputs = inputs[torch.randperm(count)]
            return Examples(inputs=inputs, labels=labels)

        def test() -> Examples:
            if fault == "overlapping-splits":
                whole = draw(0, 60)
                assert whole.labels is not None
                return Examples(inputs=whole.inputs[50:], labels=whole.labels[50:])
            return draw(1, 20)

        side = 9 if fault == "false-input" else 8
        return Dataset(
            input=ImageInput(channels=1, height=side, width=8),
            classes=("a", "b", "c"),
            train=lambda: draw(0, 60),
            test=test,
        )

    return build


@hookimpl
def zoo_datasets() -> list[DatasetSpec]:
    faults = (
        "overlapping-splits",
        "labels-out-of-range",
        "false-input",
        "absent-class",
        "shuffled-anew",
        "dim",
    )
    return [DatasetSpec(name=fault, summary="", build=dataset(fault)) for fault in faults]


@hookimpl
def zoo_recipes() -> list[RecipeSpec]:
    return [
        RecipeSpec(
            name="missing-part",
            summary="",
            dataset=Component("digits"),
            backbone=Component("not-installed"),
            objective=Component("reconstruct"),
            head=Component("linear"),
            pretraining=TrainConfig(),
            finetuning=TrainConfig(),
        )
    ]
