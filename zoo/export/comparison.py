"""Answers held against answers: how far apart, which labels differ, which of those are ties."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

PROBABILITY_BOUND = 1e-4
LOGIT_BOUND = 1e-4
"""Of the largest logit, or of 1 where all are smaller: single precision keeps about 1e-6."""

SPREAD = {"fp32": PROBABILITY_BOUND, "int8": 0.05, "fp16": 0.01}
"""How far the probabilities of one file may lie apart in two runtimes, by its precision."""


@dataclasses.dataclass(frozen=True)
class Tie:
    """An example whose label differs, where the two best probabilities nearly agree."""

    index: int
    reference_class: int
    file_class: int
    margin: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a file and its reference said of the same examples, the worst over all its answers.

    The reference is PyTorch; for an int8 or fp16 file it is its fp32 twin. Fractions are 0..1.
    """

    max_logit_difference: float
    mean_logit_difference: float
    max_probability_difference: float
    agreement: float
    ties: list[Tie]
    flips: int
    reference_accuracy: float
    onnx_accuracy: float
    largest_logit: float

    @property
    def drop(self) -> float:
        """How much less accurate the file is than its reference, 0..1; negative: it is better."""
        return self.reference_accuracy - self.onnx_accuracy


def compare(
    expected: Array, answers: Sequence[tuple[Array, Array]], labels: Array
) -> Comparison | None:
    """Hold logits and probabilities, each N x classes, against logits; None if not finite.

    A label may differ where the two best expected probabilities lie within twice the bound.
    """
    expected = expected.astype(np.float64)
    if not all(np.isfinite(array).all() for pair in answers for array in (expected, *pair)):
        return None
    wanted = softmax(expected)
    best = expected.argmax(1)
    margins = _margins(wanted)
    differences = [np.abs(logits - expected) for logits, _ in answers]
    wrong = {i: int(p[i].argmax()) for _, p in answers for i in np.flatnonzero(p.argmax(1) != best)}
    tied = [
        Tie(int(i), int(best[i]), said, float(margins[i]))
        for i, said in sorted(wrong.items())
        if margins[i] < 2 * PROBABILITY_BOUND
    ]
    accuracy = float((best == labels).mean())
    accuracies = [float((p.argmax(1) == labels).mean()) for _, p in answers]
    return Comparison(
        max_logit_difference=max(float(each.max()) for each in differences),
        mean_logit_difference=float(np.mean([each.mean() for each in differences])),
        max_probability_difference=max(float(np.abs(p - wanted).max()) for _, p in answers),
        agreement=1 - len(wrong) / len(labels),
        ties=tied,
        flips=len(wrong) - len(tied),
        reference_accuracy=accuracy,
        onnx_accuracy=max(accuracies, key=lambda each: abs(each - accuracy)),
        largest_logit=float(np.abs(expected).max()),
    )


def apart(found: Array, wanted: Array, bound: float) -> tuple[float, int]:
    """Return the largest difference of probabilities, and how many labels differ but for ties."""
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf"), len(wanted)
    wrong = found.argmax(1) != wanted.argmax(1)
    flips = int((wrong & (_margins(wanted) >= 2 * bound)).sum())
    return float(np.abs(found - wanted).max(initial=0)), flips


def relative(found: Array, wanted: Array) -> Array:
    """Return how far logits lie apart, N: of the example's largest wanted one, or of 1 if smaller.

    Infinite where one of them is not finite.
    """
    with np.errstate(invalid="ignore"):
        far = np.abs(found.astype(np.float64) - wanted).max(axis=1)
        far = far / np.maximum(1.0, np.abs(wanted).max(axis=1))
    result: Array = np.where(np.isfinite(far), far, np.inf)
    return result


def finite(*answers: Array) -> Array:
    """Return for each example whether everything that was answered is finite, N."""
    found: Array = np.all([np.isfinite(each).all(axis=1) for each in answers], axis=0)
    return found


def softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def softmax32(logits: Array) -> Array:
    """Return probabilities in float32, computed in float64."""
    result: Array = softmax(logits.astype(np.float64)).astype(np.float32)
    return result


def _margins(probabilities: Array) -> Array:
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    two_best = np.sort(probabilities, axis=1)[:, -2:]
    margins: Array = two_best[:, 1] - two_best[:, 0]
    return margins
