"""A test split held against what a run has seen: examples that leaked into it are refused."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from zoo.api import Examples
from zoo.digests import Array, Digested, digest_split, found_in
from zoo.errors import DataError
from zoo.pipeline import identity
from zoo.pipeline.identity import Identity, Origin
from zoo.pipeline.sameness import commands_anew, same_split, shown
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.record import DEEDS
from zoo.runs import Run

NAMED = 3
"""Examples of those refused that are named one by one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Held:
    """What of a test split is measured on, once it was held against what a run has seen.

    `examples` are left of `total`, and have the SHA-256 `sha256`. The run has seen `seen` of all;
    `leaked` of these were no test examples when it was made. `doubt` says why that is not known.
    """

    examples: Examples
    sha256: str
    total: int
    seen: int = 0
    leaked: int = 0
    doubt: str = ""

    @property
    def left_out(self) -> int:
        return self.total - len(self.examples)

    @property
    def reading(self) -> dict[str, Any]:
        """What the record of a reading says of the examples."""
        left_out = {"left_out": self.left_out} if self.left_out else {}
        return {"test_sha256": self.sha256, **left_out}


def hold(
    run: Run,
    examples: Examples,
    workspace: Workspace,
    by: str,
    *,
    without_seen: bool = False,
    refuse: bool = True,
) -> Held:
    """Hold the test split as it is against what a run has seen.

    `without_seen` leaves out all that it has seen. Raises `DataError` where the split changed and
    has examples by now that were trained on, unless these are left out or `refuse` is false; and
    where none is left.
    """
    digested = identity.digested(examples)
    total, sha256 = len(examples), digested.sha256
    known = identity.read(run)
    if known is None:
        doubt = "made before digests were kept"
        current().note(f"{run.name} was {doubt}: whether it has seen a test example is not known")
        if without_seen:
            raise DataError(
                f"Run '{run.name}' was {doubt}, so nobody knows which test examples it has seen."
                " Train it again, or leave --without-seen out."
            )
        return Held(examples=examples, sha256=sha256, total=total, doubt=doubt)
    assert run.record.data is not None
    seen = found_in(digested.examples, known.seen)
    leaked = known.leaked(digested.examples)
    if leaked.any() and refuse and not without_seen:
        raise DataError(_refusal(run, known, digested, leaked, workspace, by))
    if not leaked.any():
        _tell_change(run, digested.sha256, total)
    if without_seen and seen.any():
        examples = _without(run, examples, seen, workspace)
        sha256 = digest_split(examples.inputs, examples.labels).sha256
    others = ", ".join(run.record.data.unknown)
    return Held(
        examples=examples,
        sha256=sha256,
        total=total,
        seen=int(seen.sum()),
        leaked=int(leaked.sum()),
        doubt=f"what {others} saw is not known" if others else "",
    )


def check_origin(
    origin: Origin | None, parent: Run | None, name: str, workspace: Workspace
) -> None:
    """Refuse, before a run is made, test examples that what it starts from has seen; `DataError`.

    `name` is the data set's.
    """
    if origin is None or origin.test is None or parent is None or not origin.leaked.any():
        return
    count, total = int(origin.leaked.sum()), len(origin.test)
    deed = DEEDS[parent.record.kind]
    go_on = f"zoo finetune {shlex.quote(str(parent.folder))} --without-seen"
    if parent.record.kind == "finetune":
        go_on += " --self-train"
    left = f"only the other {total - count:,}" if count < total else "none"
    raise DataError(
        f"{count:,} of the {total:,} test examples of '{name}' are ones that the {deed}"
        f" '{parent.name}' has seen, and that were no test examples when it was made:"
        f" {which(origin.test.names, origin.leaked)}. What is measured on them says nothing of new"
        f" ones.\nTo go on, and leave them out whenever it is measured ({left} would be left),"
        f" type: {go_on}\nTo start anew from the data as they are, type:"
        f"{commands_anew(parent, workspace)}"
    )


def which(names: Sequence[str] | None, chosen: Array) -> str:
    """Name the first few of some examples: by their own names, or by their places from 0."""
    places = np.flatnonzero(chosen).tolist()
    if names is None:
        told = "number " + ", ".join(f"{place:,}" for place in places[:NAMED])
    else:
        told = ", ".join(f"'{shown(names[place])}'" for place in places[:NAMED])
    return told + (f" and {len(places) - NAMED:,} more" if len(places) > NAMED else "")


def _refusal(
    run: Run, known: Identity, test: Digested, leaked: Array, workspace: Workspace, by: str
) -> str:
    count, total, name = int(leaked.sum()), len(test), run.record.dataset.name
    sorts = {
        "trained on": known.trained,
        "validated on": known.held_out,
        "pretrained on": known.pretrained,
    }
    counts = {s: int(found_in(test.examples[leaked], some).sum()) for s, some in sorts.items()}
    told = " or ".join(
        sort if number == count else f"{sort} ({number:,})"
        for sort, number in counts.items()
        if number
    )
    subject = (
        f"{count:,} of the {total:,} test examples of '{name}' are ones that run '{run.name}' was"
        if same_split(run, "test", test)  # they were left out when it was made
        else f"The test split of '{name}' changed since run '{run.name}' was made: {count:,} of its"
        f" {total:,} examples are ones that the run was"
    )
    typed = shlex.quote(str(run.folder))
    others = f"To measure on the other {total - count:,}, type: zoo {by} {typed} --without-seen"
    return (
        f"{subject} {told}: {which(test.names, leaked)}. What is measured on them says nothing of"
        " new ones.\n"
        + (others if count < total else "No other is left to measure on.")
        + f"\nTo train anew on the data as they are, type:{commands_anew(run, workspace)}"
    )


def _without(run: Run, examples: Examples, seen: Array, workspace: Workspace) -> Examples:
    if seen.all():
        raise DataError(
            f"Run '{run.name}' has seen all {len(seen):,} test examples of"
            f" '{run.record.dataset.name}': none is left to measure on. To train anew on the data"
            f" as they are, type:{commands_anew(run, workspace)}"
        )
    left = torch.from_numpy(np.flatnonzero(~seen))
    assert examples.labels is not None  # a test split has them
    return Examples(inputs=examples.inputs[left], labels=examples.labels[left])


def _tell_change(run: Run, sha256: str, total: int) -> None:
    """Tell of a test split that changed, and has nothing that the run has seen."""
    assert run.record.data is not None
    before = run.record.data.splits.get("test")
    if before is None or before.sha256 == sha256:
        return
    counts = f"{before.examples:,} examples then, {total:,} now"
    current().note(
        f"the test split of {run.record.dataset.name} changed since {run.name} was made ({counts});"
        " none of them was trained on"
    )
