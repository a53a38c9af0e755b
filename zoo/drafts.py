"""Drafts: what has no name yet is locked by its maker; what a killed process left is cleared.

A lock (`flock`) ends with its process, however that ends. Where there are none, as on Windows and
on some network file systems, a draft is cleared by its age alone, and so is one of another host.
Files that are being written are no different: their names say which host writes them, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PREFIX = ".zoo-draft-"
AGE = 7 * 24 * 3600.0
"""Seconds after which a draft is cleared that may be another host's, or an older zoo's."""
OLDER = "older"
"""The folder of a draft into which what the draft replaces is moved for a moment."""


@contextlib.contextmanager
def folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder in `parent`, or among the system's temporary ones; in the end it is gone.

    SIGTERM and SIGHUP end the work meanwhile as Ctrl-C does, so that nothing is left. What
    processes that were killed left there is cleared first.
    """
    parent = parent or Path(tempfile.gettempdir())
    clear(parent)
    with _ending(), held(lambda: Path(tempfile.mkdtemp(prefix=_prefix(), dir=parent))) as path:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def held(make: Callable[[], Path]) -> Iterator[Path]:
    """Make a file or a folder, and hold its lock meanwhile, so that nobody else clears it."""
    while True:
        path = make()
        handle = _open(path)
        try:
            # Somebody who clears may have been between the two: then it is gone, or will be.
            locked = None if handle is None else _lock(handle)
            if handle is None or locked is None or (locked and _is(path, handle)):
                yield path
                return
        finally:
            if handle is not None:
                os.close(handle)


def clear(parent: Path) -> None:
    """Remove the drafts in a folder whose processes are gone; what they had put aside comes back.

    Never one of a process that lives, nor one of another host or user that may.
    """
    for path in _entries(parent, PREFIX, ""):
        ours = path.name.startswith(_prefix())
        with contextlib.suppress(OSError), _abandoned(path, ours) as gone:
            if gone:
                # What came from elsewhere, in an archive say, has nothing of this folder's to give.
                aside = path / OLDER
                for before in aside.iterdir() if ours and _is_folder(aside) else ():
                    if not os.path.lexists(parent / before.name):
                        before.rename(parent / before.name)
                shutil.rmtree(path, ignore_errors=True)


def clear_files(parent: Path, prefix: str, suffix: str) -> None:
    """Remove unfinished files of such names whose writers are gone, as `clear` does folders."""
    for path in _entries(parent, prefix, suffix):
        ours = path.name.startswith(f"{prefix}{host()}-")
        with contextlib.suppress(OSError), _abandoned(path, ours) as gone:
            if gone:
                path.unlink()


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit with 143 and 129; one that is ignored stays so."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def host() -> str:
    """Name this host in what it drafts: only here can it be told whether a process lives."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _prefix() -> str:
    return f"{PREFIX}{host()}-"


def _entries(parent: Path, prefix: str, suffix: str) -> list[Path]:
    with contextlib.suppress(OSError), os.scandir(parent) as found:
        return [Path(each.path) for each in found
                if each.name.startswith(prefix) and each.name.endswith(suffix)
                and not each.is_symlink()]  # fmt: skip
    return []


@contextlib.contextmanager
def _abandoned(path: Path, ours: bool) -> Iterator[bool]:
    """Yield whether nobody makes something any more; while it is asked, nobody else may clear it.

    Raises OSError where it is gone.
    """
    found = path.lstat()
    old = time.time() - found.st_mtime > AGE
    own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    plain = stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)
    handle = _open(path) if own and plain else None
    try:
        locked = None if handle is None else _lock(handle)
        yield own and plain and (old if locked is None else locked and (ours or old))
    finally:
        if handle is not None:
            os.close(handle)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _open(path: Path) -> int | None:
    if fcntl is None:  # on Windows an open file cannot be renamed
        return None
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None


def _lock(handle: int) -> bool | None:
    """Take the lock of an open file: False where somebody holds it, None where there are none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except OSError:
        return False
