"""The data set `folder`: what it declares, loads and tells of the pictures it cannot use."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

from zoo.api import DataError, Dataset, Examples, ImageInput, Unfit, note
from zoo_folder import FolderConfig
from zoo_folder.arrange import Plan, arrange
from zoo_folder.cache import Cache, Index, slot_of
from zoo_folder.contents import File, digests, scan
from zoo_folder.layout import Layout, find
from zoo_folder.listing import kinds, shown, some
from zoo_folder.making import decoded

LISTED = 20
"""Unreadable pictures that are told one by one; the cache's index has all of them."""


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
        self._told: list[str] = []

    def load(self, split: str) -> Examples:
        """Return a split as a view of the cache; raises `DataError`."""
        layout = self.layout
        others: Counter[str] = Counter()
        files = scan(layout, others)
        contents = digests(layout.root, files, self._slot / "seen.sha256")
        plan = arrange(layout, files, contents)
        cache = decoded(plan, layout.root, self._slot, self.input)
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
        self._tell([*notes, *_alike(plan, cache), _counts(layout, cache.index)])
        _check(layout, cache.index, split)
        inputs = cache.split(split)
        labelled = layout.classes and split != "unlabelled"
        return Examples(inputs=inputs, labels=cache.index.labels(split) if labelled else None)

    def _tell(self, notes: list[str]) -> None:
        """Note what has not been told yet: several splits may be loaded."""
        if notes != self._told:
            for text in notes:
                note(f"{shown(self.layout.root.name)}: {text}")
        self._told = notes


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
