"""`compare`: finished runs by method, paired by seed, the test split unread."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo import pipeline, runs
from zoo.api import Component, FinetuneConfig, TrainConfig
from zoo.errors import RunError, UsageError
from zoo.pipeline import Workspace
from zoo.runs import Run

SMALL = Component("mlp", widths=(8,), features=4)
QUICK = TrainConfig(epochs=1, batch_size=500, threads=1)


def trained(
    workspace: Workspace, seed: int, objective: str | None, measured: bool = True, **changed: Any
) -> Run:
    training = dataclasses.replace(QUICK, seed=seed, **changed.pop("training", {}))
    parent = (
        pipeline.pretrain(SMALL, objective=objective, training=training, workspace=workspace)
        if objective
        else None
    )
    run = pipeline.finetune(
        parent,
        backbone=None if parent else SMALL,
        training=training,
        finetune=FinetuneConfig(labels=50, **changed),
        workspace=workspace,
    )
    if measured:
        pipeline.evaluate(run, workspace=workspace)
    return runs.load(run.folder)


def train_all(folder: Path) -> None:
    workspace = Workspace(runs=folder)
    found: dict[Any, Run] = {
        (objective, seed): trained(workspace, seed, objective)
        for objective in (None, "denoise")
        for seed in (0, 1)
    }
    found["frozen"] = trained(workspace, 0, "denoise", freeze=True)
    found["unread"] = trained(workspace, 5, None, measured=False)
    (folder / "names.json").write_text(json.dumps([(k, run.name) for k, run in found.items()]))


@pytest.fixture(scope="module")
def made(made_once: Callable[..., Path]) -> tuple[Workspace, dict[Any, Run]]:
    folder = made_once(train_all)
    names = json.loads((folder / "names.json").read_text())
    found = {k if isinstance(k, str) else tuple(k): runs.load(folder / name) for k, name in names}
    return Workspace(runs=folder), found


def accuracy(run: Run) -> float:
    return float(run.record.tests[0]["accuracy"])


def test_methods_are_paired_by_seed(made: tuple[Workspace, dict[Any, Run]]) -> None:
    workspace, found = made
    named = [found[o, s] for s in (1, 0) for o in ("denoise", None)]
    before = [(run.folder / "run.json").read_bytes() for run in named]
    result = pipeline.compare(named, workspace=workspace)
    scratch, denoise = result.rows  # scratch first, whatever was named first
    assert (scratch.method, denoise.method) == ("scratch", "denoise")
    assert (denoise.against, denoise.labels, denoise.examples) == ("scratch", 50, 50)
    gains = [accuracy(found["denoise", s]) - accuracy(found[None, s]) for s in (0, 1)]
    assert denoise.change is not None
    assert denoise.change.mean == pytest.approx(statistics.fmean(gains))
    assert denoise.change.deviation == pytest.approx(statistics.stdev(gains))
    assert result.readings == [2, 2]
    held = found[None, 0].record.metrics["validation_examples"]
    assert result.held == [held, held]
    assert held > 0
    assert result.differences == {"objective": ["denoise", None]}
    assert not result.notes
    # Nothing was read, and nothing written.
    assert [(run.folder / "run.json").read_bytes() for run in named] == before


def test_settings_of_their_own_make_methods_of_their_own(
    made: tuple[Workspace, dict[Any, Run]],
) -> None:
    workspace, found = made
    named = [found["frozen"], found["denoise", 0], found[None, 0], found[None, 1]]
    result = pipeline.compare(named, workspace=workspace)
    assert [row.method for row in result.rows] == [
        "scratch", "denoise, freeze true", "denoise, freeze false"
    ]  # fmt: skip
    assert result.differences["freeze"] == [True, False]
    assert "denoise and scratch differ in more than pretraining: freeze." in result.notes
    assert any("seeds 1 are not in both" in note for note in result.notes)
    for row in result.rows[1:]:
        assert row.change is not None
        assert (row.change.count, row.change.low) == (1, None)


def test_without_scratch_the_first_named_is_the_base(
    made: tuple[Workspace, dict[Any, Run]],
) -> None:
    workspace, found = made
    result = pipeline.compare([found["frozen"], found["denoise", 0]], workspace=workspace)
    assert [row.against for row in result.rows] == [None, "denoise, freeze true"]


def test_what_was_not_evaluated_is_named_with_the_command(
    made: tuple[Workspace, dict[Any, Run]],
) -> None:
    workspace, found = made
    unread = found["unread"]
    with pytest.raises(RunError, match="1 of the runs were not evaluated") as error:
        pipeline.compare([found[None, 0], unread], workspace=workspace)
    assert str(error.value).endswith(f"Type:\n  zoo evaluate {unread.folder}")
    assert not runs.load(unread.folder).record.tests


def test_what_cannot_be_compared_is_refused(
    made: tuple[Workspace, dict[Any, Run]], tmp_path: Path
) -> None:
    workspace, found = made
    with pytest.raises(UsageError, match="Name two runs or more"):
        pipeline.compare([found[None, 0], found[None, 0].name], workspace=workspace)
    parent = found["denoise", 0].record.parent
    assert parent is not None
    with pytest.raises(RunError, match="is a finished pretraining; needed is a"):
        pipeline.compare([found[None, 0], parent.run], workspace=workspace)
    folder = workspace.runs_root / parent.run
    moved = folder.rename(tmp_path / "moved")
    try:
        with pytest.raises(RunError, match=r"(?s)pretrained with cannot be told.*Leave it out"):
            pipeline.compare([found[None, 0], found["denoise", 0]], workspace=workspace)
    finally:
        moved.rename(folder)
