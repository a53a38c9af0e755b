"""Where a pipeline works: which plugins, which runs folder, which data folder."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from zoo import folders, runs
from zoo.registry import Registry
from zoo.runs import Run

FINISHED_PRETRAINING = "finished pretraining"
FINISHED_FINETUNING = "finished finetuning"
TEACHER = "finished finetuning that was not self-trained yet"
FINISHED = "finished run"
UNFINISHED = "run that stopped before its end"


@dataclasses.dataclass
class Workspace:
    """What is not given is taken from the installed plugins, `ZOO_RUNS` and `ZOO_DATA`.

    `run` is the one that is being made, or was made last.
    """

    plugins: Registry | None = None
    runs: Path | None = None
    data: Path | None = None
    run: Run | None = None

    @functools.cached_property
    def registry(self) -> Registry:
        return self.plugins or Registry.installed()

    @property
    def runs_root(self) -> Path:
        return folders.runs_root(self.runs)

    @property
    def data_root(self) -> Path:
        return folders.data_root(self.data)

    def pretrained(self, run: Run | str | Path) -> Run:
        """Resolve a finished pretraining; raises `RunError`."""
        return self._find(run, "pretrain", FINISHED_PRETRAINING)

    def finetuned(self, run: Run | str | Path) -> Run:
        """Resolve a finished finetuning; raises `RunError`."""
        return self._find(run, "finetune", FINISHED_FINETUNING)

    def teacher(self, run: Run | str | Path) -> Run:
        """Resolve a finished finetuning that was not self-trained yet; raises `RunError`."""
        return self._find(run, "finetune", TEACHER, lambda found: found.record.self_train is None)

    def finished(self, run: Run | str | Path) -> Run:
        """Resolve a finished run of either kind; raises `RunError`."""
        text = str(run.folder) if isinstance(run, Run) else str(run)
        return runs.find(self.runs_root, text, lambda r: r.record.status == "finished", FINISHED)

    def unfinished(self, run: Run | str | Path) -> Run:
        """Resolve a run that is not finished and that no process is making; raises `RunError`."""
        text = str(run.folder) if isinstance(run, Run) else str(run)

        def fits(found: Run) -> bool:
            return found.state not in ("finished", "running")

        return runs.find(self.runs_root, text, fits, UNFINISHED)

    def _find(
        self,
        run: Run | str | Path,
        kind: str,
        wanted: str,
        more: Callable[[Run], bool] = lambda found: True,
    ) -> Run:
        text = str(run.folder) if isinstance(run, Run) else str(run)

        def fits(found: Run) -> bool:
            finished = found.record.kind == kind and found.record.status == "finished"
            return finished and more(found)

        return runs.find(self.runs_root, text, fits, wanted)
