"""A stranger's package, installed by pip: its backbone in every verb, a broken one beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ENTRY = '''
"""A light entry module: it imports no torch."""

import dataclasses

from zoo.api import BackboneSpec, hookimpl, knob


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaveConfig:
    features: int = knob(12, "width of the code", low=1)
    epochs: int = knob(1, "a name that zoo's own flag has taken", low=1, high=9)


def build(config, input):
    from zoo_wave_model import Wave

    return Wave(config, input)


@hookimpl
def zoo_backbones():
    return [BackboneSpec(name="wave", summary="a stranger's backbone", config=WaveConfig,
                         build=build)]
'''

MODEL = """
import math

from torch import nn


class Wave(nn.Module):
    def __init__(self, config, input):
        super().__init__()
        self.features = config.features
        size = math.prod(input.shape)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(size, 32), nn.Tanh(),
                                     nn.Linear(32, config.features))
        self.decoder = nn.Sequential(nn.Linear(config.features, size),
                                     nn.Unflatten(1, input.shape))
"""

BROKEN = """
print("noise on stdout at import")
import a_dependency_that_is_not_installed
"""


@pytest.fixture(scope="module")
def site(pip_install: Callable[..., Path], make_package: Callable[..., Path]) -> Path:
    """A folder of installed packages: one good plugin, one that needs what is not there."""
    good = {"zoo_wave": ENTRY, "zoo_wave_model": MODEL}
    return pip_install(
        make_package("zoo-wave", {"wave": "zoo_wave"}, good),
        make_package("zoo-broken", {"broken": "zoo_broken"}, {"zoo_broken": BROKEN}),
    )


@pytest.fixture
def with_plugins(zoo: Callable[..., Any], site: Path) -> Callable[..., Any]:
    def run(*args: object, status: int = 0) -> Any:
        result = zoo(*args, PYTHONPATH=str(site))
        assert result.returncode == status, result.stderr
        assert "Traceback" not in result.stderr
        return result

    return run


@pytest.mark.slow
def test_an_installed_backbone_goes_through_every_verb(
    with_plugins: Callable[..., Any], tmp_path: Path
) -> None:
    verb = with_plugins
    listed = json.loads(verb("list", "backbones", "--json").stdout)["backbones"]
    assert {"name": "wave", "summary": "a stranger's backbone", "plugin": "zoo-wave:wave",
            "version": "0.3.1"} in listed  # fmt: skip
    shown = verb("show", "backbone", "wave").stdout
    assert "--epochs is zoo's own: type -b epochs=" in shown

    options = ("--features", "20", "-b", "epochs=3", "--epochs", "2", "--json", "--quiet")
    pretrained = json.loads(verb("pretrain", "wave", *options).stdout)
    record = json.loads((tmp_path / pretrained["folder"] / "run.json").read_text())
    assert record["backbone"] == {"name": "wave", "plugin": "zoo-wave:wave", "version": "0.3.1",
                                  "options": {"features": 20, "epochs": 3}}  # fmt: skip
    assert record["training"]["epochs"] == 2

    verb("finetune", "latest", "--labels", "200", "--epochs", "30", "--quiet")
    assert json.loads(verb("evaluate", "latest", "--json").stdout)["accuracy"] > 0.4
    verb("export", "latest", "-o", "wave.onnx", "--quiet")
    assert verb("validate", "wave.onnx", "--quiet").stdout.strip().endswith("proved")
    Image.fromarray(np.full((30, 50), 90, np.uint8)).save(tmp_path / "x.png")
    predictions = json.loads(verb("predict", "wave.onnx", "x.png", "--json").stdout)["predictions"]
    assert sum(predictions[0]["classes"].values()) == pytest.approx(1, abs=1e-4)
    listed = json.loads(verb("runs", "--json").stdout)["runs"]
    assert [run["state"] for run in listed] == ["finished", "finished"]


def test_a_broken_plugin_is_named_and_in_nobodys_way(with_plugins: Callable[..., Any]) -> None:
    plugins = {
        p["name"]: p for p in json.loads(with_plugins("plugins", "--json").stdout)["plugins"]
    }
    assert plugins["zoo-wave:wave"]["cause"] is None
    assert plugins["zoo-broken:broken"]["cause"] == (
        "ModuleNotFoundError: No module named 'a_dependency_that_is_not_installed'"
    )
    shown = with_plugins("plugins").stdout
    assert "FAILED: ModuleNotFoundError" in shown
    listed = with_plugins("list")
    assert "noise on stdout" not in listed.stdout
    assert "Failed to load: zoo-broken:broken. See: zoo plugins" in listed.stderr
    unknown = with_plugins("pretrain", "broken-thing", status=2)
    assert unknown.stderr.endswith(
        "\n  It may belong to a plugin that failed to load; see: zoo plugins\n"
        "  zoo-broken:broken: ModuleNotFoundError:"
        " No module named 'a_dependency_that_is_not_installed'\n"
    )


@pytest.mark.slow
def test_a_wheel_holds_everything_and_runs(
    tmp_path: Path, request: pytest.FixtureRequest, pip_install: Callable[..., Path]
) -> None:
    """What a user installs, not what lies in the checkout."""
    root = request.config.rootpath
    checkout = tmp_path / "checkout"
    ignored = shutil.ignore_patterns(
        ".git", "runs", "build", "*.egg-info", "__pycache__", ".*_cache"
    )
    shutil.copytree(root, checkout, ignore=ignored)
    installed = pip_install(checkout)
    for package_name in ("zoo", "zoo_images", "zoo_mlp", "zoo_conv", "zoo_recipes"):
        assert (installed / package_name / "__init__.py").is_file()
    assert (installed / "zoo" / "py.typed").is_file()
    assert not (installed / "tests").exists()
    where = subprocess.run(
        [sys.executable, "-P", "-c", "import zoo, zoo_mlp; print(zoo.__file__, zoo_mlp.__file__)"],
        env={"PYTHONPATH": str(installed), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(path.startswith(str(installed)) for path in where.stdout.split())
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "zoo", "run", "quickstart", "--seeds", "1", "--json"],
        env={"PYTHONPATH": str(installed), "PATH": "", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["proof"]["passed"]
    reported = subprocess.run(
        [sys.executable, "-P", "-m", "zoo", "report", "latest", "-o", "page.html"],
        env={"PYTHONPATH": str(installed), "PATH": "", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert reported.returncode == 0, reported.stderr
    assert (tmp_path / "page.html").read_text(encoding="utf-8").endswith("</html>")
