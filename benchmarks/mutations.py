"""Random changes of a valid file through `validate`, `inspect` and `predict`: what each said.

python benchmarks/mutations.py                    # 1,200 of them: five minutes
python benchmarks/mutations.py --sample 60        # of these, drawn by a seed
"""

from __future__ import annotations

import collections
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from PIL import Image
from report import machine, plainly, print_machine, refuse_part

from zoo import pipeline
from zoo.api import Component, TrainConfig
from zoo.pipeline import Workspace

RESULT = Path(__file__).parent / "results" / "mutations.json"
WORKER = Path(__file__).parent / "mutated_file.py"
NUMBERS = range(1000, 2200)
"""A mutation's number is the seed of what it changes."""
LIVES = 300
"""So many does one process live through."""
VERBS = ("validate", "inspect", "predict")
TITLES = {
    "bytes": "of bytes",
    "resealed": "of bytes, then sealed anew",
    "graph": "of the graph or the metadata, then sealed anew",
}


def sample(count: int, seed: int = 0) -> list[int]:
    """Draw so many of the published mutations."""
    return sorted(random.Random(seed).sample(NUMBERS, count))


def run(model: Path, runs: Path, folder: Path, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Let one process handle many mutations; its death is a failure, and says of which.

    Raises AssertionError where it dies, or prints what is none of its answers.
    """
    picture = folder / "picture.png"
    Image.effect_noise((30, 30), 80).save(picture)
    task = {"model": str(model), "runs": str(runs), "folder": str(folder),
            "picture": str(picture), "numbers": list(numbers)}  # fmt: skip
    done = subprocess.run(
        [sys.executable, WORKER],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ZOO_RUNTIMES": "none"},
    )
    stray = [line for line in done.stdout.splitlines() if not line.startswith("{")]
    assert not stray, stray[:5]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    last = lines[-1] if lines else {}
    assert done.returncode == 0, f"died with {done.returncode} at {last}: {done.stderr[-2000:]}"
    return [line for line in lines if "kind" in line]


def judge(results: list[dict[str, Any]]) -> dict[str, int]:
    """Count what was said; AssertionError on a crash, several lines, or a false `proved`."""
    counts: collections.Counter[str] = collections.Counter()
    for found in results:
        for verb in VERBS:
            said = str(found[verb])
            assert not said.startswith(("CRASH", "LINES")), f"{found['number']} {verb}: {said}"
            refused = said.startswith("refused")
            counts[f"{found['kind']}: {verb} {'refused' if refused else said}"] += 1
        assert found["validate"] != "proved", found
        if found["kind"] == "bytes":
            assert all(str(found[verb]).startswith("refused") for verb in VERBS)
    return dict(sorted(counts.items()))


def rows(counts: dict[str, int]) -> list[list[str]]:
    """Return the rows of the table that docs/export.md shows."""
    found = []
    for kind, title in TITLES.items():
        said = [
            counts.get(f"{kind}: validate {what}", 0) for what in ("refused", "failed", "intact")
        ]
        refused = counts.get(f"{kind}: predict refused", 0)
        total = sum(n for name, n in counts.items() if name.startswith(f"{kind}: predict "))
        three = ", ".join(map(str, said))
        found.append([title, str(total), three, f"{refused}, {total - refused}"])
    return found


HEAD = ["change", "files", "`validate` refused, failed, intact", "`predict` refused, answered"]


@click.command(help=__doc__)
@click.option("--sample", "count", type=click.IntRange(1, len(NUMBERS)), help="So many of them.")
@click.option("--seed", default=0, show_default=True, help="Of the sample.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--write", is_flag=True, help="Write benchmarks/results/mutations.json.")
def main(count: int | None, seed: int, as_json: bool, write: bool) -> None:
    refuse_part(write, count is not None, "--sample")
    here = machine()
    numbers = list(NUMBERS) if count is None else sample(count, seed)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, plainly():
        folder = Path(name)
        workspace = Workspace(runs=folder / "runs")
        training = TrainConfig(epochs=4, batch_size=64, lr=3e-3, threads=1)
        backbone = Component("mlp", widths=(32,), features=16)
        made = pipeline.finetune(backbone=backbone, training=training, workspace=workspace)
        model = pipeline.export(made, workspace=workspace).model
        for start in range(0, len(numbers), LIVES):
            part = numbers[start : start + LIVES]
            results += run(model, workspace.runs_root, folder, part)
    counts = judge(results)
    told = {"machine": here, "mutations": len(results), "counts": counts}
    if write:
        RESULT.write_text(json.dumps(told, indent=2) + "\n")
    if as_json:
        print(json.dumps(told, indent=2))
        return
    print_machine(told["machine"])
    for row in (HEAD, ["---"] * len(HEAD), *rows(counts)):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
