"""Smaller files: int8 and fp16 candidates, measured against their fp32 twin before one is kept."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from zoo.api import Examples
from zoo.data import checked, holdout
from zoo.errors import ProofError
from zoo.export import quantization
from zoo.export.comparison import Comparison, compare
from zoo.export.graph import finished
from zoo.export.modelfile import ModelFile
from zoo.export.proof import MIN_AGREEMENT, Reference
from zoo.export.runtime import Array, open_session
from zoo.export.targets import ExportConfig
from zoo.export.timing import ratio
from zoo.export.trials import run_all
from zoo.pipeline import assembly
from zoo.pipeline.model_files import Source, card_of, config_of, full_precision
from zoo.progress import current

CALIBRATION, MEASURED = 512, 2000
"""Training examples for calibration, and at most as many others to choose a candidate by."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A smaller file that was measured on examples held out from training, fractions 0..1.

    `latency` is its median time for one example, in units of that of its fp32 twin.
    """

    name: str
    bytes: int
    agreement: float
    accuracy_drop: float
    latency: float | None
    kept: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Made:
    """The bytes of a file and of its fp32 twin, and the logits that its golden vectors hold."""

    data: bytes
    twin: bytes
    expected: Array
    candidates: list[Candidate] = dataclasses.field(default_factory=list)


def make(source: Source, config: ExportConfig) -> Made:
    """Export a run as its options say; raises `ProofError` where no smaller file is good enough."""
    twin = full_precision(source, config)
    if config.precision == "fp32":
        return Made(twin, twin, source.logits)
    current().note(f"measuring {config.precision}")
    calibration, measured = _drawn(source, config.layout)
    found = []
    for name, model in _variants(twin, config.precision, calibration):
        card = card_of(source, config, source.accuracy, quantized=_method(source, config, name))
        found.append((_measure(name, finished(model, card), twin, measured, config), model))
    fit = [pair for pair in found if pair[0].kept]
    if not fit:
        tried = "; ".join(f"{c.name}: {c.reason}" for c, _ in found)
        raise ProofError(
            f"No file was written: no {config.precision} file is good enough ({tried})."
            " Type --max-drop with more points, or leave it in fp32."
        )
    best, model = max(fit, key=lambda pair: (pair[0].agreement, -pair[0].bytes))
    data, logits = _sealed_smaller(source, config, twin, best.name, model)
    candidates = [
        dataclasses.replace(c, kept=c is best, bytes=len(data) if c is best else c.bytes)
        for c, _ in found
    ]
    return Made(data, twin, logits, candidates)


def make_again(source: Source, file: ModelFile) -> bytes:
    """Export a run once more as a file says it was made."""
    config = config_of(file)
    twin = full_precision(source, config)
    if config.precision == "fp32":
        return twin
    name = str((file.card.quantization or {}).get("method"))
    if name == "fp16":
        model = quantization.to_fp16(twin)
    else:
        model = quantization.by_name(name, twin, _drawn(source, config.layout)[0])
    return _sealed_smaller(source, config, twin, name, model)[0]


def at_opset(source: Source, file: ModelFile, opset: int) -> bytes:
    """Export a run in full precision as a file was, but at another opset."""
    return full_precision(source, dataclasses.replace(config_of(file), opset=str(opset)))  # type: ignore[arg-type]


def reference_of(source: Source, file: ModelFile, twin: bytes | None = None) -> Reference:
    """Return what a file must say: PyTorch's answers, or those of its fp32 twin, made if absent."""
    card, config = file.card, config_of(file)
    if card.precision == "fp32":
        wanted = card_of(source, config, source.accuracy)
        logits = source.logits
        return Reference(
            source.images, source.labels, logits, logits, wanted, original=source.original
        )
    twin = twin or full_precision(source, config)
    run = functools.partial(_run, twin)
    logits = run(source.images, 64)[0]
    wanted = card_of(source, config, float(card.metrics["accuracy"]), quantized=card.quantization)
    return Reference(
        source.images,
        source.labels,
        logits,
        source.logits,
        wanted,
        original=source.original,
        twin=run,
    )


def _run(data: bytes, images: Array, size: int) -> tuple[Array, Array]:
    """Run a file that is opened for it alone: an open one holds its weights."""
    return run_all(open_session(Path("the fp32 twin"), data, lean=True), images, size)


def _variants(
    twin: bytes, precision: str, calibration: Array
) -> Iterator[tuple[str, onnx.ModelProto]]:
    if precision == "fp16":
        yield "fp16", quantization.to_fp16(twin)
    else:
        yield from quantization.candidates(twin, calibration)


def _measure(
    name: str, data: bytes, twin: bytes, measured: Examples, config: ExportConfig
) -> Candidate:
    """Hold a smaller file against its twin, on other examples than the test split's."""
    images = measured.inputs.numpy()
    assert measured.labels is not None
    found = _compare(data, twin, images, measured.labels.numpy())
    if found is None:
        reason = "its answers are not finite"
        return Candidate(name, len(data), 0.0, 1.0, None, False, reason)
    reasons = []
    if found.drop > config.max_drop / 100 + 1e-9:
        reasons.append(f"accuracy drops by {found.drop * 100:.2f} points")
    if found.agreement < MIN_AGREEMENT:
        reasons.append(f"only {found.agreement:.1%} of labels agree")
    if len(data) >= len(twin):
        reasons.append("it is not smaller")
    reason = ", ".join(reasons)
    time = ratio(data, twin)
    return Candidate(name, len(data), found.agreement, found.drop, time, not reasons, reason)


def _compare(data: bytes, twin: bytes, images: Array, labels: Array) -> Comparison | None:
    sides = [_answers(each, images) for each in (twin, data)]
    return compare(sides[0][0], [sides[1]], labels)


def _answers(data: bytes, images: Array) -> tuple[Array, Array]:
    """Run a file that may not be sealed yet."""
    return run_all(open_session(Path("the model"), data, sealed=False), images, 64)


def _sealed_smaller(
    source: Source, config: ExportConfig, twin: bytes, name: str, model: onnx.ModelProto
) -> tuple[bytes, Array]:
    """Write into a smaller model what it is, measured on the test split; its logits come too."""
    data = bytes(model.SerializeToString(deterministic=True))
    found = _compare(data, twin, source.images, source.labels)
    if found is None:
        raise ProofError(f"No file was written: an {config.precision} answer is not finite.")
    written = {
        **_method(source, config, name),
        "twin_sha256": hashlib.sha256(twin).hexdigest(),
        "agreement": found.agreement,
        "accuracy_drop": found.drop,
        "max_drop": round(config.max_drop / 100, 10),
    }
    card = card_of(source, config, found.onnx_accuracy, quantized=written)
    sealed = finished(model, card)
    return sealed, _answers(sealed, source.images)[0]


def _method(source: Source, config: ExportConfig, name: str) -> dict[str, Any]:
    """Say how a smaller file was made."""
    drawn = {"examples": CALIBRATION, "seed": source.run.record.seed} if config.int8 else {}
    return {"method": name, **drawn}


def _drawn(source: Source, layout: str) -> tuple[Array, Examples]:
    """Draw calibration examples, as the graph takes them, and others to measure on.

    The others are those that training held out, where it did; both are drawn by the run's seed.
    """
    record, data = source.run.record, source.data
    part = assembly.recorded(source.workspace, "dataset", record.dataset)
    with assembly.guarded(part.entry, "loaded"):
        loaded = data.train()
    examples = checked(loaded, data.input.shape, len(data.classes), part.entry.owner)
    assert examples.labels is not None
    train, held = holdout(len(examples), record.training["validation"], record.training["seed"])
    other = held if len(held) else train[CALIBRATION:]
    drawn = train[:CALIBRATION].sort().values
    calibration = examples.inputs[drawn].numpy()
    if layout == "nhwc":
        calibration = calibration.transpose(0, 2, 3, 1)
    other = (other if len(other) else train)[:MEASURED].sort().values
    left = Examples(inputs=examples.inputs[other], labels=examples.labels[other])
    return np.ascontiguousarray(calibration), left
