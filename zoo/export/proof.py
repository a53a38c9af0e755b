"""The proof: a file held against all that is known of it, row by row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch

from zoo.export import footprint, trials
from zoo.export.agreement import Agreement, Drop
from zoo.export.card import Card
from zoo.export.comparison import (
    LOGIT_BOUND,
    PROBABILITY_BOUND,
    SPREAD,
    Comparison,
    apart,
    compare,
    softmax32,
)
from zoo.export.golden import Golden, chosen
from zoo.export.modelfile import ModelFile
from zoo.export.runtime import Array
from zoo.export.runtimes import how_to_install
from zoo.export.targets import oldest_onnxruntime

Status = Literal["passed", "failed", "skipped", "reported"]
Verdict = Literal["proved", "intact", "failed"]

LOSSES = AGREEMENT, DROP = ("agreement with the fp32 twin", "accuracy drop")
"""The rows that judge what an int8 or fp16 file loses."""
TWIN = "its fp32 twin is PyTorch's"
NOT_INSTALLED = "not installed"
QUANTIZED_SLACK = 0.002
"""How far the accuracy of a quantized file may move from one onnxruntime to another."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One check: what it is, how it ended, and the figure it was judged by.

    A skipped row could not be run; a reported one is told and decides nothing.
    """

    name: str
    status: Status
    figure: str

    @property
    def passed(self) -> bool:
        return self.status != "failed"


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the file must say of the test split, and what it is expected to say of itself.

    `logits` are what it is held against: PyTorch's, or those of an int8 or fp16 file's fp32 twin;
    `torch` are PyTorch's. `said` is the number of the class that the twin says of each of
    `unlabelled`, which had no part in making or choosing the file.
    """

    images: Array  # uint8 N x C x H x W
    labels: Array  # int64 N
    logits: Array  # float32 N x classes
    torch: Array  # float32 N x classes
    card: Card
    unlabelled: Array | None = None  # uint8 M x C x H x W
    said: Array | None = None  # int64 M
    apart: Row | None = None  # whether the run has seen a test example


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All that a file can be held against. A text in place of a part says why it is not at hand.

    `runtimes` are those that must run the file too, `others` those that are only reported.
    `remake` exports the file again.
    """

    reference: Reference | str
    golden: Golden | str
    remake: Callable[[], bytes] | str
    runtimes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


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
    rows = [*_structure(file), *_identity(file.card, evidence.reference)]
    inputs = _inputs(file, evidence)
    answers, problem = trials.attempt(lambda: trials.at_both(sessions, inputs))
    found: Comparison | None = None
    if answers is None:
        rows.append(Row("onnxruntime", "failed", problem))
    else:
        rows += list(_onnxruntime(file, sessions, inputs, answers))
        rows.append(_golden(file, sessions, evidence.golden))
        if reference is not None:
            found = compare(reference.logits, answers, reference.labels)
            if file.card.precision != "fp32":
                rows.append(_twin(reference))
            beside = _beside(file, sessions, reference)
            rows += list(_split(file.card, found, len(inputs), beside))
        else:
            rows.append(Row("test split", "skipped", str(evidence.reference)))
        rows += list(_elsewhere(file, inputs, answers[0][1], evidence))
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


def _structure(file: ModelFile) -> Iterator[Row]:
    """Say what opening the file has checked already."""
    card = file.card
    oldest = oldest_onnxruntime(file.opset, file.model.ir_version)
    operators = f"{len(file.operators)} of ONNX's own, opset {file.opset}, IR"
    operators += f" {file.model.ir_version}; onnxruntime {oldest} and later"
    yield Row("bytes and seal", "passed", f"{len(file.data):,} bytes, {file.sha256[:12]}")
    yield Row("ONNX checker, strict shape inference", "passed", "sound")
    yield Row("operators", "passed", operators + (f"; fit for {card.target}" * bool(card.target)))
    yield Row("finite weights", "passed", "all")
    yield Row("one file, no local paths", "passed", "none")
    ports = f"uint8 {card.shape} to {len(card.labels)} classes"
    yield Row("inputs and outputs as the metadata says", "passed", ports.replace("'", ""))


def _identity(card: Card, reference: Reference | str) -> Iterator[Row]:
    """Compare what the file says of itself with what its run records, field by field."""
    if isinstance(reference, str):
        yield Row("what its run records", "skipped", reference)
        return
    wanted = reference.card
    rest = "run input components license layout batch precision target left_out"
    wrong = [name for name in rest.split() if getattr(card, name) != getattr(wanted, name)]
    if set(card.metrics) != set(wanted.metrics):
        wrong.append("metrics")
    yield _row(
        "weights are the run's",
        card.weights_sha256 == wanted.weights_sha256,
        card.weights_sha256[:12],
    )
    yield _row("class names", card.labels == wanted.labels, f"{len(card.labels)} classes")
    yield _row("metadata as the run records", not wrong, ", ".join(wrong) or "equal")
    same = card.dataset_sha256 == wanted.dataset_sha256
    yield _row("test split as recorded", same, f"{card.dataset_sha256[:12]}, {card.dataset}")
    yield from [reference.apart] if reference.apart else []


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
    yield _row(name, far <= SPREAD[precision] and not flips, figure)
    sizes = trials.sizes(file.card)
    name = f"batches {', '.join(str(size) for size in sizes)}"
    worst, problem = trials.attempt(lambda: trials.spread_over_batches(sessions.full, inputs))
    if worst is None:
        yield Row(name, "failed", problem)
    else:
        yield _row(name, worst <= PROBABILITY_BOUND, f"{worst:.1e} apart")


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
    return _row(name, far <= bound and not flips, figure)


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
    yield _row("finite outputs", found is not None, f"{examples:,} test examples")
    if found is None:
        return
    said = float(card.metrics["accuracy"])
    slack = (len(found.ties) + 0.5) / examples
    if card.precision == "fp32":
        yield from _exact(found)
        accuracies = f"onnxruntime {found.onnx_accuracy:.4f}, PyTorch"
        accuracies += f" {found.reference_accuracy:.4f}"
        yield _row("same accuracy", abs(found.drop) <= slack, accuracies)
    else:
        most = float((card.quantization or {}).get("max_drop", 0.0))
        same = examples - found.flips - len(found.ties)
        both = Agreement(same + beside.alike, examples + beside.examples)
        figure = both.figure(most)
        if beside.examples:
            figure += f": {same:,} of {examples:,} test examples, {beside.alike:,} of"
            figure += f" {beside.examples:,} others"
        yield _row(AGREEMENT, both.enough(most), figure)
        sides = (found.reference_accuracy, found.onnx_accuracy)
        before, after = (round(each * examples) for each in sides)
        drop = Drop(before, after, examples)
        yield _row(DROP, drop.small(most), drop.figure(most))
        slack += QUANTIZED_SLACK
    recorded = abs(said - found.onnx_accuracy) <= slack
    yield _row("accuracy as recorded", recorded, f"the file says {said:.4f}")


def _twin(reference: Reference) -> Row:
    """Hold the fp32 twin against PyTorch: who agrees with a wrong one is wrong too."""
    answers = reference.logits, softmax32(reference.logits)
    found = compare(reference.torch, [answers], reference.labels)
    if found is None:
        return Row(TWIN, "failed", "an answer is not finite")
    figure = f"{found.max_probability_difference:.1e} off, {found.flips} labels differ"
    return _row(TWIN, all(row.passed for row in _exact(found)), figure)


def _exact(found: Comparison) -> Iterator[Row]:
    bound = LOGIT_BOUND * max(1.0, found.largest_logit)
    figure = f"{found.max_logit_difference:.1e} off, {found.mean_logit_difference:.1e} on average;"
    yield _row("logits", found.max_logit_difference <= bound, f"{figure} at most {bound:.1e}")
    likely = found.max_probability_difference
    figure = f"{likely:.1e} off; at most {PROBABILITY_BOUND:.1e}"
    yield _row("probabilities", likely <= PROBABILITY_BOUND, figure)
    figure = f"{found.agreement:.2%} agree; {found.flips} differ, {len(found.ties)} more in ties"
    yield _row("same label", found.flips == 0, figure)


def _elsewhere(file: ModelFile, inputs: Array, wanted: Array, evidence: Evidence) -> Iterator[Row]:
    """Run the file outside onnxruntime: by ONNX's own reference, then every other runtime."""
    bound = SPREAD[file.card.precision]
    for name, required in (
        (trials.ONNX_REFERENCE, True),
        *((name, True) for name in evidence.runtimes),
        *((name, False) for name in evidence.others),
    ):
        answers = trials.elsewhere(name, file, inputs)
        last = answers[-1]
        if last.probabilities is None:
            yield _unanswered(name, last.problem, name in evidence.runtimes)
            continue
        found = [np.asarray(each.probabilities) for each in answers]
        judged = [apart(each, wanted[: len(each)], bound) for each in found]
        far, flips = max(d for d, _ in judged), max(n for _, n in judged)
        figure = f"{far:.1e} off, {flips} labels differ in {len(found[0])} examples"
        figure += f"; version {last.version}"
        sound = far <= bound and not flips
        if required:
            yield _row(name, sound, figure)
        else:
            yield Row(name, "reported", figure if sound else f"DIFFERS: {figure}")


def _unanswered(name: str, problem: str, required: bool) -> Row:
    if problem == NOT_INSTALLED:
        return Row(name, "skipped", f"{problem}. Type: {how_to_install(name)}")
    if name == trials.ONNX_REFERENCE:
        return Row(name, "skipped", problem)
    return Row(name, "failed" if required else "reported", problem)


def _again(file: ModelFile, remake: Callable[[], bytes] | str) -> Row:
    if isinstance(remake, str):
        return Row("exported again", "skipped", remake)
    made = remake()
    figure = "the same bytes" if made == file.data else f"other bytes, {len(made):,} of them"
    return _row("exported again", made == file.data, figure)


def _new_golden(
    card: Card, reference: Reference | None, answers: trials.Answers | None
) -> Golden | None:
    """Choose golden vectors from the test split: PyTorch's answers, or a quantized file's own."""
    if reference is None or answers is None:
        return None
    at = chosen(reference.labels)
    logits = reference.logits[at] if card.precision == "fp32" else answers[0][0][at]
    probabilities = softmax32(logits)
    return Golden(reference.images[at], reference.labels[at], logits, probabilities)


def _row(name: str, passed: bool, figure: str) -> Row:
    return Row(name, "passed" if passed else "failed", figure)
