"""How fast zoo trains: the tutorials' loop, Lightning, a bare loop, ours, and the floor.

In one run, the same model from the same initial weights on the same batches in the same order; the
loops take turns, none validates. Printed are the wall time of an epoch, and the time to a stated
loss, for a classifier to a stated accuracy; then what stands between the matrix products alone and
ours. Exits 1 where loss curves differ by more than rounding: then it was not the same training.

\b
    pip install -e . lightning
    ZOO_DATA=DIR python benchmarks/training_speed.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from comparison import OURS, Comparison, Contestant, compare
from contestants import bare, ours, tutorial
from floor import PIECES
from report import machine, plainly, print_machine
from workloads import Workload, classifying, pretraining

from zoo.cli.output import print_json, table
from zoo.pipeline.workspace import Workspace
from zoo.training import cpu_threads

BARE, TUTORIAL = "bare loop", "tutorials' loop"
DATASET, SLICES = "Lightning, TensorDataset", "Lightning, slices of tensors"
BOUNDS = {TUTORIAL: 8.0, DATASET: 1.5, SLICES: 1.5, BARE: 1 / 1.05}
"""What the time of each over ours is to be at least, for the textbook autoencoder."""
ACCURACY = {"mlp": 0.82, "conv": 0.88}
APART = {"sgd": 1e-4, "adamw": 2e-2}
"""How far loss curves may differ: AdamW steps as far by a gradient that is mere rounding as by any
other, and batch statistics carry it on."""


def contestants() -> dict[str, Contestant]:
    """Return the loops by name; without Lightning's where it is not installed."""
    found: dict[str, Contestant] = {TUTORIAL: tutorial}
    try:
        import lightning_loops
    except ModuleNotFoundError as error:
        if error.name != "lightning":
            raise
        click.echo("Lightning's rows are left out. For them, type: pip install lightning", err=True)
    else:
        found["Lightning, tutorials' loader"] = lightning_loops.with_tutorial_loader
        found[DATASET] = lightning_loops.with_tensor_dataset
        found[SLICES] = lightning_loops.with_slices
    return {**found, BARE: bare, OURS: ours}


def show(comparison: Comparison) -> None:
    """Print a comparison, and the pieces between the floor and ours where they were timed."""
    timing = "s an epoch: min / median / spread"
    cells: list[tuple[str, ...]] = [
        (
            row.name,
            str(row.epoch),
            f"{row.examples_per_second:,.0f}",
            f"{row.ratio:.3f}",
            f"{row.to_target.median:.2f}" if row.to_target else "–",
            "–" if row.apart is None else f"{row.apart:.0e}",
        )
        for row in comparison.rows
    ]
    columns = ("loop", timing, "examples/s", "time / ours", f"s to {comparison.target}", "loss off")
    table(columns, cells, comparison.title)
    if not comparison.pieces:
        return
    own, before, cells = comparison.row(OURS), 0.0, []
    for row in [*comparison.pieces, own]:
        now = row.epoch.minimum
        share = f"{(now - before) / own.epoch.minimum:.1%}"
        name = "+ what fit does beside: ours" if row is own else row.name
        cells.append((name, str(row.epoch), f"{now - before:+.3f}", share))
        before = now
    table(("each piece on top of the last", timing, "added s", "of ours"), cells)


def targets(comparison: Comparison) -> list[dict[str, object]]:
    """Hold the textbook autoencoder's ratios against what they are to be."""
    return [
        {"loop": row.name, "wanted": bound, "ratio": row.ratio, "met": row.ratio >= bound}
        for row in comparison.rows
        if (bound := BOUNDS.get(row.name))
    ]


@click.command(help=__doc__)
@click.option(
    "--backbone",
    "backbones",
    type=click.Choice(list(ACCURACY)),
    multiple=True,
    default=list(ACCURACY),
    show_default=True,
    help="model to train; repeatable",
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="turns")
@click.option(
    "--epochs", type=click.IntRange(1), default=2, show_default=True, help="epochs of a turn"
)
@click.option(
    "--accuracy-epochs",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="epochs of a classifier's turn; 0: no classifiers",
)
@click.option(
    "--accuracy",
    type=click.FloatRange(0, 1),
    help="stated accuracy; else 0.82 for mlp, 0.88 for conv",
)
@click.option(
    "--threads", type=click.IntRange(1), default=2, show_default=True, help="torch's CPU threads"
)
@click.option(
    "--data-root", type=click.Path(path_type=Path), help="folder of the data sets, for ZOO_DATA"
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def main(
    backbones: tuple[str, ...],
    rounds: int,
    epochs: int,
    accuracy_epochs: int,
    accuracy: float | None,
    threads: int,
    data_root: Path | None,
    as_json: bool,
) -> None:
    workspace, loops = Workspace(data=data_root), contestants()
    comparisons, judged, apart = [], [], False
    with plainly(), cpu_threads(threads):
        found = machine("lightning")
        for name in backbones:
            works: list[tuple[Workload, float | None]] = [
                (pretraining(name, workspace, epochs), None)
            ]
            if accuracy_epochs:
                work = classifying(name, workspace, accuracy_epochs)
                works.append((work, accuracy or ACCURACY[name]))
            for work, wanted in works:
                comparison = compare(work, loops, {} if wanted else PIECES, rounds, wanted)
                comparisons.append(comparison)
                apart |= any(
                    (row.apart or 0) > APART[work.config.optimizer] for row in comparison.rows
                )
                if name == "mlp" and wanted is None:
                    judged = targets(comparison)
    if as_json:
        settings = {"rounds": rounds, "epochs": epochs, "accuracy_epochs": accuracy_epochs}
        result = {"machine": found, "settings": settings, "comparisons": comparisons}
        print_json({**result, "targets": judged})
    else:
        print_machine(found)
        for comparison in comparisons:
            show(comparison)
        cells = [
            (t["loop"], f"{t['wanted']:.2f}", f"{t['ratio']:.2f}", "yes" if t["met"] else "no")
            for t in judged
        ]
        if cells:
            table(("textbook autoencoder", "time / ours, at least", "is", "met"), cells)
    if apart:
        click.echo("Loss curves differ by more than rounding: not the same training.", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
