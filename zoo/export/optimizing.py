"""What a traced graph is made smaller by: onnxscript's passes, without its tolerant rules.

torch's `optimize=True` takes `x + c` for `x` where c is within 1e-8 of 0, and `x * c` where c is
within 1e-5 of 1: the constants that keep a logarithm or a quotient finite are lost. Here a constant
is dropped only where it is exactly 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from onnx_ir import traversal
from onnx_ir.passes import common
from onnxscript import optimizer, rewriter
from onnxscript.rewriter import pattern
from onnxscript.rewriter.rules import common as rules

from zoo.export.portable_operators import portable_rules

ROUNDS = 2
"""How often torch folds and rewrites, too: what one round makes constant, the next one folds."""

LOSSLESS = (
    ("Dropout", "dropout_zero_rule", "dropout_inference_rule"),
    ("MatMul", "two_reshapes_matmul_reshape_rule", "one_reshape_matmul_reshape_rule"),
    ("ConstantOfShape", "cast_constant_of_shape_rule"),
    ("ConstantOfShape", "cast_constant_of_shape_without_value_rule"),
    ("Slice", "collapse_slice_rule", "collapse_slice2_rule"),
    ("Reshape", "materialize_reshape_shape_rule"),
    ("Relu", "successive_relu_rule"),
    ("Cast", "cast_cast_rule", "no_op_cast_rule"),
    ("Expand", "no_op_expand_rule"),
    ("Flatten", "flatten_to_reshape_rule"),
    ("Reshape", "reshape_reshape_rule"),
    ("Slice", "slice_split_rule"),
    ("Transpose", "no_op_transpose_rule", "transpose_transpose_rule"),
    ("Unsqueeze", "unsqueeze_unsqueeze_rule"),
    ("Squeeze", "squeeze_reshape_1d_rule"),
    ("ScatterND", "no_op_dynamic_scatter_nd_rule", "no_op_static_scatter_nd_rule"),
    ("Pad", "normalize_pad_format_conv_rule", "fuse_pad_into_conv_rule"),
    ("BatchNormalization", "fuse_batchnorm_into_conv_rule"),
    ("BatchNormalization", "fuse_batchnorm_into_conv_transpose_rule"),
    ("BatchNormalization", "fuse_batchnorm_into_gemm_rule"),
    ("Conv", "remove_optional_bias_from_conv_rule"),
    ("ConvTranspose", "remove_optional_bias_from_conv_transpose_rule"),
    ("Gemm", "remove_optional_bias_from_gemm_rule"),
)
"""Rules of onnxscript that compare no float with a tolerance, in torch's order, each with an
operator without which it matches nothing. Older versions lack some.

Those that join Clip, Relu, Min and Max are left out. Of Clip they take the larger minimum and the
smaller maximum, which is another function where the ranges do not overlap; and what they make of
one tensor in two places gets one name.
"""


def optimize(model: Any) -> None:
    """Fold constants and batch norms, and drop what does nothing, in an `onnx_ir.Model`, in place.

    What is left is written as it was meant, see `portable_rules`. Every constant that changes an
    answer is kept, however small. Names of inputs and outputs stay.
    """
    common.InlinePass()(model)
    for _ in range(ROUNDS):
        optimizer.fold_constants_ir(model, onnx_shape_inference=True)
        there = {node.op_type for node in traversal.RecursiveGraphIterator(model.graph)}
        rewriter.rewrite(model, [*_exact_no_ops(there), *_lossless(there)])
    rewriter.rewrite(model, portable_rules())
    for tidy in (
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    ):
        tidy(model)


def _lossless(operators: set[str]) -> Iterator[Any]:
    """Yield the rules that may match: each is tried on every node."""
    for operator, *names in LOSSLESS:
        if operator in operators:
            yield from (getattr(rules, name) for name in names if hasattr(rules, name))


def _exact_no_ops(operators: set[str]) -> Iterator[Any]:
    """Yield rules for x * 1, 1 * x, x + 0, 0 + x, x - 0 and x / 1, which match no other number."""
    zero, one = (pattern.Constant(each, rel_tol=0.0, abs_tol=0.0) for each in (0, 1))
    shapes: tuple[tuple[str, Callable[..., Any]], ...] = (
        ("Mul", lambda op, x: op.Mul(x, one)),
        ("Mul", lambda op, x: op.Mul(one, x)),
        ("Add", lambda op, x: op.Add(x, zero)),
        ("Add", lambda op, x: op.Add(zero, x)),
        ("Sub", lambda op, x: op.Sub(x, zero)),
        ("Div", lambda op, x: op.Div(x, one)),
    )
    for operator, shape in shapes:
        if operator in operators:
            yield pattern.RewriteRule(shape, lambda op, x: op.Identity(x))
