"""What a proof may cost: counted of the graph, and how much of it a budget allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from zoo.api import ImageInput, Preprocessing
from zoo.export import budget, golden
from zoo.export.budget import BATCH_SIZES, WORK, Budget, drawn
from zoo.export.graph import to_graph
from zoo.export.work import Cost, cost_of, skeleton
from zoo.models import Classifier, Preprocess
from zoo.testing.modules import size_of
from zoo.training.footprint import LARGEST, batch_that_fits

INPUT = ImageInput(channels=3, height=12, width=10)


class Attention(nn.Module):
    """Products of activations with activations, as PyTorch's own attention makes them."""

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs.flatten(1, 2)
        scores = torch.einsum("btc,bsc->bts", rows, rows)
        return (scores.softmax(-1) @ rows).flatten(1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "dense": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(360, 20)), 20),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, padding=1, groups=4),
            nn.ConvTranspose2d(8, 4, 2, stride=2),
            nn.Flatten(),
        ),
        480,
    ),
    "attention": (Attention, 360),
}


def graph_of(encoder: nn.Module, features: int, batch: int | None = None) -> Any:
    torch.manual_seed(0)
    preprocess = Preprocess(INPUT, INPUT, Preprocessing(mean=(0.4,), std=(0.2,)))
    classifier = Classifier(preprocess, encoder, nn.Linear(features, 3)).eval()
    return classifier, to_graph(classifier, INPUT, batch=batch)


@pytest.mark.parametrize("name", NETWORKS)
def test_multiply_accumulates_are_those_that_torch_counts(name: str) -> None:
    make, features = NETWORKS[name]
    classifier, graph = graph_of(make(), features)
    images = torch.zeros(1, *INPUT.shape, dtype=torch.uint8)
    assert cost_of(graph).macs == size_of(classifier, "", "", images).macs > 0


def test_of_a_fixed_batch_each_example_costs_the_same() -> None:
    make, features = NETWORKS["convolutions"]
    assert cost_of(graph_of(make(), features)[1]) == cost_of(graph_of(make(), features, 4)[1])


def test_a_graph_that_contradicts_itself_costs_what_is_known_of_it() -> None:
    """A batch of two is written into the graph: what follows is counted as it says."""
    _, graph = graph_of(nn.Flatten(), 360)
    flatten = next(node for node in graph.graph.node if node.op_type == "Flatten")
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 360]), "two"))
    written = helper.make_node("Reshape", [flatten.input[0], "two"], flatten.output)
    flatten.CopyFrom(written)
    assert cost_of(graph) == Cost(macs=3 * 360, activations=4 * (360 + 2 * 360), tensors=7584)


def chain(*sizes: int) -> onnx.ModelProto:
    """A chain of tensors of so many floats each, made one of the other."""
    nodes = [
        helper.make_node(
            "Resize", ["image" if at == 0 else f"t{at}", "", "", f"s{at}"], [f"t{at + 1}"]
        )
        for at in range(len(sizes) - 1)
    ]
    constants = [
        helper.make_tensor(f"s{at}", TensorProto.INT64, [2], [1, size])
        for at, size in enumerate(sizes[1:])
    ]
    last = f"t{len(sizes) - 1}"
    value = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", sizes[0]])
    out = helper.make_tensor_value_info(last, TensorProto.FLOAT, ["batch", sizes[-1]])
    graph = helper.make_graph(nodes, "g", [value], [out], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_activations_are_freed_after_their_last_use() -> None:
    assert cost_of(chain(10, 100, 10, 50, 10)).activations == 4 * 110
    assert cost_of(chain(10, 50, 60, 10)).activations == 4 * 110
    two_live = chain(30, 20, 10)
    two_live.graph.node[1].input[0] = "image"
    two_live.graph.output[0].name = "sum"
    two_live.graph.node.append(helper.make_node("Concat", ["t1", "t2"], ["sum"], axis=1))
    two_live.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 30
    assert cost_of(two_live).activations == 4 * 60


def test_a_skeleton_has_no_weights_and_the_same_shapes() -> None:
    _, graph = graph_of(nn.Sequential(nn.Flatten(), nn.Linear(360, 2000)), 2000)
    light = skeleton(graph)
    assert light.ByteSize() < 5000 < graph.ByteSize()
    assert list(light.graph.node) == list(graph.graph.node)
    onnx.checker.check_model(light, full_check=True)


SMALL, LARGE = Cost(macs=10**6, activations=10**5), Cost(macs=4 * 10**9, activations=10**7)


def test_small_networks_are_asked_at_every_batch_size() -> None:
    assert Budget(SMALL).batches() == (BATCH_SIZES, 257)
    assert Budget(SMALL).extremes() == 8
    assert Budget(SMALL).of_the_slow() == (16, 8)
    assert Budget(SMALL).few() == 16


@pytest.mark.parametrize(("macs", "few"), [(41 * 10**8, 16), (57 * 10**8, 16), (155 * 10**8, 2)])
def test_how_many_are_asked_few_at_a_time_goes_by_work(macs: int, few: int) -> None:
    """ResNet-50, Inception v3, VGG-16; the size of a picture is golden vectors' concern."""
    assert Budget(Cost(macs, 10**7)).few() == few


@pytest.mark.parametrize("macs", [10**8, 10**9, 10**10, 10**11, 10**12])
@pytest.mark.parametrize("activations", [10**5, 10**7, 10**9])
def test_a_row_keeps_within_work_and_memory(macs: int, activations: int) -> None:
    found = Budget(Cost(macs, activations), memory=5 * 10**8)
    sizes, examples = found.batches()
    assert sizes[0] == 1
    assert examples >= max(sizes)
    assert max(sizes) == 1 or max(sizes) * activations <= 5 * 10**8
    least = (len(sizes) + 1) * 2 * macs  # two examples are asked whatever they cost
    assert (len(sizes) + 1) * examples * macs <= max(WORK, least)
    assert 2 <= found.extremes() <= 8
    assert 2 <= found.few() <= 16
    assert 3 * (found.few() + found.extremes()) * macs <= max(WORK, 12 * macs)
    assert min(found.of_the_slow()) >= 0 < sum(found.of_the_slow())


def test_less_memory_makes_smaller_batches() -> None:
    assert Budget(LARGE, memory=10**9).batch(257) == 100
    assert Budget(LARGE, memory=5 * 10**7).batch(257) == 5
    assert Budget(LARGE, memory=5 * 10**7).batches()[0] == (1, 2)
    assert Budget(LARGE, memory=1).batch(257) == 1


def test_pooling_is_what_the_slow_one_is_slow_at() -> None:
    assert Budget(Cost(10**9, 10**6)).of_the_slow() == (12, 8)
    assert Budget(Cost(10**9, 10**6, pooled=10**6)).of_the_slow() == (1, 0)


def test_the_examples_that_are_taken_are_drawn_by_a_seed() -> None:
    assert sorted(drawn(50, 50)) == list(range(50))
    assert list(drawn(50, 5)) == list(drawn(50, 9))[:5] != [0, 1, 2, 3, 4]
    assert len(drawn(3, 5)) == 3
    assert budget.SEED == 0


@pytest.mark.parametrize(
    ("shape", "count"),
    [((1, 8, 8), 16), ((3, 64, 64), 16), ((3, 96, 96), 9), ((3, 224, 224), 2), ((3, 999, 999), 2)],
)
def test_large_inputs_have_fewer_golden_vectors(shape: tuple[int, ...], count: int) -> None:
    assert golden.count_for(shape) == count
    assert count == 2 or count * np.prod(shape) <= golden.MOST_BYTES


class Wide(nn.Module):
    """Needs 4 MB an example between its layers, whatever its weights weigh."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Linear(2000, 500)

    def forward(self, inputs: Tensor) -> Tensor:
        wide = inputs.expand(-1, 500_000).relu()
        return self.weights(wide[:, :2000])


def test_a_forward_pass_takes_as_many_examples_as_memory_allows() -> None:
    inputs = torch.zeros(9, 1)
    # relu reads 2 MB and writes 2 MB
    assert batch_that_fits(Wide().eval(), inputs, 10**8) == pytest.approx(25, abs=1)
    assert batch_that_fits(Wide().eval(), inputs, 10**5) == 1
    assert batch_that_fits(nn.Linear(1, 3).eval(), inputs) == LARGEST


def test_what_cannot_be_watched_is_given_whole_batches() -> None:
    class Demanding(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            if len(inputs) < 3:
                raise ValueError("I want more")
            return inputs

    assert batch_that_fits(Demanding(), torch.zeros(9, 1)) == LARGEST
