"""What nodes and tensors are called: short in a small file, by their modules in others."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from zoo.api import ImageInput, Preprocessing
from zoo.export.card import Card, from_metadata
from zoo.export.graph import finished, to_graph
from zoo.export.naming import LARGE
from zoo.export.quantization import to_fp16, to_int8
from zoo.models import Classifier, Preprocess

INPUT = ImageInput(channels=1, height=8, width=8)
CARD = Card(
    run="r", labels=["a", "b", "c"], input=INPUT, components={}, metrics={"accuracy": 0.5},
    weights_sha256="0" * 64, versions={},
)  # fmt: skip
KEPT = dataclasses.replace(CARD, names=True)
MODULES = [
    *("preprocess/Cast", "preprocess/Mul", "preprocess/Add"),
    *("encoder.first.0/Conv", "encoder.first.2/Relu", "encoder._home_x_/Flatten"),
    *("encoder.last/Gemm", "encoder.last/Relu", "head/Gemm", "Softmax"),
]


class Encoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.add_module("/home/x/", nn.Flatten())
        self.last = nn.Linear(144, width)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        flat = getattr(self, "/home/x/")(self.first(inputs))
        result: torch.Tensor = self.last(flat).relu()
        return result


def graph_of(width: int = 8) -> onnx.ModelProto:
    torch.manual_seed(0)
    preprocess = Preprocess(INPUT, INPUT, Preprocessing(mean=(0.4,), std=(0.2,)))
    return to_graph(Classifier(preprocess, Encoder(width), nn.Linear(width, 3)).eval(), INPUT)


def read(data: bytes) -> onnx.GraphProto:
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    return model.graph


def names(graph: onnx.GraphProto) -> list[str]:
    return [node.name for node in graph.node]


def shapes(graph: onnx.GraphProto) -> dict[str, list[int | str]]:
    return {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in graph.value_info
    }


def test_a_small_file_has_short_names_and_no_shapes() -> None:
    graph = read(finished(graph_of(), CARD))
    assert set(names(graph)) == {""}
    assert not graph.value_info
    assert max(len(tensor.name) for tensor in graph.initializer) == 1


def test_asked_for_they_are_kept() -> None:
    graph = read(finished(graph_of(), KEPT))
    assert [name.replace("encoder/Relu", "encoder.last/Relu") for name in names(graph)] == MODULES
    found = shapes(graph)
    assert found["preprocessed"] == ["batch", 1, 8, 8]
    assert list(found.values())[3:] == [
        ["batch", 4, 6, 6], ["batch", 4, 6, 6], ["batch", 144], ["batch", 8], ["batch", 8]
    ]  # fmt: skip
    assert "classifier.encoder.last.weight" in {tensor.name for tensor in graph.initializer}


def test_the_same_bytes_each_time_and_finished_anew() -> None:
    model = graph_of()
    data = finished(model, KEPT)
    assert finished(model, KEPT) == data == finished(graph_of(), KEPT)


def test_a_large_file_has_them_unasked() -> None:
    width = LARGE // (4 * 144)
    large, small = (read(finished(graph_of(each), CARD)) for each in (width + 40, width - 40))
    assert "encoder.last/Gemm" in names(large)
    assert shapes(large)
    assert set(names(small)) == {""}


@pytest.mark.parametrize("kind", ["int8", "fp16"])
def test_smaller_files_keep_those_of_their_twin(kind: str) -> None:
    twin = finished(graph_of(), KEPT)
    images = np.random.default_rng(0).integers(0, 256, (64, *INPUT.shape), np.uint8)
    made = to_int8(twin, images) if kind == "int8" else to_fp16(twin)
    card = dataclasses.replace(KEPT, precision=kind, quantization={})
    graph = read(finished(made, card))
    found = names(graph)
    assert len(set(found)) == len(found)
    assert all(found)
    layers = ["encoder.first.0/Conv", "encoder.last/Gemm", "head/Gemm"]
    if kind == "fp16":
        layers[1:] = ["encoder.last/MatMul", "encoder.last/Add", "head/MatMul", "head/Add"]
    assert [name for name in found if name in layers] == layers
    assert shapes(graph)["preprocessed"] == ["batch", 1, 8, 8]
    # A file that is small itself does not keep what its large twin had.
    assert set(names(read(finished(made, dataclasses.replace(card, names=False))))) == {""}


def test_the_metadata_say_that_they_were_asked_for() -> None:
    written = KEPT.to_metadata()
    assert written["zoo.names"] == "kept"
    assert "zoo.names" not in CARD.to_metadata()
    read_back = from_metadata({**written, "zoo.sha256": "0" * 64}, "x")
    assert read_back.names
