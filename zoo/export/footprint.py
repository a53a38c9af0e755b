"""What one example costs a graph, by shapes alone: known before anything is run."""

from __future__ import annotations

import math

import onnx

MEMORY = 1 << 30
"""Bytes of inner tensors that may be held at once."""
WORK = 16 << 30
"""Bytes of inner tensors that may be made, over all examples, to measure one file."""
FEWEST = 64
"""Examples that are worth any work."""


def activations(model: onnx.ModelProto) -> int:
    """Return the bytes of all the tensors that one example becomes on its way through a graph.

    By shape inference: an axis whose size only a run would tell counts as 1.
    """
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    total = 0
    for value in (*graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
            size = math.prod(max(1, axis.dim_value) for axis in tensor.shape.dim)
            total += size * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)
    batch = int(graph.input[0].type.tensor_type.shape.dim[0].dim_value)
    return max(1, total // max(1, batch))


def at_once(each: int, most: int) -> int:
    """Return how many examples of `each` bytes may be run in one batch."""
    return max(1, min(most, MEMORY // 4 // each))


def in_all(each: int, most: int) -> int:
    """Return how many examples of `each` bytes may be run to measure one file."""
    return min(most, max(FEWEST, WORK // each))
