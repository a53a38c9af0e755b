"""What examples are known again by: 16 bytes of BLAKE2b each, and one SHA-256 of a whole split.

Digests are of the bytes as a data set stores them, without the label: where equal pictures carry
two labels they are the same example. Stored at another size a picture is other bytes; where the
data set says what it is made of, as a file's SHA-256, it is known by a digest of that as well.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.progress import Silent, current

Array = np.ndarray[Any, Any]

SIZE = 16
"""Bytes of an example's digest: among a billion examples two others collide once in 10^20."""

PIECE = 16 << 20
"""Bytes that are read at a time: a split may be mapped into memory, and larger than that."""

LONG = 1 << 30
"""Bytes of a split that take long enough for progress to be shown."""


@dataclasses.dataclass(frozen=True)
class Digested:
    """A whole split: each example's digest, uint8 N x 16, in its order, and the split's SHA-256.

    `names` are the data set's own for its examples, and `contents` the digests, uint8 N x 16, of
    what it says that they are made of; None where it has none.
    """

    examples: Array
    sha256: str
    names: Sequence[str] | None = None
    contents: Array | None = None

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def every(self) -> list[Array]:
        """All digests that each example is known by: one or two arrays."""
        return [self.examples] if self.contents is None else [self.examples, self.contents]

    def among(self, others: Array) -> Array:
        """Say of each example whether others have a digest of it: bool N, of uint8 M x 16."""
        found: Array = np.logical_or.reduce([found_in(each, others) for each in self.every])
        return found


def digest_split(inputs: Tensor, labels: Tensor | None) -> Digested:
    """Digest a split in one pass: uint8, N first, and int64 N.

    The SHA-256 is of the inputs' bytes, then of the labels as little-endian int64, if any.
    """
    whole = hashlib.sha256()
    each: list[bytes] = []
    size = max(1, inputs[:1].numel())
    count = max(1, PIECE // size)
    shown = current() if inputs.numel() > LONG else Silent()
    with shown.task("digesting examples", len(inputs), "examples") as task:
        for start in range(0, len(inputs), count):
            piece = inputs[start : start + count].contiguous().numpy().reshape(-1).data
            whole.update(piece)
            each += [
                hashlib.blake2b(piece[at : at + size], digest_size=SIZE).digest()
                for at in range(0, len(piece), size)
            ]
            if task.due():
                task.update(len(each))
    if labels is not None:
        whole.update(labels.contiguous().numpy().astype("<i8", copy=False).data)
    digests = np.frombuffer(b"".join(each), np.uint8).reshape(-1, SIZE)
    return Digested(digests, whole.hexdigest())


def digest_contents(contents: Tensor) -> Array:
    """Digest what each example is made of, uint8 N x bytes; never equal to a digest of pixels."""
    digests = [
        hashlib.blake2b(row.tobytes(), digest_size=SIZE, person=b"content").digest()
        for row in contents.contiguous().numpy()
    ]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, SIZE)


def none() -> Array:
    """Return the digests of no example."""
    return np.empty((0, SIZE), np.uint8)


def found_in(digests: Array, others: Array) -> Array:
    """Say of each digest whether it is among others: bool N, of uint8 N x 16 and M x 16."""
    found: Array = np.isin(_as_one(digests), _as_one(others))
    return found


def distinct(*several: Array) -> Array:
    """Return the digests of several sets, each once and sorted."""
    every = np.concatenate([none(), *several])
    return np.unique(_as_one(every)).view(np.uint8).reshape(-1, SIZE)


def _as_one(digests: Array) -> Array:
    """View each row of 16 bytes as one value that can be sorted and compared."""
    return np.ascontiguousarray(digests).view(f"V{SIZE}").reshape(-1)


def is_digests(array: Array) -> bool:
    """Say whether an array is one of digests: uint8 N x 16."""
    return array.dtype == np.uint8 and array.ndim == 2 and array.shape[1] == SIZE


def usable(labels: Any, count: int) -> Tensor | None:
    """Return labels that can be digested; pretraining needs none, and nobody has checked them."""
    sound = isinstance(labels, Tensor) and labels.shape == (count,) and labels.dtype == torch.int64
    return labels if sound else None
