"""Seeded changes of whatever zoo reads that others may have written: one change a case."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mutated_file import mutated

from zoo.export.seal import seal

RAW = {
    "@infinite@": "1e999", "@minus@": "-1e999", "@nan@": "NaN", "@infinity@": "Infinity",
    "@digits@": "9" * 400, "@long@": "9" * 5000, "@deep@": "[" * 3000 + "]" * 3000,
    "@open@": "[" * 100_000, "@half@": "\\ud800", "@float@": "1e308", "@tiny@": "1e-320",
}  # fmt: skip
"""Numbers and texts that Python's own writer of JSON would not write, by what stands for them."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1e40, 2**31, 2**62, 2**63, 2**64, 10**12, 10**40,
    "", "0", "latest", "../../etc/passwd", "/dev/zero", "\0", "a\nb", "\x1b[2J", "\u202e",
    "é" * 300,
    [], {}, [[]], [None], [1, 2, 3], {"a": {"b": [1]}}, "2026-01-01", "2026-01-01T00:00:00+00:00",
    "9999-12-31T23:59:59-23:59", "0" * 64, *RAW,
)  # fmt: skip
SHAPES = ([0, 2**62, 2**62], [0, 2**63], [2**40], [], [-1], [1])
HOLES = ("missing", "empty", "pipe", "device", "folder", "huge", "circle", "nowhere", "cut")
"""What may stand where a file should."""


def changed_json(text: str, rng: random.Random) -> str:
    """Change one value of a JSON text: its type, its size, its place, or that it is there."""
    if rng.random() < 0.15:
        return changed_bytes(text.encode(), rng).decode(errors="surrogateescape")
    content = json.loads(text)
    spots = list(_spots(content)) if isinstance(content, dict | list) else []
    if not spots:
        return rng.choice(("[]", "null", "1e999", "NaN", '"x"', "9" * 400, "-1"))
    holder, key = rng.choice(spots)
    value = holder[key]
    match rng.randrange(10):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(("mood", "schema ", "", "\u202e"))] = rng.choice(VALUES)
        case 2:
            other, name = rng.choice(spots)
            holder[key] = json.loads(json.dumps(other[name]))
        case 3 if isinstance(value, str) and value:
            holder[key] = value[: rng.randrange(len(value))] + rng.choice(("", "x", "\0", "é"))
        case 4 if isinstance(value, int | float):
            holder[key] = rng.choice((-value, value + 1, value * 10**9, float(value), str(value)))
        case 5 if isinstance(value, list):
            holder[key] = rng.choice((value[::-1], value * 2, value[:-1], value[0:1] * 5000))
        case 6:
            return rng.choice(("", "null", "5", "[]", "{}", '"x"', "\ufeff" + text, text + text))
        case _:
            holder[key] = rng.choice(VALUES)
    changed = json.dumps(content, ensure_ascii=True)
    return re.sub(r'"(@\w+@)"', lambda found: _raw(found[1]), changed)


def _raw(name: str) -> str:
    return f'"{RAW[name]}"' if name == "@half@" else RAW.get(name, "null")


def _spots(content: Any) -> Any:
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(pairs):
        yield content, key
        if isinstance(value, dict | list):
            yield from _spots(value)


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert, repeat or overwrite some bytes."""
    made, at = bytearray(data), rng.randrange(max(1, len(data)))
    size = rng.choice((1, 1, 2, 8, 64, 500))
    match rng.randrange(6):
        case 0 | 1 if made:
            made[at] ^= 1 << rng.randrange(8)
        case 2:
            made[at : at + size] = rng.randbytes(size)
        case 3:
            del made[at : at + size]
        case 4:
            made[at:at] = made[at : at + size] or b"x"
        case _:
            del made[rng.choice((at, max(0, len(made) - size))) :]
    return bytes(made)


def changed_tensors(data: bytes, rng: random.Random) -> bytes:
    """Change the bytes of a safetensors file, or its header."""
    if rng.random() < 0.35 or len(data) < 8:
        return changed_bytes(data, rng)
    size = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + size].decode(), data[8 + size :]
    if rng.random() < 0.1:
        return struct.pack("<Q", rng.choice((0, 1, size + 1, 2**32, 2**63))) + data[8:]
    content = json.loads(header)
    tensors = [value for name, value in content.items() if name != "__metadata__"]
    if tensors and rng.random() < 0.5:
        tensor = rng.choice(tensors)
        match rng.randrange(4):
            case 0:
                tensor["shape"] = rng.choice(
                    ([0, 2**62, 2**62], [0, 2**63], [2**40], [], [-1], [1])
                )
                if 0 in tensor["shape"]:
                    tensor["data_offsets"] = [0, 0]
            case 1:
                kinds = ("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E5M2", "F4", "C64")
                tensor["dtype"] = rng.choice(kinds)
            case 2:
                tensor["shape"] = tensor["shape"][::-1]
            case 3:
                rng.choice(tensors)["data_offsets"] = tensor["data_offsets"]
        header = json.dumps(content)
    else:
        header = changed_json(header, rng)
    raw = header.encode(errors="surrogateescape")
    return struct.pack("<Q", len(raw)) + raw + body


def put(path: Path, hole: str, rng: random.Random) -> None:
    """Put in place of a file what is none, or nothing."""
    data = path.read_bytes() if path.is_file() else b""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    match hole:
        case "empty":
            path.touch()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to(rng.choice(("/dev/zero", "/dev/null", "/dev/full")))
        case "folder":
            path.mkdir()
        case "huge":
            path.write_bytes(data)
            os.truncate(path, 2**35)
        case "circle":
            path.symlink_to(path.name)
        case "nowhere":
            path.symlink_to("nowhere")
        case "cut":
            path.write_bytes(data[: rng.randrange(max(1, len(data)))])


def rewrite(path: Path, rng: random.Random) -> None:
    """Change a file in the way of its kind; another change where nothing came of the first."""
    before = path.read_bytes()
    for _ in range(50):
        if path.suffix == ".safetensors":
            made = changed_tensors(before, rng)
        elif path.suffix == ".jsonl":
            made = _changed_lines(before, rng)
        elif path.suffix == ".json":
            made = changed_json(before.decode(), rng).encode(errors="surrogateescape")
        else:
            made = changed_bytes(before, rng)
        if made != before:
            path.write_bytes(made)
            return
    raise AssertionError(f"nothing was changed in {path}")


def _changed_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.decode().splitlines()
    at = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            return changed_bytes(data, rng)
        case 1:
            lines.insert(at, rng.choice(("", "null", "5", "[]", "{}", "[" * 9000, lines[at])))
        case _:
            lines[at] = changed_json(lines[at], rng)
    return "\n".join([*lines, ""]).encode(errors="surrogateescape")


def model(path: Path, rng: random.Random) -> str:
    """Change an exported file as `mutations.py` does, or seal metadata that were rewritten."""
    if rng.random() < 0.6:
        kind, data = mutated(path.read_bytes(), rng.randrange(10**6))
        path.write_bytes(data)
        return kind
    import onnx

    from zoo.export.seal import BLANK, KEY

    before = path.read_bytes()
    while True:
        loaded = onnx.load_model_from_string(before)
        prop = rng.choice([p for p in loaded.metadata_props if p.key != KEY])
        try:
            json.loads(prop.value)
            prop.value = changed_json(prop.value, rng)
        except ValueError:
            prop.value = rng.choice(("", "x", "\0", "\x1b[2J", "9" * 400, prop.value[::-1]))
        except UnicodeEncodeError:
            continue
        if rng.random() < 0.1:
            loaded.metadata_props.add(key=prop.key, value=prop.value)
        next(p for p in loaded.metadata_props if p.key == KEY).value = BLANK.decode()
        made = seal(loaded.SerializeToString())
        if made != before:
            path.write_bytes(made)
            return "metadata"


def resealed(run: Path) -> None:
    """Write the digests of a run's tensors into its record, as whoever changed them would."""
    record = json.loads((run / "run.json").read_text())
    data = {name: (run / f"{name}.safetensors").read_bytes() for name in ("weights", "examples")}
    record["weights_sha256"] = hashlib.sha256(data["weights"]).hexdigest()
    record["data"]["sha256"] = hashlib.sha256(data["examples"]).hexdigest()
    (run / "run.json").write_text(json.dumps(record))


Change = Callable[[Path, random.Random], str]
