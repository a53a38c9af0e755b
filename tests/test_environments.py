"""The bounds and the Pythons that pyproject.toml names are those that every verb was tried with."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from zoo.cli.main import VERBS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def script(bench_script: Callable[[str], Any]) -> Any:
    return bench_script("environments")


def test_the_steps_are_of_every_verb(script: Any) -> None:
    assert set(VERBS) == {words[0] for words in script.STEPS.values()} - {"bundle/run.py"}


def test_the_lower_bounds_are_the_versions_that_were_tried(script: Any) -> None:
    tried = script.results()["lowest"]["versions"]
    bounds = script.declared() | script.declared_extras(script.EXTRAS)
    assert set(tried) == {*bounds, "python"}
    for name, bound in bounds.items():
        wanted = Version(bound).release
        found = Version(tried[name]).release
        assert (*found, 0, 0)[: len(wanted)] == wanted, f"{name}>={bound}: {tried[name]} was tried"


def test_every_dependency_has_a_lower_bound(script: Any) -> None:
    extras = [line for name in script.EXTRAS.split(",") for line in extra(name)]
    assert len(script.declared()) == len(PROJECT["dependencies"])
    assert len(script.declared_extras(script.EXTRAS)) == len(set(extras))
    assert {*script.EXTRAS.split(","), "dev"} == set(PROJECT["optional-dependencies"])


def extra(name: str) -> list[str]:
    lines: list[str] = PROJECT["optional-dependencies"][name]
    return lines


def test_the_pythons_that_are_named_were_tried(script: Any) -> None:
    named = re.findall(r"Python :: (\d\.\d+)", "\n".join(PROJECT["classifiers"]))
    tried = [each["versions"]["python"] for each in script.results().values()]
    assert sorted(named) == sorted(".".join(version.split(".")[:2]) for version in tried)
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_every_step_of_the_committed_results_worked(script: Any) -> None:
    found = script.results()
    assert set(found) == set(script.ENVIRONMENTS)
    for name, each in found.items():
        assert set(each["steps"]) == set(script.STEPS), name
        assert {step: came["said"] for step, came in each["steps"].items() if came["status"]} == {}
        assert re.fullmatch(r"[0-9a-f]{40}", each["machine"]["commit"])


def test_the_page_shows_the_table_of_the_committed_results(script: Any, pages: Any) -> None:
    shown = pages.read(ROOT / "benchmarks" / "README.md", script.TABLE)
    assert shown == script.render(script.results())


@pytest.fixture(scope="module")
def pages(bench_script: Callable[[str], Any]) -> Any:
    return bench_script("pages")


def test_a_step_that_fails_says_how(script: Any, tmp_path: Path) -> None:
    told = script.step(Path(sys.executable), tmp_path, ("show", "backbone", "perceptron"))
    assert told.status == 2
    assert told.said.startswith("Error: Unknown backbone 'perceptron'.")
    assert json.loads(json.dumps(vars(told)))["status"] == 2


@pytest.mark.slow
def test_some_steps_work_here(script: Any) -> None:
    steps = ("plugins", "resume", "runs")
    found = script.try_all(Path(sys.executable), steps, lambda step, told: None)
    assert {step: told.said for step, told in found.items()} == dict.fromkeys(steps, "")
