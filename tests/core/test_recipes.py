"""Recipes: the choice on validation data, what is used again, what is exported."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from zoo import pipeline, runs
from zoo.api import (
    Component,
    FinetuneConfig,
    RecipeSpec,
    SelfTrainConfig,
    TrainConfig,
    hookimpl,
)
from zoo.errors import BadOption, UnknownName
from zoo.pipeline import Workspace
from zoo.registry import Registry

pytestmark = pytest.mark.usefixtures("graphs_kept")

TINY = RecipeSpec(
    name="tiny",
    summary="",
    dataset=Component("digits"),
    backbone=Component("mlp", widths=(16,), features=8),
    objective=Component("reconstruct"),
    head=Component("linear"),
    pretraining=TrainConfig(epochs=1),
    finetuning=TrainConfig(epochs=2, batch_size=20, lr=3e-3),
    finetune=FinetuneConfig(labels=100),
)


def workspace_with(recipe: RecipeSpec, folder: Path, *datasets: Any) -> Workspace:
    import zoo_heads
    import zoo_images
    import zoo_mlp
    import zoo_objectives

    module = ModuleType("tiny")

    @hookimpl
    def zoo_recipes() -> list[RecipeSpec]:
        return [recipe]

    @hookimpl
    def zoo_datasets() -> Any:
        return datasets

    module.zoo_recipes = zoo_recipes  # type: ignore[attr-defined]
    module.zoo_datasets = zoo_datasets  # type: ignore[attr-defined]
    built_in: list[Any] = [zoo_heads, zoo_images, zoo_mlp, zoo_objectives]
    return Workspace(plugins=Registry(plugins=[*built_in, module]), runs=folder)


def test_a_recipe_compares_chooses_and_exports(tmp_path: Path) -> None:
    workspace = workspace_with(TINY, tmp_path)
    result = pipeline.run("tiny", workspace=workspace)
    assert [method.name for method in result.methods] == ["pretrained", "from scratch"]
    best = max(result.methods, key=lambda method: statistics.fmean(method.validation))
    assert result.chosen == best.name
    # The file is the first seed's of the chosen method.
    assert result.model == tmp_path / best.runs[0] / "model.onnx"
    assert result.proof.passed
    found, _ = runs.every(tmp_path)
    assert len(found) == 9  # three seeds: pretrained, finetuned, from scratch
    for method in result.methods:
        for seed, name, accuracy in zip(result.seeds, method.runs, method.accuracies, strict=True):
            run = runs.load(tmp_path / name)
            assert run.record.seed == seed
            assert run.record.metrics["train_examples"] == 100
            readings = [reading["by"] for reading in run.record.tests]
            exported = ["export"] if run.folder == result.model.parent else []
            assert sorted(readings) == sorted(["evaluate", *exported])
            assert run.record.tests[0]["accuracy"] == accuracy
    assert result.gain is not None
    pretrained, scratch = result.methods
    differences = [a - b for a, b in zip(pretrained.accuracies, scratch.accuracies, strict=True)]
    assert result.gain[0] == pytest.approx(statistics.fmean(differences))
    # A pretrained classifier costs its pretraining too.
    spent = [runs.load(tmp_path / name).record.seconds for name in result.pretrainings]
    own = [runs.load(tmp_path / name).record.seconds for name in pretrained.runs]
    for total, before, after in zip(pretrained.seconds, spent, own, strict=True):
        assert total == pytest.approx(before + after)
    assert best.deviation == pytest.approx(statistics.stdev(best.accuracies))


def test_the_choice_is_made_before_the_test_split_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it chosen on test accuracies, these would choose the other one."""
    from zoo.pipeline import recipes

    workspace = workspace_with(TINY, tmp_path)
    plain = pipeline.run("tiny", workspace=workspace)
    other = next(method for method in plain.methods if method.name != plain.chosen)

    def flattering(run: Any, workspace: Workspace, device: str) -> float:
        return 1.0 if run.name in other.runs else 0.0

    monkeypatch.setattr(recipes, "accuracy_once", flattering)
    assert pipeline.run("tiny", workspace=workspace).chosen == plain.chosen


@pytest.mark.slow
def test_begun_again_it_goes_on_from_finished_parts(tmp_path: Path) -> None:
    workspace = workspace_with(TINY, tmp_path)
    first = pipeline.run("tiny", seeds=[0], workspace=workspace)
    assert first.reused == 0
    # As if it had been killed in the finetuning of the second seed.
    more = pipeline.run("tiny", seeds=[0, 1], workspace=workspace)
    assert more.reused == 3
    assert more.methods[0].runs[0] == first.methods[0].runs[0]
    assert len(runs.every(tmp_path)[0]) == 6
    fresh = pipeline.run("tiny", seeds=[0], fresh=True, workspace=workspace)
    assert fresh.reused == 0
    assert fresh.methods[0].accuracies == first.methods[0].accuracies


@pytest.mark.slow
def test_other_options_are_not_mistaken_for_the_same(tmp_path: Path) -> None:
    pipeline.run("tiny", seeds=[0], workspace=workspace_with(TINY, tmp_path))
    longer = dataclasses.replace(TINY, finetuning=dataclasses.replace(TINY.finetuning, epochs=3))
    changed = pipeline.run("tiny", seeds=[0], workspace=workspace_with(longer, tmp_path))
    assert changed.reused == 1  # the pretraining alone


def test_the_key_holds_whatever_decides_the_result(tmp_path: Path) -> None:
    from zoo.pipeline.reuse import key_of

    workspace = workspace_with(TINY, tmp_path)
    parts = {"dataset": TINY.dataset, "backbone": TINY.backbone, "head": TINY.head}
    training = TrainConfig()
    parent = pipeline.pretrain(TINY.backbone, training=TINY.pretraining, workspace=workspace)
    other = pipeline.pretrain(
        TINY.backbone, training=dataclasses.replace(TINY.pretraining, seed=1), workspace=workspace
    )
    few = FinetuneConfig(labels=100)
    keys = [
        key_of(workspace, parts, training),
        key_of(workspace, parts, training, few),
        key_of(workspace, parts, training, few, parent),
        key_of(workspace, parts, training, few, other),
        key_of(workspace, parts, training, few, None, parent.input),
        key_of(workspace, {**parts, "backbone": Component("mlp", widths=(17,))}, training),
    ]
    changes: dict[str, Any] = {
        "epochs": 11, "batch_size": 3, "optimizer": "sgd", "lr": 0.5, "momentum": 0.5,
        "weight_decay": 0.5, "schedule": "cosine", "seed": 7, "validation": 0.5, "threads": 1,
        "accumulate": 2, "nesterov": True, "warmup": 1.0, "clip_norm": 1.0, "ema": 0.9,
        "patience": 3, "keep": "best", "shift": 1, "flip": True, "rotate": 5.0, "zoom": 0.1,
        "shear": 5.0, "jitter": 0.1, "noise": 0.1, "erase": 0.5, "precision": "bf16",
        "channels_last": False, "compile": True, "devices": 2,
    }  # fmt: skip
    harmless = {"checkpoint_seconds": None, "checkpoint_steps": 7, "log": "tensorboard"}
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    assert {*changes, *harmless, "device", "strategy"} == known
    assert key_of(workspace, parts, dataclasses.replace(training, **harmless)) == keys[0]
    for name, value in changes.items():
        keys.append(key_of(workspace, parts, dataclasses.replace(training, **{name: value})))
    for teachers in ({"one": "a"}, {"one": "b"}, {"one": "a", "two": "b"}):
        keys.append(key_of(workspace, parts, training, teachers=teachers))
    assert len(set(keys)) == len(keys)
    assert key_of(workspace, parts, training) == keys[0]


@pytest.mark.parametrize(
    ("edited", "digest"),
    [("source_digest", lambda spec: "edited"), ("core_digest", lambda: "edited")],
)
def test_an_edited_source_is_another_key(
    edited: str, digest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin's, or zoo's own: the version may be the same. That holds of runs and of cells."""
    from zoo.pipeline import sources
    from zoo.pipeline.bench.planning import plan_of
    from zoo.pipeline.reuse import key_of

    workspace = workspace_with(TINY, tmp_path)
    parts = {"dataset": TINY.dataset, "backbone": TINY.backbone, "objective": TINY.objective}
    plan, _ = plan_of(
        workspace, dataset=None, backbone=None, head=None, objectives=(), labels=(20,), seeds=(0,),
        pretrain={}, finetune={}, scratch={}, steps=0, threads=1, device="cpu", recipe="tiny",
    )  # fmt: skip

    def keys() -> set[str]:
        cells = {plan.key(workspace, cell) for cell in plan.cells}
        return {*cells, key_of(workspace, parts, TINY.pretraining)}

    before = keys()
    assert before == keys()
    monkeypatch.setattr(sources, edited, digest)
    assert len(before) == len(keys()) == 3
    assert not before & keys()


@pytest.mark.parametrize(
    ("edited", "digest"),
    [("source_digest", lambda spec: "edited"), ("core_digest", lambda: "edited")],
)
def test_what_was_edited_is_run_anew(
    edited: str, digest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.pipeline import recipes, sources

    exported = SimpleNamespace(model=tmp_path / "model.onnx", bytes=0, proof=None)
    monkeypatch.setattr(recipes, "export", lambda run, workspace: exported)
    short = dataclasses.replace(TINY.finetuning, epochs=1)
    recipe = dataclasses.replace(TINY, finetuning=short, scratch=False)
    workspace = workspace_with(recipe, tmp_path)

    def reused() -> int:
        return pipeline.run("tiny", seeds=[0], workspace=workspace).reused

    assert reused() == 0
    assert reused() == 2
    monkeypatch.setattr(sources, edited, digest)
    assert reused() == 0
    assert len(runs.every(tmp_path)[0]) == 4


def test_a_recipe_has_one_teacher_for_all_seeds_and_trains_anew_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`latest` is the newest run that the recipe itself did not make, when it begins."""
    from zoo.pipeline import recipes

    exported = SimpleNamespace(model=tmp_path / "model.onnx", bytes=0, proof=None)
    monkeypatch.setattr(recipes, "export", lambda run, workspace: exported)
    recipe = dataclasses.replace(
        TINY,
        objective=Component("distill", teacher="latest"),
        finetuning=dataclasses.replace(TINY.finetuning, epochs=1),
        scratch=False,
    )
    workspace = workspace_with(recipe, tmp_path)

    def teacher(seed: int) -> runs.Run:
        training = TrainConfig(epochs=1, seed=seed)
        return pipeline.finetune(backbone=TINY.backbone, training=training, workspace=workspace)

    def taught_by(result: Any) -> list[dict[str, str]]:
        return [runs.load(tmp_path / name).record.teachers for name in result.pretrainings]

    first = teacher(0)
    result = pipeline.run("tiny", seeds=[0, 1], workspace=workspace)
    assert taught_by(result) == [{first.name: first.record.weights_sha256}] * 2
    again = pipeline.run("tiny", seeds=[0, 1], workspace=workspace)
    assert (again.reused, again.pretrainings) == (4, result.pretrainings)
    second = teacher(1)
    other = pipeline.run("tiny", seeds=[0], workspace=workspace)
    assert other.reused == 0
    assert taught_by(other) == [{second.name: second.record.weights_sha256}]


def test_the_source_of_any_callable_is_digested_or_said_to_be_unknown(tmp_path: Path) -> None:
    from zoo.pipeline.sources import source_digest

    class Builder:
        def __call__(self) -> None: ...

    def digest(build: Any) -> str:
        return source_digest(SimpleNamespace(build=build))

    namespace: dict[str, Any] = {}
    exec("def build(): ...", namespace)
    assert len(digest(Builder())) == len(digest(Builder)) == 64
    assert digest(namespace["build"]) == "unknown"
    path = tmp_path / "plugin_file.py"
    seen = set()
    for text in ("def build(): return 1", "def build(): return 2"):
        path.write_text(text)
        exec(compile(text, str(path), "exec"), namespace)
        seen.add(digest(namespace["build"]))
    assert len(seen) == 2


def test_scratch_is_the_same_model_where_the_sets_differ_in_size(tmp_path: Path) -> None:
    """Pretrained on 8×8 digits, finetuned on larger images: scratch is built for 8×8 too."""
    import torch

    from zoo.api import Dataset, DatasetSpec, Examples, ImageInput

    images = torch.arange(60 * 12 * 12).view(60, 1, 12, 12).remainder(251).to(torch.uint8)
    examples = Examples(inputs=images, labels=torch.arange(60) % 2)
    larger = Dataset(
        input=ImageInput(channels=1, height=12, width=12),
        classes=("even", "odd"),
        train=lambda: examples,
        test=lambda: examples,
    )
    recipe = dataclasses.replace(
        TINY,
        pretrain_dataset=Component("digits"),
        dataset=Component("larger"),
        finetune=FinetuneConfig(),
    )
    workspace = workspace_with(
        recipe, tmp_path, DatasetSpec(name="larger", summary="", build=lambda c, root: larger)
    )
    result = pipeline.run("tiny", seeds=[0], workspace=workspace)
    pretrained, scratch = (runs.load(tmp_path / m.runs[0]) for m in result.methods)
    assert pretrained.record.input == scratch.record.input == [1, 8, 8]
    shapes = [{n: t.shape for n, t in run.load_weights().items()} for run in (pretrained, scratch)]
    assert shapes[0] == shapes[1]


def test_the_model_from_scratch_may_have_settings_of_its_own(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        TINY,
        finetune=FinetuneConfig(labels=100, freeze=True),
        scratch_finetuning=dataclasses.replace(TINY.finetuning, epochs=3),
        scratch_finetune=FinetuneConfig(labels=100),
    )
    result = pipeline.run("tiny", seeds=[0], workspace=workspace_with(recipe, tmp_path))
    pretrained, scratch = (runs.load(tmp_path / m.runs[0]).record for m in result.methods)
    assert pretrained.finetune is not None
    assert scratch.finetune is not None
    assert (pretrained.finetune["freeze"], pretrained.training["epochs"]) == (True, 2)
    assert (scratch.finetune["freeze"], scratch.training["epochs"]) == (False, 3)


def test_self_training_goes_on_from_each_and_is_reported_beside_it(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        TINY,
        finetuning=dataclasses.replace(TINY.finetuning, validation=0),
        self_training=TrainConfig(epochs=1, shift=1),
        self_train=SelfTrainConfig(confidence=0.5),
    )
    workspace = workspace_with(recipe, tmp_path)
    result = pipeline.run("tiny", seeds=[0, 1], workspace=workspace)
    names = ["pretrained", "from scratch"]
    names += [f"{name}, self-trained" for name in names]
    assert [method.name for method in result.methods] == names
    for method, teacher in zip(result.methods[2:], result.methods[:2], strict=True):
        for seed, (name, taught_by) in enumerate(zip(method.runs, teacher.runs, strict=True)):
            record = runs.load(tmp_path / name).record
            assert record.parent is not None
            assert record.parent.run == taught_by
            assert (record.seed, record.training["validation"]) == (seed, 0)
            assert [reading["by"] for reading in record.tests].count("evaluate") == 1
        assert all(a > b for a, b in zip(method.seconds, teacher.seconds, strict=True))
    # Without validation data nothing is chosen on results: what the recipe is for is exported.
    assert result.chosen == "pretrained, self-trained"
    assert result.model.parent.name == result.methods[2].runs[0]
    pretrained, scratch = (method.accuracies for method in result.methods[2:])
    differences = [a - b for a, b in zip(pretrained, scratch, strict=True)]
    assert result.self_trained_gain is not None
    assert result.self_trained_gain[0] == pytest.approx(statistics.fmean(differences))
    assert pipeline.run("tiny", seeds=[0, 1], workspace=workspace).reused == 10


@pytest.mark.slow
def test_damaged_or_unfinished_parts_are_made_anew(tmp_path: Path) -> None:
    workspace = workspace_with(TINY, tmp_path)
    first = pipeline.run("tiny", seeds=[0], workspace=workspace)
    (tmp_path / first.methods[0].runs[0] / "weights.safetensors").unlink()
    record = tmp_path / first.methods[1].runs[0] / "run.json"
    record.write_text(record.read_text().replace('"finished"', '"interrupted"'))
    again = pipeline.run("tiny", seeds=[0], workspace=workspace)
    assert again.reused == 1


@pytest.mark.parametrize("outside", [False, True])
def test_a_recipe_of_several_processes_is_refused(
    outside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them would measure and export."""
    several = TINY
    if outside:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        monkeypatch.setenv("WORLD_SIZE", "2")
    else:
        finetuning = dataclasses.replace(TINY.finetuning, devices=2)
        several = dataclasses.replace(TINY, finetuning=finetuning)
    with pytest.raises(BadOption, match="recipe 'tiny' trains in one process"):
        pipeline.run("tiny", workspace=workspace_with(several, tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seeds", [[], [1, 1]])
def test_seeds_are_at_least_one_and_each_once(tmp_path: Path, seeds: list[int]) -> None:
    with pytest.raises(BadOption, match="each once"):
        pipeline.run("tiny", seeds=seeds, workspace=workspace_with(TINY, tmp_path))


def test_a_recipe_with_a_wrong_part_names_it(tmp_path: Path) -> None:
    wrong = dataclasses.replace(TINY, backbone=Component("mlp", width=(3,)))
    with pytest.raises(UnknownName, match=r"backbone 'mlp': unknown option 'width'.*'widths'"):
        pipeline.run("tiny", workspace=workspace_with(wrong, tmp_path))


def test_built_in_recipes_name_parts_that_exist() -> None:
    registry = Registry.installed()
    for entry in registry.entries("recipe"):
        spec = entry.spec
        for kind in ("dataset", "backbone", "objective", "head"):
            part = getattr(spec, kind)
            registry.lookup(kind, part.name).configure(part.options)
        assert len(spec.seeds) >= 3


def test_the_textbook_is_the_tutorial_to_the_letter() -> None:
    import torch
    from torch import nn

    from zoo.api import ImageInput
    from zoo.pipeline.assembly import build_backbone, choose

    workspace = Workspace()
    spec = workspace.registry.lookup("recipe", "textbook").spec
    part = choose(workspace, "backbone", spec.backbone)
    model: Any = build_backbone(part, ImageInput(channels=1, height=28, width=28))
    sizes = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)]
    assert sizes == [128, 64, 12, 3, 12, 64, 128, 784]
    assert isinstance(model.decoder[-2], nn.Tanh)
    assert torch.equal(model.decoder(torch.zeros(1, 3)).abs() <= 1, torch.ones(1, 1, 28, 28) == 1)
    for training in (spec.pretraining, spec.finetuning):
        assert (training.optimizer, training.lr, training.momentum) == ("sgd", 0.001, 0.9)
        assert (training.batch_size, training.epochs, training.schedule) == (100, 10, "constant")
        assert training.weight_decay == training.validation == 0
    assert spec.objective.name == "reconstruct"
    assert spec.finetune.loss_on == "probabilities"
    assert (spec.pretrain_dataset.name, spec.dataset.name) == ("mnist", "fashion-mnist")
