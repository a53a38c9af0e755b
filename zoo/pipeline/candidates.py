"""Smaller files measured against their fp32 twin, on other examples than the test split's."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from zoo.export import quantization
from zoo.export.agreement import Agreement, Drop, needed
from zoo.export.budget import Budget
from zoo.export.runtime import Array, open_session
from zoo.export.timing import ratio
from zoo.export.trials import run_all
from zoo.export.work import cost_of
from zoo.memory import MEMORY
from zoo.pipeline.samples import Samples

DRAFT = Path("the model")
"""What a file that has no place yet is called in messages."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A smaller file, and what was measured of it on other examples than the test split's.

    Fractions are 0..1: `agreement` is over `examples`, `accuracy_drop` over `labelled`. `latency`
    is its median time for one example, in units of that of its fp32 twin. `needs` is the least
    maximal drop, from the one asked for on, with which it would be kept; None where there is none.
    """

    name: str
    bytes: int
    agreement: float
    accuracy_drop: float
    latency: float | None
    kept: bool
    reason: str
    examples: int = 0
    labelled: int = 0
    needs: float | None = None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def measure(
    name: str,
    data: bytes,
    twin: bytes,
    samples: Samples,
    expected: Array,
    max_drop: float,
    memory: int = MEMORY,
) -> Candidate:
    """Hold a smaller file against its twin, whose logits are `expected`.

    `memory` bounds, in bytes, what a batch may take.
    """
    logits, probabilities = answers(data, samples.choosing, memory)
    if not (np.isfinite(logits).all() and np.isfinite(probabilities).all()):
        reason = "its answers are not finite"
        return Candidate(name, len(data), 0.0, 1.0, None, False, reason)
    wanted, found, labels = expected.argmax(1), probabilities.argmax(1), samples.labels
    same = (wanted == found)[samples.fresh :]
    agreement = Agreement(int(same.sum()), len(same))
    before, after = (int((each[: len(labels)] == labels).sum()) for each in (wanted, found))
    drop = Drop(before, after, len(labels))
    reasons = [] if agreement.enough(max_drop) else [agreement.figure(max_drop)]
    reasons += [] if drop.small(max_drop) else [drop.figure(max_drop)]
    smaller = len(data) < len(twin)
    reasons += [] if smaller else ["it is not smaller"]
    return Candidate(
        name=name,
        bytes=len(data),
        agreement=agreement.share,
        accuracy_drop=drop.share,
        latency=ratio(data, twin),
        kept=not reasons,
        reason=", ".join(reasons),
        examples=agreement.examples,
        labelled=drop.examples,
        needs=needed(agreement, drop, max_drop) if smaller else None,
    )


def refusal(candidates: list[Candidate], precision: str) -> str:
    """Say what is lost, and with what it may be."""
    helped = [each for each in candidates if each.needs is not None]
    if not helped:
        tried = "; ".join(f"{each.name}: {each.reason}" for each in candidates)
        return f"no {precision} file is of use ({tried}). Leave it in fp32."
    best = min(helped, key=lambda each: each.needs or 0.0)
    count = len(candidates)
    which = f" (of {count} ways least by {best.name})" if count > 1 else ""
    points = math.ceil((best.needs or 0.0) * 1000 - 1e-9) / 10
    other = "--fp16, or " if precision == "int8" else ""
    return (
        f"{precision} loses too much here{which}: {best.reason}."
        f" Type {other}--max-drop {points:g}, or leave it in fp32."
    )


def budget_of(model: bytes, memory: int = MEMORY) -> Budget:
    """Return what may be asked of a file at a time, within `memory` bytes, and in all."""
    return Budget(cost_of(onnx.load_model_from_string(model)), memory)


def answers(data: bytes, images: Array, memory: int = MEMORY) -> tuple[Array, Array]:
    """Run a file that may not be sealed yet, and is opened for it alone."""
    size = budget_of(data, memory).batch(quantization.BATCH)
    session = open_session(DRAFT, data, sealed=False, lean=True)
    return run_all(session, images, size)
