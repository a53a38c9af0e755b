"""A test split held against what a run has seen: examples that leaked into it are refused."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from zoo.api import Examples
from zoo.digests import Array, Digested, digest_split
from zoo.errors import DataError, ZooError
from zoo.pipeline import identity
from zoo.pipeline.identity import Identity, Origin
from zoo.pipeline.lineage import ancestors_of
from zoo.pipeline.sameness import commands_anew, same_split
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.record import DEEDS, PartRecord
from zoo.runs import Run
from zoo.showing import shown

NAMED = 3
"""Examples of those refused that are named one by one."""

FLATTERS = "Accuracy on them does not predict accuracy on new examples."
ALL_SEEN = "All of them were seen, so there is nothing left to measure on."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Held:
    """What of a test split is measured on, once it was held against what a run has seen.

    `examples` are left of `total`, and have the SHA-256 `sha256`. The run has seen `seen` of all;
    `leaked` of these were no test examples when it was made. `doubt` says why it may have seen
    more. `whole` is the SHA-256 of all.
    """

    examples: Examples
    sha256: str
    whole: str
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
        left_out = {"left_out": self.left_out, "whole_sha256": self.whole}
        return {"test_sha256": self.sha256, **(left_out if self.left_out else {})}


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
        doubt = identity.UNKEPT.format(run.name)
        identity.tell_unknown([doubt])
        if without_seen:
            raise DataError(
                f"Run '{run.name}' was made before digests were kept, so nobody knows which test"
                " examples it has seen. Train it again, or leave --without-seen out."
            )
        return Held(examples=examples, sha256=sha256, whole=sha256, total=total, doubt=doubt)
    assert run.record.data is not None
    unknown = run.record.data.unknown
    seen, leaked = digested.among(known.seen), known.leaked(digested)
    if leaked.any() and refuse and not without_seen:
        raise DataError(_refusal(run, known, digested, leaked, workspace, by))
    identity.tell_unknown(unknown)
    if not leaked.any():
        _tell_change(run, digested.sha256, total, int(seen.sum()))
    if without_seen and seen.any():
        examples = _without(run, examples, seen, workspace)
        sha256 = digest_split(examples.inputs, examples.labels).sha256
    return Held(
        examples=examples,
        sha256=sha256,
        whole=digested.sha256,
        total=total,
        seen=int(seen.sum()),
        leaked=int(leaked.sum()),
        doubt="; ".join(unknown),
    )


def check_origin(
    origin: Origin | None, parent: Run | None, name: str, workspace: Workspace
) -> None:
    """Refuse, before anything is trained, test examples that what it starts from has seen.

    `name` is the data set's. Raises `DataError`.
    """
    if origin is None or origin.test is None or parent is None or not origin.leaked.any():
        return
    count, total = int(origin.leaked.sum()), len(origin.test)
    others = (
        "To train even so, add --without-seen to `zoo finetune`. `evaluate` and `export` then need"
        f" --without-seen as well, and measure on the other {total - count:,}."
    )
    raise DataError(
        f"The {DEEDS[parent.record.kind]} '{parent.name}' has seen {count:,} of the {total:,} test"
        f" examples of '{name}', which were no test examples when it was made:"
        f" {which(origin.test.names, origin.leaked)}. {FLATTERS}\n"
        + (others if count < total else ALL_SEEN)
        + f"\n{_anew(parent, origin.dataset, workspace)}"
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
    counts = {sort: int((test.among(some) & leaked).sum()) for sort, some in sorts.items()}
    sort = next((sort for sort, number in counts.items() if number == count), "")
    told = f"was {sort}" if sort else "has seen"
    each = ", ".join(f"{number:,} {sort}" for sort, number in counts.items() if number)
    each = "" if sort else f" ({each})"
    if same_split(run, "test", test):  # they were left out when it was made
        subject = f"Run '{run.name}' {told} {count:,} of the {total:,} test examples of '{name}'"
    else:
        subject = f"The test split of '{name}' changed since run '{run.name}' was made. The run"
        subject += f" {told} {count:,} of its {total:,} examples"
    typed = shlex.quote(str(run.folder))
    rest = "" if by == "evaluate" else ", with your other options"
    others = f"To measure on the other {total - count:,}, type{rest}: zoo {by} {typed}"
    return (
        f"{subject}{each}: {which(test.names, leaked)}. {FLATTERS}\n"
        + (f"{others} --without-seen" if count < total else ALL_SEEN)
        + f"\n{_anew(run, run.record.dataset, workspace)}"
    )


def _anew(run: Run, dataset: PartRecord, workspace: Workspace) -> str:
    """Say how one comes to a run that has seen no test example of a data set as it is.

    The commands that the run was made by do where all of it is of this data set: training leaves
    test examples out. Of another one they would come to the same.
    """
    chain = [run]
    with contextlib.suppress(ZooError):
        chain += ancestors_of(run, workspace)
    for each in chain:
        record = each.record
        if record.teachers:
            return f"To start anew, first train what taught '{each.name}' on the data as they are."
        if (record.dataset.name, record.dataset.options) != (dataset.name, dataset.options):
            mine, theirs = _differing(dataset, record.dataset)
            return (
                f"To start anew, pretrain on {mine} itself, or take those examples out of {theirs},"
                f" which '{each.name}' was trained on, and pretrain again."
            )
    return f"To train anew on the data as they are, type:{commands_anew(run, workspace)}"


def _differing(*parts: PartRecord) -> list[str]:
    """Name data sets with the options in which they differ."""
    told = []
    for part in parts:
        own = [k for k, v in part.options.items() if any(o.options.get(k) != v for o in parts)]
        options = ", ".join(f"{k}={shown(part.options[k])}" for k in own)
        same = len({each.name for each in parts}) == 1
        told.append(f"'{part.name}'" + f" ({options})" * same)
    return told


def _without(run: Run, examples: Examples, seen: Array, workspace: Workspace) -> Examples:
    if seen.all():
        raise DataError(
            f"Run '{run.name}' has seen all {len(seen):,} test examples of"
            f" '{run.record.dataset.name}', so there is nothing left to measure on.\n"
            + _anew(run, run.record.dataset, workspace)
        )
    left = torch.from_numpy(np.flatnonzero(~seen))
    assert examples.labels is not None  # a test split has them
    return Examples(inputs=examples.inputs[left], labels=examples.labels[left])


def _tell_change(run: Run, sha256: str, total: int, seen: int) -> None:
    """Tell of a test split that changed, though the run has seen no more of it than when made."""
    assert run.record.data is not None
    before = run.record.data.splits.get("test")
    if before is None or before.sha256 == sha256:
        return
    counts = f"{before.examples:,} examples then, {total:,} now"
    if seen:
        found = f"the run has seen {seen:,} of them, as the data set was made"
    elif run.record.data.unknown:
        found = "none of them is known to have been trained on"
    else:
        found = "none of them was trained on"
    current().note(
        f"the test split of {run.record.dataset.name} changed since {run.name} was made ({counts});"
        f" {found}"
    )
