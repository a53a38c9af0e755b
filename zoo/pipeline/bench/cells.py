"""One cell of a bench: pretrained or taken from an equal pretraining, finetuned, measured once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo import runs
from zoo.api import Component, PretrainConfig
from zoo.errors import UsageError
from zoo.machine import commit, processor
from zoo.pipeline.bench.plan import BY, Cell, Plan
from zoo.pipeline.evaluation import reading_once
from zoo.pipeline.reuse import digest
from zoo.pipeline.steps import Steps
from zoo.pipeline.workspace import Workspace
from zoo.registry import Registry
from zoo.runs import Run


@dataclasses.dataclass(frozen=True)
class Site:
    """Where orders are carried out: a workspace in a form that another process can be told."""

    plugins: tuple[Path, ...]
    runs: Path
    data: Path

    @classmethod
    def of(cls, workspace: Workspace) -> Site:
        """Describe a workspace; raises `UsageError` where its plugins are known here alone."""
        files = workspace.registry.files
        if files is None:
            raise UsageError(
                "Plugins given as Python objects stay in one process: leave jobs at 1."
            )
        files = tuple(path.resolve() for path in files)
        return cls(files, workspace.runs_root.resolve(), workspace.data_root.resolve())

    def workspace(self) -> Workspace:
        registry = Registry.installed(self.plugins)
        return Workspace(plugins=registry, runs=self.runs, data=self.data)


@dataclasses.dataclass(frozen=True)
class Order:
    """One piece of work: a cell, or the pretraining that several cells wait for."""

    plan: Plan
    name: str
    key: str = ""
    cell: Cell | None = None
    objective: Component | None = None
    seed: int = 0
    after: str | None = None


def orders(plan: Plan, keys: dict[str, Cell]) -> list[Order]:
    """Return what is to be done for these cells: the pretrainings of a seed, then its cells."""
    made: list[Order] = []
    for seed in plan.seeds:
        wanted = [(key, cell) for key, cell in keys.items() if cell.seed == seed]
        before: dict[str, Order] = {}
        for _, cell in wanted:
            objective = cell.method.objective
            if objective and _told(objective) not in before:
                name = f"pretraining with {objective.name} ({len(before)}), seed {seed}"
                before[_told(objective)] = Order(plan, name, objective=objective, seed=seed)
        made += before.values()
        names = {cell.name for _, cell in wanted}
        for key, cell in wanted:
            after = before[_told(cell.method.objective)].name if cell.method.objective else None
            if cell.method.self_trained and cell.teacher.name in names:
                after = cell.teacher.name
            made.append(Order(plan, cell.name, key, cell, after=after))
    return made


def _told(objective: Component) -> str:
    return digest([objective.name, dict(objective.options)])


def carry_out(order: Order, workspace: Workspace) -> dict[str, Any] | None:
    """Make what is ordered, or take what was made before; returns the line of a cell."""
    steps = Steps(workspace, BY)
    if order.cell is None:
        assert order.objective
        _pretrained(steps, order.plan, order.objective, order.seed)
        return None
    cell, plan = order.cell, order.plan
    training, config = plan.training_of(cell), plan.finetune_of(cell)
    objective, parts = cell.method.objective, plan.parts_of()
    parent = _pretrained(steps, plan, objective, cell.seed) if objective else None
    before = [parent] if parent else []
    run = steps.finetuned(parts, training, config, parent, None if parent else plan.input)
    if cell.method.self_trained:
        before.append(run)
        taught = plan.self_training_of(cell)
        run = steps.self_trained(parts, taught, config, run, plan.self_train)
    reading = reading_once(run, workspace, plan.finetuning.device)
    return _line(order.key, cell, run, before, reading)


def _pretrained(steps: Steps, plan: Plan, objective: Component, seed: int) -> Run:
    dataset, training = plan.pretrain_dataset or plan.dataset, plan.pretraining_of(seed)
    teachers = plan.teachers_of(objective)
    return steps.pretrained(plan.backbone, dataset, objective, training, PretrainConfig(), teachers)


def _line(
    key: str, cell: Cell, run: Run, before: Sequence[Run], reading: dict[str, Any]
) -> dict[str, Any]:
    """Write down a finished cell; fractions 0..1. `before` are the runs that it came of."""
    record = runs.load(run.folder).record
    metrics = record.metrics
    spent = {
        kind: sum(each.record.seconds or 0.0 for each in (*before, run) if each.record.kind == kind)
        for kind in ("pretrain", "finetune")
    }
    pretrained = [each for each in before if each.record.kind == "pretrain"]
    seen = [each.record.metrics for each in pretrained]
    return {
        "schema": 1,
        "key": key,
        "method": cell.method.label,
        "labels": cell.labels,
        "examples": int(metrics.get("labelled_examples", metrics["train_examples"])),
        "seed": cell.seed,
        "accuracy": float(reading["accuracy"]),
        "test_examples": reading["examples"],
        "test_sha256": reading.get("test_sha256"),
        "test_readings": len(record.tests),
        "epochs": record.training["epochs"],
        "seconds": {
            "pretraining": round(spent["pretrain"], 3),
            "finetuning": round(spent["finetune"], 3),
        },
        "runs": {
            "pretraining": pretrained[0].name if pretrained else None,
            "finetuning": run.name,
        },
        # Those held out included, and those of a split that has no labels.
        "pretraining_examples": seen[0]["train_examples"] + seen[0]["validation_examples"]
        if seen
        else None,
        "weights_sha256": record.weights_sha256,
        "commit": commit(),
        "versions": record.versions,
        "device": record.device,
        "processor": record.processor or processor(),
        "threads": record.threads,
    }
