"""kill -9 at random moments of export, int8, bundle, report, cache, bench and self-training.

python benchmarks/kills_of_verbs.py --write            # 203 kills, 29 of each: half an hour
python benchmarks/kills_of_verbs.py --kills 3 --verb export

Each command is a process forked from this one, which has imported what they import: the kill
falls into the verb's own work. Two of three fall at a moment drawn from the whole life of the
command, and one of three soon after something appears under a temporary name. Then no file under a
final name may be half-written; the command, typed again, must end well, with what a command comes
to that was never killed, and nothing may be left that is not there without a kill.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from once import read_operators_once
from PIL import Image
from report import machine, print_machine, refuse_part

from zoo import runs
from zoo.export.bundle import manifest
from zoo.export.golden import proof_path
from zoo.export.modelfile import open_model
from zoo.export.silence import silence
from zoo.runs import Run

RESULT = Path(__file__).parent / "results" / "kills_of_verbs.json"
KILLS = 29
LIMIT = 300.0
"""Seconds that a command may take."""
TEMPORARY = re.compile(r"\.zoo-draft-.*|\..*\.partial|\.partial-.*|\.seen\.sha256\..*")
SMALL = ("--backbone", "mlp", "-b", "widths=16", "-b", "features=8", "--threads", "1")
BENCH = (
    "--backbone mlp -b widths=16 -b features=8 --dataset digits --objectives reconstruct"
    " --labels 50 --seeds 1 --pretrain epochs=2 --finetune epochs=4 --steps 0 -o bench"
)
DIGITS = (*SMALL, "--dataset", "digits")
Content = dict[str, Any]


# --- a command, in a process of its own --------------------------------------------------------


def warm() -> None:
    """Import what every command needs; their processes are forked from this one."""
    import torch

    for verb in ("train", "deploy", "bundle", "measure", "bench"):
        __import__(f"zoo.cli.{verb}")
    torch.set_num_threads(1)
    read_operators_once()
    with silence():
        small = (torch.nn.Linear(2, 2), (torch.zeros(1, 2),), None)
        torch.onnx.export(*small, dynamo=True, verbose=False)  # it reads them at the first export


def begin(folder: Path, words: list[str]) -> int:
    """Type a command in a folder; its temporary files and data sets lie there too."""
    sys.stdout.flush()
    sys.stderr.flush()
    for name in ("said", "told"):  # the process may be killed before it has opened them
        (folder / "tmp" / name).touch()
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.chdir(folder)
        os.environ |= {"TMPDIR": str(folder / "tmp"), "ZOO_DATA": str(folder / "data"),
                       "ZOO_RUNTIMES": "none", "OMP_NUM_THREADS": "1"}  # fmt: skip
        os.environ.pop("ZOO_RUNS", None)
        tempfile.tempdir = None
        for number, name in ((1, "said"), (2, "told")):
            place = os.open(folder / "tmp" / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(place, number)
        from zoo.cli.main import zoo

        zoo.main(words)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def ended(process: int, until: float, stop: Callable[[], bool] = lambda: False) -> int | None:
    """Wait for a process to end, for a moment, or for what stops the waiting; return its status."""
    while time.monotonic() < until and not stop():
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None


def finish(folder: Path, words: list[str]) -> None:
    """Type a command and let it end; AssertionError where it does not, or not well."""
    process = begin(folder, words)
    status = ended(process, time.monotonic() + LIMIT)
    if status is None:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    told = (folder / "tmp" / "told").read_text(errors="replace")
    assert status == 0, f"{' '.join(words)} ended with {status}: {told[-2000:]}"
    clean(folder)


def clean(folder: Path) -> str:
    """Take away what a command printed, and return what it told last."""
    told = (folder / "tmp" / "told").read_text(errors="replace").splitlines()
    for name in ("said", "told"):
        (folder / "tmp" / name).unlink()
    return next((line for line in reversed(told) if line.strip()), "")


# --- what there is -----------------------------------------------------------------------------


def temporary(folder: Path) -> list[str]:
    """Return what has a temporary name, the system's temporary files among it."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            inner = path.parent.relative_to(folder)
            if TEMPORARY.fullmatch(path.name) or str(inner) == "tmp":
                found.append(str(path.relative_to(folder)))
    kept = ("tmp/said", "tmp/told", "tmp/torchinductor_")  # torch keeps its cache there
    return [name for name in found if not name.startswith(kept)]


def names(folder: Path) -> list[str]:
    """Return the paths below a folder; of a run its kind alone, for its name has a time in it."""
    paths = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    run = re.compile(r"\d{4}-[\dT-]+-(\w+)-[\w-]+-[0-9a-f]{4}(?=/|$)")
    return sorted(run.sub(r"\1", path) for path in paths if not path.startswith("tmp/"))


def check_whole(folder: Path) -> None:
    """AssertionError where a file under a final name is not whole."""
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if any(TEMPORARY.fullmatch(part) for part in parts) or parts[0] == "tmp":
            continue
        if path.suffix == ".onnx" and path.is_file():
            open_model(path)
            beside = path.parent / "proof.json"
            assert proof_path(path).exists() or beside.exists(), f"{path} has no proof"
        elif path.suffix == ".json" and path.is_file():
            json.loads(path.read_bytes())
        elif path.suffix == ".html" and path.is_file():
            assert path.read_bytes().rstrip().endswith(b"</html>"), path
        elif path.name == "weights.safetensors" and "checkpoint" not in parts:
            from safetensors.numpy import load

            load(path.read_bytes())
        elif path.is_dir() and (path / "index.html").exists():
            assert not manifest.faults(path, manifest.read(path)), path
        elif path.is_dir() and path.parent.name == "runs" and not path.name.startswith("."):
            runs.load(path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def the(folder: Path, kind: str, fits: Callable[[Run], bool] = lambda run: True) -> Run:
    [found] = [r for r in runs.every(folder / "runs")[0] if r.record.kind == kind and fits(r)]
    return found


def taught(run: Run) -> bool:
    return run.record.self_train is not None


def the_first(folder: Path) -> Run:
    return the(folder, "finetune", lambda run: not taught(run))


# --- the verbs ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Verb:
    """A command, what is typed once it was killed, and what it comes to; `folder` is its place."""

    command: Callable[[Path], list[str]]
    result: Callable[[Path], Content]
    again: Callable[[Path], list[str]] | None = None


def _export(folder: Path, *more: str) -> list[str]:
    return ["export", str(the_first(folder).name), "--license", "MIT", *more]


def _exported(folder: Path, name: str) -> Content:
    model = the_first(folder).folder / name
    proof = json.loads(proof_path(model).read_bytes())
    assert proof["file_sha256"] == sha256(model)
    return {"model": sha256(model), "verdict": proof["verdict"], "golden": proof["golden"]}


def _bundled(folder: Path) -> Content:
    """What a bundle holds, but for how often the test split was read: a killed one read it, too."""
    place = folder / "b"
    content = manifest.read(place)
    proof = json.loads((place / "proof.json").read_bytes())
    proof.pop("test_readings")
    proof["lineage"]["run"].pop("tests", None)
    told = {"README.md", "proof.json"}
    return {
        "files": {name: sha256(place / name) for name in content["files"] if name not in told},
        "proof": proof,
    }


def _reported(folder: Path) -> Content:
    page = (the_first(folder).folder / "report.html").read_text()
    return {
        "page": hashlib.sha256(
            re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.+]+", "", page).encode()
        ).hexdigest()
    }


def _cached(folder: Path) -> Content:
    found = [
        path
        for path in (folder / "data").rglob("*")
        if path.name in ("pixels.u8", "digests.sha256")
    ]
    return {path.name: sha256(path) for path in found}


def _benched(folder: Path) -> Content:
    cells = [
        json.loads(line) for line in (folder / "bench" / "cells.jsonl").read_text().splitlines()
    ]
    shown = {cell["key"]: [cell["accuracy"], cell["method"]] for cell in cells}
    assert (folder / "bench" / "table.md").read_text().startswith("|")
    return {"cells": shown}


def _self_trained(folder: Path) -> Content:
    run = the(folder, "finetune", taught)
    assert run.state == "finished", run.state
    return {"weights": run.record.weights_sha256}


def _resume(folder: Path) -> list[str]:
    """Go on with the run, begin where there is none, and look where it is finished."""
    made = [run for run in runs.every(folder / "runs")[0] if taught(run)]
    if not made:
        return VERBS["self-training"].command(folder)
    return ["runs"] if made[0].state == "finished" else ["resume", made[0].name]


VERBS = {
    "export": Verb(_export, lambda folder: _exported(folder, "model.onnx")),
    "int8": Verb(
        lambda folder: _export(folder, "--int8", "--max-drop", "20"),
        lambda folder: _exported(folder, "model.int8.onnx"),
    ),
    "bundle": Verb(
        lambda folder: ["bundle", the_first(folder).name, "-o", "b", "--no-web", "--force"],
        _bundled,
    ),
    "report": Verb(lambda folder: ["report", the_first(folder).name], _reported),
    "cache": Verb(
        lambda folder: ["finetune", *SMALL, "--dataset", "folder", "-d", "path=../pictures",
                        "-d", "size=32", "--epochs", "1"],
        _cached,
    ),
    "bench": Verb(
        lambda folder: ["bench", "labels", *BENCH.split()],
        _benched,
    ),
    "self-training": Verb(
        lambda folder: ["finetune", the_first(folder).name, "--self-train", "--epochs", "6",
                        "--threads", "1", "--checkpoint-steps", "1"],
        _self_trained,
        _resume,
    ),
}  # fmt: skip


def prepare(folder: Path) -> Path:
    """Make what every case begins with: a finetuning, its file, a bundle of an older file."""
    base = folder / "base"
    for name in ("tmp", "data"):
        (base / name).mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number in range(1200):
        place = folder / "pictures" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (96, 96, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    finish(base, ["finetune", *DIGITS, "--labels", "600", "--epochs", "2"])
    finish(base, ["export", "latest", "--license", "Apache-2.0"])
    finish(base, ["bundle", "latest", "-o", "b", "--no-web"])
    finish(base, ["export", "latest", "--license", "CC-BY-4.0"])
    return base


@contextlib.contextmanager
def case(base: Path) -> Iterator[Path]:
    folder = base.parent / "case"  # of the same name each time: a cache's name has its path in it
    shutil.copytree(base, folder, symlinks=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def kill(name: str, base: Path, life: float, moment: float, soon: bool) -> tuple[str, bool] | None:
    """Kill a command once, look at what is there, type it again; None where it had ended before.

    Returns what it had told last, and whether something under a temporary name was there.
    """
    verb = VERBS[name]
    with case(base) as folder:
        process = begin(folder, verb.command(folder))
        now = time.monotonic()
        if soon:
            seen = ended(process, now + LIMIT, lambda: bool(temporary(folder)))
            moment = moment * 0.03
            now = time.monotonic()
        else:
            seen, moment = None, moment * life
        if seen is None:
            seen = ended(process, now + moment)
        if seen is not None:
            assert seen == 0, clean(folder)
            return None
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        told = clean(folder)
        left = temporary(folder)
        check_whole(folder)
        finish(folder, (verb.again or verb.command)(folder))
        again = temporary(folder)
        assert not again, f"{name}: left behind: {again}"
        check_whole(folder)
        wanted, had = REFERENCES[name]
        dead = [run for run in runs.every(folder / "runs")[0] if run.state == "dead"]
        if name == "cache":  # a run that was killed stays, and `zoo runs` calls it dead
            for run in dead:
                shutil.rmtree(run.folder)
        assert names(folder) == had, set(names(folder)) ^ set(had)
        found = verb.result(folder)
        assert found == wanted, f"{name}: {found} is not {wanted}"
    return told, bool(left)


REFERENCES: dict[str, tuple[Content, list[str]]] = {}


def phase(told: str) -> str:
    """Name what a command was doing by what it told last."""
    text = re.sub(r"[\d(].*", "", told).strip(" :")
    return re.sub(r"\s+", " ", text) or "before its first word"


def kills_of(name: str, base: Path, wanted: int) -> Content:
    """Kill a verb so often; returns how many kills fell where, and how many left something."""
    verb = VERBS[name]
    for _ in range(2):  # the second time nothing is new to the process's libraries
        with case(base) as folder:
            started = time.monotonic()
            finish(folder, verb.command(folder))
            life = time.monotonic() - started
            assert not temporary(folder), temporary(folder)
            check_whole(folder)
            found = (verb.result(folder), names(folder))
            before = REFERENCES.setdefault(name, found)
            assert before == found, f"{name} comes to two results: {before}, {found}"
    draw = random.Random(name)
    phases: collections.Counter[str] = collections.Counter()
    quarters = [0, 0, 0, 0]
    drafts = count = late = 0
    while count < wanted:
        soon = count % 3 == 2
        moment = draw.random()
        hit = kill(name, base, life, moment, soon)
        if hit is None:
            late += 1
            assert late <= 3 * wanted + 5, f"{name} ends before it is killed"
            life *= 0.95
            continue
        count += 1
        phases[phase(hit[0])] += 1
        drafts += hit[1]
        quarters[int(4 * moment)] += not soon
    return {
        "kills": count,
        "in each quarter of its life": quarters,
        "soon after a temporary name": count - sum(quarters),
        "left something, cleared by the next": drafts,
        "ended first, not counted": late,
        "told last": dict(phases.most_common()),
    }


def run(folder: Path, verbs: tuple[str, ...], wanted: int) -> Content:
    """Kill each of the verbs so often; AssertionError at the first fault."""
    warm()
    REFERENCES.clear()
    base = prepare(folder)
    found = {}
    for name in verbs:
        started = time.monotonic()
        found[name] = kills_of(name, base, wanted)
        click.echo(f"{name}: {found[name]}, {time.monotonic() - started:.0f} s", err=True)
    return found


@click.command(help=__doc__)
@click.option("--kills", default=KILLS, show_default=True, help="Of each verb.")
@click.option("--verb", "verbs", multiple=True, type=click.Choice(list(VERBS)), default=list(VERBS))
@click.option("--write", is_flag=True, help="Write benchmarks/results/kills_of_verbs.json.")
def main(kills: int, verbs: tuple[str, ...], write: bool) -> None:
    refuse_part(write, kills < KILLS, "fewer --kills")
    here = machine()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder).resolve(), verbs, kills)
    if write:  # verb by verb, each with the commit that it was killed on
        before = json.loads(RESULT.read_text())["counts"] if RESULT.exists() else {}
        made = {name: {"commit": here["commit"], **counts} for name, counts in found.items()}
        counts = {name: (before | made)[name] for name in VERBS if name in before | made}
        RESULT.write_text(json.dumps({"machine": here, "counts": counts}, indent=2) + "\n")
    print_machine(here)
    for name, counts in found.items():
        print(f"{name}: {json.dumps(counts)}")


if __name__ == "__main__":
    main()
