"""A finished run → the bytes of a file in full precision, and what a file of it must say."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import torch

from zoo.api import Dataset
from zoo.export.card import NEW, Card
from zoo.export.evidence import Row
from zoo.export.graph import finished, to_graph
from zoo.export.modelfile import ModelFile
from zoo.export.original import Original
from zoo.export.runtime import Array
from zoo.export.targets import ExportConfig
from zoo.memory import MEMORY
from zoo.models import Classifier
from zoo.pipeline.evaluation import accuracy_of, hold_test, load_classifier
from zoo.pipeline.leakage import Held
from zoo.pipeline.making import versions
from zoo.pipeline.workspace import Workspace
from zoo.record import PartRecord
from zoo.runs import Run
from zoo.training import outputs

MADE_BY = ("plugzoo", "torch", "onnx", "onnxscript")


@dataclasses.dataclass(frozen=True)
class Source:
    """What a file is made from: a finished run, its classifier, and its test split.

    `held` says what of that split is measured on, and how it stands to what the run has seen.
    """

    run: Run
    workspace: Workspace
    data: Dataset
    classifier: Classifier
    images: Array  # uint8 N x C x H x W
    labels: Array  # int64 N
    logits: Array  # float32 N x classes: PyTorch's
    accuracy: float
    held: Held

    @property
    def original(self) -> Original:
        return Original(self.classifier)


# never elsewhere: hold_test, add_test
def read(
    run: Run,
    workspace: Workspace,
    by: str,
    memory: int = MEMORY,
    *,
    without_seen: bool = False,
    refuse: bool = True,
) -> Source:
    """Load a run's classifier and its test split; the reading is recorded.

    `memory` bounds, in bytes, what a batch may take. Raises `OutOfMemory`, and `DataError` where
    the split has examples by now that the run was trained on, unless `without_seen` leaves them
    out, or `refuse` is false.
    """
    classifier, data = load_classifier(run, workspace)
    held = hold_test(run, data, workspace, by, without_seen=without_seen, refuse=refuse)
    examples = held.examples
    assert examples.labels is not None
    reading = run.add_test(by, **held.reading)
    logits = outputs(classifier, examples.inputs, memory=memory)
    accuracy = accuracy_of(logits, examples.labels)
    run.finish_test(reading, accuracy=accuracy, examples=len(examples))
    images = np.ascontiguousarray(examples.inputs.numpy())
    labels = examples.labels.numpy()
    return Source(
        run=run,
        workspace=workspace,
        data=data,
        classifier=classifier,
        images=images,
        labels=labels,
        logits=logits.to(torch.float32).numpy(),
        accuracy=accuracy,
        held=held,
    )


def as_in(source: Source, card: Card) -> Source:
    """Count as left out what a file counted, where it was measured on these very examples.

    What was left out may have been taken away since, which changes nothing of what is proved.
    """
    held = source.held
    if card.dataset_sha256 != held.sha256:
        return source
    total = len(held.examples) + card.left_out
    return dataclasses.replace(source, held=dataclasses.replace(held, total=total))


def apart_row(held: Held) -> Row:
    """Say as a row of a proof whether the run has seen an example that it is measured on."""
    told = f"all {len(held.examples):,}"
    if held.left_out:
        told += f"; {held.left_out:,} that it has seen were left out"
    elif held.leaked:
        figure = f"the split changed: it has seen {held.leaked:,} of {held.total:,} in training"
        return Row(NEW, "failed", figure)
    elif held.seen:
        figure = f"it has seen {held.seen:,} of {held.total:,}, as the data set was made"
        return Row(NEW, "reported", figure)
    if held.doubt:
        return Row(NEW, "reported", f"not known: {held.doubt}")
    return Row(NEW, "passed", told)


def full_precision(source: Source, config: ExportConfig) -> bytes:
    """Export a run as fp32, with the other options as they are."""
    model = to_graph(
        source.classifier,
        source.run.data_input,
        opset=int(config.opset or 0),
        layout=config.layout.upper(),
        batch=config.batch,
    )
    plain = dataclasses.replace(config, int8=False, fp16=False)
    return finished(model, card_of(source, plain, source.accuracy))


def config_of(file: ModelFile) -> ExportConfig:
    """Read from a file how it was made."""
    card = file.card
    drop = float((card.quantization or {}).get("max_drop", 0.0))
    return ExportConfig(
        opset=str(file.opset),  # type: ignore[arg-type]
        layout=card.layout.lower(),  # type: ignore[arg-type]
        batch=card.batch,
        target=card.target or None,  # type: ignore[arg-type]
        int8=card.precision == "int8",
        fp16=card.precision == "fp16",
        max_drop=drop * 100,
        names=card.names,
        license=card.license,
    )


def other_versions(card: Card) -> str:
    """Say by which other versions a file was made; empty where they are those of here."""
    here = versions()
    wrong = [f"{k} {v}, here {here.get(k, 'none')}" for k, v in card.versions.items()
             if here.get(k) != v]  # fmt: skip
    return "; ".join(wrong)


def card_of(
    source: Source,
    config: ExportConfig,
    accuracy: float,
    quantized: dict[str, Any] | None = None,
) -> Card:
    """Describe a file of a run; `accuracy` is its own on the test split, 0..1."""
    record = source.run.record
    parts = {"dataset": record.dataset, "backbone": record.backbone, "head": record.head}
    here = versions()
    makers = (*MADE_BY, "onnxruntime") if quantized else MADE_BY
    return Card(
        run=record.run,
        labels=record.classes,
        input=source.run.data_input,
        components={kind: _public(part) for kind, part in parts.items() if part},
        metrics={"accuracy": accuracy},
        weights_sha256=str(record.weights_sha256),
        versions={name: here.get(name, "") for name in makers},
        dataset_sha256=source.held.sha256,
        left_out=source.held.left_out,
        license=config.license,
        layout=config.layout.upper(),
        batch=config.batch,
        precision=config.precision,
        quantization=quantized,
        target=config.target or "",
        names=config.names,
    )


def _public(part: PartRecord) -> dict[str, Any]:
    """Describe a component for whoever gets the file: of paths and addresses the last name."""
    options = {name: _last_name(value) for name, value in part.options.items()}
    return {**dataclasses.asdict(part), "options": options}


def _last_name(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_last_name(each) for each in value]
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] if isinstance(value, str) else value
