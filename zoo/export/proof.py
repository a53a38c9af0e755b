"""The proof: a file held against all that is known of it, row by row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch

from zoo.export import asking, footprint, trials
from zoo.export.agreement import Agreement, Drop
from zoo.export.card import Card
from zoo.export.comparison import (
    LOGIT_BOUND,
    PROBABILITY_BOUND,
    SPREAD,
    Comparison,
    apart,
    compare,
    finite,
    softmax32,
)
from zoo.export.elsewhere import Expected, elsewhere
from zoo.export.evidence import PYTORCH, Evidence, Reference, Row, Run, judged
from zoo.export.golden import Golden, chosen
from zoo.export.modelfile import ModelFile
from zoo.export.recorded import identity, structure
from zoo.export.runtime import Array

__all__ = ["Evidence", "Proof", "Reference", "Row", "prove"]

Verdict = Literal["proved", "intact", "failed"]

LOSSES = AGREEMENT, DROP = ("agreement with the fp32 twin", "accuracy drop")
"""The rows that judge what an int8 or fp16 file loses."""
TWIN = "its fp32 twin is PyTorch's"
QUANTIZED_SLACK = 0.002
"""How far the accuracy of a quantized file may move from one onnxruntime to another."""


@dataclasses.dataclass(frozen=True)
class Proof:
    """The verdict on one file: proved, intact (nothing wrong, not all could be run) or failed."""

    verdict: Verdict
    file_sha256: str
    run: str
    precision: str
    rows: list[Row]
    examples: int
    comparison: Comparison | None
    batch_sizes: tuple[int, ...]
    golden: Golden | None
    torch_version: str = torch.__version__
    onnxruntime_version: str = onnxruntime.__version__

    @property
    def passed(self) -> bool:
        return self.verdict == "proved"

    @property
    def failures(self) -> list[Row]:
        return [row for row in self.rows if not row.passed]

    @property
    def skipped(self) -> list[Row]:
        return [row for row in self.rows if row.status == "skipped"]

    def to_json(self) -> dict[str, Any]:
        plain = dataclasses.asdict(dataclasses.replace(self, golden=None))
        golden = self.golden.to_json() if self.golden else None
        return {"passed": self.passed, **plain, "golden": golden}


def prove(file: ModelFile, evidence: Evidence) -> Proof:
    """Hold a file whose structure is sound against the evidence.

    Everything that can be measured is; metadata is only compared with it. Raises
    `ModelFileError` where onnxruntime cannot load the file.
    """
    reference = evidence.reference if isinstance(evidence.reference, Reference) else None
    sessions = trials.open_both(file)
    rows = [*structure(file, reference), *identity(file.card, evidence.reference)]
    inputs = _inputs(file, evidence)
    answers, problem = trials.attempt(lambda: trials.at_both(sessions, inputs))
    found: Comparison | None = None
    if answers is None:
        rows.append(Row("onnxruntime", "failed", problem))
    else:
        rows += list(_onnxruntime(file, sessions, inputs, answers))
        rows.append(_golden(file, sessions, evidence.golden))
        rows.append(_finite(answers, reference))
        if reference is not None:
            found = compare(reference.logits, answers, reference.labels)
            if file.card.precision != "fp32":
                rows.append(_twin(reference))
            beside = _beside(file, sessions, reference)
            rows += list(_split(file.card, found, len(inputs), beside))
        else:
            rows.append(Row("test split", "skipped", str(evidence.reference)))
        rows += list(_as_a_device_asks(file, sessions, inputs, answers, evidence, rows))
    rows.append(_again(file, evidence.remake))
    failed = any(not row.passed for row in rows)
    skipped = any(row.status == "skipped" for row in rows)
    return Proof(
        verdict="failed" if failed else "intact" if skipped else "proved",
        file_sha256=file.sha256,
        run=file.card.run,
        precision=file.card.precision,
        rows=rows,
        examples=len(reference.labels) if reference else 0,
        comparison=found,
        batch_sizes=trials.sizes(file.card),
        golden=_new_golden(file.card, reference, answers),
    )


def _inputs(file: ModelFile, evidence: Evidence) -> Array:
    """Return what the file is run on: the test split, else golden inputs, else random bytes."""
    if isinstance(evidence.reference, Reference):
        return evidence.reference.images
    if isinstance(evidence.golden, Golden):
        return evidence.golden.inputs
    shape = (64, *file.card.input.shape)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _onnxruntime(
    file: ModelFile, sessions: trials.Both, inputs: Array, answers: trials.Answers
) -> Iterator[Row]:
    """Hold onnxruntime against itself: without and with its optimizations, and at every batch."""
    precision = file.card.precision
    (_, full), (_, none) = answers
    far, flips = apart(none, full, SPREAD[precision])
    figure = f"{far:.1e} apart, {flips} labels differ; at most {SPREAD[precision]:.0e}"
    name = "onnxruntime at no and full optimization"
    yield judged(name, far <= SPREAD[precision] and not flips, figure)
    sizes = trials.sizes(file.card)
    name = f"batches {', '.join(str(size) for size in sizes)}"
    worst, problem = trials.attempt(lambda: trials.spread_over_batches(sessions.full, inputs))
    if worst is None:
        yield Row(name, "failed", problem)
    else:
        yield judged(name, worst <= PROBABILITY_BOUND, f"{worst:.1e} apart")


def _finite(answers: trials.Answers, reference: Reference | None) -> Row:
    """Look at everything that was answered: probabilities may be finite where logits are not."""
    sound = finite(*(part for pair in answers for part in pair))
    what = "test examples" if reference else "inputs"
    whose = ""
    if reference is not None and not (said := finite(reference.torch)).all():
        sound, whose = said, f"{PYTORCH} itself: "
    figure = f"{len(sound):,} {what}"
    if not sound.all():
        figure = f"{whose}not finite on {int((~sound).sum()):,} of {figure}"
        names = reference.original.infinite if reference and reference.original else []
        figure += f"; {', '.join(names)} holds an infinity" if names else ""
    return judged("finite outputs", bool(sound.all()), figure)


def _golden(file: ModelFile, sessions: trials.Both, golden: Golden | str) -> Row:
    name = "golden vectors"
    if isinstance(golden, str):
        return Row(name, "skipped", golden)
    bound = SPREAD[file.card.precision]
    if golden.inputs.shape[1:] != file.card.input.shape:
        return Row(name, "failed", f"they are of another input, {golden.inputs.shape[1:]}")
    found, problem = trials.attempt(lambda: sessions.full.run(golden.inputs)[1])
    if found is None:
        return Row(name, "failed", problem)
    far, flips = apart(found, golden.probabilities, bound)
    figure = f"{len(golden.labels)} examples, {far:.1e} off, {flips} labels differ"
    return judged(name, far <= bound and not flips, figure)


def _beside(file: ModelFile, sessions: trials.Both, reference: Reference) -> Agreement:
    """Ask an int8 or fp16 file about the examples without labels."""
    if reference.unlabelled is None or reference.said is None:
        return Agreement(0, 0)
    images, size = reference.unlabelled, footprint.at_once(footprint.activations(file.model), 64)
    found, _ = trials.attempt(lambda: trials.run_all(sessions.full, images, size)[1])
    alike = 0 if found is None else int((found.argmax(1) == reference.said).sum())
    return Agreement(alike, len(images))


def _split(card: Card, found: Comparison | None, examples: int, beside: Agreement) -> Iterator[Row]:
    """Judge what was found on the test split, and `beside` it on examples without labels."""
    if found is None:  # not finite: a row of its own says so
        return
    said = float(card.metrics["accuracy"])
    slack = (len(found.ties) + 0.5) / examples
    if card.precision == "fp32":
        yield from _exact(found)
        accuracies = f"onnxruntime {found.onnx_accuracy:.4f}, PyTorch"
        accuracies += f" {found.reference_accuracy:.4f}"
        yield judged("same accuracy", abs(found.drop) <= slack, accuracies)
    else:
        most = float((card.quantization or {}).get("max_drop", 0.0))
        same = examples - found.flips - len(found.ties)
        both = Agreement(same + beside.alike, examples + beside.examples)
        figure = both.figure(most)
        if beside.examples:
            figure += f": {same:,} of {examples:,} test examples, {beside.alike:,} of"
            figure += f" {beside.examples:,} others"
        yield judged(AGREEMENT, both.enough(most), figure)
        sides = (found.reference_accuracy, found.onnx_accuracy)
        before, after = (round(each * examples) for each in sides)
        drop = Drop(before, after, examples)
        yield judged(DROP, drop.small(most), drop.figure(most))
        slack += QUANTIZED_SLACK
    recorded = abs(said - found.onnx_accuracy) <= slack
    yield judged("accuracy as recorded", recorded, f"the file says {said:.4f}")


def _twin(reference: Reference) -> Row:
    """Hold the fp32 twin against PyTorch: who agrees with a wrong one is wrong too."""
    answers = reference.logits, softmax32(reference.logits)
    found = compare(reference.torch, [answers], reference.labels)
    if found is None:
        return Row(TWIN, "failed", "an answer is not finite")
    figure = f"{found.max_probability_difference:.1e} off, {found.flips} labels differ"
    return judged(TWIN, all(row.passed for row in _exact(found)), figure)


def _exact(found: Comparison) -> Iterator[Row]:
    bound = LOGIT_BOUND * max(1.0, found.largest_logit)
    figure = f"{found.max_logit_difference:.1e} off, {found.mean_logit_difference:.1e} on average;"
    yield judged("logits", found.max_logit_difference <= bound, f"{figure} at most {bound:.1e}")
    likely = found.max_probability_difference
    figure = f"{likely:.1e} off; at most {PROBABILITY_BOUND:.1e}"
    yield judged("probabilities", likely <= PROBABILITY_BOUND, figure)
    figure = f"{found.agreement:.2%} agree; {found.flips} differ, {len(found.ties)} more in ties"
    yield judged("same label", found.flips == 0, figure)


def _as_a_device_asks(
    file: ModelFile,
    sessions: trials.Both,
    inputs: Array,
    answers: trials.Answers,
    evidence: Evidence,
    rows: Sequence[Row],
) -> Iterator[Row]:
    """Ask one at a time, extreme inputs, and other runtimes; `rows` are those judged so far."""
    card = file.card
    reference = evidence.reference if isinstance(evidence.reference, Reference) else None
    asked = asking.questions(card, reference)
    at_once: Run = lambda images, size: trials.run_all(sessions.full, images, size)  # noqa: E731
    twin = reference.twin if reference is not None else None
    found = list(asking.few_at_a_time(card, asked, twin or at_once))
    ends, problem = trials.attempt(lambda: trials.at_both(sessions, asked.extreme))
    if ends is None:
        yield from (*found, Row(asking.EXTREME, "failed", problem))
        return
    found.append(asking.extreme_inputs(card, asked, ends))
    yield from found
    told = reference is not None or isinstance(evidence.golden, Golden)
    logits, likely = (np.concatenate(each) for each in zip(answers[0], ends[0], strict=True))
    images = np.concatenate([inputs, asked.extreme])
    expected = Expected(images, logits, likely, asked)
    alone = told and all(row.passed for row in (*rows, *found))
    yield from elsewhere(file, expected, evidence, alone=alone)


def _again(file: ModelFile, remake: Callable[[], bytes] | str) -> Row:
    if isinstance(remake, str):
        return Row("exported again", "skipped", remake)
    made = remake()
    figure = "the same bytes" if made == file.data else f"other bytes, {len(made):,} of them"
    return judged("exported again", made == file.data, figure)


def _new_golden(
    card: Card, reference: Reference | None, answers: trials.Answers | None
) -> Golden | None:
    """Choose golden vectors from the test split: PyTorch's answers, or a quantized file's own."""
    if reference is None or answers is None:
        return None
    at = chosen(reference.labels)
    logits = reference.logits[at] if card.precision == "fp32" else answers[0][0][at]
    if not np.isfinite(logits).all():
        return None
    probabilities = softmax32(logits)
    return Golden(reference.images[at], reference.labels[at], logits, probabilities)
