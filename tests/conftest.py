"""Fixtures that every test may use."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from click.testing import Result as CliResult

# The models are tiny: one thread is quicker than two. Read when torch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What the person who runs the tests has set must not reach the commands that are tested.
REAL_DATA = os.environ.get("ZOO_DATA")
for name in [name for name in os.environ if name.startswith("ZOO_")]:
    del os.environ[name]

from zoo import pipeline
from zoo.api import Component, TrainConfig
from zoo.pipeline import Workspace
from zoo.runs import Run

ROOT = Path(__file__).resolve().parent.parent
Result = subprocess.CompletedProcess[str]


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
            env={**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1", **env},
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
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: object) -> CliResult:
        return CliRunner().invoke(command, [str(arg) for arg in args], prog_name="zoo")

    return run


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
