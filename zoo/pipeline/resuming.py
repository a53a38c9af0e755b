"""`resume`: a run that stopped before its end goes on, to the bit as if it never had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.api import FinetuneConfig, PretrainConfig, SelfTrainConfig, TrainConfig
from zoo.config import make
from zoo.pipeline import assembly
from zoo.pipeline.finetuning import make_finetuning
from zoo.pipeline.lineage import parent_of
from zoo.pipeline.pretraining import make_pretraining
from zoo.pipeline.self_training import make_self_training
from zoo.pipeline.workspace import Workspace
from zoo.runs import Run


def resume(
    run: Run | str | Path, *, lr: float | None = None, workspace: Workspace | None = None
) -> Run:
    """Go on with a run from its newest whole checkpoint, or from its start; return it finished.

    On the same machine, with the same versions, its weights are those of a run that never stopped:
    device and number of threads are the recorded ones. `lr` is another learning rate from here on,
    for a run whose loss was no number. Raises `RunError` where the run is finished, or being made.
    """
    workspace = workspace or Workspace()
    run = workspace.unfinished(run)
    record = run.record
    changed = {**record.training, "device": record.device}
    if lr is not None:
        changed["lr"] = record.training["lr"] = lr
    training = make(TrainConfig, changed, f"run '{run.name}'")
    kinds = ("dataset", "backbone", "objective", "head")
    recorded: dict[str, Any] = {kind: getattr(record, kind) for kind in kinds}
    parts = {
        kind: assembly.recorded(workspace, kind, part) for kind, part in recorded.items() if part
    }
    if record.kind == "pretrain":
        looked = make(PretrainConfig, record.pretrain or {}, f"run '{run.name}'")
        return make_pretraining(workspace, parts, training, looked, resumed=run)
    if record.self_train is not None:
        taught = make(SelfTrainConfig, record.self_train, f"run '{run.name}'")
        teacher = parent_of(run, workspace)
        assert teacher is not None  # a self-training has one
        return make_self_training(workspace, teacher, training, taught, resumed=run)
    return make_finetuning(
        workspace,
        parts,
        training,
        make(FinetuneConfig, record.finetune or {}, f"run '{run.name}'"),
        parent=parent_of(run, workspace),
        input=run.input,
        resumed=run,
    )
