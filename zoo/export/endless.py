"""Files that may take any time at all, for they have loops: known, and not waited for."""

from __future__ import annotations

from pathlib import Path

from zoo.errors import Unanswered
from zoo.export.protobuf import Part, parts

LOOPS = (b"Loop", b"Scan")
"""The operators that loop, by the names that a file has them under."""
LONGEST = 30.0
"""Seconds that a file with such an operator may take for one batch."""
DEEPEST = 50
"""How deep graphs are looked for in each other; protobuf knows no message deeper than 100."""

# The numbers that onnx.proto gives the fields in which operators are.
GRAPH, FUNCTION = 7, 25
NODE_OF_GRAPH, NODE_OF_FUNCTION = 1, 7
OPERATOR, ATTRIBUTE = 4, 5
BODY, BODIES = 6, 11


def may_be_endless(data: bytes) -> bool:
    """Say whether a file has operators that loop, in its graph, in one inside it, or a function."""
    if not any(name in data for name in LOOPS):  # most have no such text at all
        return False
    try:
        return any(
            _loops(data, part, NODE_OF_GRAPH if number == GRAPH else NODE_OF_FUNCTION)
            for number, part in parts(data, (0, len(data)), GRAPH, FUNCTION)
        )
    except ValueError:  # it cannot be told
        return True


def _loops(data: bytes, message: Part, nodes: int, depth: int = DEEPEST) -> bool:
    if not depth:
        raise ValueError("graphs that lie too deep in each other")
    for _, node in parts(data, message, nodes):
        for number, part in parts(data, node, OPERATOR, ATTRIBUTE):
            if number == OPERATOR:
                if data[slice(*part)] in LOOPS:
                    return True
                continue
            for _, body in parts(data, part, BODY, BODIES):
                if _loops(data, body, NODE_OF_GRAPH, depth - 1):
                    return True
    return False


def unanswered(path: Path) -> Unanswered:
    return Unanswered(
        f"'{path}' has not answered within {LONGEST:.0f} s. It has a loop in it (Loop or Scan),"
        " which need have no end."
    )
