"""Hostile and odd data sets for reports; whoever loads their test splits is counted."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import torch
from torch import Tensor, nn

from zoo.api import (
    Backbone,
    Dataset,
    DatasetSpec,
    Examples,
    ImageInput,
    Losses,
    ObjectiveSpec,
    hookimpl,
    knob,
)

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=https://evil.example/x>',
    "$x^{$",
    "字 & <b>\u202e\x1b[2J",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OddConfig:
    note: str = knob("", "any text")
    channels: int = knob(1, "channels of an input", low=1)
    side: int = knob(8, "pixels a side", low=1)
    classes: int = knob(4, "classes", low=2)
    labelled: bool = knob(True, "whether the training split has labels")


class Split:
    """What a test of a report changes: whether files are there, and what the test split is.

    `tests` counts how often that was loaded.
    """

    gone = False
    tests = 0
    test_seed = 1


def build(split: Split, config: OddConfig) -> Dataset:
    shape = (config.channels, config.side, config.side)
    names = [*HOSTILE, *(f"class {i} " + "w" * 200 for i in range(config.classes - len(HOSTILE)))]

    def examples(seed: int, labelled: bool) -> Examples:
        if split.gone:
            raise FileNotFoundError(2, "No such file or directory", "odd.bin")
        labels = torch.arange(40 * max(1, config.classes // 10)) % config.classes
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randint(0, 200, (len(labels), *shape), generator=generator)
        inputs = (noise + 9 * labels.view(-1, 1, 1, 1)).clamp(0, 255).to(torch.uint8)
        return Examples(inputs=inputs, labels=labels if labelled else None)

    def test() -> Examples:
        split.tests += 1
        return examples(split.test_seed, True)

    return Dataset(
        input=ImageInput(channels=config.channels, height=config.side, width=config.side),
        classes=tuple(names[: config.classes]),
        train=lambda: examples(0, config.labelled),
        test=test,
    )


class Turned(nn.Module):
    """An objective whose decoder takes the features with their signs changed."""

    def codes(self, backbone: Backbone, inputs: Tensor) -> Tensor:
        return -backbone.encoder(inputs)

    def forward(self, backbone: Backbone, inputs: Tensor, raw: Tensor) -> Losses:
        assert backbone.decoder is not None
        back = backbone.decoder(self.codes(backbone, inputs))
        return Losses((back - inputs).square().mean())


def plugin(split: Split) -> ModuleType:
    module = ModuleType("odd")

    @hookimpl
    def zoo_objectives() -> list[ObjectiveSpec]:
        return [
            ObjectiveSpec(
                name="turned",
                summary="",
                build=lambda config, backbone: Turned(),
                needs_decoder=True,
            )
        ]

    module.zoo_objectives = zoo_objectives  # type: ignore[attr-defined]

    @hookimpl
    def zoo_datasets() -> list[DatasetSpec]:
        made = DatasetSpec(
            name="odd",
            summary="",
            config=OddConfig,
            build=lambda config, root: build(split, config),
        )
        return [made]

    module.zoo_datasets = zoo_datasets  # type: ignore[attr-defined]
    return module
