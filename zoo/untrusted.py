"""What is not ours: strangers' files are read within limits, and strangers' texts shown as text."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import unicodedata
from pathlib import Path
from typing import Any

RECORD_LIMIT = 64 * 2**20
"""Bytes up to which a record is read: run.json, proof.json, model.json, a line of metrics."""
HARMLESS = "\u00ad\u200c\u200d"
"""Format characters that words and emoji are written with; they move nothing on a terminal."""


def read_file(path: Path, limit: int = RECORD_LIMIT) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises `OSError`: for one that is not there or may not be read, and for a folder, a pipe, a
    device or a larger file as well, with a `strerror` that says so. Never waits for a writer.
    """
    way = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, way)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
        # Python sets aside as much as it is asked for, so not the whole limit.
        data = file.read(found.st_size + 1) if found.st_size <= limit else b""
        if len(data) > found.st_size:  # it grows, or is one of those that tell no size
            data += file.read(limit + 1 - len(data))
        if found.st_size > limit or len(data) > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes", str(path))
    return data


def parse_json(data: bytes | str) -> Any:
    """Parse JSON as the standard has it: no NaN, no infinity, no nesting without end.

    Raises `ValueError` alone, with a message of one line.
    """
    try:
        return json.loads(data, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def shown(text: object, *, lines: bool = False) -> str:
    """Return a text as it may reach a terminal: what is no letter of a line stands as its escape.

    Control characters, line breaks, changes of the direction of writing and bytes that are no text
    come out as `\\x1b`, `\\n`, `\\u202e`, `\\udcff`. `lines` leaves line breaks and tabs.
    """
    kept = "\n\t" if lines else ""
    return "".join(
        letter if letter in kept or not _moves(letter) else _escaped(letter) for letter in str(text)
    )


def shown_lines(text: object) -> str:
    """Return a text of several lines as `shown` does; each line but the first is indented.

    So that no name with a line break in it looks like a line of our own.
    """
    first, *rest = shown(text, lines=True).split("\n")
    return "\n".join([first, *(each if each[:1] in ("", " ") else f"  {each}" for each in rest)])


def shown_json(text: str) -> str:
    """Return JSON that is safe on a terminal, of the same value: such letters stand as `\\u202e`.

    `text` is JSON with letters of any kind in its strings, and line breaks between its values.
    """
    return "".join(
        letter if letter == "\n" or not _moves(letter) else json.dumps(letter)[1:-1]
        for letter in text
    )


def _moves(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in HARMLESS


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is too large a number")
    return value
