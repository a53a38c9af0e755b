"""Seeded mutations of an exported file, and the process that runs the verbs on many of them."""

from __future__ import annotations

import json
import random
import sys
import traceback
from pathlib import Path
from typing import Any

import onnx

from zoo.export.seal import BLANK, KEY, MARK, seal

KINDS = ("bytes", "resealed", "graph")


def mutated(data: bytes, number: int) -> tuple[str, bytes]:
    """Return the kind of mutation number so-and-so, and its bytes; never those it began with."""
    rng = random.Random(number)
    kind = rng.choices(KINDS, (4, 4, 3))[0]
    for _ in range(100):
        made = _graph(data, rng) if kind == "graph" else _bytes(data, rng)
        if kind != "bytes" and made.count(MARK) == 1:
            made = seal(made)
        if made != data:
            return kind, made
    raise AssertionError("nothing was changed")


def _bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    # The weights are most of a file: half of the places lie in what is not weights.
    end = len(data) if rng.random() < 0.5 else min(len(data), 1500)
    start = 0 if rng.random() < 0.7 else max(0, len(data) - 3500)
    at = rng.randrange(start, max(end, start + 1))
    size = rng.choice((1, 1, 2, 4, 16, 200))
    match rng.randrange(7):
        case 0 | 1:
            changed[at] ^= 1 << rng.randrange(8)
        case 2:
            changed[at : at + size] = rng.randbytes(size)
        case 3:
            del changed[at : at + size]
        case 4:
            changed[at:at] = rng.randbytes(size)
        case 5:
            changed[at:at] = changed[at : at + size]
        case 6:
            del changed[rng.choice((at, len(data) - size)) :]
    return bytes(changed)


def _graph(data: bytes, rng: random.Random) -> bytes:
    """Change one thing of the graph or of the metadata, as a faulty exporter would."""
    model = onnx.load_model_from_string(data)
    graph = model.graph
    node, tensor = rng.choice(list(graph.node)), rng.choice(list(graph.initializer))
    port = rng.choice([*graph.input, *graph.output])
    prop = rng.choice(list(model.metadata_props))
    operators = ["Relu", "Add", "MatMul", "Conv", "Reshape", "Softmax", "Loop", "If", "Nothing"]
    match rng.randrange(13):
        case 0:
            node.op_type = rng.choice(operators)
        case 1:
            graph.node.remove(node)
        case 2:
            graph.initializer.remove(tensor)
        case 3 if tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice((0, -1, 1, 2**31, 2**62))
        case 4:
            tensor.data_type = rng.randrange(30)
        case 5 if node.input:
            names = [*graph.input, *graph.initializer, *(n for n in graph.node)]
            other = rng.choice(names)
            name = other.name if hasattr(other, "data_type") or not hasattr(other, "output") else ""
            node.input[rng.randrange(len(node.input))] = name or (
                other.output[0] if hasattr(other, "output") and other.output else ""
            )
        case 6:
            dims = port.type.tensor_type.shape.dim
            dims[rng.randrange(len(dims))].dim_value = rng.choice((0, 2, 9, 2**40))
        case 7:
            model.opset_import[0].version = rng.choice((0, 1, 7, 13, 17, 20, 21, 99))
        case 8:
            model.ir_version = rng.choice((0, 1, 3, 9, 10, 14, 99))
        case 9:
            prop.value = rng.choice(("", "null", "[]", "{}", "1e999", "[" * 5000, prop.value[:-1]))
        case 10:
            model.metadata_props.remove(prop)
        case 11 if node.attribute:
            attribute = rng.choice(list(node.attribute))
            attribute.i = rng.choice((-1, 0, 2, 2**40))
            if attribute.ints:
                attribute.ints[0] = rng.choice((-1, 0, 3, 2**40))
        case 12 if tensor.raw_data:
            tensor.raw_data = rng.choice((b"", tensor.raw_data[:-1], tensor.raw_data * 2))
    for each in model.metadata_props:
        if each.key == KEY:
            each.value = BLANK.decode()
    return bytes(model.SerializeToString())


def work() -> None:
    """Read {"model", "runs", "picture", "numbers"} on stdin; print a JSON line a mutation."""
    from zoo import pipeline
    from zoo.errors import ZooError
    from zoo.pipeline import Workspace

    task = json.load(sys.stdin)
    data, workspace = Path(task["model"]).read_bytes(), Workspace(runs=Path(task["runs"]))
    path = Path(task["folder"]) / "mutated.onnx"

    def validate() -> Any:
        return pipeline.validate(path, workspace=workspace).verdict

    def inspect() -> Any:
        return pipeline.inspect(path)[0].sealed

    def predict() -> Any:
        return pipeline.predict(path, [task["picture"]])[0].label

    for number in task["numbers"]:
        kind, changed = mutated(data, number)
        path.write_bytes(changed)
        found: dict[str, Any] = {"number": number, "kind": kind}
        for verb in (validate, inspect, predict):
            print(json.dumps({"number": number, "begins": verb.__name__}), flush=True)
            try:
                found[verb.__name__] = verb()
            except ZooError as error:
                lines = str(error).splitlines()
                found[verb.__name__] = f"refused: {error}" if len(lines) == 1 else f"LINES: {error}"
            except BaseException:
                found[verb.__name__] = f"CRASH: {traceback.format_exc()}"
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    work()
