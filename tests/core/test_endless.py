"""Which files may take any time at all: those with operators that loop, wherever these lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, load_model

from zoo.errors import ModelFileError
from zoo.export.endless import may_be_endless
from zoo.export.seal import check_keys

GROUP = b"\x9b\x06\x9c\x06"
"""Field 99, a group with nothing in it: what no reader knows, and all step over."""
NUMBER = helper.make_tensor_value_info("x", TensorProto.FLOAT, [])


def model(*nodes: NodeProto) -> ModelProto:
    graph = helper.make_graph(nodes, "Loop", [NUMBER], [NUMBER], doc_string="Scan")
    made = helper.make_model(graph)
    helper.set_model_props(made, {"zoo.labels": '["CT Scan", "Loop"]', "zoo.run": "x"})
    return made


def within(node: NodeProto) -> NodeProto:
    branches = {
        f"{name}_branch": helper.make_graph(nodes, name, [], [NUMBER])
        for name, nodes in {"then": [], "else": [node]}.items()
    }
    return helper.make_node("If", ["x"], ["x"], **branches)


LOOP = helper.make_node("Loop", ["x"], ["x"], body=helper.make_graph([], "b", [], []))
SCAN = helper.make_node("Scan", ["x"], ["x"], body=helper.make_graph([], "b", [], []))


def in_function() -> ModelProto:
    made, imports = model(), [helper.make_opsetid("", 18)]
    made.functions.append(helper.make_function("own", "Own", ["x"], ["x"], [LOOP], imports))
    return made


def deep(levels: int) -> NodeProto:
    node = LOOP
    for _ in range(levels):
        node = within(node)
    return node


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: model(LOOP), True),
        (lambda: model(SCAN), True),
        (lambda: model(within(within(LOOP))), True),
        (lambda: model(deep(20)), True),
        (in_function, True),
        (lambda: model(), False),
        (lambda: model(helper.make_node("Identity", ["x"], ["x"], name="/LoopBlock/Scan")), False),
        (lambda: model(within(helper.make_node("Identity", ["Loop"], ["x"]))), False),
    ],
)
def test_an_operator_is_meant_and_no_name(made: Callable[[], ModelProto], expected: bool) -> None:
    assert may_be_endless(made().SerializeToString()) is expected


def test_what_cannot_be_told_may_be_endless() -> None:
    data = model().SerializeToString()
    assert may_be_endless(data[:-1])
    assert may_be_endless(GROUP + data)


def test_a_trained_file_is_read_to_its_end(trained_once: Any) -> None:
    named = load_model(trained_once.model)
    named.graph.node[0].name = "Loop"
    assert not may_be_endless(named.SerializeToString())


def test_a_key_that_comes_twice_is_found_behind_nothing() -> None:
    data = model().SerializeToString()
    check_keys(data, "x.onnx")
    again = np.array([0x72, 9, 0x0A, 7, *b"zoo.run"], np.uint8).tobytes()
    with pytest.raises(ModelFileError, match=r"'zoo\.run' is in them twice"):
        check_keys(data + again, "x.onnx")
    with pytest.raises(ModelFileError, match=r"'x\.onnx' is damaged: it has a field of wire type"):
        check_keys(data + GROUP + again, "x.onnx")
