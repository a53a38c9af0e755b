"""Make a cache: decoded under a temporary name, then renamed; by one process at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from zoo.api import DataUnavailable, ImageInput, note, progress
from zoo_folder.arrange import Plan
from zoo_folder.belief import opened, sha256_of
from zoo_folder.cache import (
    DIGESTS,
    INDEX,
    PIXELS,
    Cache,
    Index,
    count_in,
    key_of,
    mapped,
    settings_of,
)
from zoo_folder.contents import DIGEST
from zoo_folder.decode import Reader, Row, in_splits, quiet
from zoo_folder.listing import shown
from zoo_folder.near import near_pairs

PARTIAL = ".partial-"


def decoded(plan: Plan, root: Path, slot: Path, input: ImageInput) -> Cache:
    """Return the cache of a plan's contents; they are read if nobody has done so before.

    Raises `DataUnavailable` where it cannot be written; nothing is left of it then.
    """
    settings = settings_of(input)
    folder = slot / key_of(settings, plan)
    size = len(plan) * math.prod(input.shape)
    try:
        cache = opened(folder, input, plan)
        if isinstance(cache, str):
            slot.mkdir(parents=True, exist_ok=True)
            with _alone(slot):
                cache = opened(folder, input, plan)
                if isinstance(cache, str):
                    if cache:
                        note(f"{shown(root.name)}: decoded pictures are made again, for {cache}")
                    _clear(slot, PARTIAL)  # of a process that was killed
                    if shutil.disk_usage(slot).free < size:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    reader = Reader(root, input, _earlier(folder, settings, input))
                    _make(folder, plan, reader, Index.empty(str(root), settings), input)
                    cache = opened(folder, input, plan)
        else:
            _tidy(slot, folder)
    except OSError as error:
        raise DataUnavailable(
            f"The decoded pictures of '{shown(root)}' cannot be kept in '{shown(slot)}':"
            f" {error.strerror or error}. They take {size / 1e6:,.1f} MB. Make room there, name"
            " another folder with --data-root or ZOO_DATA, or choose a smaller -d size=N."
        ) from error
    if isinstance(cache, str):
        raise DataUnavailable(
            f"'{shown(folder)}' was changed meanwhile. Type the same command again."
        )
    return cache


def _tidy(slot: Path, folder: Path) -> None:
    """Clear what a process that was killed once its cache was there has left beside it."""
    if any(path.is_dir() and path != folder for path in slot.iterdir()):
        with contextlib.suppress(OSError), FileLock(slot / ".lock", timeout=0):
            _clear(slot, "", but=folder)


def _make(folder: Path, plan: Plan, reader: Reader, index: Index, input: ImageInput) -> None:
    """Write a cache apart, move it into place, and remove those that it replaces."""
    slot = folder.parent
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=slot) as partial:
        written = Path(partial) / folder.name
        written.mkdir()
        _write(written, plan, reader, index)
        _seal(written, index, input)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        written.rename(folder)
    _clear(slot, "", but=folder)


def _write(folder: Path, plan: Plan, reader: Reader, index: Index) -> None:
    """Decode a plan into the files of a cache, and write into the index what they hold."""
    looks: dict[bytes, str] = {}
    with (
        (folder / PIXELS).open("wb") as pixels,
        (folder / DIGESTS).open("wb") as digests,
        progress("decoding pictures", len(plan), "pictures") as task,
        quiet(),
        contextlib.closing(in_splits(plan, reader)) as found,
    ):
        for done, (split, picture, row) in enumerate(found, start=1):
            if isinstance(row, str):
                index.unread[picture.digest.hex()] = row
            else:
                look = hashlib.blake2b(row, digest_size=16).digest()
                if looks.setdefault(look, split) != split:
                    index.alike[picture.digest.hex()] = looks[look]
                else:
                    pixels.write(row)
                    digests.write(picture.digest)
                    count_in(index.rows[split], picture.label)
            if task.due() or done == len(plan):
                task.update(done)
        pixels.flush()
        os.fsync(pixels.fileno())


def _seal(folder: Path, index: Index, input: ImageInput) -> None:
    """Write what the rows are: their digests, and which of them are nearly the same."""
    pixels, contents = mapped(folder / PIXELS), (folder / DIGESTS).read_bytes()
    rows = pixels.view(-1, *input.shape)
    tested = index.count("test")
    names = [contents[at : at + DIGEST].hex() for at in range(0, len(contents), DIGEST)]
    pairs = near_pairs(rows[:tested], rows[tested:])
    sealed = dataclasses.replace(
        index,
        near=[[names[test], names[tested + other]] for test, other in pairs],
        pixels=sha256_of(pixels),
        digests=hashlib.sha256(contents).hexdigest(),
    )
    # The index is what makes the folder a cache: it comes last.
    (folder / INDEX).write_text(json.dumps(dataclasses.asdict(sealed)))


def _earlier(made: Path, settings: str, input: ImageInput) -> Callable[[bytes], Row | None]:
    """Return what finds a content's row in the cache that `made` replaces, of other pictures."""
    for folder in sorted(path for path in made.parent.iterdir() if path != made):
        with contextlib.suppress(OSError):
            cache = opened(folder, input)
            if isinstance(cache, str) or cache.index.settings != settings:
                continue
            known = cache.contents
            starts = range(0, len(known), DIGEST)
            places = {known[start : start + DIGEST]: start // DIGEST for start in starts}
            return functools.partial(_found, cache, places)
    return lambda digest: None


def _found(cache: Cache, places: dict[bytes, int], digest: bytes) -> Row | None:
    if digest in places:
        return cache.pixels[places[digest]].numpy().tobytes()
    return cache.index.unread.get(digest.hex())


def _clear(slot: Path, prefix: str, but: Path | None = None) -> None:
    """Remove caches; whoever has one of them mapped keeps it until the end."""
    for folder in slot.iterdir():
        if folder.is_dir() and folder.name.startswith(prefix) and folder != but:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _alone(slot: Path) -> Iterator[None]:
    lock = FileLock(slot / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        note("another process is decoding the same pictures: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
