"""This tree against an earlier commit: a training step, a small finetuning, its export.

Each side runs in processes of its own, by turns, the order changing from pair to pair; what is
printed are medians over the pairs. The earlier commit is checked out in a temporary worktree.

\b
    python benchmarks/against_commit.py 9b1a31b
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from report import machine, print_machine

ROOT = Path(__file__).resolve().parent.parent
FIGURES = {
    "step, mlp": "ms",
    "step, conv": "ms",
    "pretraining": "s",
    "finetuning": "s",
    "export": "s",
    "export, again": "s",
}
"""What a side measures, and its unit."""


@click.command()
@click.argument("commit", required=False)
@click.option("--pairs", default=5, show_default=True, help="How often each side runs.")
@click.option("--threads", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--side", is_flag=True, hidden=True, help="Measure the tree that is on the path.")
def main(commit: str | None, pairs: int, threads: int, as_json: bool, side: bool) -> None:
    """Time this tree in pairs with COMMIT."""
    if side:
        print(json.dumps(measure(threads)))
        return
    if commit is None:
        raise click.UsageError("Name the commit to compare with, such as a tag or HEAD~10.")
    found: dict[str, list[dict[str, float]]] = {"before": [], "here": []}
    with checked_out(commit) as before:
        trees = {"before": before, "here": ROOT}
        for number in range(pairs):
            for name in sorted(trees, reverse=bool(number % 2)):
                found[name].append(run_side(trees[name], threads))
                click.echo(f"pair {number + 1} of {pairs}: {name}", err=True)
    rows = {name: compared(name, found) for name in FIGURES}
    result = {"machine": machine(), "commit": commit, "pairs": pairs, "rows": rows, "all": found}
    if as_json:
        print(json.dumps(result, indent=2))
        return
    print_machine(result["machine"])
    print(f"medians of {pairs} pairs with {commit}, {threads} threads\n")
    print("| figure | before | here | here / before | difference |")
    print("|---|--:|--:|--:|--:|")
    for name, row in rows.items():
        unit = FIGURES[name]
        print(
            f"| {name} | {row['before']:.3f} {unit} | {row['here']:.3f} {unit} |"
            f" {row['ratio']:.3f} | {row['difference']:+.3f} {unit} |"
        )


def compared(name: str, found: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Return the medians of both sides, and of what their pairs say."""
    pairs = list(zip(*([each[name] for each in found[side]] for side in ("before", "here")),
                     strict=True))  # fmt: skip
    return {
        "before": statistics.median(before for before, _ in pairs),
        "here": statistics.median(here for _, here in pairs),
        "ratio": statistics.median(here / before for before, here in pairs),
        "difference": statistics.median(here - before for before, here in pairs),
    }


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check a commit out in a folder of its own, and take that away in the end."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        try:
            subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        except subprocess.CalledProcessError:
            raise click.UsageError(f"'{commit}' is no commit of this repository.") from None
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def run_side(tree: Path, threads: int) -> dict[str, float]:
    """Measure a tree in a process of its own."""
    path = os.pathsep.join(str(each) for each in (tree, tree / "plugins"))
    done = subprocess.run(
        [sys.executable, __file__, "--side", "--threads", str(threads)],
        env={**os.environ, "PYTHONPATH": path, "ZOO_RUNTIMES": "none"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise click.ClickException(f"{tree}: {done.stderr.strip().splitlines()[-1]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(threads: int) -> dict[str, float]:
    """Train, finetune and export on digits with the zoo that is on the path."""
    from zoo import pipeline
    from zoo.api import Component, FinetuneConfig, TrainConfig
    from zoo.pipeline import Workspace

    found: dict[str, float] = {}

    def timed(name: str, deed: Any) -> Any:
        started = time.perf_counter()
        result = deed()
        found[name] = time.perf_counter() - started
        return result

    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(runs=Path(folder) / "runs", data=Path(folder) / "data")
        mlp = TrainConfig(epochs=60, batch_size=64, threads=threads, lr=3e-3)
        conv = TrainConfig(epochs=20, batch_size=64, threads=threads)
        few = FinetuneConfig(labels=100)
        pretrained = timed("pretraining", lambda: pipeline.pretrain(
            "mlp", objective=Component("denoise"), training=mlp, workspace=workspace))  # fmt: skip
        convolved = pipeline.pretrain("conv", training=conv, workspace=workspace)
        finetuned = timed("finetuning", lambda: pipeline.finetune(
            pretrained, finetune=few, workspace=workspace,
            training=TrainConfig(epochs=40, batch_size=20, threads=threads)))  # fmt: skip
        for name, run in (("step, mlp", pretrained), ("step, conv", convolved)):
            epochs = [line["seconds"] for line in run.metrics()[1:]]
            steps = -(-run.record.metrics["train_examples"] // 64)
            found[name] = statistics.median(epochs) / steps * 1000
        for name in ("export", "export, again"):
            timed(name, lambda: pipeline.export(finetuned, workspace=workspace))
    return found


if __name__ == "__main__":
    main()
