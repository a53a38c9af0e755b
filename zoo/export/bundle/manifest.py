"""`model.json`: what a bundle holds, sealed, with the SHA-256 of every file. No onnx, no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.errors import ModelFileError, NoModelFile

SCHEMA = 1
NAME = "model.json"
SIGNATURE = "model.sig"
BLANK = "0" * 64
BY_PRODUCTS = frozenset({"node_modules", "package-lock.json", "__pycache__"})
"""What running a bundle leaves in it. It is not of the bundle, but nobody's work either."""


def write(folder: Path, content: dict[str, Any]) -> None:
    """Write the manifest of a folder: `content`, then every file, under one seal."""
    document = {"schema": SCHEMA, "sha256": BLANK, **content, "files": inventory(folder)}
    data = json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
    sealed = data.replace(BLANK.encode(), hashlib.sha256(data).hexdigest().encode(), 1)
    (folder / NAME).write_bytes(sealed)


def read(folder: Path) -> dict[str, Any]:
    """Read a bundle's manifest.

    Raises `NoModelFile` where there is no folder, `ModelFileError` where the manifest is absent,
    foreign or changed.
    """
    path = folder / NAME
    if not folder.exists():
        raise NoModelFile(f"There is no folder '{folder}'. Type: zoo bundle RUN -o '{folder}'")
    try:
        data = path.read_bytes()
        content = json.loads(data)
        seal, _ = str(content["sha256"]), str(content["model"]["file"])
        files = {str(name): (str(f["sha256"]), f["bytes"]) for name, f in content["files"].items()}
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ModelFileError(
            f"'{folder}' is no bundle: there is no {NAME} in it. Type: zoo bundle RUN -o DIR"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelFileError(f"'{path}' is not the manifest of a bundle, or is damaged.") from None
    if content.get("schema") != SCHEMA:
        raise ModelFileError(
            f"'{path}' has schema {content.get('schema')!r}; this zoo reads {SCHEMA}."
            " Type: pip install --upgrade plugzoo"
        )
    if seal != hashlib.sha256(data.replace(seal.encode(), BLANK.encode(), 1)).hexdigest():
        raise ModelFileError(f"'{path}' was changed: its bytes do not match its seal, sha256.")
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
        raise ModelFileError(f"'{path}' names files outside its folder.")
    found: dict[str, Any] = content
    return found


def faults(folder: Path, content: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong with the files of a bundle, by name: missing, changed, not of it."""
    found: dict[str, str] = {}
    for name, recorded in content["files"].items():
        path = folder / name
        if path.is_symlink():
            found[name] = "is a link"
        elif not path.is_file():
            found[name] = "is missing"
        elif _sha256(path) != recorded["sha256"]:
            found[name] = "was changed"
    return found | dict.fromkeys(strangers(folder, content), "is not of the bundle")


def strangers(folder: Path, content: dict[str, Any]) -> list[str]:
    """Name the files of a folder that its manifest does not; a by-product once for all in it."""
    known = {*content["files"], NAME, SIGNATURE}
    return list(dict.fromkeys(_shortened(n) for n, _ in _files(folder) if n not in known))


def _shortened(name: str) -> str:
    parts = name.split("/")
    place = next((i for i, part in enumerate(parts) if part in BY_PRODUCTS), len(parts))
    return "/".join(parts[: place + 1])


def inventory(folder: Path) -> dict[str, dict[str, Any]]:
    """Describe every file of a folder but the manifest and the signature, sorted by name."""
    return {
        name: {"sha256": _sha256(path), "bytes": path.stat().st_size}
        for name, path in _files(folder)
        if name not in (NAME, SIGNATURE)
    }


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        # A link counts, wherever it leads: none is of a bundle.
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix(), path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
