"""How many examples a row of the proof takes, and in which batches: bounded by work and memory.

Never by the clock: two machines prove the same rows.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from zoo.export.comparison import Array
from zoo.export.extremes import NAMES
from zoo.export.work import Cost
from zoo.memory import MEMORY

BATCH_SIZES = (1, 2, 7, 64, 257)
WORK = 5 * 10**11
"""Multiply-accumulates of a row: about ten seconds of two cores."""
SLOW_WORK = 2 * 10**10
"""Those of ONNX's own implementation, which is plain numpy."""
FEW = 16
"""Test examples that are asked few at a time, or of a slow runtime, at most."""
SEED = 0


@dataclasses.dataclass(frozen=True)
class Budget:
    """What one example costs, and the bytes that a batch may take."""

    cost: Cost
    memory: int = MEMORY

    def batch(self, most: int) -> int:
        """Return the largest batch that memory allows, at least 1."""
        return max(1, min(most, self.memory // max(1, self.cost.activations)))

    def examples(self, most: int, *, passes: int = 1, least: int = 2) -> int:
        """Return how many examples so many passes may take: `least` of them whatever they cost."""
        return min(most, max(least, WORK // max(1, passes * self.cost.macs)))

    def batches(self) -> tuple[tuple[int, ...], int]:
        """Return the batch sizes that answers are compared at, and on how many examples.

        Each size needs as many examples as itself, and a last pass takes them in another order.
        """
        sizes = [size for size in BATCH_SIZES if size <= self.batch(size)] or [1]
        while len(sizes) > 2 and self.cost.macs * max(sizes) * (len(sizes) + 1) > WORK:
            sizes.pop()
        passes, most = len(sizes) + 1, max(BATCH_SIZES)
        return tuple(sizes), self.examples(most, passes=passes, least=max(2, *sizes))

    def extremes(self) -> int:
        """Return how many extreme inputs PyTorch and the file are asked, each several times."""
        return self.examples(len(NAMES), passes=4)

    def few(self) -> int:
        """Return how many test examples are asked few at a time beside the extreme inputs.

        PyTorch is asked all of them in one batch, one by one and in pairs.
        """
        both = self.examples(FEW + len(NAMES), passes=3)
        return max(2, min(FEW, both - self.extremes()))

    def of_the_slow(self) -> tuple[int, int]:
        """Return how many examples and extreme inputs ONNX's own implementation is asked."""
        both = max(1, min(FEW + self.extremes(), SLOW_WORK // max(1, self.cost.slow)))
        ends = min(self.extremes(), both // 2)
        return min(FEW, both - ends), ends


def drawn(count: int, examples: int) -> Array:
    """Return the first places of a seeded order of so many examples."""
    found: Array = np.random.default_rng(SEED).permutation(count)[:examples]
    return found
