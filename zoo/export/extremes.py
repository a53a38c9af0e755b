"""Inputs at the ends of what the input's type holds: a test split seldom has one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from zoo.api import ImageInput

Array = np.ndarray[Any, Any]

SEED = 0
NEAR = 8
"""Levels that noise near an end takes: 0 to 7, or 248 to 255."""


def extremes(input: ImageInput) -> Array:
    """Return the extreme inputs, uint8 N x C x H x W, in the order of `NAMES`; always the same."""
    return np.stack([make(input.shape, np.random.default_rng(SEED)) for make in _MAKERS.values()])


def _filled(level: int) -> Callable[[tuple[int, ...], np.random.Generator], Array]:
    return lambda shape, rng: np.full(shape, level, dtype=np.uint8)


def _point(level: int) -> Callable[[tuple[int, ...], np.random.Generator], Array]:
    """One point of a level, off the centre, on a ground of the other end."""

    def make(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        made = np.full(shape, 255 - level, dtype=np.uint8)
        made[:, shape[1] // 3, shape[2] // 3] = level
        return made

    return make


def _checkerboard(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    rows, columns = np.indices(shape[1:])
    board = np.where((rows + columns) % 2, 255, 0).astype(np.uint8)
    return np.broadcast_to(board, shape).copy()


def _noise(low: int, high: int) -> Callable[[tuple[int, ...], np.random.Generator], Array]:
    return lambda shape, rng: rng.integers(low, high + 1, shape, dtype=np.uint8)


def _both_ends(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    return np.where(rng.random(shape) < 0.5, 0, 255).astype(np.uint8)


_MAKERS: dict[str, Callable[[tuple[int, ...], np.random.Generator], Array]] = {
    "all zero": _filled(0),
    "all largest": _filled(255),
    "one bright point": _point(255),
    "one dark point": _point(0),
    "a checkerboard": _checkerboard,
    "noise near zero": _noise(0, NEAR - 1),
    "noise near the largest": _noise(256 - NEAR, 255),
    "noise of both ends": _both_ends,
}
NAMES = tuple(_MAKERS)
