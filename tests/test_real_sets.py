"""The recipes on the complete real sets; the folder is taken from ZOO_DATA."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from zoo import pipeline
from zoo.api import Component, FinetuneConfig, TrainConfig, hookimpl
from zoo.pipeline import Workspace
from zoo.pipeline.recipes import RecipeResult
from zoo.registry import Registry

pytestmark = [pytest.mark.slow, pytest.mark.begun_first]


def short(
    name: str, data: Path, runs: Path, phases: tuple[str, ...] = ("pretraining", "finetuning")
) -> tuple[RecipeResult, Workspace]:
    """Run a built-in recipe on its complete sets, for one epoch in these phases."""
    spec = Registry.installed().lookup("recipe", name).spec
    once = {phase: dataclasses.replace(getattr(spec, phase), epochs=1) for phase in phases}
    module = ModuleType("short")
    module.zoo_recipes = hookimpl(lambda: [dataclasses.replace(spec, name="short", **once)])  # type: ignore[attr-defined]
    module.zoo_recipes.__name__ = "zoo_recipes"
    plugins = [importlib.import_module(p.module) for p in Registry.installed().plugins]
    workspace = Workspace(plugins=Registry(plugins=[*plugins, module]), runs=runs, data=data)
    return pipeline.run("short", seeds=[0], workspace=workspace), workspace


def published(bench_script: Callable[[str], Any], recipe: str) -> list[float]:
    """The accuracies of the recipe at its full length, as `benchmarks/recipes.py` wrote them."""
    recipes = bench_script("recipes")
    lines = recipes.current(recipes.ledger.read(recipes.RESULTS))
    return [line["accuracy"] for line in lines if line["recipe"] == recipe]


def test_the_textbook_learns_and_stays_below_sixty_per_cent(
    real_data: Path, tmp_path: Path, bench_script: Callable[[str], Any]
) -> None:
    accuracies = published(bench_script, "textbook")
    assert len(accuracies) >= 5
    assert min(accuracies) > 0.25
    assert max(accuracies) < 0.60
    # Its finetuning at full length: after one epoch its softmax under the loss is still at chance.
    result, workspace = short("textbook", real_data, tmp_path, ("pretraining",))
    assert 0.25 < result.methods[0].accuracies[0] < 0.60
    assert result.proof.passed
    assert result.proof.examples == 10_000
    pretrained = pipeline.runs(workspace=workspace)[0][0]
    assert pretrained.record.metrics["train_examples"] == 60_000
    assert pretrained.record.metrics["validation"] is None


def test_the_transfer_done_right_passes_eighty_per_cent_at_once_and_ends_at_ninety(
    real_data: Path, tmp_path: Path, bench_script: Callable[[str], Any]
) -> None:
    accuracies = published(bench_script, "mnist-to-fashion")
    assert len(accuracies) >= 10
    assert min(accuracies) > 0.895
    result, _ = short("mnist-to-fashion", real_data, tmp_path)
    assert [method.name for method in result.methods] == ["pretrained", "from scratch"]
    assert min(accuracy for m in result.methods for accuracy in m.accuracies) > 0.8
    assert result.proof.passed
    assert result.proof.comparison is not None
    assert result.proof.comparison.flips == 0


@pytest.mark.parametrize("backbone", ["conv", "conv-residual"])
def test_convolutional_backbones_on_real_images(
    backbone: str, real_data: Path, tmp_path: Path
) -> None:
    workspace = Workspace(runs=tmp_path, data=real_data)
    short = TrainConfig(epochs=1)
    small = Component(backbone, channels=(8, 16))
    run = pipeline.pretrain(
        small, dataset="mnist", objective="denoise", training=short, workspace=workspace
    )
    top = pipeline.finetune(
        run,
        training=TrainConfig(epochs=10, batch_size=64),
        finetune=FinetuneConfig(labels=2000),
        workspace=workspace,
    )
    exported = pipeline.export(top, workspace=workspace)
    assert exported.proof.passed
    assert exported.proof.comparison is not None
    assert exported.proof.comparison.onnx_accuracy > 0.9


def test_pictures_in_folders_become_a_proved_file(real_data: Path, tmp_path: Path) -> None:
    """Fashion-MNIST as PNG files: 2,000 in class folders, 8,000 without labels, 2,000 to test."""
    script = Path(__file__).parents[1] / "benchmarks" / "write_pictures.py"
    counts = ("--labelled", "200", "--unlabelled", "8000", "--test", "200")
    command = [sys.executable, script, tmp_path / "fashion", *counts, "--data-root", real_data]
    subprocess.run(command, check=True)
    workspace = Workspace(runs=tmp_path / "runs", data=tmp_path / "data")
    run = pipeline.pretrain(
        Component("conv", channels=(16, 32)),
        dataset=Component("folder", path=str(tmp_path / "fashion"), size=28, channels=1),
        objective="denoise",
        training=TrainConfig(epochs=2),
        workspace=workspace,
    )
    found = run.record.metrics
    assert found["train_examples"] + found["validation_examples"] == 10_000
    training = TrainConfig(epochs=10, batch_size=64)
    top = pipeline.finetune(run, training=training, workspace=workspace)
    found = top.record.metrics
    assert found["train_examples"] + found["validation_examples"] == 2_000
    assert "T-shirt or top" in top.record.classes
    exported = pipeline.export(top, workspace=workspace)
    assert exported.proof.passed
    assert exported.proof.examples == 2_000
    assert exported.proof.comparison is not None
    assert exported.proof.comparison.onnx_accuracy > 0.7
