"""Loops in turn, round after round, and what their laps say."""

from __future__ import annotations

import dataclasses
import gc
import statistics
from collections.abc import Callable, Mapping

import click
from contestants import Lap, bare, ours
from report import Spread, spread
from workloads import Workload

Contestant = Callable[[Workload], list[Lap]]
OURS = "ours"
SLACK = 1e-3
"""A stated loss counts as reached within this share: equal curves differ by rounding."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One loop's figures over all rounds."""

    name: str
    epoch: Spread  # seconds
    examples_per_second: float
    ratio: float  # of its time over ours in the same round, the median of the rounds
    ratios: list[float]
    losses: list[float] | None  # an epoch's mean, epoch by epoch
    apart: float | None  # largest relative difference from the first loop's losses
    to_target: Spread | None  # seconds


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One workload: its loops, and the pieces between the floor and ours."""

    title: str
    target: str
    rows: list[Row]
    pieces: list[Row]

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)


def compare(
    workload: Workload,
    loops: Mapping[str, Contestant],
    pieces: Mapping[str, Contestant],
    rounds: int,
    accuracy: float | None,
) -> Comparison:
    """Time loops and pieces on a workload; the target is the last loss, or an accuracy."""
    click.echo(workload.title, err=True)
    for warming_up in (bare, ours):
        warming_up(workload)
    laps: dict[str, list[list[Lap]]] = {name: [] for name in [*loops, *pieces]}
    for number in range(1, rounds + 1):
        for name, train in {**loops, **pieces}.items():
            gc.collect()
            laps[name].append(train(workload))
            seconds = " ".join(f"{lap.seconds:.3f}" for lap in laps[name][-1])
            click.echo(f"  round {number} of {rounds}, {name}: {seconds} s", err=True)
    first = laps[next(iter(loops))][0]
    if accuracy:
        target = f"accuracy {accuracy:.0%}"
    else:
        target = f"loss {first[-1].loss:.4f} (epoch {len(first)})"

    def reached(lap: Lap) -> bool:
        if accuracy:
            return lap.accuracy is not None and lap.accuracy >= accuracy
        if lap.loss is None or first[-1].loss is None:
            return False
        return lap.loss <= first[-1].loss * (1 + SLACK)

    def sum_up(name: str) -> Row:
        return _row(workload, name, laps[name], laps[OURS], first, reached)

    return Comparison(workload.title, target, [*map(sum_up, loops)], [*map(sum_up, pieces)])


def _row(
    workload: Workload,
    name: str,
    runs: list[list[Lap]],
    own: list[list[Lap]],
    first: list[Lap],
    reached: Callable[[Lap], bool],
) -> Row:
    epoch = spread([lap.seconds for run in runs for lap in run])
    ratios = [_total(run) / _total(beside) for run, beside in zip(runs, own, strict=True)]
    off = [
        abs(lap.loss - one.loss) / abs(one.loss)
        for run in runs
        for lap, one in zip(run, first, strict=True)
        if lap.loss is not None and one.loss is not None
    ]
    losses = [lap.loss for lap in runs[0] if lap.loss is not None]
    times = [seconds for run in runs if (seconds := _until(run, reached)) is not None]
    return Row(
        name=name,
        epoch=epoch,
        examples_per_second=len(workload.train) / epoch.median,
        ratio=statistics.median(ratios),
        ratios=ratios,
        losses=losses or None,
        apart=max(off, default=None),
        to_target=spread(times) if len(times) == len(runs) else None,
    )


def _total(run: list[Lap]) -> float:
    return sum(lap.seconds for lap in run)


def _until(run: list[Lap], reached: Callable[[Lap], bool]) -> float | None:
    """Return the seconds until the end of the first epoch that reached the target."""
    seconds = 0.0
    for lap in run:
        seconds += lap.seconds
        if reached(lap):
            return seconds
    return None
