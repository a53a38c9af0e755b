"""Rows on what a device will ask: one example at a time, and inputs that no test split has."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import numpy as np

from zoo.errors import OutOfMemory, first_line
from zoo.export.budget import Budget
from zoo.export.card import Card
from zoo.export.comparison import (
    LOGIT_BOUND,
    PROBABILITY_BOUND,
    Array,
    finite,
    relative,
    softmax,
)
from zoo.export.evidence import PYTORCH, Reference, Row, infinite, judged
from zoo.export.extremes import NAMES, extremes
from zoo.export.golden import chosen
from zoo.export.original import Original
from zoo.export.trials import Answers, Tried
from zoo.memory import smaller

EXTREME = "extreme inputs"
ROUNDING = 16
"""How many times another runtime's rounding may be PyTorch's."""
WORDS = {1: "one", 2: "two"}


@dataclasses.dataclass(frozen=True)
class Questions:
    """A few test examples, then the extreme inputs; PyTorch's answers to all in one batch.

    `problem` says why it gives none. In double precision it is asked `batch` at a time.
    """

    images: Array  # uint8 N x C x H x W
    examples: int
    original: Original | None = None
    logits: Array | None = None
    problem: str = ""
    batch: int = 1

    @property
    def extreme(self) -> Array:
        return self.images[self.examples :]

    @property
    def said(self) -> str:
        return (
            f"{self.examples} test examples and {len(self.images) - self.examples} extreme inputs"
        )

    @functools.cached_property
    def bounds(self) -> Array:
        """How far logits may lie apart, N: of an extreme input further where rounding alone does.

        A picture of one colour divided by its spread is nothing but rounding, and runtimes round
        differently. What PyTorch itself is off in single precision tells by how much.
        """
        bounds, original = np.full(len(self.images), LOGIT_BOUND), self.original
        if original is None or self.logits is None:
            return bounds
        exact = smaller(lambda size: original.exact(self.extreme, size), self.batch)
        if exact is not None:
            own = ROUNDING * relative(self.logits[self.examples :], exact)
            own = np.where(np.isfinite(own), own, 0.0)
            bounds[self.examples :] = np.maximum(LOGIT_BOUND, own)
        return bounds

    def wrong(self, found: Array, wanted: Array, start: int = 0) -> Array:
        """Tell which images from `start` on have other logits than wanted, as many as are given."""
        far = relative(found, wanted)
        wrong: Array = far > LOGIT_BOUND
        if wrong[max(0, self.examples - start) :].any():  # extreme inputs
            wrong = far > self.bounds[start : start + len(far)]
        return wrong

    def differ(self, found: Array, wanted: Array) -> Array:
        """Tell which of all images are answered otherwise, N: examples by probabilities as well.

        Those of which the wanted answer is not finite are another row's affair.
        """
        wrong = self.wrong(found, wanted)
        with np.errstate(invalid="ignore", over="ignore"):
            likely = np.abs(softmax(found) - softmax(wanted)).max(axis=1)
        wrong[: self.examples] |= ~(likely[: self.examples] <= PROBABILITY_BOUND)
        return wrong & finite(wanted)


def questions(card: Card, reference: Reference | None, budget: Budget) -> Questions:
    """Choose what PyTorch and the file are asked, and ask PyTorch."""
    ends = extremes(card.input)[: budget.extremes()]
    if reference is None or reference.original is None:
        return Questions(ends, 0)
    few = reference.images[chosen(reference.labels, budget.few())]
    original = reference.original
    images = np.concatenate([few, ends])
    together = max(3, budget.batch(len(images)))  # more than the two that it is held against
    try:
        logits = smaller(lambda size: original.logits(images, size), together)
    except OutOfMemory:
        raise
    except Exception as error:
        problem = f"{PYTORCH} cannot answer them: {_reason(error)}"
        return Questions(images, len(few), original, problem=problem)
    # Not one by one: a component that treats a batch of one differently is found by another row.
    exactly = max(2, budget.batch(2 * len(ends)) // 2)  # numbers twice as large
    return Questions(images, len(few), original, logits, batch=exactly)


def few_at_a_time(card: Card, asked: Questions, answers: Tried[Answers]) -> Iterator[Row]:
    """Hold PyTorch in the smallest batches against PyTorch in one, and `answers` against it there.

    They are the file's in the smallest batches, or those of the fp32 twin of a smaller file.
    """
    original, logits = asked.original, asked.logits
    if original is None or logits is None:
        return
    sizes = (1, 2) if card.batch is None else (card.batch,)
    name = f"{PYTORCH}, {' and '.join(WORDS.get(size, str(size)) for size in sizes)} at a time"
    found = []
    for size in sizes:
        try:
            found.append(original.logits(asked.images, size))
        except OutOfMemory as error:  # no limit of memory makes these batches smaller
            raise OutOfMemory(str(error), card.batch) from error
        except Exception as error:
            figure = f"a component cannot answer a batch of {size}: {_reason(error)}"
            yield Row(name, "failed", figure)
            return
    wrong = [asked.differ(each, logits) for each in found]
    if any(each.any() for each in wrong):
        yield Row(name, "failed", f"{_cause(wrong)}: {_difference(found[0], logits)}")
    else:
        far = max(_furthest(each, logits, asked) for each in found)
        yield Row(name, "passed", f"{far:.1e} of the largest logit apart; {asked.said}")
    whose = "the file" if card.precision == "fp32" else "its fp32 twin"
    name = f"{whose}, {WORDS.get(sizes[0], str(sizes[0]))} at a time"
    if answers.value is None:
        yield Row(name, "failed", answers.problem)
    elif asked.differ(said := answers.value[0], found[0]).any():
        yield Row(name, "failed", f"differs from PyTorch: {_difference(said, found[0])}")
    else:
        far = _furthest(said, found[0], asked)
        yield Row(name, "passed", f"{far:.1e} of the largest logit off PyTorch's; {asked.said}")


def extreme_inputs(card: Card, asked: Questions, *tried: Tried[Answers]) -> Row:
    """Hold a file on extreme inputs: finite; in fp32 PyTorch's answers, or its own unoptimized.

    It was tried at full optimization, then at none.
    """
    name, count = EXTREME, len(asked.extreme)
    found = [each.value for each in tried if each.value is not None]
    if asked.problem or len(found) < len(tried):
        problems = (asked.problem, *(each.problem for each in tried))
        return Row(name, "failed", next(each for each in problems if each))
    wanted = found[-1][0] if asked.logits is None else asked.logits[asked.examples :]
    own = f"{PYTORCH} itself is" if asked.logits is not None else "it is"
    for which, sound in ((own, finite(wanted)), ("it is", finite(*itertools.chain(*found)))):
        if not sound.all():
            return Row(name, "failed", f"{which} not finite on {_named(~sound)}{_infinite(asked)}")
    if card.precision != "fp32":
        return Row(name, "passed", f"{count}, finite")
    wrong = np.any([_not_its_softmax(*pair) for pair in found], axis=0)
    wrong |= np.any([asked.wrong(logits, wanted, asked.examples) for logits, _ in found], axis=0)
    off = np.max([relative(logits, wanted) for logits, _ in found], axis=0)
    whose = "PyTorch's" if asked.logits is not None else "the unoptimized"
    rounded = (off > LOGIT_BOUND) & ~wrong
    figure = f"{count}, finite; {off[~rounded].max(initial=0):.1e} of the largest logit off {whose}"
    figure += f"; nothing but rounding on {_named(rounded)}" if rounded.any() else ""
    return judged(name, not wrong.any(), figure + (f": {_named(wrong)}" if wrong.any() else ""))


def _not_its_softmax(logits: Array, probabilities: Array) -> Array:
    wrong: Array = ~(np.abs(probabilities - softmax(logits)).max(axis=1) <= PROBABILITY_BOUND)
    return wrong


def _cause(wrong: list[Array]) -> str:
    """Say what is wrong with PyTorch's answers in batches of one, and of two."""
    if len(wrong) > 1 and not wrong[1].any():
        return "a component treats a batch of one differently"
    return "what a component answers depends on the other examples of its batch"


def _difference(found: Array, wanted: Array) -> str:
    there = finite(found, wanted)
    found, wanted = softmax(found[there]), softmax(wanted[there])
    far = float(np.abs(found - wanted).max(initial=0))
    flips = int((found.argmax(axis=1) != wanted.argmax(axis=1)).sum())
    return f"probabilities {far:.1e} apart, {flips} of {len(found)} labels differ"


def _furthest(found: Array, wanted: Array, asked: Questions) -> float:
    far = relative(found, wanted)
    return float(far[finite(wanted) & (far <= LOGIT_BOUND)].max(initial=0))


def _named(wrong: Array) -> str:
    if wrong.all():
        return f"all {len(wrong)}"
    return ", ".join(name for name, each in zip(NAMES, wrong, strict=False) if each)


def _infinite(asked: Questions) -> str:
    names = asked.original.infinite if asked.original else []
    return f"; {infinite(names)}" if names else ""


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
