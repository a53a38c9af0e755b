"""Memory and seconds of exporting large networks, each in a process of its own.

python benchmarks/export_memory.py
python benchmarks/export_memory.py vgg16 --memory 500MB --json
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from large_networks import SIZES
from PIL import Image
from report import machine, print_machine

from zoo.cli.output import table

CLASSES, PICTURES = 3, 10
NETWORKS = Path(__file__).with_name("large_networks.py")


@dataclasses.dataclass(frozen=True)
class Measured:
    """One command: the seconds it took, and the most memory that its process held."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    status: int
    said: str

    @property
    def figures(self) -> dict[str, float]:
        names = ("seconds", "cpu_seconds", "peak_bytes", "status")
        return {name: getattr(self, name) for name in names}


def measured(command: list[str]) -> Measured:
    """Run a command and wait for it; what it says last is kept."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().splitlines() or [""]
    return Measured(
        seconds=time.perf_counter() - begun,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_bytes=used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        status=process.returncode,
        said=lines[-1],
    )


def write_pictures(folder: Path, size: int) -> None:
    """Write noise round a grey of each class's own; a fifth of the pictures become the test."""
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        place = folder / f"class-{label}"
        place.mkdir(parents=True)
        for number in range(PICTURES):
            pixels = rng.normal(64 * (label + 1), 40, (size, size, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")


def export_of(name: str, folder: Path, memory: str | None) -> dict[str, Any]:
    """Train a linear head on a network that is kept as it is, export it, and say what each took."""
    size = SIZES[name]
    write_pictures(folder / "pictures", size)
    zoo = [sys.executable, "-m", "zoo", "--plugin", str(NETWORKS)]
    runs = ["--runs", str(folder / "runs"), "--quiet"]
    data = ["--dataset", "folder", "-d", f"path={folder / 'pictures'}", "-d", f"size={size}"]
    training = ["--freeze", "--epochs", "1", "--batch-size", "8"]
    backbone = ["--backbone", name.replace("_", "-"), "--head", "linear"]
    trained = measured([*zoo, "finetune", *backbone, *data, *training, *runs])
    if trained.status:
        raise click.ClickException(f"{name} cannot be trained: {trained.said}")
    limit = [] if memory is None else ["--memory", memory]
    file = folder / f"{name}.onnx"
    exported = measured(
        [*zoo, "export", "latest", "-o", str(file), "--runtimes", "none", *limit, *runs]
    )
    rows = []
    if (proof := file.with_suffix(".proof.json")).is_file():
        content = json.loads(proof.read_bytes())
        rows, verdict = content["rows"], content["verdict"]
    else:
        verdict = exported.said
    return {
        "network": name,
        "bytes": file.stat().st_size if file.is_file() else None,
        "finetune": trained.figures,
        "export": exported.figures,
        "verdict": verdict,
        "rows": rows,
    }


@click.command()
@click.argument("networks", nargs=-1, type=click.Choice(list(SIZES)))
@click.option("--memory", help="Passed on to export; without it, export's own.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, the proof's rows with it.")
def main(networks: tuple[str, ...], memory: str | None, as_json: bool) -> None:
    """Finetune and export NETWORKS, by default all, on 30 pictures; 6 are the test split."""
    found = []
    for name in networks or SIZES:
        with tempfile.TemporaryDirectory(prefix="export-memory-") as folder:
            found.append(export_of(name, Path(folder), memory))
        click.echo(f"{name}: {found[-1]['verdict']}", err=True)
    if as_json:
        print(json.dumps({"machine": machine("torchvision"), "networks": found}, indent=2))
        return
    print_machine(machine("torchvision"))
    rows = []
    for each in found:
        took = each["export"]
        size = "–" if each["bytes"] is None else f"{each['bytes'] / 1e6:,.1f}"
        figures = (f"{took[name]:.1f}" for name in ("seconds", "cpu_seconds"))
        rows.append((each["network"], size, *figures, f"{took['peak_bytes'] / 1e9:.2f}",
                     each["verdict"]))  # fmt: skip
    table(("network", "MB", "seconds", "CPU s", "peak GB", ""), rows)


if __name__ == "__main__":
    main()
