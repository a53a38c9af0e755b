"""Rows on runtimes beside onnxruntime: ONNX's own implementation, then every other one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from zoo.errors import OutOfMemory, ZooError, ran_out
from zoo.export import trials
from zoo.export.asking import Questions
from zoo.export.budget import Budget, drawn
from zoo.export.comparison import SPREAD, Array, apart, finite
from zoo.export.evidence import Evidence, Row, counted, judged
from zoo.export.modelfile import OPSETS, ModelFile, open_model
from zoo.export.runtime import open_session
from zoo.export.runtimes import Answer, how_to_install
from zoo.export.trials import ONNX_REFERENCE, Answers

NOT_INSTALLED = "not installed"


@dataclasses.dataclass(frozen=True)
class Expected:
    """What onnxruntime answers: to examples, then to the first extreme inputs of what was asked."""

    images: Array
    answers: Answers
    examples: int
    asked: Questions

    def some(self, examples: int, ends: int) -> Expected:
        """Take the first examples, and the first extreme inputs."""
        count = min(examples, self.examples)
        at = np.r_[:count, self.examples : self.examples + ends]
        answers = self.answers[0][at], self.answers[1][at]
        return Expected(self.images[at], answers, count, self.asked)


def expecting(images: Array, answers: Answers, asked: Questions, ends: Answers) -> Expected:
    """Join what is answered to the first examples of a seeded order, and to extreme inputs."""
    at = drawn(len(images), trials.OTHER_EXAMPLES)
    logits, probabilities = (np.concatenate([a[at], b]) for a, b in zip(answers, ends, strict=True))
    joined = np.concatenate([images[at], asked.extreme])
    return Expected(joined, (logits, probabilities), len(at), asked)


def elsewhere(
    file: ModelFile, expected: Expected, evidence: Evidence, budget: Budget, *, done: str
) -> Iterator[Row]:
    """Hold the file outside onnxruntime against what it answers there.

    `done` says what onnxruntime has reproduced, if anything: should ONNX's own implementation
    answer otherwise, and no other runtime, it is alone.
    """
    rows, differ = [], False
    for name in (*evidence.runtimes, *evidence.others):
        asked = expected.some(*trials.examples_of(name, budget))
        answers = trials.elsewhere(name, file, asked.images, budget)
        required = name in evidence.runtimes
        if answers[-1].probabilities is None:
            rows.append(_unanswered(name, answers[-1].problem, required))
            continue
        sound, figure = _held(answers, asked, file.card.precision)
        differ |= not sound
        if required:
            rows.append(judged(name, sound, figure))
        else:
            rows.append(Row(name, "reported", figure if sound else f"DIFFERS: {figure}"))
    yield _of_onnx(file, expected, evidence, budget, done="" if differ else done)
    yield from rows


def _of_onnx(
    file: ModelFile, expected: Expected, evidence: Evidence, budget: Budget, *, done: str
) -> Row:
    """Hold ONNX's own implementation against onnxruntime; whatever it cannot run is skipped."""
    asked = expected.some(*trials.examples_of(ONNX_REFERENCE, budget))
    [answer] = trials.elsewhere(ONNX_REFERENCE, file, asked.images, budget)
    if answer.probabilities is None:
        more = done and not ran_out(answer.problem)
        other = _other_opset(file, asked, evidence, budget) if more else ""
        return Row(ONNX_REFERENCE, "skipped", answer.problem + other)
    sound, figure = _held([answer], asked, file.card.precision)
    if sound or not done:
        return judged(ONNX_REFERENCE, sound, figure)
    other = _other_opset(file, asked, evidence, budget)
    figure = f"it alone answers otherwise, onnxruntime reproduces {done}: {figure}{other}"
    return Row(ONNX_REFERENCE, "skipped", figure)


def _held(answers: Sequence[Answer], wanted: Expected, precision: str) -> tuple[bool, str]:
    """Judge answers: examples by probabilities, extreme inputs by logits, all by being finite.

    Of an int8 or fp16 file what extreme inputs are answered must be finite alone.
    """
    bound, examples, (logits, likely) = SPREAD[precision], wanted.examples, wanted.answers
    far, flips, wrong = 0.0, 0, 0
    for each in answers:
        assert each.probabilities is not None
        assert each.logits is not None
        if each.logits.shape != logits.shape or each.probabilities.shape != likely.shape:
            far, flips, wrong = float("inf"), examples, len(likely) - examples
            continue
        off, flipped = apart(each.probabilities[:examples], likely[:examples], bound)
        sound = finite(each.logits, each.probabilities)
        far = max(far, off if sound[:examples].all() else float("inf"))
        flips, odd = max(flips, flipped), ~sound[examples:]
        if precision == "fp32":
            start = wanted.asked.examples
            odd |= wanted.asked.wrong(each.logits[examples:], logits[examples:], start)
        wrong = max(wrong, int(odd.sum()))
    ends = len(wanted.images) - examples
    figure = f"{far:.1e} off, {flips} labels differ in {counted(examples, 'example')}"
    if wrong:
        figure += f"; {wrong} of {counted(ends, 'extreme input')} differ"
    elif ends:
        figure += f", {counted(ends, 'extreme input')}"
    return far <= bound and not flips and not wrong, f"{figure}; version {answers[-1].version}"


def _other_opset(file: ModelFile, wanted: Expected, evidence: Evidence, budget: Budget) -> str:
    """Say at which other opset onnxruntime and ONNX's own implementation both say the same."""
    if evidence.at_opset is None or file.card.precision != "fp32":
        return ""
    for opset in (each for each in OPSETS if each != file.opset):
        try:
            data = evidence.at_opset(opset)
            other = open_model(Path(f"the graph at opset {opset}"), data)
            session = open_session(other.path, data)
            logits, probabilities = trials.run_all(session, wanted.images, budget.batch(64))
        except OutOfMemory:
            raise
        except ZooError:
            continue
        answers = [Answer("onnxruntime", "", probabilities, logits)]
        answers += trials.elsewhere(ONNX_REFERENCE, other, wanted.images, budget)
        there = answers[-1].probabilities is not None
        if there and _held(answers, wanted, "fp32")[0]:
            return f"; at opset {opset} both agree: --opset {opset}"
    return ""


def _unanswered(name: str, problem: str, required: bool) -> Row:
    if problem == NOT_INSTALLED:
        return Row(name, "skipped", f"{problem}. Type: {how_to_install(name)}")
    if required and ran_out(problem):
        return Row(name, "skipped", problem)
    return Row(name, "failed" if required else "reported", problem)
