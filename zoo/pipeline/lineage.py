"""Where a run comes from: its parent, and the two records from which both can be made again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import RunError, ZooError
from zoo.pipeline.workspace import Workspace
from zoo.record import Record, from_json
from zoo.runs import Run

KEY = "lineage"
"""Under which a proof carries the records that its file came from."""

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


def lineage(run: Run, workspace: Workspace) -> dict[str, Any]:
    """Write the records of a run and of its pretraining as JSON, without times and places.

    Where the pretraining is gone, or is another now, its record is None.
    """
    try:
        parent = parent_of(run, workspace)
    except ZooError:
        parent = None
    return {"run": _content(run.record), "parent": _content(parent.record) if parent else None}


def from_lineage(content: Any, path: Path) -> tuple[Record, Record | None]:
    """Read the two records back, checked as those of a run folder are; raises `RunError`."""
    if not isinstance(content, Mapping) or not isinstance(content.get("run"), Mapping):
        raise RunError(
            f"'{path}' does not say how its model was trained: an older zoo wrote it, or the"
            " record was taken out. Type: zoo export RUN, or zoo reproduce RUN"
        )
    parent = content.get("parent")
    return _record(content["run"], path), _record(parent, path) if parent is not None else None


def _content(record: Record) -> dict[str, Any]:
    content = dataclasses.asdict(record)
    if content["parent"] is not None:
        content["parent"]["folder"] = ""
    content["tests"] = [test for test in content["tests"] if "accuracy" in test][-1:]
    return {name: value for name, value in content.items() if name not in LEFT_OUT}


def _record(content: Mapping[str, Any], path: Path) -> Record:
    # Any instant will do: what it is compared with are runs, and this is none.
    filled = {"status": "finished", "created": "1970-01-01T00:00:00+00:00", "process": {}}
    return from_json(path, {**content, **filled})
