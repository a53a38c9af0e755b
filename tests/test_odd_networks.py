"""`benchmarks/odd_networks.py`: the networks that it scans, what it asks, and what it tells."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from zoo.api import ImageInput

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
RESULTS = BENCHMARKS / "results" / "odd_networks"
# By their files, for importing the networks takes seconds and is done where they are tested.
KINDS = sorted(
    path.stem.replace("_", " ")
    for path in (BENCHMARKS / "odd").glob("*.py")
    if "\n@network(" in path.read_text()
)
SAMPLE, SEED = 8, 26


@pytest.fixture(scope="module")
def script(bench_script: Callable[[str], Any]) -> Any:
    return bench_script("odd_networks")


@pytest.fixture(scope="module")
def questions(bench_script: Callable[[str], Any]) -> Any:
    return bench_script("odd.questions")


def answer(network: Any) -> torch.Tensor:
    """Build a network and run it on four pictures; in training mode, which compiles nothing."""
    wanted = network.preprocessing
    height, width = wanted.size if wanted else (8, 8)
    given = ImageInput(channels=wanted.channels if wanted else 1, height=height, width=width)
    encoder = network.build().train()
    with torch.no_grad():
        found: torch.Tensor = encoder(torch.rand(4, *given.shape) * 2 - 1)
    return found


def test_there_are_many_networks_and_each_has_a_name_and_says_what_is_odd(script: Any) -> None:
    names = collections.Counter(network.name for network in script.NETWORKS)
    assert len(names) >= 150
    assert names.most_common(1)[0][1] == 1
    assert not [network.name for network in script.NETWORKS if not network.summary]
    summaries = collections.Counter(network.summary for network in script.NETWORKS)
    assert summaries.most_common(1)[0][1] == 1
    assert {network.kind for network in script.NETWORKS} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_gives_sixteen_features(kind: str, script: Any) -> None:
    wrong = {}
    for network in script.NETWORKS:
        if network.kind == kind and network.builds:
            found = answer(network)
            if found.shape != (4, 16) or not bool(torch.isfinite(found).all()):
                wrong[network.name] = tuple(found.shape)
    assert not wrong


def test_many_of_them_must_not_be_proved(script: Any) -> None:
    forbidden = [each.name for each in script.NETWORKS if "proved" not in each.expected]
    assert len(forbidden) >= 50


def test_the_pictures_are_a_thousand_and_reach_every_end(questions: Any) -> None:
    digits = np.random.default_rng(0).integers(0, 256, (300, 1, 8, 8), dtype=np.uint8)
    made = questions.pictures(digits)
    assert made.shape == (questions.COUNT, 1, 8, 8)
    assert made.dtype == np.uint8
    assert np.array_equal(made, questions.pictures(digits))
    flat = {int(each.max()) for each in made if each.min() == each.max()}
    assert {0, 1, 127, 128, 254, 255} <= flat
    board = (np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)
    for wanted in (board, 255 - board, np.eye(64)[9].reshape(8, 8) * 255, digits[7, 0]):
        assert any(np.array_equal(each[0], wanted) for each in made)
    assert sum(set(np.unique(each)) == {0, 255} for each in made) > 200


def test_labels_count_where_they_differ_beyond_a_tie(questions: Any) -> None:
    expected = np.array([[0.6, 0.4], [0.50004, 0.49996], [0.1, 0.9]])
    same = questions.compared(expected, expected[:, ::1].copy())
    assert (same.labels, same.largest, same.unfinite, same.wrong) == (0, 0.0, 0, False)
    tie = questions.compared(expected, np.array([[0.6, 0.4], [0.49998, 0.50002], [0.1, 0.9]]))
    assert (tie.labels, tie.wrong) == (0, False)
    found = questions.compared(expected, expected[:, ::-1])
    assert (found.labels, found.wrong) == (2, True)


def test_a_label_may_agree_and_the_answer_be_wrong(questions: Any) -> None:
    expected = np.array([[0.6, 0.4], [0.3, 0.7]])
    assert questions.compared(expected, expected + 2e-4).wrong
    infinite = questions.compared(np.array([[np.nan, 0.1], [0.3, 0.7]]), expected)
    assert (infinite.unfinite, infinite.largest, infinite.wrong) == (1, 0.0, True)
    assert questions.compared(expected * np.nan, expected).wrong


def test_a_sample_is_drawn_by_the_seed_and_of_many_kinds(script: Any) -> None:
    drawn = script.sample(SAMPLE, 0)
    assert drawn == script.sample(SAMPLE, 0) != script.sample(SAMPLE, 1)
    assert len({each.kind for each in drawn}) == SAMPLE
    every = script.sample(len(script.NETWORKS), 0)
    assert {each.name for each in every} == {each.name for each in script.NETWORKS}


def line(name: str, outcome: str, expected: tuple[str, ...], largest: float | None) -> Any:
    answers = largest and {"asked": 1000, "labels": 0, "largest": largest, "unfinite": 0}
    return {"name": name, "kind": "batch", "expected": expected, "outcome": outcome,
            "stage": "questions", "message": "", "accuracy": 0.5, "answers": answers,
            "sound": outcome in expected}  # fmt: skip


def test_what_is_proved_wrongly_stands_by_name_below_the_table(script: Any) -> None:
    place = {"processor": "one", "versions": {"torch": "2", "onnxruntime": "1"}}
    fine = line("a", "proved", ("proved",), 2e-7)
    text = script.render([fine, line("b", "refused", ("failed", "refused"), None)], place)
    assert "| batch | 2 | 1 | 0 | 0 | 1 |  |" in text
    assert text.splitlines()[-1] == (
        "The one file was asked 1,000 pictures one at a time; none answered otherwise than PyTorch"
        " (probabilities 2.0e-07 apart at most). On one; torch 2, onnxruntime 1."
    )
    text = script.render([fine, line("b", "wrong", ("failed",), 0.3)], place)
    assert "| all | 2 | 1 | 0 | 0 | 0 | 1 |" in text
    assert "- `b`: PROVED WRONGLY (questions)" in text
    said = text.splitlines()[-1]
    assert said.startswith("Each of the 2 files was asked 1,000 pictures one at a time; 1 answered")


def test_an_unknown_network_is_refused_by_name(script: Any) -> None:
    found = CliRunner().invoke(script.main, ["run", "--only", "btach"])
    assert found.exit_code == 2
    assert "no network or kind is called btach. Kinds: arithmetic, attention, batch" in found.output


def test_a_network_that_hangs_is_told(bench_script: Callable[[str], Any], script: Any) -> None:
    with bench_script("odd.worker").Worker(0.01) as worker:
        found = worker.scan(script.NETWORKS[0])
    assert (found.outcome, found.sound) == ("hung", False)


def test_the_published_scan_is_of_these_networks_and_all_end_as_expected(
    bench_script: Callable[[str], Any], script: Any
) -> None:
    lines, place = script.read(RESULTS)
    expected = {each.name: list(each.expected) for each in script.NETWORKS}
    assert {each["name"]: each["expected"] for each in lines} == expected
    assert [each["name"] for each in lines] == sorted(expected)
    assert not [each["name"] for each in lines if not each["sound"]]
    pages, root = bench_script("pages"), RESULTS.parents[2]
    shown = pages.read(root / "benchmarks" / "README.md", script.COMMAND)
    assert shown == script.render(lines, place).strip()
    shown = pages.read(root / "docs" / "export.md", script.SHORT)
    assert shown == script.render(lines, place, short=True).strip()


@pytest.mark.slow
@pytest.mark.begun_first
def test_a_sample_of_them_comes_to_the_end_that_is_expected(script: Any, tmp_path: Path) -> None:
    command = ["run", "--sample", str(SAMPLE), "--seed", str(SEED), "--json", "--results", tmp_path]
    found = CliRunner().invoke(script.main, [str(word) for word in command])
    lines = json.loads(found.stdout)["networks"]
    assert len(lines) == SAMPLE
    assert not [each for each in lines if not each["sound"]]
    assert found.exit_code == 0
    assert not list(tmp_path.iterdir())  # a sample is no result


@pytest.mark.slow
def test_a_worker_that_dies_is_told_and_replaced(
    bench_script: Callable[[str], Any], script: Any
) -> None:
    import dataclasses

    known = next(each for each in script.NETWORKS if each.name == "one-feature-too-few")
    with bench_script("odd.worker").Worker(120) as worker:
        lost = worker.scan(dataclasses.replace(known, name="nobody"))
        assert (lost.outcome, lost.message) == ("died", "exit status 1")
        assert worker.scan(known).outcome == "refused"
