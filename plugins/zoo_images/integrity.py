"""Find missing, truncated and altered files of a published set, and name them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from zoo.api import DataError
from zoo_images.catalogue import Published

Files = dict[str, tuple[int, str]]


def missing(published: Published, root: Path) -> list[str]:
    return [name for name in published.files if not (root / name).is_file()]


def verify(published: Published, root: Path, files: Files) -> None:
    """Check size and digest of each file; raises `DataError` that names the first bad one.

    Sums recorded when we fetched the set ourselves are checked beside the published ones.
    """
    recorded = _recorded(published, root)
    for name, (size, digest) in files.items():
        path = root / name
        found = path.stat().st_size
        if size and found != size:
            problem = "truncated" if found < size else "too long"
            raise _bad(published, path, f"is {problem}: {found:,} bytes, expected {size:,}")
        digest = digest or recorded.get(name, "")
        if digest and _digest(path, digest) != digest:
            raise _bad(published, path, "is corrupt: its bytes are not those that were published")


def record(published: Published, root: Path) -> bytes:
    """Return the sums of a set whose download has just been verified."""
    sums = {name: _sha256(root / name) for name in published.files}
    return json.dumps(sums, indent=1).encode()


def record_path(published: Published, root: Path) -> Path:
    return root / next(iter(published.files)).split("/")[0] / "sha256.json"


def _recorded(published: Published, root: Path) -> dict[str, str]:
    try:
        sums = json.loads(record_path(published, root).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in sums.items()} if isinstance(sums, dict) else {}


def _digest(path: Path, expected: str) -> str:
    if len(expected) == 64:
        return _sha256(path)
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bad(published: Published, path: Path, problem: str) -> DataError:
    return DataError(
        f"{published.name}: '{path}' {problem}. Delete it and run the command again where there is"
        f" a network, or put a good copy in its place. Type: rm '{path}'"
    )
