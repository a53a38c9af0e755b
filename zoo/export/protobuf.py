"""Where the parts of a protobuf message lie, read without a library and without its tensors."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, EIGHT, SIZED, FOUR = 0, 1, 2, 5
"""The wire types that ONNX is written with."""

Part = tuple[int, int]
"""Where a part of the bytes begins, and where it ends."""


def parts(data: bytes, message: Part, *numbers: int) -> Iterator[tuple[int, Part]]:
    """Yield the numbers of the fields of a message that have one of these, and where they lie.

    Those of a length alone: texts, bytes and messages. Raises `ValueError` at what is torn, and at
    a wire type that ONNX has no use for, behind which a reader may find something else.
    """
    at, end = message
    while at < end:
        tag, at = _varint(data, at, end)
        kind, number = tag & 7, tag >> 3
        size = {EIGHT: 8, FOUR: 4}.get(kind, 0)
        if kind in (VARINT, SIZED):
            value, at = _varint(data, at, end)
            size = value if kind == SIZED else 0
        elif not size:
            raise ValueError(f"a field of wire type {kind}")
        if at + size > end:
            raise ValueError("a field that is longer than its message")
        if kind == SIZED and number in numbers:
            yield number, (at, at + size)
        at += size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 0x80:
            return value & 2**64 - 1, at
    raise ValueError("a number that does not end")
