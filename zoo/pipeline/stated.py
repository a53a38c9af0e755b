"""What a run or a published model states of itself: records, an accuracy, its interval."""

from __future__ import annotations

import dataclasses
import itertools
import math
import shlex
from pathlib import Path
from typing import Any

from zoo.errors import RunError
from zoo.evidence.spread import wilson
from zoo.export.bundle import manifest
from zoo.export.golden import proof_path
from zoo.export.modelfile import open_model
from zoo.pipeline.lineage import KEY, ancestors_of, from_lineage
from zoo.pipeline.workspace import Workspace
from zoo.record import Record
from zoo.runs import Run, find
from zoo.untrusted import parse_json, read_file

CARDS = (".onnx", ".json", ".md")
ROUNDING = 2
"""Examples that two readings of the same weights may differ by: devices and machines round."""


@dataclasses.dataclass(frozen=True)
class Stated:
    """A record to be made again, with those of its `parents`, the nearest first.

    `run` is None for a model's card.
    `accuracy` and its 95 % `interval` are those of the test split, without the `left_out` examples
    that the run has seen; a pretraining has none.
    """

    name: str
    record: Record
    parents: list[Record]
    run: Run | None
    accuracy: float | None
    interval: tuple[float, float] | None
    left_out: int = 0


def stated(source: Run | str | Path, workspace: Workspace) -> Stated:
    """Read what is to be reproduced; raises `ZooError` where it contradicts itself."""
    path = source.folder if isinstance(source, Run) else Path(source)
    if _is_card(path):
        return _of_card(path)
    run = find(workspace.runs_root, str(path), _finished, "finished run")
    run.load_weights()  # they are those of the record, or it is told now
    parents = list(ancestors_of(run, workspace))
    for parent in parents:
        parent.load_weights()
    return _stated(run.name, run.record, [parent.record for parent in parents], run)


def _finished(run: Run) -> bool:
    return run.record.status == "finished"


def _is_card(path: Path) -> bool:
    if path.is_dir():
        return (path / manifest.NAME).is_file() and not (path / "run.json").is_file()
    return path.suffix in CARDS and path.is_file()


def _of_card(path: Path) -> Stated:
    """Read the proof beside a model, or in the bundle that the path names or lies in."""
    folder = path if path.is_dir() else path.parent
    model = path
    if path.suffix != ".onnx":
        content = manifest.read(folder)
        model = folder / str(content["model"]["file"])
        wrong = manifest.faults(folder, content)
        if wrong:
            name, fault = next(iter(wrong.items()))
            raise RunError(f"'{folder}' is not as it was bundled: {name} {fault}.")
    proof = proof_path(model)
    try:
        content = parse_json(read_file(proof))
    except FileNotFoundError:
        raise RunError(
            f"'{proof}' is missing: it says how the model was trained. Type: zoo export RUN"
        ) from None
    except OSError as error:
        raise RunError(f"'{proof}' cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise RunError(f"'{proof}' is corrupt: {error}.") from None
    record, parents = from_lineage(content.get(KEY) if isinstance(content, dict) else None, proof)
    card = open_model(model).card
    if card.weights_sha256 != record.weights_sha256:
        raise RunError(
            f"'{model}' was made from other weights than '{proof.name}' says:"
            f" {card.weights_sha256[:12]} and {str(record.weights_sha256)[:12]}."
        )
    found = _stated(record.run, record, parents, None)
    if card.precision == "fp32" and card.metrics["accuracy"] != found.accuracy:
        raise RunError(
            f"'{model}' states accuracy {card.metrics['accuracy']}, and '{proof.name}'"
            f" {found.accuracy}."
        )
    return found


def _stated(name: str, record: Record, parents: list[Record], run: Run | None) -> Stated:
    """Hold a record against itself; what it says twice must be the same."""
    for each in (record, *parents):
        if each.seed != each.training.get("seed"):
            raise RunError(
                f"The record of run '{each.run}' was altered: its seed is {each.seed}, and"
                f" {each.training.get('seed')} among its training options."
            )
    for each, parent in itertools.zip_longest((record, *parents), parents):
        if each.parent is None:
            continue
        if parent is None:
            raise RunError(
                f"Run '{each.run}' started from '{each.parent.run}', whose record is gone. Without"
                " it nothing can be made again."
            )
        if parent.weights_sha256 != each.parent.weights_sha256:
            raise RunError(
                f"Run '{each.run}' started from other weights than those of '{parent.run}'."
            )
    if record.kind == "pretrain":
        return Stated(name, record, [], run, None, None)
    readings = [test for test in record.tests if "accuracy" in test and "examples" in test]
    readings = [test for test in readings if test.get("by") == "evaluate"] or readings
    # Of a split that changed, or from which some were left out, another accuracy is no wonder.
    last = readings[-1].get("test_sha256") if readings else None
    readings = [test for test in readings if test.get("test_sha256") == last]
    if not readings:
        where = shlex.quote(str(run.folder)) if run else name
        raise RunError(f"Run '{name}' states no accuracy. Type: zoo evaluate {where}")
    left_out = int(readings[-1].get("left_out", 0))
    return Stated(name, record, parents, run, *_accuracy(name, readings), left_out)


def _accuracy(name: str, readings: list[dict[str, Any]]) -> tuple[float, tuple[float, float]]:
    """Return the accuracy of the last reading, with which all agree, and its interval."""
    found = []
    for reading in readings:
        accuracy, examples = float(reading["accuracy"]), int(reading["examples"])
        if not 0 <= accuracy <= 1 or examples < 1:
            raise RunError(f"The record of run '{name}' was altered: accuracy {accuracy}.")
        correct = round(accuracy * examples)
        found.append(correct)
        interval = wilson(correct, examples)
        whole = math.isclose(correct / examples, accuracy, rel_tol=1e-12)
        written = reading.get("interval", list(interval))
        if (
            len(written) != 2
            or not whole
            or any(
                not math.isclose(a, b, abs_tol=1e-9) for a, b in zip(written, interval, strict=True)
            )
        ):
            raise RunError(
                f"The record of run '{name}' was altered: no {examples:,} examples give accuracy"
                f" {accuracy} with the interval {written}."
            )
    if max(found) - min(found) > ROUNDING:
        raise RunError(
            f"The record of run '{name}' was altered: its readings of the test split state"
            f" {min(found):,} and {max(found):,} right examples."
        )
    return accuracy, interval
