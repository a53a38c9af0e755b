"""Figures of the test split against slow recomputation and formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from zoo.report.statistics import (
    calibration,
    class_rows,
    confusion,
    most_confused,
    share,
)

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 5, 400)
PREDICTED = np.where(RANDOM.random(400) < 0.7, LABELS, RANDOM.integers(0, 5, 400))
PREDICTED[PREDICTED == 4] = 0  # the last class is never predicted
NAMES = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (7, 10), (8165, 10000), (1, 1)])
def test_the_interval_is_wilsons(hits: int, count: int) -> None:
    z, p = 1.959963984540054, hits / count  # the 97.5 % point of the normal distribution
    middle = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    found = share(hits, count)
    assert found.value == p
    assert found.low == pytest.approx(middle - half, abs=1e-9)
    assert found.high == pytest.approx(middle + half, abs=1e-9)
    assert 0 <= found.low <= p <= found.high <= 1


def test_confusions_are_those_counted_one_by_one() -> None:
    slow = [[0] * 5 for _ in range(5)]
    for true, said in zip(LABELS.tolist(), PREDICTED.tolist(), strict=True):
        slow[true][said] += 1
    assert confusion(LABELS, PREDICTED, 5).tolist() == slow
    assert slow == confusion_matrix(LABELS, PREDICTED).tolist()


def test_the_figures_of_each_class_are_those_of_scikit_learn() -> None:
    rows = class_rows(confusion(LABELS, PREDICTED, 5), NAMES)
    wanted = precision_recall_fscore_support(LABELS, PREDICTED, zero_division=np.nan)
    for row, precision, recall, f1, count in zip(rows, *wanted, strict=True):
        assert row.recall == pytest.approx(recall)
        assert row.f1 == pytest.approx(f1)
        assert row.examples == count
        if row.name == "e":
            assert row.precision is None  # never predicted
        else:
            assert row.precision == pytest.approx(precision)


def test_a_class_without_examples_has_no_recall() -> None:
    (_, absent) = class_rows(np.array([[3, 0], [0, 0]]), ["a", "b"])
    assert (absent.precision, absent.recall, absent.f1, absent.examples) == (None, None, None, 0)


def test_the_most_frequent_confusions_come_first() -> None:
    matrix = np.array([[90, 10, 0], [3, 50, 7], [0, 0, 5]])
    found = most_confused(matrix, ["a", "b", "c"], 12)
    assert [(c.true, c.predicted, c.count) for c in found] == [
        ("a", "b", 10), ("b", "c", 7), ("b", "a", 3)
    ]  # fmt: skip
    assert [c.share for c in found] == pytest.approx([0.1, 7 / 60, 3 / 60])


def test_the_calibration_error_is_the_weighted_gap_of_the_bins() -> None:
    logits = RANDOM.normal(size=(300, 5)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = RANDOM.integers(0, 5, 300)
    found = calibration(probabilities, labels, bins=10)
    error = 0.0
    for number in range(10):
        low, high = number / 10, (number + 1) / 10
        inside = [(max(p), int(np.argmax(p)) == label) for p, label in
                  zip(probabilities, labels, strict=True) if low < max(p) <= high]  # fmt: skip
        assert found.counts[number] == len(inside)
        if not inside:
            assert found.confidence[number] is None
            continue
        confidence = sum(c for c, _ in inside) / len(inside)
        accuracy = sum(right for _, right in inside) / len(inside)
        assert found.confidence[number] == pytest.approx(confidence)
        assert found.accuracy[number] == pytest.approx(accuracy)
        error += len(inside) / 300 * abs(confidence - accuracy)
    assert found.error == pytest.approx(error)


def test_who_is_sure_and_right_is_calibrated_and_who_is_sure_and_wrong_is_not() -> None:
    sure = np.eye(3)[[0, 1, 2]]
    assert calibration(sure, np.array([0, 1, 2])).error == 0
    assert calibration(sure, np.array([1, 2, 0])).error == 1
