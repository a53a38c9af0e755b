"""Fetch a published set through torchvision: apart, verified, then moved into place."""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
import tarfile
import tempfile
import textwrap
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

from filelock import FileLock

from zoo.api import DataUnavailable, note, progress
from zoo_images.catalogue import Published
from zoo_images.integrity import faults, missing, record, record_path

TIMEOUT = 30.0
FAILURES = (
    RuntimeError,
    URLError,
    OSError,
    EOFError,
    ValueError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
)


def fetch(published: Published, root: Path, reader: Any, arguments: dict[str, Any]) -> None:
    """Download the set below `root`; a second process waits, then finds it there.

    Raises `DataUnavailable` that names the folder, the files and the command that fetches them.
    """
    absent = missing(published, root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{published.name}.lock"):
            if not missing(published, root):
                return
            note(f"downloading {published.name} into {root}")
            for left in root.glob(f".{published.name}.*/"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=f".{published.name}.", dir=root) as folder:
                _download(published, Path(folder), reader, arguments)
                for name, problem in faults(published, Path(folder), published.files).items():
                    # The bad copy goes with its folder: nothing is left to be deleted by hand.
                    raise RuntimeError(f"what arrived as {name} {problem}")
                _move(published, Path(folder), root)
    except FAILURES as error:
        raise _unreachable(published, root, absent, error) from error


def _download(published: Published, into: Path, reader: Any, arguments: dict[str, Any]) -> None:
    sink = io.StringIO()
    # torchvision prints addresses on stdout, which belongs to results, and bars on stderr.
    quiet = contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink)
    with _watched(f"downloading {published.name}", into), _timeout(), quiet[0], quiet[1]:
        reader(str(into), train=True, download=True, **arguments)


def _move(published: Published, source: Path, root: Path) -> None:
    sums = record(published, source)
    for name in published.files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).replace(root / name)
    record_path(published, root).write_bytes(sums)


@contextlib.contextmanager
def _watched(description: str, folder: Path) -> Iterator[None]:
    """Show how many bytes have arrived in a folder."""
    done = threading.Event()
    with progress(description, None, "bytes") as task:

        def watch() -> None:
            while not done.wait(0.5):
                with contextlib.suppress(OSError):
                    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
                    task.update(sum(sizes), text=f"{sum(sizes) / 1e6:,.0f} MB")

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


@contextlib.contextmanager
def _timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _unreachable(
    published: Published, root: Path, absent: list[str], error: BaseException
) -> DataUnavailable:
    extra = ", split='letters'" if published.torchvision == "EMNIST" else ""
    command = (
        f'python -c "from torchvision.datasets import {published.torchvision};'
        f" {published.torchvision}('{root}', download=True{extra})\""
    )
    reason = textwrap.shorten(str(error), 300, placeholder=" …") or type(error).__name__
    return DataUnavailable(
        f"{published.name} is not under '{root}' and could not be fetched ({reason})."
        f"\nMissing: {', '.join(absent)}."
        f"\nWhere there is a network, type the same command again, or: {command}"
        f"\nThen copy that folder here and name it with --data-root or ZOO_DATA."
    )
