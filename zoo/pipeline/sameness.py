"""In what a data set is another one than the one that a run was made with, and what to type."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from zoo.api import Dataset
from zoo.data import checked
from zoo.digests import Digested
from zoo.errors import ZooError
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part
from zoo.pipeline.identity import SPLITS, digest_test, digested
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


# never elsewhere: digest_test
def splits_of(part: Part, data: Dataset) -> dict[str, Digested]:
    """Digest every split of a data set as it is; a test split that cannot be read is left out."""
    found = {}
    for name in SPLITS:
        if load := getattr(data, name):
            with assembly.guarded(part.entry, "loaded"):
                loaded = load()
            found[name] = digested(checked(loaded, data.input.shape, None, part.entry.owner))
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


def shown(name: object) -> str:
    """Return a name as it can be printed: it may be that of a file or a folder."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in str(name))


def _sizes(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
