"""What is not ours is read within limits: strangers' files, JSON and tensors."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

T = TypeVar("T")

RECORD_LIMIT = 64 * 2**20
"""Bytes up to which a record is read: run.json, proof.json, model.json, a line of metrics."""
MODEL_LIMIT = 2**31
"""Bytes up to which a model file is read: protobuf, and with it ONNX, knows no larger message."""
TENSORS_LIMIT = 64 * 2**30
"""Bytes up to which a file of tensors is read."""
DEPTH = 24
"""How deep lists and objects may lie in each other: what zoo writes is nearly flat."""
WHOLE = 2**63 - 1
"""The largest integer that a tensor, a seed or a count can have."""
PIECE = 2**20


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
        try:
            data = _read(file, found.st_size, limit) if found.st_size <= limit else b""
        except MemoryError:
            raise OSError(errno.ENOMEM, "there is no memory for all of it", str(path)) from None
        if found.st_size > limit or len(data) > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes", str(path))
    return data


def _read(file: BinaryIO, size: int, limit: int) -> bytes:
    """Read a file that may grow meanwhile, up to a byte more than the limit."""
    data = file.read(size + 1)  # Python makes room for all that is asked for, whether it is there
    while size < len(data) <= limit and (more := file.read(PIECE)):
        data += more
    return data


def parse_json(data: bytes | str) -> Any:
    """Parse JSON as the standard has it: no NaN, no infinity, no nesting without end.

    Raises `ValueError` alone, with a message of one line.
    """
    try:
        return json.loads(data, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def plain(value: Any, depth: int = DEPTH) -> bool:
    """Say whether a JSON value is one that can be used: texts, finite numbers, shallow nesting."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, dict):
        return depth > 0 and all(plain(k) and plain(v, depth - 1) for k, v in value.items())
    if isinstance(value, list):
        return depth > 0 and all(plain(each, depth - 1) for each in value)
    if isinstance(value, int):
        return abs(value) <= WHOLE
    return value is None or (isinstance(value, float) and math.isfinite(value))


def parse_tensors(load: Callable[[bytes], T], data: bytes) -> T:
    """Load the bytes of a safetensors file, by one of its readers.

    Raises `ValueError` alone, with a message of one line: readers have an error of their own, and
    let through those of arrays that no memory has room for.
    """
    try:
        return load(data)
    except Exception as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(said.rstrip(".")) from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is too large a number")
    return value
