"""Rows on what onnxruntime answers, held against itself: levels, batches, golden vectors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zoo.export import trials
from zoo.export.budget import Budget
from zoo.export.card import Card
from zoo.export.comparison import PROBABILITY_BOUND, SPREAD, Array, apart, finite
from zoo.export.evidence import PYTORCH, Reference, Row, infinite, judged
from zoo.export.golden import Golden
from zoo.export.modelfile import ModelFile
from zoo.export.trials import Answers, Tried


def golden_inputs(golden: Golden | str, card: Card) -> Array:
    """Return the inputs of golden vectors; none where there are none, or of another input."""
    if isinstance(golden, Golden) and golden.inputs.shape[1:] == card.input.shape:
        return golden.inputs
    return np.zeros((0, *card.input.shape), dtype=np.uint8)


def by_itself(
    file: ModelFile, full: trials.Full, none: Tried[Answers], at: Array, budget: Budget
) -> Iterator[Row]:
    """Hold onnxruntime against itself: without and with its optimizations, and at every batch.

    `at` are the places of the inputs that were asked without.
    """
    assert full.answers.value is not None
    bound = SPREAD[file.card.precision]
    name = "onnxruntime at no and full optimization"
    if none.value is None:
        yield Row(name, "failed", none.problem)
    else:
        far, flips = apart(none.value[1], full.answers.value[1][at], bound)
        figure = f"{far:.1e} apart, {flips} labels differ in {len(at):,} examples"
        yield judged(name, far <= bound and not flips, f"{figure}; at most {bound:.0e}")
    sizes, examples = trials.batches(file, budget)
    if full.spread.value is None:
        yield Row(_batches(sizes), "failed", full.spread.problem)
    else:
        far, sizes = full.spread.value
        figure = f"{far:.1e} apart in {examples} examples"
        yield judged(_batches(sizes), far <= PROBABILITY_BOUND, figure)


def _batches(sizes: tuple[int, ...]) -> str:
    return f"batches {', '.join(str(size) for size in sizes)}"


def finite_outputs(
    full: Answers, none: Answers | None, at: Array, reference: Reference | None
) -> Row:
    """Look at everything that was answered: probabilities may be finite where logits are not."""
    sound = finite(*full)
    if none is not None:
        sound[at] &= finite(*none)
    what = "test examples" if reference else "inputs"
    whose = ""
    if reference is not None and not (said := finite(reference.torch)).all():
        sound, whose = said, f"{PYTORCH} itself: "
    figure = f"{len(sound):,} {what}"
    if not sound.all():
        figure = f"{whose}not finite on {int((~sound).sum()):,} of {figure}"
        names = reference.original.infinite if reference and reference.original else []
        figure += f"; {infinite(names)}" if names else ""
    return judged("finite outputs", bool(sound.all()), figure)


def golden_vectors(file: ModelFile, full: trials.Full, golden: Golden | str) -> Row:
    name = "golden vectors"
    if isinstance(golden, str):
        return Row(name, "skipped", golden)
    bound = SPREAD[file.card.precision]
    if not len(golden_inputs(golden, file.card)):
        return Row(name, "failed", f"they are of another input, {golden.inputs.shape[1:]}")
    if full.golden.value is None:
        return Row(name, "failed", full.golden.problem)
    far, flips = apart(full.golden.value[1], golden.probabilities, bound)
    figure = f"{len(golden.labels)} examples, {far:.1e} off, {flips} labels differ"
    return judged(name, far <= bound and not flips, figure)
