"""Run a bundle's run.py on every Python from 3.8 on, with the oldest and the newest packages.

python benchmarks/runner_pythons.py --write                          # those found: three minutes
python benchmarks/runner_pythons.py --python ~/.pyenv/versions/3.8.18/bin/python

It needs uv, which installs the lowest versions that requirements.txt admits and the interpreter has
wheels of. Each must pass the self-test, and answer the golden pictures, in words and as JSON, with
the labels of the others and nearly their probabilities.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from report import machine, plainly, print_machine, refuse_part

from zoo import pipeline
from zoo.api import Component, TrainConfig
from zoo.pipeline import Workspace

RESULT = Path(__file__).parent / "results" / "runner_pythons.json"
PYTHONS = [f"3.{minor}" for minor in range(8, 14)]
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
PACKAGES = ("numpy", "onnxruntime", "pillow")
APART = 1e-4
"""What the bundle's own self-test allows between probabilities in fp32."""


def interpreters() -> dict[str, str]:
    """Return the Pythons at hand by version: pyenv's, else those that uv finds."""
    found = {}
    for version in PYTHONS:
        own = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        done = _run(["uv", "python", "find", "--no-project", version])
        if own or done.returncode == 0:
            found[version] = str(own[-1]) if own else done.stdout.strip()
    return found


def made(folder: Path) -> Path:
    """Train a little, export, and write a bundle."""
    workspace = Workspace(runs=folder / "runs")
    run = pipeline.finetune(
        backbone=Component("mlp", widths=(32,), features=16),
        training=TrainConfig(epochs=4, batch_size=64, lr=3e-3, threads=1),
        workspace=workspace,
    )
    pipeline.export(run, runtimes=["none"], workspace=workspace)
    pipeline.bundle(run, folder / "bundle", web=False, workspace=workspace)
    return folder / "bundle"


def tried(python: str, resolution: str, bundle: Path, folder: Path) -> dict[str, Any]:
    """Install what requirements.txt wants beside an interpreter, and let run.py answer."""
    place = folder / re.sub(r"\W", "_", f"{python}-{resolution}")
    _must(["uv", "venv", "--quiet", "--python", python, str(place)])
    own = str(place / "bin" / "python")
    wanted = str(bundle / "requirements.txt")
    pip = ["uv", "pip"]
    _must([*pip, "install", "--quiet", "--only-binary", ":all:", "--python", own,
           "--resolution", RESOLUTIONS[resolution], "-r", wanted])  # fmt: skip
    listed = json.loads(_must([*pip, "list", "--format", "json", "--python", own]))
    versions = {each["name"].lower(): each["version"] for each in listed}
    runner, pictures = str(bundle / "run.py"), sorted((bundle / "golden").iterdir())
    names = [str(path) for path in pictures]
    version = _must([own, "-c", "import platform; print(platform.python_version())"]).strip()
    answers = json.loads(_must([own, "-I", runner, *names, "--json"]))["predictions"]
    words = _must([own, "-I", runner, *names]).splitlines()
    starts = [f"{each['picture']}  {each['label']}  " for each in answers]
    return {
        "python": version,
        "packages": {name: versions[name] for name in PACKAGES},
        "selftest": _must([own, "-I", runner, "selftest"]).splitlines()[-1],
        "in words": all(map(str.startswith, words, starts)) and len(words) == len(starts),
        "answers": [each["classes"] for each in answers],
    }


def judge(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hold all answers against the first; AssertionError where one is another."""
    first, rows = results[0]["answers"], []
    for found in results:
        assert found["selftest"] == "selftest: yes", found
        assert found["in words"], found
        assert [next(iter(one)) for one in found["answers"]] == [next(iter(one)) for one in first]
        far = max(
            abs(one[label] - other[label])
            for one, other in zip(found["answers"], first, strict=True)
            for label in other
        )
        assert far <= APART, (found, far)
        rows.append({name: value for name, value in found.items() if name != "answers"})
    return rows


def _must(command: list[str]) -> str:
    done = _run(command)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=tempfile.gettempdir())
    except FileNotFoundError:
        raise click.UsageError(f"{command[0]} is not installed. Type: pip install uv") from None


def _each(pythons: dict[str, str], bundle: Path, folder: Path) -> Iterator[dict[str, Any]]:
    for version, python in pythons.items():
        for resolution in RESOLUTIONS:
            found = {"resolution": resolution, **tried(python, resolution, bundle, folder)}
            told = ", ".join(f"{name} {each}" for name, each in found["packages"].items())
            click.echo(f"{version} {resolution}: {told}: {found['selftest']}", err=True)
            yield found


@click.command(help=__doc__)
@click.option("--python", "named", multiple=True, help="An interpreter; without it those found.")
@click.option("--write", is_flag=True, help="Write benchmarks/results/runner_pythons.json.")
def main(named: tuple[str, ...], write: bool) -> None:
    refuse_part(write, bool(named), "--python")
    here = machine()
    pythons = {os.path.realpath(each): each for each in named} or interpreters()
    with tempfile.TemporaryDirectory() as name, plainly():
        folder = Path(name)
        rows = judge(list(_each(pythons, made(folder), folder)))
    told = {"machine": here, "runs": rows}
    if write:
        RESULT.write_text(json.dumps(told, indent=2) + "\n")
    print_machine(here)
    for row in rows:
        versions = ", ".join(f"{name} {version}" for name, version in row["packages"].items())
        print(f"Python {row['python']}, {row['resolution']}: {versions}: {row['selftest']}")


if __name__ == "__main__":
    sys.exit(main())
