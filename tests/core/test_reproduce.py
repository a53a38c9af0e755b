"""`reproduce`: passes on what is as recorded, fails on whatever was altered."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo import pipeline, runs
from zoo.api import Component, FinetuneConfig, TrainConfig
from zoo.errors import BadOption, DataError, RunError, Unfit, UnknownName, UsageError, ZooError
from zoo.evidence.spread import wilson
from zoo.pipeline import Workspace
from zoo.runs import Run

pytestmark = pytest.mark.usefixtures("graphs_kept")

SMALL = Component("mlp", widths=(8,), features=4)
Alter = Callable[[dict[str, Any]], None]


def train(folder: Path) -> None:
    workspace = Workspace(runs=folder)
    training = TrainConfig(epochs=1, batch_size=200, lr=0.01, threads=1)
    parent = pipeline.pretrain(SMALL, objective="denoise", training=training, workspace=workspace)
    run = pipeline.finetune(
        parent, training=training, finetune=FinetuneConfig(labels=300), workspace=workspace
    )
    pipeline.export(run, workspace=workspace)
    pipeline.evaluate(run, workspace=workspace)


@pytest.fixture(scope="module")
def once(made_once: Callable[..., Path]) -> tuple[Path, str, str]:
    """A runs folder with a pretraining, and a finetuning of it that was exported and evaluated."""
    folder = made_once(train)
    parent, run = (found.name for found in runs.every(folder)[0])
    return folder, parent, run


@pytest.fixture
def copied(once: tuple[Path, str, str], tmp_path: Path) -> tuple[Workspace, Path, Path]:
    """Copies of the two runs, which a test may alter: workspace, pretraining, finetuning."""
    folder, parent, run = once
    shutil.copytree(folder, tmp_path / "runs")
    runs_folder = tmp_path / "runs"
    return Workspace(runs=runs_folder), runs_folder / parent, runs_folder / run


def alter(folder: Path, change: Alter) -> None:
    path = folder / "run.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_an_evaluation_states_its_interval(copied: tuple[Workspace, Path, Path]) -> None:
    _, _, run = copied
    reading = runs.load(run).record.tests[-1]
    correct = round(reading["accuracy"] * reading["examples"])
    assert reading["interval"] == list(wilson(correct, 360))
    assert reading["device"] == "cpu"
    assert runs.load(run).record.processor


def test_a_finished_run_is_reproduced_to_the_bit(
    copied: tuple[Workspace, Path, Path], tmp_path: Path
) -> None:
    workspace, parent, run = copied
    before = {path: path.read_bytes() for path in (*parent.rglob("*"), *run.rglob("*"))
              if path.is_file()}  # fmt: skip
    tests = runs.load(run).record.tests
    result = pipeline.reproduce(run, keep=tmp_path / "kept", workspace=workspace)
    assert result.passed
    assert result.verdict == "to the bit"
    assert (result.differences, result.elsewhere) == ([], [])
    assert result.rerun_accuracy == result.accuracy == tests[-1]["accuracy"]
    # The runs are as they were, but that another reading of the test split is counted.
    changed = [path.name for path, data in before.items() if path.read_bytes() != data]
    assert changed == ["run.json"]
    record = runs.load(run).record
    assert record.tests[:-1] == tests
    own = {k: record.tests[-1][k] for k in ("by", "rerun", "rerun_accuracy")}
    assert own == {"by": "reproduce", "rerun": result.reruns[1], "rerun_accuracy": result.accuracy}
    reruns = [runs.load(tmp_path / "kept" / name).record for name in result.reruns]
    assert [record.kind for record in reruns] == ["pretrain", "finetune"]
    assert [reading["by"] for reading in reruns[1].tests] == ["evaluate"]
    # The rerun is a run like any other: it can be reproduced in turn.
    again = pipeline.reproduce(
        tmp_path / "kept" / result.reruns[1], workspace=Workspace(runs=tmp_path / "kept")
    )
    assert again.verdict == "to the bit"
    assert len(list((tmp_path / "kept").glob("*/run.json"))) == 2  # that one was made elsewhere


def test_a_pretraining_is_reproduced_by_its_weights(copied: tuple[Workspace, Path, Path]) -> None:
    workspace, parent, _ = copied
    result = pipeline.reproduce(parent, workspace=workspace)
    assert result.verdict == "to the bit"
    assert (result.accuracy, result.interval, result.rerun_accuracy) == (None, None, None)


def test_on_another_machine_the_interval_decides(copied: tuple[Workspace, Path, Path]) -> None:
    """As if another processor had come to other bits: a seed stands for that here."""
    workspace, parent, run = copied

    def elsewhere(content: dict[str, Any]) -> None:
        content["processor"] = "an abacus"
        content["seed"] = content["training"]["seed"] = 3

    alter(run, elsewhere)
    result = pipeline.reproduce(run, workspace=workspace)
    assert [d.name for d in result.elsewhere] == ["processor"]
    assert "weights_sha256" in [d.name for d in result.differences]
    assert result.interval is not None
    assert result.rerun_accuracy is not None
    inside = result.interval[0] <= result.rerun_accuracy <= result.interval[1]
    assert result.verdict == ("within the interval" if inside else "outside")
    assert result.passed == inside

    def far(content: dict[str, Any]) -> None:
        for reading in content["tests"]:
            reading["accuracy"], reading["interval"] = 1.0, list(wilson(360, 360))

    alter(run, far)
    result = pipeline.reproduce(run, workspace=workspace)
    assert (result.verdict, result.passed) == ("outside", False)
    alter(parent, elsewhere)
    untold = pipeline.reproduce(parent, workspace=workspace)
    assert (untold.verdict, untold.passed) == ("untold", False)


def seed(content: dict[str, Any]) -> None:
    content["seed"] = content["training"]["seed"] = 1


def accuracy(content: dict[str, Any]) -> None:
    """One example more is right: the interval still contains what the rerun comes to."""
    for reading in content["tests"]:
        correct = round(reading["accuracy"] * 360) + 1
        reading["accuracy"], reading["interval"] = correct / 360, list(wilson(correct, 360))


def option(content: dict[str, Any]) -> None:
    content["training"]["lr"] *= 1.001


def labels(content: dict[str, Any]) -> None:
    content["finetune"]["labels"] = 310


def component(content: dict[str, Any]) -> None:
    content["objective"]["options"]["noise"] = 0.31


ALTERED: list[tuple[int, Alter, set[str]]] = [
    (2, accuracy, {"accuracy"}),
    (2, seed, {"weights_sha256"}),
    (2, option, {"weights_sha256"}),
    (2, labels, {"weights_sha256", "train_examples"}),
    (1, seed, {"pretraining: weights_sha256"}),
    (1, option, {"pretraining: weights_sha256"}),
    (1, component, {"pretraining: weights_sha256"}),
]


@pytest.mark.parametrize(("which", "change", "named"), ALTERED)
def test_an_altered_record_is_not_reproduced(
    which: int, change: Alter, named: set[str], copied: tuple[Workspace, Path, Path]
) -> None:
    workspace, *folders = copied
    alter(folders[which - 1], change)
    result = pipeline.reproduce(folders[1], workspace=workspace)
    assert (result.verdict, result.passed) == ("altered", False)
    assert named <= {each.name for each in result.differences}
    assert not result.elsewhere
    if which == 1:  # it failed before the finetuning: nothing more is trained or read
        assert result.rerun_accuracy is None
        assert runs.load(folders[1]).record.tests[-1]["by"] != "reproduce"


def digest(content: dict[str, Any]) -> None:
    content["weights_sha256"] = "0" * 64


def lone_seed(content: dict[str, Any]) -> None:
    content["seed"] = 1


def lone_accuracy(content: dict[str, Any]) -> None:
    content["tests"][-1]["accuracy"] = 0.999


def odd_interval(content: dict[str, Any]) -> None:
    content["tests"][-1]["interval"] = [0.5]


def first_accuracy(content: dict[str, Any]) -> None:
    """The first of two readings, with all that follows from it."""
    better = copy.deepcopy(content["tests"][-1])
    right = round(better["accuracy"] * better["examples"]) + 20
    interval = list(wilson(right, better["examples"]))
    better |= {"accuracy": right / better["examples"], "interval": interval}
    content["tests"].insert(0, better)


def no_parent(content: dict[str, Any]) -> None:
    content["parent"]["weights_sha256"] = "0" * 64


def unread(content: dict[str, Any]) -> None:
    content["tests"] = []


def older(content: dict[str, Any]) -> None:
    content["head"]["version"] = "0.0.9"


def stranger(content: dict[str, Any]) -> None:
    content["head"]["name"] = "mine"


def classes(content: dict[str, Any]) -> None:
    content["classes"][0] = "nought"


def several(content: dict[str, Any]) -> None:
    content["training"]["devices"] = 2


REFUSED: list[tuple[Alter, type[ZooError], str]] = [
    (digest, RunError, "is corrupt: its SHA-256 is not the one that run.json records"),
    (lone_seed, RunError, "was altered: its seed is 1, and 0 among its training options"),
    (lone_accuracy, RunError, "was altered: no 360 examples give accuracy 0.999"),
    (odd_interval, RunError, "was altered: no 360 examples give accuracy"),
    (first_accuracy, RunError, r"was altered: its readings .* state \d+ and \d+ right examples"),
    (no_parent, RunError, "whose weights are others now"),
    (unread, RunError, "states no accuracy. Type: zoo evaluate"),
    (older, Unfit, r"'linear' of plugzoo:heads 0.0.9; installed .*Type: pip .*==0.0.9"),
    (stranger, UnknownName, "(?s)Unknown head 'mine'.*The run used head 'mine' of plugin"),
    (classes, DataError, r"(?s)is no longer the one that .* was trained on: class 'nought' is gone"
     r".* train anew:\n  zoo pretrain .*\n  zoo finetune latest .*"),
    (several, BadOption, "was trained by 2 processes; reproduce trains in one"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED)
def test_what_cannot_be_made_again_is_told_before_training(
    change: Alter,
    kind: type[ZooError],
    message: str,
    copied: tuple[Workspace, Path, Path],
    tmp_path: Path,
) -> None:
    workspace, _, run = copied
    alter(run, change)
    with pytest.raises(kind, match=message):
        pipeline.reproduce(run, keep=tmp_path / "kept", workspace=workspace)
    assert not (tmp_path / "kept").exists()


def test_a_source_that_was_edited_is_no_alteration(copied: tuple[Workspace, Path, Path]) -> None:
    """A plugin that is being written changes without changing its version."""
    workspace, _, folder = copied

    def edited(content: dict[str, Any]) -> None:
        assert set(content["sources"]) == {"zoo", "dataset", "backbone", "head"}
        content["sources"]["backbone"] = "0" * 64
        content["metrics"]["train"]["total"] += 0.001

    alter(folder, edited)
    result = pipeline.reproduce(folder, workspace=workspace)
    assert [d.name for d in result.elsewhere] == ["source of backbone"]
    assert result.verdict == "within the interval"


def test_a_run_whose_weights_were_exchanged_with_their_digest_fails(
    copied: tuple[Workspace, Path, Path],
) -> None:
    workspace, _, folder = copied
    run = runs.load(folder)
    run.save_weights({name: tensor + 1e-6 for name, tensor in run.load_weights().items()})
    run.save()
    result = pipeline.reproduce(folder, workspace=workspace)
    assert result.verdict == "altered"
    assert [d.name for d in result.differences] == ["weights_sha256"]


def test_a_missing_data_set_is_told_before_training(tmp_path: Path) -> None:
    """A folder of pictures that was moved away."""
    from PIL import Image

    for split in ("train", "test"):
        for number in range(12):
            folder = tmp_path / "pictures" / split / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), number * 20 + len(split)).save(folder / f"{number}.png")
    workspace = Workspace(runs=tmp_path / "runs", data=tmp_path / "data")
    data = Component("folder", path=str(tmp_path / "pictures"), size=8)
    training = TrainConfig(epochs=1, validation=0)
    run = pipeline.finetune(backbone=SMALL, dataset=data, training=training, workspace=workspace)
    pipeline.evaluate(run, workspace=workspace)
    assert pipeline.reproduce(run, workspace=workspace).verdict == "to the bit"
    (tmp_path / "pictures").rename(tmp_path / "moved")
    with pytest.raises(ZooError, match="pictures"):
        pipeline.reproduce(run, workspace=workspace)


# --- a published model is a card -------------------------------------------------------------


def test_an_exported_file_and_a_bundle_are_cards(
    copied: tuple[Workspace, Path, Path], tmp_path: Path
) -> None:
    workspace, _, run = copied
    pipeline.bundle(run, tmp_path / "bundle", web=False, workspace=workspace)
    shutil.rmtree(workspace.runs_root)  # all that is needed stands in the bundle
    for card in ("bundle", "bundle/model.onnx"):
        result = pipeline.reproduce(tmp_path / card, workspace=workspace)
        assert result.verdict == "to the bit"
        assert result.run == run.name
    assert not workspace.runs_root.exists()
    proof = (tmp_path / "bundle" / "proof.json").read_text()
    assert str(tmp_path) not in proof
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert "zoo reproduce ." in text


def test_an_altered_card_is_refused_or_fails(
    copied: tuple[Workspace, Path, Path], tmp_path: Path
) -> None:
    workspace, _, run = copied
    model = Path(shutil.copy(run / "model.onnx", tmp_path / "model.onnx"))
    with pytest.raises(RunError, match=r"proof.json' is missing.*Type: zoo export RUN"):
        pipeline.reproduce(model, workspace=workspace)
    proof = tmp_path / "proof.json"
    content = json.loads((run / "proof.json").read_text())

    def write(change: Alter, parent: bool = False) -> None:
        changed = json.loads(json.dumps(content))
        change(changed["lineage"]["parents"][0] if parent else changed["lineage"]["run"])
        proof.write_text(json.dumps(changed))

    write(option)
    assert pipeline.reproduce(model, workspace=workspace).verdict == "altered"
    write(digest)
    with pytest.raises(RunError, match="was made from other weights than"):
        pipeline.reproduce(model, workspace=workspace)
    write(accuracy)
    with pytest.raises(RunError, match=r"states accuracy .*, and 'proof\.json' "):
        pipeline.reproduce(model, workspace=workspace)
    write(digest, parent=True)
    with pytest.raises(RunError, match="started from other weights than those of"):
        pipeline.reproduce(model, workspace=workspace)
    write(lambda record: record.pop("training"))
    with pytest.raises(RunError, match="is corrupt"):
        pipeline.reproduce(model, workspace=workspace)
    proof.write_text(json.dumps({**content, "lineage": {**content["lineage"], "parents": []}}))
    with pytest.raises(RunError, match="whose record is gone"):
        pipeline.reproduce(model, workspace=workspace)
    del content["lineage"]
    proof.write_text(json.dumps(content))
    with pytest.raises(RunError, match="does not say how its model was trained"):
        pipeline.reproduce(model, workspace=workspace)
    proof.write_text("{")
    with pytest.raises(RunError, match="is corrupt"):
        pipeline.reproduce(model, workspace=workspace)


def test_where_reruns_cannot_be_kept(copied: tuple[Workspace, Path, Path], tmp_path: Path) -> None:
    workspace, _, run = copied
    with pytest.raises(UsageError, match="is the run itself; name another folder"):
        pipeline.reproduce(run, keep=run, workspace=workspace)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file; name a folder with --keep"):
        pipeline.reproduce(run, keep=tmp_path / "file", workspace=workspace)


def test_a_run_that_is_not_finished_is_refused(copied: tuple[Workspace, Path, Path]) -> None:
    workspace, _, folder = copied
    alter(folder, lambda content: content.update(status="interrupted"))
    with pytest.raises(RunError, match="is a interrupted finetuning; needed is a finished run"):
        pipeline.reproduce(folder, workspace=workspace)


def test_runs_without_a_recorded_processor_are_held_to_their_interval(
    copied: tuple[Workspace, Path, Path],
) -> None:
    """Records written before processors were."""
    workspace, _, folder = copied

    def old(content: dict[str, Any]) -> None:
        del content["processor"]
        option(content)
        for reading in content["tests"]:
            reading.pop("interval", None)

    alter(folder, old)
    result = pipeline.reproduce(Run(folder, runs.load(folder).record), workspace=workspace)
    assert [(d.name, d.recorded) for d in result.elsewhere] == [("processor", "not recorded")]
    assert result.verdict == "within the interval"


def test_a_distilled_run_finds_its_teacher_again(tmp_path: Path) -> None:
    from zoo.api import Component, TrainConfig

    workspace = Workspace(runs=tmp_path / "runs")
    short, small = TrainConfig(epochs=1, threads=1), Component("mlp", widths=(8,), features=4)
    taught_by = pipeline.finetune(backbone=small, training=short, workspace=workspace)
    objective = Component("distill", teacher=taught_by.name)
    run = pipeline.pretrain(small, objective=objective, training=short, workspace=workspace)
    assert pipeline.reproduce(run, workspace=workspace).verdict == "to the bit"
    elsewhere = Workspace(runs=tmp_path / "elsewhere")
    assert pipeline.reproduce(run.folder, workspace=elsewhere).verdict == "to the bit"
    page = pipeline.report(run.folder, tmp_path / "page.html", workspace=elsewhere)
    assert not [reason for reason in page.missing if "teacher" in reason]
