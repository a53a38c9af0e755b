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
class Proof:
    """The verdict on one file. Fractions are 0..1; differences are absolute."""

    passed: bool
    file_sha256: str
    run: str
    rows: list[Row]
    examples: int = 0
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    max_logit_difference: float | None = None
    mean_logit_difference: float | None = None
    max_probability_difference: float | None = None
    agreement: float | None = None
    ties: int = 0
    torch_accuracy: float | None = None
    onnx_accuracy: float | None = None
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
    classes: list[str]
    weights_sha256: str


def prove(path: Path, reference: Reference) -> Proof:
    """Hold a file against its reference; raises `ModelFileError` where it cannot even be run.

    A label may differ where PyTorch's two best probabilities lie within twice the bound: a tie,
    counted apart. Everything that can be measured is; metadata is only compared with it.
    """
    data = read_model(path)
    open_checked(data, path)
    session = open_session(path)
    rows = [
        Row("ONNX checker, shape inference", True, "sound"),
        *_identity(session.card, reference),
    ]
    compared = _compare(session, reference)
    rows += compared.pop("rows")
    passed = all(row.passed for row in rows)
    digest = hashlib.sha256(data).hexdigest()
    return Proof(passed, digest, session.card.run, rows, len(reference.labels), **compared)


def _identity(card: Card, reference: Reference) -> list[Row]:
    same = card.weights_sha256 == reference.weights_sha256
    return [
        Row("weights are the run's", same, card.weights_sha256[:12]),
        Row("class names", card.labels == reference.classes, f"{len(card.labels)} classes"),
    ]


def _compare(session: Session, reference: Reference) -> dict[str, Any]:
    expected = reference.logits.astype(np.float64)
    probabilities = _softmax(expected)
    top_two = np.sort(probabilities, axis=1)[:, -2:]
    tie = (top_two[:, 1] - top_two[:, 0]) < 2 * PROBABILITY_BOUND
    scale = max(1.0, float(np.abs(expected).max()))
    labels = reference.labels
    worst, means, worst_probability = 0.0, [], 0.0
    agreed = np.ones(len(labels), dtype=bool)
    accuracies, finite = [], True
    for size in BATCH_SIZES:
        logits, found = _run_all(session, reference.images, size)
        finite = finite and bool(np.isfinite(logits).all() and np.isfinite(found).all())
        difference = np.abs(logits - expected)
        worst = max(worst, float(difference.max()))
        means.append(float(difference.mean()))
        worst_probability = max(worst_probability, float(np.abs(found - probabilities).max()))
        agreed &= found.argmax(1) == expected.argmax(1)
        accuracies.append(float((found.argmax(1) == labels).mean()))
    torch_accuracy = float((expected.argmax(1) == labels).mean())
    onnx_accuracy = min(accuracies, key=lambda a: -abs(a - torch_accuracy))
    flips = int((~agreed & ~tie).sum())
    ties = int((~agreed & tie).sum())
    said = session.card.metrics.get("accuracy")
    slack = (ties + 0.5) / len(labels)
    batches = ", ".join(str(size) for size in BATCH_SIZES)
    rows = [
        Row("finite outputs", finite, f"{len(labels):,} examples at batches {batches}"),
        Row("logits", worst <= LOGIT_BOUND * scale, f"{worst:.1e} of {LOGIT_BOUND * scale:.1e}"),
        Row(
            "probabilities",
            worst_probability <= PROBABILITY_BOUND,
            f"{worst_probability:.1e} of {PROBABILITY_BOUND:.0e}",
        ),
        Row("same label", flips == 0, f"{flips} differ, {ties} more in ties"),
        Row(
            "same accuracy",
            abs(onnx_accuracy - torch_accuracy) <= slack,
            f"onnxruntime {onnx_accuracy:.4f}, PyTorch {torch_accuracy:.4f}",
        ),
        Row(
            "accuracy as recorded",
            isinstance(said, float | int) and abs(float(said) - onnx_accuracy) <= slack,
            f"the file says {said}",
        ),
    ]
    return {
        "rows": rows,
        "max_logit_difference": worst,
        "mean_logit_difference": float(np.mean(means)),
        "max_probability_difference": worst_probability,
        "agreement": float(agreed.mean()),
        "ties": ties,
        "torch_accuracy": torch_accuracy,
        "onnx_accuracy": onnx_accuracy,
    }


def _run_all(session: Session, images: Array, size: int) -> tuple[Array, Array]:
    parts = [session.run(images[start : start + size]) for start in range(0, len(images), size)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return result
