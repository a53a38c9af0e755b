"""Runs that were made before: found by a key of everything that decides what a run comes to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from filelock import FileLock, Timeout

from zoo import runs
from zoo.api import Component, FinetuneConfig, ImageInput, SelfTrainConfig, TrainConfig
from zoo.config import to_json
from zoo.errors import RunError
from zoo.pipeline.assembly import choose
from zoo.pipeline.making import versions
from zoo.pipeline.resuming import resume
from zoo.pipeline.sources import sources_of
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.runs import Run
from zoo.training import resolve_device

HARMLESS = ("checkpoint_seconds", "checkpoint_steps", "log")
"""Training options that decide nothing of what a run comes to."""

LOCKS = ".making"
"""Folder in the runs folder: one lock a key, so that two processes never make one run twice."""


class Earlier:
    """The runs of a runs folder that have a key in their record; `reused` counts those taken.

    With `fresh` those that were there before are passed over.
    """

    def __init__(self, workspace: Workspace, *, fresh: bool = False) -> None:
        self.workspace = workspace
        self.reused = 0
        found = runs.every(workspace.runs_root)[0] if fresh else []
        self._passed_over = {run.name for run in found}

    def take_or_make(
        self, key: str, make: Callable[[], Run], fits: Callable[[Run], bool] = lambda run: True
    ) -> Run:
        """Return the finished run of a key; else go on with a stopped one, or make it.

        `fits` says of a run whether it was made of the data as they are; the key does not. A
        process that makes the same run at this moment is waited for.
        """
        folder = self.workspace.runs_root / LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{key[:32]}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            current().note("waiting for another process, which makes this very run")
            lock.acquire()
        try:
            return self._take(key, fits) or make()
        finally:
            lock.release()

    def _take(self, key: str, fits: Callable[[Run], bool]) -> Run | None:
        found = self._find(key, fits)
        if found is None or found.state == "running":
            return None
        try:
            if found.record.status != "finished":
                current().note(f"going on with {found.name}")
                return resume(found, workspace=self.workspace)
            found.load_weights()
        except RunError as error:
            current().note(f"trained anew: {error}")
            return None
        self.reused += 1
        current().note(f"using finished run {found.name}")
        return found

    def _find(self, key: str, fits: Callable[[Run], bool]) -> Run | None:
        """Return the newest finished run of a key, else the newest that was stopped."""
        found: Run | None = None
        for run in runs.every(self.workspace.runs_root)[0]:
            if run.name in self._passed_over or (run.record.recipe or {}).get("key") != key:
                continue
            if not fits(run):
                current().note(
                    f"{run.name} was trained on data that has since changed, so it is not reused"
                )
                continue
            if found is None or run.record.status == "finished":
                found = run
        return found


def key_of(
    workspace: Workspace,
    parts: Mapping[str, Component],
    training: TrainConfig,
    finetune: FinetuneConfig | None = None,
    parent: Run | None = None,
    input: ImageInput | None = None,
    self_train: SelfTrainConfig | None = None,
    teachers: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Digest everything that decides what a run comes to, but for the data set's content.

    `teachers` are the SHA-256 of those that an objective's options name.
    """
    content = {
        **options_of(workspace, parts, training, finetune, teachers),
        "data": str(workspace.data_root.resolve()),
        "input": input.shape if input else None,
        "device": str(resolve_device(training.device)),
        "parent": parent.record.weights_sha256 if parent else None,
        **({"self_train": to_json(self_train)} if self_train else {}),
        "versions": {k: v for k, v in versions().items() if k != "onnx"},
    }
    return digest(content)


def options_of(
    workspace: Workspace,
    parts: Mapping[str, Component],
    training: TrainConfig,
    finetune: FinetuneConfig | None = None,
    teachers: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return what a run is asked to be, wherever it is made.

    That is its components and options, the source of zoo and of each component, and the SHA-256 of
    each teacher.
    """
    chosen = {kind: choose(workspace, kind, part) for kind, part in parts.items()}
    return {
        "parts": {kind: dataclasses.asdict(part.record) for kind, part in chosen.items()},
        "sources": sources_of(chosen),
        "training": {k: v for k, v in to_json(training).items() if k not in HARMLESS},
        "finetune": to_json(finetune) if finetune else None,
        **({"teachers": dict(teachers)} if teachers else {}),
    }


def digest(content: Any) -> str:
    """Return the SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
