"""Figures of a classifier on labelled examples: intervals, classes, confusions, calibration."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from zoo.evidence.spread import wilson

Array = np.ndarray[Any, Any]

BINS = 15
"""As in Guo et al. (arXiv 1706.04599)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """A share of examples with its 95 % interval, all 0..1."""

    value: float
    low: float
    high: float
    examples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class; a figure is None where it is not defined: never predicted, or no example."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    examples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confusion:
    """How often examples of one class were taken for another."""

    true: str
    predicted: str
    count: int
    share: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Confidence against accuracy in bins of equal width.

    `error` is the expected calibration error: the mean gap, weighted by the examples of each bin.
    Bins without examples have None.
    """

    error: float
    confidence: list[float | None]
    accuracy: list[float | None]
    counts: list[int]


def share(hits: int, examples: int) -> Share:
    """Return hits / examples with the 95 % interval of Wilson (JASA 22, 1927)."""
    low, high = wilson(hits, examples)
    return Share(value=hits / examples, low=low, high=high, examples=examples)


def confusion(labels: Array, predicted: Array, classes: int) -> Array:
    """Count examples by true class (row) and predicted class (column): classes x classes."""
    flat = np.bincount(labels * classes + predicted, minlength=classes**2)
    return flat.reshape(classes, classes)


def class_rows(matrix: Array, names: list[str]) -> list[ClassRow]:
    """Return the figures of each class from a confusion matrix."""
    hits, there, said = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    return [
        ClassRow(
            name=name,
            precision=_ratio(hits[i], said[i]),
            recall=_ratio(hits[i], there[i]),
            f1=_ratio(2 * hits[i], there[i] + said[i]),
            examples=int(there[i]),
        )
        for i, name in enumerate(names)
    ]


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def most_confused(matrix: Array, names: list[str], most: int) -> list[Confusion]:
    """Return the pairs of classes that are confused most often, most frequent first."""
    off = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-off, axis=None, kind="stable")[:most]
    pairs = [divmod(int(at), len(matrix)) for at in order]
    return [
        Confusion(
            true=names[true],
            predicted=names[said],
            count=int(off[true, said]),
            share=float(off[true, said] / matrix[true].sum()),
        )
        for true, said in pairs
        if off[true, said]
    ]


def calibration(probabilities: Array, labels: Array, bins: int = BINS) -> Calibration:
    """Compare the probability of the predicted class with how often it is right.

    probabilities: N x classes. Bins are (k / bins, (k + 1) / bins]; arXiv 1706.04599.
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    at = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(at, minlength=bins)
    said = np.bincount(at, confidence, minlength=bins)
    hits = np.bincount(at, right, minlength=bins)
    return Calibration(
        error=float(np.abs(said - hits).sum() / len(labels)),
        confidence=[_ratio(s, n) for s, n in zip(said, counts, strict=True)],
        accuracy=[_ratio(h, n) for h, n in zip(hits, counts, strict=True)],
        counts=[int(n) for n in counts],
    )
