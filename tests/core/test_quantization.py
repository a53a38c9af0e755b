"""int8 and fp16: what stays, what goes, and that the answers stay those of the classifier."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from zoo import pipeline
from zoo.api import Component, ImageInput, Preprocessing, TrainConfig
from zoo.errors import ModelFileError, PluginFault
from zoo.export import boundary, quantization
from zoo.export.budget import Budget
from zoo.export.compaction import compact
from zoo.export.graph import to_graph
from zoo.export.naming import shorten
from zoo.export.quantization import _Reader, by_name, candidates, to_fp16, to_int8
from zoo.export.work import cost_of
from zoo.models import Classifier, Preprocess
from zoo.pipeline import Workspace
from zoo.registry import Registry

Array = np.ndarray[Any, Any]
METHODS = ("minmax", "entropy", "percentile")


def digits(split: str) -> Array:
    spec = Registry.installed().lookup("dataset", "digits").spec
    data = spec.build(spec.config() if spec.config else None, Path("unused"))
    images: Array = getattr(data, split)().inputs.numpy()
    return images


def make_conv(folder: Path) -> None:
    workspace = Workspace(runs=folder)
    run = pipeline.finetune(
        backbone=Component("conv", channels=(8, 16), features=16),
        training=TrainConfig(epochs=3, batch_size=32, lr=5e-3),
        workspace=workspace,
    )
    pipeline.export(run, folder / "model.onnx", workspace=workspace)


@pytest.fixture(scope="module")
def conv(made_once: Callable[..., Path]) -> bytes:
    return (made_once(make_conv) / "model.onnx").read_bytes()


@pytest.fixture(scope="module", params=["mlp", "conv"])
def exported(request: pytest.FixtureRequest) -> bytes:
    if request.param == "conv":
        data: bytes = request.getfixturevalue("conv")
        return data
    return bytes(request.getfixturevalue("trained_once").model.read_bytes())


def answers(model: bytes | onnx.ModelProto, images: Array, size: int = 64) -> Array:
    """Return the probabilities, batch by batch of `size`."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    starts = range(0, len(images), size)
    name = session.get_inputs()[0].name
    parts = [session.run(["probabilities"], {name: images[at : at + size]})[0] for at in starts]
    return np.concatenate(parts)


def ports(model: onnx.ModelProto) -> list[bytes]:
    return [port.SerializeToString() for port in (*model.graph.input, *model.graph.output)]


def made_by(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if name in node.output)


# --- the answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("per_channel", [True, False])
def test_int8_answers_as_the_classifier_does(
    exported: bytes, method: Any, per_channel: bool
) -> None:
    made = to_int8(exported, digits("train")[:300], method=method, per_channel=per_channel)
    images = digits("test")
    found, expected = answers(made, images), answers(exported, images)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.98
    assert len(made.SerializeToString()) < 0.7 * len(exported)
    assert np.abs(found - expected).max() > 1e-5  # it is another model all the same


def test_int8_answers_a_picture_alike_alone_and_in_a_batch(exported: bytes) -> None:
    made, images = to_int8(exported, digits("train")[:128]), digits("test")[:128]
    np.testing.assert_array_equal(answers(made, images, 1), answers(made, images, 64))


def test_fp16_answers_as_the_classifier_does(exported: bytes) -> None:
    made, images = to_fp16(exported), digits("test")
    found, expected = answers(made, images), answers(exported, images)
    assert 0 < np.abs(found - expected).max() <= 1e-2
    assert len(made.SerializeToString()) < 0.7 * len(exported)
    assert "Gemm" not in {node.op_type for node in made.graph.node}


@pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 22),
    reason="older ones compute a layer with a float bias in float32",
)
def test_onnxruntime_computes_every_layer_in_integers(exported: bytes, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    made = to_int8(exported, digits("train")[:64])
    layers = [node for node in made.graph.node if node.op_type in ("Conv", "Gemm")]
    providers = ["CPUExecutionProvider"]
    onnxruntime.InferenceSession(made.SerializeToString(), options, providers=providers)
    run = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert run.count("QLinearConv") + run.count("QGemm") == len(layers) > 0
    assert "DequantizeLinear" not in run


def test_calibration_by_other_examples_gives_other_ranges(conv: bytes) -> None:
    dark = np.zeros((64, 1, 8, 8), dtype=np.uint8)
    images = digits("test")
    good, bad = to_int8(conv, digits("train")[:128]), to_int8(conv, dark)
    expected = answers(conv, images).argmax(1)
    assert (answers(good, images).argmax(1) == expected).mean() > 0.95
    assert (answers(bad, images).argmax(1) == expected).mean() < 0.9


# --- what stays as it was ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int8", "fp16"])
def test_all_but_nodes_and_constants_stays(exported: bytes, kind: str) -> None:
    source = onnx.load_model_from_string(exported)
    made = to_int8(exported, digits("train")[:64]) if kind == "int8" else to_fp16(exported)
    onnx.checker.check_model(made, full_check=True)
    assert [(o.domain, o.version) for o in made.opset_import] == [("", 18)]
    assert made.metadata_props == source.metadata_props
    assert ports(made) == ports(source)
    for field in ("ir_version", "producer_name", "producer_version", "model_version", "doc_string"):
        assert getattr(made, field) == getattr(source, field), field
    read = {name for node in made.graph.node for name in node.input}
    assert read >= {tensor.name for tensor in made.graph.initializer}
    assert not made.graph.value_info
    assert not any(node.name or node.doc_string for node in made.graph.node)
    if kind == "int8":
        assert {node.op_type for node in made.graph.node if node.domain} == set()


def test_no_file_is_left(conv: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    to_int8(conv, digits("train")[:64])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_printed_or_logged(
    conv: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    to_int8(conv, digits("train")[:64], method="entropy")
    assert tuple(capfd.readouterr()) == ("", "")
    assert not caplog.records


def test_the_same_input_gives_the_same_bytes_in_any_process(conv: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(conv)
    np.save(tmp_path / "images.npy", digits("train")[:100])
    code = (
        "import hashlib, numpy, pathlib; from zoo.export.quantization import to_fp16, to_int8;"
        "model = pathlib.Path('model.onnx').read_bytes(); images = numpy.load('images.npy');"
        "made = [to_int8(model, images, method='percentile'), to_fp16(model)];"
        "print([hashlib.sha256(m.SerializeToString(deterministic=True)).hexdigest() for m in made])"
    )
    found = set()
    for seed in ("0", "77"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1
    here = to_fp16(conv).SerializeToString(deterministic=True)
    assert hashlib.sha256(here).hexdigest() in found.pop()


# --- graphs made by hand: preprocessing, Relus, pairs -----------------------------------------


def resizing(batch: int | str = "batch") -> onnx.ModelProto:
    """Bytes, resized 6 x 6 -> 4 x 4, normalized, then Conv, Relu, pooling and Gemm."""
    random = np.random.default_rng(0)
    average = np.array([[1, 0.5, 0, 0, 0, 0], [0, 0.5, 1, 0, 0, 0], [0, 0, 0, 1, 0.5, 0],
                        [0, 0, 0, 0, 0.5, 1]], dtype=np.float32)  # fmt: skip
    average /= average.sum(1, keepdims=True)
    constants = {
        "rows": average,
        "columns": average.T.copy(),
        "scale": np.float32(1 / 128).reshape(1, 1, 1, 1),
        "bias": np.float32(-1).reshape(1, 1, 1, 1),
        "kernel": random.normal(size=(5, 1, 3, 3)).astype(np.float32),
        "kernel_bias": random.normal(size=5).astype(np.float32),
        "axes": np.array([2, 3]),
        "flat": np.array([-1, 5]),
        "weight": random.normal(size=(3, 5)).astype(np.float32),
        "weight_bias": random.normal(size=3).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["a"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["a", "columns"], ["b"]),
        helper.make_node("MatMul", ["rows", "b"], ["c"]),
        helper.make_node("Mul", ["c", "scale"], ["d"]),
        helper.make_node("Add", ["d", "bias"], ["preprocessed"]),
        helper.make_node(
            "Conv", ["preprocessed", "kernel", "kernel_bias"], ["f"], pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["f"], ["g"]),
        helper.make_node("ReduceMean", ["g", "axes"], ["h"]),
        helper.make_node("Reshape", ["h", "flat"], ["i"]),
        helper.make_node("Gemm", ["i", "weight", "weight_bias"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 1, 6, 6])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, 3])
         for n in ("logits", "probabilities")],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="by hand")
    onnx.checker.check_model(model, full_check=True)
    return model


IMAGES = np.random.default_rng(1).integers(0, 256, (100, 1, 6, 6), dtype=np.uint8)


def before_the_encoder(model: onnx.ModelProto) -> list[tuple[str, list[Any]]]:
    """Return the operators that make `preprocessed`, each with the constants that it reads."""
    known = {t.name: numpy_helper.to_array(t).tolist() for t in model.graph.initializer}
    nodes = boundary.preprocessing(model.graph)
    return [(node.op_type, [known[name] for name in node.input if name in known]) for node in nodes]


def made_smaller(source: onnx.ModelProto, images: Array) -> list[onnx.ModelProto]:
    data = source.SerializeToString()
    return [*(to_int8(data, images, method=method) for method in METHODS), to_fp16(data)]


def test_what_makes_the_preprocessed_tensor_is_not_quantized_nor_halved() -> None:
    source = resizing()
    first = before_the_encoder(source)
    assert [name for name, _ in first] == ["Cast", "MatMul", "MatMul", "Mul", "Add"]
    for made in made_smaller(source, IMAGES):
        assert before_the_encoder(made) == first
    expected = answers(source.SerializeToString(), IMAGES)
    found = answers(to_int8(source.SerializeToString(), IMAGES), IMAGES)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.98


class Averaging(nn.Module):
    """Takes its input's columns together: weights that are not negative and sum to 1, but trained.

    In place first, so that the encoder's own operators stand next to those of preprocessing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.rand(6, 4).softmax(0))
        self.rows = nn.Parameter(torch.rand(3, 6).softmax(1))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.matmul(self.rows, torch.matmul(inputs.mul_(0.5).add_(0.5), self.mix)).flatten(
            1
        )


@pytest.mark.parametrize("side", [6, 9], ids=["as it is", "resized"])
def test_a_trained_average_in_front_is_a_layer(side: int) -> None:
    """By its weights it cannot be told from resizing."""
    torch.manual_seed(0)
    stored, taken = (ImageInput(channels=1, height=n, width=n) for n in (side, 6))
    head = nn.Linear(12, 3)
    source = to_graph(
        Classifier(Preprocess(stored, taken, Preprocessing()), Averaging(), head), stored
    )
    shorten(source)
    first = before_the_encoder(source)
    assert [name for name, _ in first].count("MatMul") == (0 if side == 6 else 2)
    images = np.random.default_rng(2).integers(0, 256, (64, 1, side, side), dtype=np.uint8)
    *int8, fp16 = made_smaller(source, images)
    for made in int8:
        assert before_the_encoder(made) == first
        stored_as = [tensor.data_type for tensor in made.graph.initializer if len(tensor.dims) > 1]
        layers = [kind for kind in stored_as if kind == TensorProto.INT8]
        assert len(layers) == 3
    assert before_the_encoder(fp16) == first
    halves = [t for t in fp16.graph.initializer if t.data_type == TensorProto.FLOAT16]
    assert {(6, 4), (3, 6)} <= {tuple(tensor.dims) for tensor in halves}


def test_a_file_without_the_tensor_says_who_made_it() -> None:
    source = resizing()
    for node in source.graph.node:
        for names in (node.input, node.output):
            names[:] = ["e" if name == "preprocessed" else name for name in names]
    with pytest.raises(
        ModelFileError, match=r"no tensor 'preprocessed': zoo 0\.1\.0.*Type: zoo ex"
    ):
        to_int8(source.SerializeToString(), IMAGES)


def test_calibration_holds_no_more_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    source = resizing()
    cost = cost_of(source)
    shapes = {"a": 36, "b": 24, "c": 16, "d": 16, "preprocessed": 16, "f": 80, "g": 80, "h": 5,
              "i": 5, "logits": 3, "probabilities": 3}  # fmt: skip
    assert cost.tensors == IMAGES[0].nbytes + 4 * sum(shapes.values())
    assert cost_of(resizing(batch=8)) == cost
    monkeypatch.setattr(quantization, "MEMORY", 40 * cost.tensors)
    monkeypatch.setattr(quantization, "Budget", lambda cost: Budget(cost, 10 * cost.activations))
    reader = _Reader(source, IMAGES, histograms=False)
    sizes = [len(feed["image"]) for feed in iter(reader.get_next, None)]
    assert sizes == [10] * 10
    reader = _Reader(source, IMAGES, histograms=True)
    fed = np.concatenate([feed["image"] for feed in iter(reader.get_next, None)])
    np.testing.assert_array_equal(fed, IMAGES[::3][np.arange(40) % 34])
    made = to_int8(source.SerializeToString(), IMAGES, method="percentile")
    expected = answers(source.SerializeToString(), IMAGES).argmax(1)
    assert (answers(made, IMAGES).argmax(1) == expected).mean() >= 0.95


def test_a_fixed_batch_is_calibrated_and_kept() -> None:
    source = resizing(batch=8)
    made = to_int8(source.SerializeToString(), IMAGES, method="percentile")
    assert ports(made) == ports(source)
    assert answers(made, IMAGES[:96], 8).shape == (96, 3)


def test_a_layer_is_read_as_int8_and_its_relu_is_part_of_the_rounding() -> None:
    made = to_int8(resizing().SerializeToString(), IMAGES)
    kinds = [node.op_type for node in made.graph.node]
    assert "Relu" not in kinds
    conv = next(node for node in made.graph.node if node.op_type == "Conv")
    weight = made_by(made, conv.input[1])
    stored = {t.name: t for t in made.graph.initializer}
    assert weight.op_type == "DequantizeLinear"
    assert len(weight.input) == 3  # OpenCV takes an absent zero point for another one
    assert stored[weight.input[0]].data_type == TensorProto.INT8
    assert len(stored[weight.input[0]].raw_data) == 5 * 9  # a byte each
    assert stored[conv.input[2]].data_type == TensorProto.FLOAT
    rounding = next(node for node in made.graph.node if conv.output[0] in node.input)
    assert rounding.op_type == "QuantizeLinear"
    assert len(rounding.input) == 3
    assert not stored[rounding.input[1]].dims
    # The outputs are not rounded once more.
    assert made_by(made, "logits").op_type == "Gemm"
    assert made_by(made, "probabilities").op_type == "Softmax"


def test_compact_changes_no_answer_where_it_only_saves_bytes() -> None:
    """What it takes out here: doubled constants, comments, an unread constant."""
    zero, scale = np.uint8(0), np.float32(0.02)
    weight = np.random.default_rng(0).integers(-127, 128, (4, 1, 3, 3), dtype=np.int8)
    constants = {
        **dict.fromkeys(("s1", "s2", "s3", "s4"), scale),
        **dict.fromkeys(("z1", "z2", "z3", "z4"), zero),
        "w": weight, "ws": np.full(4, 0.01, np.float32), "wz": np.zeros(4, np.int8),
        "unread": np.ones(1000, np.float32), "factor": np.float32(0.01),
    }  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["weight"], axis=0),
        helper.make_node("Cast", ["image"], ["a"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["a", "factor"], ["b"]),
        helper.make_node("QuantizeLinear", ["b", "s1", "z1"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "s2", "z2"], ["d"]),
        helper.make_node("Conv", ["d", "weight"], ["e"]),
        helper.make_node("QuantizeLinear", ["e", "s3", "z3"], ["f"]),
        helper.make_node("DequantizeLinear", ["f", "s4", "z4"], ["g"]),
        helper.make_node("Exp", ["g"], ["probabilities"], doc_string="comment", name="long name"),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 1, 6, 6])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 4, 4, 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    before = model.SerializeToString()
    small = compact(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(small, full_check=True)
    np.testing.assert_array_equal(answers(small, IMAGES), answers(model, IMAGES))
    assert sorted(t.name for t in small.graph.initializer) == [
        *("factor", "s1", "w", "ws", "wz", "z1"),
    ]
    assert len(small.SerializeToString()) < len(before) - 4000
    assert compact(small).SerializeToString() == small.SerializeToString()


DELICATE: dict[str, Callable[[Tensor], Tensor]] = {
    "log": lambda x: (x + 1e-8).log() / 20,
    "least": lambda x: x.clamp(min=1e-12).log() / 30,
    "moved about": lambda x: (x + 1e-10).reshape(-1, 6, 6).transpose(1, 2).flatten(1).log() / 20,
    "quotient": lambda x: x / (x.norm(dim=1, keepdim=True) * 1e-9 + 1e-9) * 1e-9,
    "infinite": lambda x: (x - 1e6) / 4e6 * torch.arange(36) / 50,
    "mask": lambda x: x.where(x > 0, -torch.inf).softmax(1),
}


class Delicate(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.layer = function, nn.Linear(36, 36)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(self.layer(inputs.flatten(1)).relu())


@pytest.mark.parametrize("name", DELICATE)
def test_constants_that_half_precision_does_not_hold_survive(name: str) -> None:
    torch.manual_seed(0)
    input, taken = ImageInput(channels=1, height=6, width=6), Preprocessing()
    encoder = Delicate(DELICATE[name])
    classifier = Classifier(Preprocess(input, input, taken), encoder, nn.Linear(36, 3))
    source = to_graph(classifier.eval(), input)
    made, data = to_fp16(source.SerializeToString()), source.SerializeToString()
    images = np.concatenate([IMAGES, np.zeros_like(IMAGES[:1])])
    found, wanted = answers(made, images), answers(data, images)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, wanted, atol=1e-2)
    halves = [t for t in made.graph.initializer if t.data_type == TensorProto.FLOAT16]
    assert [36, 36] in [sorted(t.dims) for t in halves]  # the layer before
    assert [3, 36] in [sorted(t.dims) for t in halves]  # and the one after


def test_a_weight_near_0_among_others_is_halved() -> None:
    """Most networks have one; half precision does not tell it from 0 in a sum."""
    source = resizing()
    weight = next(each for each in source.graph.initializer if each.name == "weight")
    values = numpy_helper.to_array(weight).copy()
    values[0, 0] = 1e-12
    weight.CopyFrom(numpy_helper.from_array(values, "weight"))
    made = to_fp16(source.SerializeToString())
    [halved] = [t for t in made.graph.initializer if sorted(t.dims) == sorted(values.shape)]
    assert halved.data_type == TensorProto.FLOAT16


def test_a_graph_with_a_branch_is_not_halved() -> None:
    source = resizing()
    branch = helper.make_graph(
        [helper.make_node("Identity", ["logits"], ["same"])],
        "branch",
        [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, ["batch", 3])],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    source.graph.initializer.append(yes)
    node = helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch)
    source.graph.node.insert(10, node)
    with pytest.raises(PluginFault, match="branches or loops inside its graph"):
        to_fp16(source.SerializeToString())


def test_the_first_layer_may_stay_in_float() -> None:
    source = resizing().SerializeToString()
    made = by_name("per-channel minmax, first layer fp32", source, IMAGES)
    stored = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    conv = next(node for node in made.graph.node if node.op_type == "Conv")
    gemm = next(node for node in made.graph.node if node.op_type == "Gemm")
    assert stored[conv.input[1]] == TensorProto.FLOAT
    assert stored[made_by(made, gemm.input[1]).input[0]] == TensorProto.INT8
    expected = answers(source, IMAGES).argmax(1)
    assert (answers(made, IMAGES).argmax(1) == expected).mean() >= 0.98


@pytest.mark.parametrize("name", ["", "minmax", "per-channel", "per-channel x", "per-x minmax",
                                  "per-channel minmax, x"])  # fmt: skip
def test_an_unknown_way_is_refused(name: str) -> None:
    with pytest.raises(ModelFileError, match=f"'{name}' is no way"):
        by_name(name, resizing().SerializeToString(), IMAGES)


def test_each_candidate_is_made_again_by_its_name(conv: bytes) -> None:
    images = digits("train")[:64]
    for name, model in candidates(conv, images):
        again = by_name(name, conv, images)
        assert again.SerializeToString(deterministic=True) == model.SerializeToString(
            deterministic=True
        )


def test_the_candidates_differ_and_run(conv: bytes) -> None:
    made = dict(candidates(conv, digits("train")[:128]))
    assert next(iter(made)) == "per-channel minmax"
    assert {"per-channel percentile", "per-tensor minmax"} <= set(made)
    assert len({model.SerializeToString() for model in made.values()}) == len(made) >= 3
    images = digits("test")[:64]
    for model in made.values():
        assert np.isfinite(answers(model, images)).all()
    sizes = {name: len(model.SerializeToString()) for name, model in made.items()}
    assert sizes["per-tensor minmax"] < sizes["per-channel minmax"]


def test_quantizing_loads_no_torch() -> None:
    code = "import zoo.export.quantization, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
