"""What a file holds, read without running it: neither torch nor onnxruntime is needed."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from zoo.errors import ModelFileError
from zoo.export import boundary, modelfile
from zoo.export.card import PREPROCESSED, Card
from zoo.export.seal import KEY, read_model
from zoo.export.targets import TARGETS, oldest_onnxruntime
from zoo.untrusted import parse_json


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What was read of a file. `sealed` is False for one that zoo did not export.

    `preprocessed` is the inner tensor at which preprocessing ends, with the operators before it;
    None where there is none, as in files made by 0.1.0. `parameters` counts the numbers in its
    weights: all constants of more than one number.
    `oldest_onnxruntime` is the oldest known to load it, None where none is known; `fits` are the
    targets whose profile it meets.
    """

    file: Path
    bytes: int
    sha256: str
    sealed: bool
    producer: str
    opset: int
    ir_version: int
    oldest_onnxruntime: str | None
    fits: list[str]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    labels: list[str]
    operators: dict[str, int]
    preprocessed: dict[str, Any] | None
    parameters: int
    metadata: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Difference:
    """One thing in which two files differ."""

    what: str
    one: str
    other: str


def inspect(path: Path) -> Inspection:
    """Read any ONNX file; raises `NoModelFile`, or `ModelFileError` where it is not sound."""
    return _inspect(path)[0]


def differences(path: Path, other: Path) -> tuple[Inspection, list[Difference]]:
    """Inspect a file, and list in what another one differs from it."""
    (one, model), (two, second) = _inspect(path), _inspect(other)
    found = []
    for name in ("bytes", "sha256", "producer", "opset", "ir_version", "parameters"):
        found.append(Difference(name, str(getattr(one, name)), str(getattr(two, name))))
    for name in ("inputs", "outputs"):
        found.append(Difference(name, ports(getattr(one, name)), ports(getattr(two, name))))
    found.append(Difference("preprocessing", ending(one), ending(two)))
    for name in sorted(one.operators.keys() | two.operators.keys()):
        counts = (str(each.operators.get(name, 0)) for each in (one, two))
        found.append(Difference(f"operator {name}", *counts))
    said, says = _flat(one.metadata), _flat(two.metadata)
    for key in sorted(said.keys() | says.keys()):
        found.append(Difference(key, said.get(key, "–"), says.get(key, "–")))
    return one, [each for each in found if each.one != each.other] + _weights(model, second)


def ports(described: list[dict[str, Any]]) -> str:
    """Write inputs or outputs in one line: image uint8 [batch, 1, 8, 8]."""
    return ", ".join(
        f"{each['name']} {each['dtype']} [{', '.join(map(str, each['shape']))}]"
        for each in described
    )


def ending(found: Inspection) -> str:
    """Say where preprocessing ends: Cast, Mul, Add → preprocessed float32 [batch, 1, 8, 8]."""
    if found.preprocessed is None:
        made = f"made by {found.producer}" if found.sealed else "not exported by zoo"
        return f"no tensor '{PREPROCESSED}': {made}"
    before = tally(found.preprocessed["operators"])
    return f"{before} → {ports([found.preprocessed])}"


def tally(operators: dict[str, int]) -> str:
    """Write operators in one line: Gemm × 3, Relu × 2, Softmax."""
    return ", ".join(
        name if count == 1 else f"{name} × {count}" for name, count in operators.items()
    )


def _preprocessed(model: onnx.ModelProto) -> dict[str, Any] | None:
    try:
        operators, value = boundary.described(model)
    except ModelFileError:
        return None
    return {**_port(value), "operators": dict(collections.Counter(operators))}


def _flat(metadata: dict[str, str]) -> dict[str, str]:
    """Spread the JSON objects among the values over keys of their own."""
    flat: dict[str, str] = {}
    for key, text in metadata.items():
        try:
            value = parse_json(text)
        except ValueError:
            value = None
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": json.dumps(each) for name, each in value.items()}
        else:
            flat[key] = text
    return flat


def _inspect(path: Path) -> tuple[Inspection, onnx.ModelProto]:
    data = read_model(path)
    model = modelfile.parse(path, data)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    card = None
    if "zoo.schema" in metadata:
        file = modelfile.open_model(path, data)
        card, metadata = file.card, {k: v for k, v in metadata.items() if k != KEY}
    else:
        modelfile.check_one_file(path, model)
        modelfile.check_operators(path, model)
        modelfile.check_structure(path, model)
        modelfile.check_weights(path, model)
    return _read(path, data, model, card, metadata), model


def _read(
    path: Path,
    data: bytes,
    model: onnx.ModelProto,
    card: Card | None,
    metadata: dict[str, str],
) -> Inspection:
    nodes = [node for graph in modelfile.graphs(model.graph) for node in graph.node]
    counts = collections.Counter(node.op_type for node in nodes)
    inner = {tensor.name for tensor in model.graph.initializer}
    weights = [t for t in model.graph.initializer if t.data_type in _WEIGHTS]
    opset = modelfile.opset_of(model)
    return Inspection(
        file=path,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        sealed=card is not None,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        opset=opset,
        ir_version=int(model.ir_version),
        oldest_onnxruntime=oldest_onnxruntime(opset, int(model.ir_version)),
        fits=_fits(model, set(counts)),
        inputs=[_port(value) for value in model.graph.input if value.name not in inner],
        outputs=[_port(value) for value in model.graph.output],
        labels=card.labels if card else [],
        operators=dict(sorted(counts.items())),
        preprocessed=_preprocessed(model),
        parameters=sum(n for t in weights if (n := math.prod(t.dims)) > 1),
        metadata=metadata,
    )


_WEIGHTS = (*modelfile.FLOATS, TensorProto.INT8, TensorProto.UINT8)


def _port(value: onnx.ValueInfoProto) -> dict[str, Any]:
    name, kind, shape = modelfile.port(value)
    dtype = TensorProto.DataType.Name(kind).lower() if kind else "unknown"
    return {"name": name, "dtype": "float32" if dtype == "float" else dtype, "shape": shape}


def _fits(model: onnx.ModelProto, operators: set[str]) -> list[str]:
    opset, batch = modelfile.opset_of(model), None
    for value in model.graph.input:
        _, _, shape = modelfile.port(value)
        batch = batch or (shape[0] if shape and isinstance(shape[0], int) else None)
    return [
        name
        for name, target in TARGETS.items()
        if opset <= target.opset
        and model.ir_version <= target.ir_version
        and target.batch in (None, batch)
        and not target.refuses(operators)
    ]


def _weights(model: onnx.ModelProto, other: onnx.ModelProto) -> list[Difference]:
    """Compare constants in order: names are made anew with each export."""
    one, two = ([numpy_helper.to_array(t) for t in m.graph.initializer] for m in (model, other))
    if [array.shape for array in one] != [array.shape for array in two]:
        return [Difference("weights", _shapes(one), _shapes(two))]
    unlike = [(a, b) for a, b in zip(one, two, strict=True) if not np.array_equal(a, b)]
    if not unlike:
        return []
    far = max(float(np.abs(a.astype(float) - b.astype(float)).max()) for a, b in unlike)
    text = f"{len(unlike)} of {len(one)} tensors differ"
    return [Difference("weights", text, f"by up to {far:.3g}")]


def _shapes(arrays: list[Any]) -> str:
    return f"{len(arrays)} tensors, {sum(array.size for array in arrays):,} numbers"
