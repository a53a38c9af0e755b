"""This tree against an earlier commit: a training step, a small finetuning, its export.

Each side runs in processes of its own, by turns, the order changing from pair to pair; what is
printed are medians over the pairs. The earlier commit is checked out in a temporary worktree.

python benchmarks/against_commit.py 9b1a31b
python benchmarks/against_commit.py 9b1a31b --json > benchmarks/results/against_commit.json
python benchmarks/against_commit.py --table --write benchmarks/README.md
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import pages
from report import ROOT, checked_out, commit, environment_of, machine

RESULT = Path(__file__).parent / "results" / "against_commit.json"
TABLE = "python benchmarks/against_commit.py --table"
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
@click.argument("earlier", metavar="COMMIT", required=False)
@click.option("--pairs", default=5, show_default=True, help="How often each side runs.")
@click.option("--threads", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--table", is_flag=True, help="Render the published result, and measure nothing.")
@click.option("--write", "page", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Put that table into a page.")  # fmt: skip
@click.option("--side", is_flag=True, hidden=True, help="Measure the tree that is on the path.")
def main(
    earlier: str | None,
    pairs: int,
    threads: int,
    as_json: bool,
    table: bool,
    page: Path | None,
    side: bool,
) -> None:
    """Time this tree in pairs with COMMIT."""
    if side:
        print(json.dumps({"commit": commit(), "figures": measure(threads)}))
        return
    if table:
        pages.show(render(json.loads(RESULT.read_text())), page, TABLE)
        return
    if earlier is None:
        raise click.UsageError("Name the commit to compare with, such as a tag or HEAD~10.")
    found: dict[str, list[dict[str, float]]] = {"before": [], "here": []}
    commits = {}
    with checked_out(earlier) as before:
        trees = {"before": before, "here": ROOT}
        for number in range(pairs):
            for name in sorted(trees, reverse=bool(number % 2)):
                commits[name], figures = run_side(trees[name], threads)
                found[name].append(figures)
                click.echo(f"pair {number + 1} of {pairs}: {name}", err=True)
    rows = {name: compared(name, found) for name in FIGURES}
    here = {**machine(), "commit": commits["here"], "threads": threads}
    result = {"machine": here, "before": commits["before"], "pairs": pairs, "rows": rows,
              "all": found}  # fmt: skip
    print(json.dumps(result, indent=2) if as_json else render(result))


def render(result: dict[str, Any]) -> str:
    """Write a row for each figure: both medians, the median ratio and difference of the pairs."""
    lines = [
        "| figure | before | here | here / before | difference |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, unit in FIGURES.items():
        row = result["rows"][name]
        lines.append(
            f"| {name} | {row['before']:.3f} {unit} | {row['here']:.3f} {unit} |"
            f" {row['ratio']:.3f} | {row['difference']:+.3f} {unit} |"
        )
    here = result["machine"]
    threads = f"{here['threads']} thread" + "s" * (here["threads"] > 1)
    sides = f"before is {result['before'][:7]}, here {here['commit'][:7]}"
    place = f"{here['processor']}, {threads}; torch {here['versions']['torch']}"
    lines += ["", f"Medians of {result['pairs']} pairs; {sides}. {place}.", ""]
    return "\n".join(lines)


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


def run_side(tree: Path, threads: int) -> tuple[str, dict[str, float]]:
    """Measure a tree in a process of its own; returns its commit, and the figures."""
    done = subprocess.run(
        [sys.executable, __file__, "--side", "--threads", str(threads)],
        env=environment_of(tree),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise click.ClickException(f"{tree}: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["commit"], found["figures"]


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
