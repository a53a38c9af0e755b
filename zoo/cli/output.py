"""What a person and a program read: tables through rich, one JSON object with `--json`."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import click

UNBOUND = 1000
LEAST = 7
"""Room for a column and what stands beside it."""
_NUMBER = re.compile(r"–|-?[\d.,]+( ± [\d.]+)?( %| ms)?")


def print_json(value: Any) -> None:
    """Print one JSON object; dataclasses and paths are written as objects and texts."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=not _writes_unicode(), default=_plain))


def _writes_unicode() -> bool:
    return (sys.stdout.encoding or "ascii").lower().replace("-", "").startswith("utf")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print rows under headings; numbers are aligned right. No headings where all are empty.

    In a pipe nothing is cut, unless $COLUMNS says how wide a line may be.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    width = _width()
    console = Console(width=width, highlight=False, soft_wrap=width == UNBOUND)
    body = [[str(cell) for cell in row] for row in rows]
    drawn = Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        title_justify="left",
        pad_edge=False,
        show_header=any(columns),
    )
    for index, column in enumerate(columns):
        cells = [row[index] for row in body if row[index]]
        numeric = bool(cells) and all(_NUMBER.fullmatch(cell) for cell in cells)
        # The first column holds names, to be copied whole where that leaves room for the others:
        # what has none would be cut.
        room = console.width - LEAST * (len(columns) - 1)
        whole = index == 0 and max(map(len, cells), default=0) < room
        justify: Literal["right", "left"] = "right" if numeric else "left"
        drawn.add_column(_escape(column), justify=justify, overflow="fold", no_wrap=whole)
    for row in body:
        drawn.add_row(*[_escape(cell) for cell in row])
    with console.capture() as captured:
        console.print(drawn)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    if not sys.stdout.isatty() and lines[:1] == [""]:
        del lines[0]
    click.echo("\n".join(lines))


def _width() -> int | None:
    """Return how wide a line may be: None for as wide as the terminal."""
    if sys.stdout.isatty():
        return None
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) else UNBOUND


def percent(fraction: float | None) -> str:
    """Write a fraction for a person: 0.9183 -> 91.83 %."""
    return "–" if fraction is None else f"{fraction * 100:.2f} %"


def _escape(cell: str) -> str:
    from rich.markup import escape

    return escape(cell)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
