"""Every built-in backbone, objective and head on digits, from pretraining to a proved file."""

from __future__ import annotations

import itertools
import json
from typing import Any

import onnx
import pytest

from zoo import pipeline
from zoo.api import Component, FinetuneConfig, TrainConfig
from zoo.pipeline import Workspace
from zoo.registry import Registry

Trained = Any
REGISTRY = Registry.installed()
EVERY = list(
    itertools.product(*(REGISTRY.names(kind) for kind in ("backbone", "objective", "head")))
)
# Small, since what is tested is that the parts go together. The whole product takes minutes.
# Each backbone and head once, and an objective of each sort: with a decoder, with views, with
# weights of its own, with a teacher.
SAMPLE = {
    *(("mlp", "distill", "linear"), ("conv", "denoise", "mlp")),
    *(("conv-residual", "variational", "linear"), ("conv-nano", "contrastive", "mlp")),
    ("conv-patch", "redundancy", "linear"),
}
CASES = [pytest.param(*names, marks=[] if names in SAMPLE else pytest.mark.slow) for names in EVERY]
SMALL = {name: {"channels": (8, 16)} for name in ("conv", "conv-patch", "conv-residual")}


def test_the_sample_has_each_backbone_and_head() -> None:
    assert set(EVERY) >= SAMPLE
    for place in (0, 2):
        assert {names[place] for names in SAMPLE} == {names[place] for names in EVERY}


@pytest.mark.parametrize(("backbone", "objective", "head"), CASES)
def test_every_combination_ends_in_a_proved_file(
    backbone: str, objective: str, head: str, workspace: Workspace, trained_once: Trained
) -> None:
    training = TrainConfig(epochs=3, batch_size=64, lr=3e-3)
    component = Component(backbone, **SMALL.get(backbone, {}))
    needed = {"teacher": str(trained_once.model)} if objective == "distill" else {}
    pretrained = pipeline.pretrain(
        component,
        dataset="digits",
        objective=Component(objective, **needed),
        training=training,
        workspace=workspace,
    )
    epochs = pretrained.metrics()
    watch = REGISTRY.lookup("objective", objective).spec.watch
    assert epochs[-1]["train"][watch] < epochs[0]["train"][watch]

    finetuned = pipeline.finetune(
        pretrained, head=head, training=training, finetune=FinetuneConfig(), workspace=workspace
    )
    assert finetuned.record.parent is not None
    assert finetuned.record.parent.weights_sha256 == pretrained.record.weights_sha256

    evaluation = pipeline.evaluate(finetuned, workspace=workspace)
    assert evaluation.accuracy > 0.3  # chance is 0.1
    assert sum(map(sum, evaluation.confusion)) == evaluation.examples == 360

    exported = pipeline.export(finetuned, workspace=workspace)
    assert exported.proof.passed
    assert exported.proof.comparison is not None
    assert exported.proof.comparison.reference_accuracy == pytest.approx(evaluation.accuracy)
    files = {path.name for path in finetuned.folder.iterdir()}
    assert {"model.onnx", "proof.json", "run.json", "weights.safetensors"} <= files
    assert not [name for name in files if name.endswith((".data", ".partial"))]

    proof = pipeline.validate(exported.model, workspace=workspace)
    assert proof.passed
    readings = json.loads((finetuned.folder / "run.json").read_text())["tests"]
    assert [reading["by"] for reading in readings] == ["evaluate", "export", "validate"]

    graph = onnx.load(exported.model).graph
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    assert batch.dim_param == "batch"
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [output.name for output in graph.output] == ["logits", "probabilities"]
