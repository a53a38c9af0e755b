"""Decoded pictures on disk: one file of rows, named by what is in it, mapped into memory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
import os
import re
import sys
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from zoo.api import ImageInput
from zoo_folder.arrange import Plan
from zoo_folder.contents import DIGEST
from zoo_folder.layout import UNLABELLED

FORMAT = 3
"""Of the files below; raised too when the rule by which zoo reads a picture changes."""

PIXELS, DIGESTS, INDEX = "pixels.u8", "digests.sha256", "index.json"
SPLITS = ("test", "train", "unlabelled")
"""In the order of the rows."""

# Where Python does not know it, Linux has this number for it on every common processor.
NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """What the rows are, `index.json`.

    `rows` says of each split, in the order of the rows, how many of each label follow each other.
    `unread` holds why contents could not be read, `alike` the earlier split that has the same
    pixels; both by SHA-256. `near` pairs contents that are tested on with others that look nearly
    the same. `pixels` and `digests` are the SHA-256 of the files beside it.
    """

    path: str
    settings: str
    rows: dict[str, list[list[int]]]
    unread: dict[str, str]
    alike: dict[str, str]
    near: list[list[str]]
    pixels: str = ""
    digests: str = ""

    @classmethod
    def empty(cls, path: str, settings: str) -> Index:
        rows: dict[str, list[list[int]]] = {split: [] for split in SPLITS}
        return cls(path=path, settings=settings, rows=rows, unread={}, alike={}, near=[])

    def sound(self) -> bool:
        """Say whether it is of the form that was written; anybody may have changed the file."""
        runs = [run for split in self.rows.values() for run in split]
        return (
            tuple(self.rows) == SPLITS
            and all([type(value) for value in run] == [int, int] for run in runs)
            and all(label >= UNLABELLED and count > 0 for label, count in runs)
            and all(isinstance(why, str) for why in self.unread.values())
            and set(self.alike.values()) <= set(SPLITS)
            and all(len(pair) == 2 and all(map(_is_digest, pair)) for pair in self.near)
            and all(map(_is_digest, (*self.unread, *self.alike, self.pixels, self.digests)))
        )

    def count(self, split: str) -> int:
        return sum(count for _, count in self.rows[split])

    def labels(self, split: str) -> Tensor:
        runs = torch.tensor(self.rows[split], dtype=torch.int64).view(-1, 2)
        return torch.repeat_interleave(runs[:, 0], runs[:, 1])


@dataclasses.dataclass(frozen=True)
class Cache:
    """Rows of pixels, uint8 N x C x H x W, mapped from their file, and what they are.

    `contents` are the SHA-256 of the rows' files, 32 bytes each; `folder` is where all that lies.
    """

    index: Index
    pixels: Tensor
    contents: bytes
    folder: Path

    def split(self, name: str) -> Tensor:
        """Return a view of one split's rows: no copy."""
        return self.pixels[self._rows(name)]

    def contents_of(self, name: str) -> bytes:
        rows = self._rows(name)
        return self.contents[rows.start * DIGEST : rows.stop * DIGEST]

    def _rows(self, name: str) -> slice:
        start = sum(self.index.count(split) for split in SPLITS[: SPLITS.index(name)])
        return slice(start, start + self.index.count(name))


def slot_of(root: Path, path: str, input: ImageInput) -> Path:
    """Return where the caches of one folder at one size lie, below the folder of data sets."""
    told = f"{Path(path).name[:40]}-{input.height}x{input.width}x{input.channels}"
    digest = hashlib.sha256(os.fsencode(f"{path}\0{input.shape}")).hexdigest()
    return root / "folder" / f"{told}-{digest[:12]}"


def settings_of(input: ImageInput) -> str:
    """Tell everything that decides what a picture's row is, but for the picture."""
    versions = {name: metadata.version(name) for name in ("plugzoo", "pillow")}
    # What was too large may be read with another limit.
    limit = os.environ.get("ZOO_MAX_PIXELS", "")
    return json.dumps({"format": FORMAT, "shape": input.shape, "limit": limit, **versions})


def key_of(settings: str, plan: Plan) -> str:
    """Digest the settings and the contents of each split: another content is another key."""
    digest = hashlib.sha256(settings.encode())
    quota = json.dumps(sorted(plan.quota.items()))
    for name, pictures in (
        (quota, plan.candidates),
        ("train", plan.train),
        ("unlabelled", plan.unlabelled),
    ):
        digest.update(f"\n{name} {len(pictures)}\n".encode())
        for picture in pictures:
            digest.update(picture.label.to_bytes(4, "little", signed=True) + picture.digest)
    return digest.hexdigest()[:32]


def count_in(runs: list[list[int]], label: int) -> None:
    """Count one more row of a label, behind those that are there."""
    if runs and runs[-1][0] == label:
        runs[-1][1] += 1
    else:
        runs.append([label, 1])


def _is_digest(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text) is not None


def mapped(path: Path) -> Tensor:
    """Map a file into memory as uint8; what is written to the tensor does not reach the file."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return torch.empty(0, dtype=torch.uint8)
        if sys.platform == "win32":
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        else:
            # Nothing is set aside for copies that nobody writes: it may be larger than memory.
            flags = mmap.MAP_PRIVATE | NORESERVE
            data = mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
    return torch.frombuffer(data, dtype=torch.uint8)
