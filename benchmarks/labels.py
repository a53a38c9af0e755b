"""Label efficiency: scratch against objectives, on MNIST, Fashion-MNIST, and from one to the other.

`python benchmarks/labels.py NAME…` trains what is missing of a bench and writes it into
`benchmarks/results/labels/NAME`: `plan.json`, `cells.jsonl`, the table and the figure. All settings
stand here; they were fixed on 5,000 validation examples and draws of labels from seed 100 on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from report import plainly

from zoo import pipeline
from zoo.api import Component
from zoo.cli.options import progress
from zoo.pipeline import Workspace
from zoo.pipeline.bench.plan import Method

RESULTS = Path(__file__).parent / "results" / "labels"
DIGITS: dict[str, Any] = {"shift": 3, "rotate": 15.0, "zoom": 0.15, "shear": 15.0}
CLOTHES: dict[str, Any] = {
    "flip": True, "shift": 2, "rotate": 10.0, "zoom": 0.1, "jitter": 0.3, "erase": 0.3,
}  # fmt: skip
DIGIT_VIEWS: dict[str, Any] = {
    "crop": 0.8, "shift": 0.1, "rotate": 15.0, "brightness": 0.3, "contrast": 0.3, "erase": 0.3,
    "noise": 0.05,
}  # fmt: skip
CLOTHES_VIEWS: dict[str, Any] = {
    "crop": 1.0, "shift": 0.05, "rotate": 3.0, "flip": True, "brightness": 0.5, "contrast": 0.6,
    "erase": 0.6, "noise": 0.1,
}  # fmt: skip
FROZEN_TOO = ", frozen"
FROZEN = "contrastive" + FROZEN_TOO
LINEAR_PROBE: dict[str, Any] = {"freeze": True, "lr": 0.003}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """What one bench compares, beside scratch."""

    dataset: str
    views: Mapping[str, Any]
    augmentation: Mapping[str, Any]
    labels: tuple[int | None, ...] = (10, 100, 1000, None)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    pretrain_dataset: str | None = None
    methods: tuple[str, ...] = ("denoise", "contrastive", FROZEN)

    @property
    def rows(self) -> list[Method]:
        """Return the methods with their objectives; scratch is always beside them."""
        options = {"denoise": {"noise": 0.3}}
        made = []
        for label in self.methods:
            name = label.removesuffix(FROZEN_TOO)
            objective = Component(name, **options.get(name, self.views))
            overrides = LINEAR_PROBE if label == FROZEN else {}
            made.append(Method(label=label, objective=objective, overrides=overrides))
        return made


BENCHES = {
    "mnist": Bench(dataset="mnist", views=DIGIT_VIEWS, augmentation=DIGITS),
    "fashion-mnist": Bench(dataset="fashion-mnist", views=CLOTHES_VIEWS, augmentation=CLOTHES),
    "transfer": Bench(
        dataset="fashion-mnist",
        views=CLOTHES_VIEWS,
        augmentation=CLOTHES,
        labels=(100,),
        seeds=tuple(range(10)),
        pretrain_dataset="mnist",
    ),
}


@click.command(help=__doc__)
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(BENCHES)))
@click.option("--seeds", help="Seeds, as 0,1,2.  [default: the bench's own]")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--runs", "folder", type=click.Path(path_type=Path), help="Folder of the runs.")
@click.option("--data-root", type=click.Path(path_type=Path))
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
def main(
    names: tuple[str, ...],
    seeds: str | None,
    jobs: int,
    folder: Path | None,
    data_root: Path | None,
    results: Path,
) -> None:
    workspace = Workspace(runs=folder, data=data_root)
    with plainly(), progress(False):
        for name in names:
            bench = BENCHES[name]
            pipeline.bench_labels(
                bench.dataset,
                Component("conv-patch", channels=(32, 32, 128)),
                pretrain_dataset=bench.pretrain_dataset,
                head=Component("linear", norm=True),
                objectives=bench.rows,
                labels=bench.labels,
                seeds=[int(seed) for seed in seeds.split(",")] if seeds else bench.seeds,
                pretrain={
                    "epochs": 3,
                    "batch_size": 256,
                    "lr": 0.002,
                    "precision": "bf16",
                },
                finetune={
                    "epochs": 6,
                    "batch_size": 100,
                    "lr": 0.002,
                    "weight_decay": 0.05,
                    "ema": 0.99,
                    "precision": "bf16",
                    "label_smoothing": 0.1,
                    **bench.augmentation,
                },
                steps=1000,
                output=results / name,
                jobs=jobs,
                workspace=workspace,
            )


if __name__ == "__main__":
    main()
