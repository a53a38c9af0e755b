"""A data set whose splits a test may change: examples are known by their places in one pool."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import zoo_heads
import zoo_mlp
import zoo_objectives
from zoo import pipeline
from zoo.api import (
    Component,
    DataError,
    Dataset,
    DatasetSpec,
    Examples,
    FinetuneConfig,
    ImageInput,
    TrainConfig,
    hookimpl,
)
from zoo.pipeline import Workspace
from zoo.progress import Silent
from zoo.registry import Registry
from zoo.runs import Run

MLP = Component("mlp", widths=(4,), features=4)
ONCE = TrainConfig(epochs=1, batch_size=16, threads=1, validation=0.0)


@dataclasses.dataclass
class World:
    """What is in which split now, by places in the pool; `fault` is what the test split raises.

    At another `shape` than 1 x 4 x 4 the examples of the pool are repeated in each dimension.
    """

    train: list[int]
    test: list[int] | None
    unlabelled: list[int] | None = None
    names: bool = True
    fault: str = ""
    flipped: bool = False
    classes: tuple[str, ...] = ("even", "odd")
    shape: tuple[int, int, int] = (1, 4, 4)
    contents: bool = False

    def examples(self, places: list[int], *, labelled: bool = True) -> Examples:
        generator = torch.Generator().manual_seed(7)
        pool = torch.randint(0, 256, (200, 1, 4, 4), dtype=torch.uint8, generator=generator)
        at = torch.tensor(places, dtype=torch.int64)
        labels = (at + self.flipped) % 2
        names = [f"{place}.png" for place in places] if self.names else None
        times = (1, self.shape[0], self.shape[1] // 4, self.shape[2] // 4)
        return Examples(
            inputs=pool[at].tile(times),
            labels=labels if labelled else None,
            names=names,
            contents=at[:, None].to(torch.uint8) if self.contents else None,
        )

    def tested(self) -> Examples:
        if self.fault:
            raise DataError(self.fault)
        assert self.test is not None
        return self.examples(self.test)

    def dataset(self) -> Dataset:
        more = self.unlabelled
        channels, height, width = self.shape
        return Dataset(
            input=ImageInput(channels=channels, height=height, width=width),
            classes=self.classes,
            train=lambda: self.examples(self.train),
            test=None if self.test is None else self.tested,
            unlabelled=None if more is None else lambda: self.examples(more, labelled=False),
        )


class Notes(Silent):
    """Keep what a user is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def about(self, words: str) -> list[str]:
        return [text for text in self.texts if words in text]


def described(world: World, config: Any, root: Path) -> Dataset:
    return world.dataset()


def place(folder: Path, **worlds: World) -> Workspace:
    """Return a workspace whose data sets are these worlds, by their names."""
    module = ModuleType("changing")

    @hookimpl
    def zoo_datasets() -> list[DatasetSpec]:
        return [
            DatasetSpec(name=name, summary="", build=functools.partial(described, world))
            for name, world in worlds.items()
        ]

    module.zoo_datasets = zoo_datasets  # type: ignore[attr-defined]
    plugins = Registry(plugins=[zoo_mlp, zoo_heads, zoo_objectives, module])
    return Workspace(plugins=plugins, runs=folder / "runs", data=folder / "data")


def finetuned(
    workspace: Workspace, source: Any = None, /, dataset: str = "world", **how: Any
) -> Run:
    """Finetune a tiny model from scratch, or a pretraining."""
    return pipeline.finetune(
        source,
        backbone=None if source else MLP,
        dataset=dataset,
        training=dataclasses.replace(ONCE, **how.pop("training", {})),
        finetune=FinetuneConfig(**how.pop("finetune", {})),
        workspace=workspace,
        **how,
    )


def pretrained(
    workspace: Workspace, dataset: str = "world", objective: Any = "denoise", **how: Any
) -> Run:
    training = dataclasses.replace(ONCE, **how.pop("training", {}))
    return pipeline.pretrain(
        MLP, dataset=dataset, objective=objective, training=training, workspace=workspace, **how
    )
