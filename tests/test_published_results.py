"""The published results: every table shown is the one that the committed lines come to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from zoo import pipeline

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BENCHES = sorted(path.parent for path in RESULTS.glob("labels/*/plan.json"))


@pytest.fixture(scope="module")
def recipes(bench_script: Callable[[str], Any]) -> Any:
    return bench_script("recipes")


@pytest.fixture(scope="module")
def pages(bench_script: Callable[[str], Any]) -> Any:
    return bench_script("pages")


def test_the_readme_shows_the_table_of_the_committed_lines(recipes: Any, pages: Any) -> None:
    lines = recipes.ledger.read(RESULTS / "recipes")
    assert recipes.current(lines)
    shown = pages.read(ROOT / "README.md", recipes.COMMAND)
    assert shown == recipes.page_of(lines).strip()


def test_the_page_of_recipes_shows_the_times_of_the_committed_lines(
    bench_script: Callable[[str], Any], pages: Any
) -> None:
    times = bench_script("time_to_accuracy")
    lines = times.ledger.read(times.RESULTS)
    assert {cell["recipe"] for cell in lines.values()} == set(times.GOALS)
    assert not [key for key, cell in lines.items() if cell["commit"].endswith("-dirty")]
    shown = pages.read(ROOT / "docs" / "recipes.md", times.COMMAND)
    assert shown == times.render(lines).strip()


def line(seed: int, method: str, accuracy: float) -> dict[str, Any]:
    return {"key": f"r/{method}/{seed}", "recipe": "r", "method": method, "seed": seed,
            "accuracy": accuracy, "seconds": 10.0 + seed, "labels": 100, "all_labels": False,
            "validation_examples": 0, "parameters": 1234, "processor": "one", "cores": 2,
            "versions": {"torch": "2.14.1"}}  # fmt: skip


def test_a_row_is_mean_and_deviation_of_three_seeds_and_its_change_is_paired(recipes: Any) -> None:
    ours = [line(0, "pretrained", 0.80), line(1, "pretrained", 0.84), line(2, "pretrained", 0.82)]
    theirs = [line(s, "from scratch", a) for s, a in enumerate((0.79, 0.82, 0.81))]
    text = recipes.render(ours + theirs)
    assert "| `r` | 100 | 1,234 | pretrained | 82.00 ± 2.00 % | 3 | 11 |" in text
    # Differences of 1, 2 and 1 points: 4/3 ± 4.303 · 0.5774 / √3.
    assert "changed it by +1.33 points, 95 % interval -0.10 to +2.77 (3 seeds)" in text


def test_a_row_of_two_seeds_is_not_shown(recipes: Any) -> None:
    ours = [line(0, "pretrained", 0.80), line(1, "pretrained", 0.84)]
    theirs = [line(s, "from scratch", a) for s, a in enumerate((0.79, 0.82, 0.81))]
    text = recipes.render(ours + theirs)
    assert "from scratch" in text
    assert "pretrained" not in text
    assert "changed" not in text


def test_labels_that_were_chosen_on_are_told(recipes: Any) -> None:
    lines = [line(s, "pretrained", 0.8) | {"validation_examples": 1440} for s in range(3)]
    assert "| `r` | 100, and 1,440 to choose on | 1,234 |" in recipes.render(lines)


def test_lines_of_replaced_settings_are_counted(recipes: Any) -> None:
    lines = recipes.ledger.read(RESULTS / "recipes")
    other = {"key": "old", "recipe": "textbook", "settings": "other"}
    known = len(lines) - len(recipes.current(lines))
    said = f"{known + 1} lines of settings that were replaced"
    assert said in recipes.page_of({**lines, "old": other})


def test_every_line_says_what_it_was_made_with(recipes: Any) -> None:
    for line in recipes.ledger.read(RESULTS / "recipes").values():
        assert line["commit"], line["key"]
        assert not line["commit"].endswith("-dirty"), line["key"]
        assert line["versions"]["torch"]
        assert line["processor"]
        assert line["seconds"] > 0
        assert line["test_readings"] >= 1


def test_what_is_written_into_a_page_stands_between_its_marks(pages: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    before, after = pages.marks("command")
    page.write_text(f"one\n{before}\nold\n{after}\ntwo\n")
    pages.write(page, "command", r"a \1 | table")
    assert page.read_text() == f"one\n{before}\n\na \\1 | table\n\n{after}\ntwo\n"
    assert pages.read(page, "command") == r"a \1 | table"


def test_a_page_without_the_marks_is_refused(pages: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no table here\n")
    with pytest.raises(click.ClickException, match="has no '<!-- command"):
        pages.write(page, "command", "a table")
    assert page.read_text() == "no table here\n"


@pytest.mark.parametrize("folder", BENCHES, ids=lambda path: path.name)
def test_a_bench_is_the_one_that_its_cells_come_to(
    bench_script: Callable[[str], Any], pages: Any, folder: Path, tmp_path: Path
) -> None:
    labels = bench_script("labels")
    for name in ("plan.json", "cells.jsonl"):
        shutil.copy(folder / name, tmp_path)
    pipeline.bench_table(tmp_path)
    assert (folder / "table.md").read_text() == (tmp_path / "table.md").read_text()
    cells = [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]
    assert {cell["seed"] for cell in cells} >= {0, 1, 2}
    assert not [cell["key"] for cell in cells if cell["commit"].endswith("-dirty")]
    shown = pages.read(ROOT / "docs" / "evidence.md", labels.command(folder.name))
    assert shown == (folder / "table.md").read_text().strip()
