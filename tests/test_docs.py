"""The README and the docs, typed as written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.cli.main import VERBS
from zoo.pictures import RULE

pytestmark = pytest.mark.usefixtures("graphs_kept")

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PLUGINS = (ROOT / "docs" / "plugins.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Return the `zoo` command lines of the shell blocks, comments cut off."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("zoo ")]


def quick(command: list[str]) -> list[str]:
    """Shorten training: what is tested is that the command is right as typed."""
    if {"pretrain", "finetune"} & set(command):
        return [*command, "--epochs", "2", "--quiet"]
    return [*command, "--max-drop", "5"] if "--int8" in command else command


def code(text: str, start: str) -> str:
    return next(block for block in blocks(text, "python") if start in block)


def test_the_two_commands_come_first() -> None:
    first, second = blocks(README, "sh")[:2]
    assert first.strip() == "pip install . && zoo run quickstart"
    assert second.strip() == "pip install -e '.[dev]' && pytest"


@pytest.mark.begun_first
def test_the_readme_from_pretraining_to_a_prediction(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    from PIL import Image

    Image.effect_noise((40, 30), 80).save(tmp_path / "PICTURE.png")
    typed = commands(README)
    verbs = [next(word for word in command if word in VERBS) for command in typed]
    assert verbs == [
        *("pretrain", "finetune", "evaluate", "export"),
        *("inspect", "export", "benchmark", "bundle"),
        *("pretrain", "plugin", "plugin"),
    ]
    (tmp_path / "my_backbone.py").write_text(code(README, "# my_backbone.py"))
    for command in typed:
        result = cli(*quick(command))
        assert result.exit_code == 0, result.stderr
    assert cli("validate", "digits.onnx").exit_code == 0
    assert cli("predict", "digits.onnx", "PICTURE.png").exit_code == 0
    assert "mine" in cli("--plugin", "my_backbone.py", "list", "backbones").stdout


def test_the_python_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code(README, "from zoo import pipeline"), "README.md", "exec"), {})
    accuracy, path = capsys.readouterr().out.split()
    assert 0.7 < float(accuracy) <= 1
    assert Path(path).is_file()


def section(text: str, heading: str) -> str:
    """Return what stands under a heading that begins with these words."""
    return next(part for part in text.split("\n## ") if part.startswith(heading))


def test_the_first_plugin_of_the_docs(cli: Callable[..., Any], tmp_path: Path) -> None:
    """From one file of at most 25 lines to a proved ONNX file and a prediction."""
    from PIL import Image

    Image.effect_noise((40, 30), 80).save(tmp_path / "PICTURE.png")
    assert blocks(PLUGINS, "python")[0] == blocks(section(PLUGINS, "1. "), "python")[0]
    text = blocks(PLUGINS, "python")[0]
    assert len(text.splitlines()) <= 25
    (tmp_path / "my_backbone.py").write_text(text)
    typed = commands(section(PLUGINS, "1. "))
    assert [c[2] if c[0] == "--plugin" else c[0] for c in typed] == [
        "pretrain", "finetune", "evaluate", "export", "validate", "predict"
    ]  # fmt: skip
    for command in typed:
        result = cli(*quick(command))
        assert result.exit_code == 0, result.stderr
    (checked,) = commands(section(PLUGINS, "2. "))
    result = cli(*checked, "--quiet")
    assert result.exit_code == 0, result.stdout
    assert result.stdout.rstrip().endswith("conforms")


def test_the_options_of_the_docs(cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "my_backbone.py").write_text(code(PLUGINS, "class MineConfig"))
    shown, *typed = commands(section(PLUGINS, "3. "))
    assert "share of the code dropped in training" in cli(*shown).stdout
    assert len(typed) == 2
    for command in typed:
        result = cli(*quick(command))
        assert result.exit_code == 0, result.stderr
    wide = cli("--plugin", "my_backbone.py", "pretrain", "mine", "--features", "65")
    assert wide.exit_code == 1
    assert "a code of 65 is wider than 1×8×8. Type: --features 64" in wide.stderr
    assert cli("plugin", "check", "my_backbone.py", "-q").exit_code == 0


def test_the_package_of_the_docs(cli: Callable[..., Any], tmp_path: Path) -> None:
    """What the command writes is what the page lists; tests/test_scaffold.py installs it."""
    page = section(PLUGINS, "4. ")
    (new, *others) = commands(page)
    assert cli(*new).exit_code == 0
    listed = {line.split()[0] for line in blocks(page, "text")[0].splitlines()}
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert listed == written
    assert {command[0] for command in others} <= set(VERBS)
    project = (tmp_path / "zoo-mine" / "pyproject.toml").read_text()
    assert blocks(page, "toml")[0] in project


def test_the_report_of_the_docs(cli: Callable[..., Any], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    typed = commands(blocks(page, "sh")[0].join(("```sh\n", "```\n")))
    assert [command[0] for command in typed] == [
        *("pretrain", "finetune", "evaluate", "report", "report"),
    ]
    for command in typed:
        result = cli(*quick(command))
        assert result.exit_code == 0, result.stderr
    shown = (tmp_path / "digits.html").read_text(encoding="utf-8")
    (pretrained,) = tmp_path.glob("runs/*pretrain*")
    assert cli("report", pretrained, "-q").exit_code == 0
    shown += (pretrained / "report.html").read_text(encoding="utf-8")
    sections = set(re.findall(r"<h2[^>]*>(.*?)</h2>", shown))
    listed = re.findall(r"^\| ([A-Z][^|]*?) \|", page, flags=re.MULTILINE)
    assert set(listed) == sections


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_picture_rule_is_the_written_one() -> None:
    page = " ".join((ROOT / "docs" / "export.md").read_text().split())
    for part in RULE.split("; ")[:-1]:
        assert part in page
