"""Label efficiency: scratch against objectives, on MNIST, Fashion-MNIST, and from one to the other.

`python benchmarks/labels.py run NAME…` trains what is missing of a bench and writes it into
`benchmarks/results/labels/NAME`: `plan.json`, `cells.jsonl`, the table and the figure.
`python benchmarks/labels.py table NAME` renders them anew; `--write PAGE` puts the table there.

Views, augmentation and finetuning are those of the recipes for few labels, fixed on validation
examples and draws of labels from seed 100 on; what is otherwise here stands here.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
import pages
from recipes import changed
from report import plainly

from zoo import pipeline
from zoo.api import Component, RecipeSpec
from zoo.cli.options import progress
from zoo.pipeline import Workspace
from zoo.pipeline.bench.plan import Method
from zoo.pipeline.bench.table import TABLE

RESULTS = Path(__file__).parent / "results" / "labels"
BACKBONE = Component("conv-patch", channels=(32, 32, 128))
LINEAR_PROBE: dict[str, Any] = {"freeze": True, "lr": 0.003}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """What one bench compares, beside scratch; views and augmentation are those of `recipe`."""

    recipe: str
    labels: tuple[int | None, ...] = (10, 100, 1000, None)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    pretrain_dataset: str | None = None


BENCHES = {
    "mnist": Bench(recipe="mnist-few"),
    "fashion-mnist": Bench(recipe="fashion-few"),
    "transfer": Bench(
        recipe="fashion-few", labels=(100,), seeds=tuple(range(10)), pretrain_dataset="mnist"
    ),
}


def methods(spec: RecipeSpec) -> list[Method]:
    """Return the rows beside scratch: a reconstruction, two views, and their features alone."""
    probe = f"{spec.objective.name}, frozen"
    return [
        Method(label="denoise", objective=Component("denoise", noise=0.3)),
        Method(label=spec.objective.name, objective=spec.objective),
        Method(label=probe, objective=spec.objective, overrides=LINEAR_PROBE),
    ]


def command(name: str) -> str:
    """Return the command that a page shows the table of."""
    return f"python benchmarks/labels.py table {name}"


@click.group()
def main() -> None:
    """Measure how far pretraining goes with few labels, and render what was measured."""


@main.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(BENCHES)))
@click.option("--seeds", help="Seeds, as 0,1,2.  [default: the bench's own]")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--runs", "folder", type=click.Path(path_type=Path), help="Folder of the runs.")
@click.option("--data-root", type=click.Path(path_type=Path))
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
def run(
    names: tuple[str, ...],
    seeds: str | None,
    jobs: int,
    folder: Path | None,
    data_root: Path | None,
    results: Path,
) -> None:
    """Train the cells of benches that are missing, and write their tables and figures."""
    workspace = Workspace(runs=folder, data=data_root)
    with plainly(), progress(False):
        for name in names:
            bench = BENCHES[name]
            spec: RecipeSpec = workspace.registry.lookup("recipe", bench.recipe).spec
            pipeline.bench_labels(
                spec.dataset,
                BACKBONE,
                pretrain_dataset=bench.pretrain_dataset,
                head=Component("linear", norm=True),
                objectives=methods(spec),
                labels=bench.labels,
                seeds=[int(seed) for seed in seeds.split(",")] if seeds else bench.seeds,
                pretrain={**changed(spec.pretraining), "epochs": 3},
                finetune={
                    **changed(spec.finetuning),
                    "epochs": 6,
                    "lr": 0.002,
                    "label_smoothing": spec.finetune.label_smoothing,
                },
                steps=1000,
                output=results / name,
                jobs=jobs,
                workspace=workspace,
            )


@main.command()
@click.argument("name", type=click.Choice(list(BENCHES)))
@click.option("--write", "page", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
def table(name: str, page: Path | None, results: Path) -> None:
    """Write table and figure of a bench anew, and print the table or put it into a page."""
    with plainly():
        pipeline.bench_table(results / name)
    pages.show((results / name / TABLE).read_text(), page, command(name))


if __name__ == "__main__":
    main()
