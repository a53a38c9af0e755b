"""A run knows its data: what it was made with, and what of it is among the test examples now."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

from zoo import pipeline, runs
from zoo.api import Component, FinetuneConfig, PretrainConfig, SelfTrainConfig
from zoo.digests import digest_split
from zoo.errors import DataError, RunError, UsageError
from zoo.export.runtime import open_session
from zoo.pipeline import Workspace, comparing, identity, leakage, model_files
from zoo.pipeline import reporting as reporting_pipeline
from zoo.pipeline.bench.labels import _check_data, _data
from zoo.pipeline.evaluation import accuracy_once, load_classifier
from zoo.pipeline.observing import observe
from zoo.pipeline.steps import Steps
from zoo.progress import Once, Silent, reporting
from zoo.record import PartRecord
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
        f"The test split of 'world' changed since run '{run.name}' was made. The run was trained on"
        " 4 of its 7 examples: '3.png', '5.png', '7.png' and 1 more. Accuracy on them does not"
        " predict accuracy on new examples.",
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
    assert f"the other 3, type, with your other options: {typed.format('export')}\n" in message
    assert not target.exists()
    assert not list(tmp_path.glob("*proof.json"))
    assert runs.load(run.folder).record.tests == []  # no model was asked


def test_without_names_they_are_told_by_their_places(workspace: Workspace, world: World) -> None:
    world.names = False
    run = finetuned(workspace)
    world.test = [100, 3, 101, 5]
    message = refused(lambda: pipeline.evaluate(run, workspace=workspace))
    assert "The run was trained on 2 of its 4 examples: number 1, 3." in message


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


def test_a_file_stays_proved_when_what_it_left_out_is_taken_away(
    workspace: Workspace, world: World
) -> None:
    run = finetuned(workspace)
    world.test = [3, *range(100, 120), 5]
    made = pipeline.export(run, without_seen=True, workspace=workspace)
    row = next(row for row in made.proof.rows if row.name == "test examples new to the run")
    for test in ([*range(100, 120)], [5, *range(100, 120)], [3, *range(100, 120), 5, 7]):
        world.test = test
        again = pipeline.validate(made.model, workspace=workspace)
        assert (again.verdict, again.failures) == ("proved", [])
        assert row in again.rows
    world.test = [*range(100, 119)]
    assert pipeline.validate(made.model, workspace=workspace).verdict == "failed"


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
        "The run has seen 60 of its 60 examples (30 trained on, 30 validated on): '0.png'"
        in message
    )
    assert "All of them were seen, so there is nothing left to measure on.\n" in message
    assert "--without-seen" not in message
    message = refused(lambda: pipeline.evaluate(run, without_seen=True, workspace=workspace))
    assert f"Run '{run.name}' has seen all 60 test examples of 'world', so there is" in message


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
    with reporting(Once(Silent())):  # nobody is told
        finetuned(workspace)
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
    world.test = [0, 1, *range(100, 119)]
    (text,) = told(lambda: pipeline.evaluate(run, workspace=workspace)).texts
    assert text.endswith("21 now); the run has seen 2 of them, as the data set was made")
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


# --- stored at another size ---------------------------------------------------------------


def two_sizes(folder: Path, **changed: Any) -> tuple[Workspace, World, World]:
    """Two data sets that share examples, which the second one stores at another size."""
    small, large = World(train=list(range(60)), test=None), World(train=[*range(60, 90)], test=[])
    small.contents = large.contents = True
    large.test, large.shape = [0, 1, *range(100, 110)], (1, 8, 8)
    return place(folder, small=small, large=large), small, large


def test_what_a_data_set_says_it_is_made_of_is_known_at_any_size(tmp_path: Path) -> None:
    workspace, _, large = two_sizes(tmp_path)
    parent = pretrained(workspace, "small")
    message = refused(lambda: finetuned(workspace, parent, "large"))
    assert message.startswith(
        f"The pretraining '{parent.name}' has seen 2 of the 12 test examples of 'large', which"
    )
    run = finetuned(workspace, parent, "large", without_seen=True)
    data = run.record.data
    assert data is not None
    assert (data.trained, data.left_out, data.unknown) == (30, 2, [])
    assert (data.contents, data.resized) == (True, True)
    assert pipeline.evaluate(run, without_seen=True, workspace=workspace).left_out == 2
    large.test = [*range(100, 110)]
    assert not told(lambda: finetuned(workspace, parent, "large")).about("known")
    large.test = [5, 60, *range(100, 110)]
    message = refused(lambda: pipeline.evaluate(run, workspace=workspace))
    assert "has seen 2 of its 12 examples (1 trained on, 1 pretrained on): '5.png'" in message


def test_the_same_bytes_are_known_whatever_they_are_said_to_be_made_of(
    workspace: Workspace, world: World
) -> None:
    """As a picture that was saved once more, without a loss."""
    world.contents = True
    run = finetuned(workspace)
    world.test, world.contents = [3, *range(100, 110)], False
    assert "1 of its 11" in refused(lambda: pipeline.evaluate(run, workspace=workspace))


@pytest.mark.parametrize("lacking", ["small", "large", "test"])
def test_without_that_it_is_not_known(lacking: str, tmp_path: Path) -> None:
    workspace, small, large = two_sizes(tmp_path)
    small.contents = lacking != "small"
    parent = pretrained(workspace, "small")
    large.contents = lacking != "large"
    if lacking == "test":
        large.test = None
    run = finetuned(workspace, parent, "large")
    assert run.record.data is not None
    (why,) = run.record.data.unknown
    assert why == f"{parent.name} was trained on examples stored as 1×4×4, and these are 1×8×8"


def test_what_is_known_by_that_alone_is_not_known_without(tmp_path: Path) -> None:
    workspace, _, large = two_sizes(tmp_path)
    teacher = pretrained(workspace, "small")
    large.test = [*range(100, 110)]
    run = finetuned(workspace, teacher, "large", finetune={"labels": 10})
    large.contents = False
    large.test = [0, *range(100, 110)]
    taught = pipeline.self_train(run, training=ONCE, workspace=workspace)
    assert taught.record.data is not None
    assert taught.record.data.unknown == [f"{run.name} came of examples stored at another size"]


# --- what a run starts from -----------------------------------------------------------------


def test_a_pretraining_that_saw_test_examples_is_refused(
    workspace: Workspace, world: World
) -> None:
    parent = pretrained(workspace)
    world.train, world.test = list(range(20, 60)), [*range(4), *range(100, 110)]
    before = sorted(workspace.runs_root.iterdir())
    message = refused(lambda: finetuned(workspace, parent))
    assert message.splitlines()[:3] == [
        f"The pretraining '{parent.name}' has seen 4 of the 14 test examples of 'world', which were"
        " no test examples when it was made: '0.png', '1.png', '2.png' and 1 more. Accuracy on them"
        " does not predict accuracy on new examples.",
        "To train even so, add --without-seen to `zoo finetune`. `evaluate` and `export` then need"
        " --without-seen as well, and measure on the other 10.",
        "To train anew on the data as they are, type:",
    ]
    assert " pretrain mlp -b widths=4 " in message.splitlines()[3]
    assert sorted(workspace.runs_root.iterdir()) == before  # no run was begun

    run = finetuned(workspace, parent, without_seen=True)
    assert run.record.data is not None
    assert run.record.data.left_out == 4
    message = refused(lambda: pipeline.evaluate(run, workspace=workspace))
    assert message.startswith(
        f"Run '{run.name}' was pretrained on 4 of the 14 test examples of 'world': '0.png', "
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
    assert "All of them were seen, so there is nothing left to measure on.\n" in message
    # Neither the same command again nor --without-seen would come to anything.
    assert "--without-seen" not in message
    assert message.endswith(
        "\nTo start anew, pretrain on 'pets' itself, or take those examples out of 'pile', which"
        f" '{parent.name}' was trained on, and pretrain again."
    )
    pets.test = [*range(100, 110)]
    run = finetuned(workspace, parent, "pets")
    assert pipeline.evaluate(run, workspace=workspace).examples == 10
    pets.test = [0, *range(100, 110)]
    after = refused(lambda: pipeline.evaluate(run, workspace=workspace))
    assert f"type: zoo evaluate {run.folder} --without-seen\n" in after
    assert after.splitlines()[-1] == message.splitlines()[-1]


def test_data_sets_of_one_name_are_told_apart_by_what_differs() -> None:
    parts = [
        PartRecord("folder", "zoo_folder", "1", {"path": path, "size": 32, "strict": False})
        for path in ("/a", "/b\x1b")
    ]
    assert leakage._differing(*parts) == ["'folder' (path=/a)", "'folder' (path=/b\\x1b)"]


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
    assert message.endswith(f"first train what taught '{pupil.name}' on the data as they are.")


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
        f"The finetuning '{teacher.name}' has seen 1 of the 21 test examples of 'world'" in message
    )
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
    said = f"{run.name} was made before digests were kept: whether a test example was trained on"
    world.test = [1, 2, *range(100, 118)]
    assert told(lambda: pipeline.evaluate(run, workspace=workspace)).about(said)
    row = model_files.apart_row(model_files.read(run, workspace, "tests").held)
    figure = f"not known: {run.name} was made before digests were kept"
    assert (row.status, row.figure) == ("reported", figure)
    assert "split changed" not in pipeline.report(run, workspace=workspace).report.read_text()
    message = refused(lambda: pipeline.evaluate(run, without_seen=True, workspace=workspace))
    assert "nobody knows which test examples it has seen" in message


def test_what_comes_of_a_run_made_before_is_told_too(workspace: Workspace, world: World) -> None:
    parent = older(pretrained(workspace))
    notes, made = Notes(), []
    with reporting(notes):
        made.append(finetuned(workspace, parent))
    why = f"{parent.name} was made before digests were kept"
    said = f"{why}: whether a test example was trained on is not known"
    assert notes.texts.count(said) == 1
    (run,) = made
    assert run.record.data is not None
    assert run.record.data.unknown == [why]
    row = model_files.apart_row(model_files.read(run, workspace, "tests").held)
    assert (row.status, row.figure) == ("reported", f"not known: {why}")
    for deed in (
        lambda: pipeline.evaluate(run, workspace=workspace),
        lambda: pipeline.evaluate(run, without_seen=True, workspace=workspace),
        lambda: pipeline.export(run, workspace=workspace),
    ):
        assert told(deed).texts.count(said) == 1
    # Whatever else changes, nobody says that nothing was trained on.
    world.test = list(range(100, 140))
    notes = told(lambda: pipeline.evaluate(run, workspace=workspace))
    assert notes.texts[-1].endswith("; none of them is known to have been trained on")


def test_what_a_file_was_trained_on_is_not_known(workspace: Workspace, world: World) -> None:
    """It was exported today, for all that is said of it."""
    file = pipeline.export(finetuned(workspace), workspace=workspace).model
    pupil = pretrained(workspace, objective=Component("distill", teacher=str(file)))
    why = "model.onnx is a file, which does not say what it was trained on"
    said = f"{why}: whether a test example was trained on is not known"
    made: list[Run] = []
    assert told(lambda: made.append(finetuned(workspace, pupil))).texts == [said]
    assert made[0].record.data is not None
    assert made[0].record.data.unknown == [why]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 4)])
def test_what_was_stored_at_another_size_is_not_known_again(
    shape: tuple[int, int, int], tmp_path: Path
) -> None:
    """Its examples may be these test examples: as other bytes they have other digests."""
    small, large = World(train=list(range(60)), test=None), World(train=[*range(60, 90)], test=[])
    large.test, large.shape = [*range(9)], shape
    workspace = place(tmp_path, small=small, large=large)
    parent = pretrained(workspace, "small")
    made: list[Run] = []
    sizes = "×".join(map(str, shape))
    why = f"{parent.name} was trained on examples stored as 1×4×4, and these are {sizes}"
    small.contents = True  # it says so too late
    notes = told(lambda: made.append(finetuned(workspace, parent, "large")))
    assert notes.about(f"{why}: whether a test example was trained on is not known")
    row = model_files.apart_row(model_files.read(made[0], workspace, "tests").held)
    assert (row.status, row.figure) == ("reported", f"not known: {why}")


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
        "the test split cannot be read (its files are not here yet), so this run will not record"
        " which examples are in it"
    )
    assert made[0].record.data is not None
    assert set(made[0].record.data.splits) == {"train"}
    world.fault = ""
    assert told(lambda: pipeline.evaluate(made[0], workspace=workspace)).texts == []
    world.test = [1, 2, 100]
    message = refused(lambda: pipeline.evaluate(made[0], workspace=workspace))
    assert "The run was trained on 2 of its 3 examples" in message


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


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "go on", "self-train"])
def test_there_is_a_run_before_any_split_is_read(
    stage: str, workspace: Workspace, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reading may decode for an hour. No test split is read where training's cannot be:
    both would wait for the same network."""
    parent = {"go on": pretrained, "self-train": finetuned}.get(stage, lambda _: None)(workspace)
    deeds = {
        "pretrain": lambda: pretrained(workspace),
        "self-train": lambda: pipeline.self_train(parent, training=ONCE, workspace=workspace),
    }
    if stage == "self-train":
        world.unlabelled = [70, 71]
    before = set(workspace.runs_root.glob("*"))
    read: list[str] = []

    def stopping(self: World, places: list[int], **how: Any) -> Any:
        read.append("test" if places == world.test else "train")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(World, "examples", stopping)
        with pytest.raises(KeyboardInterrupt):
            deeds.get(stage, lambda: finetuned(workspace, parent))()
    assert read == ["train"]
    [folder] = set(workspace.runs_root.glob("*")) - before
    run = runs.load(folder)
    assert run.record.status == "interrupted"
    done = pipeline.resume(run, workspace=workspace)
    assert done.record.data is not None
    assert "test" in done.record.data.splits


def test_a_run_that_was_stopped_before_it_was_refused_is_refused(
    workspace: Workspace, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = pretrained(workspace)
    world.train, world.test = list(range(20, 60)), [*range(4), *range(100, 110)]

    def stopping(self: World, places: list[int], **how: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(World, "examples", stopping)
        with pytest.raises(KeyboardInterrupt):
            finetuned(workspace, parent)
    run = workspace.run
    assert run is not None
    message = refused(lambda: pipeline.resume(run, workspace=workspace))
    assert message.startswith(
        f"The pretraining '{parent.name}' has seen 4 of the 14 test examples of 'world'"
    )
    assert "add --without-seen to `zoo finetune`" in message
    assert runs.load(run.folder).record.error == f"DataError: {message}"


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
    assert message.startswith(
        "The examples are not those that this run began with, so it cannot go on. Bring them back"
        f" and type zoo resume {run.folder}, or train anew:\n  zoo --plugin changing.py "
    )
    assert runs.load(run.folder).record.error == f"OtherExamples: {message}"
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
    assert notes.about(f"{first.name} was trained on data that has since changed, so it")
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
    assert "class '\\x1b[2Jodd' is new" in message


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
        "The runs on world were measured on several test splits: they are shown in separate rows."
        " To measure on one, type zoo evaluate RUN for each."
    ]


def test_it_is_said_where_nobody_knows_on_which_test_split_runs_were_measured() -> None:
    def compared(sha256: str | None) -> Any:
        return SimpleNamespace(settings={"dataset": "world"}, test_sha256=sha256)

    def said(*found: str | None) -> str:
        return "".join(comparing._splits([compared(sha256) for sha256 in found]))

    assert said("a", "a") == said(None, None) == ""
    assert said("a", None, "a").startswith(
        "Of some runs on world it was not kept which test split they were measured on: they are"
    )
    assert "several" not in said("a", None)
    assert said("a", "b", None).startswith(
        "The runs on world were measured on several test splits, and of some it was not kept which:"
    )


def test_runs_trained_on_other_examples_are_no_seeds_of_one_method(
    workspace: Workspace, world: World
) -> None:
    def made(seed: int, pretraining: bool = False) -> Run:
        training = {"seed": seed}
        parent = pretrained(workspace, training=training) if pretraining else None
        run = finetuned(workspace, parent, training=training)
        pipeline.evaluate(run, workspace=workspace)
        return runs.load(run.folder)

    def methods(*found: Run) -> list[tuple[str, int]]:
        compared = pipeline.compare(found, workspace=workspace)
        return [(row.method, row.accuracy.count) for row in compared.rows]

    first, second = made(0), made(1)
    assert methods(first, second) == [("scratch", 2)]
    before = made(0, pretraining=True)
    world.train = [*world.train, 60, 61]
    grown, after = made(1), made(1, pretraining=True)
    (one, _), (other, _) = found = methods(first, grown)
    assert [count for _, count in found] == [1, 1]
    assert re.fullmatch(r"scratch, train data [0-9a-f]{12}", one)
    assert re.fullmatch(r"scratch, train data [0-9a-f]{12}", other)
    assert one != other
    assert len(methods(before, after)) == 2
    assert methods(older(first), older(second)) == [("scratch", 2)]
    assert ("scratch, train data not kept", 1) in methods(runs.load(first.folder), grown)


def test_what_was_pretrained_on_tells_runs_apart(workspace: Workspace, world: World) -> None:
    """Even where it is no split that the finetuning reads."""
    world.unlabelled = [70, 71]
    parents = [pretrained(workspace, training={"seed": seed}) for seed in (0, 1)]
    world.unlabelled = None
    parents.append(pretrained(workspace, training={"seed": 1}))
    found = [finetuned(workspace, each, training={"seed": each.record.seed}) for each in parents]
    settings = [
        comparing._settings(run.record, [parent.record])
        for run, parent in zip(found, parents, strict=True)
    ]
    assert comparing._differences(settings[:2]) == {}
    ((name, (split, lacked)),) = comparing._differences(settings[1:]).items()
    assert (name, len(split), lacked) == ("pretraining.unlabelled data", 12, None)
    world.unlabelled = [72]
    taught = pipeline.self_train(found[2], training=ONCE, workspace=workspace).record
    own = comparing._settings(taught, [found[2].record, parents[2].record])
    assert own["self-training.train data"] == own["train data"] == own["pretraining.train data"]


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


def test_a_report_tells_of_the_reading_that_it_shows(workspace: Workspace, world: World) -> None:
    def doubts() -> list[str]:
        again = runs.load(run.folder)
        return reporting_pipeline._doubts(again, workspace, reporting_pipeline._tested(again))

    run = finetuned(workspace)
    assert doubts() == []
    world.test = [3, *range(100, 110), 5]
    pipeline.evaluate(run, without_seen=True, workspace=workspace)
    left_out = "2 more test examples were left out: the run has seen them."
    assert doubts() == [left_out]
    # Another verb, of another split: what is shown is what `evaluate` found.
    world.test = list(range(100, 120))
    pipeline.export(run, workspace=workspace)
    changed = "The test split changed since the run was measured: 12 examples then, 20 now."
    assert doubts() == [left_out, changed]
    world.test = [3, *range(100, 110), 5]
    assert doubts() == [left_out]
    world.test = [3, *range(100, 110), 5, 7]
    seen = "12 examples then, 13 now, 3 of which the run has seen in training."
    assert doubts() == [left_out, f"The test split changed since the run was measured: {seen}"]
    # The split that it was made with is not the one that was measured.
    world.test = list(range(100, 120))
    assert len(doubts()) == 2
    pipeline.evaluate(run, workspace=workspace)
    assert doubts() == []
    world.fault = "its files are gone"
    assert doubts() == []
    (run.folder / FILE).write_bytes(b"")
    (said,) = doubts()
    assert said.startswith(f"'{run.folder / FILE}' is corrupt")


def test_a_report_says_what_is_not_known(workspace: Workspace, world: World) -> None:
    run = finetuned(workspace)
    pipeline.evaluate(run, workspace=workspace)
    world.test = list(range(100, 110))
    text = pipeline.report(older(run), workspace=workspace).report.read_text()
    assert "The run was made before digests were kept: whether a test example was trained" in text
    assert "changed since the run was measured: 20 examples then, 10 now." in text


def test_a_report_shows_no_examples_of_a_training_split_that_changed(
    workspace: Workspace, world: World
) -> None:
    """What it would call held out may have been trained on."""
    run = finetuned(workspace, training={"validation": 10})
    world.train = [*world.train[1:], 150]

    def reason() -> str:
        mapped = observe(run, workspace).mapped
        assert isinstance(mapped, Absent)
        return mapped.reason

    assert reason().startswith(
        f"Dataset 'world' is no longer the one that run '{run.name}' was trained on: its train"
        " split changed (60 examples then, 60 now; 1 of the 60 that the run used are gone). Bring"
        " the data set back to what it was, or train anew:\n  zoo --plugin changing.py "
    )
    world.train = [*range(60), 151]
    assert "61 now; all that the run used are there, perhaps" in reason()
    world.train = [*world.train[1:], 152]
    assert "(60 examples then, 61 now; 1 of" in reason()
    world.classes = ("even", "strange")
    assert "'odd' again, or train anew:\n  zoo --plugin" in reason()


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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"data": {"train": "1", "test": "3"}}, "the test split of 'pets' changed"),
        ({"data": {"train": "1"}}, "the test split of 'pets' changed"),
        ({"data": {"train": "1", "test": "2", "unlabelled": "4"}}, "the unlabelled split of"),
        ({"pretrain_data": {"train": "9", "unlabelled": "6"}}, "the train split of 'pile' changed"),
        ({"pretrain_data": {"train": "5"}}, "the unlabelled split of 'pile' changed"),
        ({"pretrain_data": {"train": "9"}, "pretrain_dataset": {"name": "heap"}}, ""),
        ({"pretrain_data": None, "pretrain_dataset": None}, ""),
    ],
)
def test_a_bench_of_a_split_that_changed_came_or_went_is_refused(
    change: dict[str, Any], said: str
) -> None:
    before = {
        "dataset": {"name": "pets"},
        "data": {"train": "1", "test": "2"},
        "pretrain_dataset": {"name": "pile"},
        "pretrain_data": {"train": "5", "unlabelled": "6"},
    }
    folder = Path("bench")
    if said:
        message = refused(lambda: _check_data(folder, before, before | change), UsageError)
        assert message.startswith("'bench' holds a bench of other data: " + said)
    else:
        _check_data(folder, before, before | change)
    older = {"dataset": {"name": "pets"}, "pretrain_dataset": {"name": "pile"}}
    _check_data(folder, older, before | change)  # of 0.1.0


def test_a_bench_keeps_the_splits_that_it_pretrains_on(tmp_path: Path) -> None:
    pets = World(train=list(range(60)), test=[*range(100, 110)])
    pile = World(train=list(range(60, 90)), test=[*range(110, 120)], unlabelled=[150, 151])
    workspace = place(tmp_path, pets=pets, pile=pile)
    plan = SimpleNamespace(dataset=Component("pets"), pretrain_dataset=Component("pile"))
    found = _data(workspace, plan)  # type: ignore[arg-type]
    assert {name: set(splits) for name, splits in found.items()} == {
        "data": {"train", "test"},
        "pretrain_data": {"train", "unlabelled"},
    }
    pile.train = pile.train[1:]
    now = _data(workspace, plan)  # type: ignore[arg-type]
    assert now["data"] == found["data"]
    assert now["pretrain_data"]["train"] != found["pretrain_data"]["train"]
    plan.pretrain_dataset = None
    assert _data(workspace, plan) == {"data": found["data"]}  # type: ignore[arg-type]


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
        f"Dataset 'world' is no longer the one that run '{run.name}' was trained on: class 'odd'"
        " is gone, and class 'strange' is new. If that is a new name of it, call it 'odd' again,"
        " or train anew:\n  zoo "
    )


@pytest.mark.parametrize(
    ("classes", "shape", "message"),
    [
        (("a", "b"), (1, 4, 4), ""),
        (("b", "a"), (1, 4, 4), "the order of its classes is 'b', 'a' and was 'a', 'b'. Bring the"),
        (("a",), (1, 4, 4), "class 'b' is gone. Bring back what is gone, or train anew"),
        (("a", "b", "c", "d"), (1, 4, 4), "classes 'c', 'd' are new. Take away what is new, or"),
        (("a", "b"), (3, 4, 5), "its examples are 3×4×5 and were 1×4×4. Bring the data set back"),
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
