"""Memory and seconds of exporting large networks, each in a process of its own.

python benchmarks/export_memory.py
python benchmarks/export_memory.py vgg16 --memory 500MB
python benchmarks/export_memory.py vgg16 --commit 9b1a31b       # the zoo of an earlier commit
python benchmarks/export_memory.py --json > benchmarks/results/export_memory.json
python benchmarks/export_memory.py --table --write benchmarks/README.md
"""

from __future__ import annotations

import contextlib
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
import pages
from large_networks import SIZES
from PIL import Image
from report import checked_out, environment_of, head_of, machine, print_machine

RESULT = Path(__file__).parent / "results" / "export_memory.json"
TABLE = "python benchmarks/export_memory.py --table"
TITLES = {
    "resnet50": "ResNet-50",
    "vit_b_32": "ViT-B/32",
    "inception_v3": "Inception v3",
    "vgg16": "VGG-16",
}
# Version 0.1.0 on as many pictures, as the issue tracker has it: seconds, CPU seconds, peak GB, and
# whether the export came to its end; the others were stopped.
BEFORE = {
    "resnet50": (373, 226, 7.8, True),
    "vit_b_32": (350, 297, 7.6, True),
    "inception_v3": (500, 302, 10.5, False),
    "vgg16": (505, 376, 13.0, False),
}
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


def measured(command: list[str], folder: Path, environment: dict[str, str]) -> Measured:
    """Run a command in a folder that holds no zoo, and wait; what it says last is kept."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        place: dict[str, Any] = {"cwd": folder, "env": environment}
        process = subprocess.Popen(command, stdout=said, stderr=said, **place)
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


def export_of(
    name: str, folder: Path, memory: str | None, environment: dict[str, str]
) -> dict[str, Any]:
    """Train a linear head on a network that is kept as it is, export it, and say what each took."""
    size = SIZES[name]
    write_pictures(folder / "pictures", size)
    zoo = [sys.executable, "-m", "zoo", "--plugin", str(NETWORKS)]
    runs = ["--runs", str(folder / "runs"), "--quiet"]
    data = ["--dataset", "folder", "-d", f"path={folder / 'pictures'}", "-d", f"size={size}"]
    training = ["--freeze", "--epochs", "1", "--batch-size", "8"]
    backbone = ["--backbone", name.replace("_", "-"), "--head", "linear"]
    trained = measured([*zoo, "finetune", *backbone, *data, *training, *runs], folder, environment)
    if trained.status:
        raise click.ClickException(f"{name} cannot be trained: {trained.said}")
    limit = [] if memory is None else ["--memory", memory]
    file = folder / f"{name}.onnx"
    command = [*zoo, "export", "latest", "-o", str(file), *limit, *runs]
    exported = measured(command, folder, environment)
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


def render(networks: list[dict[str, Any]]) -> str:
    """Write a row for each network: its file, and what its export took at 0.1.0 and takes."""
    heads = ("network", "file, MB", "0.1.0: s", "CPU s", "peak GB", "now: s", "CPU s", "peak GB",
             "batch sizes; examples in that row", "")  # fmt: skip
    rows = [heads, ["---"] * len(heads)]
    for each in networks:
        took, name = each["export"], each["network"]
        *seconds, peak, ended = BEFORE[name]
        size = "–" if each["bytes"] is None else f"{each['bytes'] / 1e6:,.1f}"
        before = [f"{figure}" if ended else f"> {figure}" for figure in seconds]
        now = [f"{took[figure]:.0f}" for figure in ("seconds", "cpu_seconds")]
        now.append(f"{took['peak_bytes'] / 1e9:.2f}")
        rows.append([TITLES[name], size, *before, f"{peak:.1f}", *now, batches(each["rows"]),
                     each["verdict"]])  # fmt: skip
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def batches(rows: list[dict[str, Any]]) -> str:
    """Return the batch sizes that a proof asked, and how many examples at each."""
    for row in rows:
        name, _, sizes = row["name"].partition("batches ")
        if not name and sizes:
            return f"{sizes}; {row['figure'].split(' apart in ')[-1].removesuffix(' examples')}"
    return ""


@click.command()
@click.argument("networks", nargs=-1, type=click.Choice(list(SIZES)))
@click.option("--memory", help="Passed on to export; without it, export's own.")
@click.option("--commit", "earlier", help="Export with the zoo of this commit.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, the proof's rows with it.")
@click.option("--table", is_flag=True, help="Render the published result, and measure nothing.")
@click.option("--write", "page", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Put that table into a page.")  # fmt: skip
def main(
    networks: tuple[str, ...],
    memory: str | None,
    earlier: str | None,
    as_json: bool,
    table: bool,
    page: Path | None,
) -> None:
    """Finetune and export NETWORKS, by default all, on 30 pictures; 6 are the test split."""
    if table:
        pages.show(render(json.loads(RESULT.read_text())["networks"]), page, TABLE)
        return
    here, found = machine("torchvision"), []
    environment = {**os.environ, "ZOO_RUNTIMES": "none"}
    with contextlib.ExitStack() as stack:
        if earlier is not None:
            tree = stack.enter_context(checked_out(earlier))
            environment = environment_of(tree)
            here["commit"] = head_of(tree)
        for name in networks or SIZES:
            with tempfile.TemporaryDirectory(prefix="export-memory-") as folder:
                found.append(export_of(name, Path(folder), memory, environment))
            click.echo(f"{name}: {found[-1]['verdict']}", err=True)
    if as_json:
        print(json.dumps({"machine": here, "networks": found}, indent=2))
        return
    print_machine(here)
    print(render(found))


if __name__ == "__main__":
    main()
