"""Operators written as they are meant, for readers that know no other way to write them.

torch writes a flattening as a Reshape with `allowzero`, where some readers lose the open batch and
others stop, and a global average as a ReduceMean whose axes are an input. Nothing is approximated:
each rule asks for shapes that make both ways the same function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import pattern

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


def portable_rules() -> list[Any]:
    """Return the rules, for a graph that no other rule looks at afterwards."""
    return [
        pattern.RewriteRule(_reshape, lambda op, x, shape, **_: op.Flatten(x, axis=1), _flattens),
        pattern.RewriteRule(_reshape, _with_batch, _keeps_batch),
        pattern.RewriteRule(_reshape, lambda op, x, shape, **_: op.Reshape(x, shape), _has_no_zero),
        pattern.RewriteRule(_mean, lambda op, x, axes, **_: op.GlobalAveragePool(x), _is_global),
        pattern.RewriteRule(_mean, _flat_average, _is_global_and_flat),
    ]


def _reshape(op: Any, x: Any, shape: Any) -> Any:
    return op.Reshape(x, shape, _allow_other_attributes=True, _outputs=["out"])


def _mean(op: Any, x: Any, axes: Any) -> Any:
    return op.ReduceMean(x, axes, _allow_other_attributes=True, _outputs=["out"])


def _flattens(context: Any, x: Any, shape: Any, **_: Any) -> bool:
    """Two axes of more, the first of them open and the same."""
    return len(_target(x, shape)) == 2 and len(x.shape) > 2


def _keeps_batch(context: Any, x: Any, shape: Any, **_: Any) -> bool:
    """Other axes than two, the first of them open and the same."""
    return len(_target(x, shape)) > 2


def _with_batch(op: Any, x: Any, shape: Any, **_: Any) -> Any:
    return op.Reshape(x, op.Constant(value_ints=[0, *_target(x, shape)[1:]]))


def _has_no_zero(context: Any, x: Any, shape: Any, out: Any) -> bool:
    """`allowzero` says what a 0 means: where there is none, it says nothing."""
    wanted = _ints(shape)
    allows = out.producer().attributes.get("allowzero")
    return bool(wanted and 0 not in wanted and allows is not None and allows.as_int())


def _is_global(context: Any, x: Any, axes: Any, out: Any) -> bool:
    return _averages(x, axes) and _kept(out)


def _is_global_and_flat(context: Any, x: Any, axes: Any, out: Any) -> bool:
    known = all(isinstance(size, int) for size in x.shape[:2]) if x.shape is not None else False
    return _averages(x, axes) and not _kept(out) and (known or not isinstance(x.shape[0], int))


def _flat_average(op: Any, x: Any, axes: Any, **_: Any) -> Any:
    average = op.GlobalAveragePool(x)
    if isinstance(x.shape[0], int):  # as any flattening of a fixed batch
        return op.Reshape(average, op.Constant(value_ints=list(x.shape[:2])))
    return op.Flatten(average, axis=1)


def _target(x: Any, shape: Any) -> Sequence[int]:
    """Return what a Reshape makes of a tensor whose first axis is open and stays, or nothing.

    The axes behind it are known, and hold as many numbers before as after: so the first is equal.
    """
    wanted = _ints(shape)
    if not wanted or wanted[0] != -1 or x.shape is None or len(x.shape) < 1:
        return ()
    first, *inner = x.shape
    known = all(isinstance(size, int) for size in inner) and not isinstance(first, int)
    if not known or min(wanted[1:], default=0) < 1:
        return ()
    return wanted if math.prod(inner) == math.prod(wanted[1:]) else ()


def _averages(x: Any, axes: Any) -> bool:
    """Say whether all axes behind batch and channels are averaged over."""
    wanted = _ints(axes)
    if not wanted or x.shape is None or x.dtype not in FLOATS or len(x.shape) < 3:
        return False
    rank = len(x.shape)
    return sorted({axis % rank for axis in wanted}) == list(range(2, rank))


def _kept(out: Any) -> bool:
    kept = out.producer().attributes.get("keepdims")
    return kept is None or bool(kept.as_int())


def _ints(value: Any) -> list[int]:
    """Return the numbers of a constant, or none where it is not known."""
    found = ir.convenience.get_const_tensor(value)
    return [] if found is None else [int(each) for each in found.numpy().reshape(-1)]
