"""Texts of strangers: shown as text."""

from __future__ import annotations

import os

import pytest

from zoo.showing import shown


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("cat\x1b[2J", "cat\\x1b[2J"),
        ("a\nproved: yes\r", "a\\nproved: yes\\r"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("\x9b31m\u2028\u2066", "\\x9b31m\\u2028\\u2066"),
        (os.fsdecode(b"\xff"), "\\udcff"),
        ("\U000e0001", "\\U000e0001"),
        ("Häßlich 猫 मी\u200cक्ष 👨\u200d👩", "Häßlich 猫 मी\u200cक्ष 👨\u200d👩"),
    ],
)
def test_a_text_is_shown_without_what_moves_a_terminal(text: str, seen: str) -> None:
    assert shown(text) == seen


def test_lines_stay_where_they_are_asked_for() -> None:
    assert shown("a\n\tb\x07", lines=True) == "a\n\tb\\x07"
