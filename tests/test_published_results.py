"""The published results: every table shown is the one that the committed lines come to."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

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


@pytest.mark.parametrize(
    "name",
    [
        "against_commit",
        "combinations",
        "export_memory",
        "fuzz",
        "kills",
        "mutations",
        "odd_networks",
        "pictures",
        "runner_pythons",
        "serving",
    ],
)
def test_a_published_result_is_of_a_commit(name: str) -> None:
    if name == "odd_networks":
        machine = json.loads((RESULTS / name / "machine.json").read_text())
    else:
        machine = json.loads((RESULTS / f"{name}.json").read_text())["machine"]
    assert re.fullmatch(r"[0-9a-f]{40}", machine["commit"])  # nor -dirty, nor a version


@pytest.mark.parametrize("name", ["export_memory", "against_commit"])
def test_the_page_of_benchmarks_shows_the_table_of_the_committed_result(
    name: str, bench_script: Callable[[str], Any], pages: Any
) -> None:
    script = bench_script(name)
    result = json.loads(script.RESULT.read_text())
    made = script.render(result["networks"] if name == "export_memory" else result)
    assert pages.read(ROOT / "benchmarks" / "README.md", script.TABLE) == made.strip()


def test_the_committed_exports_are_of_every_network_and_small(
    bench_script: Callable[[str], Any],
) -> None:
    script = bench_script("export_memory")
    networks = json.loads(script.RESULT.read_text())["networks"]
    assert [each["network"] for each in networks] == list(script.SIZES)
    assert {each["verdict"] for each in networks} == {"proved"}
    for each in networks:
        assert each["export"]["peak_bytes"] < 4e9 < script.BEFORE[each["network"]][2] * 1e9


def test_run_py_was_tried_on_every_python_that_is_named(bench_script: Callable[[str], Any]) -> None:
    script = bench_script("runner_pythons")
    rows = json.loads(script.RESULT.read_text())["runs"]
    tried = [(row["python"].rsplit(".", 1)[0], row["resolution"]) for row in rows]
    assert tried == [(each, way) for each in script.PYTHONS for way in script.RESOLUTIONS]
    assert {row["selftest"] for row in rows} == {"selftest: yes"}
    floors = (ROOT / "zoo/export/bundle/device/requirements.txt").read_text().splitlines()[1:]
    least = rows[0]["packages"]
    for name, floor in (line.split(">=") for line in floors):
        assert least[name.lower()] in (floor, f"{floor}.0")


def exported(name: str, **options: Any) -> dict[str, Any]:
    took = {"seconds": 250.4, "cpu_seconds": 75.6, "peak_bytes": 1_607_921_664}
    rows = [
        {"name": "operators", "figure": "10 of ONNX's own"},
        {"name": "batches 1, 2, 7", "figure": "1.2e-07 apart in 30 examples"},
    ]
    each = {"network": name, "bytes": 93_856_713, "export": took, "verdict": "proved", "rows": rows}
    return {**each, **options}


def test_a_row_of_an_export_has_what_it_took_before_and_takes(
    bench_script: Callable[[str], Any],
) -> None:
    lost = exported("vgg16", bytes=None, rows=[], verdict="No file was written.")
    lines = bench_script("export_memory").render([exported("resnet50"), lost]).splitlines()
    before, now = "373 | 226 | 7.8", "250 | 76 | 1.61"
    assert lines[2] == f"| ResNet-50 | 93.9 | {before} | {now} | 1, 2, 7; 30 | proved |"
    before = "> 505 | > 376 | 13.0"
    assert lines[3] == f"| VGG-16 | – | {before} | {now} |  | No file was written. |"


def test_two_trees_are_compared_by_the_medians_of_their_pairs(
    bench_script: Callable[[str], Any],
) -> None:
    script = bench_script("against_commit")
    found = {
        "before": [dict.fromkeys(script.FIGURES, value) for value in (2.0, 4.0, 8.0)],
        "here": [dict.fromkeys(script.FIGURES, value) for value in (3.0, 4.0, 6.0)],
    }
    rows = {name: script.compared(name, found) for name in script.FIGURES}
    machine = {"commit": "c" * 40, "processor": "2 × one", "threads": 1,
               "versions": {"torch": "2.14.1"}}  # fmt: skip
    result = {"machine": machine, "before": "b" * 40, "pairs": 3, "rows": rows, "all": found}
    *table, empty, last = script.render(result).splitlines()
    assert table[2] == "| step, mlp | 4.000 ms | 4.000 ms | 1.000 | +0.000 ms |"
    assert empty == ""
    assert last == (
        "Medians of 3 pairs; before is bbbbbbb, here ccccccc. 2 × one, 1 thread; torch 2.14.1."
    )


def test_results_and_pages_are_no_change_of_what_is_measured(
    bench_script: Callable[[str], Any], tmp_path: Path
) -> None:
    report = bench_script("report")
    source, result = tmp_path / "zoo" / "code.py", tmp_path / "benchmarks" / "results" / "a.json"
    for path in (source, result, tmp_path / "docs" / "page.md"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("before")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "Begin"]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    result.write_text("after")
    (tmp_path / "docs" / "page.md").write_text("after")
    assert not report.changed(tmp_path)
    source.write_text("after")
    assert report.changed(tmp_path)
    assert report.changed(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "options", "leave_out"),
    [
        ("combinations", ["--sample", "2"], "--sample"),
        ("mutations", ["--sample", "2"], "--sample"),
        ("fuzz", ["--sample", "2"], "--sample and --number"),
        ("kills", ["--kind", "pretrain"], "--kind and fewer --kills"),
        ("kills", ["--kills", "4"], "--kind and fewer --kills"),
        ("serving", ["--connections", "9"], "fewer --connections"),
    ],
)
def test_a_part_is_not_written_in_place_of_the_whole(
    name: str, options: list[str], leave_out: str, bench_script: Callable[[str], Any]
) -> None:
    script = bench_script(name)
    before = script.RESULT.read_bytes()
    found = CliRunner().invoke(script.main, [*options, "--write"])
    assert found.exit_code == 2
    assert f"--write keeps the whole result: leave out {leave_out}." in found.output
    assert script.RESULT.read_bytes() == before
