"""The proof: an exported file held against PyTorch, row by row, on the whole test split."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from zoo.export.card import Card
from zoo.export.graph import open_checked
from zoo.export.runtime import Array, Session, open_session, read_model

BATCH_SIZES = (1, 7, 64, 257)
PROBABILITY_BOUND = 1e-4
LOGIT_BOUND = 1e-4
"""Of the largest logit, or of 1 where all are smaller: single precision keeps about 1e-6."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One check: what it is, whether it passed, and the figure it was judged by."""

    name: str
    passed: bool
    figure: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What the file and PyTorch said of the same examples, the worst over all batch sizes."""

    max_logit_difference: float
    mean_logit_difference: float
    max_probability_difference: float
    agreement: float
    ties: int
    torch_accuracy: float
    onnx_accuracy: float
    flips: int
    largest_logit: float

    def rows(self, recorded: object, examples: int) -> list[Row]:
        """Judge the figures; `recorded` is the accuracy that the file says of itself."""
        logit_bound = LOGIT_BOUND * max(1.0, self.largest_logit)
        slack = (self.ties + 0.5) / examples
        said = float(recorded) if isinstance(recorded, int | float) else float("inf")
        worst, likely = self.max_logit_difference, self.max_probability_difference
        accuracies = f"onnxruntime {self.onnx_accuracy:.4f}, PyTorch {self.torch_accuracy:.4f}"
        return [
            Row(
                "logits",
                worst <= logit_bound,
                f"{worst:.1e} off, {self.mean_logit_difference:.1e} on average;"
                f" at most {logit_bound:.1e}",
            ),
            Row(
                "probabilities",
                likely <= PROBABILITY_BOUND,
                f"{likely:.1e} off; at most {PROBABILITY_BOUND:.1e}",
            ),
            Row(
                "same label",
                self.flips == 0,
                f"{self.agreement:.2%} agree; {self.flips} differ, {self.ties} more in ties",
            ),
            Row(
                "same accuracy", abs(self.onnx_accuracy - self.torch_accuracy) <= slack, accuracies
            ),
            Row(
                "accuracy as recorded",
                abs(said - self.onnx_accuracy) <= slack,
                f"the file says {said:.4f}",
            ),
        ]


@dataclasses.dataclass(frozen=True)
class Proof:
    """The verdict on one file. Fractions are 0..1; differences are absolute."""

    passed: bool
    file_sha256: str
    run: str
    rows: list[Row]
    examples: int
    comparison: Comparison | None
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    torch_version: str = torch.__version__
    onnxruntime_version: str = onnxruntime.__version__

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def failures(self) -> list[Row]:
        return [row for row in self.rows if not row.passed]


@dataclasses.dataclass(frozen=True)
class Reference:
    """What PyTorch says of the test split, and what the file is expected to say of itself."""

    images: Array  # uint8 N x C x H x W
    labels: Array  # int64 N
    logits: Array  # float32 N x classes
    card: Card


def prove(path: Path, reference: Reference) -> Proof:
    """Hold a file against its reference; raises `ModelFileError` where it cannot even be run.

    A label may differ where PyTorch's two best probabilities lie within twice the bound: a tie,
    counted apart. Everything that can be measured is; metadata is only compared with it.
    """
    data = read_model(path)
    open_checked(data, path)
    session = open_session(path, data)
    rows = [
        Row("ONNX checker, shape inference", True, "sound"),
        *_identity(session.card, reference),
    ]
    examples = len(reference.labels)
    found = _compare(session, reference)
    sizes = ", ".join(str(size) for size in BATCH_SIZES)
    rows.append(
        Row("finite outputs", found is not None, f"{examples:,} examples at batches {sizes}")
    )
    if found is not None:
        rows += found.rows(session.card.metrics.get("accuracy"), examples)
    return Proof(
        passed=all(row.passed for row in rows),
        file_sha256=hashlib.sha256(data).hexdigest(),
        run=session.card.run,
        rows=rows,
        examples=examples,
        comparison=found,
    )


def _identity(card: Card, reference: Reference) -> list[Row]:
    """Compare what the file says of itself with what its run records, field by field."""
    wanted = reference.card
    rest = ("run", "input", "components", "versions")
    wrong = [name for name in rest if getattr(card, name) != getattr(wanted, name)]
    if set(card.metrics) != set(wanted.metrics):
        wrong.append("metrics")
    return [
        Row(
            "weights are the run's",
            card.weights_sha256 == wanted.weights_sha256,
            card.weights_sha256[:12],
        ),
        Row("class names", card.labels == wanted.labels, f"{len(card.labels)} classes"),
        Row("metadata as the run records", not wrong, ", ".join(wrong) or "equal"),
    ]


def _compare(session: Session, reference: Reference) -> Comparison | None:
    """Run the whole split at each batch size; None where an output is not finite."""
    expected = reference.logits.astype(np.float64)
    probabilities = _softmax(expected)
    labels = reference.labels
    agreed = np.ones(len(labels), dtype=bool)
    logit_worst, logit_means, likely_worst, accuracies = [], [], [], []
    for size in BATCH_SIZES:
        logits, found = _run_all(session, reference.images, size)
        if not all(np.isfinite(array).all() for array in (expected, logits, found)):
            return None
        difference = np.abs(logits - expected)
        logit_worst.append(float(difference.max()))
        logit_means.append(float(difference.mean()))
        likely_worst.append(float(np.abs(found - probabilities).max()))
        agreed &= found.argmax(1) == expected.argmax(1)
        accuracies.append(float((found.argmax(1) == labels).mean()))
    two_best = np.sort(probabilities, axis=1)[:, -2:]
    tie = (two_best[:, 1] - two_best[:, 0]) < 2 * PROBABILITY_BOUND
    torch_accuracy = float((expected.argmax(1) == labels).mean())
    return Comparison(
        max_logit_difference=max(logit_worst),
        mean_logit_difference=float(np.mean(logit_means)),
        max_probability_difference=max(likely_worst),
        agreement=float(agreed.mean()),
        ties=int((~agreed & tie).sum()),
        torch_accuracy=torch_accuracy,
        onnx_accuracy=max(accuracies, key=lambda accuracy: abs(accuracy - torch_accuracy)),
        flips=int((~agreed & ~tie).sum()),
        largest_logit=float(np.abs(expected).max()),
    )


def _run_all(session: Session, images: Array, size: int) -> tuple[Array, Array]:
    count = len(images)
    if count < size:  # a batch of this size is run all the same
        images = np.resize(images, (size, *images.shape[1:]))
    parts = [session.run(images[start : start + size]) for start in range(0, len(images), size)]
    logits, probabilities = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
    return logits[:count], probabilities[:count]


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return result
