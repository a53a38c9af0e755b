"""`bench labels`: a model from scratch against objectives, over label counts and seeds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.api import Component
from zoo.errors import UsageError
from zoo.evidence import ledger
from zoo.folders import is_empty, write_atomic
from zoo.pipeline.assembly import build_dataset, choose
from zoo.pipeline.bench.caption import said
from zoo.pipeline.bench.cells import orders
from zoo.pipeline.bench.draws import draws, written
from zoo.pipeline.bench.launchers import Launcher, launched, launcher_of
from zoo.pipeline.bench.plan import Cell, Method, Plan, settings
from zoo.pipeline.bench.planning import plan_of
from zoo.pipeline.bench.table import (
    DRAWS,
    OF_A_BENCH,
    PLAN,
    SCHEMA,
    Bench,
    bench_table,
    read_plan,
    write_json,
)
from zoo.pipeline.reuse import digest
from zoo.pipeline.sameness import splits_of
from zoo.pipeline.steps import going_on
from zoo.pipeline.workspace import Workspace
from zoo.progress import Once, clock, current, reporting

DATA = {"data": "dataset", "pretrain_data": "pretrain_dataset"}
"""Where the settings of a bench keep the SHA-256 of a data set's splits, and which it is."""


def bench_labels(
    dataset: str | Component | None = None,
    backbone: str | Component | None = None,
    *,
    pretrain_dataset: str | Component | None = None,
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
    the other examples. Pretraining reads `pretrain_dataset`, where that is given. Finished cells in
    `output` are kept, and what was stopped goes on. Raises `ZooError` before any training for
    whatever could not be trained.
    """
    workspace = workspace or Workspace()
    plan, truth = plan_of(
        workspace,
        dataset=dataset,
        pretrain_dataset=pretrain_dataset,
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
    fixed = settings(plan) | _data(workspace, plan)
    folder = _folder(output, fixed, workspace)
    keys = {plan.key(workspace, cell): cell for cell in plan.cells}
    there = launcher_of(launcher, workspace, jobs, threads, device)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PLAN, {"schema": SCHEMA, "settings": fixed, "cells": list(keys)})
    drawn = draws(plan.dataset, plan.classes, truth, plan.labels, plan.seeds)
    write_atomic(folder / DRAWS, written(drawn).encode())
    done = ledger.read(folder)
    missing = {key: cell for key, cell in keys.items() if key not in done}
    if len(missing) < len(keys):
        current().note(f"{len(keys) - len(missing)} of {len(keys)} cells are finished already")
    with going_on(), reporting(Once(current())):
        _make(plan, missing, len(keys), there, folder)
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


def _data(workspace: Workspace, plan: Plan) -> dict[str, dict[str, str]]:
    """Return the SHA-256 of each split that is trained and measured on, by what `DATA` names."""
    found = {}
    for data, name in DATA.items():
        if (component := getattr(plan, name)) is None:
            continue
        part = choose(workspace, "dataset", component)
        splits = splits_of(part, build_dataset(workspace, part))
        if data != "data":
            splits.pop("test", None)  # nothing is measured on it
        found[data] = {name: split.sha256 for name, split in splits.items()}
    return found


def _check_data(output: Path, before: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Refuse a bench whose data sets have other splits now; `UsageError`.

    What was not kept is not held against anything: data sets before 0.2.0, and one that the bench
    did not pretrain on.
    """
    for data, name in DATA.items():
        known, now = before.get(data), fixed.get(data)
        if known is None or now is None or before.get(name) != fixed[name]:
            continue
        changed = [each for each in {**known, **now} if known.get(each) != now.get(each)]
        if changed:
            raise UsageError(
                f"'{output}' holds a bench of other data: the {' and '.join(changed)} split of"
                f" '{fixed[name]['name']}' changed. Name another folder with -o."
            )


def _folder(output: Path | None, fixed: dict[str, Any], workspace: Workspace) -> Path:
    """Return the folder of a bench; raises `UsageError` where it is another's."""
    identity = {part: fixed[part] for part in OF_A_BENCH}
    if output is None:
        name = f"bench-{fixed['dataset']['name']}-{fixed['backbone']['name']}"
        output = workspace.runs_root / f"{name}-{digest(identity)[:8]}"
    if output.is_file():
        raise UsageError(f"'{output}' is a file; name a folder with -o.")
    if not output.is_dir() or is_empty(output):
        return output
    if not (output / PLAN).is_file():
        raise UsageError(
            f"'{output}' is not empty and holds no bench. Name another folder with -o."
        )
    before = read_plan(output)["settings"]
    for part, value in identity.items():
        if before[part] != value:
            raise UsageError(
                f"'{output}' holds another bench: its {part} is {said(before[part])}, and this"
                f" one's is {said(value)}. Name another folder with -o."
            )
    _check_data(output, before, fixed)
    return output
