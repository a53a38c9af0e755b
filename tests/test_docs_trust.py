"""`docs/trust.md`: each attack of its table is a test that is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.partition("## Attacks and answers")[2].splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| attack"))
]


def test_there_are_attacks() -> None:
    assert len(ROWS) >= 25
    assert len({attack for attack, *_ in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_each_attack_is_a_test(row: list[str]) -> None:
    attack, answer, test = row
    assert attack
    assert answer
    found = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", test)
    assert found, test
    tree = ast.parse((ROOT / found[1]).read_text(encoding="utf-8"))
    assert found[2] in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", ["README.md", "docs/bundle.md", "docs/export.md"])
def test_it_is_found_from_where_one_would_look(page: str) -> None:
    assert "trust.md)" in (ROOT / page).read_text(encoding="utf-8")


def test_the_command_of_the_page(cli: Callable[..., Any], trained: Any, tmp_path: Path) -> None:
    (command,) = re.findall(r"```sh\nzoo (.*?)\n```", PAGE)
    (tmp_path / "digits.onnx").write_bytes(trained.model.read_bytes())
    found = cli(*command.split())
    assert found.exit_code == 0
    assert f"Run read from '{Path('runs') / trained.finetuned.name}'" in found.stdout
