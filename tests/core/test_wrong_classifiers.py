"""Classifiers that no export of theirs can be right about: none may come out as proved."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo_conv
import zoo_heads
import zoo_images
import zoo_mlp
import zoo_objectives
from zoo import pipeline
from zoo.api import (
    BackboneSpec,
    Component,
    Dataset,
    DatasetSpec,
    Examples,
    ImageInput,
    TrainConfig,
    hookimpl,
)
from zoo.errors import BadOption, PluginFault, ProofError, UsageError
from zoo.pipeline import ExportConfig, Workspace
from zoo.registry import Registry

INPUT = ImageInput(channels=1, height=6, width=6)
BUILT_IN = (zoo_conv, zoo_heads, zoo_images, zoo_mlp, zoo_objectives)


class Mirror(nn.Module):
    """Mirrors pictures where it is exported, and only there: a fault of the exporter's."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flip(-1) if torch.compiler.is_exporting() else inputs


class Mix(nn.Module):
    """Adds the mean of the batch, as a norm in training mode does."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + 3 * inputs.mean(0, keepdim=True)


def workspace_with(
    folder: Path, layer: Callable[[], nn.Module], *, test: int = 60, classes: tuple[str, ...] = ()
) -> Workspace:
    def build(config: Any, input: ImageInput) -> nn.Module:
        made: Any = nn.Module()
        made.features, made.decoder = 16, None
        size = input.channels * input.height * input.width
        made.encoder = nn.Sequential(layer(), nn.Flatten(), nn.Linear(size, 16), nn.ReLU())
        return made

    def halves(count: int, seed: int) -> Examples:
        """A bright half, left or right."""
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randint(0, 120, (count, *INPUT.shape), generator=generator)
        labels = torch.arange(count) % 2
        inputs[labels == 0, :, :, :3] += 100
        inputs[labels == 1, :, :, 3:] += 100
        return Examples(inputs=inputs.to(torch.uint8), labels=labels)

    def dataset(config: Any, root: Path) -> Dataset:
        return Dataset(
            input=INPUT,
            classes=classes or ("left", "right"),
            train=lambda: halves(300, 0),
            test=lambda: halves(test, 1),
        )

    @hookimpl
    def zoo_backbones() -> list[BackboneSpec]:
        return [BackboneSpec(name="odd", summary="odd", build=build)]

    @hookimpl
    def zoo_datasets() -> list[DatasetSpec]:
        return [DatasetSpec(name="halves", summary="halves", build=dataset)]

    plugin: Any = types.ModuleType("odd")
    plugin.zoo_backbones, plugin.zoo_datasets = zoo_backbones, zoo_datasets
    return Workspace(plugins=Registry(plugins=[*BUILT_IN, plugin]), runs=folder / "runs")


def finetuned(workspace: Workspace) -> Any:
    training = TrainConfig(epochs=5, batch_size=30, lr=0.01)
    return pipeline.finetune(
        backbone=Component("odd"), dataset="halves", training=training, workspace=workspace
    )


@pytest.mark.parametrize(
    "form", [{}, {"int8": True}, pytest.param({"fp16": True}, marks=pytest.mark.slow)], ids=str
)
def test_a_file_and_its_twin_are_held_against_pytorch(form: Any, tmp_path: Path) -> None:
    workspace = workspace_with(tmp_path, Mirror)
    run = finetuned(workspace)
    assert pipeline.evaluate(run, workspace=workspace).accuracy > 0.9
    config = ExportConfig(**form, max_drop=100.0) if form else None
    row = "its fp32 twin is PyTorch's" if form else "same label"
    with pytest.raises(ProofError, match=row):
        pipeline.export(run, tmp_path / "new.onnx", config=config, workspace=workspace)
    assert not list(tmp_path.glob("*new*"))


@pytest.mark.parametrize(("test", "batch"), [(1, None), (9, 9)])
def test_neighbours_in_a_batch_change_nothing_however_few_there_are(
    test: int, batch: int | None, tmp_path: Path
) -> None:
    workspace = workspace_with(tmp_path, Mix, test=test)
    with pytest.raises(ProofError, match="batches"):
        pipeline.export(finetuned(workspace), config=ExportConfig(batch=batch), workspace=workspace)


@pytest.mark.parametrize(
    ("classes", "words"),
    [(("same", "same"), "two of its classes are called 'same'"), (("a", "\udce9"), "no Unicode")],
)
def test_class_names_tell_classes_apart(
    classes: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    with pytest.raises(PluginFault, match=words):
        finetuned(workspace_with(tmp_path, nn.Identity, classes=classes))


@pytest.mark.parametrize("name", ["model.bin", "model", "weights.safetensors"])
def test_a_file_is_called_onnx(trained: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=r"must end in \.onnx\. Type: -o .*\.onnx"):
        pipeline.export(trained.finetuned, tmp_path / name, workspace=trained.workspace)
    assert (tmp_path / name).read_text() == "mine"


def test_max_drop_is_of_smaller_files_alone(trained: Any) -> None:
    with pytest.raises(BadOption, match=r"max-drop.*--int8 or --fp16"):
        pipeline.export(
            trained.finetuned, config=ExportConfig(max_drop=2.0), workspace=trained.workspace
        )
