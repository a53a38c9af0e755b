"""The page of a report in a real headless browser, on a phone and on a desk, light and dark."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import zoo_heads
import zoo_mlp
from zoo import pipeline
from zoo.api import Component, TrainConfig
from zoo.pipeline import Workspace
from zoo.registry import Registry

from .plugin import Split, plugin

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).with_name("browser.mjs")
MODULES = Path(
    os.environ.get("ZOO_NODE_MODULES") or DRIVER.parent.parent.parent / "node_modules"
).resolve()
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = os.environ.get("ZOO_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


def look(path: Path) -> list[dict[str, Any]]:
    if shutil.which("node") is None or BROWSER is None or not (MODULES / "puppeteer-core").is_dir():
        pytest.skip("absent: Node, Chromium or puppeteer-core; ZOO_NODE_MODULES names its folder")
    given = json.dumps({"modules": str(MODULES), "browser": BROWSER, "file": str(path),
                        "widths": [390, 1280]})  # fmt: skip
    done = subprocess.run(
        ["node", str(DRIVER)], input=given, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def hold(path: Path, pictures: int) -> None:
    seen = look(path)
    assert [(each["width"], each["scheme"]) for each in seen] == [
        (390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")
    ]  # fmt: skip
    for each in seen:
        assert each["said"] == []
        assert len(each["requests"]) == 1
        assert each["requests"][0].startswith("file:")
        assert each["overflow"] == 0, each["width"]
        assert each["pictures"] >= pictures
        assert (each["broken"], each["flat"], each["scripts"]) == (0, 0, 0)
    light, dark = seen[0], seen[1]
    assert light["ground"] != dark["ground"]
    assert set(light["charts"]).isdisjoint(dark["charts"])


def test_a_classifier_and_its_pretraining(trained: Any) -> None:
    pipeline.evaluate(trained.finetuned, workspace=trained.workspace)
    for run, pictures in ((trained.finetuned, 40), (trained.pretrained, 48)):
        hold(pipeline.report(run, workspace=trained.workspace).report, pictures)


@pytest.mark.parametrize("classes", [4, 20, 120])
def test_hostile_and_long_names_break_nothing(tmp_path: Path, classes: int) -> None:
    split = Split()
    registry = Registry(plugins=[zoo_mlp, zoo_heads, plugin(split)])
    workspace = Workspace(plugins=registry, runs=tmp_path / "runs")
    run = pipeline.finetune(
        backbone=Component("mlp", widths=(8,), features=4),
        dataset=Component("odd", classes=classes, note="n" * 3000),
        training=TrainConfig(epochs=2, batch_size=16),
        workspace=workspace,
    )
    pipeline.evaluate(run, workspace=workspace)
    hold(pipeline.report(run, workspace=workspace).report, 10)
