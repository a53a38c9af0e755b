"""`evaluate`: a finished classifier on the test split, read once and written down."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from zoo.api import Dataset, Examples
from zoo.data import checked
from zoo.errors import DataError
from zoo.evidence.spread import wilson
from zoo.models import Classifier
from zoo.pipeline import assembly
from zoo.pipeline.workspace import Workspace
from zoo.report import outcomes
from zoo.runs import Run
from zoo.training import cpu_threads, outputs, resolve_device


@dataclasses.dataclass(frozen=True)
class ClassFigures:
    """One class on the test split; precision is None where the class was never predicted."""

    name: str
    precision: float | None
    recall: float | None
    examples: int


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Figures of a classifier on the test split; `confusion[true][predicted]` counts examples."""

    run: str
    dataset: str
    accuracy: float
    interval: list[float]
    examples: int
    classes: list[ClassFigures]
    confusion: list[list[int]]
    test_readings: int


# never elsewhere: load_test, add_test
def evaluate(
    run: Run | str | Path, *, device: str = "auto", workspace: Workspace | None = None
) -> Evaluation:
    """Measure a finished finetuning on its data set's test split, and record the reading.

    The reading holds the accuracy's 95 % interval, Wilson's: how far it may lie from the accuracy
    on all examples of that kind.
    What it showed example by example is left in the run's folder, for `report`.
    """
    workspace = workspace or Workspace()
    run = workspace.finetuned(run)
    classifier, data = load_classifier(run, workspace)
    used = resolve_device(device)
    classifier.to(used)
    with cpu_threads(run.record.threads):
        check_test(run, data)
        reading = run.add_test("evaluate")
        examples = load_test(run, data, workspace)
        logits = outputs(classifier, examples.inputs)
    assert examples.labels is not None
    matrix = confusion(logits.argmax(1), examples.labels, len(run.record.classes))
    accuracy = accuracy_of(logits, examples.labels)
    low, high = wilson(round(accuracy * len(examples)), len(examples))
    figures = {"accuracy": accuracy, "examples": len(examples), "interval": [low, high]}
    run.finish_test(reading, **figures, device=str(used))
    left = outcomes.outcomes_of(run, examples.inputs, examples.labels, logits, reading)
    outcomes.save(run, left)
    return Evaluation(
        run=run.name,
        dataset=run.record.dataset.name,
        accuracy=accuracy,
        interval=[low, high],
        examples=len(examples),
        classes=_per_class(matrix, run.record.classes),
        confusion=matrix.tolist(),
        test_readings=len(run.record.tests),
    )


def accuracy_once(run: Run, workspace: Workspace, device: str = "auto") -> float:
    """Return the accuracy on the test split, read only where it was not read before."""
    if run.record.evaluations:
        return float(run.record.evaluations[0]["accuracy"])
    return evaluate(run, device=device, workspace=workspace).accuracy


def load_classifier(run: Run, workspace: Workspace) -> tuple[Classifier, Dataset]:
    """Build the classifier of a finished finetuning, on the CPU, and describe its data set."""
    part = assembly.recorded(workspace, "dataset", run.record.dataset)
    data = assembly.build_dataset(workspace, part)
    return classifier_of(run, workspace), data


def classifier_of(run: Run, workspace: Workspace) -> Classifier:
    """Build the classifier of a finished finetuning, on the CPU, without its data set."""
    record = run.record
    backbone_part = assembly.recorded(workspace, "backbone", record.backbone)
    assert record.head is not None
    head_part = assembly.recorded(workspace, "head", record.head)
    backbone = assembly.build_backbone(backbone_part, run.input)
    head = assembly.build_head(head_part, int(backbone.features), len(record.classes))  # type: ignore[arg-type]
    preprocess = assembly.preprocess_for(run.data_input, run.input, backbone)
    classifier = Classifier(preprocess, backbone.encoder, head)  # type: ignore[arg-type]
    assembly.load_state(classifier, run.load_weights(), backbone_part.entry.owner)
    return classifier.eval()


def check_test(run: Run, data: Dataset) -> None:
    """Refuse a data set that has no test split, or another one than the run was trained for."""
    name = run.record.dataset.name
    if data.test is None:
        raise DataError(f"Dataset '{name}' has no test split to measure on.")
    if list(data.classes) != run.record.classes or data.input != run.data_input:
        raise DataError(
            f"Dataset '{name}' is no longer the one that run '{run.name}' was trained for."
        )


# never elsewhere: test
def load_test(run: Run, data: Dataset, workspace: Workspace) -> Examples:
    """Load the test split; the caller records the reading. Raises `DataError`."""
    owner = f"The test split of dataset '{run.record.dataset.name}'"
    assert data.test is not None  # check_test
    part = assembly.recorded(workspace, "dataset", run.record.dataset)
    with assembly.guarded(part.entry, "loaded"):
        loaded = data.test()
    return checked(loaded, data.input.shape, len(data.classes), owner)


def accuracy_of(logits: Tensor, labels: Tensor) -> float:
    return int((logits.argmax(1) == labels).sum()) / len(labels)


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count examples by true class (row) and predicted class (column): classes x classes."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


def _per_class(matrix: Tensor, names: list[str]) -> list[ClassFigures]:
    figures = []
    for index, name in enumerate(names):
        hits = int(matrix[index, index])
        there, said = int(matrix[index].sum()), int(matrix[:, index].sum())
        precision = hits / said if said else None
        figures.append(ClassFigures(name, precision, hits / there if there else None, there))
    return figures
