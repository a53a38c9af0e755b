"""A run knows its data: what it was made with, and what of it is among the test examples now."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

from zoo import pipeline, runs
from zoo.api import Component, FinetuneConfig, PretrainConfig, SelfTrainConfig
from zoo.digests import digest_split
from zoo.errors import DataError, RunError, UsageError
from zoo.export.runtime import open_session
from zoo.pipeline import Workspace, identity, model_files
from zoo.pipeline.evaluation import accuracy_once, load_classifier
from zoo.pipeline.observing import observe
from zoo.pipeline.steps import Steps
from zoo.progress import reporting
from zoo.report.facts import Absent
from zoo.runs import Run
from zoo.tasks import Finetuning
from zoo.training import Place, outputs

from .changing import MLP, ONCE, Notes, World, finetuned, place, pretrained

pytestmark = pytest.mark.usefixtures("graphs_kept")

FILE = "examples.safetensors"


@pytest.fixture
def world() -> World:
    return World(train=list(range(60)), test=list(range(100, 120)))


@pytest.fixture
def workspace(world: World, tmp_path: Path) -> Workspace:
    return place(tmp_path, world=world)


def digests(world: World, places: list[int]) -> list[bytes]:
    return rows(digest_split(world.examples(places).inputs, None).examples)


def rows(array: Any) -> list[bytes]:
    return [row.tobytes() for row in array]


def kept(run: Run) -> dict[str, list[bytes]]:
    return {name: rows(array) for name, array in load_file(run.folder / FILE).items()}


def told(deed: Callable[[], Any]) -> Notes:
    notes = Notes()
    with reporting(notes):
        deed()
    return notes


def refused(deed: Callable[[], Any], kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        deed()
    return str(caught.value)


# --- what is written down -------------------------------------------------------------------


def test_a_finetuning_keeps_what_it_was_made_with(workspace: Workspace, world: World) -> None:
    run = finetuned(workspace, training={"validation": 10}, finetune={"labels": 20})
    data = runs.load(run.folder).record.data
    assert data is not None
    assert (data.trained, data.held_out, data.pretrained) == (20, 10, 0)
    assert (data.equal, data.left_out, data.unknown) == (0, 0, [])
    assert {name: split.examples for name, split in data.splits.items()} == {
        "train": 60,
        "test": 20,
    }
    examples = world.examples(world.test or [])
    assert data.splits["test"].sha256 == digest_split(examples.inputs, examples.labels).sha256
    found, every = kept(run), digests(world, world.train)
    assert found["test"] == digests(world, world.test or [])
    assert len(set(found["trained"])) == 20
    assert set(found["trained"]) | set(found["held_out"]) < set(every)
    assert not set(found["trained"]) & set(found["held_out"])
    assert all(len(digest) == 16 for digests in found.values() for digest in digests)
    assert run.record.tests == []  # to digest is not to read


def test_a_pretraining_keeps_the_unlabelled_and_its_children_what_it_saw(
    workspace: Workspace, world: World
) -> None:
    world.unlabelled = list(range(60, 80))
    parent = pretrained(workspace)
    assert sorted(kept(parent)["trained"]) == sorted(digests(world, list(range(80))))
    run = finetuned(workspace, parent, finetune={"labels": 10})
    assert sorted(kept(run)["pretrained"]) == sorted(digests(world, list(range(80))))
    shutil.rmtree(parent.folder)  # it is enough by itself
    taught = pipeline.self_train(run, training=ONCE, workspace=workspace)
    assert sorted(kept(taught)["pretrained"]) == sorted(digests(world, list(range(80))))
    assert sorted(kept(taught)["trained"]) == sorted(digests(world, list(range(80))))


def test_the_main_process_alone_keeps_them(workspace: Workspace, world: World) -> None:
    """Others that train the same run look at no test split, and write nothing."""
    run = finetuned(workspace)
    other = Place(torch.device("cpu"))
    other.rank = 1
    part = pipeline.assembly.choose(workspace, "dataset", "world")
    world.fault = "it was read"
    assert identity.origin_of(part, world.dataset(), [run], other, None) is None
    elsewhere = Run(run.folder / "other", run.record, main=False)
    everything = torch.arange(60)
    identity.keep(
        elsewhere, None, part, world.examples(world.train), everything, everything[:0], workspace
    )
    assert not elsewhere.folder.exists()


def test_two_runs_of_the_same_data_keep_the_same_bytes(workspace: Workspace) -> None:
    one, other = finetuned(workspace), finetuned(workspace)
    assert (one.folder / FILE).read_bytes() == (other.folder / FILE).read_bytes()
    assert one.record.data == other.record.data


# --- a test split that changed --------------------------------------------------------------


def test_test_examples_that_were_trained_on_are_refused(
    workspace: Workspace, world: World, tmp_path: Path
) -> None:
    run = finetuned(workspace)
    world.test = [3, 100, 101, 5, 7, 9, 104]
    typed = f"zoo {{}} {run.folder} --without-seen"
    message = refused(lambda: pipeline.evaluate(run, workspace=workspace))
    *lines, last = message.splitlines()
    assert lines == [
        f"The test split of 'world' changed since run '{run.name}' was made: 4 of its 7 examples"
        " are ones that the run was trained on: '3.png', '5.png', '7.png' and 1 more. What is"
        " measured on them says nothing of new ones.",
        f"To measure on the other 3, type: {typed.format('evaluate')}",
        "To train anew on the data as they are, type:",
    ]
    assert last.startswith("  zoo --plugin changing.py ")
    assert last.endswith(
        " finetune --backbone mlp -b widths=4 -b features=4 --dataset world --head linear"
        " --epochs 1 --batch-size 16 --validation 0.0 --threads 1"
    )
    target = tmp_path / "model.onnx"
    message = refused(lambda: pipeline.export(run, target, workspace=workspace))
    assert typed.format("export") in message
    assert not target.exists()
    assert not list(tmp_path.glob("*proof.json"))
    assert runs.load(run.folder).record.tests == []  # no model was asked


def test_without_names_they_are_told_by_their_places(workspace: Workspace, world: World) -> None:
    world.names = False
    run = finetuned(workspace)
    world.test = [100, 3, 101, 5]
    message = refused(lambda: pipeline.evaluate(run, workspace=workspace))
    assert "2 of its 4 examples are ones that the run was trained on: number 1, 3." in message


def test_the_others_are_measured_and_the_record_says_so(workspace: Workspace, world: World) -> None:
    run = finetuned(workspace)
    world.test = [3, 100, 101, 5, 104]
    found = pipeline.evaluate(run, without_seen=True, workspace=workspace)
    others = world.examples([100, 101, 104])
    classifier, _ = load_classifier(run, workspace)
    right = outputs(classifier, others.inputs).argmax(1) == others.labels
    assert (found.accuracy, found.examples, found.left_out) == (int(right.sum()) / 3, 3, 2)
    (reading,) = runs.load(run.folder).record.tests
    assert reading["left_out"] == 2
    assert reading["test_sha256"] == digest_split(others.inputs, others.labels).sha256


def test_a_file_without_the_seen_is_proved_so_and_says_so(
    workspace: Workspace, world: World, tmp_path: Path, typed: Any
) -> None:
    run = finetuned(workspace)
    world.test = [3, *range(100, 120), 5]
    assert typed("export", run.folder, "--quiet").exit_code == 1
    assert not run.model.exists()
    result = typed("export", run.folder, "--without-seen", "--quiet")
    assert re.search(r"new to the run +ok +all 20; 2 that it has seen were left out", result.stdout)
    card = open_session(run.model).card
    others = world.examples(list(range(100, 120)))
    assert card.left_out == 2
    assert card.dataset_sha256 == digest_split(others.inputs, others.labels).sha256
    assert "without 2 test examples that the run has seen" in typed("inspect", run.model).stdout
    again = pipeline.validate(run.model, workspace=workspace)
    assert (again.verdict, again.examples) == ("proved", 20)
    bundled = pipeline.bundle(run, tmp_path / "bundle", web=False, workspace=workspace)
    text = (bundled.folder / "README.md").read_text()
    assert "on 20 examples of the test split of `world` (2 more were left out)" in text
    assert "none of them was trained on." in text
    assert json.loads((bundled.folder / "model.json").read_text())["left_out"] == 2


def test_an_older_file_fails_on_a_split_that_changed(workspace: Workspace, world: World) -> None:
    run = finetuned(workspace)
    made = pipeline.export(run, workspace=workspace)
    row = next(row for row in made.proof.rows if row.name == "test examples new to the run")
    assert (row.status, row.figure) == ("passed", "all 20")
    world.test = [3, 5, *range(100, 118)]
    proof = pipeline.validate(made.model, workspace=workspace)
    figures = {row.name: row.figure for row in proof.failures}
    assert "test split as recorded" in figures
    assert figures["test examples new to the run"] == (
        "the split changed: it has seen 2 of 20 in training"
    )


def test_what_was_held_out_is_no_longer_new_either(workspace: Workspace, world: World) -> None:
    run = finetuned(workspace, training={"validation": 30})
    world.test = list(range(60))
    message = refused(lambda: pipeline.evaluate(run, workspace=workspace))
    assert (
        "60 of its 60 examples are ones that the run was trained on (30) or validated on (30):"
        in message
    )
    assert "No other is left to measure on." in message
    assert "--without-seen" not in message
    message = refused(lambda: pipeline.evaluate(run, without_seen=True, workspace=workspace))
    assert f"Run '{run.name}' has seen all 60 test examples of 'world': none is left" in message


def test_what_was_not_trained_on_may_become_a_test_example(
    workspace: Workspace, world: World
) -> None:
    """With few labels most of the training split was never seen."""
    run = finetuned(workspace, finetune={"labels": 10})
    seen = set(kept(run)["trained"])
    world.test = [at for at in world.train if digests(world, [at])[0] not in seen]
    assert len(world.test) == 50
    notes = told(lambda: pipeline.evaluate(run, workspace=workspace))
    assert notes.texts == [
        f"the test split of world changed since {run.name} was made (20 examples then, 50 now);"
        " none of them was trained on"
    ]


@pytest.mark.parametrize("change", ["grown", "turned round", "relabelled"])
def test_a_split_that_changed_otherwise_is_told(
    change: str, workspace: Workspace, world: World
) -> None:
    run = finetuned(workspace)
    assert told(lambda: pipeline.evaluate(run, workspace=workspace)).texts == []
    if change == "grown":
        world.test = list(range(100, 140))
    elif change == "turned round":
        world.test = list(range(119, 99, -1))
    else:
        world.flipped = True
    notes = told(lambda: pipeline.evaluate(run, workspace=workspace))
    assert len(notes.about("changed since")) == 1
    assert "none of them was trained on" in notes.texts[0]


# --- equal examples in the splits as they are made ------------------------------------------


def test_equal_examples_are_told_once_and_never_refused(workspace: Workspace, world: World) -> None:
    world.test = [0, 1, *range(100, 118)]
    first = told(lambda: finetuned(workspace))
    assert first.about("world: 2 of 20 test examples are in another split too, as the data set")
    run = finetuned(workspace)
    for deed in (
        lambda: finetuned(workspace),
        lambda: pretrained(workspace),
        lambda: pipeline.evaluate(run, workspace=workspace),
    ):
        assert not told(deed).about("in another split")
    assert run.record.data is not None
    assert run.record.data.equal == 2
    told_of = model_files.read(run, workspace, "tests").held
    row = model_files.apart_row(told_of)
    assert (row.status, row.figure) == ("reported", "it has seen 2 of 20, as the data set was made")
    # Whoever wants them out asks for it.
    assert pipeline.evaluate(run, without_seen=True, workspace=workspace).left_out == 2
    # Another content is another thing to be told.
    world.test = [2, *range(100, 118)]
    assert told(lambda: finetuned(workspace)).about("world: 1 of 19 test examples")


def test_a_pretraining_and_its_finetuning_may_share_them(
    workspace: Workspace, world: World
) -> None:
    """They were test examples already when the pretraining was made."""
    world.test = [0, 1, *range(100, 118)]
    parent = pretrained(workspace)
    run = finetuned(workspace, parent)
    assert pipeline.evaluate(run, workspace=workspace).examples == 20
    world.test = [0, 1, 2, *range(100, 118)]
    message = refused(lambda: finetuned(workspace, parent))
    assert "1 of the 21 test examples of 'world'" in message
    assert "'2.png'" in message


# --- what a run starts from -----------------------------------------------------------------


def test_a_pretraining_that_saw_test_examples_is_refused(
    workspace: Workspace, world: World
) -> None:
    parent = pretrained(workspace)
    world.train, world.test = list(range(20, 60)), [*range(4), *range(100, 110)]
    before = sorted(workspace.runs_root.iterdir())
    message = refused(lambda: finetuned(workspace, parent))
    assert message.splitlines()[:3] == [
        f"4 of the 14 test examples of 'world' are ones that the pretraining '{parent.name}' has"
        " seen, and that were no test examples when it was made: '0.png', '1.png', '2.png' and 1"
        " more. What is measured on them says nothing of new ones.",
        "To go on, and leave them out whenever it is measured (only the other 10 would be left),"
        f" type: zoo finetune {parent.folder} --without-seen",
        "To start anew from the data as they are, type:",
    ]
    assert " pretrain mlp -b widths=4 " in message.splitlines()[3]
    assert sorted(workspace.runs_root.iterdir()) == before  # no run was begun

    run = finetuned(workspace, parent, without_seen=True)
    assert run.record.data is not None
    assert run.record.data.left_out == 4
    message = refused(lambda: pipeline.evaluate(run, workspace=workspace))
    assert message.startswith(
        f"4 of the 14 test examples of 'world' are ones that run '{run.name}' was pretrained on:"
    )
    found = pipeline.evaluate(run, without_seen=True, workspace=workspace)
    assert (found.examples, found.left_out) == (10, 4)


def test_a_pile_that_holds_the_test_examples_is_refused(tmp_path: Path) -> None:
    """Another data set, without a test split of its own: what counts is what was seen."""
    pile, pets = (
        World(train=list(range(60)), test=None),
        World(train=[*range(60, 90)], test=[*range(9)]),
    )
    workspace = place(tmp_path, pile=pile, pets=pets)
    parent = pretrained(workspace, "pile")
    message = refused(lambda: finetuned(workspace, parent, "pets"))
    assert "9 of the 9 test examples of 'pets'" in message
    assert "(none would be left)" in message
    pets.test = [*range(100, 110)]
    assert (
        pipeline.evaluate(finetuned(workspace, parent, "pets"), workspace=workspace).examples == 10
    )


def test_what_a_teacher_saw_its_pupil_is_taken_to_have_seen(
    workspace: Workspace, world: World
) -> None:
    teacher = finetuned(workspace)
    world.train, world.test = list(range(60, 90)), [1, 2, *range(100, 110)]
    pupil = pretrained(workspace, objective=Component("distill", teacher=teacher.name))
    assert pupil.record.data is not None
    assert pupil.record.data.left_out == 2
    message = refused(lambda: finetuned(workspace, pupil))
    assert "2 of the 12 test examples of 'world'" in message


def test_a_self_training_holds_what_its_teacher_saw(workspace: Workspace, world: World) -> None:
    teacher = finetuned(workspace, finetune={"labels": 20})
    seen = set(kept(teacher)["trained"])
    at = next(at for at in world.train if digests(world, [at])[0] in seen)
    assert world.test is not None
    world.test = [at, *world.test]

    def taught(**how: Any) -> Run:
        return pipeline.self_train(
            teacher, training=ONCE, self_train=SelfTrainConfig(), workspace=workspace, **how
        )

    message = refused(taught)
    assert (
        f"1 of the 21 test examples of 'world' are ones that the finetuning '{teacher.name}'"
        in message
    )
    assert f"type: zoo finetune {teacher.folder} --without-seen --self-train" in message
    run = taught(without_seen=True)
    assert pipeline.evaluate(run, without_seen=True, workspace=workspace).left_out == 1


# --- runs of which less is known ------------------------------------------------------------


def older(run: Run) -> Run:
    """Make a run one that was made before digests were kept."""
    path = run.folder / "run.json"
    content = json.loads(path.read_text())
    del content["data"]
    path.write_text(json.dumps(content))
    (run.folder / FILE).unlink()
    return runs.load(run.folder)


def test_a_run_made_before_says_so_and_goes_on(workspace: Workspace, world: World) -> None:
    run = older(finetuned(workspace))
    said = f"{run.name} was made before digests were kept: whether it has seen a test example"
    world.test = [1, 2, *range(100, 118)]
    assert told(lambda: pipeline.evaluate(run, workspace=workspace)).about(said)
    row = model_files.apart_row(model_files.read(run, workspace, "tests").held)
    assert (row.status, row.figure) == ("reported", "not known: made before digests were kept")
    assert "split changed" not in pipeline.report(run, workspace=workspace).report.read_text()
    message = refused(lambda: pipeline.evaluate(run, without_seen=True, workspace=workspace))
    assert "nobody knows which test examples it has seen" in message


def test_what_comes_of_a_run_made_before_is_told_too(workspace: Workspace) -> None:
    parent = older(pretrained(workspace))
    notes, made = Notes(), []
    with reporting(notes):
        made.append(finetuned(workspace, parent))
    said = f"{parent.name} was made before digests were kept: what it saw is not known"
    assert notes.about(said)
    assert made[0].record.data is not None
    assert made[0].record.data.unknown == [parent.name]
    row = model_files.apart_row(model_files.read(made[0], workspace, "tests").held)
    assert row.figure == f"not known: what {parent.name} saw is not known"
    assert row.status == "reported"


@pytest.mark.parametrize("damage", ["gone", "cut", "another's", "a folder"])
def test_a_file_that_is_not_the_one_that_was_written(
    damage: str, workspace: Workspace, world: World
) -> None:
    run, parent = finetuned(workspace), pretrained(workspace)
    for each in (run, parent):
        path = each.folder / FILE
        data = path.read_bytes()
        path.unlink()
        if damage == "cut":
            path.write_bytes(data[:-1])
        elif damage == "another's":
            path.write_bytes(b"x" * 40)
        elif damage == "a folder":
            path.mkdir()
    again = "It says which examples the run was trained on. Bring it back, or train the run again."
    for each, deed in (
        (run, lambda: pipeline.evaluate(run, workspace=workspace)),
        (run, lambda: pipeline.export(run, workspace=workspace)),
        (parent, lambda: finetuned(workspace, parent)),
    ):
        message = refused(deed, RunError)
        assert message.startswith(f"'{each.folder / FILE}' ")
        assert message.endswith(again)
    assert runs.load(run.folder).record.tests == []


def test_a_test_split_that_cannot_be_read_stops_no_training(
    workspace: Workspace, world: World
) -> None:
    world.fault = "its files are not here yet"
    notes, made = Notes(), []
    with reporting(notes):
        made.append(finetuned(workspace))
    assert notes.about(
        "the test split cannot be read, and is not known: its files are not here yet"
    )
    assert made[0].record.data is not None
    assert set(made[0].record.data.splits) == {"train"}
    world.fault = ""
    assert told(lambda: pipeline.evaluate(made[0], workspace=workspace)).texts == []
    world.test = [1, 2, 100]
    message = refused(lambda: pipeline.evaluate(made[0], workspace=workspace))
    assert "2 of its 3 examples are ones that the run was trained on" in message


# --- going on, and what was recorded --------------------------------------------------------


def stopped(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, calls: int) -> Run:
    """Stop a finetuning in some step."""
    forward, count = Finetuning.forward, iter(range(10**6))

    def failing(self: Finetuning, *given: Any) -> Any:
        if workspace.run is not None and next(count) == calls:  # it is tried before that
            raise KeyboardInterrupt
        return forward(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Finetuning, "forward", failing)
        with pytest.raises(KeyboardInterrupt):
            finetuned(
                workspace,
                training={"epochs": 3, "checkpoint_steps": 1, "checkpoint_seconds": None},
            )
    assert workspace.run is not None
    return workspace.run


def test_resume_keeps_what_the_run_began_with(
    workspace: Workspace, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped(workspace, monkeypatch, 5)
    before, data = (run.folder / FILE).read_bytes(), run.record.data
    assert data is not None
    world.test = [*range(4), *range(100, 120)]
    done = pipeline.resume(run, workspace=workspace)
    assert (done.folder / FILE).read_bytes() == before
    assert done.record.data == data
    assert "4 of its 24" in refused(lambda: pipeline.evaluate(done, workspace=workspace))


def test_a_run_begun_before_digests_were_kept_goes_on(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = older(stopped(workspace, monkeypatch, 5))
    done = pipeline.resume(run, workspace=workspace)
    assert done.record.status == "finished"
    assert done.record.data is not None
    assert done.record.data.trained == 60


@pytest.mark.parametrize("calls", [0, 5], ids=["without a checkpoint", "with one"])
def test_every_example_is_held_against_those_it_began_with(
    calls: int, workspace: Workspace, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped(workspace, monkeypatch, calls)
    before = (run.folder / FILE).read_bytes()
    world.train = [*world.train[:-1], 150]
    message = refused(lambda: pipeline.resume(run, workspace=workspace), RunError)
    assert message == (
        "The examples are not those that this run began with, so it cannot go on."
        " Bring them back, or train anew."
    )
    assert (run.folder / FILE).read_bytes() == before


def test_a_recorded_accuracy_counts_for_the_split_it_was_measured_on(
    workspace: Workspace, world: World
) -> None:
    run = finetuned(workspace)
    first = accuracy_once(run, workspace)
    run = runs.load(run.folder)
    assert accuracy_once(run, workspace) == first
    assert len(runs.load(run.folder).record.tests) == 1
    world.test = list(range(120, 151))
    notes = Notes()
    with reporting(notes):
        second = accuracy_once(run, workspace)
    assert notes.about("the test split changed since")
    assert round(second * 31, 6).is_integer()
    assert len(runs.load(run.folder).record.tests) == 2
    world.test = list(range(100, 120))
    assert accuracy_once(runs.load(run.folder), workspace) == first


def test_a_run_is_used_again_for_the_same_data_alone(workspace: Workspace, world: World) -> None:
    parts = {"dataset": Component("world"), "backbone": MLP, "head": Component("linear")}

    def made() -> tuple[Run, int]:
        steps = Steps(workspace, "tests")
        config = FinetuneConfig()
        return steps.finetuned(parts, ONCE, config, None), steps.reused

    world.unlabelled = [70, 71]  # nothing that a finetuning reads
    first, _ = made()
    again, reused = made()
    assert (again.name, reused) == (first.name, 1)
    world.train = list(range(59))
    notes = Notes()
    with reporting(notes):
        second, reused = made()
    assert (second.name != first.name, reused) == (True, 0)
    assert notes.about(f"{first.name} was made of other data than are there now: not used")
    assert made()[0].name == second.name
    older(second)
    assert made()[0].name == second.name


def test_a_pretraining_is_used_again_for_the_same_unlabelled_examples_alone(
    workspace: Workspace, world: World
) -> None:
    def made() -> str:
        objective, config = Component("denoise"), PretrainConfig()
        steps = Steps(workspace, "tests")
        return steps.pretrained(MLP, Component("world"), objective, ONCE, config).name

    found = [made(), made()]
    world.unlabelled = [70, 71]
    found += [made(), made()]
    assert found[0] == found[1] != found[2] == found[3]


def test_names_are_told_as_they_can_be_printed(workspace: Workspace, world: World) -> None:
    run = finetuned(workspace)
    world.classes = ("even", "\x1b[2Jodd")
    message = refused(lambda: pipeline.evaluate(run, workspace=workspace))
    assert "class '\ufffd[2Jodd' is new" in message


def test_runs_measured_on_several_test_splits_are_not_compared_silently(
    workspace: Workspace, world: World
) -> None:
    found = [finetuned(workspace, training={"seed": seed}) for seed in (0, 1)]
    for seed in (0, 1):
        before = pretrained(workspace, training={"seed": seed})
        found.append(finetuned(workspace, before, training={"seed": seed}))
    for run in found:
        pipeline.evaluate(run, workspace=workspace)
    same = pipeline.compare(found, workspace=workspace)
    assert [row.against for row in same.rows] == [None, "scratch"]
    assert not [note for note in same.notes if "test splits" in note]
    world.test = list(range(100, 140))
    for run in found[2:]:
        pipeline.evaluate(run, workspace=workspace)
    other = pipeline.compare(found, workspace=workspace)
    assert [row.against for row in other.rows] == [None, None]
    assert [note for note in other.notes if "test splits" in note] == [
        "The runs on world were measured on several test splits: these stand in rows of their own."
        " To measure on one, type zoo evaluate RUN for each."
    ]


def test_the_command_says_what_was_left_out(workspace: Workspace, world: World, typed: Any) -> None:
    run = finetuned(workspace)
    world.test = [1, 2, *range(100, 120)]
    assert typed("evaluate", run.folder).exit_code == 1
    result = typed("evaluate", run.folder, "--without-seen")
    said = "on 20 test examples of world (2 more were left out: the run has seen them);"
    assert said in result.stdout
    assert f"Next: zoo export {run.folder} --without-seen\n" in result.stdout
    printed = typed("evaluate", run.folder, "--without-seen", "--json").stdout
    assert json.loads(printed)["left_out"] == 2


def test_a_finetuning_that_leaves_some_out_says_how_it_is_measured(
    workspace: Workspace, world: World, typed: Any
) -> None:
    parent = pretrained(workspace)
    world.test = [1, 2, *range(100, 120)]
    options = ("--epochs", 1, "--threads", 1, "--quiet")
    assert typed("finetune", parent.folder, *options).exit_code == 1
    result = typed("finetune", parent.folder, "--without-seen", *options)
    assert result.exit_code == 0
    assert re.search(r"Next: zoo evaluate \S+ --without-seen\n", result.stdout)


@pytest.fixture
def typed(workspace: Workspace, cli: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Type a command where these data sets are installed."""
    for module in ("measure", "deploy", "train"):
        monkeypatch.setattr(f"zoo.cli.{module}.workspace_of", lambda *_: workspace)
    monkeypatch.setattr("zoo.cli.train.registry_of", lambda _: workspace.registry)
    monkeypatch.setattr("zoo.cli.options.registry_of", lambda _: workspace.registry)
    return cli


def test_a_report_shows_no_examples_of_a_training_split_that_changed(
    workspace: Workspace, world: World
) -> None:
    """What it would call held out may have been trained on."""
    run = finetuned(workspace, training={"validation": 10})
    world.train = [*world.train[1:], 150]
    mapped = observe(run, workspace).mapped
    assert isinstance(mapped, Absent)
    assert mapped.reason == (
        f"Dataset 'world' is no longer the one that run '{run.name}' was trained on: its training"
        " split changed."
    )


def test_a_bench_does_not_go_on_with_other_data(
    workspace: Workspace, world: World, tmp_path: Path
) -> None:
    def bench() -> Any:
        return pipeline.bench_labels(
            "world", MLP, objectives=["denoise"], labels=[10], seeds=[0], output=tmp_path / "bench",
            pretrain={"epochs": 1}, finetune={"epochs": 1}, workspace=workspace,
        )  # fmt: skip

    found = bench()
    test = world.examples(world.test or [])
    sha256 = digest_split(test.inputs, test.labels).sha256
    assert {cell["test_sha256"] for cell in found.cells} == {sha256}
    assert len(bench().cells) == 2
    world.test = list(range(100, 130))
    message = refused(bench, UsageError)
    assert message == (
        f"'{tmp_path / 'bench'}' holds a bench of other data: the test split of 'world' changed."
        " Name another folder with -o."
    )


def test_what_was_made_and_measured_without_the_seen_is_reproduced_so(tmp_path: Path) -> None:
    pile, pets = World(train=list(range(60)), test=None), World(train=[*range(60, 90)], test=[])
    pets.test = [*range(9), *range(100, 110)]
    workspace = place(tmp_path, pile=pile, pets=pets)
    run = finetuned(workspace, pretrained(workspace, "pile"), "pets", without_seen=True)
    assert pipeline.evaluate(run, without_seen=True, workspace=workspace).left_out == 9
    assert pipeline.reproduce(run, workspace=workspace).verdict == "to the bit"
    pets.train = [*range(60, 89)]
    found = pipeline.reproduce(run, workspace=workspace)
    assert found.verdict == "altered"
    assert "SHA-256 of the train split" in [each.name for each in found.differences]


def test_a_class_that_was_renamed_is_named(workspace: Workspace, world: World) -> None:
    run = finetuned(workspace)
    world.classes = ("even", "strange")
    message = refused(lambda: pipeline.evaluate(run, workspace=workspace))
    assert message.startswith(
        f"Dataset 'world' is no longer the one that run '{run.name}' was trained for: class 'odd'"
        " is gone, and class 'strange' is new. If that is a new name of it, call it 'odd' again,"
        " or train anew:\n  zoo "
    )


@pytest.mark.parametrize(
    ("classes", "shape", "message"),
    [
        (("a", "b"), (1, 4, 4), ""),
        (("b", "a"), (1, 4, 4), "the order of its classes is 'b', 'a' and was 'a', 'b'. Bring it"),
        (("a",), (1, 4, 4), "class 'b' is gone. Bring back what is gone, or train anew"),
        (("a", "b", "c", "d"), (1, 4, 4), "classes 'c', 'd' are new. Take away what is new, or"),
        (("a", "b"), (3, 4, 5), "its examples are 3×4×5 and were 1×4×4. Bring it back to what it"),
        (("c", "d"), (1, 8, 8), "classes 'a', 'b' are gone, and classes 'c', 'd' are new, and its"),
    ],
)  # fmt: skip
def test_what_differs_is_said(
    classes: tuple[str, ...], shape: tuple[int, ...], message: str, workspace: Workspace
) -> None:
    from zoo.pipeline.sameness import change_of

    record = dataclasses.replace(finetuned(workspace).record, classes=["a", "b"])
    found = change_of(record, classes, shape)
    assert found.startswith(message) if message else not found
