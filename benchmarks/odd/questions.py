"""A thousand pictures, asked one at a time: what PyTorch says of each, and what the file says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from zoo.export.comparison import PROBABILITY_BOUND, softmax

Array = np.ndarray[Any, Any]

COUNT = 1000
SIDE = 8


@dataclasses.dataclass(frozen=True)
class Answers:
    """How far a file is from PyTorch: labels that differ but for ties, answers not finite.

    `problem` is what either of them raised at one example.
    """

    asked: int
    labels: int
    largest: float | None
    unfinite: int
    problem: str = ""

    @property
    def wrong(self) -> bool:
        far = self.largest is None or self.largest > PROBABILITY_BOUND
        return bool(self.problem or self.labels or self.unfinite or far)

    def __str__(self) -> str:
        if self.problem:
            return self.problem
        far = "no number" if self.largest is None else f"{self.largest:.1e}"
        return f"{self.labels} labels, {self.unfinite} not finite, probabilities {far} off"


def pictures(digits: Array, seed: int = 0) -> Array:
    """Make the pictures: uint8 1000 x 1 x 8 x 8.

    Every flat grey of a scale, one bright and one dark point in each place, checkerboards, stripes
    and halves of both signs, ramps; noise in every range, at both ends alone, and sparse; the
    digits given; random bytes.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((SIDE, SIDE))
    made = [np.full((SIDE, SIDE), grey) for grey in (*range(0, 256, 5), 1, 127, 128, 254)]
    points = np.eye(SIDE * SIDE).reshape(-1, SIDE, SIDE) * 255
    made += [*points, *(255 - points)]
    for step in (1, 2, 4):
        for pattern in (rows // step + columns // step, rows // step, columns // step):
            made += [pattern % 2 * 255, (pattern + 1) % 2 * 255]
    made += [rows * 36, columns * 36, (rows + columns) * 18, 255 - rows * 36, 255 - columns * 36]
    made += [rng.integers(128 - half, 128 + half, (SIDE, SIDE)) for half in range(1, 101, 2)]
    made += [rng.integers(0, 2, (SIDE, SIDE)) * 255 for _ in range(100)]
    made += [(rng.random((SIDE, SIDE)) < share / 200) * 255 for share in range(100)]
    made += [each[0] for each in digits[:300]]
    made += [*rng.integers(0, 256, (COUNT - len(made), SIDE, SIDE))]
    return np.stack(made).astype(np.uint8)[:, None]


def ask(classifier: nn.Module, file: Path, images: Array) -> Answers:
    """Ask both one picture at a time, in this order, on one thread."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    expected: list[Array] = []
    found: list[Array] = []
    for image in images[:, None]:
        try:
            with torch.no_grad():
                expected.append(classifier(torch.from_numpy(image)).double().numpy())
        except Exception as error:
            return _none(len(found), f"PyTorch raises {_named(error)}")
        try:
            found.append(session.run(["probabilities"], {"image": image})[0])
        except Exception as error:
            return _none(len(found), f"onnxruntime raises {_named(error)}")
        shapes = expected[-1].shape, found[-1].shape
        if shapes[0] != shapes[1]:
            return _none(len(found), "PyTorch answers {} and the file {}".format(*shapes))
    return compared(softmax(np.concatenate(expected)), np.concatenate(found))


def compared(expected: Array, found: Array) -> Answers:
    """Hold probabilities against probabilities, N x classes; ties are no differences."""
    finite = np.isfinite(expected).all(1) & np.isfinite(found).all(1)
    wanted, said = expected[finite], found[finite]
    best = np.sort(wanted, axis=1)
    ties = best[:, -1] - best[:, -2] < 2 * PROBABILITY_BOUND
    labels = int(((wanted.argmax(1) != said.argmax(1)) & ~ties).sum())
    largest = float(np.abs(wanted - said).max()) if len(wanted) else None
    return Answers(len(expected), labels, largest, int((~finite).sum()))


def _none(asked: int, problem: str) -> Answers:
    return Answers(asked, 0, None, 0, problem)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
