"""Every built-in backbone, objective and head on digits, from pretraining to a proved file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.pipeline import Workspace

Trained = Any
# Each backbone and head once, and an objective of each sort: with a decoder, with views, with
# weights of its own, with a teacher.
SAMPLE = (
    ("mlp", "distill", "linear"),
    ("conv", "denoise", "mlp"),
    ("conv-residual", "variational", "linear"),
    ("conv-nano", "contrastive", "mlp"),
    ("conv-patch", "redundancy", "linear"),
)


@pytest.fixture(scope="module")
def script(bench_script: Callable[[str], Any]) -> Any:
    return bench_script("combinations")


def test_the_sample_has_each_backbone_and_head(script: Any) -> None:
    assert set(script.EVERY) >= set(SAMPLE)
    for place in (0, 2):
        assert {names[place] for names in SAMPLE} == {names[place] for names in script.EVERY}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(n, marks=pytest.mark.slow if i > 1 else [], id="-".join(n))
        for i, n in enumerate(SAMPLE)
    ],
)
def test_a_combination_ends_in_a_proved_file(
    names: tuple[str, ...], script: Any, workspace: Workspace, trained_once: Trained
) -> None:
    script.check(names, workspace, trained_once.model)


def test_a_scan_goes_on_with_lines_of_the_same_tree_alone(script: Any, tmp_path: Path) -> None:
    path, here = tmp_path / "combinations.json", {"commit": "a" * 40, "threads": 1}
    anew = {"machine": here, "proved": {}}
    assert script.begun(here, path) == anew
    told = {"machine": here, "proved": {"mlp denoise linear": 0.9}}
    path.write_text(json.dumps(told))
    assert script.begun(here, path) == told
    for other in ({**here, "commit": "b" * 40}, {**here, "threads": 2}):
        assert script.begun(other, path) == {"machine": other, "proved": {}}
    for unknown in ("a" * 40 + "-dirty", "plugzoo 1.0"):  # either may have been another source
        there = {**here, "commit": unknown}
        path.write_text(json.dumps({**told, "machine": there}))
        assert script.begun(there, path) == {"machine": there, "proved": {}}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(8))
def test_so_do_others_that_are_drawn(
    number: int, script: Any, workspace: Workspace, trained_once: Trained
) -> None:
    """The rest are in the committed result of `python benchmarks/combinations.py`."""
    names = script.sample(8, leave_out=frozenset(SAMPLE))[number]
    script.check(names, workspace, trained_once.model)


def test_every_combination_has_been_proved(script: Any) -> None:
    found = json.loads(script.RESULT.read_text())["proved"]
    assert {tuple(names.split()) for names in found} == set(script.EVERY)
    assert min(found.values()) > 0.3
