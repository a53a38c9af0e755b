"""Random changes of all that zoo reads, through the verbs that read it: `benchmarks/fuzz.py`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def script(bench_script: Callable[[str], Any]) -> Any:
    return bench_script("fuzz")


@pytest.fixture(scope="module")
def fuzzed(bench_script: Callable[[str], Any]) -> Iterator[Any]:
    return bench_script("fuzzed")


def test_a_seed_makes_the_same_change_again_and_never_none(fuzzed: Any, tmp_path: Path) -> None:
    record = json.dumps({"a": [1, 2.5, "text"], "b": {"c": None}}).encode()
    tensors = b"\x40" + b"\0" * 7 + json.dumps(
        {"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}
    ).ljust(64).encode() + b"abcd"  # fmt: skip
    files = {"a.json": record, "b.jsonl": record + b"\n" + record + b"\n",
             "c.safetensors": tensors, "d.u8": b"pixels"}  # fmt: skip
    for name, before in files.items():
        for seed in range(30):
            made = []
            for _ in range(2):
                (tmp_path / name).write_bytes(before)
                fuzzed.rewrite(tmp_path / name, random.Random(seed))
                made.append((tmp_path / name).read_bytes())
            assert made[0] == made[1] != before


def test_what_stands_in_place_of_a_file_is_none(fuzzed: Any, tmp_path: Path) -> None:
    for hole in fuzzed.HOLES:
        path = tmp_path / hole
        path.write_bytes(b"before")
        fuzzed.put(path, hole, random.Random(0))
        read = path.is_file() and path.stat().st_size < 2**30 and path.read_bytes()
        assert read != b"before"


SAID = {"verb": "evaluate", "words": ["evaluate"], "json": True, "outcome": "answered",
        "status": 0, "stdout": '{"accuracy": 0.5}', "stderr": "", "trace": ""}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "what", "change", "fault"),
    [
        ("record", "run.json", {}, ""),
        ("record", "run.json", {"status": 1, "stdout": "", "stderr": "Error: why.\n"}, ""),
        ("record", "run.json", {"outcome": "hang"}, "no answer within 60 s"),
        ("record", "run.json", {"outcome": "death -11"}, "it died: death -11"),
        ("record", "run.json", {"trace": "KeyError"}, "KeyError"),
        ("record", "run.json", {"status": 3}, "exit status 3"),
        ("record", "run.json", {"status": 1, "stdout": ""}, "it failed and said nothing"),
        ("record", "run.json", {"stdout": '{"a": NaN}'}, "no JSON: NaN is no JSON"),
        ("model", "model.onnx, graph", {"verb": "validate", "stdout": '{"verdict": "proved"}'},
         "a changed file is proved"),
        ("model", "model.onnx, bytes", {"verb": "predict"}, "taken for what was sealed"),
        ("bundle", "model.json of a bundle", {"verb": "bundle"}, "is as recorded"),
        ("tensors", "weights.safetensors of D", {}, "are measured"),
        ("tensors", "weights.safetensors of D, its digest recorded", {}, ""),
        ("cache", "index.json of the cache", {}, ""),
        ("cache", "index.json of the cache", {"stdout": '{"accuracy": 0.7}'}, "another accuracy"),
    ],
)  # fmt: skip
def test_what_is_a_fault_and_what_is_none(
    script: Any, tmp_path: Path, kind: str, what: str, change: dict[str, Any], fault: str
) -> None:
    names = {"digits": "D", "pets": "P", "before": "B", "half": "H"}
    at = script.Fixture(tmp_path, tmp_path, names, {"digits": 0.5, "pets": 0.5})
    found = {"number": 1, "kind": kind, "what": what, "said": [SAID | change]}
    said = script.fault_of(found, at)
    assert fault in said if fault else said == ""


@pytest.mark.slow
@pytest.mark.begun_first
def test_none_of_a_sample_goes_wrong(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the 3,200 that `python benchmarks/fuzz.py` tries; each in a forked process."""
    monkeypatch.setenv("COLUMNS", "200")
    numbers = script.sample(24)
    results, faults = script.shared(numbers, 1)
    assert [found["number"] for found in results] == numbers
    assert faults == {}


def test_the_published_table_is_that_of_the_committed_result(script: Any) -> None:
    told = json.loads(script.RESULT.read_text())
    assert told["cases"] == len(script.NUMBERS) >= 3000
    assert sum(count["cases"] for count in told["counts"].values()) == told["cases"]
    assert set(told["counts"]) == set(script.KINDS)
    assert told["faults"] == {}
    outcomes = {name.split()[-1] for count in told["counts"].values() for name in count}
    assert outcomes <= {"cases", "answered", "refused"}
    page = (ROOT / "benchmarks" / "README.md").read_text()
    for row in (script.HEAD, *script.rows(told["counts"])):
        assert f"| {' | '.join(row)} |" in page
