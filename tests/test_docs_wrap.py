"""`docs/wrap.md`, typed as written: networks of torchvision and timm in every verb."""

from __future__ import annotations

import os
import re
import shlex
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when timm is first imported
pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[dev]'")

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "wrap.md").read_text()
FILES = ["my_torchvision.py", "my_timm.py", "my_objective.py"]
Cli = Callable[..., Any]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def commands() -> list[list[str]]:
    """Return the `zoo` command lines of the shell blocks, comments cut off."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("zoo ")]


def quick(command: list[str]) -> list[str]:
    """Shorten training: what is tested is that the command is right as typed."""
    training = {"pretrain", "finetune"} & set(command)
    return [*command, "--epochs", "1", "--quiet"] if training else command


CHECKS = [command for command in commands() if command[:2] == ["plugin", "check"]]
TYPED = [command for command in commands() if command not in CHECKS]


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path) -> None:
    """Save the three plugin files of the page, in its order."""
    for name, text in zip(FILES, blocks("python"), strict=True):
        (tmp_path / name).write_text(text)


def says(text: str) -> bool:
    return text in " ".join(PAGE.split())


@pytest.mark.slow
@pytest.mark.usefixtures("graphs_kept")
def test_every_command_as_typed(cli: Cli, tmp_path: Path) -> None:
    from PIL import Image

    Image.effect_noise((40, 30), 80).save(tmp_path / "PICTURE.png")
    assert len(TYPED) == 12
    assert all(f"`{name}`" in PAGE for name in FILES)
    proved = []
    for command in TYPED:
        result = cli(*quick(command))
        assert result.exit_code == 0, (command, result.stderr)
        if "--help" in command:
            assert all(flag in result.stdout for flag in ("--model", "--size", "--pretrained"))
        if "validate" in command:
            assert f"{command[-1]}  proved" in result.stdout
            proved.append(command[-1])
    assert proved == ["shufflenet.onnx", "resnet10t.onnx"]
    forgotten = cli("validate", "shufflenet.onnx")
    assert forgotten.exit_code != 0
    assert "Unknown backbone 'shufflenet'" in forgotten.stdout
    assert "my_torchvision" in forgotten.stdout
    assert says("**`Unknown backbone 'shufflenet'`**")


def test_what_needs_a_decoder_is_refused(cli: Cli) -> None:
    for file, name in (("my_torchvision.py", "shufflenet"), ("my_timm.py", "timm")):
        result = cli("--plugin", file, "pretrain", name, "--objective", "reconstruct")
        assert result.exit_code == 1
        said = "objective 'reconstruct' needs a decoder, and this backbone has none"
        assert said in result.stderr
        assert says(said)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet10x", "timm has no model 'resnet10x'. Did you mean resnet10t"),
        ("resnet10t.nobody", "timm has no model 'resnet10t.nobody'. Did you mean resnet10t"),
        ("?", "timm has no model '?'. For all names, type python -c"),
    ],
)
def test_an_unknown_timm_model_is_refused(cli: Cli, model: str, said: str) -> None:
    for words in (["pretrain", "timm"], ["finetune", "--backbone", "timm"]):
        result = cli("--plugin", "my_timm.py", *words, "-b", f"model={model}")
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: backbone 'timm': {said}")


@pytest.mark.parametrize(
    ("taken_out", "options", "said"),
    [
        (
            "network.fc = nn.Identity()",
            [],
            "the encoder returned (2, 1000) for two inputs, not (2, 1024)",
        ),
        ("", ["--batch-size", "1"], "Expected more than 1 value per channel when training"),
    ],
)
def test_what_goes_wrong_is_told_as_the_page_says(
    cli: Cli, tmp_path: Path, taken_out: str, options: list[str], said: str
) -> None:
    path = tmp_path / "my_torchvision.py"
    path.write_text(path.read_text().replace(taken_out, ""))
    result = cli("--plugin", path, "finetune", "--backbone", "shufflenet", "-q", *options)
    assert result.exit_code == 1
    assert said in result.stderr
    assert says(said)


@pytest.mark.slow
def test_the_plugins_of_the_page_conform(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network: the pretrained weights are refused, and nothing else is."""

    def refuse(*address: object, **options: object) -> None:
        raise OSError("the tests use no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert [command[2] for command in CHECKS] == FILES
    for command in CHECKS:
        result = cli(*command, "--quiet")
        assert result.exit_code == 0, result.stdout + result.stderr
        assert f"{command[2]} conforms" in result.stdout
