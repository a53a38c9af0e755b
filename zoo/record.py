"""The content of `run.json`: what it holds, and how it is read back without being believed."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import RunError
from zoo.machine import MOST_THREADS
from zoo.untrusted import plain

SCHEMA = 1
STATUSES = ("running", "finished", "failed", "interrupted")
DEEDS = {"pretrain": "pretraining", "finetune": "finetuning"}
MADE = (
    "run", "kind", "dataset", "backbone", "objective", "head", "input", "data_input", "classes",
    "training", "finetune", "pretrain", "self_train", "seed", "threads", "versions",
    "weights_sha256",
)  # fmt: skip
"""The fields of a record that say how a run was made, and what came of it."""
LARGEST_EXAMPLE = 2**31 - 1
"""Bytes of one example, the most that ONNX's shapes and the readers of files go together with."""


@dataclasses.dataclass(frozen=True)
class PartRecord:
    """A component as it was used: every option resolved, and who contributed it."""

    name: str
    plugin: str
    version: str
    options: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Parent:
    """The run that a finetuning started from, and where it lay.

    `record_sha256` is that of what its record says of how it was made, see `digest_of`; empty in
    runs that were made before it was kept.
    """

    run: str
    weights_sha256: str
    folder: str = ""
    record_sha256: str = ""

    def is_of(self, record: Record) -> bool:
        """Say whether a record is still the one that a run started from, as far as is known."""
        return self.record_sha256 in ("", digest_of(record))


@dataclasses.dataclass(frozen=True)
class SplitRecord:
    """A split as it was: how many examples, and the SHA-256 of inputs, then labels."""

    examples: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class DataRecord:
    """Which examples a run was made with; their digests are in `examples.safetensors`.

    `sha256` is that file's. `trained` and `held_out` count examples, and `pretrained` the digests
    of what the runs saw that it came of. `contents` says that all of these are known by what they
    are made of as well, `resized` that some are by that alone, for they had another size. `unknown`
    says of which runs and files, from which this one came, it is not known what they saw, and why.
    `splits` are the data set's as they were; one that it lacked, or a test split that could not be
    read, is absent. Of the test split `equal` examples were in another split too, and `left_out`
    had been seen before.
    """

    sha256: str
    trained: int
    held_out: int
    pretrained: int
    splits: dict[str, SplitRecord]
    equal: int = 0
    left_out: int = 0
    unknown: list[str] = dataclasses.field(default_factory=list)
    contents: bool = False
    resized: bool = False


@dataclasses.dataclass
class Record:
    """The content of `run.json`. Times are ISO 8601 with offset, fractions 0..1.

    `input` is what the backbone was built for, `data_input` what the data set stores (both
    channels, height, width). `tests` lists each reading of the test split. `teachers` are runs and
    files that a pretraining learnt from, each with its SHA-256; `sources` are the SHA-256 of the
    source of zoo and of each component, by its kind. `data` is None where digests were not kept.
    """

    run: str
    kind: str
    status: str
    created: str
    dataset: PartRecord
    backbone: PartRecord
    objective: PartRecord | None
    head: PartRecord | None
    input: list[int]
    data_input: list[int]
    classes: list[str]
    training: dict[str, Any]
    finetune: dict[str, Any] | None
    parent: Parent | None
    seed: int
    device: str
    threads: int
    versions: dict[str, str]
    process: dict[str, Any]
    recipe: dict[str, Any] | None = None
    pretrain: dict[str, Any] | None = None
    self_train: dict[str, Any] | None = None
    seconds: float | None = None
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    tests: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    weights_sha256: str | None = None
    error: str | None = None
    processor: str = ""
    teachers: dict[str, str] = dataclasses.field(default_factory=dict)
    sources: dict[str, str] = dataclasses.field(default_factory=dict)
    data: DataRecord | None = None
    schema: int = SCHEMA

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The readings of the test split by `evaluate`; one that was killed has no figures."""
        return [test for test in self.tests if test.get("by") == "evaluate" and "accuracy" in test]


def digest_of(record: Record) -> str:
    """Return the SHA-256 of how a run was made, which nothing done with it later changes.

    Fields that are added to the record must not be added here: what was written must match.
    """
    made = {name: getattr(record, name) for name in MADE}
    text = json.dumps(made, sort_keys=True, default=dataclasses.asdict)
    return hashlib.sha256(text.encode()).hexdigest()


def from_json(path: Path, content: Any) -> Record:
    """Check and convert the JSON value of a `run.json`; raises `RunError` that names the file.

    What this zoo does not know is left out, at the top and inside components; see `unknown_in`.
    """
    try:
        if content["schema"] > SCHEMA:
            raise RunError(
                f"'{path}' was written by a newer zoo (schema {content['schema']}; this one reads"
                f" {SCHEMA}). Type: pip install --upgrade plugzoo"
            )
        if not plain(content):
            raise ValueError("it holds text that is none, or numbers or nesting without end")
        values = _known(Record, content)
        for name in ("dataset", "backbone", "objective", "head"):
            if values[name] is not None:
                values[name] = PartRecord(**_known(PartRecord, values[name]))
        if values["parent"] is not None:
            values["parent"] = Parent(**_known(Parent, values["parent"]))
        if values.get("data") is not None:
            data = _known(DataRecord, values["data"])
            splits = {n: SplitRecord(**_known(SplitRecord, s)) for n, s in data["splits"].items()}
            values["data"] = DataRecord(**{**data, "splits": splits})
        record = Record(**values)
        wrong = misfits(record)
        if record.kind not in DEEDS:
            wrong.append("kind")
        if record.status not in STATUSES:
            wrong.append("status")
        wrong = wrong or list(_unsound(record))
    except KeyError as error:
        raise RunError(f"'{path}' is corrupt: it has no {error}.") from None
    except (TypeError, AttributeError) as error:
        _, absent, names = str(error).partition(" missing ")  # as Python tells a class's fields
        told = f"it has no {names.rpartition(': ')[2]}" if absent else "a part has the wrong form"
        raise RunError(f"'{path}' is corrupt: {told}.") from None
    except ValueError as error:
        raise RunError(f"'{path}' is corrupt: {error}.") from None
    if wrong:
        raise RunError(f"'{path}' is corrupt: '{wrong[0]}' has the wrong form.")
    return record


# never elsewhere: fields
def _known(kind: type[Any], content: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in content.items() if name in names}


def unknown_in(content: Mapping[str, Any], record: Record) -> dict[str, Any]:
    """Return what a `run.json` holds beyond its record, as a newer zoo may write it."""
    return _beyond(content, dataclasses.asdict(record))


def with_unknown(record: Record, unknown: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as JSON, with what `unknown_in` found put back in its place."""
    return _put_back(dataclasses.asdict(record), unknown)


def _beyond(content: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in content.items() if name not in known}
    for name, value in content.items():
        if isinstance(value, dict) and isinstance(known.get(name), dict):
            found[name] = _beyond(value, known[name])
    return {name: value for name, value in found.items() if value or name not in known}


def _put_back(known: dict[str, Any], unknown: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in unknown.items():
        if name not in known:
            known[name] = value
        elif isinstance(value, dict) and isinstance(known[name], dict):
            _put_back(known[name], value)
    return known


def _unsound(record: Record) -> Iterator[str]:
    """Yield the fields whose types are right and whose values cannot be."""
    for name in ("input", "data_input"):
        sizes = getattr(record, name)
        if len(sizes) != 3 or min(sizes) < 1 or math.prod(sizes) > LARGEST_EXAMPLE:
            yield name
    if datetime.datetime.fromisoformat(record.created).tzinfo is None:
        yield "created"
    if not 1 <= record.threads <= MOST_THREADS:
        yield "threads"
    least = {"schema": 1, "seed": 0, "seconds": 0}
    for name, low in least.items():
        if (value := getattr(record, name)) is not None and value < low:
            yield name
    if data := record.data:
        counts = [split.examples for split in data.splits.values()]
        counts += [data.trained, data.held_out, data.pretrained, data.equal, data.left_out]
        if min(counts) < 0:
            yield "data"
    finetuned = record.kind == "finetune"
    if finetuned != (record.head is not None) or finetuned != (record.finetune is not None):
        yield "head"
    if finetuned == (record.objective is not None):
        yield "objective"
    if record.parent is not None and not finetuned:
        yield "parent"
    yield from _unsound_figures(record)


def _unsound_figures(record: Record) -> Iterator[str]:
    for side in ("train", "validation"):
        figures = record.metrics.get(side)
        if figures is not None and not _are_figures(figures):
            yield "metrics"
    for name, count in record.metrics.items():
        if name.endswith(("_examples", "_epoch")) and not (_is(count, int) and count >= 0):
            yield "metrics"
    if not all(map(_is_reading, record.tests)):
        yield "tests"
    if record.recipe is not None and not _is(record.recipe, dict[str, str]):
        yield "recipe"


def _are_figures(figures: Any) -> bool:
    """Say whether they are an epoch's: numbers by name, a total or an accuracy among them."""
    if not _is(figures, dict[str, float]) or not {"total", "accuracy"} & figures.keys():
        return False
    return bool(0 <= figures.get("accuracy", 0) <= 1)


def _is_reading(test: dict[str, Any]) -> bool:
    """Say whether a reading of the test split has figures that can be."""
    hints = {"by": str, "when": str, "accuracy": float, "examples": int, "interval": list[float],
             "left_out": int, "test_sha256": str, "whole_sha256": str}  # fmt: skip
    if not all(_is(test[name], hint) for name, hint in hints.items() if name in test):
        return False
    counted = test.get("examples", 1) >= 1 and test.get("left_out", 0) >= 0
    return bool(counted and 0 <= test.get("accuracy", 0) <= 1)


# never elsewhere: get_type_hints
def misfits(record: Any) -> list[str]:
    """Return the fields of a dataclass whose values are not of the types that it declares."""
    hints = typing.get_type_hints(type(record))
    return [name for name, hint in hints.items() if not _is(getattr(record, name), hint)]


# never elsewhere: get_type_hints
def _is(value: Any, hint: Any) -> bool:
    """Say whether a JSON value has an annotated type, all the way down."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, arg) for arg in args)
    if origin is list:
        return isinstance(value, list) and all(_is(each, args[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is(each, args[1]) for each in value.values())
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        fields = typing.get_type_hints(hint)
        return isinstance(value, hint) and all(_is(getattr(value, k), v) for k, v in fields.items())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
