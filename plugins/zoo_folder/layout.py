"""How a folder is laid out: class folders, `train/` and `test/`, `unlabelled/`, or pictures alone.

Folders are listed; no picture is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from zoo.api import DataError
from zoo_folder.classes import below, class_folders, need_pictures, test_folders
from zoo_folder.listing import folders, holds_pictures, shown, some, typed

UNLABELLED = -1
"""The label of a picture that has none."""

ROLES = {"train": "train", "test": "test", "unlabelled": "unlabelled", "unlabeled": "unlabelled"}

Source = tuple[int, Path]
"""A label and a folder whose pictures have it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """What is read of a folder. `test` is None where a share of `train` becomes the test split.

    `classes` are the folders' names in Unicode's composed form (NFC), which is the same wherever
    they were typed, sorted by code point; none where the pictures have no labels.
    """

    root: Path
    classes: tuple[str, ...]
    train: list[Source]
    test: list[Source] | None
    unlabelled: list[Source]
    notes: tuple[str, ...]

    def sources(self) -> Iterator[tuple[str, int, Path]]:
        """Yield the folders of each split, with the label of their pictures."""
        splits = {"test": self.test or [], "train": self.train, "unlabelled": self.unlabelled}
        for split, sources in splits.items():
            yield from ((split, label, folder) for label, folder in sources)


def find(path: str) -> Layout:
    """Read a layout from the names of folders; raises `DataError` where there is none."""
    root = _existing(path)
    roles: dict[str, list[Path]] = {"train": [], "test": [], "unlabelled": []}
    others: list[Path] = []
    for folder in folders(root):
        roles.get(ROLES.get(folder.name.casefold(), ""), others).append(folder)
    if any(folders(folder) for folder in roles["train"]):
        return _split(root, roles, others)
    if any(folders(folder) for folder in roles["test"]):
        raise DataError(
            f"'{shown(root)}' has test/ and no class folders in train/. Put them there,"
            " CLASS/picture.png, or name the folder that holds class folders: -d path=DIR"
        )
    # Without class folders of their own, these may well be classes: cars, planes and trains.
    named = [*others, *roles["train"], *roles["test"]]
    if not named:
        return _flat(root)
    if not others:
        raise DataError(
            f"'{shown(named[0])}' holds no class folders. Put CLASS/picture.png there; for"
            f" pretraining alone, without labels, type: -d path={typed(named[0])}"
        )
    notes: list[str] = []
    classes = class_folders(root, named, notes)
    unlabelled = _unlabelled(roles["unlabelled"], notes)
    return _make(root, classes, None, unlabelled, notes)


def _existing(path: str) -> Path:
    root = Path(path)
    if not path or not root.exists():
        raise DataError(
            f"There is no folder '{shown(path)}'. Type the folder of your pictures: -d path=DIR"
        )
    if not root.is_dir():
        raise DataError(
            f"'{shown(root)}' is a file. Type the folder that holds the pictures:"
            f" -d path={typed(root.parent)}"
        )
    return root


def _flat(root: Path) -> Layout:
    """Pictures without class folders: a data set for pretraining alone."""
    need_pictures(root, "Put pictures there, or class folders: CLASS/picture.png")
    sources = [(UNLABELLED, root)]
    return Layout(root=root, classes=(), train=sources, test=None, unlabelled=[], notes=())


def _split(root: Path, roles: dict[str, list[Path]], others: list[Path]) -> Layout:
    notes: list[str] = []
    if others:
        notes.append(
            f"not read, for only train/, test/ and unlabelled/ are: {some(p.name for p in others)}"
        )
    classes = class_folders(roles["train"][0], below(roles["train"]), notes)
    test = test_folders(roles["test"], classes, notes) if roles["test"] else None
    return _make(root, classes, test, _unlabelled(roles["unlabelled"], notes), notes)


def _make(
    root: Path,
    classes: dict[str, list[Path]],
    test: dict[str, list[Path]] | None,
    unlabelled: list[Source],
    notes: list[str],
) -> Layout:
    names = tuple(classes)

    def sources(named: dict[str, list[Path]]) -> list[Source]:
        return [(i, path) for i, name in enumerate(names) for path in named.get(name, ())]

    return Layout(
        root=root,
        classes=names,
        train=sources(classes),
        test=None if test is None else sources(test),
        unlabelled=unlabelled,
        notes=tuple(notes),
    )


def _unlabelled(found: list[Path], notes: list[str]) -> list[Source]:
    full = [folder for folder in found if holds_pictures(folder)]
    notes += [f"no picture in '{shown(f.name)}/'" for f in found if f not in full]
    return [(UNLABELLED, folder) for folder in full]
