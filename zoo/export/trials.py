"""A file run in every way that the proof asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from zoo.errors import ModelFileError, first_line
from zoo.export.card import INPUT, OUTPUTS, Card
from zoo.export.modelfile import ModelFile
from zoo.export.runtime import Array, Session, open_session
from zoo.export.runtimes import Answer, run

BATCH_SIZES = (1, 2, 7, 64, 257)
ONNX_REFERENCE = "onnx.reference"
REFERENCE_EXAMPLES = 16
"""ONNX's own reference is plain numpy, 10 ms and more an example."""
OTHER_EXAMPLES = 257

T = TypeVar("T")
Answers = tuple[tuple[Array, Array], tuple[Array, Array]]
"""Logits and probabilities at full optimization, then at none."""


@dataclasses.dataclass(frozen=True)
class Both:
    """A file opened at full and at no optimization."""

    full: Session
    none: Session


def open_both(file: ModelFile) -> Both:
    return Both(*(open_session(file.path, file.data, level=level) for level in ("full", "none")))


def attempt(call: Callable[[], T]) -> tuple[T | None, str]:
    """Call; return None and the reason where onnxruntime fails."""
    try:
        return call(), ""
    except ModelFileError as error:
        return None, str(error)


def at_both(sessions: Both, inputs: Array) -> Answers:
    """Run all inputs, at another batch size on each side."""
    return run_all(sessions.full, inputs, 64), run_all(sessions.none, inputs, 257)


def sizes(card: Card) -> tuple[int, ...]:
    return BATCH_SIZES if card.batch is None else (card.batch,)


def spread_over_batches(session: Session, inputs: Array) -> float:
    """Return how far apart the probabilities of the same inputs lie at every batch size.

    And in another order, for a fixed batch has one size: few inputs are joined by random bytes,
    so that none has but its own copies beside it.
    """
    rng = np.random.default_rng(0)
    count = max(BATCH_SIZES)
    if len(inputs) < count:
        shape = (count - len(inputs), *inputs.shape[1:])
        inputs = np.concatenate([inputs, rng.integers(0, 256, shape, dtype=np.uint8)])
    inputs, order = inputs[:count], rng.permutation(count)
    found = [run_all(session, inputs, size)[1] for size in sizes(session.card)]
    found.append(run_all(session, inputs[order], 64)[1][np.argsort(order)])
    spread = np.abs(np.stack(found) - found[0]).max()
    return float(spread) if np.isfinite(spread) else float("inf")


def run_all(session: Session, inputs: Array, size: int) -> tuple[Array, Array]:
    """Run inputs in batches of a size, or of the file's own; the last one is filled up."""
    count, size = len(inputs), session.card.batch or size
    filled = np.resize(inputs, (-(-count // size) * size, *inputs.shape[1:]))
    parts = [session.run(filled[start : start + size]) for start in range(0, len(filled), size)]
    logits, probabilities = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return logits[:count], probabilities[:count]


def examples_of(runtime: str) -> int:
    """Return how many examples a runtime beside onnxruntime is asked."""
    return REFERENCE_EXAMPLES if runtime == ONNX_REFERENCE else OTHER_EXAMPLES


def elsewhere(name: str, file: ModelFile, inputs: Array) -> list[Answer]:
    """Run inputs in another runtime, in batches and one by one; its failing is an answer too."""
    if name == ONNX_REFERENCE:
        return [_reference(file, inputs)]
    card, answers = file.card, []
    # The last batch of 64 is a smaller one: a runtime may answer by what it was asked before.
    for batch in (64, 1):
        answers.append(
            run(name, file.data, inputs, batch=batch, layout=card.layout, fixed_batch=card.batch)
        )
        if answers[-1].probabilities is None or card.batch is not None:
            break
    return answers


def _reference(file: ModelFile, inputs: Array) -> Answer:
    """Run ONNX's reference implementation: numpy, slow, written by others."""
    import onnx
    from onnx import version_converter
    from onnx.reference import ReferenceEvaluator

    size, parts = file.card.batch or max(1, len(inputs)), []
    try:
        model = file.model
        if file.card.precision == "int8" and file.opset < 19:
            model = version_converter.convert_version(model, 19)  # it has no older dequantizing
        evaluator: Any = ReferenceEvaluator(model)
        for start in range(0, len(inputs), size):
            part = inputs[start : start + size]
            filled = np.resize(part, (size, *part.shape[1:])) if file.card.batch else part
            if file.card.layout == "NHWC":
                filled = filled.transpose(0, 2, 3, 1)
            with np.errstate(all="ignore"):  # what is not finite is seen in the answers
                found = evaluator.run(list(OUTPUTS), {INPUT: filled})
            parts.append([each[: len(part)] for each in found])
    except Exception as error:
        reason = f"unsupported: {type(error).__name__}: {first_line(error)[:100]}"
        return Answer(ONNX_REFERENCE, onnx.__version__, problem=reason)
    logits, probabilities = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return Answer(ONNX_REFERENCE, onnx.__version__, probabilities, logits)
