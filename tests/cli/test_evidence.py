"""`zoo bench`, `zoo compare` and `zoo reproduce`, typed; and what docs/evidence.md types."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("graphs_kept")

Cli = Callable[..., Any]
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evidence.md").read_text()
TINY = (
    "bench", "labels", "--dataset", "digits", "--backbone", "mlp", "-b", "widths=8", "--objectives",
    "denoise", "-p", "denoise.noise=0.2", "--labels", "20", "--seeds", "1,4", "--pretrain",
    "epochs=1", "--finetune", "epochs=1", "--scratch", "epochs=2", "-o", "out",
)  # fmt: skip


def blocks(heading: str) -> list[list[str]]:
    """Return the `zoo` command lines under a heading of the page."""
    text = next(part for part in PAGE.split("\n## ") if part.startswith(heading))
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL))
    lines = shell.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("zoo ")]


def test_bench_prints_a_line_a_cell_and_a_table(cli: Cli, tmp_path: Path) -> None:
    result = cli(*TINY)
    assert result.exit_code == 0, result.stderr
    told = [line for line in result.stderr.splitlines() if re.match(r"\d of 4: ", line)]
    assert len(told) == 4
    assert re.fullmatch(r"1 of 4: scratch, 20 labels, seed 1: \d+\.\d\d %, \d:\d\d left", told[0])
    assert re.search(r"20 +denoise +\d+\.\d\d ± \d+\.\d\d % +scratch", result.stdout)
    assert "denoise (noise=0.2" in result.stdout
    assert "of scratch: epochs 2" in result.stdout
    assert "2 seeds (1, 4)" in result.stdout
    assert "Cells  4 of 4" in result.stdout
    again = cli(*TINY, "--json")
    assert "4 of 4 cells are finished already" in again.stderr
    content = json.loads(again.stdout)
    assert content.pop("folder") == "out"
    assert content == json.loads((tmp_path / "out" / "bench.json").read_text())
    assert json.loads(cli("bench", "table", "out", "--json").stdout)["rows"] == content["rows"]
    assert "Cells  4 of 4" in cli("bench", "table", "out").stdout


@pytest.mark.parametrize(
    ("typed", "status", "message"),
    [
        (("--labels", "ten"), 2, "'ten' is not allowed. Allowed: counts from 1, or all: 10,100"),
        (("--labels", "0"), 2, "'0' is not allowed"),
        (("--seeds", "-1"), 2, "'-1' is not allowed"),
        (("-p", "noise=0.2"), 2, "-p noise=0.2: write NAME.KEY=VALUE with a NAME of --objectives"),
        (("-p", "denoise.nose=0.2"), 2, "objective 'denoise': unknown option 'nose'"),
        (("--pretrain", "epoch=2"), 2, "pretrain: unknown option 'epoch'. Did you mean 'epochs'?"),
        (("--finetune", "freeze=maybe"), 2, "finetune: freeze: 'maybe' is not allowed"),
        (("--finetune", "validation=0.1"), 2, "finetune: validation is not yours to set here"),
        (("--objectives", "denose"), 2, "NAME of --objectives: denose"),
        (("--launcher", "slurm"), 2, "'slurm' is not one of 'local', 'ray'"),
        (("--recipe", "quickly"), 2, "Unknown recipe 'quickly'"),
        (("--labels", "5"), 1, "labels: 5 cannot cover 10 classes"),
    ],
)
def test_a_wrong_bench_is_one_message(
    typed: tuple[str, ...], status: int, message: str, cli: Cli, tmp_path: Path
) -> None:
    result = cli(*TINY, *typed)
    assert result.exit_code == status
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_options_of_a_part_go_with_its_name(cli: Cli) -> None:
    result = cli("bench", "labels", "-b", "widths=8", "--objectives", "denoise")
    assert (result.exit_code, "go with --backbone NAME" in result.stderr) == (2, True)


def test_the_bench_of_the_docs(cli: Cli, tmp_path: Path) -> None:
    (typed,) = blocks("zoo bench labels")
    quick = "--pretrain epochs=1 --finetune epochs=1 --steps 1 --jobs 1 --seeds 2 --labels 20"
    result = cli(*typed, *quick.split())
    assert result.exit_code == 0, result.stderr
    listed = re.findall(r"^\| (`[a-z`., ]+`) \|", PAGE, flags=re.MULTILINE)
    names = {name for cell in listed for name in re.findall(r"`([a-z]+\.[a-z]+)`", cell)}
    assert names == {p.name for p in (tmp_path / "digits-bench").iterdir()} - {".lock"}
    assert cli("bench", "table", "digits-bench").exit_code == 0


def test_comparison_and_reproduction_of_the_docs(cli: Cli, tmp_path: Path) -> None:
    *made, compared = blocks("zoo compare")
    for command in made:
        quick = ("--epochs", "1") if command[0] in ("pretrain", "finetune") else ()
        assert cli(*command, *quick).exit_code == 0
    names = sorted(p.name for p in (tmp_path / "runs").iterdir() if "-finetune-" in p.name)
    assert compared == ["compare", "RUN", "RUN"]
    result = cli("compare", *names)
    assert "what a backbone loads by itself is not known to zoo" in result.stdout
    assert result.exit_code == 0, result.stderr
    assert re.search(r"100 +denoise +\d+\.\d\d % +scratch +[+-]\d+\.\d\d +one pair", result.stdout)
    assert re.search(r"objective +(denoise \| none|none \| denoise)", result.stdout)
    content = json.loads(cli("compare", *names, "--json").stdout)
    assert content["readings"] == [1, 1]
    for command in blocks("zoo reproduce"):
        done = cli(*command)
        assert done.exit_code == 0, done.stderr
        if command[0] == "reproduce":
            assert "Reproduced to the bit" in done.stdout
    assert json.loads(cli("reproduce", "latest", "--json", "-q").stdout)["passed"]
    latest = json.loads(cli("runs", "--json").stdout)["runs"][-1]
    assert [test["by"] for test in latest["tests"]].count("reproduce") == 2


def test_what_differs_is_named_with_exit_status_1(cli: Cli, tmp_path: Path) -> None:
    cli("finetune", "--backbone", "mlp", "-b", "widths=8", "--epochs", "1", "-q")
    refused = cli("reproduce", "latest")
    assert refused.exit_code == 1
    assert "states no accuracy. Type: zoo evaluate " in refused.stderr
    cli("evaluate", "latest")
    (record,) = tmp_path.glob("runs/*/run.json")
    text = record.read_text()
    record.write_text(text.replace('"lr": 0.001', '"lr": 0.002'))
    result = cli("reproduce", "latest")
    assert result.exit_code == 1
    assert "NOT reproduced: it came out otherwise than recorded" in result.stdout
    assert re.search(r"weights_sha256 +[0-9a-f]{16}… +[0-9a-f]{16}…", result.stdout)


def test_nothing_to_reproduce_or_compare(cli: Cli) -> None:
    assert "There is no finished run under 'runs'" in cli("reproduce", "latest").stderr
    assert "There is no run 'x' under 'runs'" in cli("reproduce", "x").stderr
    assert cli("compare").exit_code == 2
    one = cli("compare", "x", "y")
    assert (one.exit_code, "There is no run 'x'" in one.stderr) == (1, True)
