"""`evaluate`: a finished classifier on the test split, read once and written down."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.api import Dataset, Examples
from zoo.errors import DataError
from zoo.evidence.spread import wilson
from zoo.models import Classifier
from zoo.pipeline import assembly, identity, leakage, sameness
from zoo.pipeline.assembly import Part
from zoo.pipeline.leakage import Held
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.report import outcomes
from zoo.runs import Run, load
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
    """Figures of a classifier on the test split; `confusion[true][predicted]` counts examples.

    `left_out` more were not measured on, for the run has seen them.
    """

    run: str
    dataset: str
    accuracy: float
    interval: list[float]
    examples: int
    classes: list[ClassFigures]
    confusion: list[list[int]]
    test_readings: int
    left_out: int = 0


# never elsewhere: hold_test, add_test
def evaluate(
    run: Run | str | Path,
    *,
    device: str = "auto",
    without_seen: bool = False,
    workspace: Workspace | None = None,
) -> Evaluation:
    """Measure a finished finetuning on its data set's test split, and record the reading.

    The reading holds the accuracy's 95 % interval, Wilson's: how far it may lie from the accuracy
    on all examples of that kind. `without_seen` leaves out test examples that the run has seen.
    What it showed example by example is left in the run's folder, for `report`. Raises `DataError`
    where the split changed and has such examples by now, unless they are left out.
    """
    workspace = workspace or Workspace()
    run = workspace.finetuned(run)
    classifier, data = load_classifier(run, workspace)
    used = resolve_device(device)
    classifier.to(used)
    with cpu_threads(run.record.threads):
        held = hold_test(run, data, workspace, "evaluate", without_seen=without_seen)
        examples = held.examples
        reading = run.add_test("evaluate", **held.reading)
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
        left_out=held.left_out,
    )


# never elsewhere: digest_test
def reading_once(run: Run, workspace: Workspace, device: str = "auto") -> dict[str, Any]:
    """Return a reading of the test split as it is, made only where there is none yet."""
    if run.record.evaluations:
        part, data = describe(run, workspace)
        test = identity.digest_test(part, data)
        now = None if test is None else test.sha256
        for reading in run.record.evaluations:
            if now is None or reading.get("test_sha256", now) == now:
                return reading
        current().note(f"the test split changed since {run.name} was measured: measured anew")
    evaluate(run, device=device, workspace=workspace)
    return load(run.folder).record.evaluations[-1]


def accuracy_once(run: Run, workspace: Workspace, device: str = "auto") -> float:
    """Return the accuracy on the test split as it is, read only where it was not read before."""
    return float(reading_once(run, workspace, device)["accuracy"])


def load_classifier(run: Run, workspace: Workspace) -> tuple[Classifier, Dataset]:
    """Build the classifier of a finished finetuning, on the CPU, and describe its data set."""
    _, data = describe(run, workspace)
    return classifier_of(run, workspace), data


def describe(run: Run, workspace: Workspace) -> tuple[Part, Dataset]:
    """Describe the data set of a run; nothing of it is read yet."""
    part = assembly.recorded(workspace, "dataset", run.record.dataset)
    return part, assembly.build_dataset(workspace, part)


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


def check_test(run: Run, data: Dataset, workspace: Workspace) -> None:
    """Refuse a data set that has no test split, or another one than the run was trained for."""
    name = run.record.dataset.name
    if data.test is None:
        raise DataError(f"Dataset '{name}' has no test split to measure on.")
    if change := sameness.change_of(run.record, data.classes, data.input.shape):
        commands = sameness.commands_anew(run, workspace)
        raise DataError(sameness.refusal(run.record, change, commands))


# never elsewhere: load_test
def hold_test(
    run: Run,
    data: Dataset,
    workspace: Workspace,
    by: str,
    *,
    without_seen: bool = False,
    refuse: bool = True,
) -> Held:
    """Load the test split and hold it against what the run has seen; the caller counts a reading.

    Raises `DataError` as `leakage.hold` does, and where there is no such split.
    """
    check_test(run, data, workspace)
    examples = load_test(run, data, workspace)
    return leakage.hold(run, examples, workspace, by, without_seen=without_seen, refuse=refuse)


# never elsewhere: test
def load_test(run: Run, data: Dataset, workspace: Workspace) -> Examples:
    """Load the test split whole. Raises `DataError`."""
    owner = f"The test split of dataset '{run.record.dataset.name}'"
    assert data.test is not None  # check_test
    part = assembly.recorded(workspace, "dataset", run.record.dataset)
    return assembly.load_split(part, data, data.test, len(data.classes), owner)


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
