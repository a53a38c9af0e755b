"""What a benchmark can afford, estimated from a first call: which batches, in how many rounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from zoo.config import size_text
from zoo.memory import MEMORY

ROUNDS = 5
RUNS = 3
"""Timed runs a round, where there is time for them; else one."""


@dataclasses.dataclass(frozen=True)
class Allowance:
    """Seconds for a side at one batch size, and bytes for the activations of a batch.

    `activations` are those of one example; 0 where they are not known.
    """

    seconds: float = 5.0
    memory: int = MEMORY
    activations: int = 0


@dataclasses.dataclass(frozen=True)
class Pace:
    """How a batch size is measured: in so many rounds, with at least so many runs in each."""

    rounds: int = ROUNDS
    least: int = RUNS


def paced(
    name: str,
    batches: list[int],
    first: Callable[[int], float],
    allowance: Allowance,
    notes: list[str],
    each: float | None = None,
) -> dict[int, Pace]:
    """Choose the batch sizes that fit; notes say what does not.

    `first` calls a side at a batch size for the first time, and returns the seconds of a call.
    `each` is the seconds of one example where the side has been called before; else the smallest
    batch is called whatever it takes, to learn them.
    """
    taken: dict[int, float] = {}
    if each is None:
        smallest = min(batches)
        taken[smallest] = first(smallest)
        each = taken[smallest] / smallest
    found = {}
    for batch in batches:
        if batch not in taken and (refusal := _refusal(batch, each * batch, allowance)):
            notes.append(f"{name} was not run at batch {batch}: {refusal}")
            continue
        run = taken[batch] if batch in taken else first(batch)
        rounds = max(1, min(ROUNDS, int(allowance.seconds / run)))
        if rounds < ROUNDS:
            notes.append(
                f"{name} had {rounds} of {ROUNDS} rounds at batch {batch}: a run takes about"
                f" {run:.2g} s. For all of them: --seconds {math.ceil(ROUNDS * run)}"
            )
        found[batch] = Pace(rounds, RUNS if ROUNDS * RUNS * run <= allowance.seconds else 1)
    return found


def _refusal(batch: int, run: float, allowance: Allowance) -> str:
    """Say why a batch size does not fit, and what to type; empty where it does."""
    needed = batch * allowance.activations
    if needed > allowance.memory:
        more = 10**8 * math.ceil(needed / 10**8)
        return (
            f"its activations would take about {size_text(more)}, more than --memory"
            f" {size_text(allowance.memory)}. To run it: --memory {size_text(more)}"
        )
    if ROUNDS * run > allowance.seconds:
        return (
            f"{ROUNDS} runs would take about {ROUNDS * run:.2g} s, more than --seconds"
            f" {allowance.seconds:g}. To run it: --seconds {math.ceil(ROUNDS * run)}"
        )
    return ""
