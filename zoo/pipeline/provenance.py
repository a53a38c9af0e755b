"""Which run a file came from: where it is looked for, and whether two of one name differ."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from zoo import runs
from zoo.errors import RunError
from zoo.export.card import Card
from zoo.pipeline.workspace import Workspace
from zoo.record import Record
from zoo.runs import Run

VOLATILE = ("tests", "status", "process", "error")
"""Of a record, what two copies of one run may differ in: who read it since, and where."""


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The run that a file came from, or why there is none.

    `beside` is the folder of another run of that name that lies beside the file, and `differ` in
    what it differs; both are empty where there is none.
    """

    run: Run | str
    beside: Path | None = None
    differ: str = ""

    @property
    def folder(self) -> Path | None:
        return self.run.folder if isinstance(self.run, Run) else None


def provenance(path: Path, card: Card, workspace: Workspace) -> Provenance:
    """Find the run of a file: in the runs folder, which is the user's own, else beside the file.

    What lies beside a file came with it, and says what its sender says. Raises `RunError` where
    the run is no finished finetuning, or cannot be read: the user's own, or the only one there is.
    """
    found: list[Run] = []
    for folder in places(path, card, workspace):
        try:
            run = runs.load(folder)
        except RunError:
            if found:  # what cannot be read contradicts nothing
                continue
            raise
        if run.record.run == card.run:
            found.append(run)
    if not found:
        return Provenance(
            f"run '{card.run}' is neither under '{workspace.runs_root}' nor in the file's folder;"
            " name it with --run FOLDER"
        )
    run = workspace.finetuned(found[0])
    if len(found) == 1:
        return Provenance(run)
    return Provenance(run, found[1].folder, difference(run.record, found[1].record))


def places(path: Path, card: Card, workspace: Workspace) -> list[Path]:
    """Return the folders that may be the run's, the user's own first.

    The user's own is one even where its record is gone, or is no file: a stranger's run of that
    name does not take its place.
    """
    beside, named = path.resolve().parent, Path(card.run).name == card.run
    own = workspace.runs_root / card.run
    there = [beside] if _there(beside / "run.json") else []
    if named and card.run not in ("", ".", "..") and _there(own):
        there = [own, *(each for each in there if each != own.resolve())]
    return there


def _there(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except (OSError, ValueError):  # a name in the file's metadata that can be none
        return False


def difference(mine: Record, other: Record) -> str:
    """Say in what two records of one run contradict each other; empty where in nothing."""
    sides = mine.weights_sha256, other.weights_sha256
    if sides[0] != sides[1]:
        return f"weights {str(sides[0])[:12]} and {str(sides[1])[:12]}"
    here, there = dataclasses.asdict(mine), dataclasses.asdict(other)
    return ", ".join(key for key in here if key not in VOLATILE and here[key] != there[key])
