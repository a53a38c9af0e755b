"""One JSON line a finished cell: appended by one process at a time, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from filelock import FileLock

from zoo.untrusted import parse_json, plain, read_file

NAME = "cells.jsonl"


def append(folder: Path, line: dict[str, Any]) -> None:
    """Add a line; what a killed process left torn before it is closed first."""
    text = json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n"
    with FileLock(folder / ".lock"), (folder / NAME).open("ab+") as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the cells by their key; of one that was written twice the first, torn lines left out.

    A cell has a key, a method, labels, a seed and an accuracy, or it is none.
    """
    cells: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in read_file(folder / NAME).split(b"\n"):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                cell = parse_json(line)
                sound = plain(cell) and isinstance(cell["accuracy"], float)
                if sound and cell["method"] and "seed" in cell:
                    cells.setdefault(cell["key"], cell)
    return cells
