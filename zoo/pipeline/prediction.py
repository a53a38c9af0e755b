"""`predict`: picture files through an exported file, by onnxruntime alone."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo.errors import ModelFileError, UsageError
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
    _check_order(Path(model), [Path(p) for p in pictures])
    session = open_session(Path(model))
    card = session.card
    for picture in pictures:
        _check_there(Path(picture))
    arrays = [read_picture(Path(p), card.input, invert=invert) for p in pictures]
    logits, probabilities = session.run(input_array(list(arrays), card.input))
    if not (np.isfinite(logits).all() and np.isfinite(probabilities).all()):
        raise ModelFileError(f"'{model}' gives NaN or infinity. Type: zoo validate {model}")
    predictions = []
    for picture, row in zip(pictures, probabilities.tolist(), strict=True):
        ranked = sorted(zip(card.labels, row, strict=True), key=lambda pair: -pair[1])
        label, probability = ranked[0]
        predictions.append(Prediction(str(picture), label, probability, dict(ranked)))
    return predictions


def _check_order(model: Path, pictures: list[Path]) -> None:
    """Refuse a picture in the model's place while the model stands among the pictures."""
    found = next((path for path in pictures if path.suffix == ".onnx"), None)
    if found is not None and model.suffix != ".onnx":
        typed = f"zoo predict {shlex.quote(str(found))} {shlex.quote(str(model))}"
        raise UsageError(f"'{model}' is no .onnx file, which is named first. Type: {typed}")


def _check_there(picture: Path) -> None:
    if picture.is_dir():
        raise UsageError(f"'{picture}' is a folder; name the pictures in it.")
    if not picture.exists():
        raise UsageError(f"There is no picture '{picture}'.")
