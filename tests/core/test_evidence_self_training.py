"""Self-trained classifiers in a bench, a comparison and a reproduction: their whole lineage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo import pipeline, runs
from zoo.api import Component
from zoo.errors import BadOption, RunError, UnknownName
from zoo.pipeline import Workspace
from zoo.pipeline.bench.table import Bench

pytestmark = pytest.mark.usefixtures("graphs_kept")

SUFFIX = " + self-training"


def of_a_folder(folder: Path) -> tuple[Bench, Workspace]:
    """Train, or read what was trained."""
    workspace = Workspace(runs=folder)
    return run(workspace), workspace


@pytest.fixture(scope="module")
def bench(made_once: Callable[..., Path]) -> tuple[Bench, Workspace]:
    return of_a_folder(made_once(of_a_folder))


def run(workspace: Workspace, **changes: Any) -> Bench:
    settings: dict[str, Any] = {
        "objectives": ["denoise"],
        "labels": (20, None),
        "seeds": (0, 1),
        "pretrain": {"epochs": 1},
        "finetune": {"epochs": 3, "batch_size": 10},
        "scratch": {"lr": 0.002},
        "self_train": {"epochs": 1, "shift": 1, "confidence": 0.6},
        **changes,
    }
    backbone = Component("mlp", widths=(16,), features=8)
    return pipeline.bench_labels("digits", backbone, workspace=workspace, **settings)


def test_each_method_has_a_self_trained_row_where_labels_are_few(
    bench: tuple[Bench, Workspace],
) -> None:
    found, workspace = bench
    rows = [(row.labels, row.method, row.against) for row in found.rows]
    assert rows == [
        (20, "scratch", None),
        (20, "denoise", "scratch"),
        (20, "scratch" + SUFFIX, None),
        (20, "denoise" + SUFFIX, "scratch" + SUFFIX),
        (None, "scratch", None),
        (None, "denoise", "scratch"),
    ]
    assert len(found.cells) == found.wanted == 12
    by_name = {(c["method"], c["labels"], c["seed"]): c for c in found.cells}
    for (method, labels, seed), cell in by_name.items():
        if not method.endswith(SUFFIX):
            continue
        record = runs.load(workspace.runs_root / cell["runs"]["finetuning"]).record
        teacher = by_name[method.removesuffix(SUFFIX), labels, seed]
        assert record.parent is not None
        assert record.parent.run == teacher["runs"]["finetuning"]
        assert cell["examples"] == 20
        assert record.training["lr"] == 0.001  # --scratch is finetuning's
        assert cell["seconds"]["finetuning"] > teacher["seconds"]["finetuning"]
        assert cell["test_readings"] == 1


def test_typed_again_nothing_is_trained_and_another_option_is_another_cell(
    bench: tuple[Bench, Workspace],
) -> None:
    found, workspace = bench
    before = {path.name for path in workspace.runs_root.iterdir()}
    assert run(workspace, output=found.folder).cells == found.cells
    assert {path.name for path in workspace.runs_root.iterdir()} == before
    other = run(workspace, output=found.folder, self_train={"epochs": 1, "confidence": 0.7})
    keys = [{c["key"] for c in each.cells if SUFFIX in c["method"]} for each in (found, other)]
    assert keys[0].isdisjoint(keys[1])
    plain = [{c["key"] for c in each.cells if SUFFIX not in c["method"]} for each in (found, other)]
    assert plain[0] == plain[1]


def test_options_of_self_training_are_checked(workspace: Workspace) -> None:
    with pytest.raises(UnknownName, match="self-train: unknown option 'confidance'"):
        run(workspace, self_train={"confidance": 0.5})
    with pytest.raises(BadOption, match="self-train: validation is not yours to set here"):
        run(workspace, self_train={"validation": 0.1})
    assert not workspace.runs_root.exists()


def test_compare_tells_self_training_from_what_it_began_with(
    bench: tuple[Bench, Workspace],
) -> None:
    found, workspace = bench
    names = [c["runs"]["finetuning"] for c in found.cells if c["labels"] == 20]
    comparison = pipeline.compare(names, workspace=workspace)
    methods = {row.method for row in comparison.rows}
    assert {m.removesuffix(SUFFIX) for m in methods} == {"scratch", "denoise"}
    assert len(methods) == 4
    assert all(row.accuracy.count == 2 for row in comparison.rows)


def test_a_self_trained_run_is_reproduced_from_its_pretraining_on(
    bench: tuple[Bench, Workspace], tmp_path: Path
) -> None:
    found, workspace = bench
    cell = next(c for c in found.cells if c["method"] == "denoise" + SUFFIX)
    result = pipeline.reproduce(cell["runs"]["finetuning"], keep=tmp_path, workspace=workspace)
    assert result.verdict == "to the bit"
    assert len(result.reruns) == 3

    exported = pipeline.export(cell["runs"]["finetuning"], workspace=workspace)
    assert pipeline.reproduce(exported.model, workspace=workspace).verdict == "to the bit"

    # What the teacher was trained with is part of what is stated.
    folder = workspace.runs_root / cell["runs"]["finetuning"]
    record = runs.load(folder).record
    assert record.parent is not None
    teacher = workspace.runs_root / record.parent.run / "run.json"
    whole = teacher.read_text()
    altered = json.loads(whole)
    altered["finetune"]["label_smoothing"] = 0.1
    teacher.write_text(json.dumps(altered))
    again = pipeline.reproduce(folder, workspace=workspace)
    assert not again.passed
    assert next(d.name for d in again.differences) == "finetuning: weights_sha256"
    assert len(again.reruns) == 2  # the self-training is not begun on another teacher
    altered["weights_sha256"] = "0" * 64
    teacher.write_text(json.dumps(altered))
    with pytest.raises(RunError, match="whose weights are others now"):
        pipeline.reproduce(folder, workspace=workspace)
    teacher.write_text(whole)
