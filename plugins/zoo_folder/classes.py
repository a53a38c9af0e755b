"""Class folders: by name, none of them empty, and what lies beside them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from zoo.api import DataError
from zoo_folder.listing import (
    children,
    folders,
    holds_pictures,
    kind_of,
    kinds,
    pictures,
    shown,
    some,
    suffix_of,
    suffixes,
    typed,
)

BELONG = "pictures without labels belong in unlabelled/"


def class_folders(where: Path, found: list[Path], notes: list[str]) -> dict[str, list[Path]]:
    """Return class folders by name; raises `DataError` for a single or an empty one."""
    named = _by_name(found)
    loose = _note_loose(where, notes)
    if len(named) == 1:
        raise DataError(
            f"'{shown(where)}' has one class folder, '{shown(found[0].name)}'; a classifier needs"
            f" two or more{', and ' + BELONG if loose else ''}. For pretraining alone, type:"
            f" -d path={typed(found[0])}"
        )
    for name, paths in named.items():
        if not any(holds_pictures(path) for path in paths):
            advice = "Put pictures there, or remove the folder"
            need_pictures(paths[0], advice, f"Class '{shown(name)}'")
    return named


def test_folders(
    above: list[Path], classes: dict[str, list[Path]], notes: list[str]
) -> dict[str, list[Path]]:
    """Return the class folders of `test/`; raises `DataError` where they are none of `train/`."""
    named = _by_name(below(above))
    advice = "Remove it, and a fifth of each class becomes the test split"
    for folder in above:
        need_pictures(folder, advice)
        _note_loose(folder, notes)
    where = f"'{shown(above[0])}'"
    if not named:
        raise DataError(f"{where} holds no class folders. Put CLASS/picture.png there. {advice}.")
    strange = sorted(set(named) - set(classes))
    if strange:
        raise DataError(
            f"{where} has a class '{shown(strange[0])}' that train/ has not."
            f" Classes of train/: {shown(', '.join(classes))}. Name both folders alike, or remove"
            " it."
        )
    return named


def _by_name(found: Sequence[Path]) -> dict[str, list[Path]]:
    named: dict[str, list[Path]] = {}
    for folder in found:
        try:
            folder.name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"The name of the class folder '{shown(folder)}' is no UTF-8, and cannot be written"
                " down. Rename the folder."
            ) from None
        named.setdefault(unicodedata.normalize("NFC", folder.name), []).append(folder)
    return dict(sorted(named.items()))


def below(above: list[Path]) -> list[Path]:
    return [each for folder in above for each in folders(folder)]


def _note_loose(where: Path, notes: list[str]) -> bool:
    """Tell of pictures beside class folders: nobody knows whether they have a class."""
    files = [entry.name for entry in children(where) if kind_of(entry) == "file"]
    loose = [name for name in files if suffix_of(name) in suffixes()]
    if loose:
        notes.append(f"not read, for they lie beside the class folders: {some(loose)}; {BELONG}")
    return bool(loose)


def need_pictures(folder: Path, advice: str, owner: str = "") -> None:
    others: Counter[str] = Counter()
    if next(pictures(folder, others), None) is not None:
        return
    subject = f"{owner} is empty: '{shown(folder)}'" if owner else f"'{shown(folder)}'"
    found = f" What is there: {kinds(others)}." if others else ""
    raise DataError(
        f"{subject} holds no picture that can be read (.jpg, .png, .webp, .tif, …).{found}"
        f" {advice}."
    )
