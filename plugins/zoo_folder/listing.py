"""Which files below a folder are pictures, and how names are shown."""

from __future__ import annotations

import functools
import os
import re
import shlex
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from zoo.api import DataError

IGNORED = frozenset(
    {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
"""Folders that systems leave behind; hidden ones, with a dot before their name, are ignored too."""

# Pillow has no decoder of its own for these, or one that may take what is none of its business.
NOT_READ = frozenset({"BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})


@functools.cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of the picture files that are read, in lower case: `.png`."""
    from PIL import Image

    known = Image.registered_extensions()
    read = {suffix for suffix, name in known.items() if name in Image.OPEN}
    without = {suffix for suffix, name in known.items() if name in NOT_READ}
    return frozenset(read | {".mpo"}) - without  # a camera's pair of JPEGs, opened as a JPEG


def suffix_of(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def children(folder: Path | str) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, by name, but for what is hidden; raises `DataError`."""
    try:
        with os.scandir(folder) as entries:
            seen = [e for e in entries if not e.name.startswith(".") and e.name not in IGNORED]
    except OSError as error:
        raise DataError(
            f"The folder '{shown(folder)}' cannot be read: {error.strerror}."
            f" Type: ls -l {typed(folder)}"
        ) from error
    return sorted(seen, key=lambda entry: entry.name)


def kind_of(entry: os.DirEntry[str]) -> Literal["folder", "file", "broken", "other"]:
    """Say what an entry is, links followed; `broken` is one that leads nowhere."""
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "broken"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def folders(folder: Path | str) -> list[Path]:
    return [Path(entry.path) for entry in children(folder) if kind_of(entry) == "folder"]


def pictures(folder: Path | str, others: Counter[str] | None = None) -> Iterator[os.DirEntry[str]]:
    """Yield the picture files below a folder, in order; `others` counts the rest by suffix.

    Links are followed, and each folder is entered once, under the first name that leads there. A
    link that leads nowhere counts as a picture by its name: it is told as one that cannot be read.
    """
    entered = {_identity(Path(folder).stat())}
    left = [iter(children(folder))]  # no recursion: folders may lie in each other without end
    while left:
        entry = next(left[-1], None)
        if entry is None:
            left.pop()
            continue
        kind = kind_of(entry)
        suffix = suffix_of(entry.name)
        if kind == "folder":
            if (here := _identity(entry.stat())) not in entered:
                entered.add(here)
                left.append(iter(children(entry.path)))
        elif kind != "other" and suffix in suffixes():
            yield entry
        elif others is not None:
            others[suffix or entry.name] += 1


def _identity(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def holds_pictures(folder: Path | str) -> bool:
    return next(pictures(folder), None) is not None


def kinds(others: Counter[str]) -> str:
    """Tell other files by suffix: `.txt (2), .heic`."""
    most = sorted(others.items(), key=lambda each: (-each[1], each[0]))[:8]
    told = [f"{name} ({count:,})" if count > 1 else name for name, count in most]
    return ", ".join(shown(each) for each in told) + (", …" if len(others) > 8 else "")


def some(names: Iterable[str], most: int = 3) -> str:
    """Tell the first few names of many."""
    listed = sorted(names)
    told = ", ".join(f"'{shown(name)}'" for name in listed[:most])
    return told + (f" and {len(listed) - most:,} more" if len(listed) > most else "")


def shown(name: object) -> str:
    """Return a name as it stands in a message, on one line: what cannot be printed is escaped."""
    return "".join(
        letter
        if letter.isprintable()
        else letter.encode("unicode_escape", "surrogatepass").decode("ascii")
        for letter in str(name)
    )


def typed(path: object) -> str:
    """Return a path as it is typed into a shell; one that cannot be printed as bash and zsh do."""
    text = str(path)
    if text.isprintable():
        return shlex.quote(text)
    letters = (
        re.sub(r"([\\'])", r"\\\1", letter)
        if letter.isprintable()
        else "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))
        for letter in text
    )
    return f"$'{''.join(letters)}'"
