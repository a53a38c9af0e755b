"""An exported graph in half precision, but for its preprocessing and softmax."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

from zoo.errors import PluginFault

SINGLE = (
    *("Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization"),
    *("GroupNormalization", "CumSum", "Range", "TopK", "NonMaxSuppression"),
)
"""Operators that stay in single precision: long sums, and what has no kernel in half.

onnxruntime's own converter does the same, but it rounds between nodes that it leaves alone, and
the preprocessing consists of such nodes.
"""
SUMS = (
    *("Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "RNN", "GRU", "LSTM"),
    *("Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization"),
)
"""Operators after which a number near 0 among others makes no difference: sums and norms."""
SINGLE_INPUTS = {"Resize": (2,)}
"""Inputs that ONNX wants in single precision: the scales of a resize."""
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def halve(model: onnx.ModelProto, untouched: Collection[str]) -> onnx.ModelProto:
    """Return the model with all float nodes but `untouched`, by name, in half precision.

    A constant that half precision does not hold, as the 1e-8 of `(x + 1e-8).log()`, keeps its node
    and all that follow in single precision, up to the next sum or norm. The model given is used up.
    What crosses between the two is cast once. Raises `PluginFault` for a graph with branches.
    """
    _split_gemms(model.graph)
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    graph = typed.graph
    if any(a.type in (a.GRAPH, a.GRAPHS) for node in graph.node for a in node.attribute):
        raise PluginFault(
            "This classifier branches or loops inside its graph: it cannot be exported in half"
            " precision. Type: zoo export RUN"
        )
    ports = (*graph.value_info, *graph.output)
    floats = {port.name for port in ports if port.type.tensor_type.elem_type == FLOAT}
    known = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == FLOAT}
    outputs = {port.name for port in graph.output}
    there: set[str] = set()  # what is computed so far, each precision of a tensor by its own name
    nodes: list[onnx.NodeProto] = []
    delicate: set[str] = set()  # what was computed with constants that half precision does not hold

    def wanted(name: str, half: bool) -> str:
        """Return a float tensor's name in one precision, cast from the other where need be."""
        given, asked = (name, f"{name}_{HALF}") if half else (f"{name}_{HALF}", name)
        if asked not in there and asked not in known:
            there.add(asked)
            if name in known:
                graph.initializer.append(_halved(known[name], asked))
            else:
                cast = helper.make_node("Cast", [given], [asked], to=HALF if half else FLOAT)
                nodes.append(cast)
        return asked

    for node in graph.node:
        constants = [known[name] for name in node.input if name in known]
        constants += [a.t for a in node.attribute if a.t.data_type == FLOAT]
        sums, free = node.op_type in SUMS, node.name not in untouched
        follows = not sums and not delicate.isdisjoint(node.input)
        if kept := free and (follows or any(_lost(each, sums) for each in constants)):
            delicate |= floats & set(node.output)
        half = free and node.op_type not in SINGLE and not kept
        single = SINGLE_INPUTS.get(node.op_type, ())
        for index, name in enumerate(node.input):
            if name in floats or name in known:
                node.input[index] = wanted(name, half and index not in single)
        nodes.append(node)
        if half:
            _halve_attributes(node)
        for index, name in enumerate(node.output):
            if half and name in floats:
                node.output[index] = f"{name}_{HALF}"
            there.add(node.output[index])
            if name in outputs & floats:
                wanted(name, False)
    del graph.node[:]
    graph.node.extend(nodes)
    return typed


def _split_gemms(graph: onnx.GraphProto) -> None:
    """Write a Gemm as the product and sum that it is: tract has it in single precision alone."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    for place, node in reversed(list(enumerate(graph.node))):
        options = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        plain = all(options.get(name, 1) == 1 for name in ("alpha", "beta"))
        if node.op_type != "Gemm" or not plain or options.get("transA"):
            continue
        if node.input[1] not in known or len(node.input) < 3:
            continue
        weight = numpy_helper.to_array(known[node.input[1]])
        turned = weight.T.copy() if options.get("transB") else weight
        name, product = f"{node.output[0]}_weight", f"{node.output[0]}_product"
        graph.initializer.append(numpy_helper.from_array(turned, name))
        named = [node.name.replace("/Gemm", f"/{kind}") for kind in ("MatMul", "Add")]
        parts = (
            helper.make_node("Add", [product, node.input[2]], node.output, name=named[1]),
            helper.make_node("MatMul", [node.input[0], name], [product], name=named[0]),
        )
        for part in parts:
            graph.node.insert(place, part)
        del graph.node[place + 2]


def _halve_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
            attribute.i = HALF
        if attribute.type == attribute.TENSOR and attribute.t.data_type == FLOAT:
            attribute.t.CopyFrom(_halved(attribute.t, attribute.t.name))


def _lost(tensor: onnx.TensorProto, sums: bool) -> bool:
    """Tell whether a number becomes infinite in half precision, or 0; in a sum, whether all do."""
    array = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    gone = (half == 0)[array != 0]
    infinite = np.isinf(half) & np.isfinite(array)
    return bool(infinite.any() or (gone.any() and (not sums or gone.all())))


def _halved(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name)
