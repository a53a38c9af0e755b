"""Files that may take any time at all, for they have loops: known, and not waited for."""

from __future__ import annotations

from pathlib import Path

from zoo.errors import Unanswered

LOOPS = (b"Loop", b"Scan")
"""The operators that loop, by the names that a file has them under."""
LONGEST = 30.0
"""Seconds that a file with such an operator may take for one batch."""


def may_be_endless(data: bytes) -> bool:
    """Say whether a file may have operators that loop; other texts may hold their names, too."""
    return any(name in data for name in LOOPS)


def unanswered(path: Path) -> Unanswered:
    return Unanswered(
        f"'{path}' has not answered within {LONGEST:.0f} s. It has a loop in it (Loop or Scan),"
        " which need have no end."
    )
