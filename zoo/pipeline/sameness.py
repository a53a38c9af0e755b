"""In what a data set is another one than the one that a run was made with, and what to type."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import numpy as np

from zoo.api import Dataset
from zoo.digests import Digested, found_in
from zoo.errors import ZooError
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part
from zoo.pipeline.identity import SPLITS, digest_test, digested, read
from zoo.pipeline.lineage import ancestors_of
from zoo.pipeline.workspace import Workspace
from zoo.record import Record
from zoo.report.configuration import commands_of
from zoo.runs import Run
from zoo.showing import shown

BACK = "Bring the data set back to what it was"


def change_of(before: Record, classes: Sequence[str], input: Sequence[int]) -> str:
    """Say in what classes and stored input differ from a run's; empty where in nothing.

    The text ends with what can be done, "or train anew": `refusal` adds how.
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
    back = BACK
    if len(gone) == len(new) == 1:
        back = f"If that is a new name of it, call it '{gone[0]}' again"
    elif gone and not new:
        back = "Bring back what is gone"
    elif new and not gone:
        back = "Take away what is new"
    return f"{', and '.join(said)}. {back}, or train anew"


def change_of_split(run: Run, name: str, split: Digested) -> str:
    """Say how many examples of a split are others than a run was made with, as `change_of` does.

    Empty where they are the same, and where nobody knows.
    """
    if same_split(run, name, split) is not False:
        return ""
    assert run.record.data is not None
    data = run.record.data
    counts = f"{data.splits[name].examples:,} examples then, {len(split):,} now"
    known = read(run)
    if known is not None:
        # Digests of what the examples are made of follow, where there are some.
        used = np.concatenate([known.trained[: data.trained], known.held_out[: data.held_out]])
        gone = len(used) - int(found_in(used, split.examples).sum())
        counts += (
            f"; {gone:,} of the {len(used):,} that the run used are gone"
            if gone
            else "; all that the run used are there, perhaps in another order or with other labels"
        )
    return f"its {name} split changed ({counts}). {BACK}, or train anew"


def refusal(record: Record, change: str, commands: str) -> str:
    """Say that a data set is another one than a run was made with, in what, and what to type.

    `change` is what `change_of` or `change_of_split` says, `commands` are those of `anew`.
    """
    return (
        f"Dataset '{record.dataset.name}' is no longer the one that run '{record.run}' was trained"
        f" on: {change}:{commands}"
    )


def commands_anew(run: Run, workspace: Workspace) -> str:
    """Return the commands that make a run anew on the data as they are, a line each."""
    parents: list[Record] = []
    with contextlib.suppress(ZooError):
        parents = [parent.record for parent in ancestors_of(run, workspace)]
    return anew(run.record, parents, workspace)


def anew(record: Record, parents: list[Record], workspace: Workspace) -> str:
    """Return the commands that make what is recorded; `parents` has the nearest first."""
    lines = commands_of(record, parents, workspace.registry)
    return "".join(f"\n  {line}" for line in lines)


# never elsewhere: digest_test
def splits_of(part: Part, data: Dataset) -> dict[str, Digested]:
    """Digest every split of a data set as it is; a test split that cannot be read is left out."""
    found = {}
    for name in SPLITS:
        if load := getattr(data, name):
            found[name] = digested(assembly.load_split(part, data, load))
    test = digest_test(part, data)
    return found if test is None else {**found, "test": test}


def made_of(run: Run, splits: Mapping[str, Digested]) -> bool:
    """Say whether a run was made of these splits, or when digests were not kept yet."""
    record, data = run.record, run.record.data
    if data is None:
        return True
    labels_alone = record.kind == "finetune" and record.self_train is None
    names = [*(SPLITS[:1] if labels_alone else SPLITS)]
    names += {"test"} & splits.keys() & data.splits.keys()
    before = [data.splits[name].sha256 if name in data.splits else None for name in names]
    return before == [splits[name].sha256 if name in splits else None for name in names]


def same_split(run: Run, name: str, split: Digested) -> bool | None:
    """Say whether a split is the one that a run was made with; None where nobody knows."""
    data = run.record.data
    if data is None or name not in data.splits:
        return None
    return data.splits[name].sha256 == split.sha256


def _named(names: Sequence[str]) -> str:
    return f"class {_listed(names)} is" if len(names) == 1 else f"classes {_listed(names)} are"


def _listed(names: Sequence[str]) -> str:
    first = ", ".join(f"'{shown(name)}'" for name in names[:4])
    return first + (f" and {len(names) - 4:,} more" if len(names) > 4 else "")


def _sizes(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
