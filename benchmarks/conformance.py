"""Which runtimes give an exported file's answers: every built-in backbone under every runtime.

python benchmarks/conformance.py --venvs DIR
python benchmarks/conformance.py --venvs DIR --opset 20 --int8
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
from report import machine, plainly, print_machine

from zoo.api import Component, TrainConfig
from zoo.export import runtimes
from zoo.export.comparison import SPREAD, apart, softmax32
from zoo.export.modelfile import ModelFile, open_model
from zoo.export.runtimes import Answer, Worker
from zoo.export.runtimes.catalogue import PYTHON_WORKER
from zoo.export.targets import ExportConfig
from zoo.export.trials import elsewhere
from zoo.pipeline import Workspace, export, finetune, model_files
from zoo.runs import Run

BATCHES = (1, 64)
"""The second leaves a smaller last batch: one session answers two sizes."""

Array = np.ndarray[Any, Any]
Ask = Callable[[ModelFile, Array, int], Answer]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A file to be run, and what it should answer."""

    title: str
    file: ModelFile
    images: Array
    expected: Array  # probabilities

    @property
    def bound(self) -> float:
        return SPREAD[self.file.card.precision]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One file in one runtime, the worst over all batch sizes."""

    version: str
    difference: float | None
    flips: int | None
    problem: str
    agrees: bool


@click.command(context_settings={"show_default": True})
@click.option(
    "--venvs",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the other onnxruntimes; those that are not there are installed into it.",
)
@click.option(
    "--onnxruntime",
    "versions",
    default="1.15.1,1.18.1,1.32.0",
    help="Versions to run beside the others; the first has no wheel for Python above 3.11.",
)
@click.option("--opset", type=click.Choice(["18", "20", "21"]), default="18")
@click.option("--int8", is_flag=True, help="Run each file's int8 twin as well.")
@click.option("--fp16", is_flag=True, help="Run each file's fp16 twin as well.")
@click.option("--epochs", default=2, help="Epochs of training on digits.")
@click.option("--seconds", default=60.0, help="Time limit of one runtime on one file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    venvs: Path,
    versions: str,
    opset: str,
    int8: bool,
    fp16: bool,
    epochs: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Hold what runtimes answer for the digits' whole test split against the reference.

    An fp32 file is held against PyTorch, a smaller one against this Python's onnxruntime. A cell is
    the largest difference of probabilities, and how many labels differ that are no ties. Exits
    with 1 where an answer is out of the bounds that `zoo export` proves by.
    """
    askers = dict(_askers(versions.split(","), venvs, seconds))
    table: dict[str, dict[str, Cell]] = {name: {} for name in askers}
    small = [name for name, wanted in (("int8", int8), ("fp16", fp16)) if wanted]
    titles: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder, plainly():
        for subject in _subjects(Path(folder), opset, small, epochs):
            titles.setdefault(subject.file.card.precision, []).append(subject.title)
            for name, ask in askers.items():
                table[name][subject.title] = _cell(subject, ask)
                click.echo(f"  {subject.title}, {name}: {table[name][subject.title]}", err=True)
    found = machine("onnx", "onnxruntime")
    if as_json:
        rows = {n: {t: dataclasses.asdict(c) for t, c in row.items()} for n, row in table.items()}
        print(json.dumps({"machine": found, "opset": opset, "runtimes": rows}, indent=2))
    else:
        print_machine(found)
        _print_table(table, titles)
    wrong = [c for row in table.values() for c in row.values() if not (c.agrees or c.problem)]
    sys.exit(1 if wrong else 0)


def _subjects(folder: Path, opset: str, small: list[str], epochs: int) -> Iterator[Subject]:
    """Train and export every built-in backbone."""
    workspace = Workspace(runs=folder)
    for title, backbone in _backbones(workspace):
        training = TrainConfig(epochs=epochs, batch_size=32, lr=3e-3)
        run = finetune(backbone=backbone, dataset="digits", training=training, workspace=workspace)
        source = model_files.read(run, workspace, "conformance")
        file = _export(run, workspace, opset)
        yield Subject(title, file, source.images, softmax32(source.logits))
        for precision in small:
            # However much it costs: what is asked here is whether all compute the same.
            file = _export(run, workspace, opset, max_drop=100.0, **{precision: True})
            expected = _worker(seconds=600.0)(file, source.images, 64).probabilities
            assert expected is not None
            yield Subject(f"{title} {precision}", file, source.images, expected)


def _backbones(workspace: Workspace) -> Iterator[tuple[str, Component]]:
    """Yield every built-in backbone, with batch normalization where that is an option."""
    for entry in workspace.registry.entries("backbone"):
        if not entry.plugin.startswith("plugzoo:"):
            continue
        options = {field.name for field in dataclasses.fields(entry.spec.config)}
        normed = {"norm": True} if "norm" in options else {}
        yield entry.name, Component(entry.name, **normed)
        if "activation" in options:
            # Before opset 20 it is written with Erf, which not every runtime has.
            yield f"{entry.name}, gelu", Component(entry.name, activation="gelu", **normed)


def _export(run: Run, workspace: Workspace, opset: Any, **options: Any) -> ModelFile:
    config = ExportConfig(opset=opset, **options)
    return open_model(export(run, config=config, runtimes=["none"], workspace=workspace).model)


def _askers(versions: Iterable[str], venvs: Path, seconds: float) -> Iterator[tuple[str, Ask]]:
    for version in versions:
        yield f"onnxruntime {version}", _onnxruntime(version, venvs, seconds)
    yield "onnx.reference", _reference
    for name in runtimes.NAMES:
        yield name, _other(name, seconds)


def _other(name: str, seconds: float) -> Ask:
    def ask(file: ModelFile, images: Array, batch: int) -> Answer:
        return runtimes.run(
            name,
            file.data,
            images,
            batch=batch,
            layout=file.card.layout,
            fixed_batch=file.card.batch,
            seconds=seconds,
        )

    return ask


def _reference(file: ModelFile, images: Array, batch: int) -> Answer:
    """Run ONNX's own implementation a few examples at a time, whatever the batch size."""
    parts = []
    for start in range(0, len(images), 16):
        [answer] = elsewhere("onnx.reference", file, images[start : start + 16])
        if answer.probabilities is None:
            return answer
        parts.append(answer.probabilities)
    return dataclasses.replace(answer, probabilities=np.concatenate(parts), logits=None)


def _onnxruntime(version: str, venvs: Path, seconds: float) -> Ask:
    """Return one version of onnxruntime: this Python's, or one in a folder of its own."""
    if version == metadata.version("onnxruntime"):
        return _worker(seconds)
    folder = venvs / f"onnxruntime-{version}"
    problem = "" if folder.is_dir() else _install(version, folder)
    if problem:
        return lambda *_: Answer("onnxruntime", problem=problem)
    return _worker(seconds, ("PYTHONPATH", str(folder.resolve())))


def _worker(seconds: float, *environment: tuple[str, str]) -> Ask:
    command = (sys.executable, "-P", str(PYTHON_WORKER), "onnxruntime", "")
    worker = Worker("onnxruntime", command, environment)

    def ask(file: ModelFile, images: Array, batch: int) -> Answer:
        return runtimes.ask(worker, file.data, images, batch=batch, seconds=seconds)

    return ask


def _install(version: str, folder: Path) -> str:
    """Install an onnxruntime and its numpy alone; return the problem where that cannot be."""
    click.echo(f"installing onnxruntime {version}", err=True)
    old = tuple(int(part) for part in version.split(".")[:2]) < (1, 19)
    packages = [f"onnxruntime=={version}", "numpy<2" if old else "numpy"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    done = subprocess.run([*command, "--target", str(folder), *packages], capture_output=True)
    return "not installed: pip finds no such wheel for this Python" if done.returncode else ""


def _cell(subject: Subject, ask: Ask) -> Cell:
    worst, flips, version = 0.0, 0, ""
    for batch in BATCHES:
        answer = ask(subject.file, subject.images, batch)
        version = answer.version
        if answer.probabilities is None:
            return Cell(version, None, None, f"{answer.problem} (batch {batch})", False)
        difference, differ = apart(answer.probabilities, subject.expected, subject.bound)
        worst, flips = max(worst, difference), max(flips, differ)
    return Cell(version, worst, flips, "", worst <= subject.bound and not flips)


def _print_table(table: dict[str, dict[str, Cell]], titles: dict[str, list[str]]) -> None:
    """Print Markdown, a table for each precision; a list below them explains the problems."""
    problems: list[str] = []
    for columns in titles.values():
        print(f"| runtime | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
        for name, row in table.items():
            versions = sorted({row[title].version for title in columns} - {""})
            own = name if versions and versions[0] in name else f"{name} {' / '.join(versions)}"
            cells = " | ".join(_said(row[title], problems) for title in columns)
            print(f"| {own.strip()} | {cells} |")
        print()
    for number, problem in enumerate(problems, 1):
        print(f"{number}. {problem}")


def _said(cell: Cell, problems: list[str]) -> str:
    if not cell.problem:
        said = f"{cell.difference:.1e} / {cell.flips}"
        return said if cell.agrees else f"**{said}**"
    if cell.problem not in problems:
        problems.append(cell.problem)
    return f"{cell.problem.partition(':')[0]} [{problems.index(cell.problem) + 1}]"


if __name__ == "__main__":
    main()
