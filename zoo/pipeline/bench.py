"""`bench labels`: a model from scratch against objectives, over label counts and seeds."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.api import Component
from zoo.config import knobs
from zoo.errors import UsageError
from zoo.evidence import figure, ledger
from zoo.evidence.rows import HEADS, Measured, Row, cells, markdown, rows
from zoo.folders import write_atomic
from zoo.pipeline.bench_cells import orders
from zoo.pipeline.bench_plan import (
    ONLY_LABELS,
    SCRATCH,
    SELF_TRAINED,
    Cell,
    Method,
    Plan,
    draws,
    plan_of,
    settings,
)
from zoo.pipeline.launchers import Launcher, launched, launcher_of
from zoo.pipeline.reuse import digest
from zoo.pipeline.workspace import Workspace
from zoo.progress import Once, clock, current, reporting

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


def bench_labels(
    dataset: str | Component | None = None,
    backbone: str | Component | None = None,
    *,
    objectives: Sequence[str | Component | Method] = (),
    labels: Sequence[int | None] = (100, None),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    head: str | Component | None = None,
    pretrain: Mapping[str, Any] | None = None,
    finetune: Mapping[str, Any] | None = None,
    scratch: Mapping[str, Any] | None = None,
    self_train: Mapping[str, Any] | None = None,
    steps: int = 0,
    recipe: str | None = None,
    output: Path | None = None,
    jobs: int | None = None,
    threads: int = 1,
    device: str = "auto",
    launcher: str = "local",
    workspace: Workspace | None = None,
) -> Bench:
    """Train a backbone from scratch and after each objective, with N labels and each seed.

    With N labels, N is everything that carries one: nothing is held out, stopped or chosen on
    labels. None in `labels` is every label. A `Method` is a row of its own settings, with an
    objective or from scratch. `pretrain` and `finetune` are training options, `scratch` those of
    finetuning that hold for the row `scratch` alone; `recipe` has the rest. With `self_train`, its
    training options, each method has a row beside it that goes on to learn from its own labels of
    the other examples.
    Finished cells in `output` are kept, and what was stopped goes on. Raises `ZooError` before any
    training for whatever could not be trained.
    """
    workspace = workspace or Workspace()
    plan, truth = plan_of(
        workspace,
        dataset=dataset,
        backbone=backbone,
        head=head,
        objectives=objectives,
        labels=labels,
        seeds=seeds,
        pretrain=pretrain or {},
        finetune=finetune or {},
        scratch=scratch or {},
        self_train=self_train or {},
        steps=steps,
        threads=threads,
        device=device,
        recipe=recipe,
    )
    fixed = settings(plan)
    folder = _folder(output, fixed, workspace)
    keys = {plan.key(workspace, cell): cell for cell in plan.cells}
    there = launcher_of(launcher, workspace, jobs, threads, device)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / PLAN, {"schema": SCHEMA, "settings": fixed, "cells": list(keys)})
    drawn = draws(plan.dataset, plan.classes, truth, plan.labels, plan.seeds)
    write_atomic(folder / DRAWS, written(drawn).encode())
    done = ledger.read(folder)
    missing = {key: cell for key, cell in keys.items() if key not in done}
    if len(missing) < len(keys):
        current().note(f"{len(keys) - len(missing)} of {len(keys)} cells are finished already")
    try:
        with reporting(Once(current())):
            _make(plan, missing, len(keys), there, folder)
    except KeyboardInterrupt:
        current().note("Type the same command again to go on from here.")
        raise
    return bench_table(folder)


def _make(
    plan: Plan, missing: dict[str, Cell], wanted: int, launcher: Launcher, folder: Path
) -> None:
    """Carry out what is missing, and write each cell down as soon as it is finished."""
    began, finished = time.monotonic(), 0
    for order, line in launched(launcher, orders(plan, missing)):
        if line is None:
            continue
        ledger.append(folder, line)
        finished += 1
        left = (time.monotonic() - began) / finished * (len(missing) - finished)
        before = wanted - len(missing)
        current().note(
            f"{before + finished} of {wanted}: {order.name}: {line['accuracy'] * 100:.2f} %,"
            f" {clock(left)} left"
        )


def _folder(output: Path | None, fixed: dict[str, Any], workspace: Workspace) -> Path:
    """Return the folder of a bench; raises `UsageError` where it is another's."""
    identity = {part: fixed[part] for part in OF_A_BENCH}
    if output is None:
        name = f"bench-{fixed['dataset']['name']}-{fixed['backbone']['name']}"
        output = workspace.runs_root / f"{name}-{digest(identity)[:8]}"
    if output.is_file():
        raise UsageError(f"'{output}' is a file; name a folder with -o.")
    if not output.is_dir() or not any(output.iterdir()):
        return output
    if not (output / PLAN).is_file():
        raise UsageError(
            f"'{output}' is not empty and holds no bench. Name another folder with -o."
        )
    before = _plan(output)["settings"]
    for part, value in identity.items():
        if before[part] != value:
            raise UsageError(
                f"'{output}' holds another bench: its {part} is {_said(before[part])}, and this"
                f" one's is {_said(value)}. Name another folder with -o."
            )
    return output


def bench_table(folder: str | Path) -> Bench:
    """Write table, figure and bench.json of a bench anew from its cells, without training.

    Raises `UsageError` where the folder holds no bench.
    """
    folder = Path(folder)
    plan = _plan(folder)
    found = ledger.read(folder)
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
        notes=_notes(plan, made, machines),
        summary=_summary(fixed, machines),
    )
    text = markdown(HEADS, [cells(row) for row in bench.rows])
    notes = "".join(f"\n- {note}" for note in bench.notes)
    write_atomic(folder / TABLE, f"{text}\n{bench.summary}\n{notes}".rstrip().encode() + b"\n")
    _write(folder / RESULT, bench.to_json())
    if bench.rows:
        title = f"{fixed['backbone']['name']} on {fixed['dataset']['name']}"
        for name, data in figure.draw(
            bench.rows, title, bench.summary, SCRATCH, SELF_TRAINED
        ).items():
            write_atomic(folder / name, data)
    return bench


def _plan(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / PLAN).read_bytes())
        if content["schema"] > SCHEMA:
            raise UsageError(
                f"'{folder}' was written by a newer zoo: pip install --upgrade plugzoo"
            )
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


def _notes(plan: dict[str, Any], made: Sequence[dict[str, Any]], machines: Any) -> list[str]:
    notes = []
    if len(made) < len(plan["cells"]):
        notes.append(
            f"Not finished: {len(made)} of {len(plan['cells'])} cells. Differences are those of the"
            " seeds that both have."
        )
    for name in MADE_WITH:
        if len({json.dumps(each[name], sort_keys=True) for each in machines}) > 1:
            notes.append(f"The cells were made with several {name}: see {RESULT}, made.")
    again = [cell for cell in made if cell["test_readings"] > 1]
    if again:
        notes.append(f"The test split was read more than once for {len(again)} of the cells.")
    if made and len(plan["settings"]["seeds"]) == 1:
        notes.append("One seed shows no spread: nothing follows from a difference.")
    return notes


def _summary(fixed: dict[str, Any], machines: Sequence[dict[str, Any]]) -> str:
    """Say in one paragraph what was fixed ahead: the caption of table and figure."""
    methods = {each["label"]: each for each in fixed["methods"]}
    objectives = ", ".join(
        _said(each["objective"])
        for each in methods.values()
        if each["objective"] and not each.get("self_trained")
    )
    least = f", at least {fixed['steps']:,} steps" if fixed["steps"] else ""
    taught = fixed.get("self_training")
    further = f" Self-training: {_pairs(taught)}." if taught else ""
    own = "".join(
        f"; of {name}: {_pairs(each['overrides'])}"
        for name, each in methods.items()
        if each["overrides"] and not each.get("self_trained")
    )
    where = "; ".join(
        f"{each['processor']}, {each['threads']} threads, torch {each['versions'].get('torch')}"
        for each in machines[:1]
    )
    return (
        f"{_said(fixed['backbone'])} and head {_said(fixed['head'])} on {fixed['dataset']['name']};"
        f" {len(fixed['seeds'])} seeds ({', '.join(map(str, fixed['seeds']))})."
        f" Objectives: {objectives}. {ONLY_LABELS} Each seed draws its own, the same for every"
        " method. Settings were fixed ahead. Pretraining, on all"
        f" {fixed['examples']:,} examples without labels: {_pairs(fixed['pretraining'])}."
        f" Finetuning: {_pairs(fixed['finetuning'] | fixed['finetune'])}{least}{own}.{further}"
        f" {where + '.' if where else ''}"
    ).rstrip()


ALWAYS = ("epochs", "batch_size", "lr", "optimizer")
ELSEWHERE = ("validation", "keep", "patience", "labels", "threads", "device", "seed")


def _pairs(options: Mapping[str, Any]) -> str:
    """Write training options: those that are no defaults, and the four that one asks for."""
    from zoo.api import FinetuneConfig, SelfTrainConfig, TrainConfig

    configs = (TrainConfig, FinetuneConfig, SelfTrainConfig)
    usual = {knob.name: knob.default for config in configs for knob in knobs(config)}
    shown = {
        name: value
        for name, value in options.items()
        if name in ALWAYS or (usual.get(name) != value and name not in ELSEWHERE)
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _said(part: dict[str, Any]) -> str:
    options = ", ".join(f"{name}={_text(value)}" for name, value in part["options"].items())
    return f"{part['name']} ({options})" if options else str(part["name"])


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def written(content: dict[str, Any]) -> str:
    """Write draws as JSON, each on a line of its own."""
    head = {name: value for name, value in content.items() if name != "draws"}
    lines = [
        f'    "{labels}": {{\n'
        + ",\n".join(f'      "{seed}": {json.dumps(places)}' for seed, places in by_seed.items())
        + "\n    }"
        for labels, by_seed in content["draws"].items()
    ]
    text = json.dumps(head, indent=2)[:-2]
    return text + ',\n  "draws": {\n' + ",\n".join(lines) + "\n  }\n}\n"
