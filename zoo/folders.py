"""Where things lie on disk, and how a file is written: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from zoo import drafts
from zoo.errors import UsageError

UNFINISHED = (".zoo-", ".partial")
"""How the name of an unfinished file begins and ends; its own may be as long as a name can be."""


def data_root(given: Path | None = None) -> Path:
    """Return the folder of the data sets: the one given, `ZOO_DATA`, or the user's cache."""
    if given is not None:
        return given
    if os.environ.get("ZOO_DATA"):
        return Path(os.environ["ZOO_DATA"])
    from platformdirs import user_cache_path

    return user_cache_path("plugzoo", appauthor=False) / "data"


def runs_root(given: Path | None = None) -> Path:
    """Return the folder of the runs: the one given, `ZOO_RUNS`, or `runs` here."""
    return given or Path(os.environ.get("ZOO_RUNS") or "runs")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside it, then rename: whole or not at all."""
    try:
        _write(path, data)
    except OSError as error:
        # Name the file that was meant, not the temporary one, or none.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def is_empty(folder: Path) -> bool:
    """Say whether a folder holds nothing but what killed processes left, which is cleared."""
    drafts.clear(folder)
    clear_unfinished(folder)
    return not any(folder.iterdir())


def clear_unfinished(folder: Path) -> None:
    """Remove the unfinished files in a folder whose writers are gone; none may be there."""
    drafts.clear_files(folder, *UNFINISHED)


def _write(path: Path, data: bytes) -> None:
    prefix, suffix = UNFINISHED

    def make() -> Path:
        begin = f"{prefix}{drafts.host()}-"
        handle, name = tempfile.mkstemp(prefix=begin, suffix=suffix, dir=path.parent)
        os.close(handle)
        return Path(name)

    clear_unfinished(path.parent)
    with drafts.held(make) as partial:
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.chmod(0o666 & ~_umask())
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise


@contextlib.contextmanager
def workshop(target: Path) -> Iterator[Path]:
    """Yield a folder beside a target, for a draft that is renamed; in the end it is gone.

    SIGTERM and SIGHUP end the work as Ctrl-C does, with 143 and 129, so that nothing is left, and
    what a killed process left there is cleared; a disk that is full is told by the target's name.
    """
    try:
        with drafts.folder(target.parent) as folder:
            yield folder
    except OSError as error:
        if error.filename is not None and drafts.PREFIX not in str(error.filename):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


def check_writable(path: Path) -> None:
    """Refuse a place for an output file that cannot be written, before the work is done."""
    check_name(path)
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder; name a file.")
    if path.exists() and not path.is_file():
        raise UsageError(f"'{path}' is a device or a pipe; name a file.")
    check_parent(path)


def check_parent(path: Path) -> None:
    """Refuse a place whose folder is not there, is none, or cannot be written to."""
    check_name(path)
    if path.parent.exists() and not path.parent.is_dir():
        raise UsageError(f"'{path.parent}' is a file, not a folder.")
    if not path.parent.is_dir():
        raise UsageError(
            f"The folder '{path.parent}' does not exist. Type: mkdir -p '{path.parent}'"
        )
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"The folder '{path.parent}' cannot be written to.")


def check_name(path: Path) -> None:
    """Refuse a name that is longer than its folder takes: 255 bytes on most systems."""
    most, size = 255, len(os.fsencode(path.name))
    with contextlib.suppress(OSError, ValueError, AttributeError):  # not there; or Windows
        most = os.pathconf(path.parent, "PC_NAME_MAX")
    if size > most:
        raise UsageError(
            f"The name '{path.name[:40]}…' has {size} bytes, and a name may have {most} here."
            " Type a shorter one."
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
