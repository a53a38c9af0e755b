"""`bench table`: table, figure and bench.json, from finished cells alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.errors import UsageError, first_line
from zoo.evidence import figure, ledger
from zoo.evidence.rows import HEADS, Measured, Row, cells, markdown, rows
from zoo.folders import write_atomic
from zoo.pipeline.bench.caption import caption
from zoo.pipeline.bench.plan import SCRATCH, SELF_TRAINED
from zoo.pipeline.reuse import digest
from zoo.untrusted import parse_json, plain, read_file

SCHEMA = 1

PLAN, RESULT, DRAWS, TABLE = "plan.json", "bench.json", "draws.json", "table.md"

OF_A_BENCH = ("dataset", "backbone", "head")

MADE_WITH = ("commit", "processor", "device", "threads", "versions")


@dataclasses.dataclass(frozen=True)
class Bench:
    """What the finished cells of a bench show. `notes` say what stands between them and a claim.

    `settings` are those that were fixed ahead, `made` on what and with what the cells were made.
    """

    folder: Path
    settings: dict[str, Any]
    rows: list[Row]
    cells: list[dict[str, Any]]
    wanted: int
    made: list[dict[str, Any]]
    notes: list[str]
    summary: str

    def to_json(self) -> dict[str, Any]:
        """Return the content of bench.json, which names no place."""
        content = dataclasses.asdict(self)
        content.pop("folder")
        return {"schema": SCHEMA, "kind": "labels", "draws": DRAWS, **content}


def bench_table(folder: str | Path) -> Bench:
    """Write table, figure and bench.json of a bench anew from its cells, without training.

    Raises `UsageError` where the folder holds no bench.
    """
    folder = Path(folder)
    plan = read_plan(folder)
    found = ledger.read(folder)
    try:
        bench, text, drawn = _tabled(folder, plan, found)
    except (KeyError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise UsageError(
            f"'{folder}' holds no bench that can be told: its {PLAN} or {ledger.NAME} is damaged"
            f" ({type(error).__name__}: {first_line(error)}). Type: zoo bench labels"
        ) from error
    write_atomic(folder / TABLE, text)
    write_json(folder / RESULT, bench.to_json())
    for name, data in drawn.items():
        write_atomic(folder / name, data)
    return bench


def _tabled(
    folder: Path, plan: dict[str, Any], found: dict[str, dict[str, Any]]
) -> tuple[Bench, bytes, dict[str, bytes]]:
    """Return what the cells of a plan come to, its table, and its figure in two formats."""
    made = [found[key] for key in plan["cells"] if key in found]
    fixed = plan["settings"]
    machines = _distinct(made)
    bench = Bench(
        folder=folder,
        settings=fixed,
        rows=_rows(fixed, made),
        cells=made,
        wanted=len(plan["cells"]),
        made=machines,
        notes=_notes(plan, made, machines, len(found.keys() - set(plan["cells"]))),
        summary=caption(fixed, machines, made),
    )
    text = markdown(HEADS, [cells(row) for row in bench.rows])
    notes = "".join(f"\n- {note}" for note in bench.notes)
    table = f"{text}\n{bench.summary}\n{notes}".rstrip().encode() + b"\n"
    drawn: dict[str, bytes] = {}
    if bench.rows:
        title = f"{fixed['backbone']['name']} on {fixed['dataset']['name']}"
        if other := fixed.get("pretrain_dataset"):
            title += f", pretrained on {other['name']}"
        drawn = figure.draw(bench.rows, title, bench.summary, SCRATCH, SELF_TRAINED)
    return bench, table, drawn


def read_plan(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = parse_json(read_file(folder / PLAN))
        if content["schema"] > SCHEMA:
            raise UsageError(
                f"'{folder}' was written by a newer zoo: pip install --upgrade plugzoo"
            )
        if not plain(content):
            raise ValueError("what it holds cannot be")
        if not all(part in content["settings"] for part in OF_A_BENCH) or not content["cells"]:
            raise KeyError("settings")
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"'{folder}' holds no bench: its {PLAN} is missing or damaged. Type: zoo bench labels"
        ) from None
    return content


def _rows(fixed: dict[str, Any], made: Sequence[dict[str, Any]]) -> list[Row]:
    found: list[Row] = []
    for labels in fixed["labels"]:
        here = [cell for cell in made if cell["labels"] == labels]
        methods = {
            method["label"]: [
                Measured(
                    cell["seed"],
                    cell["accuracy"],
                    cell["seconds"]["pretraining"],
                    cell["seconds"]["finetuning"],
                )
                for cell in here
                if cell["method"] == method["label"]
            ]
            for method in fixed["methods"]
        }
        examples = here[0]["examples"] if here else 0
        for step in ("", SELF_TRAINED):
            own = {k: v for k, v in methods.items() if k.endswith(SELF_TRAINED) == bool(step)}
            found += rows(labels, examples, own, SCRATCH + step)
    return found


def _distinct(made: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return on what and with what cells were made, each once, and how many cells."""
    counted: dict[str, dict[str, Any]] = {}
    for cell in made:
        machine = {name: cell[name] for name in MADE_WITH}
        entry = counted.setdefault(digest(machine), {**machine, "cells": 0})
        entry["cells"] += 1
    return list(counted.values())


def _notes(
    plan: dict[str, Any], made: Sequence[dict[str, Any]], machines: Any, others: int
) -> list[str]:
    """Say what stands between the cells and a claim; `others` are those of another plan."""
    notes = []
    if len(made) < len(plan["cells"]):
        notes.append(
            f"Not finished: {len(made)} of {len(plan['cells'])} cells. Differences are those of the"
            " seeds that both have."
        )
    for name in MADE_WITH:
        if len({json.dumps(each[name], sort_keys=True) for each in machines}) > 1:
            notes.append(f"The cells were made with several {name}: see {RESULT}, made.")
    if len({cell["test_sha256"] for cell in made if cell.get("test_sha256")}) > 1:
        notes.append("The cells were measured on several test splits: they are not to be compared.")
    if others:
        notes.append(
            f"{others} more cells, of other settings, labels or seeds, were measured here."
        )
    again = [cell for cell in made if cell["test_readings"] > 1]
    if again:
        notes.append(f"The test split was read more than once for {len(again)} of the cells.")
    if made and len(plan["settings"]["seeds"]) == 1:
        notes.append("One seed shows no spread: nothing follows from a difference.")
    return notes


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")
