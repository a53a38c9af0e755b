"""Rows on what a file is and says of itself, before it is run."""

from __future__ import annotations

from collections.abc import Iterator

from zoo.export.card import Card
from zoo.export.evidence import PYTORCH, Reference, Row, infinite, judged
from zoo.export.modelfile import ModelFile
from zoo.export.original import Original
from zoo.export.targets import oldest_onnxruntime


def structure(file: ModelFile, reference: Reference | None) -> Iterator[Row]:
    """Say what opening the file has checked already, and whether the run's weights are finite."""
    card = file.card
    oldest = oldest_onnxruntime(file.opset, file.ir_version)
    operators = f"{len(file.operators)} of ONNX's own, opset {file.opset}, IR"
    operators += f" {file.ir_version}; onnxruntime {oldest} and later"
    yield Row("bytes and seal", "passed", f"{len(file.data):,} bytes, {file.sha256[:12]}")
    yield Row("ONNX checker, strict shape inference", "passed", "sound")
    yield Row("operators", "passed", operators + (f"; fit for {card.target}" * bool(card.target)))
    yield _weights(file, reference.original if reference else None)
    yield Row("one file, no local paths", "passed", "none")
    ports = f"uint8 {card.shape} to {len(card.labels)} classes"
    yield Row("inputs and outputs as the metadata says", "passed", ports.replace("'", ""))


def identity(card: Card, reference: Reference | str) -> Iterator[Row]:
    """Compare what the file says of itself with what its run records, field by field."""
    if isinstance(reference, str):
        yield Row("what its run records", "skipped", reference)
        return
    wanted = reference.card
    rest = "run input components license layout batch precision target"
    wrong = [name for name in rest.split() if getattr(card, name) != getattr(wanted, name)]
    if set(card.metrics) != set(wanted.metrics):
        wrong.append("metrics")
    yield judged(
        "weights are the run's",
        card.weights_sha256 == wanted.weights_sha256,
        card.weights_sha256[:12],
    )
    yield judged("class names", card.labels == wanted.labels, f"{len(card.labels)} classes")
    yield judged("metadata as the run records", not wrong, ", ".join(wrong) or "equal")
    same = card.dataset_sha256 == wanted.dataset_sha256
    yield judged("test split as recorded", same, f"{card.dataset_sha256[:12]}, {card.dataset}")
    yield from [reference.apart] if reference.apart else []


def _weights(file: ModelFile, original: Original | None) -> Row:
    """Judge the run's weights; a constant may be infinite, as masks are, if the answers are not."""
    unsound = original.unsound if original else []
    names = original.infinite if original else []
    masks = f"; {infinite(names, file.infinite)}" if file.infinite else ""
    figure = f"{PYTORCH}'s are not: {', '.join(unsound)}" if unsound else f"all{masks}"
    return judged("finite weights", not unsound, figure)
