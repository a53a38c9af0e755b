"""What a file is made for: opsets, the oldest onnxruntime that loads it, profiles of runtimes."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from zoo.api import knob
from zoo.errors import BadOption

OPSET = 18
"""With IR 8 every onnxruntime from 1.15 loads it."""

# onnxruntime: highest opset, highest IR version that it loads. Each was measured by loading and
# running files; older ones were not tried.
LOADS = (
    ("1.15", 18, 9),
    ("1.17", 20, 9),
    ("1.18", 21, 10),
    ("1.21", 22, 10),
    ("1.23", 23, 11),
)

DRAWS = frozenset(
    """
    Bernoulli Dropout Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike
    """.split()  # noqa: SIM905
)
"""Operators whose answers may differ from run to run: training was left on."""

COREML = frozenset(
    """
    Add And ArgMax AveragePool Cast Ceil Clip Concat Conv ConvTranspose Cos DepthToSpace Div
    Elu Erf Exp GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool GridSample
    GroupNormalization HardSigmoid Identity InstanceNormalization LayerNormalization
    LeakyRelu MatMul Max MaxPool Mul PRelu Pow Reciprocal ReduceMax ReduceMean ReduceSum
    Relu Reshape Resize Round Shape Sigmoid Sin Slice Softmax Softplus Split Sqrt Squeeze
    Sub Tanh Tile Transpose Unsqueeze Where
    """.split()  # noqa: SIM905
)
"""What onnxruntime's Core ML provider takes as an ML program, by its list in release 1.32."""

NNAPI = frozenset(
    """
    Abs Add AveragePool BatchNormalization Cast Clip Concat Conv DepthToSpace
    DequantizeLinear Div Elu Exp Flatten Floor Gather Gemm GlobalAveragePool GlobalMaxPool
    Identity LRN LeakyRelu Log MatMul Max MaxPool Min Mul Neg PRelu Pad Pow QLinearConv
    QLinearMatMul QuantizeLinear ReduceMean Relu Reshape Resize Sigmoid Sin Slice Softmax
    Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze
    """.split()  # noqa: SIM905
)
"""What onnxruntime's NNAPI provider (Android) takes, by its list in release 1.32."""


MAX_DROP = 0.5
SPDX = r"[A-Za-z0-9][A-Za-z0-9.+:() -]*"
"""The characters of a license expression (SPDX 2.3, annex D)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """How the file is made."""

    opset: Literal["18", "20", "21"] | None = knob(None, "operator set; none: the target's, or 18")
    layout: Literal["nchw", "nhwc"] = knob("nchw", "order of the input's axes")
    batch: int | None = knob(None, "fixed batch size; none: any", low=1, high=65536)
    target: (
        Literal[
            "onnxruntime-1.15", "onnxruntime-1.17", "onnxruntime-1.18", "web", "node", "coreml",
            "nnapi", "openvino", "opencv", "tract",
        ]
        | None
    ) = knob(None, "runtime that the file is made for and proved in")  # fmt: skip
    int8: bool = knob(False, "quantize weights and activations to 8 bits")
    fp16: bool = knob(False, "compute in half precision")
    max_drop: float = knob(
        MAX_DROP, "points of accuracy that int8 or fp16 may cost", low=0, high=100
    )
    names: bool = knob(False, "keep names of nodes, and shapes, in a small file too")
    license: str = knob("unknown", "license of the weights, as SPDX names it")

    @property
    def precision(self) -> str:
        return "int8" if self.int8 else "fp16" if self.fp16 else "fp32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A profile: what a file for this runtime must be, and the runtimes it is proved in.

    `batch` is the fixed size that it wants; `only` are all operators that it takes, `banned`
    those of them that it does not.
    """

    opset: int = OPSET
    ir_version: int = 8
    batch: int | None = None
    only: frozenset[str] | None = None
    banned: frozenset[str] = frozenset()
    runtimes: tuple[str, ...] = ()

    def refuses(self, operators: set[str]) -> list[str]:
        """Return those operators that the runtime does not take."""
        outside = operators - self.only if self.only is not None else set()
        return sorted(outside | (operators & self.banned))


TARGETS: dict[str, Target] = {
    "onnxruntime-1.15": Target(),
    "onnxruntime-1.17": Target(opset=20, ir_version=9),
    "onnxruntime-1.18": Target(opset=21, ir_version=10),
    "web": Target(runtimes=("onnxruntime-web",)),
    "node": Target(runtimes=("onnxruntime-node",)),
    # Its provider takes no node of a graph whose batch is not fixed.
    "coreml": Target(batch=1, only=COREML),
    "nnapi": Target(batch=1, only=NNAPI),
    "openvino": Target(runtimes=("openvino",)),
    # Its reader dies of the error function below opset 20, where GELU is not one operator.
    "opencv": Target(opset=20, ir_version=9, banned=frozenset({"Erf"}), runtimes=("opencv",)),
    "tract": Target(runtimes=("tract",)),
}


def settled(config: ExportConfig) -> ExportConfig:
    """Fill in what the target decides; raises `BadOption` where options contradict each other."""
    if config.int8 and config.fp16:
        raise BadOption(
            "int8 and fp16 exclude each other: one file has one precision. Export it twice."
        )
    if config.precision == "fp32" and config.max_drop != MAX_DROP:
        raise BadOption("max-drop is for smaller files. Type: --int8 or --fp16 beside it.")
    if not re.fullmatch(SPDX, config.license):
        raise BadOption(
            f"license: {config.license!r} is no SPDX expression. Allowed: MIT, Apache-2.0,"
            " CC-BY-4.0, LicenseRef-Mine, MIT OR Apache-2.0, …"
        )
    target = TARGETS[config.target] if config.target else Target()
    opset = int(config.opset) if config.opset else target.opset
    if config.target and opset > target.opset:
        raise BadOption(
            f"opset: {config.target} loads up to {target.opset}, not {opset}."
            f" Type: --opset {target.opset}, or leave it out."
        )
    batch = config.batch if config.batch is not None else target.batch
    if target.batch is not None and batch != target.batch:
        raise BadOption(
            f"batch: {config.target} wants {target.batch}, not {batch}. Leave --batch out."
        )
    return dataclasses.replace(config, opset=str(opset), batch=batch)  # type: ignore[arg-type]


def oldest_onnxruntime(opset: int, ir_version: int) -> str | None:
    """Return the oldest onnxruntime known to load a file; None where even the newest is unsure."""
    for version, highest_opset, highest_ir in LOADS:
        if opset <= highest_opset and ir_version <= highest_ir:
            return version
    return None
