"""`model.json`: what a bundle holds, sealed, with the SHA-256 of every file. No onnx, no torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from zoo.errors import ModelFileError, NoModelFile
from zoo.showing import shown
from zoo.untrusted import parse_json, read_file

SCHEMA = 1
NAME = "model.json"
SIGNATURE = "model.sig"
BLANK = "0" * 64
HERE = "where it was bundled, by the run that it came from"
CLAIMED = "as its proof.json claims; not proved where it was bundled"
"""On whose word its accuracy and its proof stand."""
BY_PRODUCTS = frozenset({"node_modules", "package-lock.json", "__pycache__"})
"""What running a bundle leaves in it. It is not of the bundle, but nobody's work either."""
INSTALLED = ("node_modules", "package-lock.json")
"""What `npm install` brings, by package.json. Nothing else may lie in a verified bundle: code in
`__pycache__` would be run in place of run.py's."""


def write(folder: Path, content: dict[str, Any]) -> None:
    """Write the manifest of a folder: `content`, then every file, under one seal."""
    document = {"schema": SCHEMA, "sha256": BLANK, **content, "files": inventory(folder)}
    data = json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
    sealed = data.replace(BLANK.encode(), hashlib.sha256(data).hexdigest().encode(), 1)
    (folder / NAME).write_bytes(sealed)


def read(folder: Path) -> dict[str, Any]:
    """Read a bundle's manifest, whose values are of the right kinds and name its own files alone.

    Raises `NoModelFile` where there is no folder, `ModelFileError` where the manifest is absent,
    foreign, changed or not sound.
    """
    path = folder / NAME
    if not folder.exists():
        raise NoModelFile(f"There is no folder '{folder}'. Type: zoo bundle RUN -o '{folder}'")
    try:
        data = read_file(path)
        content = parse_json(data)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ModelFileError(
            f"'{folder}' is no bundle: there is no {NAME} in it. Type: zoo bundle RUN -o DIR"
        ) from None
    except OSError as error:
        raise ModelFileError(f"'{path}' cannot be read: {error.strerror}.") from None
    except ValueError:
        content = None
    if not isinstance(content, dict) or "schema" not in content:
        raise ModelFileError(f"'{path}' is not the manifest of a bundle, or is damaged.")
    if content["schema"] != SCHEMA:
        raise ModelFileError(
            f"'{path}' has schema {shown(content['schema'])[:40]}; this zoo reads {SCHEMA}."
            " Type: pip install --upgrade plugzoo"
        )
    wrong = _unsound(content)
    if wrong:
        raise ModelFileError(
            f"'{path}' is not the manifest of a bundle, or is damaged: {', '.join(wrong)}."
        )
    seal = content["sha256"]
    if seal != hashlib.sha256(data.replace(seal.encode(), BLANK.encode(), 1)).hexdigest():
        raise ModelFileError(f"'{path}' was changed: its bytes do not match its seal, sha256.")
    if outside := [name for name in content["files"] if not _inside(name)]:
        raise ModelFileError(f"'{path}' names files outside its folder: '{shown(outside[0])}'.")
    named = {"model.file": content["model"]["file"], "golden": content["golden"]}
    for key, name in named.items():
        if name not in content["files"]:
            raise ModelFileError(
                f"'{path}' names as {key} a file that is not of its bundle: '{shown(name)[:200]}'."
            )
    found: dict[str, Any] = content
    return found


def _unsound(content: dict[str, Any]) -> list[str]:
    """Name the parts of a manifest that are not of their kind: whoever reads on may rely on it."""
    model, size = (_part(content, name) for name in ("model", "input"))
    files, metrics, outputs = (_part(content, name) for name in ("files", "metrics", "outputs"))
    labels = content.get("labels")
    texts = ("name", "run", "dataset", "license", "golden")
    sizes = [size.get(name) for name in ("channels", "height", "width")]
    checks = {
        "sha256": _is_sum(content.get("sha256")),
        **{name: isinstance(content.get(name), str) for name in texts},
        "files": bool(files) and all(_is_recorded(each) for each in files.values()),
        "model": isinstance(model.get("file"), str)
        and isinstance(model.get("precision"), str)
        and _is_sum(model.get("sha256")),
        "input": all(_is_count(each) for each in sizes)
        and (size.get("batch") is None or _is_count(size["batch"])),
        "outputs": set(outputs) == {"logits", "probabilities"},
        "labels": isinstance(labels, list) and all(isinstance(each, str) for each in labels),
        "metrics": isinstance(metrics.get("accuracy"), int | float),
        "tolerance": isinstance(_part(content, "tolerance").get("probabilities"), float),
        "components": isinstance(content.get("components"), dict),
        "versions": isinstance(content.get("versions"), dict),
    }
    return [name for name, sound in checks.items() if not sound]


def _part(content: dict[str, Any], name: str) -> dict[str, Any]:
    part = content.get(name)
    return part if isinstance(part, dict) else {}


def _is_sum(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_recorded(value: Any) -> bool:
    size = value.get("bytes") if isinstance(value, dict) else None
    return type(size) is int and size >= 0 and _is_sum(value.get("sha256"))


def _inside(name: str) -> bool:
    """Whether a name is that of a file within a folder, on any system, and not of the manifest."""
    foreign = set(name) & set("\\:\0")
    parts = name.split("/")
    return not foreign and not {"", ".", ".."} & set(parts) and name not in (NAME, SIGNATURE)


def faults(folder: Path, content: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong with the files of a bundle, by name: missing, changed, not of it.

    What npm installs beside package.json is left out: `installed` names it.
    """
    found: dict[str, str] = {}
    for name, recorded in content["files"].items():
        fault = _fault(folder / name, recorded)
        if fault:
            found[name] = fault
    others = [name for name in strangers(folder, content) if name not in INSTALLED]
    return found | dict.fromkeys(others, "is not of the bundle")


def _fault(path: Path, recorded: dict[str, Any]) -> str:
    try:
        if path.is_symlink():
            return "is a link"
        if not path.is_file():
            return "is missing" if not path.exists() else "is no file"
        # By its size first: what is not of the bundle may be of any size.
        same = path.stat().st_size == recorded["bytes"] and _sha256(path) == recorded["sha256"]
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if same else "was changed"


def installed(folder: Path) -> list[str]:
    """Name what `npm install` has put into a bundle's folder; nothing vouches for that."""
    return [name for name in INSTALLED if (folder / name).exists() or (folder / name).is_symlink()]


def strangers(folder: Path, content: dict[str, Any]) -> list[str]:
    """Name the files of a folder that its manifest does not, and the by-products."""
    known = {*content["files"], NAME, SIGNATURE}
    return [name for name, _ in _files(folder) if name not in known]


def inventory(folder: Path) -> dict[str, dict[str, Any]]:
    """Describe every file of a folder but the manifest and the signature, sorted by name."""
    return {
        name: {"sha256": _sha256(path), "bytes": path.stat().st_size}
        for name, path in _files(folder)
        if name not in (NAME, SIGNATURE)
    }


def _files(folder: Path) -> list[tuple[str, Path]]:
    """List what is in a folder, sorted; a by-product is not looked into, nor what cannot be."""
    found, left = [], [folder]
    while left:
        place = left.pop()
        try:
            with os.scandir(place) as entries:
                inner = list(entries)
        except OSError:
            found.append(place)
            continue
        for entry in inner:
            # A link counts, wherever it leads: none is of a bundle.
            within = entry.is_dir(follow_symlinks=False) and entry.name not in BY_PRODUCTS
            (left if within else found).append(Path(entry.path))
    return [(path.relative_to(folder).as_posix(), path) for path in sorted(found)]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
