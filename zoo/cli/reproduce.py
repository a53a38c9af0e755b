"""`zoo reproduce RUN|CARD`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from zoo.cli.options import RunName, common, progress, workspace_of
from zoo.cli.output import percent, print_json, say, table

SAID = {
    "to the bit": "Reproduced to the bit: equal weights, equal figures.",
    "within the interval": "Reproduced: the accuracy lies within the stated interval.",
    "outside": "NOT reproduced: the accuracy lies outside of the stated interval.",
    "altered": "NOT reproduced: it came out otherwise than recorded, where it could not:",
    "untold": "Undecided: a pretraining states no interval, and this is another machine.",
}


@click.command(
    epilog="RUN: a finished run's folder, its name, or latest. CARD: an exported file with its"
    " proof beside it, or a bundle: its folder, model.json or README.md."
)
@click.argument("source", metavar="RUN|CARD", type=RunName())
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep the reruns in this runs folder.  [default: a temporary one]",
)
@click.option("--device", help="Another device than the recorded one.")
@common(runs=True, data=True, quiet=True)
@click.pass_context
def reproduce(
    ctx: click.Context,
    source: str,
    keep: Path | None,
    device: str | None,
    runs_root: Path | None,
    data_root: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Make a run again from its record, its pretraining first, and compare the two.

    On the same processor, with the same versions, the weights must be equal to the bit. Elsewhere
    the accuracy must lie within the stated 95 % interval. Exit status 1 where it is not so.
    """
    with progress(quiet):
        from zoo.pipeline import reproduce as twin

        workspace = workspace_of(ctx, runs_root, data_root)
        found = twin(source, keep=keep, device=device, workspace=workspace)
    if as_json:
        print_json({**dataclasses.asdict(found), "passed": found.passed})
    else:
        _print(found)
    return 0 if found.passed else 1


def _print(found: Any) -> None:
    say(found.run, SAID[found.verdict])
    if found.differences:
        rows = [(d.name, _shown(d.recorded), _shown(d.rerun)) for d in found.differences]
        table(("differs", "recorded", "made again"), rows)
    if found.elsewhere:
        rows = [(d.name, _shown(d.recorded), _shown(d.rerun)) for d in found.elsewhere]
        table(("made with", "then", "now"), rows)
    if found.accuracy is not None:
        say(
            f"accuracy {percent(found.accuracy)} (95 % interval"
            f" {' to '.join(map(percent, found.interval))}), made again"
            f" {percent(found.rerun_accuracy)}"
        )
    where = f" in {found.kept}" if found.kept else ""
    say(f"{found.seconds:.1f} s of training{where}")


def _shown(value: Any) -> str:
    text = str(value)
    return f"{text[:16]}…" if len(text) == 64 else text
