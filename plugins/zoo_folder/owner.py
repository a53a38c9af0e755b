"""Whose a file is: what somebody else may have put into a shared data folder is not used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from zoo.api import DataError
from zoo_folder.listing import shown

SYSTEM = 0
"""The system's own user, who could change anything."""


def is_own(path: Path) -> bool:
    """Say whether a file belongs to this user, or to the system; raises OSError."""
    return owner_of(path) in (user(), SYSTEM)


def own_slot(slot: Path, tell: Callable[[str], None]) -> Path:
    """Return a folder, or another one beside it where it belongs to somebody else, and tell so.

    Raises `DataError` where that is somebody else's too.
    """
    for place in (slot, slot.with_name(f"{slot.name}-{user()}")):
        try:
            if is_own(place):
                return place
        except OSError:  # it is not there yet, or decoding will tell what is wrong with it
            return place
        tell(f"'{shown(place)}' belongs to another user, and is not used")
    raise DataError(
        f"'{shown(slot)}' and the folder beside it belong to another user. Name another folder of"
        " data sets with --data-root or ZOO_DATA."
    )


def owner_of(path: Path) -> int:
    return path.stat().st_uid


def user() -> int:
    """Return this user's number: where a system has none, that of every file."""
    return os.getuid() if hasattr(os, "getuid") else 0
