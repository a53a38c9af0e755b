"""Smaller files: of int8 and fp16 candidates the best is kept, and made again to be proved."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from zoo.errors import ProofError, ZooError
from zoo.export import quantization
from zoo.export.comparison import compare
from zoo.export.graph import finished
from zoo.export.modelfile import ModelFile
from zoo.export.proof import Reference
from zoo.export.runtime import Array, open_session
from zoo.export.targets import ExportConfig
from zoo.export.trials import run_all
from zoo.memory import MEMORY
from zoo.pipeline.candidates import Candidate, answers, budget_of, measure, refusal
from zoo.pipeline.model_files import Source, card_of, config_of, full_precision
from zoo.pipeline.samples import Samples, drawn
from zoo.progress import current


@dataclasses.dataclass(frozen=True)
class Made:
    """The bytes of a file and of its fp32 twin, and the logits that its golden vectors hold.

    A smaller file was chosen by some of `samples`; others are for its proof.
    """

    data: bytes
    twin: bytes
    expected: Array
    candidates: list[Candidate] = dataclasses.field(default_factory=list)
    samples: Samples | None = None


def make(source: Source, config: ExportConfig, memory: int = MEMORY) -> Made:
    """Export a run as its options say; raises `ProofError` where no smaller file is good enough.

    `memory` bounds, in bytes, what a batch may take while a smaller file is measured; calibration
    does not go by it, for it would change the file.
    """
    twin = full_precision(source, config)
    if config.precision == "fp32":
        return Made(twin, twin, source.logits)
    samples = drawn(source, budget_of(twin))
    count, labelled = len(samples.choosing), len(samples.labels)
    current().note(f"measuring {config.precision} on {count:,} examples, {labelled:,} with labels")
    expected = answers(twin, samples.choosing, memory)[0]
    found, most = [], config.max_drop / 100
    for name, model in _variants(twin, config, samples):
        written = _method(source, config, name, samples)
        card = card_of(source, config, source.accuracy, quantized=written)
        data = finished(model, card)
        found.append((measure(name, data, twin, samples, expected, most, memory), model))
    fit = [pair for pair in found if pair[0].kept]
    if not fit:
        raise ProofError(refusal([candidate for candidate, _ in found], config.precision))
    best, model = max(fit, key=lambda pair: (pair[0].agreement, -pair[0].bytes))
    written = _method(source, config, best.name, samples)
    data, logits = _sealed_smaller(source, config, twin, written, model, memory)
    candidates = [
        dataclasses.replace(c, kept=c is best, bytes=len(data) if c is best else c.bytes)
        for c, _ in found
    ]
    return Made(data, twin, logits, candidates, samples)


def make_again(
    source: Source,
    file: ModelFile,
    twin: bytes | None = None,
    samples: Samples | None = None,
    memory: int = MEMORY,
) -> bytes:
    """Export a run once more as a file says it was made, its fp32 twin and samples if need be.

    Raises `ProofError` where a smaller file's answers are not finite.
    """
    config = config_of(file)
    twin = twin or full_precision(source, config)
    if config.precision == "fp32":
        return twin
    samples = samples or drawn(source, budget_of(twin))
    name = str((file.card.quantization or {}).get("method"))
    if name == "fp16":
        model = quantization.to_fp16(twin)
    else:
        model = quantization.by_name(name, twin, _as_taken(samples.calibration, config))
    written = _method(source, config, name, samples)
    return _sealed_smaller(source, config, twin, written, model, memory)[0]


def at_opset(source: Source, file: ModelFile, opset: int) -> bytes:
    """Export a run in full precision as a file was, but at another opset."""
    return full_precision(source, dataclasses.replace(config_of(file), opset=str(opset)))  # type: ignore[arg-type]


def traced(
    source: Source, file: ModelFile, memory: int = MEMORY
) -> tuple[Reference, Callable[[], bytes] | str]:
    """Return what a file of a run must say, and what makes it again or why it cannot be made.

    Where the data set has other examples by now than it was made by, or nobody knows, those
    without a label prove nothing of it: it may have been calibrated or chosen by them.
    """
    if file.card.precision == "fp32":
        return reference_of(source, file), functools.partial(make_again, source, file)
    twin = full_precision(source, config_of(file))
    try:
        samples = drawn(source, budget_of(twin))
    except ZooError as error:
        reason = f"the examples that it was calibrated by cannot be read again: {error}"
        return reference_of(source, file, twin, memory=memory), reason
    said = (file.card.quantization or {}).get("samples")
    if said != samples.digest:
        reason = "the data set has other examples now to calibrate and choose by"
        reason = reason if said else "it does not say by which examples it was made"
        return reference_of(source, file, twin, memory=memory), reason
    reference = reference_of(source, file, twin, samples, memory)
    return reference, functools.partial(make_again, source, file, twin, samples, memory)


def reference_of(
    source: Source,
    file: ModelFile,
    twin: bytes | None = None,
    samples: Samples | None = None,
    memory: int = MEMORY,
) -> Reference:
    """Return what a file must say: PyTorch's answers, or those of its fp32 twin, made if absent.

    The twin is asked about the samples for proving as well.
    """
    card, config = file.card, config_of(file)
    if card.precision == "fp32":
        wanted = card_of(source, config, source.accuracy)
        logits = source.logits
        return Reference(
            source.images, source.labels, logits, logits, wanted, original=source.original
        )
    twin = twin or full_precision(source, config)
    run = functools.partial(_run, twin)
    size = budget_of(twin, memory).batch(quantization.BATCH)
    logits = run(source.images, size)[0]
    wanted = card_of(source, config, float(card.metrics["accuracy"]), quantized=card.quantization)
    reference = Reference(
        source.images,
        source.labels,
        logits,
        source.logits,
        wanted,
        original=source.original,
        twin=run,
    )
    if samples is None or not len(samples.proving):
        return reference
    more = run(samples.proving, size)[0].argmax(1)
    return dataclasses.replace(reference, unlabelled=samples.proving, said=more)


def _run(data: bytes, images: Array, size: int) -> tuple[Array, Array]:
    """Run a file that is opened for it alone: an open one holds its weights."""
    return run_all(open_session(Path("the fp32 twin"), data, lean=True), images, size)


def _variants(
    twin: bytes, config: ExportConfig, samples: Samples
) -> Iterator[tuple[str, onnx.ModelProto]]:
    if config.fp16:
        yield "fp16", quantization.to_fp16(twin)
    else:
        yield from quantization.candidates(twin, _as_taken(samples.calibration, config))


def _sealed_smaller(
    source: Source,
    config: ExportConfig,
    twin: bytes,
    method: dict[str, Any],
    model: onnx.ModelProto,
    memory: int,
) -> tuple[bytes, Array]:
    """Write into a smaller model what it is, measured on the test split; its logits come too."""
    data = bytes(model.SerializeToString(deterministic=True))
    sides = [answers(each, source.images, memory) for each in (twin, data)]
    found = compare(sides[0][0], [sides[1]], source.labels)
    if found is None:
        raise ProofError(f"an answer in {config.precision} is not finite.")
    written = {
        **method,
        "twin_sha256": hashlib.sha256(twin).hexdigest(),
        "agreement": found.agreement,
        "accuracy_drop": found.drop,
        "max_drop": round(config.max_drop / 100, 10),
    }
    card = card_of(source, config, found.onnx_accuracy, quantized=written)
    sealed = finished(model, card)
    return sealed, answers(sealed, source.images, memory)[0]


def _method(source: Source, config: ExportConfig, name: str, samples: Samples) -> dict[str, Any]:
    """Say how a smaller file was made."""
    if not config.int8:
        return {"method": name, "samples": samples.digest}
    return {
        "method": name,
        "examples": len(samples.calibration),
        "seed": source.run.record.seed,
        "samples": samples.digest,
    }


def _as_taken(images: Array, config: ExportConfig) -> Array:
    """Lay out raw bytes, N x C x H x W, as the graph takes them."""
    last = config.layout == "nhwc"
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if last else images
