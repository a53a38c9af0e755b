"""An exported file made smaller: int8 by static calibration, or half precision; no torch.

What stands before the first layer stays as it is: bytes times constants are exact in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from onnx import numpy_helper

from zoo.errors import ModelFileError
from zoo.export.compaction import QUANTIZED, compact, constants
from zoo.export.halving import halve
from zoo.export.silence import silence

Array = np.ndarray[Any, Any]
Method = Literal["minmax", "entropy", "percentile"]
SIMPLE = ("Cast", "Mul", "Add", "Sub", "Div", "Transpose", "ReduceSum", "MatMul")
"""Operators that preprocessing is made of; a MatMul there averages pixels."""
BATCH = 64
FIRST = "first layer fp32"
WAYS = (
    *("per-channel minmax", "per-channel entropy", "per-channel percentile"),
    "per-tensor minmax",
    f"per-channel minmax, {FIRST}",
)
"""The int8 variants worth measuring, by name."""


def to_int8(
    model: bytes,
    calibration: Array,
    *,
    method: Method = "minmax",
    per_channel: bool = True,
    keep_first: bool = False,
) -> onnx.ModelProto:
    """Quantize weights to int8 and what enters them to uint8, by the ranges of real examples.

    `calibration` is uint8, N examples laid out as the graph's input. Static: what a picture is
    answered does not depend on the others of its batch, as it does with dynamic quantization.
    `keep_first` leaves the first layer in float32: it has few weights and the largest picture. The
    file's names, metadata, opset and dynamic batch are kept; the same input gives the same bytes.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    source = onnx.load_model_from_string(model)
    named = _with_node_names(source)
    excluded = preprocessing(named.graph)
    if keep_first:
        layers = (node.name for node in named.graph.node if node.op_type in QUANTIZED)
        excluded += [name for name in layers if name not in excluded][:1]
    with tempfile.TemporaryDirectory(prefix="zoo-int8-") as folder, silence():
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        before.write_bytes(named.SerializeToString(deterministic=True))
        quantize_static(
            before,
            after,
            _Reader(source.graph.input[0], calibration),
            op_types_to_quantize=list(QUANTIZED),
            per_channel=per_channel,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
            calibrate_method=methods[method],
        )
        quantized = onnx.load(after)
    return _finish(compact(quantized), source)


def to_fp16(model: bytes) -> onnx.ModelProto:
    """Compute in half precision between preprocessing and softmax; both stay float32.

    Inputs and outputs keep their types, the file its names, metadata and opset.
    """
    source = onnx.load_model_from_string(model)
    named = _with_node_names(source)
    return _finish(compact(halve(named, preprocessing(named.graph))), source)


def by_name(name: str, model: bytes, calibration: Array) -> onnx.ModelProto:
    """Make an int8 variant by its name; raises `ModelFileError` where there is none of it."""
    way, _, first = name.partition(", ")
    channels, _, method = way.partition(" ")
    known = channels in ("per-channel", "per-tensor") and method in get_args(Method)
    if not known or first not in ("", FIRST):
        raise ModelFileError(f"'{name}' is no way in which zoo makes a file smaller.")
    return to_int8(
        model,
        calibration,
        method=method,  # type: ignore[arg-type]
        per_channel=channels == "per-channel",
        keep_first=first == FIRST,
    )


def candidates(
    model: bytes, calibration: Array, names: Sequence[str] = WAYS
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield int8 variants to be measured, each with the name that it is made again by.

    One that is equal to an earlier one is left out: with few values to a histogram, entropy ends at
    the smallest and the largest.
    """
    made: set[bytes] = set()
    for name in names:
        variant = by_name(name, model, calibration)
        data = variant.SerializeToString(deterministic=True)
        if data not in made:
            made.add(data)
            yield name, variant


def preprocessing(graph: onnx.GraphProto) -> list[str]:
    """Name the nodes between the raw bytes and the first layer.

    A product with a matrix counts where the matrix averages, as resizing does: its weights are not
    negative and sum to 1 for each pixel. No trained layer does.
    """
    known = constants(graph)
    inside = {port.name for port in graph.input} - known.keys()
    found = []
    for node in graph.node:
        moving = [name for name in node.input if name and name not in known]
        if node.op_type not in SIMPLE or not moving or not inside.issuperset(moving):
            continue
        if node.op_type == "MatMul" and not _averages(node, known):
            continue
        inside.update(node.output)
        found.append(node.name)
    return found


def _averages(node: onnx.NodeProto, known: dict[str, onnx.TensorProto]) -> bool:
    for index, name in enumerate(node.input):
        if name in known:
            matrix = numpy_helper.to_array(known[name])
            sums = matrix.sum(axis=-1 if index == 0 else 0)
            return bool((matrix >= 0).all() and np.allclose(sums, 1, atol=1e-4))
    return False


class _Reader:
    """Calibration examples, batch by batch as the graph takes them."""

    def __init__(self, port: onnx.ValueInfoProto, examples: Array) -> None:
        fixed = port.type.tensor_type.shape.dim[0].dim_value
        size = fixed or min(BATCH, len(examples))
        # Whole batches alone, else histograms fail: the first examples may come twice.
        count = -(-len(examples) // size) * size
        examples = np.resize(examples, (count, *examples.shape[1:]))
        parts = (examples[start : start + size] for start in range(0, count, size))
        self.feeds = ({port.name: part} for part in parts)

    def get_next(self) -> dict[str, Array] | None:
        return next(self.feeds, None)


def _with_node_names(source: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model and name its nodes: the libraries tell nodes apart by name."""
    named = onnx.ModelProto()
    named.CopyFrom(source)
    for index, node in enumerate(named.graph.node):
        node.name = f"n{index}"
    return named


def _finish(model: onnx.ModelProto, source: onnx.ModelProto) -> onnx.ModelProto:
    """Give a model all of its source but the nodes and constants, and check it."""
    nodes, tensors = list(model.graph.node), list(model.graph.initializer)
    finished = onnx.ModelProto()
    finished.CopyFrom(source)
    graph = finished.graph
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    if [(each.domain, each.version) for each in model.opset_import] != [
        (each.domain, each.version) for each in source.opset_import
    ]:
        raise AssertionError(f"quantizing changed the opset: {model.opset_import}")
    onnx.checker.check_model(finished, full_check=True)
    return finished
