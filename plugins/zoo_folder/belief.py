"""Which cache may be believed: one of this user's that is, byte for byte, what was decoded."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from zoo.api import ImageInput, progress
from zoo_folder.arrange import Picture, Plan
from zoo_folder.cache import (
    DIGESTS,
    INDEX,
    PIXELS,
    SPLITS,
    Cache,
    Index,
    count_in,
    mapped,
)
from zoo_folder.contents import DIGEST
from zoo_folder.decode import Row, in_splits
from zoo_folder.owner import is_own

LONG = 1 << 30
"""Bytes that take long enough to be digested for progress to be shown."""
PIECE = 64 << 20

_believed: set[tuple[object, ...]] = set()
"""States of files that this process has held against their digests: a set has three splits."""


def opened(folder: Path, input: ImageInput, plan: Plan | None = None) -> Cache | str:
    """Return the cache in a folder, or why there is none that may be believed; raises OSError.

    Whoever could write there may have changed it: all of it is held against the digests in its
    index, and the index against the plan that it was made from, if that is known.
    """
    try:
        files = [folder / name for name in (PIXELS, DIGESTS, INDEX)]
        if not all(is_own(path) for path in (folder, *files)):
            return "they belong to another user"
        if any(path.exists() and not path.is_file() for path in files):
            return "they are no files"
        index = Index(**json.loads(files[2].read_bytes()))
        if not index.sound():
            return "their index is damaged"
        rows = sum(index.count(split) for split in SPLITS)
        contents = files[1].read_bytes()
        pixels = mapped(files[0])
        if len(pixels) != rows * math.prod(input.shape) or len(contents) != rows * DIGEST:
            return "they are damaged: rows are missing"
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (ValueError, TypeError, AttributeError, RecursionError):
        return "their index is damaged"
    cache = Cache(index, pixels.view(rows, *input.shape), contents, folder)
    state = (folder, plan is not None, *(_state(path) for path in files))
    if state not in _believed:
        digests = sha256_of(pixels), hashlib.sha256(contents).hexdigest()
        if digests != (index.pixels, index.digests):
            return "their SHA-256 does not match"
        if plan is not None and not _follows(cache, plan):
            return "their index is not that of these pictures"
        _believed.add(state)
    return cache


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _follows(cache: Cache, plan: Plan) -> bool:
    """Say whether rows, labels and splits are those that decoding the plan anew would come to."""
    index = cache.index
    again = Index.empty(index.path, index.settings)
    contents = []
    for split, picture, row in in_splits(plan, Recalled(index.unread)):
        if not isinstance(row, str) and picture.digest.hex() not in index.alike:
            count_in(again.rows[split], picture.label)
            contents.append(picture.digest)
    return again.rows == index.rows and b"".join(contents) == cache.contents


class Recalled:
    """What is known of pictures without reading them: which of them cannot be read."""

    def __init__(self, unread: Mapping[str, str]) -> None:
        self._unread = unread

    def rows(self, pictures: Sequence[Picture]) -> Generator[tuple[Picture, Row]]:
        for picture in pictures:
            yield picture, self._unread.get(picture.digest.hex(), b"")


def sha256_of(pixels: Tensor) -> str:
    """Digest rows that may be larger than memory; shown where it takes long."""
    digest = hashlib.sha256()
    if len(pixels) <= LONG:
        digest.update(pixels.numpy().data)
        return digest.hexdigest()
    with progress("checking decoded pictures", len(pixels), "bytes") as task:
        for start in range(0, len(pixels), PIECE):
            digest.update(pixels[start : start + PIECE].numpy().data)
            if task.due():
                task.update(start + PIECE)
    return digest.hexdigest()
