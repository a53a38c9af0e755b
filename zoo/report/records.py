"""What lies in the folders of a run: what it came of, and the proofs of its files."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from zoo import runs
from zoo.errors import RunError
from zoo.record import Parent
from zoo.report.facts import Absent, Lineage, Proved
from zoo.runs import Run
from zoo.untrusted import MODEL_LIMIT, parse_json, read_file

CIRCLE = "it came of itself: its lineage is a circle"


def lineage_of(run: Run, root: Path) -> list[Lineage]:
    """Find the runs that a run came of, the nearest first, up to one that is gone."""
    found: list[Lineage] = []
    met = {run.folder.resolve()}
    current: Run | None = run
    while current is not None and current.record.parent is not None:
        step, current = _parent(current, current.record.parent, root)
        if current is not None and current.folder.resolve() in met:
            step = dataclasses.replace(step, record=None, metrics=[], fault=CIRCLE)
            current = None
        elif current is not None:
            met.add(current.folder.resolve())
        found.append(step)
    return found


def _parent(run: Run, parent: Parent, root: Path) -> tuple[Lineage, Run | None]:
    """Find the run that another began with: where it lay, else beside that one."""
    name = Path(parent.run).name
    places = [Path(parent.folder)] if parent.folder else []
    fault = "its folder is gone"
    for folder in (*places, run.folder.parent / name, root / name):
        try:
            found = runs.load(folder)
        except (RunError, OSError):
            continue
        same = found.record.weights_sha256 == parent.weights_sha256
        if same and not parent.is_of(found.record):
            fault = "its record was changed since"
        elif same:
            step = Lineage(
                run=parent.run,
                weights_sha256=parent.weights_sha256,
                record=found.record,
                metrics=found.metrics(),
            )
            return step, found
        else:
            fault = "its folder holds other weights now"
    step = Lineage(
        run=parent.run, weights_sha256=parent.weights_sha256, record=None, metrics=[], fault=fault
    )
    return step, None


def proofs_of(run: Run) -> list[Proved] | Absent | None:
    """Read the proofs of the files that were exported into the run's folder."""
    if run.record.kind == "pretrain":
        return None
    found = [_proof(path) for path in sorted(run.folder.glob("*proof.json"))]
    if not found:
        return Absent(
            reason="This run was not exported into its folder yet.",
            command=f"zoo export {run.name}",
        )
    return found


def _proof(path: Path) -> Proved:
    model = path.with_name("model.onnx" if path.name == "proof.json" else
                           path.name.removesuffix(".proof.json") + ".onnx")  # fmt: skip
    try:
        content: dict[str, Any] = parse_json(read_file(path))
        rows = [(str(r["name"]), str(r["status"]), str(r["figure"])) for r in content["rows"]]
        sha256, verdict = str(content["file_sha256"]), str(content["verdict"])
    except (OSError, ValueError, KeyError, TypeError):
        fault = f"'{path.name}' is damaged or of an older zoo"
        return Proved(file=model.name, verdict="unknown", sha256="", rows=[], fault=fault)
    try:
        same = hashlib.sha256(read_file(model, MODEL_LIMIT)).hexdigest() == sha256
        fault = "" if same else f"'{model.name}' is no longer the file that was proved"
    except OSError:
        fault = f"'{model.name}' is not in the folder any more"
    return Proved(file=model.name, verdict=verdict, sha256=sha256, rows=rows, fault=fault)
