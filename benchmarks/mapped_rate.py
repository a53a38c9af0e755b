"""How fast a set that is larger than memory trains: memory-mapped against resident.

Writes a file of random pictures, and trains one model on pictures drawn from all over it: copied
into memory first (resident), mapped with the page cache warm, and mapped with the page cache cold.
The three take turns, on the same pictures and batches. Printed are examples per second, the share
of the resident rate, and by how much the process's anonymous memory grew: a mapped file is no part
of it. How much of the file was cached before each turn is measured, not assumed. "whole order" is
what beginning an epoch over all pictures of the file takes, of which the other rows use a part.
Needs Linux.

\b
    python benchmarks/mapped_rate.py --folder /tmp/mapped
"""

from __future__ import annotations

import gc
import statistics
import sys
from pathlib import Path
from typing import Any

import click
import mapped_file
import torch
from report import machine, plainly, print_machine, spread
from torch import Tensor, nn

from zoo.api import ImageInput, TrainConfig
from zoo.cli.output import print_json, table
from zoo.data import Batches
from zoo.pipeline.assembly import build_backbone, build_objective, choose, preprocess_for
from zoo.pipeline.workspace import Workspace
from zoo.tasks import Pretraining
from zoo.training import cpu_threads, fit

MODES = ("resident", "mapped, warm", "mapped, cold")
PICTURES = {
    "3x64x64": ImageInput(channels=3, height=64, width=64),
    "1x28x28": ImageInput(channels=1, height=28, width=28),
}


def build(backbone: str, input: ImageInput) -> nn.Module:
    """Return what pretraining trains, by reconstruction, with its initial weights."""
    workspace = Workspace()
    torch.manual_seed(0)
    model = build_backbone(choose(workspace, "backbone", backbone), input)
    task = build_objective(workspace, choose(workspace, "objective", "reconstruct"), model)
    return Pretraining(preprocess_for(input, input, model), model, task)


def turn(
    mode: str, path: Path, input: ImageInput, chosen: Tensor, count: int, backbone: str, size: int
) -> dict[str, Any]:
    """Train one epoch on the chosen pictures; return its rate, and what was cached and added."""
    gc.collect()
    if mode == "mapped, cold":
        mapped_file.cool(path)
    else:
        mapped_file.warm(path)
    mapped = mapped_file.open_mapped(path, input, count)
    share = mapped_file.cached(mapped)
    module, config = build(backbone, input), TrainConfig(epochs=1, batch_size=size, device="cpu")
    with mapped_file.watching() as memory:
        if mode == "resident":
            batches = Batches((mapped[chosen],), size, seed=0)
        else:
            batches = Batches((mapped,), size, indices=chosen, seed=0)
        (epoch,) = fit(module, batches, config)
    return {"rate": len(chosen) / epoch.seconds, "cached": share, "added_mb": memory.added}


def summary(mode: str, turns: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return a mode's figures over its turns; each is held against the same round's resident."""
    done = turns[mode]
    pairs = zip(done, turns["resident"], strict=True)
    return {
        "mode": mode,
        "examples_per_second": spread([one["rate"] for one in done]),
        "ratio": statistics.median(one["rate"] / beside["rate"] for one, beside in pairs),
        "cached": statistics.median(one["cached"] for one in done),
        "added_mb": max(one["added_mb"] for one in done),
    }


def whole_order(path: Path, input: ImageInput, count: int, size: int) -> float:
    """Return the MB that the first batch of an epoch over the whole file adds."""
    gc.collect()
    mapped = mapped_file.open_mapped(path, input, count)
    with mapped_file.watching(every=0.002) as memory:
        next(iter(Batches((mapped,), size, seed=0)))
    return memory.added


@click.command(help=__doc__)
@click.option(
    "--folder", type=click.Path(path_type=Path), required=True, help="where the file is written"
)
@click.option(
    "--gigabytes",
    type=click.FloatRange(0.01),
    default=10.0,
    show_default=True,
    help="size of the file",
)
@click.option("--picture", type=click.Choice(list(PICTURES)), default="3x64x64", show_default=True)
@click.option("--backbone", default="conv", show_default=True, help="at its own defaults")
@click.option("--batch-size", type=click.IntRange(2), default=128, show_default=True)
@click.option(
    "--steps", type=click.IntRange(1), default=200, show_default=True, help="steps of a turn"
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="turns")
@click.option(
    "--threads", type=click.IntRange(1), default=2, show_default=True, help="torch's CPU threads"
)
@click.option("--keep", is_flag=True, help="leave the file there; it is used again")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def main(
    folder: Path,
    gigabytes: float,
    picture: str,
    backbone: str,
    batch_size: int,
    steps: int,
    rounds: int,
    threads: int,
    keep: bool,
    as_json: bool,
) -> None:
    if sys.platform != "linux":
        raise click.ClickException("This reads /proc and asks mincore: it needs Linux.")
    input, path = PICTURES[picture], folder / f"random-{picture}.bytes"
    try:
        with plainly():
            build(backbone, input)  # a wrong name before 10 GB are written
        click.echo(f"writing {gigabytes:g} GB to '{path}'", err=True)
        count = mapped_file.write(path, input, gigabytes)
        path_bytes = path.stat().st_size
        drawn = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        chosen = drawn[: steps * batch_size].clone()
        del drawn
        turns: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
        with cpu_threads(threads):
            found = machine()
            few = chosen[: 10 * batch_size]
            turn("resident", path, input, few, count, backbone, batch_size)  # warms up
            for number in range(1, rounds + 1):
                for mode in MODES:
                    done = turn(mode, path, input, chosen, count, backbone, batch_size)
                    turns[mode].append(done)
                    rate = f"{done['rate']:,.0f} examples/s"
                    click.echo(f"round {number} of {rounds}, {mode}: {rate}", err=True)
            order = whole_order(path, input, count, batch_size)
    finally:
        if not keep:
            path.unlink(missing_ok=True)
    rows = [summary(mode, turns) for mode in MODES]
    if as_json:
        sizes = {"file_bytes": path_bytes, "pictures": count, "used": len(chosen)}
        print_json({"machine": found, **sizes, "rows": rows, "whole_order_mb": order})
        return
    print_machine(found)
    cells = [
        (
            row["mode"],
            f"{row['examples_per_second'].median:,.0f}",
            f"{row['examples_per_second'].spread:.0%}",
            f"{row['ratio']:.3f}",
            f"{row['cached']:.1%}",
            f"{row['added_mb']:.0f}",
        )
        for row in rows
    ]
    cells.append(("whole order", "", "", "", "", f"{order:.0f}"))
    columns = ("set", "examples/s", "spread", "of resident", "cached before", "MB added")
    title = f"{len(chosen):,} of {count:,} pictures {input}, {path_bytes / 1e9:.1f} GB, {backbone}"
    table(columns, cells, title)


if __name__ == "__main__":
    main()
