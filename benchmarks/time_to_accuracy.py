"""Seconds to a stated accuracy: a torchvision-style loop, and ours, on a recipe's classifier.

The same model, augmentation, batch size, optimizer, schedule and number of epochs, from the same
initial weights, in one run. The peer is written as torchvision's references and tutorials write it:
pictures through PIL, `torchvision.transforms` in a `DataLoader` with 2 workers, which stay. Ours is
`zoo.training.fit`, at fp32 and at bf16. The accuracy is that on 5,000 held-out training examples,
taken after each epoch with the clock stopped. Augmentation draws other numbers in each.

\b
    ZOO_DATA=DIR python benchmarks/time_to_accuracy.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click
import torchvision
from contestants import Lap, over_loader
from report import machine, plainly, print_machine, spread
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from workloads import Workload, of_recipe

from zoo.api import TrainConfig
from zoo.cli.output import print_json, table
from zoo.pipeline.making import augmenter
from zoo.pipeline.workspace import Workspace
from zoo.training import Epoch, cpu_threads, fit

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
    "fashion-conv": Goal("fashion-conv", 0.93, 14),
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


def until(laps: list[Lap], accuracy: float) -> tuple[int, float] | None:
    """Return the epochs and seconds until an accuracy was reached, or None."""
    seconds = 0.0
    for number, lap in enumerate(laps, 1):
        seconds += lap.seconds
        if lap.accuracy is not None and lap.accuracy >= accuracy:
            return number, seconds
    return None


LOOPS: dict[str, Callable[[Workload], list[Lap]]] = {
    PEER: torchvision_style,
    "ours, fp32": ours("fp32"),
    "ours, bf16": ours("bf16"),
}


def measure(goal: Goal, workspace: Workspace, rounds: int) -> list[dict[str, Any]]:
    """Let the loops take turns; a seed a round."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in LOOPS}
    for seed in range(rounds):
        workload = of_recipe(goal.recipe, workspace, goal.epochs, seed)
        for name, train in LOOPS.items():
            laps = train(workload)
            reached = until(laps, goal.accuracy)
            said = f"{reached[1]:.1f} s, epoch {reached[0]}" if reached else "not reached"
            click.echo(f"{workload.title}, seed {seed}, {name}: {said}", err=True)
            found[name].append({"seed": seed, "reached": reached, "laps": laps})
    return [{"loop": name, "rounds": made} for name, made in found.items()]


def show(goal: Goal, rows: list[dict[str, Any]]) -> None:
    """Print one table: a goal that a round missed has no time."""
    peer = rows[0]["rounds"]
    cells = []
    for row in rows:
        epoch = spread([lap.seconds for made in row["rounds"] for lap in made["laps"]])
        all_reached = all(made["reached"] for made in row["rounds"])
        ratios = [
            one["reached"][1] / other["reached"][1]
            for one, other in zip(peer, row["rounds"], strict=True)
            if one["reached"] and other["reached"]
        ]
        cells.append(
            (
                row["loop"],
                str(epoch),
                str(spread([m["reached"][1] for m in row["rounds"]])) if all_reached else "–",
                ", ".join(str(m["reached"][0]) if m["reached"] else "–" for m in row["rounds"]),
                ", ".join(f"{m['laps'][-1].accuracy:.2%}" for m in row["rounds"]),
                f"{spread(ratios).median:.2f}" if ratios else "–",
            )
        )
    table(
        (
            "loop",
            "s an epoch: min / median / spread",
            f"s to {goal.accuracy:.0%}: min / median / spread",
            "epoch",
            "last accuracy",
            "peer's time / this",
        ),
        cells,
        f"{goal.recipe}, {goal.epochs} epochs, to {goal.accuracy:.0%} on 5,000 held-out examples",
    )


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(list(GOALS)))
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="seeds")
@click.option("--epochs", type=click.IntRange(1), help="epochs of the schedule")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--data-root", type=click.Path(path_type=Path), help="for ZOO_DATA")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def main(
    names: tuple[str, ...],
    rounds: int,
    epochs: int | None,
    threads: int,
    data_root: Path | None,
    as_json: bool,
) -> None:
    workspace = Workspace(data=data_root)
    with plainly(), cpu_threads(threads):
        described = machine()
        results = {}
        for name in names or GOALS:
            goal = GOALS[name]
            goal = dataclasses.replace(goal, epochs=epochs) if epochs else goal
            results[name] = (goal, measure(goal, workspace, rounds))
    if as_json:
        print_json({"machine": described, "results": results})
        return
    print_machine(described)
    for goal, rows in results.values():
        show(goal, rows)


if __name__ == "__main__":
    main()
