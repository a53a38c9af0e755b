"""Drafts: those of processes that are gone are cleared, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zoo import drafts
from zoo.folders import workshop, write_atomic

pytestmark = pytest.mark.skipif(drafts.fcntl is None, reason="needs locks that end with a process")

DRAFTING = """
import signal, sys, time
from pathlib import Path
from zoo import drafts
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever it means to those who run the tests
with drafts.folder(Path(sys.argv[1])) as folder:
    (folder / "model.onnx").write_bytes(b"half")
    print(folder, flush=True)
    time.sleep(60)
"""
WRITING = """
import os, sys, time
from pathlib import Path
from zoo.folders import write_atomic
os.fsync = lambda handle: (print("here", flush=True), time.sleep(60))
write_atomic(Path(sys.argv[1]), b"half")
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that says one line when it is in the middle of its work."""
    begun: list[subprocess.Popen[str]] = []

    def go(code: str, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *map(str, words)]
        begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return begun[-1]

    yield go
    for process in begun:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_draft_of_a_killed_process_is_cleared_and_no_other(
    start: Start, tmp_path: Path
) -> None:
    dead, living = (start(DRAFTING, tmp_path) for _ in range(2))
    left, kept = Path(said(dead)), Path(said(living))
    dead.kill()
    dead.wait()
    assert left.is_dir()
    with workshop(tmp_path / "model.onnx") as mine:
        assert names(tmp_path) == sorted([kept.name, mine.name])
    assert names(tmp_path) == [kept.name]
    assert (kept / "model.onnx").read_bytes() == b"half"


def test_nor_is_one_in_this_process(tmp_path: Path) -> None:
    with workshop(tmp_path / "a") as one, workshop(tmp_path / "b") as other:
        assert names(tmp_path) == sorted([one.name, other.name])
    assert names(tmp_path) == []


def test_a_draft_of_another_host_is_cleared_by_its_age(tmp_path: Path) -> None:
    other, earlier = (
        tmp_path / f"{drafts.PREFIX}00000000-abc",
        tmp_path / f"{drafts.PREFIX}abcdefgh",
    )
    for each in (other, earlier):
        each.mkdir()
    drafts.clear(tmp_path)
    assert names(tmp_path) == sorted([other.name, earlier.name])
    long_ago = time.time() - drafts.AGE - 60
    for each in (other, earlier):
        os.utime(each, (long_ago, long_ago))
    drafts.clear(tmp_path)
    assert names(tmp_path) == []


def test_without_locks_age_alone_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "fcntl", None)
    with drafts.folder(tmp_path) as mine:
        drafts.clear(tmp_path)
        assert mine.is_dir()
        os.utime(mine, (0, 0))
        drafts.clear(tmp_path)
        assert not mine.exists()


def test_what_was_put_aside_comes_back_unless_there_is_another(tmp_path: Path) -> None:
    """A process may be killed between the two renames by which a bundle is replaced."""
    for place in ("lost", "replaced"):
        with workshop(tmp_path / place) as draft:
            aside = draft / drafts.OLDER / place
            aside.mkdir(parents=True)
            (aside / "file").write_text("before")
            left = tmp_path / draft.name.replace("draft", f"kept-{place}")
            draft.rename(left)
        left.rename(draft)
    (tmp_path / "replaced").mkdir()
    drafts.clear(tmp_path)
    assert names(tmp_path) == ["lost", "replaced"]
    assert names(tmp_path / "lost") == ["file"]
    assert names(tmp_path / "replaced") == []


@pytest.mark.parametrize("link", [False, True])
def test_what_came_from_elsewhere_moves_nothing(tmp_path: Path, link: bool) -> None:
    """An archive may hold an old draft, of another host's, with a link to what is the user's."""
    own, received = tmp_path / "own", tmp_path / "received"
    own.mkdir()
    (own / "key").write_text("secret")
    draft = received / f"{drafts.PREFIX}strange"
    draft.mkdir(parents=True)
    if link:
        (draft / drafts.OLDER).symlink_to(own, target_is_directory=True)
    else:
        (draft / drafts.OLDER).mkdir()
        (draft / drafts.OLDER / "planted").write_text("x")
    os.utime(draft, (0, 0))
    drafts.clear(received)
    assert names(own) == ["key"]
    assert names(received) == []


def test_links_and_files_of_such_a_name_are_not_followed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    with workshop(tmp_path / "x") as draft:
        name = draft.name
    (tmp_path / name).symlink_to(mine)
    drafts.clear(tmp_path)
    assert names(tmp_path) == sorted(["mine", name])


def test_an_unfinished_file_of_a_killed_process_is_cleared(start: Start, tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    foreign = tmp_path / ".other.json.abcdefgh.partial"
    foreign.touch()
    dead, living = (start(WRITING, target) for _ in range(2))
    for process in (dead, living):
        assert said(process) == "here"
    assert len(names(tmp_path)) == 3
    write_atomic(target, b"whole")
    assert len(names(tmp_path)) == 4
    dead.kill()
    dead.wait()
    write_atomic(target, b"whole")
    assert len(names(tmp_path)) == 3
    assert foreign.exists()
    assert target.read_bytes() == b"whole"


def test_an_unfinished_file_of_another_host_is_cleared_by_its_age(tmp_path: Path) -> None:
    """A shared disk may have no locks that another host sees."""
    other = tmp_path / ".zoo-0123abcd-x.partial"
    other.touch()
    write_atomic(tmp_path / "a", b"whole")
    assert other.exists()
    os.utime(other, (0, 0))
    write_atomic(tmp_path / "a", b"whole")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(("number", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_that_ends_it_leaves_nothing(
    start: Start, tmp_path: Path, number: str, status: int
) -> None:
    process = start(DRAFTING, tmp_path)
    said(process)
    process.send_signal(getattr(signal, number))
    assert process.wait(30) == status
    assert names(tmp_path) == []


def test_a_hangup_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As `nohup` has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with workshop(tmp_path / "x"):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
