"""The bytes of a file → a checked model: everything that can be said of it without running it."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zoo.errors import ModelFileError, OutOfMemory, first_line, ran_out
from zoo.export.card import INPUT, OUTPUTS, Card, from_metadata
from zoo.export.seal import check_keys, check_seal, hint, read_model
from zoo.export.targets import DRAWS, TARGETS
from zoo.export.work import skeleton

OPSETS = (18, 20, 21)
OWN = frozenset({"", "ai.onnx"})
LOCAL_PATH = re.compile(
    rb"/(?:home|root|Users|tmp|mnt|opt|usr|var)/|[A-Za-z]:\\|site-packages|\.py\b"
)
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A file whose structure is sound: its bytes, and what it says of itself.

    `infinite` counts the constants that hold an infinity. The graph is parsed each time that it is
    asked for: it is as large as the bytes are, and seldom needed.
    """

    path: Path
    data: bytes
    card: Card
    opset: int
    ir_version: int
    operators: frozenset[str]
    infinite: int = 0

    @property
    def model(self) -> onnx.ModelProto:
        return parse(self.path, self.data)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def open_model(path: Path, data: bytes | None = None) -> ModelFile:
    """Read and check a file that zoo exported; `data` are its bytes where they are known.

    Raises `NoModelFile`, or `ModelFileError` with the first thing that is wrong: the bytes, the
    seal, operators, the checker, the weights, paths, what the metadata says.
    """
    data = read_model(path) if data is None else data
    return examined(path, data, parse(path, data))


def examined(path: Path, data: bytes, model: onnx.ModelProto) -> ModelFile:
    """Check a file whose bytes have been parsed; raises `ModelFileError`."""
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    if "zoo.schema" not in metadata:
        from_metadata(metadata, path)
    check_keys(data, path)
    check_seal(data, path)
    card = from_metadata(metadata, path)
    check_one_file(path, model)
    check_operators(path, model)
    check_policy(path, model, card)
    check_structure(path, model)
    infinite = check_weights(path, model)
    check_paths(path, model)
    check_ports(path, model, card)
    operators = {node.op_type for graph in graphs(model.graph) for node in graph.node}
    return ModelFile(
        path=path,
        data=data,
        card=card,
        opset=opset_of(model),
        ir_version=model.ir_version,
        operators=frozenset(operators),
        infinite=infinite,
    )


def parse(path: Path, data: bytes) -> onnx.ModelProto:
    """Parse bytes; an empty or a cut file parses as well, so that a graph is asked for."""
    try:
        model = onnx.load_model_from_string(data)
    except Exception:
        raise ModelFileError(
            f"'{path}' is not an ONNX file, or was cut: its {len(data):,} bytes cannot be parsed."
            f"{hint(data)}"
        ) from None
    if not model.graph.node or not model.ir_version:
        raise ModelFileError(f"'{path}' is not an ONNX file, or was cut: no graph.{hint(data)}")
    for name, text in _strings(model):
        # Protobuf hands over what is not UTF-8 as bytes.
        if isinstance(text, bytes):
            raise ModelFileError(
                f"'{path}' is corrupt: a '{name}' of it is not UTF-8 text. Copy the file anew, or"
                " type: zoo export RUN"
            )
    return model


def check_one_file(path: Path, model: onnx.ModelProto) -> None:
    outside = [t for t in tensors(model.graph) if t.data_location == t.EXTERNAL or t.external_data]
    if outside:
        where = next((e.value for e in outside[0].external_data if e.key == "location"), "")
        raise ModelFileError(
            f"'{path}' is not one file: its weights lie in another ('{where}')."
            " Type: zoo export RUN"
        )


def check_operators(path: Path, model: onnx.ModelProto) -> None:
    """Refuse operators that are not ONNX's own, or that this onnx does not know."""
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    named = {node.domain for node in nodes} | {each.domain for each in model.opset_import}
    foreign = sorted(named - OWN)
    if foreign or model.functions:
        names = sorted({node.op_type for node in nodes if node.domain in foreign})
        raise ModelFileError(
            f"'{path}' has operators that are not ONNX's own: {', '.join(names) or 'functions'}"
            f" of {', '.join(foreign) or 'its own'}."
        )
    opset, newest = opset_of(model), onnx.defs.onnx_opset_version()
    if not 1 <= opset <= newest or model.ir_version > onnx.IR_VERSION:
        raise ModelFileError(
            f"'{path}' has opset {opset} and IR version {model.ir_version}; this onnx knows them up"
            f" to {newest} and {onnx.IR_VERSION}. Type: pip install --upgrade onnx"
        )
    unknown = {node.op_type for node in nodes if not onnx.defs.has(node.op_type, opset)}
    if unknown:
        names = sorted(unknown)
        raise ModelFileError(f"'{path}' has unknown operators: {', '.join(names)}.")


def check_policy(path: Path, model: onnx.ModelProto, card: Card) -> None:
    """Refuse versions and operators that zoo does not write, or that the file's target bans."""
    opset = opset_of(model)
    if len(model.opset_import) != 1 or opset not in OPSETS:
        raise ModelFileError(f"'{path}' has opset {opset}; zoo writes and reads 18, 20 and 21.")
    lowest = helper.find_min_ir_version_for(list(model.opset_import))
    if model.ir_version != lowest:
        raise ModelFileError(
            f"'{path}' has IR version {model.ir_version}; opset {opset} goes with {lowest}."
        )
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    operators = {node.op_type for node in nodes}
    training = {n.op_type for n in nodes for a in n.attribute if a.name == "training_mode" and a.i}
    if drawing := sorted((operators & DRAWS) | training):
        raise ModelFileError(
            f"'{path}' was left in training mode: {', '.join(drawing)} would make its answers vary."
        )
    if card.target and card.target not in TARGETS:
        raise ModelFileError(f"'{path}' is for '{card.target}', a target that this zoo lacks.")
    if card.target:
        _check_target(path, model, card, operators)


def _check_target(path: Path, model: onnx.ModelProto, card: Card, operators: set[str]) -> None:
    target = TARGETS[card.target]
    wrong = [f"operators {', '.join(names)}" for names in [target.refuses(operators)] if names]
    if opset_of(model) > target.opset or model.ir_version > target.ir_version:
        wrong.append(f"opset {opset_of(model)} with IR {model.ir_version}")
    if target.batch is not None and card.batch != target.batch:
        wrong.append(f"batch {card.batch or 'not fixed'}")
    if wrong:
        raise ModelFileError(f"'{path}' is not fit for {card.target}: {'; '.join(wrong)}.")


def check_structure(path: Path, model: onnx.ModelProto) -> None:
    """Run ONNX's full checker and strict shape inference, each constant by itself."""
    try:
        for tensor in model.graph.initializer:
            onnx.checker.check_tensor(tensor)
        light = skeleton(model)
        onnx.checker.check_model(light, full_check=True)
        onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:
        if ran_out(error):
            raise OutOfMemory(f"Checking '{path}' ran out of memory.") from error
        raise ModelFileError(f"'{path}' is not a sound ONNX file: {first_line(error)}.") from None


def check_weights(path: Path, model: onnx.ModelProto) -> int:
    """Refuse constants that are cut or hold NaN; return how many hold an infinity, as masks do."""
    infinite = 0
    for name, array in _floats(path, model):
        if np.isnan(array).any():
            raise ModelFileError(f"Weight '{name}' of '{path}' is not finite: it holds NaN.")
        infinite += bool(np.isinf(array).any())
    return infinite


def _floats(path: Path, model: onnx.ModelProto) -> Iterator[tuple[str, Any]]:
    """Yield every float that a graph holds by name: its tensors, and attributes of its nodes."""
    for tensor in tensors(model.graph):
        try:
            array = numpy_helper.to_array(tensor)
        except Exception as error:
            raise ModelFileError(f"Weight '{tensor.name}' of '{path}' is cut: {error}.") from None
        if tensor.data_type in FLOATS:
            yield tensor.name, array
    for graph in graphs(model.graph):
        for node in graph.node:
            name = node.output[0] if node.output else node.name
            for attribute in node.attribute:
                if attribute.floats or attribute.HasField("f"):
                    yield name, np.array(attribute.floats or [attribute.f])


def check_paths(path: Path, model: onnx.ModelProto) -> None:
    """Refuse texts that tell of the machine where a file was made."""
    for text in _texts(model):
        if found := LOCAL_PATH.search(text.encode()):
            raise ModelFileError(f"'{path}' tells of a machine: '{found[0].decode()}' in its text.")


def check_ports(path: Path, model: onnx.ModelProto, card: Card) -> None:
    """Hold what the graph takes and gives against what its metadata says."""
    inner = {tensor.name for tensor in model.graph.initializer}
    inputs = [port(value) for value in model.graph.input if value.name not in inner]
    if inputs != [(INPUT, TensorProto.UINT8, card.shape)]:
        raise ModelFileError(
            f"'{path}' contradicts itself: its metadata says input {INPUT}, uint8 {card.shape},"
            f" its graph has {_said(inputs)}."
        )
    wanted = [card.shape[0], len(card.labels)]
    outputs = [port(value) for value in model.graph.output]
    if outputs != [(name, TensorProto.FLOAT, wanted) for name in OUTPUTS]:
        raise ModelFileError(
            f"'{path}' contradicts itself: its metadata names {len(card.labels)} classes, its"
            f" outputs are {_said(outputs)}."
        )


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators; 0 where none is named."""
    return next((int(each.version) for each in model.opset_import if each.domain in OWN), 0)


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the graphs inside it: branches and loop bodies."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else []
            for each in (*inner, *attribute.graphs):
                yield from graphs(each)


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every constant of a graph, those held by attributes included."""
    for each in graphs(graph):
        yield from each.initializer
        for sparse in each.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in each.node:
            for attribute in node.attribute:
                yield from ([attribute.t] if attribute.HasField("t") else [])
                yield from attribute.tensors
                single = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
                for sparse in (*single, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)


def _strings(message: Any) -> Iterator[tuple[str, str | bytes]]:
    """Yield the name and value of every string field of a message, and of those inside it."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            yield from ((field.name, each) for each in ([value] if _single(value) else value))
        elif field.type == field.TYPE_MESSAGE:
            for each in [value] if _single(value) else value:
                yield from _strings(each)


def _single(value: object) -> bool:
    return isinstance(value, (str, bytes)) or hasattr(value, "ListFields")


def _texts(model: onnx.ModelProto) -> Iterator[str]:
    """Yield every text of a model but the class names, which are the user's."""
    yield from (model.producer_name, model.producer_version, model.domain, model.doc_string)
    for prop in model.metadata_props:
        yield from () if prop.key == "zoo.labels" else (prop.key, prop.value)
    for graph in graphs(model.graph):
        ports = (*graph.value_info, *graph.input, *graph.output)
        for part in (graph, *graph.node, *graph.initializer, *ports):
            yield from (part.name, part.doc_string)
            yield from (text for prop in part.metadata_props for text in (prop.key, prop.value))


def port(value: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
    kind = value.type.tensor_type
    dims = [d.dim_param if d.HasField("dim_param") else int(d.dim_value) for d in kind.shape.dim]
    return value.name, int(kind.elem_type), dims


def _said(ports: list[tuple[str, int, list[int | str]]]) -> str:
    names = {number: name.lower() for name, number in TensorProto.DataType.items()}
    return ", ".join(f"{name}, {names.get(k, k)} {dims}" for name, k, dims in ports) or "none"
