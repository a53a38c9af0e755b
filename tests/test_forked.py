"""A command that begins as a fork of a process is what it is from an interpreter of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image


def test_it_says_and_ends_alike(zoo: Callable[..., Any], trained_once: Any, tmp_path: Path) -> None:
    Image.linear_gradient("L").save(tmp_path / "grey.png")
    before = sorted(tmp_path.iterdir())
    for words in (
        ("predict", trained_once.model, "grey.png", "--json"),
        ("predict", trained_once.model, "missing.png"),
    ):
        told = []
        for anew in (False, True):
            done = zoo(*words, anew=anew, ZOO_RUNS="none")
            told.append((done.returncode, done.stdout, done.stderr))
        assert told[0] == told[1]
        assert told[0][1] or told[0][2]
    assert sorted(tmp_path.iterdir()) == before
