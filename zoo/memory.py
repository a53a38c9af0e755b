"""How much a batch may hold, and going on with less where memory ends all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from zoo.errors import ran_out

MEMORY = 10**9
"""Bytes that the activations of a batch may take, unless somebody says otherwise."""

T = TypeVar("T")


def smaller(call: Callable[[int], T], size: int, least: int = 1) -> T:
    """Call with a batch size, with half of it where memory ends, and so on down to `least`.

    Where memory ends with that, too, what `call` raised comes through.
    """
    while True:
        try:
            return call(size)
        except Exception as error:
            if size <= least or not ran_out(error):
                raise
        size = max(least, size // 2)
