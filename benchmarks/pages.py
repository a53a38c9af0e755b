"""A page of the documentation that shows what a command prints, between two marks."""

from __future__ import annotations

import re
from pathlib import Path

import click


def marks(command: str) -> tuple[str, str]:
    """Return the two lines that a command's output stands between."""
    return f"<!-- {command} -->", f"<!-- end of {command} -->"


def read(page: Path, command: str) -> str:
    """Return what a page shows of a command; raises `ClickException` where its marks are missing.

    White space around it is left out.
    """
    begin, end = marks(command)
    found = re.search(f"{re.escape(begin)}\n(.*?){re.escape(end)}", page.read_text(), re.S)
    if not found:
        raise click.ClickException(f"'{page}' has no '{begin}' … '{end}'.")
    return found[1].strip()


def show(made: str, page: Path | None, command: str) -> None:
    """Print what a command made, or put it into a page."""
    if page:
        write(page, command, made)
    else:
        print(made)


def write(page: Path, command: str, shown: str) -> None:
    """Put what a command prints between its marks; raises `ClickException` where there are none."""
    read(page, command)
    begin, end = marks(command)
    before, rest = page.read_text().split(f"{begin}\n", 1)
    page.write_text(f"{before}{begin}\n\n{shown.strip()}\n\n{end}{rest.split(end, 1)[1]}")
