"""What a smaller file may lose against its fp32 twin, judged on counts of examples."""

from __future__ import annotations

import dataclasses

MIN_AGREEMENT = 0.98
"""Share of labels that an int8 or fp16 file must have in common with its fp32 twin."""
CHANCE = 0.05


def least_agreement(max_drop: float) -> float:
    """Return the share of labels that must agree where accuracy may drop by `max_drop`, 0..1.

    Whoever lets 10 % of the answers go wrong lets as many change.
    """
    return min(MIN_AGREEMENT, 1 - max_drop)


def allowed(share: float, examples: int) -> int:
    """Return how many of so many examples may be lost where at most `share` of all may, 0..1.

    One may be even where that is more than the share, unless it tells: were just `share` of all
    examples lost, at least one of so many would be in more than `CHANCE` of all draws.
    """
    one = 1 - (1 - share) ** examples > CHANCE
    return max(int(share * examples + 1e-9), int(one))


@dataclasses.dataclass(frozen=True)
class Agreement:
    """On how many of so many examples a smaller file says what its fp32 twin says."""

    alike: int
    examples: int

    @property
    def share(self) -> float:
        return self.alike / self.examples

    def enough(self, max_drop: float) -> bool:
        most = allowed(1 - least_agreement(max_drop), self.examples)
        return self.examples - self.alike <= most

    def bound(self, max_drop: float) -> str:
        least = least_agreement(max_drop)
        return f"at least {least * 100:.4g} %" + _or_one(1 - least, self.examples, "all but 1")

    def figure(self, max_drop: float) -> str:
        counts = f"{self.alike:,} of {self.examples:,} labels agree with fp32"
        return f"{counts} ({self.share * 100:.2f} %; {self.bound(max_drop)})"


@dataclasses.dataclass(frozen=True)
class Drop:
    """How many of so many labelled examples the fp32 twin gets right, and a smaller file."""

    before: int
    after: int
    examples: int

    @property
    def share(self) -> float:
        """How much less accurate the smaller file is, -1..1."""
        return (self.before - self.after) / self.examples

    def small(self, max_drop: float) -> bool:
        return self.before - self.after <= allowed(max_drop, self.examples)

    def figure(self, max_drop: float) -> str:
        bound = f"at most {max_drop * 100:.4g}" + _or_one(max_drop, self.examples, "1 example")
        counts = f"{self.after:,} of {self.examples:,} right, fp32 {self.before:,}"
        points = f"{abs(self.share) * 100:.2f} points {'gained' if self.share < 0 else 'lost'}"
        return f"{counts} ({points}; {bound})"


def needed(agreement: Agreement, drop: Drop, max_drop: float) -> float:
    """Return the least maximal drop, 0..1, at which both would do."""
    shares = [max_drop]
    if not agreement.enough(max_drop):
        shares.append(1 - agreement.share)
    if not drop.small(max_drop):
        shares.append(drop.share)
    return max(shares)


def _or_one(share: float, examples: int, words: str) -> str:
    """Say so where one example may be lost that the share alone would not allow."""
    return f", or {words}" if allowed(share, examples) > share * examples + 1e-9 else ""
