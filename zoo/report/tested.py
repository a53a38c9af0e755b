"""What a report shows of the test split: confusions, classes, calibration, examples."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from zoo.report import charts
from zoo.report.charts import NAMED
from zoo.report.outcomes import Outcomes
from zoo.report.pictures import Picture, picture
from zoo.report.statistics import (
    Calibration,
    ClassRow,
    Confusion,
    calibration,
    class_rows,
    confusion,
    most_confused,
)

PAIRS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """One example with its picture: true class, predicted class, and the probability of that."""

    picture: Picture
    position: int
    true: str
    predicted: str
    probability: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tested:
    """The test split, ready for the page; `matrix` is a table, or of many classes a picture."""

    examples: int
    hits: int
    when: str
    rows: list[ClassRow]
    cells: list[list[tuple[int, float]]]
    matrix: Picture | None
    pairs: list[Confusion]
    calibration: Calibration
    reliability: str
    reliability_alt: str
    mistakes: list[Shown]
    correct: list[Shown]


def tested(outcomes: Outcomes, names: list[str]) -> Tested:
    """Make of the outcomes of a test split all that the page shows."""
    probabilities = outcomes.logits.double().softmax(1).numpy()
    labels = outcomes.labels.numpy()
    predicted = outcomes.logits.argmax(1).numpy()
    matrix = confusion(labels, predicted, len(names))
    shares = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    few = len(names) <= NAMED
    calibrated = calibration(probabilities, labels)
    shown = _examples(outcomes, probabilities, predicted, names)
    return Tested(
        examples=len(labels),
        hits=int(np.trace(matrix)),
        when=outcomes.when,
        rows=class_rows(matrix, names),
        cells=_cells(matrix, shares) if few else [],
        matrix=None if few else _picture(shares),
        pairs=most_confused(matrix, names, PAIRS),
        calibration=calibrated,
        reliability=charts.reliability(calibrated),
        reliability_alt=_said(calibrated),
        mistakes=[each for each in shown if each.true != each.predicted],
        correct=[each for each in shown if each.true == each.predicted],
    )


def _cells(matrix: Any, shares: Any) -> list[list[tuple[int, float]]]:
    return [
        [(int(count), float(share)) for count, share in zip(*row, strict=True)]
        for row in zip(matrix, shares, strict=True)
    ]


def _said(found: Calibration) -> str:
    bins = zip(found.counts, found.confidence, found.accuracy, strict=True)
    said = [
        f"of {count:,} at {confidence:.0%}, {accuracy:.0%} are right"
        for count, confidence, accuracy in bins
        if confidence is not None and accuracy is not None
    ]
    return f"Reliability diagram, by the probability of the predicted class: {'; '.join(said)}."


def _picture(shares: Any) -> Picture:
    """Draw a matrix of many classes, a pixel a pair; roots, so that rare confusions are seen."""
    from matplotlib import colormaps

    shades = colormaps["inferno"](np.sqrt(shares))[..., :3]
    pixels = (shades * 255).round().astype(np.uint8)
    times = max(1, 600 // len(pixels))
    return picture(pixels.repeat(times, 0).repeat(times, 1).transpose(2, 0, 1), exact=True)


def _examples(
    outcomes: Outcomes, probabilities: Any, predicted: Any, names: list[str]
) -> list[Shown]:
    if outcomes.pictures.shape[1] not in (1, 3):
        return []
    found = []
    for pixels, at in zip(outcomes.pictures.numpy(), outcomes.shown.tolist(), strict=True):
        said = int(predicted[at])
        found.append(
            Shown(
                picture=picture(pixels),
                position=at,
                true=names[int(outcomes.labels[at])],
                predicted=names[said],
                probability=float(probabilities[at, said]),
            )
        )
    return found
