"""A plugin of one's own, for tests of what training makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from zoo import pipeline
from zoo.api import (
    BackboneSpec,
    FinetuneConfig,
    HeadSpec,
    ImageInput,
    Losses,
    ObjectiveSpec,
    TrainConfig,
    hookimpl,
)
from zoo.pipeline import Workspace
from zoo.progress import Silent, reporting
from zoo.registry import Registry
from zoo.runs import Run

FEATURES = 8


class Notes(Silent):
    """What was noted."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


class Pull(nn.Module):
    """An objective: codes are to be as long as `length`; with a decoder, to return the input."""

    def __init__(self) -> None:
        super().__init__()
        self.length = nn.Parameter(torch.ones(()))

    def forward(self, backbone: Any, inputs: torch.Tensor, raw: torch.Tensor) -> Losses:
        codes = backbone.encoder(inputs)
        total = (codes.square().mean() - self.length).square()
        if backbone.decoder is not None:
            total = total + (backbone.decoder(codes) - inputs).square().mean()
        return Losses(total)


class Mine:
    """The backbone, head and objective `mine`, whose parts a test may give, trained on digits."""

    training = TrainConfig(epochs=1, batch_size=32, lr=3e-3, threads=1)

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes = Notes()
        self.encoder: Callable[[], nn.Module] = lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(64, FEATURES)
        )
        self.decoder: Callable[[], nn.Module | None] = lambda: None
        self.head: Callable[[int, int], nn.Module] = nn.Linear
        self.objective: Callable[[], nn.Module] = Pull

    @property
    def workspace(self) -> Workspace:
        import zoo_images

        return Workspace(plugins=Registry(plugins=[zoo_images, self._plugin()]), runs=self.root)

    def finetune(self, training: TrainConfig | None = None, labels: int = 40) -> Run:
        with reporting(self.notes):
            return pipeline.finetune(
                backbone="mine",
                head="mine",
                training=training or self.training,
                finetune=FinetuneConfig(labels=labels),
                workspace=self.workspace,
            )

    def self_train(self, teacher: Run) -> Run:
        with reporting(self.notes):
            return pipeline.self_train(teacher, training=self.training, workspace=self.workspace)

    def pretrain(self, training: TrainConfig | None = None) -> Run:
        with reporting(self.notes):
            return pipeline.pretrain(
                "mine",
                objective="mine",
                training=training or self.training,
                workspace=self.workspace,
            )

    def _plugin(self) -> ModuleType:
        def backbone(config: Any, input: ImageInput) -> nn.Module:
            made = nn.Module()
            made.features = FEATURES
            made.encoder, made.decoder = self.encoder(), self.decoder()
            return made

        def objective(config: Any, backbone: Any) -> nn.Module:
            return self.objective()

        @hookimpl
        def zoo_backbones() -> list[BackboneSpec]:
            return [BackboneSpec(name="mine", summary="", build=backbone)]

        @hookimpl
        def zoo_heads() -> list[HeadSpec]:
            return [HeadSpec(name="mine", summary="", build=lambda _, *sizes: self.head(*sizes))]

        @hookimpl
        def zoo_objectives() -> list[ObjectiveSpec]:
            decodes = self.decoder() is not None
            return [ObjectiveSpec(name="mine", summary="", build=objective, needs_decoder=decodes)]

        module = ModuleType("mine")
        for hook in (zoo_backbones, zoo_heads, zoo_objectives):
            setattr(module, hook.__name__, hook)
        return module


@pytest.fixture
def mine(tmp_path: Path) -> Mine:
    """A backbone, a head and an objective called `mine`, to be given parts and trained."""
    return Mine(tmp_path)
