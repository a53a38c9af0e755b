"""The data set `folder`: what it declares, loads and tells of the pictures it cannot use."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import torch

from zoo.api import DataError, Dataset, Examples, ImageInput, Unfit, note
from zoo_folder import FolderConfig
from zoo_folder.arrange import Plan, arrange
from zoo_folder.cache import Cache, Index, slot_of
from zoo_folder.contents import DIGEST, File, digests, scan
from zoo_folder.layout import Layout, find
from zoo_folder.listing import kinds, shown, some
from zoo_folder.making import decoded
from zoo_folder.owner import own_slot

LISTED, PAIRS = 20, 3
"""Unreadable pictures, and pairs that look alike, that are told one by one; the index has all."""
NEAR_TOLD = "near.told"
"""In a cache: somebody was told of the pairs that look alike in it."""


def build(config: FolderConfig, root: Path) -> Dataset:
    """Describe the pictures by the names of their folders; none of them is read."""
    if config.channels not in (1, 3):
        raise Unfit(
            f"channels={config.channels} is not allowed: pictures have 3 (colour) or 1 (grey)."
            " Type: -d channels=3"
        )
    folder = Folder(config, find(config.path), root)
    layout = folder.layout
    return Dataset(
        input=folder.input,
        classes=layout.classes,
        train=functools.partial(folder.load, "train"),
        test=functools.partial(folder.load, "test") if layout.classes else None,
        unlabelled=functools.partial(folder.load, "unlabelled") if layout.unlabelled else None,
    )


class Folder:
    """One folder of pictures; what lies there is looked at anew on every load."""

    def __init__(self, config: FolderConfig, layout: Layout, data: Path) -> None:
        self.layout = layout
        self.input = ImageInput(channels=config.channels, height=config.size, width=config.size)
        self._strict = config.strict
        self._slot = slot_of(data, config.path, self.input)
        self._told: set[str] = set()

    def load(self, split: str) -> Examples:
        """Return a split as a view of the cache; raises `DataError`."""
        layout = self.layout
        others: Counter[str] = Counter()
        files = scan(layout, others)
        slot = own_slot(self._slot, lambda text: self._tell([text]))
        contents = digests(layout.root, files, slot / "seen.sha256")
        plan = arrange(layout, files, contents)
        cache = decoded(plan, layout.root, slot, self.input)
        unread = _unread(plan, cache, files, contents)
        if unread and self._strict:
            raise DataError(
                f"{_listed(unread)}\nRepair or remove them, or skip them: -d strict=false"
            )
        notes = [*layout.notes, *plan.notes, *_untested(layout, cache.index)]
        if others:
            notes.append(f"ignored, for they are no pictures: {kinds(others)}")
        if unread:
            notes.append(f"skipped: {_listed(unread)}")
        notes += _alike(plan, cache)
        self._tell(notes)
        self._tell(_near(plan, cache), once=cache.folder / NEAR_TOLD)
        self._tell([_counts(layout, cache.index)])
        _check(layout, cache.index, split)
        inputs = cache.split(split)
        labelled = layout.classes and split != "unlabelled"
        rows = cache.contents_of(split)
        return Examples(
            inputs=inputs,
            labels=cache.index.labels(split) if labelled else None,
            names=Names(plan, rows),
            contents=torch.frombuffer(bytearray(rows), dtype=torch.uint8).view(-1, DIGEST),
        )

    def _tell(self, notes: list[str], once: Path | None = None) -> None:
        """Note what has not been told yet: several splits may be loaded."""
        for text in notes:
            if text not in self._told:
                note(f"{shown(self.layout.root.name)}: {text}", once=once)
        self._told.update(notes)


class Names(Sequence[str]):
    """The pictures' names below the root, in the order of the rows; made when one is asked for."""

    def __init__(self, plan: Plan, contents: bytes) -> None:
        self._plan, self._contents = plan, contents

    def __len__(self) -> int:
        return len(self._contents) // DIGEST

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[place] for place in range(len(self))[at]]
        place = range(len(self))[at]
        return self._by_content[self._contents[place * DIGEST : (place + 1) * DIGEST]]

    @functools.cached_property
    def _by_content(self) -> dict[bytes, str]:
        return {picture.digest: shown(picture.file.name) for picture in self._plan.pictures()}


def _unread(
    plan: Plan, cache: Cache, files: list[File], contents: list[bytes | str]
) -> dict[str, str]:
    """Return why pictures were left out as unreadable, by name."""
    unread = {
        file.name: why for file, why in zip(files, contents, strict=True) if isinstance(why, str)
    }
    if cache.index.unread:
        for picture in plan.pictures():
            why = cache.index.unread.get(picture.digest.hex())
            if why is not None:
                unread[picture.file.name] = why
    return unread


def _listed(unread: dict[str, str]) -> str:
    lines = [f"  '{shown(name)}' {why}" for name, why in sorted(unread.items())]
    more = [f"  … and {len(lines) - LISTED:,} more"] if len(lines) > LISTED else []
    return "\n".join([f"{len(lines):,} unreadable:", *lines[:LISTED], *more])


def _alike(plan: Plan, cache: Cache) -> list[str]:
    """Tell of pictures that became the same pixels as one of an earlier split."""
    names: dict[str, list[str]] = {}
    if cache.index.alike:
        for picture in plan.pictures():
            first = cache.index.alike.get(picture.digest.hex())
            if first is not None:
                names.setdefault(first, []).append(picture.file.name)
    height, width = cache.pixels.shape[2:]
    return [
        f"left out, for at {height}×{width} they look the same as one of the {first} split:"
        f" {some(each)}"
        for first, each in names.items()
    ]


def _near(plan: Plan, cache: Cache) -> list[str]:
    """Tell of those that look nearly as one that is tested on."""
    if not cache.index.near:
        return []
    names = {picture.digest.hex(): picture.file.name for picture in plan.pictures()}
    pairs = [
        f"'{shown(names[one])}' and '{shown(names[other])}'" for one, other in cache.index.near
    ]
    more = f" and {len(pairs) - PAIRS:,} more pairs" if len(pairs) > PAIRS else ""
    return [
        f"{len(pairs):,} of {cache.index.count('test'):,} test pictures look nearly the same as one"
        f" that is trained on, so accuracy may flatter: {', '.join(pairs[:PAIRS])}{more}"
    ]


def _untested(layout: Layout, index: Index) -> list[str]:
    tested = {label for label, _ in index.rows["test"]}
    absent = [name for label, name in enumerate(layout.classes) if label not in tested]
    return [f"no picture to test on of the class {some(absent)}"] if absent else []


def _counts(layout: Layout, index: Index) -> str:
    train, test, unlabelled = (index.count(s) for s in ("train", "test", "unlabelled"))
    if not layout.classes:
        return f"{train:,} pictures without labels"
    share = "" if layout.test is not None else ", a fifth of each class"
    more = f"; {unlabelled:,} unlabelled" if layout.unlabelled else ""
    return (
        f"{len(layout.classes)} classes; {train:,} pictures to train on,"
        f" {test:,} to test on{share}{more}"
    )


def _check(layout: Layout, index: Index, split: str) -> None:
    """Refuse what is empty once unreadable pictures and copies are left out."""
    where = f"'{shown(layout.root)}'"
    if split == "unlabelled" and not index.count(split):
        raise DataError(
            f"No picture is left in unlabelled/ of {where}: each is among the labelled ones too, or"
            " cannot be read. Remove unlabelled/, or add pictures to it."
        )
    if not index.count("train"):
        raise DataError(f"No picture in {where} can be used. Put others there.")
    trained = {label for label, _ in index.rows["train"]}
    for label, name in enumerate(layout.classes):
        if label not in trained:
            raise DataError(
                f"Class '{shown(name)}' of {where} has no picture left to train on: they cannot be"
                " read, or are the same as others. Add pictures to it."
            )
    if layout.classes and not index.count("test"):
        raise DataError(f"No picture of test/ in {where} can be used. Put others there.")
