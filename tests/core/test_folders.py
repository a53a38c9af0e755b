"""Names of files: as long as a name may be, and no longer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from zoo import drafts, folders
from zoo.errors import UsageError

LONGEST = 255
"""Bytes of a name on every file system that the tests are run on."""


@pytest.mark.parametrize("name", ["a" * 245, "a" * LONGEST, "я" * 127])
def test_the_longest_name_is_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    folders.check_writable(path)
    folders.write_atomic(path, b"data")
    with folders.workshop(path) as place:
        (place / name).write_bytes(b"draft")
    assert path.read_bytes() == b"data"
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("check", [folders.check_writable, folders.check_parent])
def test_a_longer_one_is_refused(tmp_path: Path, check: Callable[[Path], None]) -> None:
    for name, size in (("a" * 256, 256), ("я" * 128, 256), ("a" * 5000, 5000)):
        with pytest.raises(UsageError, match=f"has {size} bytes, and a name may have {LONGEST}"):
            check(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_leaves_a_folder_empty(tmp_path: Path) -> None:
    (tmp_path / f".zoo-{drafts.host()}-abc.partial").touch()
    assert folders.is_empty(tmp_path)
    assert not any(tmp_path.iterdir())
    (tmp_path / "notes.partial").touch()
    assert not folders.is_empty(tmp_path)
