"""Strangers' texts as they may reach a terminal: nothing in them moves its cursor."""

from __future__ import annotations

import json
import unicodedata

HARMLESS = "\u00ad\u200c\u200d"
"""Format characters that words and emoji are written with; they move nothing on a terminal."""


def shown(text: object, *, lines: bool = False) -> str:
    """Return a text as it may reach a terminal: what is no letter of a line stands as its escape.

    Control characters, line breaks, changes of the direction of writing and bytes that are no text
    come out as `\\x1b`, `\\n`, `\\u202e`, `\\udcff`. `lines` leaves line breaks and tabs.
    """
    kept = "\n\t" if lines else ""
    return "".join(
        letter if letter in kept or not _moves(letter) else _escaped(letter) for letter in str(text)
    )


def shown_lines(text: object) -> str:
    """Return a text of several lines as `shown` does; each line but the first is indented.

    So that no name with a line break in it looks like a line of our own.
    """
    first, *rest = shown(text, lines=True).split("\n")
    return "\n".join([first, *(each if each[:1] in ("", " ") else f"  {each}" for each in rest)])


def shown_json(text: str) -> str:
    """Return JSON that is safe on a terminal, of the same value: such letters stand as `\\u202e`.

    `text` is JSON with letters of any kind in its strings, and line breaks between its values.
    """
    return "".join(
        letter if letter == "\n" or not _moves(letter) else json.dumps(letter)[1:-1]
        for letter in text
    )


def _moves(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in HARMLESS


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
