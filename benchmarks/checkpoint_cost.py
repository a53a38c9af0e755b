"""What checkpoints cost: the same training without them, and with as many as `fit` allows itself.

python benchmarks/checkpoint_cost.py --data-root DIR
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import click
import torch
from report import machine, plainly, print_machine, spread
from workloads import Workload, pretraining

from zoo.pipeline import Workspace
from zoo.training import Checkpoints, fit


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), envvar="ZOO_DATA")
@click.option("--backbone", type=click.Choice(["mlp", "conv"]), default="mlp", show_default=True)
@click.option("--epochs", default=4, show_default=True, help="Epochs of each training.")
@click.option("--rounds", default=5, show_default=True, help="Pairs of trainings, in turn.")
@click.option("--threads", default=2, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    data_root: Path | None, backbone: str, epochs: int, rounds: int, threads: int, as_json: bool
) -> None:
    """Time MNIST pretraining with a checkpoint after every step that the 2 % rule allows."""
    torch.set_num_threads(threads)
    with plainly():
        workload = pretraining(backbone, Workspace(data=data_root), epochs)
    train(workload, None)  # warms up
    without, with_, ratios, counts = [], [], [], []
    for _ in range(rounds):
        without.append(train(workload, None)[0])
        with tempfile.TemporaryDirectory() as folder:
            seconds, count = train(workload, Counted(Path(folder) / "checkpoint", steps=1))
        with_.append(seconds)
        counts.append(count)
        ratios.append(with_[-1] / without[-1])
    found = machine()
    result = {
        "machine": found,
        "workload": workload.title,
        "epochs": epochs,
        "seconds without": without,
        "seconds with": with_,
        "checkpoints": counts,
        "ratio": statistics.median(ratios),
    }
    if as_json:
        print(json.dumps(result, indent=2))
        return
    print_machine(found)
    print(f"{workload.title}, {epochs} epochs, {rounds} pairs (min / median / spread, seconds)")
    print(f"without checkpoints  {spread(without)}")
    print(f"with                 {spread(with_)}, {statistics.median(counts):.0f} checkpoints each")
    print(f"ratio                {statistics.median(ratios):.4f}, the median of the pairs")


class Counted(Checkpoints):
    """Checkpoints that count how many were written."""

    count = 0

    def save(self, *given: object) -> None:
        super().save(*given)  # type: ignore[arg-type]
        self.count += 1


def train(workload: Workload, checkpoints: Counted | None) -> tuple[float, int]:
    module, batches = workload.fresh(), workload.batches()
    started = time.perf_counter()
    fit(module, batches, workload.config, checkpoints=checkpoints)
    return time.perf_counter() - started, checkpoints.count if checkpoints else 0


if __name__ == "__main__":
    main()
