"""A file run in every way that the proof asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from zoo.errors import ModelFileError, OutOfMemory, Unanswered, first_line, ran_out
from zoo.export.budget import BATCH_SIZES, Budget, drawn
from zoo.export.card import INPUT, OUTPUTS
from zoo.export.endless import may_be_endless
from zoo.export.modelfile import ModelFile
from zoo.export.runtime import Array, Session, open_session
from zoo.export.runtimes import Answer, ask, run
from zoo.export.runtimes.catalogue import python_worker
from zoo.memory import smaller

ONNX_REFERENCE = "onnx.reference"
OTHER_EXAMPLES = 257

T = TypeVar("T")
Answers = tuple[Array, Array]
"""Logits and probabilities, N x classes."""


@dataclasses.dataclass(frozen=True)
class Tried(Generic[T]):
    """What came of asking onnxruntime; `problem` says why nothing did."""

    value: T | None = None
    problem: str = ""


def attempt(call: Callable[[], T]) -> Tried[T]:
    """Call, and catch onnxruntime's failing; `OutOfMemory` and `Unanswered` come through."""
    try:
        return Tried(call())
    except Unanswered:
        raise
    except ModelFileError as error:
        return Tried(None, str(error))


def run_all(session: Session, inputs: Array, most: int) -> Answers:
    """Run inputs in batches of at most so many, all of one size, or of the file's own.

    The last one is filled up. Where memory ends batches are halved, but for a fixed one.
    """
    if session.card.batch:
        return in_batches(session, inputs, session.card.batch)
    count = len(inputs)

    def run(size: int) -> Answers:
        return in_batches(session, inputs, -(-count // -(-count // size)))

    return smaller(run, min(most, count)) if count else in_batches(session, inputs, 1)


def in_batches(session: Session, inputs: Array, size: int) -> Answers:
    """Run inputs in batches of exactly one size; the last one is filled up by the first inputs."""
    parts = []
    for start in range(0, len(inputs), size):
        part = inputs[start : start + size]
        if missing := size - len(part):
            more = np.resize(inputs[:missing], (missing, *inputs.shape[1:]))
            part = np.concatenate([part, more])
        parts.append(session.run(part))
    if not parts:
        nothing = np.zeros((0, len(session.card.labels)), dtype=np.float32)
        return nothing, nothing
    logits, probabilities = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return logits[: len(inputs)], probabilities[: len(inputs)]


@dataclasses.dataclass(frozen=True)
class Full:
    """What a file answers as it is run by default: every example, then all other questions."""

    answers: Tried[Answers]
    spread: Tried[tuple[float, tuple[int, ...]]]
    golden: Tried[Answers]
    few: Tried[Answers]
    ends: Tried[Answers]
    beside: Tried[Answers]


def at_full(
    file: ModelFile,
    inputs: Array,
    golden: Array,
    few: Array,
    ends: Array,
    beside: Array,
    budget: Budget,
) -> Full:
    """Open a file at full optimization and ask it; the session is closed before this returns.

    `few` are asked in the smallest batches; `beside` are examples that have no label.
    """
    session = open_session(file.path, file.data, lean=True)
    answers = attempt(lambda: run_all(session, inputs, budget.batch(64)))
    if answers.value is None:
        none: Tried[Any] = Tried(None, answers.problem)
        return Full(answers, none, none, none, none, none)
    sizes, examples = batches(file, budget)
    some = inputs[drawn(len(inputs), examples)]
    return Full(
        answers,
        attempt(lambda: spread_over_batches(session, some, sizes, examples)),
        attempt(lambda: run_all(session, golden, budget.batch(64))),
        attempt(lambda: run_all(session, few, 1)),
        attempt(lambda: run_all(session, ends, budget.batch(64))),
        attempt(lambda: run_all(session, beside, budget.batch(64))),
    )


def at_none(
    file: ModelFile, inputs: Array, ends: Array, budget: Budget
) -> tuple[Tried[Answers], Tried[Answers]]:
    """Open a file without optimizations; return its answers to inputs and to extreme ones."""
    session = open_session(file.path, file.data, level="none", lean=True)
    return (
        attempt(lambda: run_all(session, inputs, budget.batch(257))),
        attempt(lambda: run_all(session, ends, budget.batch(257))),
    )


def batches(file: ModelFile, budget: Budget) -> tuple[tuple[int, ...], int]:
    """Return the batch sizes that a file is run at, and on how many examples."""
    fixed, most = file.card.batch, max(BATCH_SIZES)
    if fixed is None:
        return budget.batches()
    return (fixed,), budget.examples(most, passes=2, least=min(fixed, most))


def spread_over_batches(
    session: Session,
    inputs: Array,
    sizes: tuple[int, ...] = BATCH_SIZES,
    examples: int = max(BATCH_SIZES),
) -> tuple[float, tuple[int, ...]]:
    """Return how far apart the probabilities of the same inputs lie at every batch size.

    And in another order, for a fixed batch has one size: few inputs are joined by random bytes,
    so that none has but its own copies beside it. Sizes at which memory ends are left out; those
    that were run come back too.
    """
    rng = np.random.default_rng(0)
    if len(inputs) < examples:
        shape = (examples - len(inputs), *inputs.shape[1:])
        inputs = np.concatenate([inputs, rng.integers(0, 256, shape, dtype=np.uint8)])
    inputs, order = inputs[:examples], rng.permutation(examples)
    found: list[Array] = []
    for size in sizes:
        try:
            found.append(in_batches(session, inputs, size)[1])
        except OutOfMemory:
            if not found:
                raise
            break
    run = sizes[: len(found)]
    found.append(in_batches(session, inputs[order], _shuffled(run))[1][np.argsort(order)])
    spread = np.abs(np.stack(found) - found[0]).max()
    return float(spread) if np.isfinite(spread) else float("inf"), run


def _shuffled(sizes: tuple[int, ...]) -> int:
    """Return the size at which inputs are taken in another order: 64, or the largest below."""
    return sizes[0] if len(sizes) == 1 else max(size for size in sizes if size <= 64)


def examples_of(runtime: str, budget: Budget) -> tuple[int, int]:
    """Return how many examples and extreme inputs a runtime beside onnxruntime is asked."""
    if runtime == ONNX_REFERENCE:
        return budget.of_the_slow()
    return budget.examples(OTHER_EXAMPLES, passes=2), budget.extremes()


def elsewhere(
    name: str, file: ModelFile, inputs: Array, budget: Budget | None = None
) -> list[Answer]:
    """Run inputs in another runtime, in batches and one by one; its failing is an answer too."""
    at_once = budget.batch(64) if budget else 64
    if name == ONNX_REFERENCE and may_be_endless(file.data):
        return [_reference_apart(file, inputs, -(-at_once // 8))]
    if name == ONNX_REFERENCE:
        try:  # an eighth: it keeps every activation to the end
            return [smaller(lambda size: _reference(file, inputs, size), -(-at_once // 8))]
        except OutOfMemory as error:
            return [Answer(ONNX_REFERENCE, problem=str(error))]
    card, answers = file.card, []
    # The last batch of 64 is a smaller one: a runtime may answer by what it was asked before.
    for batch in (at_once, 1):
        answers.append(
            run(name, file.data, inputs, batch=batch, layout=card.layout, fixed_batch=card.batch)
        )
        if answers[-1].probabilities is None or card.batch is not None:
            break
    return answers


def _reference_apart(file: ModelFile, inputs: Array, size: int) -> Answer:
    """Run it in a process of its own, which has a time limit: its loops are Python's."""
    card, worker = file.card, python_worker(ONNX_REFERENCE)
    return ask(worker, file.data, inputs, batch=size, layout=card.layout, fixed_batch=card.batch)


def _reference(file: ModelFile, inputs: Array, size: int) -> Answer:
    """Run ONNX's reference implementation: numpy, slow, written by others."""
    import onnx
    from onnx import version_converter
    from onnx.reference import ReferenceEvaluator

    size, parts = file.card.batch or size, []
    try:
        model = file.model
        if file.card.precision == "int8" and file.opset < 19:
            model = version_converter.convert_version(model, 19)  # it has no older dequantizing
        evaluator: Any = ReferenceEvaluator(model)
        del model
        for start in range(0, len(inputs), size):
            part = inputs[start : start + size]
            filled = np.resize(part, (size, *part.shape[1:])) if file.card.batch else part
            if file.card.layout == "NHWC":
                filled = filled.transpose(0, 2, 3, 1)
            with np.errstate(all="ignore"):  # what is not finite is seen in the answers
                found = evaluator.run(list(OUTPUTS), {INPUT: filled})
            parts.append([each[: len(part)] for each in found])
        logits, probabilities = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    except Exception as error:
        if ran_out(error):
            raise OutOfMemory("it ran out of memory") from error
        reason = f"unsupported: {type(error).__name__}: {first_line(error)[:100]}"
        return Answer(ONNX_REFERENCE, onnx.__version__, problem=reason)
    return Answer(ONNX_REFERENCE, onnx.__version__, probabilities, logits)
