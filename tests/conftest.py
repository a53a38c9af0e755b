"""Fixtures that every test may use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo.pipeline import Workspace

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
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ZOO_")}
        command = [sys.executable, "-m", "zoo", *map(str, args)]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={**environment, "COLUMNS": "200", "OMP_NUM_THREADS": "1", **env},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real MNIST and Fashion-MNIST sets; skips where `ZOO_DATA` is not set."""
    if not os.environ.get("ZOO_DATA"):
        pytest.skip("set ZOO_DATA to a folder with the real MNIST and Fashion-MNIST sets")
    return Path(os.environ["ZOO_DATA"])
