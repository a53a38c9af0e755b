"""A graph is written with the operator that is meant, where it is the same function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from zoo.api import ImageInput, Preprocessing
from zoo.export.graph import to_graph
from zoo.models import Classifier, Preprocess
from zoo.registry import Registry

INPUT = ImageInput(channels=1, height=12, width=12)


class Layer(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(inputs)


def classifier_of(encoder: nn.Module) -> Classifier:
    torch.manual_seed(0)
    features = encoder(torch.zeros(2, *INPUT.shape)).shape[1]
    preprocess = Preprocess(INPUT, INPUT, Preprocessing(mean=(0.4,), std=(0.2,)))
    return Classifier(preprocess, encoder, nn.Linear(features, 3)).eval()


def after(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """A function of 6 maps of 4 x 4."""
    return nn.Sequential(nn.Conv2d(1, 6, 3, 3), Layer(function))


def shape_of(model: onnx.ModelProto, node: onnx.NodeProto) -> list[int]:
    [found] = [each for each in model.graph.initializer if each.name == node.input[1]]
    return [int(size) for size in onnx.numpy_helper.to_array(found)]


def check_answers(model: onnx.ModelProto, classifier: Classifier, batch: int | None) -> None:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in [batch] if batch else [1, 3]:
        images = torch.randint(0, 256, (count, *INPUT.shape), dtype=torch.uint8)
        with torch.no_grad():
            wanted = classifier(images).numpy()
        [found] = session.run(["logits"], {"image": images.numpy()})
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("batch", [None, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("function", "operators", "shapes"),
    [
        (lambda x: x.flatten(1), ["Flatten"], []),
        (lambda x: x.mean((2, 3)), ["GlobalAveragePool", "Flatten"], []),
        (lambda x: x.mean((-1, -2), keepdim=True).flatten(1), ["GlobalAveragePool", "Flatten"], []),
        (lambda x: nn.AdaptiveAvgPool2d(1)(x).flatten(1), ["GlobalAveragePool", "Flatten"], []),
        (lambda x: x.flatten(2).mean(2), ["Reshape", "GlobalAveragePool", "Flatten"], [[0, 6, 16]]),
        # Neither of all axes behind the channels, nor of them alone.
        (lambda x: x.mean(2).flatten(1), ["ReduceMean", "Flatten"], []),
        (lambda x: x.mean((1, 2, 3), keepdim=True).flatten(1), ["ReduceMean", "Flatten"], []),
        (lambda x: x.mean((1, 2)), ["ReduceMean"], []),
        # The first axis does not stay.
        (
            lambda x: x.permute(0, 2, 3, 1).reshape(-1, 6).relu().reshape(x.shape[0], -1),
            ["Transpose", "Reshape", "Relu", "Reshape"],
            [[-1, 6], [-1, 96]],
        ),
    ],
)  # fmt: skip
def test_it_is_written_as_it_is_meant(
    function: Callable[[Tensor], Tensor],
    operators: list[str],
    shapes: list[list[int]],
    batch: int | None,
) -> None:
    classifier = classifier_of(after(function))
    model = to_graph(classifier, INPUT, batch=batch)
    kinds = [node.op_type for node in model.graph.node]
    written = [node for node in model.graph.node if node.op_type == "Reshape"]
    assert not [each for node in written for each in node.attribute]
    if batch is None:
        assert kinds[kinds.index("Conv") + 1 : kinds.index("Gemm")] == operators
        assert [shape_of(model, node) for node in written] == shapes
    else:
        assert "Flatten" not in kinds  # of a fixed batch every size is known, and some lack it
    check_answers(model, classifier, batch)


def test_a_zero_that_allowzero_gives_a_meaning_keeps_it() -> None:
    import onnx_ir as ir
    from onnx import TensorProto, helper

    from zoo.export.optimizing import optimize

    def model(shape: list[int]) -> Any:
        node = helper.make_node("Reshape", ["x", "shape"], ["y"], allowzero=1)
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)
                 for name, axes in (("x", ["n", 0]), ("y", None))]  # fmt: skip
        constant = helper.make_tensor("shape", TensorProto.INT64, [len(shape)], shape)
        graph = helper.make_graph([node], "g", ports[:1], ports[1:], [constant])
        made = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
        optimize(made)
        return ir.to_proto(made)

    assert [a.i for a in model([0, 3]).graph.node[0].attribute] == [1]
    assert not model([-1, 3, 1]).graph.node[0].attribute


@pytest.mark.parametrize(
    "name",
    [
        name if name == "conv-residual" else pytest.param(name, marks=pytest.mark.slow)
        for name in Registry.installed().names("backbone")
    ],
)
def test_onnx2torch_reads_what_is_built_in(name: str) -> None:
    onnx2torch = pytest.importorskip("onnx2torch")
    spec = Registry.installed().lookup("backbone", name).spec
    torch.manual_seed(0)
    built = spec.build(spec.config(), INPUT)
    preprocess = Preprocess(INPUT, INPUT, Preprocessing())
    classifier = Classifier(preprocess, built.encoder, nn.Linear(built.features, 4)).eval()
    images = torch.randint(0, 256, (5, *INPUT.shape), dtype=torch.uint8)
    with torch.no_grad():
        read = onnx2torch.convert(to_graph(classifier, INPUT))
        torch.testing.assert_close(read(images)[0], classifier(images), atol=1e-5, rtol=0)
