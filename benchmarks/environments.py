"""Every verb once, in fresh environments: the lowest versions declared, each Python.

python benchmarks/environments.py                  # three of them: 20 minutes, 7 GB of disk each
python benchmarks/environments.py --only lowest
python benchmarks/environments.py --only lowest --keep DIR    # it is left there

`uv` makes them (`pip install uv`), with the Python of that version that PATH has, or that it can
fetch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pages
from report import ROOT, machine, print_machine

RESULTS = Path(__file__).parent / "results" / "environments"
EXTRAS = "fabric,tensorboard,mlflow,ray,sign,conformance"
LIMIT = 600
"""Seconds of one command."""


@dataclasses.dataclass(frozen=True)
class Environment:
    """A Python and how versions are chosen, as `uv pip install --resolution` calls it."""

    python: str
    resolution: str


ENVIRONMENTS = {
    "lowest": Environment("3.11", "lowest-direct"),
    "python3.12": Environment("3.12", "highest"),
    "python3.13": Environment("3.13", "highest"),
}

SMALL = ("--epochs", "2", "--batch-size", "64", "--threads", "1")
SHORT = ("--epochs", "1", "--batch-size", "64", "--threads", "1")
BACKBONE = ("-b", "widths=32", "-b", "features=16")
# What is done, in this order; each is typed in the folder that the others were typed in.
STEPS: dict[str, tuple[str, ...]] = {
    "plugins": ("plugins",),
    "list": ("list",),
    "show": ("show", "backbone", "conv"),
    "finetune conv": ("finetune", "--backbone", "conv", "-b", "channels=4,8", *SHORT),
    "evaluate conv": ("evaluate", "latest"),
    "export conv": ("export", "latest", "-o", "conv.onnx"),
    "export conv, int8": ("export", "latest", "--int8", "--max-drop", "100", "-o", "conv8.onnx"),
    "pretrain": ("pretrain", "mlp", "--widths", "32", "--features", "16", *SMALL),
    "pretrain, to TensorBoard": ("pretrain", "conv-nano", "--log", "tensorboard", *SHORT),
    "pretrain, to MLflow": ("pretrain", "conv-nano", "--log", "mlflow", *SHORT),
    "finetune": ("finetune", "runs/*-pretrain-mlp-*", "--labels", "200", *SMALL),
    "evaluate": ("evaluate", "latest"),
    "compare": ("compare", "runs/*-finetune-conv-*", "runs/*-finetune-mlp-*"),
    "self-train": ("finetune", "latest", "--self-train", "--shift", "1", *SMALL),
    "report": ("report", "latest"),
    "export": ("export", "latest", "-o", "model.onnx"),
    "export, opset 21": ("export", "latest", "--opset", "21", "-o", "opset21.onnx"),
    "export, int8": ("export", "latest", "--int8", "--max-drop", "100", "-o", "int8.onnx"),
    "export, fp16": ("export", "latest", "--fp16", "--max-drop", "100", "-o", "fp16.onnx"),
    "validate": ("validate", "model.onnx"),
    "validate, other runtimes": ("validate", "model.onnx", "--runtimes", "tract,openvino,opencv"),
    "inspect": ("inspect", "model.onnx", "--diff", "int8.onnx"),
    "benchmark": ("benchmark", "model.onnx", "--runs", "20", "--warmup", "2", "--batch", "1"),
    "predict": ("predict", "model.onnx", "picture.png"),
    "bundle": ("bundle", "model.onnx", "-o", "bundle", "--no-web", "--sign", "key.pem"),
    "bundle --verify": ("bundle", "--verify", "bundle", "--public-key", "key.pub"),
    "run.py selftest": ("bundle/run.py", "selftest"),
    "reproduce": ("reproduce", "latest"),
    "bench labels": (
        "bench", "labels", "--dataset", "digits", "--backbone", "mlp", *BACKBONE,
        "--objectives", "denoise", "--labels", "20", "--seeds", "2", "--jobs", "2",
        "--pretrain", "epochs=1", "--finetune", "epochs=1", "-o", "bench",
    ),
    "bench labels, on Ray": (
        "bench", "labels", "--dataset", "digits", "--backbone", "mlp", *BACKBONE,
        "--objectives", "denoise", "--labels", "20", "--seeds", "1", "--launcher", "ray",
        "--pretrain", "epochs=1", "--finetune", "epochs=1", "-o", "ray",
    ),
    "bench table": ("bench", "table", "bench"),
    "plugin new": ("plugin", "new", "zoo-mine", "--kind", "backbone"),
    "plugin check": ("plugin", "check", "mlp"),
    "run": ("run", "quickstart"),
    "resume": ("resume", "latest"),
    "runs": ("runs",),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Told:
    """What a command came to: its exit status, and where that is not 0 its last words."""

    status: int
    seconds: float
    said: str = ""


def step(python: Path, folder: Path, args: tuple[str, ...]) -> Told:
    """Type one command of `zoo`, or run a script, with the interpreter of an environment."""
    words = [word for each in args for word in _spelt_out(folder, each)]
    what = words if args[0].endswith(".py") else ["-m", "zoo", *words]
    started = time.monotonic()
    done = subprocess.run(
        [str(python), *what],
        cwd=folder,
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    said, status = done.stdout + done.stderr, done.returncode
    if status == 0 and args == ("plugins",) and "FAILED" in said:
        status = 1
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    words = " | ".join(lines[-6:]) if status else ""
    words = words.replace(str(folder), "…").replace(str(python.parent.parent), "ENVIRONMENT")
    return Told(status, round(time.monotonic() - started, 1), words)


def _spelt_out(folder: Path, word: str) -> list[str]:
    """Return a word of a command, or what it stands for, as a shell would."""
    if "*" not in word:
        return [word]
    return sorted(str(path.relative_to(folder)) for path in folder.glob(word))


def plain_environment() -> dict[str, str]:
    """Return this environment without what would bring another zoo, or settings, into it."""
    ours = ("ZOO_", "PYTHON", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "OMP_NUM_THREADS": "1", "ZOO_RUNTIMES": "none", "COLUMNS": "200"}


def interrupted(python: Path, folder: Path) -> None:
    """Begin a long pretraining, and press Ctrl-C once it has a checkpoint: `resume` goes on."""
    args = ("pretrain", "mlp", "--widths", "16", "--epochs", "60", "--checkpoint-steps", "5")
    begun = subprocess.Popen(
        [str(python), "-m", "zoo", *args, "--threads", "1", "--quiet"],
        cwd=folder,
        env=plain_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    before = set(folder.glob("runs/*/checkpoint*"))
    end = time.monotonic() + LIMIT
    while not set(folder.glob("runs/*/checkpoint*")) - before and begun.poll() is None:
        assert time.monotonic() < end, "no checkpoint was written"
        time.sleep(0.02)
    begun.send_signal(signal.SIGINT)
    begun.wait()


def prepare(python: Path, folder: Path) -> None:
    """Lay out what the steps read: a picture, and a pair of keys."""
    from PIL import Image

    Image.effect_noise((30, 30), 80).save(folder / "picture.png")
    for line in (
        "openssl ecparam -name prime256v1 -genkey -noout -out key.pem",
        "openssl ec -in key.pem -pubout -out key.pub",
    ):
        subprocess.run(line.split(), cwd=folder, check=True, capture_output=True)


def try_all(
    python: Path, steps: tuple[str, ...] = tuple(STEPS), told: Callable[[str, Told], None] = print
) -> dict[str, Told]:
    """Type every step with an environment's interpreter, in a folder of their own."""
    found: dict[str, Told] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(python, folder)
        for each in steps:
            if each == "resume":
                interrupted(python, folder)
            try:
                found[each] = step(python, folder, STEPS[each])
            except subprocess.TimeoutExpired:
                found[each] = Told(124, LIMIT, "it did not end")
            told(each, found[each])
    return found


# --- environments ---------------------------------------------------------------------------


@contextlib.contextmanager
def made(wanted: Environment, keep: Path | None) -> Iterator[Path]:
    """Make an environment and install this checkout in it; yield its interpreter.

    Raises `click.ClickException` where its Python, or the versions, cannot be had.
    """
    uv = shutil.which("uv")
    if uv is None:
        raise click.ClickException("uv makes the environments. Type: pip install uv")
    with tempfile.TemporaryDirectory() as scratch:
        folder = keep or Path(scratch) / "environment"
        python = folder / "bin" / "python"
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
        for line in (
            [uv, "venv", "--quiet", "--clear", "--python", wanted.python, str(folder)],
            [*install, "--resolution", wanted.resolution, f"{ROOT}[{EXTRAS}]"],
        ):
            done = subprocess.run(line, capture_output=True, text=True)
            if done.returncode:
                raise click.ClickException(f"{' '.join(line)}\n{done.stderr.strip()}")
        yield python


def versions_of(python: Path) -> dict[str, str]:
    """Return the versions, in an environment, of what pyproject.toml names."""
    names = [*declared(), *declared_extras(EXTRAS)]
    asked = "import json, sys; from importlib.metadata import version; import platform\n"
    asked += "found = {'python': platform.python_version()}\n"
    asked += "found |= {name: version(name) for name in sys.argv[1:]}; print(json.dumps(found))"
    done = subprocess.run(
        [str(python), "-c", asked, *names], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _bounds(lines: list[str]) -> dict[str, str]:
    parts = (re.fullmatch(r"([\w.-]+)>=([\w.]+).*", line) for line in lines)
    return {part[1]: part[2] for part in parts if part}


def _project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def declared() -> dict[str, str]:
    """Return the lower bound of each dependency, by its name."""
    return _bounds(_project()["dependencies"])


def declared_extras(names: str) -> dict[str, str]:
    """Return the lower bounds of extras, which are named with commas between."""
    extras = _project()["optional-dependencies"]
    return _bounds([line for name in names.split(",") for line in extras[name]])


# --- what is told ---------------------------------------------------------------------------


@click.command(help=__doc__)
@click.option("--only", "names", multiple=True, type=click.Choice(list(ENVIRONMENTS)))
@click.option("--keep", type=click.Path(path_type=Path), help="Make the environment here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--write",
    is_flag=True,
    help="Write each in benchmarks/results/environments/, and the table in benchmarks/README.md.",
)
def main(names: tuple[str, ...], keep: Path | None, as_json: bool, write: bool) -> None:
    if keep and len(names) != 1:
        raise click.UsageError("--keep takes one environment: add --only NAME.")
    here, found = machine(), {}
    for name in names or ENVIRONMENTS:
        with made(ENVIRONMENTS[name], keep) as python:
            told = try_all(python, told=lambda each, came: print(each, came, file=sys.stderr))
            found[name] = {
                "machine": here,
                **dataclasses.asdict(ENVIRONMENTS[name]),
                "versions": versions_of(python),
                "steps": {each: dataclasses.asdict(came) for each, came in told.items()},
            }
        if write:
            path = RESULTS / f"{name}.json"
            path.write_text(json.dumps(found[name], indent=2) + "\n")
            pages.write(PAGE, TABLE, render(results()))
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print_machine(here)
        print(render(found))
    failed = [each for one in found.values() for each in one["steps"].values() if each["status"]]
    sys.exit(1 if failed else 0)


PAGE = ROOT / "benchmarks" / "README.md"
TABLE = "python benchmarks/environments.py"
"""What marks the table in that page."""


def results() -> dict[str, Any]:
    """Return the committed results, by environment."""
    paths = {name: RESULTS / f"{name}.json" for name in ENVIRONMENTS}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def render(found: dict[str, Any]) -> str:
    """Return the table that benchmarks/README.md shows: a row an environment."""
    head = (
        "environment",
        "Python",
        "torch",
        "onnxruntime",
        "onnx",
        "numpy",
        "commands that worked",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, each in found.items():
        failed = [step for step, came in each["steps"].items() if came["status"]]
        worked = f"{len(each['steps']) - len(failed)} of {len(each['steps'])}"
        told = f"{worked}: not {', '.join(failed)}" if failed else worked
        versions = [each["versions"][part.lower()] for part in head[1:-1]]
        lines.append(f"| {' | '.join([name, *versions, told])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
