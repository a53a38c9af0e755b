"""Decoded pictures on disk: one file of rows, named by what is in it, mapped into memory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import mmap
import os
import sys
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from zoo.api import ImageInput
from zoo_folder.arrange import Plan

FORMAT = 1
"""Of the files below; raised too when the rule by which zoo reads a picture changes."""

PIXELS, DIGESTS, INDEX = "pixels.u8", "digests.sha256", "index.json"

# Where Python does not know it, Linux has this number for it on every common processor.
NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """What the rows are, `index.json`.

    `rows` says of each split, in the order of the rows, how many of each label follow each other.
    `unread` holds why contents could not be read, `alike` the earlier split that has the same
    pixels; both by SHA-256.
    """

    path: str
    settings: str
    rows: dict[str, list[list[int]]]
    unread: dict[str, str]
    alike: dict[str, str]

    @classmethod
    def empty(cls, path: str, settings: str) -> Index:
        splits = ("test", "train", "unlabelled")  # in the order of the rows
        return cls(path=path, settings=settings, rows={s: [] for s in splits}, unread={}, alike={})

    def count(self, split: str) -> int:
        return sum(count for _, count in self.rows[split])

    def labels(self, split: str) -> Tensor:
        runs = torch.tensor(self.rows[split], dtype=torch.int64).view(-1, 2)
        return torch.repeat_interleave(runs[:, 0], runs[:, 1])


@dataclasses.dataclass(frozen=True)
class Cache:
    """Rows of pixels, uint8 N x C x H x W, mapped from their file, and what they are."""

    index: Index
    pixels: Tensor

    def split(self, name: str) -> Tensor:
        """Return a view of one split's rows: no copy."""
        start = 0
        for split in self.index.rows:
            stop = start + self.index.count(split)
            if split == name:
                return self.pixels[start:stop]
            start = stop
        raise KeyError(name)


def slot_of(root: Path, path: str, input: ImageInput) -> Path:
    """Return where the caches of one folder at one size lie, below the folder of data sets."""
    told = f"{Path(path).name[:40]}-{input.height}x{input.width}x{input.channels}"
    digest = hashlib.sha256(os.fsencode(f"{path}\0{input.shape}")).hexdigest()
    return root / "folder" / f"{told}-{digest[:12]}"


def settings_of(input: ImageInput) -> str:
    """Tell everything that decides what a picture's row is, but for the picture."""
    versions = {name: metadata.version(name) for name in ("plugzoo", "pillow")}
    return json.dumps({"format": FORMAT, "shape": input.shape, **versions})


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


def opened(folder: Path, input: ImageInput) -> Cache | None:
    """Return the cache in a folder, or None where there is no whole one; raises OSError."""
    try:
        index = Index(**json.loads((folder / INDEX).read_bytes()))
        rows = sum(index.count(split) for split in index.rows)
        if (folder / PIXELS).stat().st_size != rows * math.prod(input.shape):
            return None
        return Cache(index, mapped(folder / PIXELS).view(rows, *input.shape))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


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
