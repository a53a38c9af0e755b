"""What `evaluate` leaves for a report: complete, tied to the weights, never believed unseen."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from zoo import pipeline
from zoo.report import outcomes
from zoo.report.outcomes import MISTAKES, NAME, Outcomes
from zoo.runs import Run, load


def evaluated(trained: Any) -> Run:
    run: Run = trained.finetuned
    pipeline.evaluate(run, workspace=trained.workspace)
    return load(run.folder)


def read(run: Run) -> Outcomes:
    found = outcomes.load(run)
    assert isinstance(found, Outcomes), found
    return found


def test_the_logits_of_the_whole_split_are_kept(trained: Any) -> None:
    from sklearn.datasets import load_digits  # the data set itself, by another way

    run = evaluated(trained)
    found = read(run)
    accuracy = (found.logits.argmax(1) == found.labels).double().mean().item()
    assert accuracy == pytest.approx(run.record.tests[-1]["accuracy"])
    assert len(found.labels) == run.record.tests[-1]["examples"]
    assert found.when == run.record.tests[-1]["when"]
    everything = torch.from_numpy(load_digits().images).mul(255 / 16).round().to(torch.uint8)
    kept = {picture.numpy().tobytes() for picture in found.pictures[:, 0]}
    assert kept <= {picture.numpy().tobytes() for picture in everything}


def test_the_pictures_are_the_surest_mistakes_and_some_that_are_right(trained: Any) -> None:
    found = read(evaluated(trained))
    confidence, predicted = found.logits.double().softmax(1).max(1)
    wrong = sorted(
        (at for at in range(len(predicted)) if predicted[at] != found.labels[at]),
        key=lambda at: -float(confidence[at]),
    )[:MISTAKES]
    shown = found.shown.tolist()
    assert shown[: len(wrong)] == wrong
    rest = shown[len(wrong) :]
    assert rest
    assert all(predicted[at] == found.labels[at] for at in rest)


def test_a_later_evaluation_replaces_it_and_leaves_nothing_else(trained: Any) -> None:
    run = evaluated(trained)
    first = (run.folder / NAME).read_bytes()
    before = {path.name for path in run.folder.iterdir()}
    again = evaluated(trained)
    assert {path.name for path in run.folder.iterdir()} == before
    assert read(again).when == again.record.tests[-1]["when"] > run.record.tests[-1]["when"]
    assert len(first) == (run.folder / NAME).stat().st_size


def test_no_pickle_and_one_key_of_metadata(trained: Any) -> None:
    run = evaluated(trained)
    with safe_open(str(run.folder / NAME), framework="pt") as file:
        assert set(file.metadata()) == {"zoo"}
        about = json.loads(file.metadata()["zoo"])
    assert about["weights_sha256"] == run.record.weights_sha256


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"labels": torch.tensor([0, 1, 99])}, "is damaged"),
        ({"labels": torch.tensor([0, 1])}, "is damaged"),
        ({"labels": torch.tensor([0.0, 1.0, 2.0])}, "is damaged"),
        ({"logits": torch.full((3, 10), float("nan"))}, "is damaged"),
        ({"logits": torch.zeros(3, 9)}, "is damaged"),
        ({"logits": torch.zeros(0, 10), "labels": torch.zeros(0, dtype=torch.int64)}, "is damaged"),
        ({"shown": torch.tensor([3])}, "is damaged"),
        ({"pictures": torch.zeros(1, 1, 9, 8, dtype=torch.uint8)}, "is damaged"),
        ({"more": torch.zeros(1)}, "is damaged"),
        ({"sha": "0" * 64}, "is of other weights"),
        ({"schema": 2}, "is of another version"),
    ],
)
def test_what_is_not_sound_is_not_believed(
    trained: Any, change: dict[str, Any], reason: str | None
) -> None:
    run: Run = trained.finetuned
    tensors = {
        "labels": torch.tensor([0, 1, 2]),
        "logits": torch.zeros(3, 10),
        "shown": torch.tensor([1]),
        "pictures": torch.zeros(1, 1, 8, 8, dtype=torch.uint8),
    }
    sha = change.get("sha", run.record.weights_sha256)
    about = {"schema": change.get("schema", 1), "weights_sha256": sha, "when": ""}
    tensors |= {name: value for name, value in change.items() if name not in ("sha", "schema")}
    save_file(tensors, run.folder / NAME, {"zoo": json.dumps(about)})
    found = outcomes.load(run)
    if reason is None:
        assert isinstance(found, Outcomes)
    else:
        assert isinstance(found, str)
        assert reason in found


@pytest.mark.parametrize("content", [b"", b"nothing", b"\xff" * 64])
def test_a_broken_file_is_told(trained: Any, content: bytes) -> None:
    run: Run = trained.finetuned
    assert "has no" in str(outcomes.load(run))
    (run.folder / NAME).write_bytes(content)
    assert "is damaged" in str(outcomes.load(run))


def test_large_pictures_are_fewer(trained: Any) -> None:
    run: Run = trained.finetuned
    inputs = torch.zeros(40, 3, 1000, 1000, dtype=torch.uint8)
    labels = torch.ones(40, dtype=torch.int64)
    found = outcomes.outcomes_of(run, inputs, labels, torch.eye(10)[torch.zeros(40).long()], "")
    assert found.pictures.numel() <= outcomes.PICTURE_BYTES
    assert len(found.shown) == 1
