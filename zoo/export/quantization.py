"""An exported file made smaller: int8 by static calibration, or half precision; no torch.

What makes the tensor `preprocessed` stays as it is: bytes times constants are exact in float32.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from zoo import drafts
from zoo.errors import ModelFileError
from zoo.export import boundary
from zoo.export.budget import Budget
from zoo.export.compaction import QUANTIZED, compact
from zoo.export.halving import halve
from zoo.export.silence import silence
from zoo.export.work import cost_of
from zoo.memory import MEMORY

Array = np.ndarray[Any, Any]
Method = Literal["minmax", "entropy", "percentile"]
BATCH = 64


@dataclasses.dataclass(frozen=True)
class Way:
    """How an int8 file is made: the ranges of what is computed, the scales of weights."""

    method: Method = "minmax"
    per_channel: bool = True
    keep_first: bool = False

    @property
    def name(self) -> str:
        """What the file's metadata calls it."""
        channels = "per-channel" if self.per_channel else "per-tensor"
        return f"{channels} {self.method}{', first layer fp32' if self.keep_first else ''}"


WAYS = {
    way.name: way
    for way in (
        *(Way("minmax"), Way("entropy"), Way("percentile")),
        Way(per_channel=False),
        Way(keep_first=True),
    )
}
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
    Histograms (`entropy`, `percentile`) are of as many examples as memory holds. Raises
    `ModelFileError` where no tensor is called `preprocessed`.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    source = onnx.load_model_from_string(model)
    named = _with_node_names(source)
    _reshape_instead(named.graph)
    excluded = preprocessing(named.graph)
    if keep_first:
        layers = (node.name for node in named.graph.node if node.op_type in QUANTIZED)
        excluded += [name for name in layers if name not in excluded][:1]
    with drafts.folder() as folder, _temporary(folder), silence():
        before, after = folder / "before.onnx", folder / "after.onnx"
        before.write_bytes(named.SerializeToString(deterministic=True))
        quantize_static(
            before,
            after,
            _Reader(source, calibration, histograms=method != "minmax"),
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
    if name not in WAYS:
        raise ModelFileError(f"'{name}' is no way in which zoo makes a file smaller.")
    return to_int8(model, calibration, **dataclasses.asdict(WAYS[name]))


def candidates(
    model: bytes, calibration: Array, names: Iterable[str] = WAYS
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
    """Name the nodes that `preprocessed` is computed by: nothing is made smaller there."""
    return [node.name for node in boundary.preprocessing(graph)]


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    """Let what the quantizer writes meanwhile lie in a folder that is cleared, whoever kills it."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


class _Reader:
    """Calibration examples, batch by batch as the graph takes them.

    Of the smallest and largest values nothing else is kept. For histograms onnxruntime keeps every
    value of every example till the last one is run, and copies them: they get fewer examples.
    """

    def __init__(self, model: onnx.ModelProto, examples: Array, *, histograms: bool) -> None:
        port, cost = model.graph.input[0], cost_of(model)
        fixed = port.type.tensor_type.shape.dim[0].dim_value
        size = fixed or Budget(cost).batch(min(BATCH, len(examples)))
        if histograms:
            most = max(1, MEMORY // max(1, cost.tensors) // size) * size
            examples = examples[:: -(-len(examples) // most)]  # spread, for they may be in order
        # Whole batches alone, else histograms fail: the first examples may come twice.
        count = -(-len(examples) // size) * size
        examples = np.resize(examples, (count, *examples.shape[1:]))
        parts = (examples[start : start + size] for start in range(0, count, size))
        self.feeds = ({port.name: part} for part in parts)

    def get_next(self) -> dict[str, Array] | None:
        return next(self.feeds, None)


def _with_node_names(source: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model and name its nodes if they are not: the libraries tell nodes apart by name."""
    named = onnx.ModelProto()
    named.CopyFrom(source)
    if _named(source):
        return named
    for index, node in enumerate(named.graph.node):
        node.name = f"n{index}"
    return named


def _named(model: onnx.ModelProto) -> bool:
    return all(node.name for node in model.graph.node)


def _reshape_instead(graph: onnx.GraphProto) -> None:
    """Write Flatten as Reshape: past the one onnxruntime computes on in integers, not past both."""
    for node in graph.node:
        if node.op_type == "Flatten" and [each.i for each in node.attribute] == [1]:
            shape = numpy_helper.from_array(np.array([0, -1], np.int64), f"{node.name}_shape")
            graph.initializer.append(shape)
            written = helper.make_node("Reshape", [node.input[0], shape.name], node.output)
            written.name = node.name
            node.CopyFrom(written)


def _finish(model: onnx.ModelProto, source: onnx.ModelProto) -> onnx.ModelProto:
    """Give a model all of its source but the nodes and constants, and check it."""
    nodes, tensors = list(model.graph.node), list(model.graph.initializer)
    finished = onnx.ModelProto()
    finished.CopyFrom(source)
    graph = finished.graph
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    if not _named(source):
        for node in graph.node:
            node.name = ""
    if [(each.domain, each.version) for each in model.opset_import] != [
        (each.domain, each.version) for each in source.opset_import
    ]:
        raise AssertionError(f"quantizing changed the opset: {model.opset_import}")
    onnx.checker.check_model(finished, full_check=True)
    return finished
