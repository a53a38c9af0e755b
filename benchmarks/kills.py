"""Kill a training at any moment of its life and resume it: it ends as if it had never been killed.

python benchmarks/kills.py                   # 16 kills of each kind: four minutes
python benchmarks/kills.py --kills 4 --kind finetune
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from report import machine, print_machine, refuse_part

from zoo import runs
from zoo.runs import Run

Process = subprocess.Popen[str]

RESULT = Path(__file__).parent / "results" / "kills.json"
KINDS = ("pretrain", "finetune")
KILLS = 16
PRETRAIN = (
    "pretrain", "conv", "--channels", "6,12", "--features", "8", "--objective", "denoise",
    "--epochs", "14", "--batch-size", "32", "--accumulate", "2", "--lr", "0.01", "--ema", "0.9",
    "--keep", "best", "--patience", "9", "--shift", "1", "--erase", "0.2", "--clip-norm", "1",
    "--checkpoint-steps", "1", "--threads", "1",
)  # fmt: skip
FINETUNE = (
    "--labels", "200", "--epochs", "60", "--batch-size", "20", "--lr", "0.003", "--unfreeze", "10",
    "--layer-decay", "0.8", "--label-smoothing", "0.1", "--mixup", "0.2", "--ema", "0.95",
    "--keep", "best", "--checkpoint-steps", "1", "--threads", "1",
)  # fmt: skip


def begin(folder: Path, *args: object) -> Process:
    """Type a command, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "zoo", *map(str, args)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def the_run(root: Path, kind: str) -> Run:
    """Return the only run of a kind."""
    [found] = [run for run in runs.every(root)[0] if run.record.kind == kind]
    return found


def check_as(run: Run, reference: Run) -> None:
    """AssertionError where a run is not bit-identical to the one that was never killed."""
    found = runs.load(run.folder)
    assert (found.state, found.record.error) == ("finished", None)
    assert found.record.weights_sha256 == reference.record.weights_sha256
    found.load_weights()
    lines = [{**line, "seconds": None} for line in found.metrics()]
    assert lines == [{**line, "seconds": None} for line in reference.metrics()]
    timed = {"examples_per_second": None}
    assert found.record.metrics | timed == reference.record.metrics | timed
    left = sorted(path.name for path in found.folder.iterdir())
    kept = ["examples.safetensors", "metrics.jsonl", "run.json", "weights.safetensors"]
    assert left == [".lock", *kept]


def waited(process: Process, seconds: float) -> bool:
    """Let a process live so long; say whether it ended by itself."""
    try:
        _, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    assert process.returncode == 0, stderr
    return True


def killed_when_saving(process: Process, root: Path, kind: str) -> bool:
    """Kill a process as soon as its run's weights appear, or say that it was too quick."""
    while process.poll() is None:
        if list(root.glob(f"*-{kind}-*/*weights*")):
            break
        time.sleep(0.001)
    process.kill()
    process.communicate()
    return process.returncode == 0


def prepare(kind: str, folder: Path) -> tuple[tuple[Any, ...], float]:
    """Train once without a kill, in `folder/reference`; return the command and its seconds."""
    parents = folder / "parents"
    parents.mkdir()
    command: tuple[Any, ...] = PRETRAIN
    if kind == "finetune":
        small = ("pretrain", "conv", "--channels", "6,12", "--epochs", "1", "--runs", parents)
        assert waited(begin(folder, *small), 600)
        command = ("finetune", the_run(parents, "pretrain").name, *FINETUNE)
    shutil.copytree(parents, folder / "reference")
    started = time.monotonic()
    assert waited(begin(folder, *command, "--runs", "reference"), 600)
    return command, time.monotonic() - started


def kill_and_resume(kind: str, folder: Path, wanted: int = KILLS) -> dict[str, int]:
    """Kill so often, spread over start-up, training and saving, several times to one run.

    An eighth of the kills fall into the saving of the weights. Five kills of eight at least are to
    hit a run that is there, however slowly the machine starts: else there are more of them.
    Returns how many kills, deaths of a run, and lives of a run there were.
    """
    command, life = prepare(kind, folder)
    reference = the_run(folder / "reference", kind)
    saving, least = max(1, wanted // 8), wanted * 5 // 8
    spread = wanted - saving
    draw = random.Random(kind)
    shares = [0.98 * (number + draw.random()) / spread for number in range(spread)]
    draw.shuffle(shares)
    kills = deaths = lives = 0
    while kills < wanted or (deaths < least and kills < 4 * wanted):
        lives += 1
        root = folder / f"runs{lives}"
        shutil.copytree(folder / "parents", root)
        ends, arguments = False, command
        while not ends:
            started, process = time.monotonic(), begin(folder, *arguments, "--runs", root)
            if kills < spread:
                ends = waited(process, shares[kills] * life)
                if ends and arguments is command:  # the machine has become quicker
                    life = min(life, time.monotonic() - started)
            elif kills < wanted:
                ends = killed_when_saving(process, root, kind)
            elif deaths < least:
                ends = waited(process, draw.uniform(0.5, 0.98) * life)
            else:
                ends = waited(process, 600)
            kills += not ends
            made = [run for run in runs.every(root)[0] if run.record.kind == kind]
            if not ends and made:
                state = made[0].state
                assert state in ("dead", "finished"), state
                ends = state == "finished"  # killed when all was done
                deaths += state == "dead"
                arguments = ("resume", made[0].name)
        check_as(the_run(root, kind), reference)
    assert deaths >= least, f"{deaths} of {kills} kills hit a run"
    return {"kills": kills, "runs hit": deaths, "runs that ended as the reference": lives}


@click.command(help=__doc__)
@click.option("--kills", default=KILLS, show_default=True, help="Of each kind of run.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), default=KINDS)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--write", is_flag=True, help="Write benchmarks/results/kills.json.")
def main(kills: int, kinds: tuple[str, ...], as_json: bool, write: bool) -> None:
    part = kills < KILLS or set(kinds) != set(KINDS)
    refuse_part(write, part, "--kind and fewer --kills")
    here, found = machine(), {}
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            found[kind] = kill_and_resume(kind, Path(folder), kills)
    told = {"machine": here, "counts": found}
    if write:
        RESULT.write_text(json.dumps(told, indent=2) + "\n")
    if as_json:
        print(json.dumps(told, indent=2))
        return
    print_machine(told["machine"])
    for kind, counts in found.items():
        print(f"{kind}: {', '.join(f'{count} {what}' for what, count in counts.items())}")


if __name__ == "__main__":
    main()
