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
    """Check size and digest of each file; raises `DataError` that names the first bad one."""
    for name, problem in faults(published, root, files).items():
        raise DataError(
            f"{published.name}: '{root / name}' {problem}. Delete it and run the command again"
            " where there is a network, or put a good copy in its place."
            f" Type: rm '{root / name}'"
        )


def faults(published: Published, root: Path, files: Files) -> dict[str, str]:
    """Return the bad files below `root`, and what is wrong with each: `is truncated: …`.

    Sums recorded when we fetched the set ourselves are checked beside the published ones.
    """
    recorded = _recorded(published, root)
    found: dict[str, str] = {}
    for name, (expected, published_digest) in files.items():
        size = (root / name).stat().st_size
        digest = published_digest or recorded.get(name, "")
        if expected and size != expected:
            problem = "truncated" if size < expected else "too long"
            found[name] = f"is {problem}: {size:,} bytes, expected {expected:,}"
        elif digest and _digest(root / name, digest) != digest:
            found[name] = "is corrupt: its bytes are not those that were published"
    return found


def record(published: Published, root: Path) -> bytes:
    """Return the sums of a set whose download has just been verified."""
    sums = {name: _sha256(root / name) for name in published.files}
    return json.dumps(sums, indent=1).encode()


def record_path(published: Published, root: Path) -> Path:
    return root / next(iter(published.files)).split("/")[0] / "sha256.json"


def _recorded(published: Published, root: Path) -> dict[str, str]:
    path = record_path(published, root)
    try:
        sums = json.loads(path.read_bytes()) if path.is_file() else {}
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
