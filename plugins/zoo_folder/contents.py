"""What each file contains: SHA-256 digests, remembered as long as a file is surely the same."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from zoo.api import progress
from zoo_folder.layout import Layout
from zoo_folder.listing import pictures
from zoo_folder.owner import is_own
from zoo_folder.parallel import in_order

SLACK = 2_000_000_000
"""Nanoseconds that a file must have stood still before it is known again by its times.

One that changed when its digest was made may change once more without a trace: clocks of file
systems tick, some every other second. Git calls this racily clean.
"""

MARK, DIGEST = 16, 32
LARGEST = 2**30
"""Bytes of a file up to which it is taken for a picture, and read."""


class File(NamedTuple):
    """A picture file: its split and label, its name below the root, the mark of its state.

    The mark changes with name, size, times of content and of status, and inode; it is empty
    where there is no file behind the name. `settled` says that a later change would show in it.
    """

    split: str
    label: int
    name: str
    mark: bytes
    settled: bool


def scan(layout: Layout, others: Counter[str]) -> list[File]:
    """List the picture files of a layout; none is read. `others` counts the rest by suffix."""
    now = time.time_ns()
    prefix = len(str(layout.root).rstrip(os.sep)) + 1
    found = []
    for split, label, folder in layout.sources():
        for entry in pictures(folder, others):
            name = entry.path[prefix:]
            try:
                status = entry.stat()
            except OSError:
                found.append(File(split, label, name, b"", False))
                continue
            settled = max(status.st_mtime_ns, status.st_ctime_ns) < now - SLACK
            found.append(File(split, label, name, mark_of(name, status), settled))
    return found


def mark_of(name: str, status: os.stat_result) -> bytes:
    state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    text = f"{name}\0{state}".encode(errors="surrogateescape")
    return hashlib.blake2b(text, digest_size=MARK).digest()


def digests(root: Path, files: Sequence[File], memory: Path) -> list[bytes | str]:
    """Return the digest of each file, or why it cannot be read; most are remembered.

    `memory` is the file that holds them: marks and digests, one pair after the other, and at the
    end the SHA-256 of all that.
    """
    known = _recall(memory)
    unknown = [file for file in files if file.mark not in known]
    fresh = iter(_digest_all(root, unknown) if unknown else ())
    results = [known[file.mark] if file.mark in known else next(fresh) for file in files]
    if unknown:
        pairs = zip(files, results, strict=True)
        _remember(memory, {f.mark: r for f, r in pairs if f.settled and isinstance(r, bytes)})
    return results


def _digest_all(root: Path, files: Sequence[File]) -> list[bytes | str]:
    results: list[bytes | str] = []
    found = in_order(functools.partial(digest_of, root), files)
    with progress("looking at pictures", len(files), "pictures") as task, closing(found):
        for result in found:
            results.append(result)
            if task.due() or len(results) == len(files):
                task.update(len(results))
    return results


def digest_of(root: Path, file: File) -> bytes | str:
    try:
        with (root / file.name).open("rb") as opened:
            if os.fstat(opened.fileno()).st_size > LARGEST:
                return f"is larger than {LARGEST:,} bytes, which no picture is"
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _recall(memory: Path) -> dict[bytes, bytes]:
    """Read the pairs back; nothing of a file that is damaged, or somebody else's, is believed."""
    try:
        data = memory.read_bytes() if memory.is_file() and is_own(memory) else b""
    except OSError:
        return {}
    pairs, seal = data[:-DIGEST], data[-DIGEST:]
    if hashlib.sha256(pairs).digest() != seal:
        return {}
    step = MARK + DIGEST
    return {pairs[i : i + MARK]: pairs[i + MARK : i + step] for i in range(0, len(pairs), step)}


def _remember(memory: Path, known: dict[bytes, bytes]) -> None:
    """Write the memory, whole or not at all; without it all goes on, only slower."""
    partial = memory.with_name(f".{memory.name}.{os.getpid()}.{threading.get_ident()}")
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        for left in memory.parent.glob(f".{memory.name}.*"):
            if not _lives(left.name.split(".")[-2]):
                left.unlink(missing_ok=True)
        try:
            pairs = b"".join(mark + digest for mark, digest in known.items())
            partial.write_bytes(pairs + hashlib.sha256(pairs).digest())
            partial.replace(memory)
        finally:
            partial.unlink(missing_ok=True)


def _lives(pid: str) -> bool:
    """Say whether a process may be there; one of another host that is not only writes in vain."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:
        return True
    return True
