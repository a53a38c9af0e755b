"""Methods side by side: one row each, paired with the row that all are compared to."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Hashable, Mapping, Sequence

from zoo.evidence.spread import Paired, Spread, paired, spread

HEADS = ("labels", "method", "test accuracy", "against", "change, points", "95 % interval",
         "seeds", "s pretraining", "s finetuning")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Measured:
    """One classifier: what it is paired by, its accuracy 0..1, the seconds of its training.

    `pretraining` is counted whole for each classifier that came of it, as it would cost alone.
    """

    pair: Hashable
    accuracy: float
    pretraining: float
    finetuning: float


@dataclasses.dataclass(frozen=True)
class Row:
    """A method at a number of labels; `labels` None is all there are, `examples` of them."""

    method: str
    labels: int | None
    examples: int
    accuracy: Spread
    change: Paired | None
    against: str | None
    pretraining: float
    finetuning: float


def rows(
    labels: int | None,
    examples: int,
    methods: Mapping[str, Sequence[Measured]],
    baseline: str | None,
) -> list[Row]:
    """Return a row a method; differences are to `baseline`, by what pairs them."""
    made = []
    base = {each.pair: each.accuracy for each in methods.get(baseline or "", ())}
    for name, measured in methods.items():
        if not measured:
            continue
        ours = {each.pair: each.accuracy for each in measured}
        change = paired(ours, base) if name != baseline else None
        made.append(
            Row(
                method=name,
                labels=labels,
                examples=examples,
                accuracy=spread(list(ours.values())),
                change=change,
                against=baseline if change else None,
                pretraining=statistics.fmean(each.pretraining for each in measured),
                finetuning=statistics.fmean(each.finetuning for each in measured),
            )
        )
    return made


def cells(row: Row) -> tuple[str, ...]:
    """Write a row for a person, under `HEADS`."""
    change = row.change
    return (
        f"{row.examples:,}" if row.labels is not None else f"all {row.examples:,}",
        row.method,
        percent(row.accuracy),
        row.against or "",
        f"{100 * change.mean:+.2f}" if change else "",
        interval(change) if change else "",
        f"{change.count if change else row.accuracy.count}",
        f"{row.pretraining:.1f}",
        f"{row.finetuning:.1f}",
    )


def percent(found: Spread) -> str:
    """Write mean ± standard deviation: 84.17 ± 2.42 %."""
    spread = "" if found.deviation is None else f" ± {100 * found.deviation:.2f}"
    return f"{100 * found.mean:.2f}{spread} %"


def interval(change: Paired) -> str:
    """Write an interval in points: +0.10 to +2.31; one pair has none."""
    if change.low is None or change.high is None:
        return "one pair"
    return f"{100 * change.low:+.2f} to {100 * change.high:+.2f}"


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table; numbers are aligned right."""
    words = ("recipe", "labels", "method", "against")
    marks = ["---" if head in words else "--:" for head in heads]
    shown = [heads, marks, *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in shown) + "\n"
