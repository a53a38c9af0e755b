"""`zoo evaluate RUN` and `zoo report RUN`."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.options import (
    WITHOUT_SEEN,
    RunName,
    common,
    following,
    progress,
    workspace_of,
)
from zoo.cli.output import percent, print_json, say, table


@click.command()
@click.argument("run", type=RunName())
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps, …")
@WITHOUT_SEEN
@common(runs=True, data=True, quiet=True)
@click.pass_context
def evaluate(
    ctx: click.Context,
    run: str,
    device: str,
    without_seen: bool,
    runs_root: Path | None,
    data_root: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure a finetuned classifier on the test split; the reading is written into the run."""
    with progress(quiet):
        from zoo.pipeline import evaluate as twin

        workspace = workspace_of(ctx, runs_root, data_root)
        found = twin(run, device=device, without_seen=without_seen, workspace=workspace)
    if as_json:
        print_json(found)
        return
    times = "once" if found.test_readings == 1 else f"{found.test_readings} times"
    say(
        found.run,
        f"accuracy {percent(found.accuracy)} (95 % interval"
        f" {' to '.join(map(percent, found.interval))}) on {found.examples:,} test examples of"
        f" {found.dataset}{_left_out(found.left_out)}; the test split has been read {times} for"
        " this run",
    )
    table(
        ("class", "precision", "recall", "examples"),
        [(c.name, percent(c.precision), percent(c.recall), c.examples) for c in found.classes],
    )
    names = [figures.name for figures in found.classes]
    rows = [(name, *counts) for name, counts in zip(names, found.confusion, strict=True)]
    table(("true \\ predicted", *names), rows)
    folder = workspace.finetuned(run).folder
    more = " --without-seen" if found.left_out else ""
    say(f"Next: {following(ctx, f'export {folder}{more}', '--data-root')}")


def _left_out(count: int) -> str:
    return f" ({count:,} more were left out: the run has seen them)" if count else ""


@click.command()
@click.argument("run", type=RunName())
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The page.  [default: report.html in the run's folder]",
)
@common(runs=True, data=True, quiet=True)
@click.pass_context
def report(
    ctx: click.Context,
    run: str,
    output: Path | None,
    runs_root: Path | None,
    data_root: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write one HTML page that shows a finished run, a pretraining or a finetuning.

    It loads nothing from anywhere. The test split is not read: what zoo evaluate left in the run is
    shown.
    """
    with progress(quiet):
        from zoo.pipeline import report as twin

        made = twin(run, output, workspace=workspace_of(ctx, runs_root, data_root))
    if as_json:
        print_json(made)
        return
    say(f"{made.report}  {made.bytes:,} bytes")
    for line in made.missing:
        say(f"without {line.splitlines()[0]}")
