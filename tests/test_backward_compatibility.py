"""What 0.1.0 made, read, gone on with and proved by the zoo of today."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zoo import pipeline, runs
from zoo.pipeline import Workspace
from zoo.pipeline.making import versions
from zoo.runs import Run

MADE = Path(__file__).parent / "fixtures" / "0.1.0"
STAGES = ("pretraining", "finetuning", "self-training")
FINISHED = dict(zip(STAGES, ("68db", "bddc", "0557"), strict=True))
STOPPED = dict(zip(STAGES, ("c7f2", "b403", "19a4"), strict=True))
EPOCHS = dict(zip(STAGES, ((3, 6), (15, 30), (1, 3)), strict=True))
"""Of each stage, after how many epochs it was stopped, and how many there are to be."""


MISSING = {"pretraining": (), "finetuning": (), "self-training": ("proof",)}


@pytest.fixture
def made(tmp_path: Path) -> Workspace:
    """A copy of the runs of 0.1.0, as a user finds them after an update."""
    shutil.copytree(MADE / "runs", tmp_path / "runs")
    return Workspace(runs=tmp_path / "runs", data=tmp_path / "data")


def named(workspace: Workspace, ending: str) -> Run:
    [folder] = workspace.runs_root.glob(f"*-{ending}")
    return runs.load(folder)


def test_the_fixtures_are_small_and_tell_of_no_machine() -> None:
    files = [path for path in MADE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    for path in files:
        content = path.read_bytes()
        assert not [place for place in (b"/home/", b"/root/", b"/tmp/") if place in content], path
    for path in MADE.glob("runs/*/run.json"):
        assert json.loads(path.read_bytes())["process"]["host"] == "example"


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_classifier_is_evaluated_to_the_accuracy_it_had(made: Workspace, stage: str) -> None:
    run = named(made, FINISHED[stage])
    before = run.record.evaluations[0]["accuracy"]
    found = pipeline.evaluate(run, workspace=made)
    assert found.accuracy == pytest.approx(before, abs=1.5 / 360)  # one tie at the most
    assert found.test_readings == len(runs.load(run.folder).record.tests)


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_is_reported(made: Workspace, stage: str) -> None:
    made_now = pipeline.report(named(made, FINISHED[stage]), workspace=made)
    page = made_now.report.read_text(encoding="utf-8")
    assert "denoise" in page  # the lineage leads back to the pretraining
    assert not [part for part in made_now.missing if not part.startswith(MISSING[stage])]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stopped_run_is_resumed_and_ends_as_one_that_was_not_stopped(
    made: Workspace, stage: str
) -> None:
    stopped, twin = named(made, STOPPED[stage]), named(made, FINISHED[stage])
    after, epochs = EPOCHS[stage]
    lines = stopped.metrics()
    assert len(lines) == after
    done = pipeline.resume(stopped, workspace=made)
    assert done.record.status == "finished"
    assert done.metrics()[:after] == lines
    assert len(done.metrics()) == epochs
    assert not done.checkpoint.exists()
    found, wanted = done.load_weights(), twin.load_weights()
    assert found.keys() == wanted.keys()
    same = versions()["torch"] == twin.record.versions["torch"]
    for name, tensor in found.items():
        # Other kernels round otherwise, and training makes more of it.
        torch.testing.assert_close(
            tensor, wanted[name], rtol=0, atol=1e-4 if same else 0.05, msg=name
        )


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_a_file_is_intact_and_only_its_making_cannot_be_repeated(
    made: Workspace, name: str
) -> None:
    run = named(made, FINISHED["finetuning"])
    proof = pipeline.validate(run.folder / name, workspace=made, runtimes=())
    assert [row.name for row in proof.skipped] == ["exported again"]
    assert "made by plugzoo 0.1.0" in proof.skipped[0].figure
    assert proof.verdict == "intact"
    assert not proof.failures


def test_a_bundle_is_verified_and_tests_itself(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(MADE / "bundle", folder)
    assert not pipeline.bundle_verify(folder).faults
    found = subprocess.run(
        [sys.executable, folder / "run.py", "selftest"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout
    assert found.stdout.splitlines()[-1] == "selftest: yes"
