"""The tensor between preprocessing and encoder: what it is called, what it holds, what reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from zoo.api import ImageInput, Preprocessing
from zoo.errors import ModelFileError
from zoo.export.boundary import described, preprocessing
from zoo.export.card import PREPROCESSED
from zoo.export.graph import to_graph
from zoo.export.naming import shorten
from zoo.models import Classifier, Preprocess

GREY, COLOUR = ImageInput(channels=1, height=6, width=6), ImageInput(channels=3, height=9, width=7)
CENTRED = Preprocessing()
NOTHING = Preprocessing(mean=(0.0,), std=(1 / 255,))
"""The bytes as they are: times 1, plus 0."""


class InPlace(nn.Module):
    """Goes on with the same operators as preprocessing, in the same memory."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mul_(2).add_(-1).relu_().flatten(1)


class Flat(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.view(len(inputs), -1)


class Cast(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.to(torch.float64).flatten(1).float()


class Last(nn.Module):
    """Undoes the permutation of an NHWC input."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.permute(0, 2, 3, 1).contiguous().flatten(1)


class Blind(nn.Module):
    """Reads no more of its input than its batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.ones(1, 36))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.answer.expand(inputs.shape[0], -1)


def exported(
    encoder: nn.Module, stored: ImageInput, wanted: Preprocessing, **options: Any
) -> tuple[Preprocess, onnx.ModelProto]:
    torch.manual_seed(0)
    preprocess = Preprocess(stored, GREY, wanted)
    return preprocess, to_graph(
        Classifier(preprocess, encoder, nn.Linear(36, 3)), stored, **options
    )


CASES: list[tuple[type[nn.Module], ImageInput, Preprocessing, int, str, int | None]] = [
    (InPlace, GREY, CENTRED, 18, "NCHW", None),
    (InPlace, COLOUR, NOTHING, 20, "NHWC", 2),
    (Flat, GREY, NOTHING, 21, "NHWC", None),
    (Flat, COLOUR, CENTRED, 18, "NCHW", 2),
    (Cast, GREY, NOTHING, 18, "NCHW", None),
    (Last, GREY, NOTHING, 20, "NHWC", None),
    (Blind, GREY, CENTRED, 21, "NCHW", 2),
]


@pytest.mark.parametrize(("encoder", "stored", "wanted", "opset", "layout", "batch"), CASES)
def test_what_the_encoder_takes_is_called_preprocessed(
    encoder: type[nn.Module],
    stored: ImageInput,
    wanted: Preprocessing,
    opset: int,
    layout: str,
    batch: int | None,
) -> None:
    preprocess, model = exported(encoder(), stored, wanted, opset=opset, layout=layout, batch=batch)
    assert [port.name for port in model.graph.output] == ["logits", "probabilities"]
    before = model.SerializeToString()
    shorten(model)
    assert len(model.SerializeToString()) < len(before)
    graph = model.graph
    nodes = preprocessing(graph)
    assert nodes == list(graph.node[: len(nodes)])
    assert nodes[-1].output == [PREPROCESSED]
    # Nothing behind it reads anything before it, but for the batch size.
    inside = {"image", *(name for node in nodes for name in node.output)} - {PREPROCESSED}
    read = [node.op_type for node in graph.node[len(nodes) :] if inside.intersection(node.input)]
    assert set(read) <= {"Shape"}
    assert any(PREPROCESSED in node.input for node in graph.node) == (encoder is not Blind)
    operators, port = described(model)
    assert operators == [node.op_type for node in nodes]
    shape = [dim.dim_value or dim.dim_param for dim in port.type.tensor_type.shape.dim]
    assert (port.name, shape) == (PREPROCESSED, [batch or "batch", 1, 6, 6])
    # It holds what Preprocess makes, whatever the encoder does to it then.
    graph.output.append(helper.make_tensor_value_info(PREPROCESSED, TensorProto.FLOAT, None))
    images = np.random.default_rng(0).integers(0, 256, (2, *stored.shape), dtype=np.uint8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    fed = images.transpose(0, 2, 3, 1) if layout == "NHWC" else images
    found = session.run([PREPROCESSED], {"image": np.ascontiguousarray(fed)})[0]
    np.testing.assert_allclose(found, preprocess(torch.from_numpy(images)).numpy(), atol=1e-4)


def test_the_same_classifier_gives_the_same_graph() -> None:
    one, two = (exported(InPlace(), GREY, CENTRED)[1] for _ in range(2))
    assert one.SerializeToString(deterministic=True) == two.SerializeToString(deterministic=True)


def test_a_graph_inside_a_node_keeps_the_name() -> None:
    """A branch reads tensors of the graph around it by their names."""
    shape = ["batch", 3]
    branch = helper.make_graph(
        [helper.make_node("Identity", [PREPROCESSED], ["same"])],
        "branch",
        [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, shape)],
    )
    nodes = [
        helper.make_node("Cast", ["image"], [PREPROCESSED], to=TensorProto.FLOAT),
        helper.make_node("If", ["yes"], ["logits"], then_branch=branch, else_branch=branch),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, shape)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in ("logits", "probabilities")
    ]
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    model = helper.make_model(helper.make_graph(nodes, "graph", [image], ends, [yes]))
    shorten(model)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in preprocessing(model.graph)] == ["Cast"]
    inner = model.graph.node[1].attribute[0].g.node[0]
    assert inner.input == [PREPROCESSED]


def test_a_file_made_before_has_no_such_tensor(trained_once: Any) -> None:
    model = onnx.load(trained_once.model)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["z" if name == PREPROCESSED else name for name in names]
    with pytest.raises(ModelFileError, match=r"no tensor 'preprocessed': zoo 0\.1\.0 named none"):
        preprocessing(model.graph)


def test_the_name_costs_a_file_a_few_bytes(trained_once: Any, tmp_path: Path) -> None:
    model = onnx.load(trained_once.model)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["z" if name == PREPROCESSED else name for name in names]
    onnx.checker.check_model(model, full_check=True)
    assert 0 < trained_once.model.stat().st_size - len(model.SerializeToString()) <= 24
