"""Pictures of every format, mode and depth: every reader beside the rule, read once more."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def script(bench_script: Callable[[str], Any]) -> Any:
    return bench_script("pictures")


@pytest.mark.slow
def test_a_sample_is_read_by_the_rule_or_refused(script: Any, tmp_path: Path) -> None:
    """Of those that `python benchmarks/pictures.py` tries; Node and a browser where they are."""
    absent = {name for name in ("sharp", "puppeteer-core") if not (script.MODULES / name).is_dir()}
    node = shutil.which("node") and "sharp" not in absent
    page = shutil.which("node") and script.BROWSER and "puppeteer-core" not in absent
    readers = ["zoo", "run.py", *(["node"] if node else []), *(["page"] if page else [])]
    cases = script.sample(script.all_cases(), 160)
    found = script.judge(cases, script.ask(cases, tmp_path, readers))
    assert sum(found["counts"].values()) == len(readers) * len(cases)


def test_a_wrong_answer_is_told(script: Any) -> None:
    """By the rule and beside the other readers; so is one that is more than a line."""
    case = script.all_cases()[0]
    shape = [(each["channels"], each["height"], each["width"]) for each in script.INPUTS]
    flat = [script.base64.b64encode(bytes(a * b * c)).decode() for a, b, c in shape]
    black = ["=" + line for line in flat]
    refused = ["it is no picture"] * 2
    for said, fault in (
        ({"zoo": black, "run.py": black}, "off the rule"),
        ({"zoo": refused, "run.py": refused}, "zoo: it is no picture"),
        ({"zoo": refused, "run.py": black}, "run.py is not zoo"),
        ({"zoo": ["CRASH"] * 2, "run.py": ["CRASH"] * 2}, "said 'CRASH'"),
        ({"zoo": refused, "run.py": refused, "node": black}, "node reads what zoo refuses"),
    ):
        with pytest.raises(AssertionError, match=fault):
            script.judge([case], {reader: [lines] for reader, lines in said.items()})


def test_the_published_result_is_of_these_files(script: Any) -> None:
    found = json.loads(script.RESULT.read_text())
    cases = script.all_cases()
    damaged = sum(case.damaged for case in cases)
    counts: Counter[str] = Counter()
    for what, number in found["counts"].items():
        counts[what.rsplit(",", 1)[0]] += number
    wanted = {"whole": len(cases) - damaged, "damaged": damaged}
    assert counts == {f"{r}: {what}": n for r in script.READERS for what, n in wanted.items()}
    assert found["files"] == len(cases)
    page = (ROOT / "benchmarks" / "README.md").read_text()
    for row in script.rows(found):
        assert f"| {' | '.join(row)} |" in page
    assert wanted["whole"] >= 200
    assert damaged >= 50
