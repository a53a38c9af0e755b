"""The bytes of a file and their seal: a SHA-256 that the file carries of itself. Stdlib alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

from zoo.errors import ModelFileError, NoModelFile, did_you_mean
from zoo.export.protobuf import parts
from zoo.untrusted import MODEL_LIMIT, read_file

KEY = "zoo.sha256"
BLANK = b"0" * 64
METADATA, METADATA_KEY = 14, 1
"""The numbers that onnx.proto gives an entry of metadata in a model, and its key."""
# The metadata entry as protobuf writes it: the key, then 64 characters of value.
MARK = b"\x0a\x0a" + KEY.encode() + b"\x12\x40"


def seal(data: bytes) -> bytes:
    """Fill the seal's place in a file's bytes; raises `ValueError` where there is not just one."""
    start = _place(data)
    if start is None:
        raise ValueError("there is no single place for a seal")
    view = memoryview(data)  # a slice of bytes would be a copy, and weights are large
    return b"".join((view[:start], _digest(data, start), view[start + 64 :]))


def check_seal(data: bytes, path: object) -> None:
    """Hold a file's bytes against their seal; raises `ModelFileError`."""
    start = _place(data)
    if start is None:
        raise ModelFileError(
            f"'{path}' has no seal: it was not exported by zoo, or was cut or written anew since."
            " Type: zoo export RUN"
        )
    if data[start : start + 64] != _digest(data, start):
        raise ModelFileError(
            f"'{path}' was changed after it was exported: its bytes do not match its seal, {KEY}."
            " Type: zoo export RUN"
        )


def check_keys(data: bytes, path: object) -> None:
    """Refuse a file whose metadata have a key twice: readers differ in which of them they take."""
    keys: set[bytes] = set()
    try:
        for _, entry in parts(data, (0, len(data)), METADATA):
            for _, place in list(parts(data, entry, METADATA_KEY))[-1:]:
                key = data[slice(*place)]
                if key in keys:
                    twice = f"'{key.decode(errors='replace')}' is in them twice"
                    raise ModelFileError(
                        f"The metadata of '{path}' are damaged: {twice}. Type: zoo export RUN"
                    )
                keys.add(key)
    except ValueError as error:
        raise ModelFileError(f"'{path}' is damaged: it has {error}. Type: zoo export RUN") from None


def read_model(path: Path) -> bytes:
    """Read a model file's bytes; raises `NoModelFile` or `ModelFileError`."""
    try:
        data = read_file(path, MODEL_LIMIT)
    except FileNotFoundError:
        raise NoModelFile(_absent(path)) from None
    except IsADirectoryError:
        raise NoModelFile(f"'{path}' is a folder; name the .onnx file in it.") from None
    except OSError as error:
        raise ModelFileError(f"'{path}' cannot be read: {error.strerror or error}.") from None
    if not data:
        raise ModelFileError(f"'{path}' is empty, 0 bytes: not an ONNX file.")
    return data


def _absent(path: Path) -> str:
    if not path.suffix:
        return f"There is no file '{path}'. Of a run name the file: RUN/model.onnx"
    others = [other.name for other in path.parent.glob("*.onnx")]
    return f"There is no file '{path}'.{did_you_mean(path.name, others)} Type: zoo export RUN"


def hint(data: bytes) -> str:
    """Say what a file that is not ONNX looks like."""
    return " It is a zip archive, as a PyTorch file is." if data[:2] == b"PK" else ""


def _place(data: bytes) -> int | None:
    found = data.find(MARK)
    return found + len(MARK) if found >= 0 and data.count(MARK) == 1 else None


def _digest(data: bytes, start: int) -> bytes:
    """Take the SHA-256 with the place of the seal blank."""
    view, digest = memoryview(data), hashlib.sha256()
    for part in (view[:start], BLANK, view[start + 64 :]):
        digest.update(part)
    return digest.hexdigest().encode()
