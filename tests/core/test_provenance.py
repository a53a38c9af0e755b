"""Which run a file is held against, and that it is said where it was read."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo import pipeline, runs
from zoo.errors import RunError
from zoo.export.modelfile import open_model
from zoo.pipeline import Workspace
from zoo.pipeline.provenance import places, provenance
from zoo.pipeline.timed_sides import Origin
from zoo.runs import Run

pytestmark = pytest.mark.usefixtures("graphs_kept")

ONE = "one run of that name"


@pytest.fixture
def received(trained: Any, tmp_path: Path) -> Path:
    """A copy of the run's folder, file and proof included, as somebody would send it."""
    return Path(shutil.copytree(trained.finetuned.folder, tmp_path / "received"))


@pytest.fixture
def strangers(received: Path) -> Path:
    """The same with other weights under the same name: two classes are swapped in all of it."""
    run = runs.load(received)
    tensors = run.load_weights()
    for name, tensor in tensors.items():
        if tensor.shape[:1] == (10,):
            tensors[name] = tensor[[0, 7, 2, 3, 4, 5, 6, 1, 8, 9]]
    run.save_weights(tensors)
    run.record.tests = []
    run.save()
    pipeline.export(run, workspace=Workspace(runs=received / "none"))
    return received


def test_a_strangers_run_beside_the_file_does_not_pass_for_ones_own(
    trained: Any, strangers: Path
) -> None:
    model = strangers / "model.onnx"
    proof = pipeline.validate(model, workspace=trained.workspace)
    assert proof.verdict == "failed"
    found = {row.name: row for row in proof.failures}
    assert f"'{trained.finetuned.folder}' and '{strangers}' differ: weights" in found[ONE].figure
    assert "weights are the run's" in found
    assert proof.read_from["run"] == str(trained.finetuned.folder)
    # Where there is no run of that name, what came with the file is all there is, and it is said.
    proof = pipeline.validate(model, workspace=Workspace(runs=strangers / "none"))
    assert proof.verdict == "proved"
    assert proof.read_from == {"run": str(strangers), "golden": str(strangers / "proof.json")}
    # A run that is named is taken at its word.
    proof = pipeline.validate(model, run=strangers, workspace=trained.workspace)
    assert proof.verdict == "proved"
    assert proof.read_from["run"] == str(strangers)


def test_a_run_whose_record_was_rewritten_beside_the_file(trained: Any, received: Path) -> None:
    run = runs.load(received)
    run.record.seed += 1
    run.save()
    proof = pipeline.validate(received / "model.onnx", workspace=trained.workspace)
    assert [row.name for row in proof.failures] == [ONE]
    assert proof.failures[0].figure.endswith("differ: seed")


def test_a_copy_of_ones_own_run_agrees(trained: Any, received: Path) -> None:
    proof = pipeline.validate(received / "model.onnx", workspace=trained.workspace)
    assert proof.verdict == "proved"
    assert [row.status for row in proof.rows if row.name == ONE] == ["passed"]
    # Of what both have, one's own is read.
    folder = trained.finetuned.folder
    assert proof.read_from == {"run": str(folder), "golden": str(folder / "proof.json")}


def test_the_verb_says_what_it_read_where(trained: Any, cli: Callable[..., Any]) -> None:
    folder = trained.finetuned.folder
    said = cli("validate", trained.model, "--runs", trained.runs)
    assert said.exit_code == 0
    assert ONE not in said.stdout
    assert said.stdout.splitlines()[-3:] == [
        f"Run read from '{folder}'",
        f"Golden vectors read from '{folder / 'proof.json'}'",
        f"{trained.model}  proved",
    ]
    said = cli("validate", trained.model, "--runs", trained.runs, "--json")
    assert json.loads(said.stdout)["read_from"]["run"] == str(folder)


def test_a_proof_that_goes_with_a_file_names_no_place(trained: Any) -> None:
    proof = trained.model.with_name("proof.json").read_text()
    assert "read_from" not in json.loads(proof)
    assert str(trained.runs) not in proof


def test_a_runs_name_leads_nowhere_else(trained: Any, tmp_path: Path) -> None:
    card = open_model(trained.model).card
    moved = tmp_path / "moved.onnx"
    (tmp_path / "run.json").write_text("{}")
    own = trained.workspace.runs_root / card.run
    assert places(moved, card, trained.workspace) == [own, tmp_path]
    assert places(own / "model.onnx", card, trained.workspace) == [own]
    for name in ("..", ".", "", "../received", "a" * 300, "a\0b"):
        odd = dataclasses.replace(card, run=name)
        assert places(moved, odd, trained.workspace) == [tmp_path]


@pytest.mark.parametrize("gone", [True, False])
def test_a_strangers_run_does_not_take_the_place_of_ones_own_that_cannot_be_read(
    trained: Any, strangers: Path, gone: bool
) -> None:
    record = trained.finetuned.folder / "run.json"
    record.unlink()
    if not gone:
        os.mkfifo(record)
    with pytest.raises(RunError, match=re.escape(str(trained.finetuned.folder))):
        pipeline.validate(strangers / "model.onnx", workspace=trained.workspace)


def test_a_record_beside_the_file_that_cannot_be_read(trained: Any, received: Path) -> None:
    (received / "run.json").write_text("{")
    model, card = received / "model.onnx", open_model(trained.model).card
    found = provenance(model, card, trained.workspace)
    assert isinstance(found.run, Run)
    assert (found.folder, found.beside) == (trained.finetuned.folder, None)
    with pytest.raises(RunError, match="is corrupt"):
        provenance(model, card, Workspace(runs=received / "none"))


def test_benchmark_times_ones_own_run(trained: Any, received: Path) -> None:
    card = open_model(trained.model).card
    found = Origin(None, trained.workspace).of(received / "model.onnx", card)
    assert found.folder == trained.finetuned.folder
