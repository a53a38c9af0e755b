"""What a traced graph is made smaller by: onnxscript's passes, without its tolerant rules.

torch's `optimize=True` takes `x + c` for `x` where c is within 1e-8 of 0, and `x * c` where c is
within 1e-5 of 1: the constants that keep a logarithm or a quotient finite are lost. Here a constant
is dropped only where it is exactly 0 or 1.
"""

from __future__ import annotations

from typing import Any

from onnx_ir.passes import common
from onnxscript import optimizer, rewriter
from onnxscript.rewriter import pattern
from onnxscript.rewriter.rules import common as rules

ROUNDS = 2
"""How often torch folds and rewrites, too: what one round makes constant, the next one folds."""

LOSSLESS = (
    *("dropout_zero_rule", "dropout_inference_rule"),
    *("two_reshapes_matmul_reshape_rule", "one_reshape_matmul_reshape_rule"),
    *("cast_constant_of_shape_rule", "cast_constant_of_shape_without_value_rule"),
    *("collapse_slice_rule", "collapse_slice2_rule", "materialize_reshape_shape_rule"),
    *("min_min_rule", "max_max_rule", "min_max_rule", "max_min_rule"),
    *("successive_clip_relu_rule", "successive_relu_clip_rule"),
    *("successive_relu_rule", "successive_clip_rule"),
    *("cast_cast_rule", "no_op_cast_rule", "no_op_expand_rule", "flatten_to_reshape_rule"),
    *("reshape_reshape_rule", "slice_split_rule", "squeeze_reshape_1d_rule"),
    *("no_op_transpose_rule", "transpose_transpose_rule", "unsqueeze_unsqueeze_rule"),
    *("no_op_dynamic_scatter_nd_rule", "no_op_static_scatter_nd_rule"),
    *("normalize_pad_format_conv_rule", "fuse_pad_into_conv_rule"),
    *("fuse_batchnorm_into_conv_rule", "fuse_batchnorm_into_conv_transpose_rule"),
    *("fuse_batchnorm_into_gemm_rule", "remove_optional_bias_from_conv_rule"),
    *("remove_optional_bias_from_conv_transpose_rule", "remove_optional_bias_from_gemm_rule"),
)
"""Rules of onnxscript that compare no float with a tolerance; older versions lack some."""


def optimize(model: Any) -> None:
    """Fold constants and batch norms, and drop what does nothing, in an `onnx_ir.Model`, in place.

    Every constant that changes an answer is kept, however small. Names of inputs and outputs stay.
    """
    common.InlinePass()(model)
    wanted = [*_exact_no_ops(), *_lossless()]
    for _ in range(ROUNDS):
        optimizer.fold_constants_ir(model, onnx_shape_inference=True)
        rewriter.rewrite(model, wanted)
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


def _lossless() -> list[Any]:
    found = (getattr(rules, name, None) for name in LOSSLESS)
    return [rule for rule in found if rule is not None]


def _exact_no_ops() -> list[Any]:
    """Rules for x + 0, 0 + x, x - 0, x * 1, 1 * x and x / 1, which match no other number."""
    zero, one = (pattern.Constant(each, rel_tol=0.0, abs_tol=0.0) for each in (0, 1))
    shapes = (
        lambda op, x: op.Add(x, zero),
        lambda op, x: op.Add(zero, x),
        lambda op, x: op.Sub(x, zero),
        lambda op, x: op.Mul(x, one),
        lambda op, x: op.Mul(one, x),
        lambda op, x: op.Div(x, one),
    )
    return [pattern.RewriteRule(shape, lambda op, x: op.Identity(x)) for shape in shapes]
