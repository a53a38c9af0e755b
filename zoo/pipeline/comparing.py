"""`compare`: finished classifiers by method, paired by seed; nothing is read but their records."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.errors import RunError, UsageError, ZooError
from zoo.evidence.rows import Measured, Row, rows
from zoo.pipeline.bench.plan import SCRATCH, SELF_TRAINED
from zoo.pipeline.identity import SPLITS
from zoo.pipeline.lineage import ancestors_of
from zoo.pipeline.reuse import HARMLESS
from zoo.pipeline.workspace import Workspace
from zoo.record import PartRecord, Record
from zoo.runs import Run

MACHINE = ("threads", "device", "devices", "strategy")
PRETRAINING = "pretraining"
UNKEPT = "not kept"
"""What a run made before digests were kept was trained on."""


@dataclasses.dataclass(frozen=True)
class Compared:
    """One run, what it was made with but for the seed, and what was measured of it.

    `examples` carried a label and were trained on; `held` carried one too, and were held out.
    `test_sha256` is that of the test split it was measured on, None where that was not kept.
    """

    run: str
    method: str
    seed: int
    labels: int | None
    settings: dict[str, Any]
    machine: dict[str, Any]
    accuracy: float
    test_readings: int
    seconds: tuple[float, float]
    examples: int
    held: int
    test_sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What finished runs show. `differences` are the settings in which they differ, with values.

    `readings` counts for each row how often the test split was read for its runs, in all; `held` is
    the most labelled examples that one of its runs held out beside those it was trained on.
    """

    rows: list[Row]
    held: list[int]
    readings: list[int]
    differences: dict[str, list[Any]]
    notes: list[str]
    runs: list[Compared]


def compare(runs: Sequence[Run | str | Path], *, workspace: Workspace | None = None) -> Comparison:
    """Compare finished finetunings that were evaluated: a row a method, paired by seed.

    The test split is not read. Differences are to the runs from scratch whose other settings are
    equal, else to the first method named on the same data set and number of labels.
    Raises `ZooError` where a run has no recorded evaluation, and names the command to type.
    """
    workspace = workspace or Workspace()
    found = {run.name: run for run in map(workspace.finetuned, runs)}
    if len(found) < 2:
        raise UsageError("Name two runs or more to compare. See: zoo runs")
    missing = [run for run in found.values() if reading_of(run.record) is None]
    if missing:
        lines = "".join(f"\n  zoo evaluate {shlex.quote(str(run.folder))}" for run in missing)
        raise RunError(f"{len(missing)} of the runs were not evaluated. Type:{lines}")
    compared = [_compared(run, workspace) for run in found.values()]
    differences = _differences([each.settings for each in compared])
    named = _named(compared, differences)
    made: list[tuple[Row, int, int]] = []
    notes: list[str] = []
    for block in _blocks(compared).values():
        groups: dict[str, list[Compared]] = {}
        for each in block:
            groups.setdefault(named[each.run], []).append(each)
        made += _rows({n: _once_a_seed(n, members, notes) for n, members in groups.items()}, notes)
    notes += _splits(compared) + _machines(compared)
    return Comparison(
        rows=[row for row, _, _ in made],
        held=[held for _, held, _ in made],
        readings=[count for _, _, count in made],
        differences=differences,
        notes=list(dict.fromkeys(notes)),
        runs=compared,
    )


def _rows(groups: Mapping[str, list[Compared]], notes: list[str]) -> list[tuple[Row, int, int]]:
    """Return a row a method beside what it is compared to, what it held out, and its readings."""
    made = []
    for name, baseline in _baselines(groups).items():
        members = groups[name]
        pair = {baseline: groups[baseline]} if baseline else {}
        wanted = {k: [_measured(each) for each in v] for k, v in {**pair, name: members}.items()}
        found = rows(members[0].labels, members[0].examples, wanted, baseline)
        readings = sum(each.test_readings for each in members)
        held = max(each.held for each in members)
        made.append((next(row for row in found if row.method == name), held, readings))
        notes += _unequal(members, groups[baseline]) if baseline else []
    return made


def reading_of(record: Record) -> dict[str, Any] | None:
    """Return the last reading of the test split by `evaluate`, if there is one."""
    return record.evaluations[-1] if record.evaluations else None


def _compared(run: Run, workspace: Workspace) -> Compared:
    try:
        parents = [parent.record for parent in ancestors_of(run, workspace)]
    except ZooError as error:
        raise RunError(
            f"What run '{run.name}' was pretrained with cannot be told: {error} Leave it out."
        ) from None
    record = run.record
    reading = reading_of(record)
    assert reading is not None
    objective = parents[-1].objective if parents else None
    method = objective.name if objective else SCRATCH
    machine = {name: getattr(record, name) for name in ("device", "processor", "threads")}
    return Compared(
        run=run.name,
        method=method if record.self_train is None else method + SELF_TRAINED,
        seed=record.seed,
        labels=(record.finetune or {}).get("labels"),
        settings=_settings(record, parents),
        machine=machine | {"torch": record.versions.get("torch")},
        accuracy=float(reading["accuracy"]),
        test_readings=len(record.tests),
        seconds=_seconds([*parents, record]),
        examples=_labelled(record),
        held=int(record.metrics.get("validation_examples", 0)),
        test_sha256=reading.get("test_sha256"),
    )


def _seconds(records: Sequence[Record]) -> tuple[float, float]:
    """Return the seconds of the pretraining, and of all that came after it."""
    spent = {
        kind: sum(each.seconds or 0.0 for each in records if each.kind == kind)
        for kind in ("pretrain", "finetune")
    }
    return spent["pretrain"], spent["finetune"]


def _labelled(record: Record) -> int:
    """Count the examples with a label that a run was trained on."""
    metrics = record.metrics
    return int(metrics.get("labelled_examples", metrics.get("train_examples", 0)))


def _settings(record: Record, parents: Sequence[Record]) -> dict[str, Any]:
    """Write all that a run was made with, but for seed and machine, under one name each.

    `parents` are the runs that it came of, the nearest first.
    """
    found: dict[str, Any] = {}
    for kind in ("dataset", "backbone", "head"):
        found |= _part(kind, getattr(record, kind))
    found |= record.finetune or {}
    taught = record if record.self_train is None else parents[0]
    found |= _training(taught) | _data(taught)
    own = {} if taught is record else _training(record) | _data(record) | (record.self_train or {})
    found |= {f"self-training.{name}": value for name, value in own.items()}
    parent = parents[-1] if parents else None
    if parent is None or parent.objective is None:
        return found | {"objective": None}
    own = _part("objective", parent.objective) | _training(parent)
    own |= _part("dataset", parent.dataset) | _data(parent)
    own["seed"] = "the finetuning's" if parent.seed == record.seed else parent.seed
    objective = {name: own.pop(name) for name in list(own) if name.startswith("objective")}
    return found | objective | {f"{PRETRAINING}.{name}": value for name, value in own.items()}


def _part(kind: str, part: PartRecord) -> dict[str, Any]:
    options = {f"{kind}.{name}": value for name, value in part.options.items()}
    return {kind: part.name, f"{kind}.plugin": f"{part.plugin} {part.version}", **options}


def _training(record: Record) -> dict[str, Any]:
    left_out = (*HARMLESS, *MACHINE, "seed")
    return {name: value for name, value in record.training.items() if name not in left_out}


def _data(record: Record) -> dict[str, str | None]:
    """Return the SHA-256 of the splits that a run was trained on, short; None of one it lacked."""
    names = SPLITS[:1] if record.kind == "finetune" and record.self_train is None else SPLITS
    if record.data is None:
        return {f"{name} data": UNKEPT for name in names}
    splits = record.data.splits
    return {f"{n} data": splits[n].sha256[:12] if n in splits else None for n in names}


def _differences(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the settings that are not the same in all that have them, with their values."""
    found = {}
    for name in dict.fromkeys(name for each in settings for name in each):
        values = {_json(each[name]): each[name] for each in settings if name in each}
        if len(values) > 1:
            found[name] = list(values.values())
    return found


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _named(compared: Sequence[Compared], differences: Mapping[str, Any]) -> dict[str, str]:
    """Name each run's method: by its objective, and by its own settings where that is not enough.

    What every method with that objective has alike tells none of them apart.
    """
    names = {}
    for each in compared:
        alike = [o for o in compared if o.method == each.method]
        own = _differences([other.settings for other in alike if _block(other) == _block(each)])
        told = [f"{name} {_said(each.settings.get(name))}" for name in own if name in differences]
        names[each.run] = ", ".join([each.method, *told])
    return names


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value).lower() if value in (True, False) else str(value)


def _block(each: Compared) -> str:
    """What runs must share for accuracies to stand in one column: the set, test split, labels."""
    return _json([_of(each.settings, "dataset", "labels"), each.test_sha256])


def _blocks(compared: Sequence[Compared]) -> dict[str, list[Compared]]:
    found: dict[str, list[Compared]] = {}
    order = sorted(compared, key=lambda each: (each.labels is None, each.labels or 0))
    for each in order:
        found.setdefault(_block(each), []).append(each)
    return found


def _once_a_seed(name: str, members: Sequence[Compared], notes: list[str]) -> list[Compared]:
    """Keep the last run of each seed, and say where there were several."""
    last = {each.seed: each for each in members}
    if len(last) < len(members):
        notes.append(f"{name}: of several runs with one seed the last one named counts.")
    return list(last.values())


def _baselines(groups: Mapping[str, Sequence[Compared]]) -> dict[str, str | None]:
    """Say for each method what it is compared to; the first row of a block to nothing."""
    scratch = [name for name, members in groups.items() if members[0].method == SCRATCH]
    found: dict[str, str | None] = {}
    for name in sorted(groups, key=lambda name: name not in scratch):
        equal = [each for each in scratch if not _rest(groups[name][0], groups[each][0])]
        choices = [*equal, *scratch, *groups]
        found[name] = choices[0] if name not in choices[:1] else None
    return found


def _rest(one: Compared, other: Compared) -> list[str]:
    """Name the settings that differ beside what pretrained the two."""
    both = _differences([one.settings, other.settings])
    return [n for n in both if not n.startswith(("objective", PRETRAINING))]


def _unequal(members: Sequence[Compared], base: Sequence[Compared]) -> list[str]:
    rest = _rest(members[0], base[0])
    lone = {each.seed for each in members} ^ {each.seed for each in base}
    names = f"{members[0].method} and {base[0].method}"
    said = []
    if rest and members[0].method != base[0].method:
        said.append(f"{names} differ in more than pretraining: {', '.join(rest)}.")
    if lone:
        seeds = ", ".join(map(str, sorted(lone)))
        said.append(f"{names}: seeds {seeds} are not in both, and not in the difference.")
    return said


def _splits(compared: Sequence[Compared]) -> list[str]:
    """Say where runs on one data set were measured on several test splits, or nobody knows."""
    found: dict[str, set[str | None]] = {}
    names = {}
    for each in compared:
        data = _json(_of(each.settings, "dataset"))
        found.setdefault(data, set()).add(each.test_sha256)
        names[data] = each.settings["dataset"]
    said = []
    for data, splits in [(data, splits) for data, splits in found.items() if len(splits) > 1]:
        several = f"The runs on {names[data]} were measured on several test splits"
        if len(splits) == 2 and None in splits:
            several = f"Of some runs on {names[data]} it was not kept which test split they were"
            several += " measured on"
        elif None in splits:
            several += ", and of some it was not kept which"
        said.append(
            f"{several}: they are shown in separate rows. To measure on one, type zoo evaluate RUN"
            " for each."
        )
    return said


def _of(settings: Mapping[str, Any], *kinds: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name.split(".")[0] in kinds}


def _machines(compared: Sequence[Compared]) -> list[str]:
    found = _differences([each.machine for each in compared])
    return [
        f"They were made with several {name}: {', '.join(map(str, found[name]))}." for name in found
    ]


def _measured(each: Compared) -> Measured:
    return Measured(each.seed, each.accuracy, *each.seconds)
