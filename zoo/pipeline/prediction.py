"""`predict`: picture files through an exported file, by onnxruntime alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo.errors import ModelFileError
from zoo.export.runtime import input_array, open_session
from zoo.pictures import read_picture


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the model says of one picture: the best class, and every class by probability."""

    picture: str
    label: str
    probability: float
    classes: dict[str, float]


def predict(
    model: str | Path, pictures: Sequence[str | Path], *, invert: bool = False
) -> list[Prediction]:
    """Classify picture files of any size and mode; torch is not loaded.

    Raises `ModelFileError` for the model, `ZooError` for a picture; then nothing is returned.
    """
    session = open_session(Path(model))
    card = session.card
    arrays = [read_picture(Path(p), card.input, invert=invert) for p in pictures]
    _, probabilities = session.run(input_array(list(arrays), card.input))
    if not np.isfinite(probabilities).all():
        raise ModelFileError(f"'{model}' answers with no number. Type: zoo validate {model}")
    predictions = []
    for picture, row in zip(pictures, probabilities.tolist(), strict=True):
        ranked = sorted(zip(card.labels, row, strict=True), key=lambda pair: -pair[1])
        label, probability = ranked[0]
        predictions.append(Prediction(str(picture), label, probability, dict(ranked)))
    return predictions
