"""Random mutations of a valid file through `validate`, `inspect` and `predict`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def script(bench_script: Callable[[str], Any]) -> Any:
    return bench_script("mutations")


def test_no_mutation_crashes_or_is_proved(script: Any, trained: Any, tmp_path: Path) -> None:
    results = script.run(trained.model, trained.runs, tmp_path, range(8))
    assert {found["kind"] for found in results} == set(script.TITLES)
    assert len(results) == 8
    script.judge(results)


@pytest.mark.slow
@pytest.mark.begun_first
def test_none_of_a_sample_crashes_or_is_proved(script: Any, trained: Any, tmp_path: Path) -> None:
    """Of the 1,200 that `python benchmarks/mutations.py` tries."""
    numbers = script.sample(40)
    results = script.run(trained.model, trained.runs, tmp_path, numbers)
    assert [found["number"] for found in results] == numbers
    script.judge(results)


def test_the_published_table_is_that_of_the_committed_result(script: Any) -> None:
    found = json.loads(script.RESULT.read_text())
    assert found["mutations"] == len(script.NUMBERS)
    assert not [what for what in found["counts"] if what.endswith("validate proved")]
    page = (ROOT / "docs" / "export.md").read_text()
    for row in script.rows(found["counts"]):
        assert f"| {' | '.join(row)} |" in page
