"""Means, deviations and 95 % intervals of accuracies; scipy is loaded where it is needed."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Hashable, Mapping, Sequence

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Spread:
    """Figures of several seeds; the sample standard deviation is None for one."""

    count: int
    mean: float
    deviation: float | None


@dataclasses.dataclass(frozen=True)
class Paired:
    """Differences of pairs: their spread, and the 95 % interval of their mean.

    The interval is Student's over the pairs; None for one pair, which has no spread.
    """

    count: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


def spread(values: Sequence[float]) -> Spread:
    """Return mean and sample standard deviation of one value or more."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(len(values), statistics.fmean(values), deviation)


def paired(ours: Mapping[Hashable, float], others: Mapping[Hashable, float]) -> Paired | None:
    """Return ours minus the others where both have a value; None where no key is in both.

    The interval is mean ± t · s / √n, with Student's t at n - 1 degrees of freedom.
    """
    differences = [value - others[key] for key, value in ours.items() if key in others]
    if not differences:
        return None
    found = spread(differences)
    if found.deviation is None:
        return Paired(found.count, found.mean, None, None, None)
    from scipy import stats

    t = float(stats.t.ppf((1 + LEVEL) / 2, found.count - 1))
    reach = t * found.deviation / math.sqrt(found.count)
    return Paired(found.count, found.mean, found.deviation, found.mean - reach, found.mean + reach)


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share that was counted on `total` examples."""
    from scipy import stats

    found = stats.binomtest(correct, total).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)
