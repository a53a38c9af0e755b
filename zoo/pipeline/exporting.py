"""`export` and `validate`: one ONNX file, handed over only when it is proved."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo import runs
from zoo.errors import ProofError, RunError
from zoo.export.card import Card
from zoo.export.graph import to_onnx
from zoo.export.proof import Proof, Reference, prove
from zoo.export.runtime import open_session
from zoo.folders import check_writable, write_atomic
from zoo.pipeline.evaluation import accuracy_of, check_test, load_classifier, load_test
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.record import PartRecord
from zoo.runs import Run
from zoo.training import cpu_threads, outputs


@dataclasses.dataclass(frozen=True)
class Exported:
    """A proved file and where it lies."""

    model: Path
    bytes: int
    proof: Proof


def export(
    run: Run | str | Path, output: Path | None = None, *, workspace: Workspace | None = None
) -> Exported:
    """Write a finished finetuning as one ONNX file, by default `model.onnx` in the run's folder.

    The file appears under its name only when onnxruntime has reproduced PyTorch on the whole
    test split; `ProofError` otherwise. `proof.json` stands beside it.
    """
    workspace = workspace or Workspace()
    run = workspace.finetuned(run)
    target = Path(output) if output is not None else run.model
    check_writable(target)
    with cpu_threads(run.record.threads):
        reference = _reference(run, workspace, "export")
        classifier, _ = load_classifier(run, workspace)
        current().note("exporting")
        data = to_onnx(classifier, run.data_input, reference.card)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            candidate = Path(folder) / target.name
            candidate.write_bytes(data)
            current().note("proving with onnxruntime")
            proof = prove(candidate, reference)
            if not proof.passed:
                raise ProofError(f"No file was written: {failure(proof)}")
        # The proof first: a model under its final name always has one.
        write_atomic(proof_path(target), _dump(proof))
        write_atomic(target, data)
    return Exported(model=target, bytes=len(data), proof=proof)


def validate(
    model: str | Path, *, run: Run | str | Path | None = None, workspace: Workspace | None = None
) -> Proof:
    """Prove a file that zoo exported once more, against the run it came from.

    The run is the one given, the one whose folder the file lies in, or the one of the file's
    metadata under the runs folder. Raises `ModelFileError` or `RunError`; a file that is
    readable but wrong comes back as a proof that did not pass.
    """
    workspace = workspace or Workspace()
    path = Path(model)
    card = open_session(path).card
    found = workspace.finetuned(run) if run is not None else _origin(path, card, workspace)
    with cpu_threads(found.record.threads):
        return prove(path, _reference(found, workspace, "validate"))


def failure(proof: Proof) -> str:
    """Say in one line what a proof failed on."""
    rows = "; ".join(f"{row.name}: {row.figure}" for row in proof.failures)
    return f"the exported graph does not reproduce PyTorch ({rows})."


def proof_path(model: Path) -> Path:
    """`proof.json` beside a run's `model.onnx`; `NAME.proof.json` beside any other name."""
    name = "proof.json" if model.name == "model.onnx" else f"{model.stem}.proof.json"
    return model.with_name(name)


def _reference(run: Run, workspace: Workspace, by: str) -> Reference:
    classifier, data = load_classifier(run, workspace)
    check_test(run, data)
    reading = run.add_test(by)
    examples = load_test(run, data, workspace)
    assert examples.labels is not None
    logits = outputs(classifier, examples.inputs)
    accuracy = accuracy_of(logits, examples.labels)
    run.finish_test(reading, accuracy=accuracy, examples=len(examples))
    return Reference(
        images=np.ascontiguousarray(examples.inputs.numpy()),
        labels=examples.labels.numpy(),
        logits=logits.to(torch.float32).numpy(),
        card=_card(run, accuracy),
    )


def _card(run: Run, accuracy: float) -> Card:
    record = run.record
    parts = {"dataset": record.dataset, "backbone": record.backbone, "head": record.head}
    versions: dict[str, str] = {
        k: v for k, v in record.versions.items() if k in ("plugzoo", "torch")
    }
    return Card(
        run=record.run,
        labels=record.classes,
        input=run.data_input,
        components={kind: _public(part) for kind, part in parts.items() if part},
        metrics={"accuracy": accuracy},
        weights_sha256=str(record.weights_sha256),
        versions=versions,
    )


def _public(part: PartRecord) -> dict[str, Any]:
    """Describe a component for whoever gets the file: of a path its last name alone."""
    options = {
        name: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for name, value in part.options.items()
    }
    return {**dataclasses.asdict(part), "options": options}


def _origin(path: Path, card: Card, workspace: Workspace) -> Run:
    for folder in (path.resolve().parent, workspace.runs_root / card.run):
        if (folder / "run.json").is_file():
            run = runs.load(folder)
            if run.record.run == card.run:
                return workspace.finetuned(run)
    raise RunError(
        f"'{path}' came from run '{card.run}', which is neither in its folder nor under"
        f" '{workspace.runs_root}'. Type: zoo validate {path} --run FOLDER"
    )


def _dump(proof: Proof) -> bytes:
    return json.dumps(proof.to_json(), indent=2).encode()
