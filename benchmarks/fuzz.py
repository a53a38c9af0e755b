"""Random changes of all that zoo reads and others may have written: what its verbs said of them.

python benchmarks/fuzz.py                         # 3,200 cases: a quarter of an hour
python benchmarks/fuzz.py --sample 60             # of these, drawn by a seed
python benchmarks/fuzz.py --number 1234           # one of them, with all that was said
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import fuzzed
import numpy as np
from click.testing import CliRunner
from PIL import Image
from report import machine, plainly, print_machine, refuse_part

from zoo import pipeline, runs
from zoo.api import Component, FinetuneConfig, PretrainConfig, TrainConfig
from zoo.pipeline import Workspace
from zoo.runs import Run
from zoo.untrusted import parse_json

RESULT = Path(__file__).parent / "results" / "fuzz.json"
BENCH = Path(__file__).parent / "results" / "labels" / "mnist"
NUMBERS = range(3200)
"""A case's number is the seed of what it changes."""
SECONDS = 60
MEMORY = 6 * 2**30
"""Bytes of addresses that a case may take beyond what the process has that it is forked from."""
Verb = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Fixture:
    """What is changed: `here` is made anew for each case from `kept`, at the same place."""

    here: Path
    kept: Path
    names: dict[str, str]
    accuracy: dict[str, float]

    def run(self, name: str) -> Path:
        return self.here / "runs" / self.names[name]

    def renew(self) -> None:
        if self.here.exists() or self.here.is_symlink():
            shutil.rmtree(self.here)
        shutil.copytree(self.kept, self.here, symlinks=True)


def prepare(folder: Path) -> Fixture:
    """Train, measure, export and bundle two small classifiers, and stop a pretraining."""
    here = folder / "here"
    workspace = Workspace(runs=here / "runs", data=here / "data")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (here / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 128, (8, 8), np.uint8) + np.uint8(label * 127)
            Image.fromarray(pixels).save(here / "pictures" / name / f"{number}.png")
    training = TrainConfig(epochs=2, batch_size=64, lr=3e-3, threads=1)
    backbone = Component("mlp", widths=(8,), features=8)
    few = FinetuneConfig(labels=100)
    before = pipeline.pretrain(
        backbone=backbone,
        training=dataclasses.replace(training, epochs=1),
        pretrain=PretrainConfig(probe="none"),
        workspace=workspace,
    )
    digits = pipeline.finetune(before, training=training, finetune=few, workspace=workspace)
    pets = pipeline.finetune(
        backbone=backbone,
        dataset=Component("folder", path=str(here / "pictures"), size=8, channels=1),
        training=dataclasses.replace(training, validation=0),
        workspace=workspace,
    )
    named = {"before": before, "digits": digits, "pets": pets}
    accuracy = {}
    for name in ("digits", "pets"):
        accuracy[name] = pipeline.evaluate(named[name], workspace=workspace).accuracy
        pipeline.export(named[name], workspace=workspace)
    named["half"] = _stopped(backbone, training, workspace)
    pipeline.bundle(digits, here / "bundle", web=False, workspace=workspace)
    shutil.copytree(BENCH, here / "bench", ignore=shutil.ignore_patterns("*.svg", "*.png"))
    shutil.copytree(here, folder / "kept", symlinks=True)
    names = {name: run.name for name, run in named.items()}
    return Fixture(here, folder / "kept", names, accuracy)


def _stopped(backbone: Component, training: TrainConfig, workspace: Workspace) -> Run:
    """Begin a pretraining that Ctrl-C ends after its first epoch."""
    real = Run.append_metrics

    def stop(run: Run, line: Any) -> None:
        real(run, line)
        raise KeyboardInterrupt

    Run.append_metrics = stop  # type: ignore[method-assign]
    try:
        training = dataclasses.replace(training, checkpoint_steps=1)
        pipeline.pretrain(backbone=backbone, training=training, workspace=workspace)
    except KeyboardInterrupt:
        pass
    finally:
        Run.append_metrics = real  # type: ignore[method-assign]
    return runs.every(workspace.runs_root)[0][-1]


# --- what is changed, and what is typed then ---------------------------------------------------

Chosen = tuple[str, list[Verb]]
"""What was changed, in words, and the commands that read it."""


def _record(at: Fixture, rng: random.Random) -> Chosen:
    name = rng.choice(("before", "digits", "digits", "half"))
    fuzzed.rewrite(at.run(name) / "run.json", rng)
    return f"run.json of {name}", [RUNS, *_of_runs(rng, 1)]


def _metrics(at: Fixture, rng: random.Random) -> Chosen:
    name = rng.choice(("before", "digits", "half"))
    fuzzed.rewrite(at.run(name) / "metrics.jsonl", rng)
    verbs = [RESUME] if name == "half" else [REPORT]
    return f"metrics.jsonl of {name}", verbs


def _tensors(at: Fixture, rng: random.Random) -> Chosen:
    paths = [p for name in ("before", "digits") for p in at.run(name).glob("*.safetensors")]
    paths += at.run("half").glob("checkpoint/*.safetensors")
    path = rng.choice(sorted(paths))
    fuzzed.rewrite(path, rng)
    told = f"{path.name} of {path.parent.name}"
    if path.parent.name == "checkpoint":
        if rng.random() < 0.7:  # its name holds its digest
            import hashlib

            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            path.rename(path.with_name(f"{path.name.split('-')[0]}-{path.name.split('-')[1]}"
                                       f"-{digest}.safetensors"))  # fmt: skip
        return told, [RESUME]
    if rng.random() < 0.5 and "outcomes" not in path.name:
        fuzzed.resealed(path.parent)
        told += ", its digest recorded"
    return told, _of_runs(rng, 1)


def _model(at: Fixture, rng: random.Random) -> Chosen:
    told = fuzzed.model(at.run("digits") / "model.onnx", rng)
    verbs = [INSPECT, PREDICT, *([VALIDATE] if rng.random() < 0.5 else [])]
    return f"model.onnx, {told}", verbs


def _proof(at: Fixture, rng: random.Random) -> Chosen:
    fuzzed.rewrite(at.run("digits") / "proof.json", rng)
    return "proof.json", rng.sample([VALIDATE, REPORT, REPRODUCE], 1)


def _cache(at: Fixture, rng: random.Random) -> Chosen:
    path = rng.choice(sorted(p for p in (at.here / "data" / "folder").rglob("*") if p.is_file()))
    if path.name == ".lock" or not path.stat().st_size:
        path = next(path.parent.rglob("index.json"))
    fuzzed.rewrite(path, rng)
    return f"{path.name} of the cache", [EVALUATE_PETS]


def _bundle(at: Fixture, rng: random.Random) -> Chosen:
    path = rng.choice(sorted(p for p in (at.here / "bundle").rglob("*") if p.is_file()))
    path = rng.choice((path, at.here / "bundle" / "model.json"))
    fuzzed.rewrite(path, rng)
    return f"{path.name} of a bundle", [VERIFY]


def _ledger(at: Fixture, rng: random.Random) -> Chosen:
    path = at.here / "bench" / rng.choice(("plan.json", "cells.jsonl"))
    fuzzed.rewrite(path, rng)
    return path.name, [TABLE]


def _hole(at: Fixture, rng: random.Random) -> Chosen:
    """Put what is no file in place of one."""
    kinds = {
        "record": (lambda: at.run(rng.choice(("before", "digits"))) / "run.json", [RUNS]),
        "metrics": (lambda: at.run("digits") / "metrics.jsonl", [REPORT]),
        "parent": (lambda: at.run("before") / "run.json", [RUNS, REPORT]),
        "weights": (lambda: at.run("digits") / "weights.safetensors", [EVALUATE, REPORT]),
        "examples": (lambda: at.run("digits") / "examples.safetensors", [EVALUATE]),
        "outcomes": (lambda: at.run("digits") / "test-outcomes.safetensors", [REPORT]),
        "model": (lambda: at.run("digits") / "model.onnx", [INSPECT, PREDICT, VALIDATE, REPORT]),
        "proof": (lambda: at.run("digits") / "proof.json", [REPORT, REPRODUCE]),
        "checkpoint": (lambda: next(at.run("half").glob("checkpoint/*")), [RESUME]),
        "index": (lambda: next((at.here / "data").rglob("index.json")), [EVALUATE_PETS]),
        "pixels": (lambda: next((at.here / "data").rglob("pixels.u8")), [EVALUATE_PETS]),
        "digests": (lambda: next((at.here / "data").rglob("digests.sha256")), [EVALUATE_PETS]),
        "seen": (lambda: next((at.here / "data").rglob("seen.sha256")), [EVALUATE_PETS]),
        "plan": (lambda: at.here / "bench" / "plan.json", [TABLE]),
        "cells": (lambda: at.here / "bench" / "cells.jsonl", [TABLE]),
        "picture": (lambda: at.here / "pictures" / "dark" / "3.png", [EVALUATE_PETS]),
        "pictures": (lambda: at.here / "pictures" / "dark", [EVALUATE_PETS]),
    }
    what = rng.choice(sorted(kinds))
    hole = rng.choice(fuzzed.HOLES)
    find, verbs = kinds[what]
    fuzzed.put(find(), hole, rng)
    return f"{hole} in place of {what}", verbs


def _lineage(at: Fixture, rng: random.Random) -> Chosen:
    """Let runs come of each other, or of themselves."""
    child, parent = rng.sample(("before", "digits", "half", "pets"), 2)
    for one, other in ((child, rng.choice((child, parent))), (parent, child)):
        path = at.run(one) / "run.json"
        content = json.loads(path.read_text())
        sha256 = json.loads((at.run(other) / "run.json").read_text())["weights_sha256"]
        content["parent"] = {"run": at.names[other], "weights_sha256": str(sha256)}
        path.write_text(json.dumps(content))
    return "a lineage in a circle", [RUNS, *_of_runs(rng, 2)]


DIGITS, PETS, HALF, BEFORE = "{digits}", "{pets}", "{half}", "{before}"
MODEL = "{digits}/model.onnx"
RUNS: Verb = ("runs",)
REPORT: Verb = ("report", DIGITS, "-o", "{here}/report.html")
EVALUATE: Verb = ("evaluate", DIGITS)
EVALUATE_PETS: Verb = ("evaluate", PETS)
VALIDATE: Verb = ("validate", MODEL, "--partial")
EXPORT: Verb = ("export", DIGITS, "-o", "{here}/again.onnx")
RESUME: Verb = ("resume", HALF)
COMPARE: Verb = ("compare", DIGITS, PETS)
INSPECT: Verb = ("inspect", MODEL)
PREDICT: Verb = ("predict", MODEL, "{here}/pictures/dark/0.png")
REPRODUCE: Verb = ("reproduce", MODEL)
VERIFY: Verb = ("bundle", "--verify", "{here}/bundle")
TABLE: Verb = ("bench", "table", "{here}/bench")
FINETUNE: Verb = ("finetune", "latest", "--epochs", "1", "--labels", "20", "--threads", "1")
EVERY = (RUNS, REPORT, EVALUATE, EVALUATE_PETS, VALIDATE, EXPORT, RESUME, COMPARE, INSPECT, PREDICT,
         VERIFY, TABLE, FINETUNE)  # fmt: skip
KINDS: dict[str, tuple[int, Callable[[Fixture, random.Random], Chosen]]] = {
    "record": (20, _record),
    "metrics": (8, _metrics),
    "tensors": (14, _tensors),
    "model": (18, _model),
    "proof": (7, _proof),
    "cache": (12, _cache),
    "bundle": (9, _bundle),
    "ledger": (5, _ledger),
    "no file": (10, _hole),
    "lineage": (3, _lineage),
}


def _of_runs(rng: random.Random, count: int) -> list[Verb]:
    verbs = (REPORT, EVALUATE, VALIDATE, EXPORT, RESUME, COMPARE, FINETUNE)
    chosen: list[Verb] = rng.choices(verbs, (2, 7, 1, 1, 4, 4, 1), k=count)
    return list(dict.fromkeys(chosen))


# --- one case ------------------------------------------------------------------------------------


def case(number: int, at: Fixture) -> dict[str, Any]:
    """Change one thing, and let a forked process type what reads it; the tree is left changed."""
    rng = random.Random(number)
    kind = rng.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
    at.renew()
    what, verbs = KINDS[kind][1](at, rng)
    said = [typed(at, verb, as_json=rng.random() < 0.7) for verb in verbs]
    return {"number": number, "kind": kind, "what": what, "said": said}


def typed(at: Fixture, verb: Verb, *, as_json: bool = True) -> dict[str, Any]:
    """Type a command in a process of its own; its death and its delay are outcomes, too."""
    places = {name: str(at.run(name)) for name in at.names} | {"here": str(at.here)}
    words = [word.format(**places) for word in verb]
    if verb[:2] != ("bench", "table") or as_json:
        words += ["--json"] if as_json else []
    if verb[0] in ("runs", "report", "evaluate", "validate", "export", "resume", "compare",
                   "reproduce", "finetune"):  # fmt: skip
        words += ["--runs", str(at.here / "runs")]
    reader, writer = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if not child:
        os.close(reader)
        _answer(words, at, writer)
    os.close(writer)
    text, ended = _read(reader, began + SECONDS)
    if not ended:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found: dict[str, Any] = {"verb": verb[0], "json": as_json, "words": words[:4]}
    if not ended:
        return {**found, "outcome": "hang"}
    if status or not text:
        return {**found, "outcome": f"death {status}"}
    return {**found, **json.loads(text)}


def _answer(words: list[str], at: Fixture, writer: int) -> None:
    """Run the command in this forked process, and say what came of it."""
    try:
        os.setpgid(0, 0)
        os.chdir(at.here)
        os.environ["ZOO_DATA"] = str(at.here / "data")
        own = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY, own + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from zoo.cli.main import zoo as command

        result = CliRunner().invoke(command, words, prog_name="zoo")
        trace = ""
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            trace = "".join(traceback.format_exception(result.exception))[-3000:]
        answer = {
            "outcome": "answered" if result.exit_code == 0 else "refused",
            "status": result.exit_code,
            "stdout": result.stdout[-20_000:] if trace else result.stdout,
            "stderr": result.stderr[-3000:],
            "trace": trace,
        }
        with open(writer, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(answer))
    finally:
        os._exit(0)


def _read(reader: int, until: float) -> tuple[str, bool]:
    parts = []
    with open(reader, "rb", buffering=0) as file:
        while (left := until - time.monotonic()) > 0:
            if not select.select([file], [], [], left)[0]:
                break
            part = file.read(1 << 16)
            if not part:
                return b"".join(parts).decode(), True
            parts.append(part)
    return "", False


# --- judging -------------------------------------------------------------------------------------


def fault_of(found: dict[str, Any], at: Fixture) -> str:
    """Say what is wrong with what a case's verbs said, or nothing."""
    for said in found["said"]:
        why = _broken(said) or _false(found, said, at)
        if why:
            return f"{' '.join(said['words'])}: {why}".replace(str(at.here), "here")
    return ""


def _broken(said: dict[str, Any]) -> str:
    if said["outcome"] == "hang":
        return f"no answer within {SECONDS} s"
    if said["outcome"].startswith("death"):
        return f"it died: {said['outcome']}"
    if said["trace"] or "Traceback" in said["stdout"] + said["stderr"]:
        return said["trace"] or said["stderr"]
    if said["status"] not in (0, 1, 2):
        return f"exit status {said['status']}: {said['stderr']}"
    if said["status"] and not said["stderr"].strip() and not said["stdout"].strip():
        return "it failed and said nothing"
    if said["json"] and said["stdout"].strip():
        try:
            parse_json(said["stdout"])
        except ValueError as error:
            return f"no JSON: {error}"
    return ""


def _false(found: dict[str, Any], said: dict[str, Any], at: Fixture) -> str:
    """Say which word is false: proved, verified or measured, of what was changed."""
    if said["status"]:
        return ""
    kind, verb, text = found["kind"], said["verb"], said["stdout"]
    changed_model = kind == "model" or found["what"].endswith("in place of model")
    if verb == "validate" and changed_model and "proved" in text and "not proved" not in text:
        return "a changed file is proved"
    if verb in ("inspect", "predict") and found["what"] == "model.onnx, bytes":
        return "bytes that were changed are taken for what was sealed"
    if verb == "bundle":
        return "a changed bundle is as recorded"
    if kind == "tensors" and "its digest" not in found["what"] and verb in ("evaluate", "export"):
        named = found["what"].endswith(at.names["digits"]) and "outcomes" not in found["what"]
        if named:
            return "tensors that are not those of the record are measured"
    if verb == "evaluate" and said["json"] and kind in ("cache", "metrics", "proof"):
        name = "pets" if at.names["pets"] in " ".join(said["words"]) else "digits"
        if json.loads(text)["accuracy"] != at.accuracy[name]:
            return f"another accuracy: {json.loads(text)['accuracy']}, not {at.accuracy[name]}"
    if verb == "validate" and kind in ("record", "lineage"):
        return _contradicts(at) if '"proved"' in text else ""
    return ""


def _contradicts(at: Fixture) -> str:
    """Say in what a record whose file is proved differs from the record that it was made from."""
    path = Path("runs") / at.names["digits"] / "run.json"
    one, other = (json.loads((root / path).read_bytes()) for root in (at.here, at.kept))
    for name in ("run", "classes", "backbone", "head", "dataset", "data_input", "weights_sha256"):
        if one.get(name) != other[name]:
            return f"a file is proved of a record whose {name} is another now"
    return ""


def tally(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Count cases, and what verbs said, by what was changed."""
    counts: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in KINDS}
    for found in results:
        counts[found["kind"]]["cases"] += 1
        for said in found["said"]:
            counts[found["kind"]][f"{said['verb']} {said['outcome']}"] += 1
    return {kind: dict(sorted(count.items())) for kind, count in counts.items()}


def sample(count: int, seed: int = 0) -> list[int]:
    """Draw so many of the published cases."""
    return sorted(random.Random(seed).sample(NUMBERS, count))


def run(at: Fixture, numbers: Sequence[int]) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Try cases; return what was found, and by its number what was wrong with a case."""
    results, faults = [], {}
    warm(at)
    for number in numbers:
        found = case(number, at)
        if why := fault_of(found, at):
            faults[number] = f"{found['kind']}, {found['what']}: {why}"
            print(f"{number}: {faults[number]}", file=sys.stderr, flush=True)
        results.append(found)
        if len(results) % 100 == 0:
            print(f"{len(results):,} of {len(numbers):,} cases", file=sys.stderr, flush=True)
    return results, faults


def warm(at: Fixture) -> None:
    """Type every verb once in this process, so that forks have imported all; all must answer."""
    from zoo.cli.main import zoo as command

    for verb in EVERY:
        at.renew()
        places = {name: str(at.run(name)) for name in at.names} | {"here": str(at.here)}
        words = [word.format(**places) for word in verb]
        env = {"ZOO_DATA": str(at.here / "data"), "ZOO_RUNS": str(at.here / "runs")}
        result = CliRunner(env=env).invoke(command, words, prog_name="zoo")
        assert result.exit_code == 0, f"{words}: {result.output} {result.exception}"


HEAD = ("what is changed", "cases", "commands", "answered", "refused")


def rows(counts: dict[str, dict[str, int]]) -> list[tuple[str, ...]]:
    """Return the rows of the table: of each kind cases, commands, and what came of these."""
    found = []
    for kind, count in counts.items():
        answered, refused = (
            sum(n for name, n in count.items() if name.endswith(f" {what}"))
            for what in ("answered", "refused")
        )
        total = sum(n for name, n in count.items() if name != "cases")
        found.append((kind, *(f"{n:,}" for n in (count["cases"], total, answered, refused))))
    return found


@click.command(help=__doc__)
@click.option("--sample", "count", type=click.IntRange(1, len(NUMBERS)), help="So many of them.")
@click.option("--seed", default=0, show_default=True, help="Of the sample.")
@click.option("--jobs", type=click.IntRange(1, 16), default=1, help="Processes that share them.")
@click.option("--number", type=click.IntRange(min=0), help="One case, with all that was said.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--write", is_flag=True, help="Write benchmarks/results/fuzz.json.")
def main(
    count: int | None, seed: int, jobs: int, number: int | None, as_json: bool, write: bool
) -> None:
    refuse_part(write, count is not None or number is not None, "--sample and --number")
    os.environ |= {"ZOO_RUNTIMES": "none", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    if number is not None:
        with tempfile.TemporaryDirectory() as name, plainly():
            found, faults = tried(Path(name), [number])
        print(json.dumps({**found[0], "fault": faults.get(number, "")}, indent=2))
        return
    numbers = list(NUMBERS) if count is None else sample(count, seed)
    here, began = machine(), time.monotonic()
    results, faults = shared(numbers, jobs)
    told = {"machine": here, "cases": len(results), "seconds": round(time.monotonic() - began),
            "counts": tally(results), "faults": faults}  # fmt: skip
    if write:
        RESULT.write_text(json.dumps(told, indent=2) + "\n")
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        print_machine(told["machine"])
        for row in (HEAD, ["---"] * len(HEAD), *rows(told["counts"])):
            print(f"| {' | '.join(row)} |")
    if faults:
        raise click.ClickException(f"{len(faults)} of {len(results)} cases went wrong.")


def tried(folder: Path, numbers: Sequence[int]) -> tuple[list[dict[str, Any]], dict[int, str]]:
    return run(prepare(folder), numbers)


def shared(numbers: Sequence[int], jobs: int) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Share cases among so many processes, each with a fixture of its own."""
    code = "import json, sys, fuzz; fuzz.work(json.load(sys.stdin))"
    results: list[dict[str, Any]] = []
    faults: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as name:
        begun = []
        for job in range(jobs):
            folder = Path(name) / str(job)
            folder.mkdir()
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                cwd=Path(__file__).parent,
                text=True,
            )
            assert process.stdin is not None
            json.dump({"folder": str(folder), "numbers": list(numbers[job::jobs])}, process.stdin)
            process.stdin.close()
            begun.append((process, folder))
        for process, folder in begun:
            if process.wait():
                raise click.ClickException(f"A process ended with {process.returncode}.")
            told = json.loads((folder / "told.json").read_text())
            results += told["results"]
            faults |= {int(number): why for number, why in told["faults"].items()}
    return sorted(results, key=lambda found: int(found["number"])), dict(sorted(faults.items()))


def work(task: dict[str, Any]) -> None:
    folder = Path(task["folder"])
    results, faults = tried(folder, task["numbers"])
    for found in results:
        for said in found["said"]:
            for text in ("stdout", "stderr", "trace"):
                said.pop(text, None)
    (folder / "told.json").write_text(json.dumps({"results": results, "faults": faults}))


if __name__ == "__main__":
    main()
