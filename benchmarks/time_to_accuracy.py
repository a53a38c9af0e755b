"""Seconds to a stated accuracy: a torchvision-style loop, and ours, on a recipe's classifier.

The same model, augmentation, batch size, optimizer, schedule and number of epochs, from the same
initial weights, in one run. The peer is written as torchvision's references and tutorials write it:
pictures through PIL, `torchvision.transforms` in a `DataLoader` with 2 workers, which stay. Ours is
`zoo.training.fit`, at fp32 and at bf16. The accuracy is that on 5,000 held-out training examples,
taken after each epoch with the clock stopped. Augmentation draws other numbers in each.

`python benchmarks/time_to_accuracy.py run NAME…` lets the loops take turns, seed by seed, and adds
a JSON line for each to `benchmarks/results/time_to_accuracy/cells.jsonl`; a seed whose lines are
there is not run again. `table` renders them; `--write PAGE` puts the table into a page.
"""

from __future__ import annotations

import dataclasses
import datetime
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click
import pages
import torchvision
from contestants import Lap, over_loader
from report import plainly
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from workloads import Workload, of_recipe

from zoo.api import TrainConfig
from zoo.evidence import ledger
from zoo.evidence.rows import markdown
from zoo.evidence.spread import spread
from zoo.machine import commit, cores, processor
from zoo.pipeline.making import augmenter, versions
from zoo.pipeline.workspace import Workspace
from zoo.training import Epoch, cpu_threads, fit

RESULTS = Path(__file__).parent / "results" / "time_to_accuracy"
COMMAND = "python benchmarks/time_to_accuracy.py table"
HEADS = (
    "recipe",
    "goal",
    "epochs",
    "method",
    "s an epoch",
    "epochs to it",
    "s to it",
    "peer's time / this",
    "seeds",
)
PEER = "torchvision-style loop"


@dataclasses.dataclass(frozen=True)
class Goal:
    """A recipe's classifier, the accuracy to reach, and the epochs of the schedule."""

    recipe: str
    accuracy: float
    epochs: int


GOALS = {
    "mnist-mlp": Goal("mnist-mlp", 0.99, 12),
    "mnist-conv": Goal("mnist-conv", 0.99, 2),
    "fashion-conv": Goal("fashion-conv", 0.93, 20),
}


def ours(precision: Literal["fp32", "bf16"]) -> Callable[[Workload], list[Lap]]:
    """Return `zoo.training.fit` at a precision, with the recipe's augmentation."""

    def train(workload: Workload) -> list[Lap]:
        config = dataclasses.replace(workload.config, precision=precision)
        module = workload.fresh()
        laps: list[Lap] = []

        def record(epoch: Epoch) -> None:
            laps.append(Lap(epoch.seconds, epoch.train["total"], workload.accuracy(module)))

        fit(module, workload.batches(), config, augment=augmenter(config), on_epoch=record)
        return laps

    return train


def torchvision_style(workload: Workload) -> list[Lap]:
    """Train as torchvision's references do: PIL, transforms, a DataLoader, torch's optimizer."""
    reader = getattr(torchvision.datasets, workload.torchvision)
    pictures = reader(str(workload.root), transform=transform(workload.config))
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        Subset(pictures, workload.train.tolist()),
        batch_size=workload.config.batch_size,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
    )
    return over_loader(workload, loader)


def transform(config: TrainConfig) -> transforms.Compose:
    """Write a recipe's augmentation with torchvision's transforms."""
    size = 28
    steps: list[Any] = []
    if config.flip:
        steps.append(transforms.RandomHorizontalFlip())
    if config.rotate or config.shift or config.zoom or config.shear:
        steps.append(
            transforms.RandomAffine(
                config.rotate,
                translate=(config.shift / size, config.shift / size),
                scale=(1 - config.zoom, 1 + config.zoom),
                shear=config.shear or None,
                interpolation=transforms.InterpolationMode.BILINEAR
                if config.rotate or config.zoom or config.shear
                else transforms.InterpolationMode.NEAREST,
            )
        )
    if config.jitter:
        steps.append(transforms.ColorJitter(brightness=config.jitter, contrast=config.jitter))
    steps += [transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))]
    if config.erase:
        steps.append(transforms.RandomErasing(config.erase, value="random"))
    return transforms.Compose(steps)


def until(accuracies: list[float], seconds: list[float], goal: float) -> tuple[int, float] | None:
    """Return the epochs and seconds until an accuracy was reached, or None."""
    for number, accuracy in enumerate(accuracies, 1):
        if accuracy >= goal:
            return number, sum(seconds[:number])
    return None


LOOPS: dict[str, Callable[[Workload], list[Lap]]] = {
    PEER: torchvision_style,
    "ours, fp32": ours("fp32"),
    "ours, bf16": ours("bf16"),
}


def key_of(goal: Goal, loop: str, seed: int) -> str:
    return f"{goal.recipe}/{goal.accuracy}/{goal.epochs}/{loop}/{seed}"


def measure(goal: Goal, workspace: Workspace, seed: int, threads: int) -> list[dict[str, Any]]:
    """Let the loops take turns with one seed; returns the line of each."""
    workload = of_recipe(goal.recipe, workspace, goal.epochs, seed)
    lines = []
    for loop, train in LOOPS.items():
        laps = train(workload)
        lines.append(
            {
                "key": key_of(goal, loop, seed),
                "recipe": goal.recipe,
                "goal": goal.accuracy,
                "epochs": goal.epochs,
                "method": loop,
                "labels": len(workload.train),
                "seed": seed,
                "accuracy": laps[-1].accuracy,
                "accuracies": [lap.accuracy for lap in laps],
                "seconds": [round(lap.seconds, 3) for lap in laps],
                "commit": commit(),
                "versions": versions(),
                "processor": processor(),
                "cores": cores(),
                "threads": threads,
                "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            }
        )
        reached = until(lines[-1]["accuracies"], lines[-1]["seconds"], goal.accuracy)
        said = f"{reached[1]:.1f} s, epoch {reached[0]}" if reached else "not reached"
        click.echo(f"{workload.title}, seed {seed}, {loop}: {said}", err=True)
    return lines


def render(cells: dict[str, dict[str, Any]]) -> str:
    """Write one table of all that was measured, earlier schedules too.

    A seed that a loop missed has no time; one that not every loop has is not shown.
    """
    rows, shown = [], []
    measured = {Goal(c["recipe"], c["goal"], c["epochs"]) for c in cells.values()}
    for goal in sorted(measured, key=lambda g: (list(GOALS).index(g.recipe), g.epochs)):
        seeds = [n for n in range(100) if all(key_of(goal, o, n) in cells for o in LOOPS)]
        for loop in LOOPS if seeds else ():
            own = [cells[key_of(goal, loop, seed)] for seed in seeds]
            peer = [cells[key_of(goal, PEER, seed)] for seed in seeds]
            shown += own
            what = (f"`{goal.recipe}`", f"{goal.accuracy:.0%}", str(goal.epochs))
            rows.append((*what, loop, *_row(own, peer)))
    where = sorted({f"{c['threads']} threads on {c['cores']} cores of {c['processor']},"
                    f" torch {c['versions']['torch']}" for c in shown})  # fmt: skip
    return f"{markdown(HEADS, rows)}\nMeasured with {' and '.join(where)}.\n"


def _row(own: list[dict[str, Any]], peer: list[dict[str, Any]]) -> tuple[str, ...]:
    reached = [until(c["accuracies"], c["seconds"], c["goal"]) for c in own]
    others = [until(c["accuracies"], c["seconds"], c["goal"]) for c in peer]
    ratios = [o[1] / r[1] for r, o in zip(reached, others, strict=True) if r and o]
    times = [r[1] for r in reached if r]
    taken = spread(times) if len(times) == len(own) else None
    deviation = f" ± {taken.deviation:.1f}" if taken and taken.deviation is not None else ""
    return (
        f"{statistics.median(s for c in own for s in c['seconds']):.2f}",
        ", ".join(str(r[0]) if r else "missed" for r in reached),
        f"{taken.mean:.1f}{deviation}" if taken else "",
        f"{statistics.median(ratios):.1f}" if ratios else "",
        str(len(own)),
    )


@click.group()
def main() -> None:
    """Measure the time to an accuracy, and render what was measured."""


@main.command()
@click.argument("names", nargs=-1, type=click.Choice(list(GOALS)))
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--data-root", type=click.Path(path_type=Path), help="for ZOO_DATA")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
def run(
    names: tuple[str, ...], seeds: str, threads: int, data_root: Path | None, results: Path
) -> None:
    """Time the loops, on a machine that does nothing else, and write a line for each."""
    workspace = Workspace(data=data_root)
    results.mkdir(parents=True, exist_ok=True)
    with plainly(), cpu_threads(threads):
        for seed in map(int, seeds.split(",")):
            for name in names or GOALS:
                goal, done = GOALS[name], ledger.read(results)
                if all(key_of(goal, loop, seed) in done for loop in LOOPS):
                    continue
                for line in measure(goal, workspace, seed, threads):
                    ledger.append(results, line)


@main.command()
@click.option("--write", "page", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
def table(page: Path | None, results: Path) -> None:
    """Print the table, or put it into a page between its marks."""
    pages.show(render(ledger.read(results)), page, COMMAND)


if __name__ == "__main__":
    main()
