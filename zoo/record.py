"""The content of `run.json`: what it holds, and how it is read back without being believed."""

from __future__ import annotations

import dataclasses
import datetime
import types
import typing
from pathlib import Path
from typing import Any

from zoo.errors import RunError
from zoo.machine import MOST_THREADS

SCHEMA = 1
STATUSES = ("running", "finished", "failed", "interrupted")
DEEDS = {"pretrain": "pretraining", "finetune": "finetuning"}


@dataclasses.dataclass(frozen=True)
class PartRecord:
    """A component as it was used: every option resolved, and who contributed it."""

    name: str
    plugin: str
    version: str
    options: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Parent:
    """The run that a finetuning started from, and where it lay."""

    run: str
    weights_sha256: str
    folder: str = ""


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


# never elsewhere: fields, get_type_hints
def from_json(path: Path, content: Any) -> Record:
    """Check and convert the JSON value of a `run.json`; raises `RunError` that names the file."""
    try:
        if content["schema"] > SCHEMA:
            raise RunError(
                f"'{path}' was written by a newer zoo (schema {content['schema']}; this one reads"
                f" {SCHEMA}). Type: pip install --upgrade plugzoo"
            )
        known = {field.name for field in dataclasses.fields(Record)}
        values = {name: value for name, value in content.items() if name in known}
        for name in ("dataset", "backbone", "objective", "head"):
            if values[name] is not None:
                values[name] = PartRecord(**values[name])
        if values["parent"] is not None:
            values["parent"] = Parent(**values["parent"])
        if values.get("data") is not None:
            data = values["data"]
            splits = {name: SplitRecord(**split) for name, split in data["splits"].items()}
            values["data"] = DataRecord(**{**data, "splits": splits})
        record = Record(**values)
        hints = typing.get_type_hints(Record)
        wrong = [name for name, hint in hints.items() if not _is(getattr(record, name), hint)]
        if record.kind not in DEEDS:
            wrong.append("kind")
        if record.status not in STATUSES:
            wrong.append("status")
        wrong += _unsound(record)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(f"'{path}' is corrupt: {type(error).__name__}: {error}.") from None
    if wrong:
        raise RunError(f"'{path}' is corrupt: '{wrong[0]}' has the wrong form.")
    return record


def _unsound(record: Record) -> list[str]:
    """Return the fields whose types are right and whose values cannot be."""
    wrong = []
    for name in ("input", "data_input"):
        sizes = getattr(record, name)
        if len(sizes) != 3 or min(sizes) < 1:
            wrong.append(name)
    if datetime.datetime.fromisoformat(record.created).tzinfo is None:
        wrong.append("created")
    if not 1 <= record.threads <= MOST_THREADS:
        wrong.append("threads")
    if data := record.data:
        counts = [split.examples for split in data.splits.values()]
        counts += [data.trained, data.held_out, data.pretrained, data.equal, data.left_out]
        if min(counts) < 0:
            wrong.append("data")
    finetuned = record.kind == "finetune"
    if finetuned != (record.head is not None) or finetuned != (record.finetune is not None):
        wrong.append("head")
    if finetuned == (record.objective is not None):
        wrong.append("objective")
    validation = record.metrics.get("validation")
    if validation is not None and not _is(validation, dict[str, float]):
        wrong.append("metrics")
    figures = {"accuracy": float, "examples": int, "interval": list[float]}
    for test in record.tests:
        if not all(_is(test[name], hint) for name, hint in figures.items() if name in test):
            wrong.append("tests")
    if record.recipe is not None and not _is(record.recipe, dict[str, str]):
        wrong.append("recipe")
    return wrong


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
