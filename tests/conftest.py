"""Fixtures that every test may use."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as CliResult

# The models are tiny: one thread is quicker than two. Read when torch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What the person who runs the tests has set must not reach the commands that are tested.
# xdist's workers get this environment after it was stripped: the folder is kept by another name.
REAL_DATA = os.environ.get("ZOO_DATA") or os.environ.get("TEST_REAL_DATA")
if REAL_DATA:
    os.environ["TEST_REAL_DATA"] = str(Path(REAL_DATA).absolute())
for name in [name for name in os.environ if name.startswith("ZOO_")]:
    if name not in ("ZOO_NODE_MODULES", "ZOO_BROWSER"):  # where these lie is the machine's affair
        del os.environ[name]
# Each runtime beside onnxruntime costs a process or two a proof; tests ask for them by name.
os.environ["ZOO_RUNTIMES"] = "none"

# A shell starts what runs in the background without Ctrl-C, and tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from zoo import pipeline
from zoo.api import Component, TrainConfig
from zoo.pipeline import Workspace
from zoo.runs import Run

ROOT = Path(__file__).resolve().parent.parent
Result = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def bench_script() -> Iterator[Callable[[str], Any]]:
    """Import a script of `benchmarks/` by its name; its neighbours stand beside it."""
    folder = str(ROOT / "benchmarks")
    sys.path.append(folder)
    yield importlib.import_module
    sys.path.remove(folder)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """The installed plugins, with runs and data in a temporary folder."""
    return Workspace(runs=tmp_path / "runs", data=tmp_path / "data")


@pytest.fixture
def zoo(tmp_path: Path) -> Callable[..., Result]:
    """Run the command `zoo` as a user would, in a temporary folder; output is captured.

    `zoo("list", "heads")`; keywords are environment variables.
    """

    def run(*args: object, timeout: float = 120, **env: str) -> Result:
        command = [sys.executable, "-m", "zoo", *map(str, args)]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "1000", "OMP_NUM_THREADS": "1", **env},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CliResult]:
    """Run a command line within this process, quicker than `zoo`; in a temporary folder."""
    from zoo.cli.main import zoo as command

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")

    def run(*args: object) -> CliResult:
        return CliRunner().invoke(command, [str(arg) for arg in args], prog_name="zoo")

    return run


PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "{version}"
dependencies = ["plugzoo"]
[project.entry-points.zoo]
{points}
[tool.setuptools]
py-modules = [{modules}]
"""


@pytest.fixture(scope="session")
def make_package(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a stranger's package: `make_package("zoo-x", {"x": "mod"}, {"mod": "…"})`.

    Points are the entry points of the group `zoo`; modules are texts by name.
    """

    def make(
        name: str, points: dict[str, str], modules: dict[str, str], version: str = "0.3.1"
    ) -> Path:
        folder = tmp_path_factory.mktemp(name)
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
        lines = "\n".join(f'{point} = "{module}"' for point, module in points.items())
        quoted = ", ".join(f'"{module}"' for module in modules)
        (folder / "pyproject.toml").write_text(
            PROJECT.format(name=name, version=version, points=lines, modules=quoted)
        )
        return folder

    return make


@pytest.fixture(scope="session")
def pip_install(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Install packages with pip in a folder of their own, to be set as PYTHONPATH."""

    def install(*packages: Path) -> Path:
        target = tmp_path_factory.mktemp("site")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--no-build-isolation", "--target", str(target), *map(str, packages)]
        subprocess.run(command, check=True, capture_output=True)
        return target

    return install


@dataclasses.dataclass(frozen=True)
class Trained:
    """A pretraining, a finetuning and its exported file on digits, in a runs folder."""

    runs: Path
    pretrained: Run
    finetuned: Run
    model: Path

    @property
    def workspace(self) -> Workspace:
        return Workspace(runs=self.runs)


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    runs = tmp_path_factory.mktemp("trained") / "runs"
    workspace = Workspace(runs=runs)
    training = TrainConfig(epochs=4, batch_size=64, lr=3e-3)
    backbone = Component("mlp", widths=(32,), features=16)
    pretrained = pipeline.pretrain(backbone, training=training, workspace=workspace)
    finetuned = pipeline.finetune(pretrained, training=training, workspace=workspace)
    model = pipeline.export(finetuned, workspace=workspace).model
    return Trained(runs, pretrained, finetuned, model)


@pytest.fixture
def trained(trained_once: Trained, tmp_path: Path) -> Trained:
    """A copy of finished runs that a test may break."""
    runs = tmp_path / "runs"
    shutil.copytree(trained_once.runs, runs)
    pretrained, finetuned = (
        Run(runs / run.name, dataclasses.replace(run.record))
        for run in (trained_once.pretrained, trained_once.finetuned)
    )
    return Trained(runs, pretrained, finetuned, finetuned.model)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real MNIST and Fashion-MNIST sets; skips where `ZOO_DATA` is not set."""
    if not REAL_DATA:
        pytest.skip("set ZOO_DATA to a folder with the real MNIST and Fashion-MNIST sets")
    return Path(REAL_DATA)
