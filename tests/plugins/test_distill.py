"""Distillation: the loss against loops in numpy, and teachers of every sort, found or refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file
from torch import Tensor, nn

from zoo import pipeline
from zoo.api import Component, ImageInput, Losses, TrainConfig, teacher
from zoo.errors import ModelFileError, RunError, Unfit, ZooError
from zoo.pipeline import Workspace
from zoo.pipeline.teaching import Library, lending
from zoo.runs import Run
from zoo_objectives.configs import DistillConfig
from zoo_objectives.distill import Distill, soft_divergence

SMALL = Component("mlp", widths=(16,), features=8)
SHORT = TrainConfig(epochs=1, batch_size=256)
GREY_8 = ImageInput(channels=1, height=8, width=8)
Trained = Any


def pupil(workspace: Workspace, text: object, *, epochs: int = 1, **options: Any) -> Run:
    return pipeline.pretrain(
        SMALL,
        objective=Component("distill", teacher=str(text), **options),
        training=TrainConfig(epochs=epochs, batch_size=64, lr=3e-3),
        workspace=workspace,
    )


def some_bytes(count: int = 9, shape: tuple[int, int, int] = GREY_8.shape) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)


# --- the loss -------------------------------------------------------------------------------


def softmax(logits: Any) -> list[float]:
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("shape", [(1, 2), (5, 10), (8, 3)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_soft_targets_are_hintons(shape: tuple[int, int], temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, wanted = (
        3 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    total = 0.0
    for mine, theirs in zip(student.numpy(), wanted.numpy(), strict=True):
        p, q = softmax(theirs / temperature), softmax(mine / temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    expected = temperature**2 * total / shape[0]
    assert soft_divergence(student, wanted, temperature).item() == pytest.approx(expected)
    assert soft_divergence(wanted, wanted, temperature).item() == pytest.approx(0, abs=1e-12)


class Fixed:
    """A teacher whose answers are given."""

    input = GREY_8

    def __init__(self, kind: Any, answers: Tensor) -> None:
        self.kind, self.answers, self.width = kind, answers, answers.shape[1]

    def teacher(self, text: str) -> Fixed:
        return self

    def __call__(self, raw: Tensor) -> Tensor:
        return self.answers


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features, self.decoder = 5, None
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))


def taught(kind: str, answers: Tensor, **options: Any) -> tuple[Any, Losses]:
    """Return the pupil's answers, as numpy makes them, and its losses."""
    torch.manual_seed(0)
    backbone: Any = Flat()
    with lending(Fixed(kind, answers)):
        objective = Distill(DistillConfig(teacher="any", **options), backbone)
    inputs = torch.rand(len(answers), 1, 8, 8)
    values = inputs.flatten(1).double().numpy()
    for layer in (backbone.encoder[1], objective.projector):
        weight, bias = (t.detach().double().numpy() for t in (layer.weight, layer.bias))
        values = values @ weight.T + bias
    return values, objective(backbone, inputs, some_bytes(len(answers)))


@pytest.mark.parametrize("match", ["cosine", "mse"])
@pytest.mark.parametrize("width", [1, 7])
def test_features_are_regressed_on(match: str, width: int) -> None:
    wanted = torch.randn(6, width, generator=torch.Generator().manual_seed(2))
    answers, losses = taught("features", wanted, match=match)
    pairs = list(zip(answers, wanted.double().numpy(), strict=True))
    lengths = [np.sqrt(np.sum(a**2)) * np.sqrt(np.sum(b**2)) for a, b in pairs]
    cosine = np.mean([np.sum(a * b) / n for (a, b), n in zip(pairs, lengths, strict=True)])
    error = np.mean([(a - b) ** 2 for a, b in pairs])
    assert losses.parts["cosine"].item() == pytest.approx(cosine, abs=1e-5)
    expected = error if match == "mse" else 1 - cosine
    assert losses.total.item() == pytest.approx(expected, abs=1e-5)


def test_agreement_counts_the_same_choice() -> None:
    wanted = torch.randn(50, 4, generator=torch.Generator().manual_seed(3))
    answers, losses = taught("logits", wanted)
    same = np.mean(answers.argmax(axis=1) == wanted.numpy().argmax(axis=1))
    assert losses.parts["agreement"].item() == pytest.approx(same)


# --- teachers -------------------------------------------------------------------------------


def test_a_file_and_its_run_teach_the_same(trained: Trained) -> None:
    raw = some_bytes()
    library = Library(trained.workspace)
    run, file = library.teacher(trained.finetuned.name), library.teacher(str(trained.model))
    for each in (run, file):
        assert (each.kind, each.width, each.input) == ("logits", 10, GREY_8)
        assert not each(raw).requires_grad
        assert not isinstance(each, nn.Module)
    assert torch.allclose(run(raw), file(raw), atol=1e-4)


def test_a_pretraining_teaches_its_features(trained: Trained) -> None:
    found = Library(trained.workspace).teacher(str(trained.pretrained.folder))
    assert (found.kind, found.width) == ("features", 16)
    weights = load_file(trained.pretrained.folder / "weights.safetensors")
    values = (some_bytes().double() / 255 - 0.5).numpy().reshape(9, -1) / 0.5
    layers = sorted({name.split(".")[1] for name in weights if name.startswith("encoder.")})
    for place, layer in enumerate(layers):
        weight, bias = (
            weights[f"encoder.{layer}.{n}"].double().numpy() for n in ("weight", "bias")
        )
        values = values @ weight.T + bias
        values = np.maximum(values, 0) if place + 1 < len(layers) else values
    assert np.allclose(found(some_bytes()).numpy(), values, atol=1e-4)


def test_looking_a_teacher_up_draws_nothing(trained: Trained) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Library(trained.workspace).teacher("latest")
    assert torch.equal(torch.get_rng_state(), before)


def test_outside_of_a_pipeline_runs_are_where_zoo_runs_says(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_RUNS", str(trained.runs))
    assert teacher(trained.finetuned.name).kind == "logits"


def foreign(path: Path, **changes: Any) -> Path:
    """Write somebody else's file: bytes to a linear layer of their float values."""
    say = {"taken": TensorProto.UINT8, "batch": "n", "sides": (1, 8, 8), "name": "logits"} | changes
    weight = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["raw"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["values"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], [say["name"]]),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("raw", say["taken"], [say["batch"], *say["sides"]])],
        [helper.make_tensor_value_info(say["name"], TensorProto.FLOAT, [say["batch"], 3])],
        [helper.make_tensor("weight", TensorProto.FLOAT, (64, 3), weight.tobytes(), raw=True)],
    )
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


@pytest.mark.parametrize(("name", "kind"), [("logits", "logits"), ("embedding", "features")])
def test_a_file_of_somebody_else_teaches(
    name: str, kind: str, tmp_path: Path, workspace: Workspace
) -> None:
    path = foreign(tmp_path / "foreign.onnx", name=name)
    found = Library(workspace).teacher(str(path))
    assert (found.kind, found.width, found.input) == (kind, 3, GREY_8)
    weight = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    raw = some_bytes()
    assert np.allclose(found(raw).numpy(), raw.flatten(1).numpy().astype(np.float32) @ weight)


@pytest.mark.parametrize(
    "changes",
    [{"taken": TensorProto.FLOAT}, {"batch": 4}, {"sides": ("c", 8, 8)}, {"sides": (64,)}],
)
def test_a_file_that_takes_no_raw_bytes_is_refused(
    changes: dict[str, Any], tmp_path: Path, workspace: Workspace
) -> None:
    path = foreign(tmp_path / "foreign.onnx", **changes)
    with pytest.raises(ModelFileError, match=r"foreign.onnx' has raw, .*A teacher takes raw bytes"):
        pupil(workspace, path)
    assert not workspace.runs_root.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nobody", r"There is no run 'nobody' under .* A teacher is a run's folder or name"),
        ("latest", r"There is no finished run under .* A teacher is a run's folder or name"),
        ("nobody.onnx", r"There is no file 'nobody.onnx'"),
        ("notes.onnx", r"'notes.onnx' is not a file that onnxruntime can load"),
        ("empty.onnx", r"'empty.onnx' is empty"),
    ],
)
def test_a_teacher_that_is_not_there(
    text: str, said: str, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.onnx").write_text("no model")
    Path("empty.onnx").touch()
    with pytest.raises(ZooError, match=said):
        pupil(workspace, text)
    assert not workspace.runs_root.exists()


def test_a_teacher_of_another_input_is_refused_before_data_is_loaded(
    trained: Trained, tmp_path: Path
) -> None:
    wide = foreign(tmp_path / "wide.onnx", sides=(1, 4, 16))
    with pytest.raises(Unfit, match=r"wide.onnx' takes inputs of 1×4×16, .* data set are 1×8×8"):
        pupil(trained.workspace, wide)
    assert len(list(trained.runs.iterdir())) == 2


def test_an_unfinished_run_does_not_teach(trained: Trained) -> None:
    trained.finetuned.record.status = "interrupted"
    trained.finetuned.save()
    with pytest.raises(RunError, match=r"is a interrupted finetuning; needed is a finished run"):
        pupil(trained.workspace, trained.finetuned.name)


# --- the pupil ------------------------------------------------------------------------------


def test_a_pupil_comes_to_agree_and_saves_no_teacher(trained: Trained) -> None:
    run = pupil(trained.workspace, "latest", epochs=8)
    epochs = run.metrics()
    assert epochs[-1]["train"]["agreement"] > epochs[0]["train"]["agreement"] + 0.1
    assert epochs[-1]["train"]["total"] < 0.8 * epochs[0]["train"]["total"]
    own = [name for name in run.load_weights() if name.startswith("objective.")]
    assert sorted(own) == ["objective.projector.bias", "objective.projector.weight"]


def test_the_record_names_the_teacher_for_good(trained: Trained) -> None:
    run = pupil(trained.workspace, "latest")
    written = json.loads((run.folder / "run.json").read_text())
    name, sha256 = trained.finetuned.name, trained.finetuned.record.weights_sha256
    assert written["objective"]["options"]["teacher"] == name
    assert written["teachers"] == {name: sha256}
    again = pupil(trained.workspace, trained.model)
    assert again.record.objective is not None
    assert again.record.objective.options["teacher"] == str(trained.model.absolute())


def stopped(trained: Trained, monkeypatch: pytest.MonkeyPatch, text: str) -> Run:
    """Begin a pupil of three epochs, and fail after the first."""
    append = Run.append_metrics

    def fail(self: Run, line: Any) -> None:
        append(self, line)
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "append_metrics", fail)
    workspace = trained.workspace
    training = TrainConfig(epochs=3, batch_size=64, checkpoint_steps=1, checkpoint_seconds=None)
    with pytest.raises(KeyboardInterrupt):
        pipeline.pretrain(
            SMALL,
            objective=Component("distill", teacher=text),
            training=training,
            workspace=workspace,
        )
    monkeypatch.setattr(Run, "append_metrics", append)
    assert workspace.run is not None
    return workspace.run


def test_a_pupil_goes_on_with_the_teacher_it_began_with(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though another run is the latest one by then."""
    whole = pipeline.pretrain(
        SMALL,
        objective=Component("distill", teacher=trained.finetuned.name),
        training=TrainConfig(epochs=3, batch_size=64),
        workspace=Workspace(runs=trained.runs),
    )
    shutil.rmtree(whole.folder)
    begun = stopped(trained, monkeypatch, "latest")
    pipeline.pretrain(SMALL, training=SHORT, workspace=Workspace(runs=trained.runs))
    resumed = pipeline.resume(begun.name, workspace=Workspace(runs=trained.runs))
    assert resumed.record.weights_sha256 == whole.record.weights_sha256


def test_a_teacher_that_changed_is_told(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = stopped(trained, monkeypatch, str(trained.model))
    foreign(trained.model)
    with pytest.raises(RunError, match=r"began with the teacher '.*', whose weights are others"):
        pipeline.resume(begun.name, workspace=Workspace(runs=trained.runs))


def test_the_command_line_s_runs_are_the_teacher_s(
    trained: Trained, cli: Callable[..., Any]
) -> None:
    small = ("--widths", "16", "--features", "8", "--epochs", "1", "--runs", trained.runs)
    done = cli("pretrain", "mlp", "--objective", "distill", "-o", "teacher=latest", *small)
    assert done.exit_code == 0, done.output
    done = cli("pretrain", "mlp", "--objective", "distill", *small)
    assert done.exit_code == 2
    assert "objective 'distill': option 'teacher' is required" in done.stderr
