"""A quantized graph made small: what onnxruntime's quantizer leaves behind is taken out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx
from onnx import numpy_helper

from zoo.export.boundary import reads

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
QUANTIZED = ("Conv", "Gemm", "MatMul")
"""Operators whose inputs are quantized. With Softmax among them some runtimes answer wrongly."""
MOVING = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "MaxPool")
"""Operators through which rounding passes: they pick and move values."""


def compact(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same classifier in fewer bytes, rounded no more often than before.

    Out go pairs of QuantizeLinear and DequantizeLinear that only round, Relus that a rounding does
    as well, int32 biases, doubled and unused constants, comments.
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    graph = small.graph
    _drop_pairs(graph)
    _fold_relus(graph)
    _float_biases(graph)
    _scalar_scales(graph)
    _share_constants(graph)
    for node in graph.node:
        node.doc_string = ""
    del graph.value_info[:], graph.quantization_annotation[:]
    small.doc_string = graph.doc_string = ""
    return small


def constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in graph.initializer}


def users(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """Return the nodes that read a tensor, those whose inner graphs do included."""
    return [node for node in graph.node if name in reads(node)]


def _drop_pairs(graph: onnx.GraphProto) -> None:
    """Take out the pairs that only round: at the end of the graph, and before another pair.

    All others stay, for they are what makes a layer compute in integers.
    """
    outputs = {port.name for port in graph.output}
    for first, second in _pairs(graph):
        before, after = first.input[0], second.output[0]
        readers = users(graph, after)
        if after in outputs and not any(reader.op_type in QUANTIZED for reader in readers):
            # Its name is the caller's: the producer takes it over.
            for node in graph.node:
                _rename(node.output, before, after)
                _rename(node.input, before, after)
        elif readers and all(
            node.op_type == "Relu" and _roundings(graph, node.output[0]) for node in readers
        ):
            for node in readers:
                _rename(node.input, after, before)
        else:
            continue
        graph.node.remove(first)
        graph.node.remove(second)


def _fold_relus(graph: onnx.GraphProto) -> None:
    """Let rounding with zero point 0 do what a Relu beside it does: it cuts off below 0 as well."""
    outputs = {port.name for port in graph.output}
    pairs = {second.output[0]: (first, second) for first, second in _pairs(graph)}
    for relu in [node for node in graph.node if node.op_type == "Relu"]:
        before, after = relu.input[0], relu.output[0]
        if after in outputs:
            continue
        if all(_starts_at_zero(graph, node) for node in _roundings(graph, after) or [relu]):
            for node in graph.node:
                _rename(node.input, after, before)
            graph.node.remove(relu)
            continue
        if before in pairs and len(users(graph, before)) == 1:
            _round_from_zero(graph, *pairs[before])
            pairs[before][1].output[0] = after
            graph.node.remove(relu)


def _pairs(graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Return each rounding to uint8 and back: QuantizeLinear, DequantizeLinear."""
    known = constants(graph)
    found = []
    for node in graph.node:
        readers = users(graph, node.output[0]) if node.op_type == QUANTIZE else []
        if [reader.op_type for reader in readers] == [DEQUANTIZE]:
            zero = known.get(node.input[2]) if len(node.input) > 2 else None
            if zero is not None and zero.data_type == onnx.TensorProto.UINT8 and not zero.dims:
                found.append((node, readers[0]))
    return found


def _roundings(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """Return the nodes that round a tensor, moved or not; none where anything else reads it."""
    found: list[onnx.NodeProto] = []
    for node in users(graph, name):
        moved = _roundings(graph, node.output[0]) if node.op_type in MOVING else []
        if not moved and node.op_type != QUANTIZE:
            return []
        found += moved or [node]
    return found


def _starts_at_zero(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    if node.op_type != QUANTIZE or len(node.input) < 3:
        return False
    return _is_zero(constants(graph).get(node.input[2]), onnx.TensorProto.UINT8)


def _round_from_zero(graph: onnx.GraphProto, *pair: onnx.NodeProto) -> None:
    """Spend the 256 values of a pair on what is above 0; its largest value stays."""
    known = constants(graph)
    scale, zero = (numpy_helper.to_array(known[name]) for name in pair[0].input[1:3])
    top = (255 - int(zero)) / 255 or 1.0  # nothing was above 0: any scale will do
    for name, array in ((f"{pair[0].output[0]}_scale", scale * scale.dtype.type(top)),
                        (f"{pair[0].output[0]}_zero", zero * 0)):  # fmt: skip
        graph.initializer.append(numpy_helper.from_array(array.astype(array.dtype), name))
    for node in pair:
        node.input[1], node.input[2] = (each.name for each in graph.initializer[-2:])


def _float_biases(graph: onnx.GraphProto) -> None:
    """Write a bias as float32 where the result is quantized anyhow: no node, no scale of its own.

    onnxruntime makes such a bias int32 again when it loads the file. At the end of the graph it
    would not, and would compute the last layer in float32.
    """
    known = constants(graph)
    makers = {name: node for node in graph.node for name in node.output}
    for node in [node for node in graph.node if node.op_type in QUANTIZED]:
        bias = makers.get(node.input[2]) if len(node.input) > 2 else None
        readers = users(graph, node.output[0])
        rounded = readers and all(reader.op_type == QUANTIZE for reader in readers)
        if bias is None or bias.op_type != DEQUANTIZE or bias.input[0] not in known or not rounded:
            continue
        whole, scale = (numpy_helper.to_array(known[name]) for name in bias.input[:2])
        value = (whole * scale.astype("float64")).astype("float32")
        graph.initializer.append(numpy_helper.from_array(value, f"{node.output[0]}_bias"))
        node.input[2] = graph.initializer[-1].name
        if not users(graph, bias.output[0]):
            graph.node.remove(bias)


def _scalar_scales(graph: onnx.GraphProto) -> None:
    """Write scales of one value as scalars, as their zero points are; some runtimes compare."""
    known = constants(graph)
    for node in graph.node:
        if node.op_type not in (QUANTIZE, DEQUANTIZE):
            continue
        for name in node.input[1:]:
            if name in known and list(known[name].dims) == [1]:
                known[name].ClearField("dims")


def _is_zero(tensor: onnx.TensorProto | None, kind: int | None) -> bool:
    if tensor is None or kind not in (None, tensor.data_type):
        return False
    return not numpy_helper.to_array(tensor).any()


def _share_constants(graph: onnx.GraphProto) -> None:
    """Keep one of equal constants, those that are read, in the order in which they are read."""
    known = constants(graph)
    names: dict[tuple[object, ...], str] = {}
    kept: dict[str, onnx.TensorProto] = {}
    inner = Counter(name for node in graph.node for name in reads(node))
    inner.subtract(name for node in graph.node for name in node.input)
    fixed = {port.name for port in graph.output} | {name for name, count in inner.items() if count}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in known:
                array = numpy_helper.to_array(known[name])
                key = (known[name].data_type, array.shape, array.tobytes())
                shared = name if name in fixed else names.setdefault(key, name)
                node.input[index] = shared
                # Written anew: the quantizer spends up to ten bytes on a negative int8.
                kept.setdefault(shared, numpy_helper.from_array(array, shared))
    kept.update({name: known[name] for name in sorted(fixed & known.keys())})
    del graph.initializer[:]
    graph.initializer.extend(kept.values())


def _rename(names: Iterable[str], old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new  # type: ignore[index]
