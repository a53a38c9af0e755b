"""Random mutations of a valid file through `validate`, `inspect` and `predict`."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent


def run(trained: Any, folder: Path, numbers: list[int]) -> list[dict[str, Any]]:
    """Let one process handle many mutations; its death is a failure, and says of which."""
    from PIL import Image

    picture = folder / "picture.png"
    Image.effect_noise((30, 30), 80).save(picture)
    task = {"model": str(trained.model), "runs": str(trained.runs), "folder": str(folder),
            "picture": str(picture), "numbers": numbers}  # fmt: skip
    done = subprocess.run(
        [sys.executable, ROOT / "mutations.py"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ZOO_RUNTIMES": "none"},
    )
    stray = [line for line in done.stdout.splitlines() if not line.startswith("{")]
    assert not stray, stray[:5]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    last = lines[-1] if lines else {}
    assert done.returncode == 0, f"died with {done.returncode} at {last}: {done.stderr[-2000:]}"
    return [line for line in lines if "kind" in line]


def judge(results: list[dict[str, Any]]) -> collections.Counter[str]:
    """Fail on a crash, on a message of several lines, and on a false `proved`."""
    counts: collections.Counter[str] = collections.Counter()
    for found in results:
        for verb in ("validate", "inspect", "predict"):
            said = str(found[verb])
            assert not said.startswith(("CRASH", "LINES")), f"{found['number']} {verb}: {said}"
            refused = said.startswith("refused")
            counts[f"{found['kind']}: {verb} {'refused' if refused else said}"] += 1
        assert found["validate"] != "proved", found
        if found["kind"] == "bytes":
            assert all(str(found[v]).startswith("refused") for v in ("validate", "inspect"))
            assert str(found["predict"]).startswith("refused")
    return counts


def test_no_mutation_crashes_or_is_proved(trained: Any, tmp_path: Path) -> None:
    results = run(trained, tmp_path, list(range(15)))
    assert len(results) == 15
    judge(results)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_no_mutation_of_many_crashes_or_is_proved(trained: Any, tmp_path: Path, part: int) -> None:
    """Together 1,200."""
    results = run(trained, tmp_path, list(range(1000 + 300 * part, 1300 + 300 * part)))
    assert len(results) == 300
    for outcome, count in sorted(judge(results).items()):
        print(f"{count:4} {outcome}")
