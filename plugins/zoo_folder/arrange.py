"""Which picture is in which split: each content once, no test picture anywhere else."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from zoo.api import DataError
from zoo_folder.contents import File
from zoo_folder.layout import Layout
from zoo_folder.listing import shown, some

SHARE = 5
"""Without `test/`, one of so many pictures of each class is for testing."""


class Picture(NamedTuple):
    """A content that is read once, under the first name that it has."""

    label: int
    digest: bytes
    file: File


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Pictures by label and digest, in an order that names and file systems have no part in.

    Of each label in `candidates` the first `quota` that can be read are the test split; the rest
    trains, beside `train`.
    """

    candidates: list[Picture]
    quota: Mapping[int, int]
    train: list[Picture]
    unlabelled: list[Picture]
    notes: list[str]

    def pictures(self) -> Iterator[Picture]:
        return itertools.chain(self.candidates, self.train, self.unlabelled)

    def __len__(self) -> int:
        return len(self.candidates) + len(self.train) + len(self.unlabelled)


def arrange(layout: Layout, files: Sequence[File], digests: Sequence[bytes | str]) -> Plan:
    """Decide by content alone; raises `DataError` where a class has too few pictures."""
    splits: dict[str, list[Picture]] = {"test": [], "train": [], "unlabelled": []}
    for file, digest in zip(files, digests, strict=True):
        if isinstance(digest, bytes):
            splits[file.split].append(Picture(file.label, digest, file))
    notes: list[str] = []
    taken = _disputed([*splits["test"], *splits["train"]], notes)
    labelled = "the class folders" if layout.test is None else "train/"
    test = _once(splits["test"], "test/", taken, notes)
    train = _once(splits["train"], labelled if layout.classes else "the folder", taken, notes)
    unlabelled = _once(splits["unlabelled"], "unlabelled/", taken, notes)
    if layout.test is None and layout.classes:
        counts = _at_least_two(train, layout)
        quota = {label: max(1, round(count / SHARE)) for label, count in counts.items()}
        test, train = train, []
    else:
        quota = dict(Counter(picture.label for picture in test))
    return Plan(candidates=test, quota=quota, train=train, unlabelled=unlabelled, notes=notes)


def _disputed(pictures: Sequence[Picture], notes: list[str]) -> dict[bytes, str]:
    """Return the contents that stand in two classes or more: no label is true of them."""
    labels: dict[bytes, int] = {}
    disputed = {p.digest for p in pictures if labels.setdefault(p.digest, p.label) != p.label}
    if disputed:
        names = [p.file.name for p in pictures if p.digest in disputed]
        notes.append(f"left out, for the same picture stands in two classes: {some(names, 4)}")
    return dict.fromkeys(disputed, "")


def _once(
    pictures: Sequence[Picture], where: str, taken: dict[bytes, str], notes: list[str]
) -> list[Picture]:
    """Keep each content once that is in no split before, and note the copies."""
    kept: list[Picture] = []
    copies: dict[str, list[str]] = {}
    for picture in pictures:
        if picture.digest in taken:
            copies.setdefault(taken[picture.digest], []).append(picture.file.name)
        else:
            taken[picture.digest] = where
            kept.append(picture)
    for first, names in copies.items():
        if first == where:
            notes.append(f"copies in {where} count once: {some(names)}")
        elif first:
            notes.append(f"left out of {where}, for they are in {first} too: {some(names)}")
    return sorted(kept, key=lambda picture: picture[:2])


def _at_least_two(pictures: Sequence[Picture], layout: Layout) -> Counter[int]:
    counts = Counter(picture.label for picture in pictures)
    for label, name in enumerate(layout.classes):
        if counts[label] < 2:
            raise DataError(
                f"Class '{shown(name)}' has too few pictures that can be used, {counts[label]}:"
                " without test/ it needs two, one to train on and one to test on. Add pictures to"
                " it."
            )
    return counts
