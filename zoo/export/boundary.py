"""Where preprocessing ends in a graph: at the tensor `preprocessed`, which the encoder takes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from zoo.errors import ModelFileError
from zoo.export.card import PREPROCESSED


def preprocessing(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that `preprocessed` is computed by, in the order of the graph.

    Raises `ModelFileError` in a graph without that tensor.
    """
    wanted, found = {PREPROCESSED}, []
    for node in reversed(graph.node):  # each stands behind those that it reads
        if wanted.intersection(node.output):
            wanted.update(reads(node))
            found.append(node)
    if not found:
        raise ModelFileError(
            f"The graph has no tensor '{PREPROCESSED}': zoo 0.1.0 named none. Type: zoo export RUN"
        )
    return found[::-1]


def described(model: onnx.ModelProto) -> tuple[list[str], onnx.ValueInfoProto]:
    """Return the operators of preprocessing, and name, type and shape of what they make.

    Raises `ModelFileError` as `preprocessing` does.
    """
    nodes = preprocessing(model.graph)
    wanted = {name for node in nodes for name in reads(node)}
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.node.extend(nodes)
    part.graph.input.extend(model.graph.input)
    part.graph.initializer.extend(t for t in model.graph.initializer if t.name in wanted)
    inferred = onnx.shape_inference.infer_shapes(part).graph
    found = next((v for v in inferred.value_info if v.name == PREPROCESSED), None)
    return [node.op_type for node in nodes], found or onnx.ValueInfoProto(name=PREPROCESSED)


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names of the tensors that a node reads, the graphs inside it included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.type in (attribute.GRAPH, attribute.GRAPHS):
            for inner in (attribute.g, *attribute.graphs):
                for each in inner.node:
                    yield from reads(each)
