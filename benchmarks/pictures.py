"""Pictures of every format, mode and depth through every reader, against the rule read once more.

python benchmarks/pictures.py                   # all, and 50 damaged ones: two minutes
python benchmarks/pictures.py --sample 40       # of these, drawn by a seed
python benchmarks/pictures.py --sheet sheet.png # what became of them, to look at
"""

from __future__ import annotations

import base64
import collections
import functools
import http.server
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import click
import numpy as np
import PIL
from picture_files import Array, Case, by_rule, damaged, whole
from PIL import Image
from report import ROOT, machine, print_machine, refuse_part

from zoo.export.bundle.contents import device_files

RESULT = Path(__file__).parent / "results" / "pictures.json"
DAMAGED = 150
INPUTS = [
    {"channels": 3, "height": 12, "width": 16},
    {"channels": 1, "height": 16, "width": 12},
]
READERS = ("zoo", "run.py", "node", "page")
MODULES = Path(os.environ.get("ZOO_NODE_MODULES") or ROOT / "tests" / "node_modules")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = os.environ.get("ZOO_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
READS = {
    "node": {"PNG", "JPEG", "MPO", "WEBP", "GIF", "AVIF", "TIFF"},
    "page": {"PNG", "JPEG", "MPO", "WEBP", "GIF", "AVIF", "BMP"},
}
NOT_READ = {
    "node": ("telephone", "CMYK", "TIFF-LAB", "TIFF-YCbCr", "12bit", "small-frame"),
    "page": ("telephone", "CMYK", "AVIF-RGBA", "AVIF-LA", "small-frame"),
}
"""Parts of the names of those that Node and the page leave to Python, though of their formats."""
APART = {"PNG": 0, "WEBP": 2, "GIF": 1, "BMP": 2, "TIFF": 2, "JPEG": 4, "MPO": 4, "AVIF": 32}
"""Levels of 255 that Node or the page may be off from Python: their decoders are others.

AVIF stores a colour for four pixels, and each decoder spreads it in its own way.
"""

LENIENT = {"AVIF", "GIF"}
"""Of these a browser or sharp shows of a damaged file what Pillow's decoder refuses."""

Answers = dict[str, list[list[str]]]


@functools.cache
def all_cases() -> list[Case]:
    cases = whole()
    return cases + damaged(cases, DAMAGED)


def sample(cases: Sequence[Case], count: int, seed: int = 0) -> list[Case]:
    """Draw so many of the published ones."""
    return random.Random(seed).sample(list(cases), count)


# --- the readers -------------------------------------------------------------------------------


def ask(cases: Sequence[Case], folder: Path, readers: Sequence[str] = READERS) -> Answers:
    """Have every file read by each reader; AssertionError where one writes to stderr, or dies."""
    paths = []
    for number, case in enumerate(cases):
        paths.append(folder / f"{number}.jpg")  # whatever it is
        paths[-1].write_bytes(case.data)
    task = {"paths": list(map(str, paths)), "inputs": INPUTS, "runner": None}
    device = folder / "device"
    device.mkdir()
    for name, data in device_files().items():
        (device / name).write_bytes(data)
    how: dict[str, Callable[[], list[list[str]]]] = {
        "zoo": lambda: _told([sys.executable, "read_pictures.py"], task),
        "run.py": lambda: _told(
            [sys.executable, "read_pictures.py"], {**task, "runner": str(device / "run.py")}
        ),
        "node": lambda: _in_node(device, task),
        "page": lambda: _in_page(device, task),
    }
    return {name: how[name]() for name in readers}


def _told(command: list[str], task: dict[str, Any]) -> list[list[str]]:
    here = Path(__file__).parent
    program, script = command
    done = subprocess.run(
        [program, str(here / script)], input=json.dumps(task), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == "", done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(task["paths"])
    return lines


def _in_node(device: Path, task: dict[str, Any]) -> list[list[str]]:
    """Read as run.mjs does: its last line, which reads the command line, is left out."""
    text = (device / "run.mjs").read_text()
    last = "await main(process.argv.slice(2));\n"
    assert text.endswith(last)
    runner = device / "reader.mjs"
    runner.write_text(text.removesuffix(last) + "export { readPicture };\n")
    (device.parent / "node_modules").symlink_to(MODULES.resolve(), target_is_directory=True)
    return _told(["node", "read_pictures.mjs"], {**task, "module": str(runner)})


class _Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map: ClassVar = {".mjs": "text/javascript", ".html": "text/html"}

    def log_message(self, *args: Any) -> None:
        pass


def _in_page(device: Path, task: dict[str, Any]) -> list[list[str]]:
    (device / "blank.html").write_text("<!doctype html><title>pictures</title>")
    handle = functools.partial(_Quiet, directory=str(device))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handle) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        more = {"url": url, "modules": str(MODULES.resolve()), "browser": BROWSER}
        found = _told(["node", "read_pictures.mjs"], {**task, **more})
        server.shutdown()
    return found


# --- the judgement -----------------------------------------------------------------------------


def judge(cases: Sequence[Case], answers: Answers) -> dict[str, Any]:
    """Count what became of the files; AssertionError, with all of them, where any is wrong."""
    wrong: list[str] = []
    counts: collections.Counter[str] = collections.Counter()
    alone: collections.Counter[str] = collections.Counter()
    off: dict[str, float] = {}
    for number, case in enumerate(cases):
        said = {reader: told[number] for reader, told in answers.items()}
        wrong += [f"{case.name}: {fault}" for fault in _faults(case, said, off)]
        for reader, lines in said.items():
            what = "damaged" if case.damaged else "whole"
            read = all(line.startswith("=") for line in lines)
            counts[f"{reader}: {what}, {'read' if read else 'refused'}"] += 1
            alone[reader] += read and not said["zoo"][0].startswith("=")
    assert not wrong, "\n".join(wrong)
    told = {"counts": counts, "alone": +alone, "off": off}
    return {name: dict(sorted(found.items())) for name, found in told.items()}


def _faults(case: Case, said: dict[str, list[str]], off: dict[str, float]) -> list[str]:
    found = []
    for reader, lines in said.items():
        for line in lines:
            if not line.startswith("=") and (not line or "\n" in line or "CRASH" in line):
                found.append(f"{reader} said {line!r}")
    if "run.py" in said:
        same = [line.rstrip(".") for line in said["run.py"]]
        if same != [line.rstrip(".") for line in said["zoo"]]:
            found.append(f"run.py is not zoo: {said['zoo'][0][:90]} | {said['run.py'][0][:90]}")
    for i, input in enumerate(INPUTS):
        ours = _pixels(said["zoo"][i], input)
        if not case.damaged and (ours is None) != (case.shows is None):
            found.append(f"zoo: {said['zoo'][i][:120]}")
        if ours is not None and case.shows is not None:
            apart = float(np.abs(ours - by_rule(case.shows, **input)).max())
            if case.off < 255:
                _keep(off, f"zoo, {case.format}", apart)
            if not apart <= case.off:
                found.append(f"zoo is {apart:.1f} off the rule as {input}")
        for reader in set(said) & set(READS):
            found += _beside(case, reader, _pixels(said[reader][i], input), ours, off)
    return found


def _beside(
    case: Case, reader: str, theirs: Array | None, ours: Array | None, off: dict[str, float]
) -> list[str]:
    """Hold Node's or the page's answer beside ours."""
    reads = case.format in READS[reader] and not any(part in case.name for part in NOT_READ[reader])
    if theirs is None:
        left = not case.damaged and reads and ours is not None
        return [f"{reader} refuses it"] if left else []
    if ours is None:
        if case.damaged and case.format in LENIENT:
            return []
        return [f"{reader} reads what zoo refuses"]
    apart = float(np.abs(theirs - ours).max())
    _keep(off, f"{reader}, {case.format}", apart)
    fine = apart <= APART.get(case.format, -1)
    return [] if fine else [f"{reader} is {apart:.0f} off zoo"]


def _keep(off: dict[str, float], name: str, value: float) -> None:
    off[name] = round(max(off.get(name, 0.0), value), 2)


def _pixels(line: str, input: dict[str, int]) -> Array | None:
    if not line.startswith("="):
        return None
    flat = np.frombuffer(base64.b64decode(line[1:]), np.uint8).astype(np.float64)
    return flat.reshape(input["channels"], input["height"], input["width"])


def rows(found: dict[str, Any]) -> list[list[str]]:
    """Return the table that benchmarks/README.md shows."""
    told = [["reader", "whole: read", "refused", "damaged: read", "refused"], ["---"] * 5]
    for reader in READERS:
        kinds = [f"{reader}: {a}, {b}" for a in ("whole", "damaged") for b in ("read", "refused")]
        told.append([f"`{reader}`", *(str(found["counts"].get(kind, 0)) for kind in kinds)])
    return told


def sheet(cases: Sequence[Case], answers: Answers, path: Path) -> None:
    """Lay what was read out in a picture: a row by the rule, then one of each reader."""
    height, width = INPUTS[0]["height"] + 1, INPUTS[0]["width"] + 1
    shown = [i for i, case in enumerate(cases) if case.shows is not None]
    across = 24
    rows = [None, *answers]
    total = -(-len(shown) // across) * len(rows)
    out = np.full((total * height, across * width, 3), 128, np.uint8)
    for place, i in enumerate(shown):
        for down, reader in enumerate(rows):
            shows = cases[i].shows
            assert shows is not None
            made = by_rule(shows, **INPUTS[0]) if reader is None else None
            made = made if reader is None else _pixels(answers[reader][i][0], INPUTS[0])
            top = (place // across * len(rows) + down) * height
            left = place % across * width
            if made is not None:
                cell = out[top : top + height - 1, left : left + width - 1]
                cell[:] = made.round().clip(0, 255).transpose(1, 2, 0)
    Image.fromarray(out).resize((out.shape[1] * 3, out.shape[0] * 3), 0).save(path)


@click.command(help=__doc__)
@click.option("--sample", "count", type=click.IntRange(1), help="So many of them.")
@click.option("--seed", default=0, show_default=True, help="Of the sample.")
@click.option("--only", multiple=True, help="Those whose names contain this.")
@click.option("--reader", "readers", multiple=True, type=click.Choice(READERS[1:]))
@click.option("--sheet", "picture", type=click.Path(path_type=Path), help="Write a picture.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--write", is_flag=True, help="Write benchmarks/results/pictures.json.")
def main(
    count: int | None, seed: int, only: tuple[str, ...], readers: tuple[str, ...],
    picture: Path | None, as_json: bool, write: bool,
) -> None:  # fmt: skip
    refuse_part(write, bool(count or only or readers), "--sample, --only or --reader")
    cases = all_cases()
    if only:
        cases = [case for case in cases if any(part in case.name for part in only)]
    if count is not None:
        cases = sample(cases, count, seed)
    with tempfile.TemporaryDirectory() as name:
        answers = ask(cases, Path(name), ("zoo", *(readers or READERS[1:])))
    if picture:
        sheet(cases, answers, picture)
    here = machine()
    here["versions"]["pillow"] = PIL.__version__
    found = {"machine": here, "files": len(cases), **judge(cases, answers)}
    if write:
        RESULT.write_text(json.dumps(found, indent=2) + "\n")
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print_machine(found["machine"])
    for row in rows(found):
        print(f"| {' | '.join(row)} |")
    for what, number in {**found["alone"], **found["off"]}.items():
        print(f"{what}: {number}")


if __name__ == "__main__":
    main()
