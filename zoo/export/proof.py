"""The proof: a file held against all that is known of it, row by row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch

from zoo.errors import OutOfMemory, ZooError, first_line
from zoo.export import asking, trials
from zoo.export.agreement import Agreement, Drop
from zoo.export.budget import Budget, drawn
from zoo.export.card import Card
from zoo.export.comparison import (
    LOGIT_BOUND,
    PROBABILITY_BOUND,
    Comparison,
    compare,
    softmax32,
)
from zoo.export.consistency import by_itself, finite_outputs, golden_inputs, golden_vectors
from zoo.export.elsewhere import elsewhere, expecting
from zoo.export.evidence import PYTORCH, Evidence, Reference, Row, judged
from zoo.export.golden import Golden, chosen, count_for
from zoo.export.modelfile import ModelFile
from zoo.export.recorded import identity, structure
from zoo.export.runtime import Array
from zoo.export.trials import Answers
from zoo.export.work import cost_of
from zoo.memory import MEMORY

__all__ = ["Evidence", "Proof", "Reference", "Row", "prove"]

Verdict = Literal["proved", "intact", "failed"]

LOSSES = AGREEMENT, DROP = ("agreement with the fp32 twin", "accuracy drop")
"""The rows that judge what an int8 or fp16 file loses."""
TWIN = "its fp32 twin is PyTorch's"
QUANTIZED_SLACK = 0.002
"""How far the accuracy of a quantized file may move from one onnxruntime to another."""


@dataclasses.dataclass(frozen=True)
class Proof:
    """The verdict on one file: proved, intact (nothing wrong, not all could be run) or failed.

    `read_from` has the folder that the run was read from, and the file of the golden vectors, by
    `run` and `golden`; it is empty for a file that was exported just now.
    """

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
    read_from: dict[str, str] = dataclasses.field(default_factory=dict)

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
        if not self.read_from:
            del plain["read_from"]
        golden = self.golden.to_json() if self.golden else None
        return {"passed": self.passed, **plain, "golden": golden}


def prove(file: ModelFile, evidence: Evidence, *, memory: int = MEMORY) -> Proof:
    """Hold a file whose structure is sound against the evidence.

    Everything that can be measured is; metadata is only compared with it. `memory` bounds what a
    batch may take, in bytes. Raises `ModelFileError` where onnxruntime cannot load the file, and
    `OutOfMemory`.
    """
    card = file.card
    reference = evidence.reference if isinstance(evidence.reference, Reference) else None
    budget = Budget(cost_of(file.model), memory)
    rows = [*structure(file, reference), *([evidence.origin] if evidence.origin else [])]
    rows += identity(card, evidence.reference)
    inputs = _inputs(file, evidence, budget)
    asked = asking.questions(card, reference, budget)
    few = asked.images if reference is not None and reference.twin is None else asked.images[:0]
    beside = inputs[:0] if reference is None else reference.unlabelled
    beside = inputs[:0] if beside is None else beside
    golden = golden_inputs(evidence.golden, card)
    full = trials.at_full(file, inputs, golden, few, asked.extreme, beside, budget)
    found: Comparison | None = None
    if full.answers.value is None:
        rows.append(Row("onnxruntime", "failed", full.answers.problem))
    else:
        at = drawn(len(inputs), budget.examples(len(inputs)))
        at = np.arange(len(inputs)) if len(at) == len(inputs) else at
        none, plain_ends = trials.at_none(file, inputs[at], asked.extreme, budget)
        rows += by_itself(file, full, none, at, budget)
        rows.append(golden_vectors(file, full, evidence.golden))
        answers = [full.answers.value]
        if none.value is not None and len(at) == len(inputs):
            answers.append(none.value)
        rows.append(finite_outputs(full.answers.value, none.value, at, reference))
        if reference is not None:
            found = compare(reference.logits, answers, reference.labels)
            if card.precision != "fp32":
                rows.append(_twin(reference))
            rows += list(_split(card, found, len(inputs), _beside(full, reference)))
        else:
            rows.append(Row("test split", "skipped", str(evidence.reference)))
        single = full.few
        if reference is not None and reference.twin is not None:
            twin = reference.twin
            single = trials.attempt(lambda: twin(asked.images, 1))
        rows += asking.few_at_a_time(card, asked, single)
        rows.append(asking.extreme_inputs(card, asked, full.ends, plain_ends))
        if full.ends.value is not None:
            expected = expecting(inputs, full.answers.value, asked, full.ends.value)
            done = _reproduced(card, evidence) if all(row.passed for row in rows) else ""
            rows += elsewhere(file, expected, evidence, budget, done=done)
    rows.append(_again(file, evidence.remake))
    failed = any(not row.passed for row in rows)
    skipped = any(row.status == "skipped" for row in rows)
    return Proof(
        verdict="failed" if failed else "intact" if skipped else "proved",
        file_sha256=file.sha256,
        run=card.run,
        precision=card.precision,
        rows=rows,
        examples=len(reference.labels) if reference else 0,
        comparison=found,
        batch_sizes=full.spread.value[1] if full.spread.value else (),
        golden=_new_golden(card, reference, full.answers.value),
        read_from=evidence.read_from,
    )


def _reproduced(card: Card, evidence: Evidence) -> str:
    """Say of what the file gives the answers, where no row failed; a smaller file's are its own."""
    if card.precision != "fp32":
        return ""
    if isinstance(evidence.reference, Reference):
        return PYTORCH
    return "the golden vectors" if isinstance(evidence.golden, Golden) else ""


def _inputs(file: ModelFile, evidence: Evidence, budget: Budget) -> Array:
    """Return what the file is run on: the test split, else golden inputs, else random bytes."""
    if isinstance(evidence.reference, Reference):
        return evidence.reference.images
    if len(golden := golden_inputs(evidence.golden, file.card)):
        return golden
    shape = (budget.examples(64), *file.card.input.shape)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _beside(full: trials.Full, reference: Reference) -> Agreement:
    """Count on how many of the examples without labels a smaller file is its twin's opinion."""
    if reference.said is None:
        return Agreement(0, 0)
    answers = full.beside.value
    alike = 0 if answers is None else int((answers[1].argmax(1) == reference.said).sum())
    return Agreement(alike, len(reference.said))


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
        test = Agreement(examples - found.flips - len(found.ties), examples)
        both = Agreement(test.alike + beside.alike, examples + beside.examples)
        figure = both.figure(most)
        if beside.examples:
            figure += f": {test.alike:,} of {examples:,} test examples"
            figure += "" if test.enough(most) else f" ({test.bound(most)})"
            figure += f", {beside.alike:,} of {beside.examples:,} others"
        yield judged(AGREEMENT, both.enough(most) and test.enough(most), figure)
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


def _again(file: ModelFile, remake: Callable[[], bytes] | str) -> Row:
    if isinstance(remake, str):
        return Row("exported again", "skipped", remake)
    try:
        made = remake()
    except OutOfMemory:
        raise
    except ZooError as error:
        return Row("exported again", "failed", f"it cannot be exported again: {first_line(error)}")
    figure = "the same bytes" if made == file.data else f"other bytes, {len(made):,} of them"
    return judged("exported again", made == file.data, figure)


def _new_golden(card: Card, reference: Reference | None, answers: Answers | None) -> Golden | None:
    """Choose golden vectors from the test split: PyTorch's answers, or a quantized file's own."""
    if reference is None or answers is None:
        return None
    at = chosen(reference.labels, count_for(card.input.shape))
    logits = reference.logits[at] if card.precision == "fp32" else answers[0][at]
    if not np.isfinite(logits).all():
        return None
    probabilities = softmax32(logits)
    return Golden(reference.images[at], reference.labels[at], logits, probabilities)
