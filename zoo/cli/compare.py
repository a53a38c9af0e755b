"""`zoo compare RUN…`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zoo.cli.options import RunName, common, light_workspace
from zoo.cli.output import print_json, say, say_text, table


@click.command(epilog="RUN is a finished finetuning: its folder, its name, or latest.")
@click.argument("runs", metavar="RUN…", nargs=-1, required=True, type=RunName())
@common(runs=True)
def compare(runs: tuple[str, ...], runs_root: Path | None, as_json: bool) -> None:
    """Compare classifiers that were trained and evaluated: a row a method, paired by seed.

    A method is an objective, or scratch. The test split is not read: what was not evaluated is
    named, with the command to type.
    """
    from zoo.pipeline import compare as twin

    found = twin(runs, workspace=light_workspace(runs_root))
    if as_json:
        print_json(found)
        return
    from zoo.evidence.rows import HEADS, cells
    from zoo.pipeline.bench.plan import SCRATCH, SCRATCH_MEANS

    lines = zip(found.rows, found.held, found.readings, strict=True)
    table(
        (*HEADS, "validation labels", "test readings"),
        [(*cells(row), f"{held:,}", str(count)) for row, held, count in lines],
    )
    if any(each.method == SCRATCH for each in found.runs):
        say(SCRATCH_MEANS)
    if found.differences:
        say("The runs differ in:")
        table(("setting", "values"), [(k, _values(v)) for k, v in found.differences.items()])
    else:
        say("The runs differ in nothing but their seeds.")
    for note in found.notes:
        say_text(f"Note: {note}")


def _values(values: list[Any]) -> str:
    return " | ".join("none" if value is None else str(value) for value in values)
