"""What a graph costs: multiply-accumulates, and the memory of its activations, for one example."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from zoo.export.card import INPUT

Shape = tuple[int, ...]

SMALL = 1024
"""Constants of so many bytes are kept in a skeleton: shapes are computed from some of them."""


POOLS = ("AveragePool", "LpPool", "MaxPool")
POOLED = 20_000
"""Multiply-accumulates of numpy in the time in which ONNX's own implementation pools a number."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one example: multiply-accumulates, and bytes of all activations that live at a time.

    `tensors` is the bytes of all that are made, the input among them. `pooled` counts the numbers
    that come out of pooling, which plain Python makes one by one.
    """

    macs: int
    activations: int
    tensors: int = 0
    pooled: int = 0

    @property
    def slow(self) -> int:
        """What ONNX's own implementation has to do, in multiply-accumulates."""
        return self.macs + POOLED * self.pooled


def cost_of(model: onnx.ModelProto) -> Cost:
    """Count what one example costs, by the shapes that ONNX infers.

    A product with a matrix counts as many multiply-accumulates as it has terms, whatever it is
    written as; elementwise operators count none. What no shape is inferred of counts none either,
    nor does a graph whose shapes contradict each other: running it will tell. Activations are freed
    after their last use, as runtimes free them.
    """
    light = skeleton(model)
    given = next(each for each in light.graph.input if each.name == INPUT)
    axis = given.type.tensor_type.shape.dim[0]
    batch = axis.dim_value or 1
    axis.dim_value = batch
    for each in light.graph.output:
        each.type.tensor_type.shape.dim[0].dim_value = batch
    try:
        inferred = onnx.shape_inference.infer_shapes(light, data_prop=True)
    except Exception:
        inferred = light
    known = dict(_values(inferred))
    macs = sum(_macs(node, known) for node in inferred.graph.node)
    pools = (n.output[0] for n in inferred.graph.node if n.op_type in POOLS)
    pooled = sum(math.prod(known[name][0]) for name in pools if name in known)
    constant = _constant(inferred.graph)
    sizes = {n: math.prod(shape) * each for n, (shape, each) in known.items() if n not in constant}
    live, made = _most_at_once(inferred.graph, sizes), sum(sizes.values())
    return Cost(macs // batch, live // batch, made // batch, pooled // batch)


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model without its large constants: these become inputs of their type and shape.

    Whatever is inferred or checked of the graph stays the same, and no weight is copied for it.
    """
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = model.graph
    light.graph.name = graph.name
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(light.graph, field).extend(getattr(graph, field))
    declared = {each.name for each in graph.input}
    for tensor in graph.initializer:
        if tensor.ByteSize() <= SMALL:
            light.graph.initializer.append(tensor)
        elif tensor.name not in declared:
            described = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            light.graph.input.append(described)
    return light


def _values(model: onnx.ModelProto) -> Iterator[tuple[str, tuple[Shape, int]]]:
    """Yield each tensor whose shape is known: its name, shape and bytes a number."""
    graph = model.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        dims = [each.dim_value for each in kind.shape.dim]
        if value.type.HasField("tensor_type") and kind.HasField("shape") and all(dims):
            yield value.name, (tuple(dims), _width(kind.elem_type))
    for tensor in graph.initializer:
        yield tensor.name, (tuple(tensor.dims), _width(tensor.data_type))


def _width(kind: int) -> int:
    if kind in (TensorProto.UNDEFINED, TensorProto.STRING):
        return 1
    return int(np.dtype(helper.tensor_dtype_to_np_dtype(kind)).itemsize)


def _macs(node: onnx.NodeProto, known: dict[str, tuple[Shape, int]]) -> int:
    shapes = [known[name][0] if name in known else None for name in node.input]
    out = known[node.output[0]][0] if node.output and node.output[0] in known else None
    first, second = (*shapes, None, None)[:2]
    if node.op_type in ("QLinearConv", "QLinearMatMul"):
        second = shapes[3]
    kind = node.op_type.removeprefix("QLinear").removesuffix("Integer")
    if kind == "Conv" and out and second:
        return math.prod(out) * math.prod(second[1:])
    if kind == "ConvTranspose" and first and second:
        return math.prod(first) * math.prod(second[1:])
    if kind == "MatMul" and first and second:
        columns = second[-1] if len(second) > 1 else 1
        wide = math.prod(out) if out else math.prod(first[:-1]) * columns
        return wide * first[-1]
    if kind == "Gemm" and out and first:
        flipped = any(each.name == "transA" and each.i for each in node.attribute)
        return math.prod(out) * first[0 if flipped else 1]
    if kind == "Einsum":
        return _einsum(node, shapes)
    if kind in ("RNN", "GRU", "LSTM") and first and len(shapes) > 2 and shapes[1] and shapes[2]:
        return first[0] * first[1] * (math.prod(shapes[1]) + math.prod(shapes[2]))
    return 0


def _einsum(node: onnx.NodeProto, shapes: list[Shape | None]) -> int:
    """Multiply the sizes of all letters of an equation."""
    equation = next(each.s.decode() for each in node.attribute if each.name == "equation")
    sizes: dict[str, int] = {}
    terms = equation.replace(" ", "").split("->")[0].split(",")
    for letters, shape in zip(terms, shapes, strict=True):
        if shape is None or "." in letters:
            return 0
        sizes |= dict(zip(letters, shape, strict=True))
    return math.prod(sizes.values())


def _constant(graph: Any) -> set[str]:
    """Name what is no activation: constants, and the inputs that stand for large ones."""
    names = {each.name for each in graph.initializer}
    return names | {each.name for each in graph.input if each.name != INPUT}


def _most_at_once(graph: Any, sizes: dict[str, int]) -> int:
    """Return the most bytes that live at a time when the nodes are run in their order."""
    last = {name: at for at, node in enumerate(graph.node) for name in node.input}
    live, most = sizes.get(INPUT, 0), 0
    for at, node in enumerate(graph.node):
        live += sum(sizes.get(name, 0) for name in node.output)
        most = max(most, live)
        over = {n for n in (*node.input, *node.output) if last.get(n, at) == at}
        live -= sum(sizes.get(name, 0) for name in over)
    return max(most, live)
