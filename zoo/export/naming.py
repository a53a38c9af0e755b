"""What nodes and tensors of a file are called: by their modules, or in a small file by letters."""

from __future__ import annotations

import itertools
import math
import re
import string
from collections.abc import Callable, Iterator

import onnx
from onnx import helper

from zoo.export.card import INPUT, OUTPUTS, PREPROCESSED
from zoo.export.modelfile import graphs, tensors

LARGE = 200_000
"""Bytes of weights above which a file has names and shapes: there they are a hundredth of it."""
KEPT = ("", INPUT, PREPROCESSED, *OUTPUTS)
_SCOPES = "pkg.torch.onnx.name_scopes"
_SMALL = 1024
"""Numbers of a constant that shapes may be inferred from."""


def large(model: onnx.ModelProto) -> bool:
    total: int = sum(tensor.ByteSize() for tensor in tensors(model.graph))
    return total > LARGE


def name_nodes(model: onnx.ModelProto) -> None:
    """Call each node by its module and operator, as in `encoder.0/Conv`, each name once.

    What fuses with a norm goes by the module of its weights, not by that of the norm.
    """
    known = {tensor.name for tensor in model.graph.initializer}
    used: set[str] = set()
    for graph in graphs(model.graph):
        for node in graph.node:
            scopes = next((each.value for each in node.metadata_props if each.key == _SCOPES), "")
            path = (re.findall(r"'([^']*)'", scopes) or [""])[:-1]
            owners = [n.rpartition(".")[0] for n in node.input if n in known and ".weight" in n]
            module = (owners or path[-1:] or [""])[0].removeprefix("classifier.")
            node.name = _once(f"{_plain(module)}/{node.op_type}".lstrip("/"), used)


def shorten(model: onnx.ModelProto) -> None:
    """Give inner tensors short names, and nodes and shapes none: in a small file they weigh most.

    `preprocessed` keeps its name.
    """
    fresh = (name for name in _short_names() if name not in KEPT)
    names = {name: name for name in KEPT}

    def short(name: str) -> str:
        if name not in names:
            names[name] = next(fresh)
        return names[name]

    for graph in graphs(model.graph):
        graph.name = "g"
        del graph.value_info[:]
        for node in graph.node:
            node.name = ""
            node.input[:] = [short(name) for name in node.input]
            node.output[:] = [short(name) for name in node.output]
        _rename_rest(graph, short)


def describe(model: onnx.ModelProto) -> None:
    """Give each node a name that it alone has, and write the shapes that can be inferred.

    Tensors keep their names, but for signs that a path has.
    """
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    used: set[str] = set()
    for node in nodes:
        node.name = _once(node.name or node.op_type, used)
    names = {name: name for name in KEPT}
    taken = set(KEPT)

    def plain(name: str) -> str:
        if name not in names:
            names[name] = _once(_plain(name), taken)
        return names[name]

    for graph in graphs(model.graph):
        graph.name = "g"
        del graph.value_info[:]
        for node in graph.node:
            node.input[:] = [plain(name) for name in node.input]
            node.output[:] = [plain(name) for name in node.output]
        _rename_rest(graph, plain)
    model.graph.value_info.extend(_shapes(model))


def _shapes(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    """Yield type and shape of each inner tensor, in the order of the nodes.

    An axis that nobody knows has no name: `batch` is the only one that means something.
    """
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = bare.graph
    graph.name = "g"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:  # weights are as large as the model
        if math.prod(tensor.dims) > _SMALL:
            kind = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            graph.input.append(kind)
        else:
            graph.initializer.append(tensor)
    inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    known = {value.name: value for value in inferred.value_info}
    for node in model.graph.node:
        for name in node.output:
            if name in known:
                for size in known[name].type.tensor_type.shape.dim:
                    if size.dim_param.startswith("unk__"):
                        size.Clear()
                yield known[name]


def _rename_rest(graph: onnx.GraphProto, name_of: Callable[[str], str]) -> None:
    for part in (*graph.initializer, *graph.input, *graph.output):
        part.name = name_of(part.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = name_of(sparse.values.name)


def _plain(name: str) -> str:
    return re.sub(r"[/\\:~]", "_", name)


def _once(name: str, used: set[str]) -> str:
    """Return a name, with a number behind it where it was used before."""
    found, count = name, 1
    while found in used:
        found, count = f"{name}_{count}", count + 1
    used.add(found)
    return found


def _short_names() -> Iterator[str]:
    """Yield a, b, … Z, aa, ab, …"""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_letters, repeat=length))
