"""In what a data set is another one than the one that a run was made with, and what to type."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from zoo.errors import ZooError
from zoo.pipeline.lineage import ancestors_of
from zoo.pipeline.workspace import Workspace
from zoo.record import Record
from zoo.report.configuration import commands_of
from zoo.runs import Run


def change_of(before: Record, classes: Sequence[str], input: Sequence[int]) -> str:
    """Say in what classes and stored input differ from a run's; empty where in nothing.

    The text ends with what can be done, "or train anew".
    """
    gone = [name for name in before.classes if name not in classes]
    new = [name for name in classes if name not in before.classes]
    said = []
    if gone:
        said.append(f"{_named(gone)} gone")
    if new:
        said.append(f"{_named(new)} new")
    if not said and list(classes) != before.classes:
        said.append(f"the order of its classes is {_listed(classes)}")
        said[-1] += f" and was {_listed(before.classes)}"
    if list(input) != before.data_input:
        said.append(f"its examples are {_sizes(input)} and were {_sizes(before.data_input)}")
    if not said:
        return ""
    back = "Bring it back to what it was"
    if len(gone) == len(new) == 1:
        back = f"If that is a new name of it, call it '{gone[0]}' again"
    elif gone and not new:
        back = "Bring back what is gone"
    elif new and not gone:
        back = "Take away what is new"
    return f"{', and '.join(said)}. {back}, or train anew"


def commands_anew(run: Run, workspace: Workspace) -> str:
    """Return the commands that make a run anew on the data as they are, a line each."""
    parents: list[Record] = []
    with contextlib.suppress(ZooError):
        parents = [parent.record for parent in ancestors_of(run, workspace)]
    lines = commands_of(run.record, parents, workspace.registry)
    return "".join(f"\n  {line}" for line in lines)


def _named(names: Sequence[str]) -> str:
    return f"class {_listed(names)} is" if len(names) == 1 else f"classes {_listed(names)} are"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:4])
    return shown + (f" and {len(names) - 4:,} more" if len(names) > 4 else "")


def _sizes(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
