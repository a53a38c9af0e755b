"""What a person and a program read: lines, tables through rich, one JSON object with `--json`.

Every line that a verb prints comes through here, so that nobody's name moves the cursor, turns the
direction of writing, or passes for a line of ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import select
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import click

from zoo.errors import ZooError
from zoo.showing import shown, shown_json, shown_lines

UNBOUND = 1000
LEAST = 7
"""Room for a column and what stands beside it."""
_NUMBER = re.compile(r"–|-?[\d.,]+( ± [\d.]+)?( %| ms)?")


class Unwritten(ZooError):
    """Standard output is there and takes nothing: a full disk."""


def say(*lines: object, err: bool = False) -> None:
    """Print each text as one line, whatever it holds.

    Raises `Unwritten`, or `BrokenPipeError` where nobody reads. What stderr does not take is lost.
    """
    _echo("\n".join(map(shown, lines)), err)


def say_text(text: object, *, err: bool = False) -> None:
    """Print a text of one line or several, of which all but the first are indented."""
    _echo(shown_lines(text), err)


# never elsewhere: echo
def _echo(text: str, err: bool = False) -> None:
    if err:
        with contextlib.suppress(OSError):  # a message that cannot be told must not cost the work
            click.echo(text, err=True)
        return
    with _writing():
        click.echo(text)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Raise `Unwritten` where standard output takes nothing, and `BrokenPipeError` as it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        reason = error.strerror or error
        raise Unwritten(f"The answer cannot be written: {reason}.") from None


def nobody_reads() -> bool:
    """Say whether the reader of standard output is gone: other pipes may break as well."""
    if not hasattr(select, "poll"):  # Windows
        return True
    output = select.poll()
    try:
        output.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError, AttributeError):  # there is none
        return True
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in output.poll(0))


def drop_output() -> None:
    """Let what is still to be written go nowhere: the interpreter writes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Shown(click.Context):
    """Whose help shows what plugins say of themselves as text."""

    class Formatter(click.HelpFormatter):
        def getvalue(self) -> str:
            return shown(super().getvalue(), lines=True)

    formatter_class = Formatter


def print_json(value: Any) -> None:
    """Print one JSON object; dataclasses and paths are written as objects and texts."""
    text = json.dumps(value, indent=2, ensure_ascii=not _writes_unicode(), default=_plain)
    _echo(shown_json(text))


def _writes_unicode() -> bool:
    return (sys.stdout.encoding or "ascii").lower().replace("-", "").startswith("utf")


# never elsewhere: print
def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print rows under headings; numbers are aligned right. No headings where all are empty.

    In a pipe nothing is cut, unless $COLUMNS says how wide a line may be.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    width = _width()
    console = Console(width=width, highlight=False, soft_wrap=width == UNBOUND)
    body = [[shown(cell) for cell in row] for row in rows]
    drawn = Table(
        box=box.SIMPLE_HEAD,
        title=shown(title) or None,
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
        drawn.add_column(_escape(shown(column)), justify=justify, overflow="fold", no_wrap=whole)
    for row in body:
        drawn.add_row(*[_escape(cell) for cell in row])
    with _writing(), console.capture() as captured:  # rich writes too, if nothing
        console.print(drawn)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    if not sys.stdout.isatty() and lines[:1] == [""]:
        del lines[0]
    _echo("\n".join(lines))


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
