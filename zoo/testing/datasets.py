"""What is asked of a data set: what it declares is what it holds, and its splits are apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.api import Dataset, Examples, ImageInput
from zoo.data import checked
from zoo.errors import DataError
from zoo.pipeline.assembly import Part, build_dataset, guarded
from zoo.pipeline.workspace import Workspace
from zoo.registry import Entry, Registry
from zoo.testing.options import check_choices, check_options
from zoo.testing.report import ComponentReport, Failure, Rows, Skipped

DIM = 32
"""A whole split that is nowhere brighter was most likely stored on another scale than 0..255."""


def check_dataset(
    registry: Registry, entry: Entry, options: Mapping[str, Any], data_root: Path | None
) -> ComponentReport:
    """Hold a data set to its contract; loads every split, so that some are downloaded."""
    workspace = Workspace(plugins=registry, data=data_root)
    rows = Rows()
    rows.add("options", lambda: check_options(entry, options))
    part = Part(entry, entry.configure(dict(options)))
    described: list[Dataset] = []
    rows.add("description", lambda: _describe(workspace, part, described))
    loaded: dict[str, Examples] = {}
    for split in ("train", "test", "unlabelled"):
        rows.add(f"{split} split", lambda split=split: _load(part, described, split, loaded))  # type: ignore[misc]
    rows.add("splits disjoint", lambda: _disjoint(loaded))
    rows.add("every class", lambda: _every_class(described, loaded))
    rows.add("loads the same twice", lambda: _twice(part, described, loaded))
    rows.add(
        "choices",
        lambda: check_choices(
            entry, options, lambda config: build_dataset(workspace, Part(entry, config))
        ),
    )
    return ComponentReport("dataset", entry.name, tuple(rows.found))


def _describe(workspace: Workspace, part: Part, described: list[Dataset]) -> str:
    data = build_dataset(workspace, part)
    sizes = data.input.shape if isinstance(data.input, ImageInput) else ()
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise Failure(
            f"its input is {data.input!r}",
            "describe it: ImageInput(channels=1, height=28, width=28).",
        )
    names = data.classes
    sound = isinstance(names, tuple) and all(isinstance(n, str) and n.strip() for n in names)
    if not sound or len(set(names)) != len(names):
        raise Failure(
            f"its classes are {names!r}", "name each class once, in a tuple of texts, by label."
        )
    described.append(data)
    return f"{data.input}, {len(names)} classes"


def _load(part: Part, described: list[Dataset], split: str, loaded: dict[str, Examples]) -> str:
    if not described:
        raise Skipped("it was not described")
    call: Callable[[], Examples] | None = getattr(described[0], split)
    if call is None:
        return "none"
    if split != "train" and "train" not in loaded:
        raise Skipped("its training split was not loaded")
    try:
        with guarded(part.entry, f"loading its {split} split"):
            examples = call()
    except DataError as error:
        raise Skipped(f"its files are not at hand: {error}") from error
    data = described[0]
    if not data.classes and split == "test":
        raise Failure("it has a test split and no classes", "name the classes of its labels.")
    needs_labels = split == "test" or (
        split == "train" and isinstance(examples, Examples) and examples.labels is not None
    )
    classes = len(data.classes) if needs_labels else None
    try:
        checked(examples, data.input.shape, classes, part.entry.owner)
    except DataError as error:
        raise Failure(
            str(error), "store and declare the same: uint8 N x C x H x W, labels int64 from 0."
        ) from error
    brightest = int(examples.inputs.max())
    if brightest < DIM:
        raise Failure(
            f"its brightest byte is {brightest}",
            "store bytes on the full scale: 0 is black, 255 is white.",
        )
    loaded[split] = examples
    labels = "labels in range" if needs_labels else "no labels"
    return f"{len(examples):,} examples, {labels}"


def _disjoint(loaded: Mapping[str, Examples]) -> str:
    if "train" not in loaded:
        raise Skipped("its training split was not loaded")
    if "test" not in loaded:
        return "no test split"
    test = _digests(loaded["test"].inputs)
    for split in ("train", "unlabelled"):
        if split in loaded:
            common = test & _digests(loaded[split].inputs)
            if common:
                raise Failure(
                    f"{len(common):,} of {len(test):,} test examples are in {split} too",
                    "split once, by a fixed rule, so that no example is in two splits.",
                )
    return f"{len(test):,} test examples in no other split"


def _digests(inputs: Tensor) -> set[bytes]:
    return {hashlib.blake2b(one.numpy().tobytes(), digest_size=16).digest() for one in inputs}


def _every_class(described: list[Dataset], loaded: Mapping[str, Examples]) -> str:
    labels = loaded["train"].labels if "train" in loaded else None
    if "train" not in loaded:
        raise Skipped("its training split was not loaded")
    if labels is None:
        return "no labels"
    counts = torch.bincount(labels, minlength=len(described[0].classes)).tolist()
    absent = [name for name, count in zip(described[0].classes, counts, strict=True) if not count]
    if absent:
        raise Failure(
            f"class '{absent[0]}' has no training example", "name only classes that are there."
        )
    return f"{min(counts):,} to {max(counts):,} training examples a class"


def _twice(part: Part, described: list[Dataset], loaded: Mapping[str, Examples]) -> str:
    """A seed chooses examples by their place, so the order must not change."""
    if "train" not in loaded:
        raise Skipped("its training split was not loaded")
    with guarded(part.entry, "loaded again"):
        again = described[0].train()
    first = loaded["train"]
    same = torch.equal(again.inputs, first.inputs) and (
        first.labels is None
        or (again.labels is not None and torch.equal(again.labels, first.labels))
    )
    if not same:
        raise Failure(
            "a second load of its training split gave other examples, or another order",
            "sort what is listed from disk, and seed a generator of its own for what is drawn.",
        )
    return "the same order"
