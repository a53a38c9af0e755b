"""Where a run comes from: its ancestors, and the records from which all can be made again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import RunError, ZooError
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.record import Record, from_json
from zoo.runs import Run

KEY = "lineage"
"""Under which a proof carries the records that its file came from."""

CHANGED = "The record of run '{}' was changed since run '{}' started from it."
CIRCLE = "Its lineage is a circle: run '{}' came of itself."
LEFT_OUT = ("status", "created", "process", "recipe", "error")
"""What a record has of its run alone; times and places are nobody's affair in a published file."""


def parent_of(run: Run, workspace: Workspace) -> Run | None:
    """Find the run that a finetuning started from; raises `RunError` where it changed."""
    recorded = run.record.parent
    if recorded is None:
        return None
    places = [run.folder.parent / recorded.run, Path(recorded.folder or recorded.run)]
    found = [place for place in places if place.is_dir()]
    find = workspace.pretrained if run.record.self_train is None else workspace.teacher
    parent = find(found[0] if found else recorded.run)
    if parent.record.weights_sha256 != recorded.weights_sha256:
        raise RunError(
            f"Run '{run.name}' started from '{parent.name}', whose weights are others now."
        )
    return parent


def ancestors_of(run: Run, workspace: Workspace) -> Iterator[Run]:
    """Yield the runs that a run came of, the nearest first.

    Raises `RunError` where one changed, and where a run came of itself.
    """
    met = {run.folder.resolve()}
    parent = parent_of(run, workspace)
    while parent is not None:
        if parent.folder.resolve() in met:
            raise RunError(CIRCLE.format(parent.name))
        met.add(parent.folder.resolve())
        yield parent
        parent = parent_of(parent, workspace)


def lineage(run: Run, workspace: Workspace) -> dict[str, Any]:
    """Write the records of a run and of its ancestors as JSON, without times and places.

    `parents` has the nearest first, and ends where one is gone, or is another now; then `unknown`
    says why, which is noted as well.
    """
    parents: list[dict[str, Any]] = []
    found: dict[str, Any] = {"run": _content(run.record), "parents": parents}
    try:
        child = run
        for parent in ancestors_of(run, workspace):
            if child.record.parent and not child.record.parent.is_of(parent.record):
                raise RunError(CHANGED.format(parent.name, child.name))
            child = parent
            check_seed(parent.record)
            parent.load_weights()  # or raises, where they are not those of its record
            parents.append(_content(parent.record))
    except ZooError as error:
        last = parents[-1]["run"] if parents else run.name
        found["unknown"] = f"what run '{last}' came of could not be checked"  # no place is named
        current().note(f"{found['unknown']}, and is left out of its proof: {error}")
    return found


def check_seed(record: Record) -> None:
    """Raise `RunError` where the two seeds that a record states are not the same."""
    if record.seed != record.training.get("seed"):
        raise RunError(
            f"The record of run '{record.run}' was altered: its seed is {record.seed}, and"
            f" {record.training.get('seed')} among its training options."
        )


def from_lineage(content: Any, path: Path) -> tuple[Record, list[Record]]:
    """Read the records back, checked as those of a run folder are; raises `RunError`."""
    if not isinstance(content, Mapping) or not isinstance(content.get("run"), Mapping):
        raise RunError(
            f"'{path}' does not say how its model was trained: an older zoo wrote it, or the"
            " record was taken out. Type: zoo export RUN, or zoo reproduce RUN"
        )
    parents = content.get("parents", [])
    if not isinstance(parents, list) or not all(isinstance(each, Mapping) for each in parents):
        raise RunError(f"'{path}' is corrupt: its '{KEY}' has the wrong form.")
    return _record(content["run"], path), [_record(each, path) for each in parents]


def _content(record: Record) -> dict[str, Any]:
    parent = record.parent and dataclasses.replace(record.parent, folder="")
    content = dataclasses.asdict(dataclasses.replace(record, parent=parent))
    content["tests"] = [test for test in content["tests"] if "accuracy" in test][-1:]
    return {name: value for name, value in content.items() if name not in LEFT_OUT}


def _record(content: Mapping[str, Any], path: Path) -> Record:
    # Any instant will do: what it is compared with are runs, and this is none.
    filled = {"status": "finished", "created": "1970-01-01T00:00:00+00:00", "process": {}}
    return from_json(path, {**content, **filled})
