"""What a proof is made of: its rows, and all that a file can be held against."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from zoo.export.card import Card
from zoo.export.golden import Golden
from zoo.export.original import Original

Array = np.ndarray[Any, Any]
PYTORCH = "PyTorch"
"""With this word begins the name or the figure of a row on what the classifier itself answers."""
Status = Literal["passed", "failed", "skipped", "reported"]
Run = Callable[[Array, int], tuple[Array, Array]]
"""Images, uint8 N x C x H x W, and a batch size -> logits and probabilities."""


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

    @property
    def of_the_classifier(self) -> bool:
        """Whether it judges PyTorch's own answers: no export of these could pass."""
        return PYTORCH in (self.name[: len(PYTORCH)], self.figure[: len(PYTORCH)])


def judged(name: str, passed: bool, figure: str) -> Row:
    return Row(name, "passed" if passed else "failed", figure)


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + "s" * (count != 1)


def infinite(names: Sequence[str], count: int = 0) -> str:
    """Say of which constants infinity is part, or of how many where no name is known."""
    what = ", ".join(names) or counted(count, "constant")
    return f"{what} contain{'s' * ((len(names) or count) == 1)} infinity"


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the file must say of the test split, and what it is expected to say of itself.

    `logits` are what it is held against: PyTorch's, or those of an int8 or fp16 file's fp32 twin;
    `torch` are PyTorch's. `original` is asked for more, and so is `twin`, where there is one.
    `said` is the number of the class that the twin says of each of `unlabelled`, which had no part
    in making or choosing the file. `apart` says whether the run has seen a test example.
    """

    images: Array  # uint8 N x C x H x W
    labels: Array  # int64 N
    logits: Array  # float32 N x classes
    torch: Array  # float32 N x classes
    card: Card
    original: Original | None = None
    twin: Run | None = None
    unlabelled: Array | None = None  # uint8 M x C x H x W
    said: Array | None = None  # int64 M
    apart: Row | None = None


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All that a file can be held against. A text in place of a part says why it is not at hand.

    `runtimes` are those that must run the file too, `others` those that are only reported.
    `remake` exports the file again, `at_opset` the same run at another opset. `origin` says
    whether two runs of the file's name agree, where there are two; `read_from` where the run and
    the golden vectors were read, by `run` and `golden`.
    """

    reference: Reference | str
    golden: Golden | str
    remake: Callable[[], bytes] | str
    runtimes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    at_opset: Callable[[int], bytes] | None = None
    origin: Row | None = None
    read_from: dict[str, str] = dataclasses.field(default_factory=dict)
