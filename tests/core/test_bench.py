"""`bench labels`: which cells, what they may read, how they go on, what is made of them."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from zoo import pipeline, runs
from zoo.api import Component, Dataset, DatasetSpec, Examples, ImageInput, TrainConfig, hookimpl
from zoo.data import labelled
from zoo.errors import (
    BadOption,
    DataError,
    OtherExamples,
    PluginFault,
    TrainingError,
    Unfit,
    UnknownName,
    UsageError,
    recurs,
)
from zoo.evidence import ledger
from zoo.pipeline import Workspace
from zoo.pipeline.bench import launchers
from zoo.pipeline.bench.cells import Order, Site
from zoo.pipeline.bench.launchers import Line, launched
from zoo.pipeline.bench.plan import Method, steps_an_epoch
from zoo.pipeline.bench.table import Bench
from zoo.pipeline.reuse import Earlier
from zoo.progress import Silent, reporting
from zoo.registry import Registry
from zoo.runs import Run

from ..forked import Forked

SMALL = Component("mlp", widths=(8,), features=4)
TINY: dict[str, Any] = {
    "objectives": ["reconstruct"],
    "labels": (20, None),
    "seeds": (0, 1),
    "pretrain": {"epochs": 1, "batch_size": 500},
    "finetune": {"epochs": 1, "batch_size": 500},
}


def bench(workspace: Workspace, output: Path | None = None, **changed: Any) -> Bench:
    return pipeline.bench_labels(
        changed.pop("dataset", "digits"),
        changed.pop("backbone", SMALL),
        output=output,
        workspace=workspace,
        **{**TINY, **changed},
    )


def all_runs(workspace: Workspace, kind: str) -> list[str]:
    return [r.name for r in runs.every(workspace.runs_root)[0] if r.record.kind == kind]


def of_a_folder(folder: Path) -> tuple[Workspace, Bench]:
    """Train, or read what was trained."""
    workspace = Workspace(runs=folder / "runs", data=folder / "data")
    return workspace, bench(workspace, folder / "out")


@pytest.fixture(scope="module")
def made(made_once: Callable[..., Path]) -> tuple[Workspace, Bench]:
    return of_a_folder(made_once(of_a_folder))


def test_each_cell_is_a_run_measured_once(made: tuple[Workspace, Bench]) -> None:
    workspace, result = made
    assert len(result.cells) == result.wanted == 8
    for cell in result.cells:
        run = runs.load(workspace.runs_root / cell["runs"]["finetuning"])
        record = run.record
        assert [reading["by"] for reading in record.tests] == ["evaluate"]
        assert record.tests[0]["accuracy"] == cell["accuracy"]
        assert record.seed == cell["seed"]
        assert record.metrics["train_examples"] == cell["examples"] == (cell["labels"] or 1437)
        # Nothing that carries a label is held out, chosen on or stopped on.
        assert record.metrics["validation_examples"] == 0
        assert (record.training["keep"], record.training["patience"]) == ("last", None)
        parent = record.parent and record.parent.run
        assert cell["runs"]["pretraining"] == parent
        assert (parent is None) == (cell["method"] == "scratch")
        assert cell["weights_sha256"] == record.weights_sha256
        assert cell["threads"] == 1
        assert cell["processor"] == record.processor != ""
        assert set(cell["seconds"]) == {"pretraining", "finetuning"}
        assert len(cell["commit"]) >= 13


def test_a_reading_that_was_killed_is_made_again_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is written down before the model is asked of any example: one that was killed counts."""
    workspace = Workspace(runs=tmp_path / "runs")
    few: dict[str, Any] = {"labels": (20,), "seeds": (0,)}

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("zoo.pipeline.evaluation.outputs", killed)
        with pytest.raises(KeyboardInterrupt):
            bench(workspace, tmp_path / "out", **few)
    scratch, other = bench(workspace, tmp_path / "out", **few).cells
    assert (scratch["test_readings"], other["test_readings"]) == (2, 1)
    assert 0 < scratch["accuracy"] <= 1


def test_a_pretraining_is_shared_by_all_cells_of_its_seed(made: tuple[Workspace, Bench]) -> None:
    workspace, result = made
    assert len(all_runs(workspace, "pretrain")) == 2
    assert len(all_runs(workspace, "finetune")) == 8
    of = {(c["seed"], c["runs"]["pretraining"]) for c in result.cells if c["method"] != "scratch"}
    assert len(of) == 2


def test_a_transfer_pretrains_on_the_other_set_and_builds_scratch_for_its_input(
    tmp_path: Path,
) -> None:
    import zoo_heads
    import zoo_images
    import zoo_mlp
    import zoo_objectives

    module = ModuleType("larger")
    noise = torch.randint(256, (40, 1, 12, 12), dtype=torch.uint8)
    pictures = Examples(inputs=noise, labels=torch.arange(40) % 10)
    digits = tuple(str(digit) for digit in range(10))

    @hookimpl
    def zoo_datasets() -> list[DatasetSpec]:
        size = ImageInput(channels=1, height=12, width=12)
        described = Dataset(
            input=size,
            classes=digits,
            train=lambda: pictures,
            unlabelled=lambda: Examples(inputs=255 - noise[:30]),
        )
        return [DatasetSpec(name="larger", summary="", build=lambda config, root: described)]

    module.zoo_datasets = zoo_datasets  # type: ignore[attr-defined]
    built_in: list[Any] = [zoo_heads, zoo_images, zoo_mlp, zoo_objectives, module]
    workspace = Workspace(plugins=Registry(plugins=built_in), runs=tmp_path)
    result = bench(workspace, pretrain_dataset="larger", labels=(20,), seeds=(0,))
    assert len(result.cells) == 2
    for cell in result.cells:
        record = runs.load(tmp_path / cell["runs"]["finetuning"]).record
        assert (record.dataset.name, record.input) == ("digits", [1, 12, 12])
        if record.parent is not None:
            parent = runs.load(tmp_path / record.parent.run).record
            assert (parent.dataset.name, parent.input) == ("larger", [1, 12, 12])
    counted = {cell["method"]: cell["pretraining_examples"] for cell in result.cells}
    assert counted == {"scratch": None, "reconstruct": 70}  # its unlabelled split's as well
    said = "Pretraining, on all 70 examples of larger without labels"
    assert said in result.summary
    assert said in (result.folder / "table.md").read_text()
    assert "on all 70" in (result.folder / "figure.svg").read_text()
    assert "mlp on digits, pretrained on larger" in (result.folder / "figure.svg").read_text()


def test_the_rows_are_the_cells_figures(made: tuple[Workspace, Bench]) -> None:
    _, result = made
    assert [(row.labels, row.method) for row in result.rows] == [
        (20, "scratch"), (20, "reconstruct"), (None, "scratch"), (None, "reconstruct")
    ]  # fmt: skip
    for row in result.rows:
        own = {
            cell["seed"]: cell["accuracy"]
            for cell in result.cells
            if (cell["method"], cell["labels"]) == (row.method, row.labels)
        }
        assert row.accuracy.mean == pytest.approx(statistics.fmean(own.values()))
        assert row.accuracy.deviation == pytest.approx(statistics.stdev(own.values()))
        assert (row.change is None) == (row.method == "scratch")


def test_table_figure_and_json_are_made_again_without_training(
    made: tuple[Workspace, Bench],
) -> None:
    _, result = made
    folder = result.folder
    content = json.loads((folder / "bench.json").read_text())
    assert content == json.loads(json.dumps(result.to_json()))
    assert content["schema"] == 1
    assert str(folder.parent) not in (folder / "bench.json").read_text()
    names = ("table.md", "figure.svg", "bench.json")
    before = {name: (folder / name).read_bytes() for name in names}
    for name in (*names, "figure.png"):
        (folder / name).unlink()
    again = pipeline.bench_table(folder)
    assert again == result
    assert {name: (folder / name).read_bytes() for name in names} == before
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    table = (folder / "table.md").read_text()
    assert "| all 1,437 | reconstruct |" in table
    # What was fixed ahead stands in the table, in the figure and in the JSON.
    for said in ("N is everything that carries one", "batch_size 500", "seeds (0, 1)"):
        assert said in table
        assert said in content["summary"]
    svg = before["figure.svg"].decode()
    assert all(word in svg for word in ("everything", "scratch", "reconstruct"))


def test_the_draws_are_those_of_the_runs(made: tuple[Workspace, Bench]) -> None:
    _, result = made
    content = json.loads((result.folder / "draws.json").read_text())
    truth = digits().labels
    assert truth is not None
    assert set(content["draws"]) == {"20"}  # all are all
    for seed, places in content["draws"]["20"].items():
        drawn = labelled(truth, 20, 10, 0, int(seed))[0].tolist()
        assert places == sorted(drawn)
        assert torch.bincount(truth[places]).tolist() == [2] * 10


def test_typed_again_nothing_is_trained(made: tuple[Workspace, Bench]) -> None:
    workspace, result = made
    before = sorted(path.name for path in workspace.runs_root.iterdir())
    lines = (result.folder / ledger.NAME).read_bytes()
    assert bench(workspace, result.folder) == result
    assert sorted(path.name for path in workspace.runs_root.iterdir()) == before
    assert (result.folder / ledger.NAME).read_bytes() == lines


def test_cells_of_other_settings_are_counted(workspace: Workspace, tmp_path: Path) -> None:
    """They were read on the test split, and a table that hides them would hide a choice."""
    few: dict[str, Any] = {"labels": (20,), "seeds": (0,), "pretrain": {"validation": 0.25}}
    first = bench(workspace, tmp_path / "out", **few)
    assert not any("other settings" in note for note in first.notes)
    assert "on all 1,437 examples but those held out (25%) without labels" in first.summary
    changed = {**few, "finetune": {"epochs": 2, "batch_size": 500}}
    notes = bench(workspace, tmp_path / "out", **changed).notes
    assert "2 more cells, of other settings, labels or seeds, were measured here." in notes


class Interrupting(Silent):
    """Presses Ctrl-C when a note has these words."""

    def __init__(self, words: str) -> None:
        self.words = words

    def note(self, text: str) -> None:
        if self.words in text:
            raise KeyboardInterrupt


def test_interrupted_it_goes_on_with_the_cell_that_was_stopped(
    made: tuple[Workspace, Bench], workspace: Workspace, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    # The note about few steps comes between the beginning of a run and its first step.
    with reporting(Interrupting("only 1 training steps")), pytest.raises(KeyboardInterrupt):
        bench(workspace, output)
    assert not ledger.read(output)
    (stopped,) = all_runs(workspace, "finetune")
    with reporting(Interrupting("3 of 8")), pytest.raises(KeyboardInterrupt):
        bench(workspace, output)
    assert len(ledger.read(output)) == 3
    assert stopped in [c["runs"]["finetuning"] for c in ledger.read(output).values()]
    partial = pipeline.bench_table(output)
    assert len(partial.cells) == 3
    assert "Not finished: 3 of 8 cells" in partial.notes[0]
    again = bench(workspace, output)
    assert len(all_runs(workspace, "finetune")) == 8
    # What was stopped ends as what never was.
    assert same(again) == same(made[1])


def same(result: Bench) -> dict[str, tuple[float, str]]:
    return {cell["key"]: (cell["accuracy"], cell["weights_sha256"]) for cell in result.cells}


def test_changed_options_make_other_cells_and_old_ones_are_not_mixed_in(
    workspace: Workspace, tmp_path: Path
) -> None:
    few: dict[str, Any] = {"labels": (20,), "seeds": (0,)}
    first = bench(workspace, tmp_path / "out", **few)
    scratch = bench(workspace, tmp_path / "out", **few, scratch={"epochs": 2})
    keys, others = ({c["method"]: c["key"] for c in r.cells} for r in (first, scratch))
    assert keys["reconstruct"] == others["reconstruct"]
    assert keys["scratch"] != others["scratch"]
    assert "of scratch: epochs 2" in scratch.summary
    longer = bench(workspace, tmp_path / "out", **few, pretrain={"epochs": 2})
    third = {c["method"]: c["key"] for c in longer.cells}
    assert third["scratch"] == keys["scratch"]  # pretraining is nothing to it
    assert third["reconstruct"] != keys["reconstruct"]
    assert len(longer.cells) == 2
    assert len(ledger.read(tmp_path / "out")) == 4


def test_a_method_of_its_own_settings_is_a_row(workspace: Workspace, tmp_path: Path) -> None:
    probe = Method(label="probe", objective=Component("reconstruct"), overrides={"freeze": True})
    result = bench(
        workspace, tmp_path / "out", objectives=["reconstruct", probe], labels=(20,), seeds=(0,)
    )
    assert [row.method for row in result.rows] == ["scratch", "reconstruct", "probe"]
    assert "of probe: freeze True" in result.summary
    found = {cell["method"]: cell["runs"] for cell in result.cells}
    assert found["probe"]["pretraining"] == found["reconstruct"]["pretraining"]
    record = runs.load(workspace.runs_root / found["probe"]["finetuning"]).record
    assert record.finetune is not None
    assert record.finetune["freeze"] is True
    wrong = Method(label="probe", overrides={"keep": "best"})
    with pytest.raises(BadOption, match="probe: keep is not yours to set here"):
        bench(workspace, tmp_path / "out", objectives=[wrong])


def test_few_labels_get_their_steps(workspace: Workspace, tmp_path: Path) -> None:
    fine = {"epochs": 2, "batch_size": 8}
    result = bench(workspace, tmp_path / "out", finetune=fine, steps=10, seeds=(0,))
    epochs = {cell["labels"]: cell["epochs"] for cell in result.cells}
    assert epochs == {20: 4, None: 2}  # 3 steps an epoch; 180
    assert "at least 10 steps" in result.summary


@pytest.mark.parametrize(
    ("examples", "batch", "accumulate", "steps"),
    [
        (10, 128, 1, 1), (128, 128, 1, 1), (129, 128, 1, 1), (130, 128, 1, 2), (10, 2, 2, 3),
        (1, 8, 1, 1),
    ],
)  # fmt: skip
def test_steps_are_counted_as_the_loop_makes_them(
    examples: int, batch: int, accumulate: int, steps: int
) -> None:
    from zoo.data import Batches

    config = TrainConfig(batch_size=batch, accumulate=accumulate)
    assert steps_an_epoch(examples, config) == steps
    batches = Batches([torch.zeros(examples, 1)], batch)
    assert -(-len(batches) // accumulate) == steps


# --- labels beyond N ------------------------------------------------------------------------


def digits() -> Examples:
    from zoo.pipeline import assembly

    part = assembly.choose(Workspace(), "dataset", "digits")
    return assembly.build_dataset(Workspace(), part).train()


def with_labels(labels: torch.Tensor, folder: Path, **splits: Any) -> Workspace:
    """A workspace whose data set `mine` is digits with these labels in the training split."""
    import zoo_heads
    import zoo_images
    import zoo_mlp
    import zoo_objectives

    examples = dataclasses.replace(digits(), labels=labels)
    data = Dataset(
        input=ImageInput(channels=1, height=8, width=8),
        classes=tuple("0123456789"),
        **{"train": lambda: examples, "test": digits, **splits},
    )
    module = ModuleType("mine")

    @hookimpl
    def zoo_datasets() -> Iterator[DatasetSpec]:
        yield DatasetSpec(name="mine", summary="", build=lambda config, root: data)

    module.zoo_datasets = zoo_datasets  # type: ignore[attr-defined]
    plugins = [zoo_heads, zoo_images, zoo_mlp, zoo_objectives, module]
    return Workspace(plugins=Registry(plugins=plugins), runs=folder)


def poisoned(truth: torch.Tensor, wanted: int, seed: int) -> torch.Tensor:
    """Return wrong labels for nearly all but those drawn, such that the same are drawn.

    A draw asks each example's class to be even over classes. What a wrong label would bring into
    the draw keeps its right one.
    """
    drawn = labelled(truth, wanted, 10, 0, seed)[0].sort().values
    wrong = (truth + 3) % 10
    wrong[drawn] = truth[drawn]
    while not torch.equal(now := labelled(wrong, wanted, 10, 0, seed)[0].sort().values, drawn):
        wrong[now] = truth[now]
    return wrong


def test_no_label_beyond_n_is_used(tmp_path: Path) -> None:
    truth = digits().labels
    assert truth is not None
    wrong = poisoned(truth, 30, 0)
    assert (wrong != truth).float().mean() > 0.9
    found = []
    for name, labels in (("right", truth), ("wrong", wrong)):
        workspace = with_labels(labels, tmp_path / name / "runs")
        result = bench(
            workspace, tmp_path / name / "out", dataset="mine", labels=(30,), seeds=(0,), steps=5
        )
        found.append([(c["method"], c["weights_sha256"], c["accuracy"]) for c in result.cells])
    assert found[0] == found[1]


def test_a_teacher_is_one_of_the_workspace_and_named_for_good(tmp_path: Path) -> None:
    """`latest` would be the bench's own newest cell, and other weights another pretraining."""
    workspace = Workspace(runs=tmp_path / "elsewhere")
    training = TrainConfig(epochs=1, batch_size=500, threads=1)
    made = [
        pipeline.finetune(
            backbone=SMALL,
            training=dataclasses.replace(training, seed=seed),
            workspace=workspace,
        )
        for seed in (0, 1)
    ]
    first, last = made
    few: dict[str, Any] = {"labels": (20,), "seeds": (0,)}

    def taught(teacher: str) -> Any:
        objectives = [Component("distill", teacher=teacher)]
        return bench(workspace, tmp_path / "out", objectives=objectives, **few)

    result = taught("latest")
    (cell,) = [cell for cell in result.cells if cell["method"] == "distill"]
    record = runs.load(workspace.runs_root / cell["runs"]["pretraining"]).record
    assert record.teachers == {last.name: last.record.weights_sha256}
    assert result.settings["teachers"] == record.teachers
    assert f"Not counted: the labels that a teacher learnt from ({last.name})" in result.summary
    assert taught(last.name).cells == result.cells
    assert taught("latest").cells == result.cells  # not the run that it made itself

    # The same name, and other weights: another pretraining, another cell.
    last.save_weights(first.load_weights())
    last.save()
    (again,) = [cell for cell in taught(last.name).cells if cell["method"] == "distill"]
    assert again["key"] != cell["key"]
    assert again["runs"]["pretraining"] != cell["runs"]["pretraining"]


# --- what cannot be trained is told before anything is --------------------------------------


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"objectives": ["denose"]}, UnknownName, r"Unknown objective 'denose'.*'denoise'"),
    ({"objectives": []}, BadOption, "objectives: name at least one"),
    ({"objectives": ["denoise", "denoise"]}, BadOption, "each once; given: scratch, denoise"),
    ({"labels": (9,)}, Unfit, "labels: 9 cannot cover 10 classes"),
    ({"labels": (5000,)}, Unfit, r"5,000 are asked for, and .* has 1,437. Type all"),
    ({"labels": ()}, BadOption, "labels: at least one, and each once; given: none"),
    ({"seeds": (1, 1)}, BadOption, "seeds: at least one, and each once; given: 1, 1"),
    ({"finetune": {"validation": 0.1}}, BadOption, "finetune: validation .*N is everything"),
    ({"finetune": {"keep": "best"}}, BadOption, "finetune: keep .*none is held out or chosen on"),
    ({"finetune": {"patience": 3}}, BadOption, "finetune: patience is not yours"),
    ({"finetune": {"labels": 3}}, BadOption, "finetune: labels .*Type --labels 10,100,all"),
    ({"finetune": {"seed": 3}}, BadOption, "finetune: seed .*Type --seeds"),
    ({"pretrain": {"threads": 3}}, BadOption, "pretrain: threads .*Type --threads"),
    ({"pretrain": {"devices": 2}}, BadOption, "pretrain: devices .*one process.*type --jobs"),
    ({"pretrain": {"label_smoothing": 0.1}}, UnknownName, "pretrain: unknown option 'label_smooth"),
    ({"scratch": {"epoch": 1}}, UnknownName, r"scratch: unknown option 'epoch'.*'epochs'"),
    ({"finetune": {"lr": -1.0}}, BadOption, "finetune: lr: '-1.0' is not allowed"),
    ({"scratch": {"lr": -1.0}}, BadOption, "scratch: lr: '-1.0' is not allowed"),
    ({"backbone": None}, BadOption, "backbone: name one with --backbone"),
    ({"dataset": "digit"}, UnknownName, "Unknown dataset 'digit'"),
    ({"steps": -1}, BadOption, "steps: -1 is not allowed"),
    ({"pretrain": {"warmup": 1.0}}, BadOption, "pretrain: warmup: the schedule one-cycle"),
    ({"finetune": {"warmup": 1.0}}, BadOption, "finetune: warmup: .*typed --finetune KEY=VALUE"),
    ({"finetune": {"freeze": True, "layer_decay": 0.5}}, BadOption, "finetune: layer_decay: with"),
    ({"scratch": {"freeze": True, "unfreeze": 2}}, BadOption, "finetune: unfreeze: --freeze"),
    ({"self_train": {"ema": 0.9}}, BadOption, "self-train: ema: the teacher is an average"),
    ({"self_train": {"epochs": 1}, "labels": (1437,)}, Unfit, "1,437 are every example, and"),
    ({"jobs": 0}, UsageError, "jobs: 0 is not allowed"),
    ({"launcher": "slurm"}, UsageError, "Unknown launcher 'slurm'. Launchers: local, ray"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "kind", "message"), WRONG, ids=lambda each: str(each)[:40])
def test_what_cannot_be_trained_is_refused_before_training(
    changed: dict[str, Any],
    kind: type[Exception],
    message: str,
    workspace: Workspace,
    tmp_path: Path,
) -> None:
    with pytest.raises(kind, match=message):
        bench(workspace, tmp_path / "out", **changed)
    assert not list(tmp_path.iterdir())


def test_a_set_without_test_split_or_classes_is_refused(tmp_path: Path) -> None:
    labels = digits().labels
    assert labels is not None
    blind = with_labels(labels, tmp_path / "runs", test=None)
    with pytest.raises(DataError, match="'mine' has no test split to measure on"):
        bench(blind, dataset="mine")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_refused(
    made: tuple[Workspace, Bench], workspace: Workspace, tmp_path: Path
) -> None:
    other = r"holds another bench: its backbone is mlp \(widths=8.*and this one's is mlp \(widths=9"
    with pytest.raises(UsageError, match=other):
        bench(workspace, made[1].folder, backbone=Component("mlp", widths=(9,), features=4))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"is not empty and holds no bench\. Name another folder"):
        bench(workspace, tmp_path)
    with pytest.raises(UsageError, match="is a file; name a folder"):
        bench(workspace, tmp_path / "notes.txt")
    with pytest.raises(UsageError, match=r"holds no bench: its plan.json is missing"):
        pipeline.bench_table(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(UsageError, match="missing or damaged"):
        pipeline.bench_table(tmp_path)


def test_plugins_that_are_objects_stay_in_one_process(tmp_path: Path) -> None:
    labels = digits().labels
    assert labels is not None
    with pytest.raises(UsageError, match="given as Python objects stay in one process"):
        bench(with_labels(labels, tmp_path / "runs"), dataset="mine", jobs=2)


def test_a_recipe_gives_what_is_not_given(workspace: Workspace) -> None:
    from zoo.pipeline.bench.planning import plan_of

    given: dict[str, Any] = dict.fromkeys(("dataset", "backbone", "head"))
    more: dict[str, Any] = {"labels": (100,), "seeds": (0,), "steps": 0, "threads": 1}
    more |= {"pretrain": {"epochs": 3}, "finetune": {}, "scratch": {}, "device": "cpu"}
    plan, _ = plan_of(workspace, **given, **more, objectives=(), recipe="quickstart")
    spec = workspace.registry.lookup("recipe", "quickstart").spec
    assert plan.backbone.name == spec.backbone.name
    assert [m.label for m in plan.methods] == ["scratch", spec.objective.name]
    assert plan.pretraining.epochs == 3
    assert plan.pretraining.lr == spec.pretraining.lr
    assert plan.finetuning.epochs == spec.finetuning.epochs
    assert spec.finetuning.validation > 0
    assert plan.finetuning.validation == plan.pretraining.validation == 0
    assert plan.finetune.labels is None


def test_a_recipe_says_what_is_otherwise_from_scratch(workspace: Workspace) -> None:
    from zoo.api import FinetuneConfig
    from zoo.pipeline.bench.planning import _scratch_of

    spec = workspace.registry.lookup("recipe", "quickstart").spec
    assert _scratch_of(spec) == {}
    own = dataclasses.replace(
        spec,
        finetuning=TrainConfig(epochs=5, lr=0.01),
        finetune=FinetuneConfig(labels=100, freeze=True),
        scratch_finetuning=TrainConfig(epochs=9, lr=0.01, validation=0.2),
        scratch_finetune=FinetuneConfig(labels=200),
    )
    assert _scratch_of(own) == {"epochs": 9, "freeze": False}


def test_two_at_once_make_a_run_once(workspace: Workspace) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def make() -> Run:
        training = TrainConfig(epochs=1, threads=1)
        noted = {"name": "test", "key": "k" * 64}
        return pipeline.pretrain(SMALL, training=training, workspace=workspace, recipe=noted)

    def take(number: int) -> Run:
        return Earlier(workspace).take_or_make("k" * 64, make)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(take, range(2))
    assert first.name == second.name
    assert len(all_runs(workspace, "pretrain")) == 1


# --- the ledger, and launchers --------------------------------------------------------------


def test_a_torn_line_is_closed_and_left_out(tmp_path: Path) -> None:
    cell = {"key": "a", "method": "scratch", "seed": 0, "accuracy": 0.5}
    ledger.append(tmp_path, cell)
    with (tmp_path / ledger.NAME).open("a") as file:
        file.write('{"key": "b", "meth')
    assert ledger.read(tmp_path) == {"a": cell}
    ledger.append(tmp_path, {**cell, "key": "c"})
    ledger.append(tmp_path, {**cell, "accuracy": 0.9})  # a second one of a key counts for nothing
    assert ledger.read(tmp_path) == {"a": cell, "c": {**cell, "key": "c"}}


class Pretended:
    """Carries out in an order of its own what it was given."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.running: list[Order] = []
        self.most = 0
        self.closed = False

    def start(self, order: Order) -> None:
        self.running.append(order)
        self.most = max(self.most, len(self.running))

    def wait(self) -> tuple[Order, Line]:
        return self.running.pop(), None  # the newest first

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_an_order_waits_for_its_pretraining_and_slots_are_kept(slots: int) -> None:
    plan: Any = None
    orders = [Order(plan, "p0"), Order(plan, "p1")]
    orders += [Order(plan, f"c{n}", after=f"p{n % 2}") for n in range(6)]
    orders += [Order(plan, "scratch")]
    launcher = Pretended(slots)
    done: list[str] = []
    for order, _ in launched(launcher, orders):
        assert order.after is None or order.after in done
        done.append(order.name)
    assert sorted(done) == sorted(order.name for order in orders)
    assert launcher.most == min(slots, 4)  # c0, c2 and c4 wait until p0 is finished
    assert launcher.closed


def test_it_closes_where_it_is_interrupted() -> None:
    launcher, plan = Pretended(2), None
    orders: Any = [Order(plan, "a"), Order(plan, "b")]  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        for _ in launched(launcher, orders):
            raise KeyboardInterrupt
    del _
    assert launcher.closed


@pytest.mark.slow
def test_parallel_jobs_make_the_same_cells(
    made: tuple[Workspace, Bench], workspace: Workspace, tmp_path: Path
) -> None:
    result = bench(workspace, tmp_path / "out", jobs=2)
    assert same(result) == same(made[1])
    assert len(all_runs(workspace, "pretrain")) == 2
    assert len(all_runs(workspace, "finetune")) == 8


def test_what_went_wrong_in_a_process_is_as_final_as_it_was_there() -> None:
    """A full disk under a plugin's feet may pass; so the error keeps, though rebuilt."""
    passing = launchers._error("PluginFault", "backbone 'a': OSError", False)
    assert (type(passing), str(passing)) == (PluginFault, "backbone 'a': OSError")
    assert not recurs(passing)
    assert recurs(launchers._error("PluginFault", "backbone 'a': KeyError", True))
    other = launchers._error("OtherExamples", f"{OtherExamples.TEXT} Bring them back", True)
    assert str(other) == f"{OtherExamples.TEXT} Bring them back"
    assert launchers._error("OutOfMemory", "no memory", False).batch is None  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_process_tells_what_went_wrong(workspace: Workspace) -> None:
    from zoo.pipeline.bench.launchers import Processes

    launcher = Processes(Site.of(workspace), 1)
    broken: Any = Order(None, "broken")  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=r"(?s)A cell failed.*AssertionError"):
        list(launched(launcher, [broken]))


def test_a_process_that_died_between_two_orders_is_told(workspace: Workspace) -> None:
    launcher = launchers.Processes(Site.of(workspace), 1)
    process, pipe = launcher._begun()
    process.kill()
    process.join()
    launcher._idle.append((process, pipe))
    said = "The process of 'next' ended with status -9. Type the same command again"
    with pytest.raises(TrainingError, match=said):
        launcher.start(Order(None, "next"))  # type: ignore[arg-type]


@pytest.mark.slow
def test_ray_makes_the_same_cells(
    made: tuple[Workspace, Bench], workspace: Workspace, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="type: pip install 'plugzoo[ray]'")
    result = bench(workspace, tmp_path / "out", launcher="ray", jobs=2)
    assert same(result) == same(made[1])
    assert len(all_runs(workspace, "pretrain")) == 2


@pytest.mark.slow
def test_ray_tells_what_went_wrong(workspace: Workspace) -> None:
    pytest.importorskip("ray", reason="type: pip install 'plugzoo[ray]'")
    from zoo.pipeline.bench.launchers import Ray

    with pytest.raises(UsageError, match=r"has 5000 CPUs; the largest has \d+ CPUs. Type fewer"):
        bench(workspace, launcher="ray", threads=5000)
    broken: Any = Order(None, "broken")  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=r"(?s)A cell failed.*AssertionError"):
        list(launched(Ray(Site.of(workspace), 1, 1, gpu=False), [broken]))


def test_without_ray_it_says_what_to_type(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"Ray is not installed. Type: pip .*\[ray\]"):
        bench(workspace, launcher="ray")


LONG = (
    "bench", "labels", "--dataset", "digits", "--backbone", "mlp", "-b", "widths=32", "-b",
    "features=8", "--objectives", "denoise", "--labels", "all", "--seeds", "2", "--pretrain",
    "epochs=6", "--finetune", "epochs=6", "--pretrain", "checkpoint_steps=1", "--finetune",
    "checkpoint_steps=1", "--runs", "runs", "-o", "out",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_killed_at_any_moment_it_ends_as_if_it_never_had_been(jobs: str, tmp_path: Path) -> None:
    def start(folder: Path) -> Forked:
        folder.mkdir(exist_ok=True)
        words = (*LONG, "--jobs", jobs)
        with (folder / "said.txt").open("a") as said:
            return Forked(words, cwd=folder, env=os.environ, stderr=said)

    assert start(tmp_path / "whole").wait(300) == 0
    whole = pipeline.bench_table(tmp_path / "whole" / "out")
    folder = tmp_path / "killed"
    for number, kind in enumerate((signal.SIGKILL, signal.SIGINT)):
        process = start(folder)
        wait_for_more(folder, process, number + 1)
        process.send_signal(kind)
        assert process.wait(60) in (-kind, 130, 0), (folder / "said.txt").read_text()
        wait_for_orphans(folder)
    assert start(folder).wait(300) == 0
    killed = pipeline.bench_table(folder / "out")
    assert same(killed) == same(whole)
    # Each cell is one run, however often it was stopped, and so is each pretraining.
    found = runs.every(folder / "runs")[0]
    assert sorted(run.record.kind for run in found) == ["finetune"] * 4 + ["pretrain"] * 2
    assert all(run.record.status == "finished" for run in found)
    assert all(cell["test_readings"] == 1 for cell in killed.cells)


def wait_for_orphans(folder: Path) -> None:
    """Wait until processes whose main one was killed have stopped at the end of their step."""
    for _ in range(6000):
        if all(run.state != "running" for run in runs.every(folder / "runs")[0]):
            return
        time.sleep(0.01)
    raise AssertionError("a process outlives the one that started it")


def wait_for_more(folder: Path, process: Forked, cells: int) -> None:
    """Wait until so many cells are finished and a training is under way, or the command ended.

    And until this command has said something: one before it may have come as far.
    """
    said = folder / "said.txt"
    before = said.stat().st_size
    for _ in range(6000):
        begun = said.stat().st_size > before
        running = begun and any((folder / "runs").glob("*/checkpoint/*"))
        if process.poll() is not None or (running and len(ledger.read(folder / "out")) >= cells):
            return
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    raise AssertionError("it did not come that far")
