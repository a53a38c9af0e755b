"""The Python twins: lineage, transfer between data sets, label draws, probes, seeds."""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from zoo import pipeline, runs
from zoo.api import (
    Component,
    Dataset,
    DatasetSpec,
    Examples,
    FinetuneConfig,
    ImageInput,
    TrainConfig,
    hookimpl,
)
from zoo.cli.main import VERBS
from zoo.errors import BadOption, DataError, PluginFault, RunError, Unfit, UsageError
from zoo.pipeline import Workspace
from zoo.progress import reporting
from zoo.record import Record
from zoo.registry import Registry
from zoo.runs import Run

SHORT = TrainConfig(epochs=2, batch_size=64)
SMALL = Component("mlp", widths=(16,), features=8)


class Notes:
    """A reporter that keeps the notes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Any:
        from zoo.progress import Silent

        return Silent().task(description, total, unit, done)


def colour_plugin(count: int = 40, **splits: Any) -> ModuleType:
    """A data set of colour images, 3×10×14, whose two classes differ in brightness."""
    module = ModuleType("colour")
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 100, (count, 3, 10, 14), dtype=torch.uint8, generator=generator)
    inputs = noise + (labels * 150).to(torch.uint8).view(-1, 1, 1, 1)
    examples = Examples(inputs=inputs, labels=labels)
    data = Dataset(
        input=ImageInput(channels=3, height=10, width=14),
        classes=("dark", "light"),
        **{"train": lambda: examples, "test": lambda: examples, **splits},
    )

    @hookimpl
    def zoo_datasets() -> list[DatasetSpec]:
        return [DatasetSpec(name="colour", summary="", build=lambda config, root: data)]

    module.zoo_datasets = zoo_datasets  # type: ignore[attr-defined]
    return module


def with_colour(runs: Path, **splits: Any) -> Workspace:
    import zoo_conv
    import zoo_heads
    import zoo_images
    import zoo_mlp
    import zoo_objectives

    built_in: list[Any] = [zoo_conv, zoo_heads, zoo_images, zoo_mlp, zoo_objectives]
    registry = Registry(plugins=[*built_in, colour_plugin(**splits)])
    return Workspace(plugins=registry, runs=runs)


def test_every_verb_has_a_twin_of_its_name() -> None:
    from zoo.cli.bench import bench
    from zoo.cli.plugin import plugin

    groups = {"plugin": plugin, "bench": bench}
    twins = [verb for verb in VERBS if verb not in groups]
    twins += [f"{verb}_{name}" for verb, group in groups.items() for name in group.commands]
    for verb in twins:
        assert callable(getattr(pipeline, verb))
    # The last two are `bundle --verify` and `finetune --self-train`.
    parts = {"Workspace", "ExportConfig", "bundle_verify", "self_train"}
    assert {*twins, *parts} == set(pipeline.__all__)
    with pytest.raises(AttributeError, match="no attribute 'pretend'"):
        _ = pipeline.pretend


def test_the_record_holds_every_resolved_option(workspace: Workspace) -> None:
    objective = Component("denoise", noise=0.2)
    run = pipeline.pretrain(SMALL, objective=objective, training=SHORT, workspace=workspace)
    record = json.loads((run.folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["backbone"]["options"] == {
        "widths": [16], "features": 8, "activation": "relu", "norm": False, "dropout": 0.0,
        "output": "tanh",
    }  # fmt: skip
    assert record["objective"]["options"] == {"noise": 0.2, "kind": "masking"}
    assert record["objective"]["plugin"] == "plugzoo:objectives"
    assert record["training"]["epochs"] == 2
    assert record["training"]["schedule"] == "one-cycle"
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert record["metrics"]["train_examples"] + record["metrics"]["validation_examples"] == 1437
    assert len(record["weights_sha256"]) == 64
    assert [line["epoch"] for line in run.metrics()] == [1, 2]
    assert set(run.load_weights()) == {
        *(f"encoder.{i}.{n}" for i in (1, 3) for n in ("weight", "bias")),
        *(f"decoder.{i}.{n}" for i in (0, 2) for n in ("weight", "bias")),
    }


def test_finetuning_starts_from_the_pretrained_weights(workspace: Workspace) -> None:
    pretrained = pipeline.pretrain(SMALL, training=SHORT, workspace=workspace)
    frozen = pipeline.finetune(
        pretrained,
        training=SHORT,
        finetune=FinetuneConfig(freeze=True),
        workspace=workspace,
    )
    before, after = pretrained.load_weights(), frozen.load_weights()
    encoder = [name for name in before if name.startswith("encoder.")]
    assert encoder
    for name in encoder:
        assert torch.equal(before[name], after[name])
    trained = pipeline.finetune(pretrained, training=SHORT, workspace=workspace).load_weights()
    assert not torch.equal(before[encoder[0]], trained[encoder[0]])
    assert not [name for name in trained if name.startswith(("decoder.", "objective."))]


def test_one_seed_gives_the_same_bytes_and_another_does_not(workspace: Workspace) -> None:
    def digest(seed: int) -> str | None:
        config = TrainConfig(epochs=2, seed=seed, threads=1)
        run = pipeline.pretrain(SMALL, objective="denoise", training=config, workspace=workspace)
        top = pipeline.finetune(run, training=config, workspace=workspace)
        return top.record.weights_sha256

    assert digest(0) == digest(0)
    assert digest(0) != digest(1)


def test_scratch_and_pretrained_get_the_same_labels_and_head(workspace: Workspace) -> None:
    config = TrainConfig(epochs=0, seed=5)
    run = pipeline.pretrain(SMALL, training=config, workspace=workspace)
    labels = FinetuneConfig(labels=30)
    a = pipeline.finetune(run, training=config, finetune=labels, workspace=workspace)
    b = pipeline.finetune(backbone=SMALL, training=config, finetune=labels, workspace=workspace)
    # Nothing was trained: both are the initialization of one seed.
    assert a.record.weights_sha256 == b.record.weights_sha256
    assert a.record.metrics["train_examples"] == b.record.metrics["train_examples"] == 30


def test_labels_are_drawn_by_the_seed_from_what_is_not_held_out(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.pipeline import making

    drawn: list[tuple[set[int], set[int]]] = []
    true_batches = making.make_batches

    def watching(tensors: Any, train: Any, held: Any, *rest: Any) -> Any:
        drawn.append((set(train.tolist()), set(held.tolist())))
        return true_batches(tensors, train, held, *rest)

    monkeypatch.setattr("zoo.pipeline.finetuning.make_batches", watching)
    for seed in (0, 0, 1):
        pipeline.finetune(
            backbone=SMALL,
            training=TrainConfig(epochs=0, seed=seed, validation=0.5),
            finetune=FinetuneConfig(labels=300),
            workspace=workspace,
        )
    for train, held in drawn:
        assert len(train) == 300
        assert len(held) == 718
        assert not train & held
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[2][0]
    assert drawn[0][1] != drawn[2][1]


def test_pretraining_never_sees_what_finetuning_is_validated_on(tmp_path: Path) -> None:
    """Also where unlabelled examples stand behind the training split."""
    more = Examples(inputs=torch.full((60, 3, 10, 14), 7, dtype=torch.uint8))
    held = {}
    for name, splits in (("without", {}), ("with", {"unlabelled": lambda: more})):
        workspace = with_colour(tmp_path / name, **splits)
        run = pipeline.pretrain("mlp", dataset="colour", training=SHORT, workspace=workspace)
        held[name] = run.record.metrics["validation_examples"]
    assert held["with"] == held["without"] == 4


def test_options_are_checked_in_python_too(workspace: Workspace) -> None:
    wrong: Any = TrainConfig(optimizer="rmsprop")  # type: ignore[arg-type]
    with pytest.raises(BadOption, match="optimizer: 'rmsprop' is not allowed"):
        pipeline.pretrain(SMALL, training=wrong, workspace=workspace)
    assert not workspace.runs_root.exists()


@pytest.mark.parametrize("labels", [5, 9])
def test_too_few_labels_are_told_before_a_run_exists(workspace: Workspace, labels: int) -> None:
    with pytest.raises(Unfit, match="cannot cover 10 classes"):
        pipeline.finetune(
            backbone=SMALL, finetune=FinetuneConfig(labels=labels), workspace=workspace
        )
    assert not workspace.runs_root.exists()


def test_what_a_plugin_raises_in_training_names_it(workspace: Workspace) -> None:
    config = TrainConfig(epochs=1, batch_size=1)
    with pytest.raises(PluginFault, match=r"'conv' of plugin plugzoo:conv.*--batch-size 2"):
        pipeline.pretrain("conv", training=config, workspace=workspace)
    assert not workspace.runs_root.exists()  # it was tried before


def test_another_data_set_is_fitted_to_the_pretrained_input(tmp_path: Path) -> None:
    workspace = with_colour(tmp_path)
    run = pipeline.pretrain(SMALL, training=SHORT, workspace=workspace)
    notes = Notes()
    training = TrainConfig(epochs=40, batch_size=8, validation=0, lr=1e-2)
    with reporting(notes):
        top = pipeline.finetune(run, dataset="colour", training=training, workspace=workspace)
    assert "colour: 3×10×14 becomes 1×8×8, as pretrained" in notes.lines
    assert top.record.input == [1, 8, 8]
    assert top.record.data_input == [3, 10, 14]
    exported = pipeline.export(top, workspace=workspace)
    assert exported.proof.passed
    assert exported.proof.comparison is not None
    assert exported.proof.comparison.onnx_accuracy == 1.0
    # Raw bytes as the new set stores them, whatever the backbone takes.
    from zoo.export.runtime import open_session

    assert open_session(exported.model).card.input.shape == (3, 10, 14)


def test_unlabelled_examples_serve_pretraining(tmp_path: Path) -> None:
    more = Examples(inputs=torch.zeros(25, 3, 10, 14, dtype=torch.uint8))
    workspace = with_colour(tmp_path, unlabelled=lambda: more)
    run = pipeline.pretrain("conv", dataset="colour", training=SHORT, workspace=workspace)
    assert sum(run.record.metrics[f"{s}_examples"] for s in ("train", "validation")) == 65


@pytest.mark.parametrize(
    ("examples", "words"),
    [
        (Examples(inputs=torch.zeros(4, 3, 10, 14)), "holds torch.float32"),
        (Examples(inputs=torch.zeros(4, 1, 8, 8, dtype=torch.uint8)), r"declares torch.uint8 \(3,"),
        (Examples(inputs=torch.zeros(0, 3, 10, 14, dtype=torch.uint8)), "holds no example"),
        (Examples(inputs=torch.zeros(4, 3, 10, 14, dtype=torch.uint8)), "has no labels"),
        (Examples(inputs=torch.zeros(4, 3, 10, 14, dtype=torch.uint8),
                  labels=torch.tensor([0, 1, 2, 0])), "labels outside 0..1"),
    ],
)  # fmt: skip
def test_a_data_set_that_is_not_what_it_declares(
    tmp_path: Path, examples: Examples, words: str
) -> None:
    workspace = with_colour(tmp_path, train=lambda: examples)
    with pytest.raises(DataError, match=f"dataset 'colour' .*{words}"):
        pipeline.finetune(backbone=SMALL, dataset="colour", training=SHORT, workspace=workspace)


def test_a_set_without_a_test_split_trains_but_is_not_exported(tmp_path: Path) -> None:
    workspace = with_colour(tmp_path, test=None)
    run = pipeline.finetune(backbone=SMALL, dataset="colour", training=SHORT, workspace=workspace)
    with pytest.raises(DataError, match="'colour' has no test split"):
        pipeline.export(run, workspace=workspace)
    assert not run.model.exists()


def test_a_source_or_a_backbone_but_not_both(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="either a pretraining"):
        pipeline.finetune(workspace=workspace)
    with pytest.raises(RunError, match="no finished pretraining"):
        pipeline.finetune("latest", workspace=workspace)


def test_figures_of_an_evaluation(trained: Any) -> None:
    """Precision, recall and accuracy against counting by hand."""
    from zoo.pipeline.evaluation import load_classifier, load_test
    from zoo.training import outputs

    found = pipeline.evaluate(trained.finetuned, workspace=trained.workspace)
    model, data = load_classifier(trained.finetuned, trained.workspace)
    examples = load_test(trained.finetuned, data, trained.workspace)
    assert examples.labels is not None
    said = outputs(model, examples.inputs).argmax(1).tolist()
    pairs = list(zip(examples.labels.tolist(), said, strict=True))
    assert found.accuracy == sum(a == b for a, b in pairs) / 360
    for index, figures in enumerate(found.classes):
        hits = pairs.count((index, index))
        assert figures.recall == hits / sum(a == index for a, _ in pairs)
        predicted = sum(b == index for _, b in pairs)
        assert figures.precision == (hits / predicted if predicted else None)
        assert found.confusion[index] == [pairs.count((index, other)) for other in range(10)]


def test_latest_is_the_newest_that_the_verb_can_take(workspace: Workspace) -> None:
    first = pipeline.pretrain(SMALL, training=SHORT, workspace=workspace)
    second = pipeline.finetune("latest", training=SHORT, workspace=workspace)
    assert second.record.parent is not None
    assert second.record.parent.run == first.name
    third = pipeline.pretrain(SMALL, training=SHORT, workspace=workspace)
    assert pipeline.evaluate("latest", workspace=workspace).run == second.name
    again = pipeline.finetune("latest", training=SHORT, workspace=workspace)
    assert again.record.parent is not None
    assert again.record.parent.run == third.name


def test_a_loss_on_probabilities_is_recorded_and_learns_slower(workspace: Workspace) -> None:
    config = TrainConfig(epochs=15, lr=3e-3)

    def loss(kind: Any) -> float:
        run = pipeline.finetune(
            backbone=SMALL,
            training=config,
            finetune=FinetuneConfig(loss_on=kind),
            workspace=workspace,
        )
        assert run.record.finetune is not None
        assert run.record.finetune["loss_on"] == kind
        return float(run.record.metrics["train"]["total"])

    # A softmax under cross entropy cannot bring ten classes below log(e + 9) - 1 = 1.46.
    assert loss("probabilities") > 1.46
    assert loss("logits") < 1.46


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_ctrl_c_in_a_runs_first_moment_is_written_down(
    kind: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is there, and nothing guards it yet."""
    create = runs.create
    deeds: dict[str, Any] = {
        "pretrain": functools.partial(pipeline.pretrain, SMALL),
        "finetune": functools.partial(pipeline.finetune, None, backbone=SMALL),
    }

    def interrupted(root: Path, record: Record) -> Run:
        made = create(root, record)
        os.kill(os.getpid(), signal.SIGINT)
        return made

    monkeypatch.setattr(runs, "create", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            deeds[kind](training=SHORT, workspace=workspace)
    finally:
        signal.signal(signal.SIGINT, before)
    [run] = runs.every(workspace.runs_root)[0]
    assert run.state == "interrupted"
    assert not run.metrics()
