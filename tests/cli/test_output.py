"""What is not ours comes out as text: names that would move the cursor, or forge a line."""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from zoo import pipeline
from zoo.api import Component, TrainConfig
from zoo.cli import output
from zoo.export.seal import BLANK, KEY, seal
from zoo.pipeline import Workspace
from zoo.progress import Live, Plain
from zoo.registry import Registry
from zoo.showing import shown_json, shown_lines

Cli = Callable[..., Any]
NASTY = "\x1b[2J\x1b]0;t\x07 \u202e\u2028\x9b5m \U000e0041\nproved"
PLUGIN = """
import dataclasses
import torch
from zoo.api import *

NASTY = {nasty!r}
CLASSES = ("cat" + NASTY, "dog", "cow" + NASTY)

@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    tone: int = knob(1, "loud" + NASTY)

def build(config, root):
    pixels = torch.arange(60 * 64, dtype=torch.int64).remainder(251).to(torch.uint8)
    inputs = pixels.reshape(60, 1, 8, 8)
    examples = Examples(inputs=inputs, labels=torch.arange(60) % 3)
    tested = Examples(inputs=255 - inputs[:30], labels=torch.arange(30) % 3)
    input = ImageInput(channels=1, height=8, width=8)
    note("reading" + NASTY)
    return Dataset(input=input, classes=CLASSES, train=lambda: examples, test=lambda: tested)

@hookimpl
def zoo_datasets():
    return [DatasetSpec(name="nasty", summary="beasts" + NASTY, build=build, config=Config)]
"""


def clean(text: str) -> bool:
    """Say whether nothing in a text moves a cursor or turns the direction of writing."""
    return not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl") and c != "\n"]


def forged(text: str) -> bool:
    return any(line.startswith("proved") for line in text.splitlines())


# --- the functions ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["say", "say err", "text", "title", "head", "cell"])
def test_whatever_prints_shows_a_name_as_text(
    way: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    match way:
        case "say":
            output.say("a", NASTY)
        case "say err":
            output.say(NASTY, err=True)
        case "text":
            output.say_text(NASTY)
        case "title":
            output.table(("a",), [("b" * 200,)], title=NASTY)
        case "head":
            output.table((NASTY, "b"), [("c", "d")])
        case "cell":
            output.table(("a", "b"), [("c", NASTY)])
    said = "".join(capsys.readouterr())
    assert "\\x1b[2J" in said
    assert "\\u202e" in said
    assert clean(said)
    assert not forged(said)


def test_json_is_of_the_same_value_and_moves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": NASTY, "file\udcff": ["å\u00ad", "\U0001f468\u200d\U0001f467", 1.5]}
    output.print_json(value)
    said = capsys.readouterr().out
    assert json.loads(said) == value
    assert "å\u00ad" in said  # what is harmless stays as it is
    assert "\\ufffd" not in said
    assert "\\udcff" in said
    assert not [c for c in said if unicodedata.category(c) in ("Cc", "Zl", "Cs") and c != "\n"]
    assert "\u202e" not in said
    assert shown_json('"\u202e"') == '"\\u202e"'


def test_lines_below_the_first_are_indented() -> None:
    text = "one\nError: two\n  Type: three\r\n"
    assert shown_lines(text) == "one\n  Error: two\n  Type: three\\r\n"


@pytest.mark.parametrize("kind", [Plain, Live])
def test_progress_shows_names_as_text(kind: Any) -> None:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=200)
    reporter = Plain(stream, every=0) if kind is Plain else Live(console)
    reporter.note(NASTY)
    with reporter.task(NASTY, 2, "examples") as task:
        task.update(1, 2, NASTY)
    said = stream.getvalue()
    assert said.count("\\u202e") >= 2
    assert not {"\u202e", "\x9b", "\u2028", "\U000e0041", "\x07"} & set(said)
    for code in ("\x1b[2J", "\x1b]0;"):  # rich's own move the cursor, and clear no screen
        assert code not in said
    assert not forged(said)


# --- the verbs --------------------------------------------------------------------------------


def fill(folder: Path, model: str) -> None:
    """Train a classifier whose classes and data set have such names; give a model file such too."""
    plugin = folder / "nasty.py"
    plugin.write_text(PLUGIN.format(nasty=NASTY))
    workspace = Workspace(plugins=Registry.installed([plugin]), runs=folder / "runs")
    short = TrainConfig(epochs=1, batch_size=16, threads=1, validation=0.2)
    pipeline.finetune(
        backbone=Component("mlp", widths=(4,), features=4),
        dataset="nasty",
        training=short,
        workspace=workspace,
    )
    copy = onnx.load(model)
    named = {KEY: BLANK.decode(), "zoo.dataset": f"nasty{NASTY}"}
    named["zoo.labels"] = json.dumps([*"012345678", f"cow{NASTY}"])
    for prop in copy.metadata_props:
        prop.value = named.get(prop.key, prop.value)
    (folder / "model.onnx").write_bytes(seal(copy.SerializeToString()))
    Image.new("L", (8, 8), 90).save(folder / "x.png")


WORDS = [
    ("list",),
    ("list", "datasets", "--json"),
    ("show", "dataset", "nasty"),
    ("show", "dataset", "nasty", "--json"),
    ("plugins",),
    ("evaluate", "latest"),
    ("evaluate", "latest", "--json"),
    ("runs",),
    ("runs", "--json"),
    ("compare", "latest"),
    ("inspect", "model.onnx", "--meta"),
    ("inspect", "model.onnx", "--json"),
    ("predict", "model.onnx", "PICTURE", "--top", "10"),
    ("predict", "model.onnx", "PICTURE", "--json"),
    ("predict", "model.onnx", f"lost{NASTY}.png"),
    ("predict", f"lost{NASTY}.onnx", "x.png"),
    ("inspect", f"lost{NASTY}.onnx"),
    ("finetune", "--backbone", "mlp", "--dataset", "nasty", "-d", f"tone={NASTY}"),
    ("finetune", "--backbone", f"mlp{NASTY}"),
    ("evaluate", f"lost{NASTY}"),
    (f"lost{NASTY}",),
    ("list", f"--lost{NASTY}"),
]


@pytest.mark.parametrize("words", WORDS, ids=lambda words: " ".join(words).split("\x1b")[0])
def test_a_verb_shows_names_as_text(
    cli: Cli,
    made_once: Any,
    trained_once: Any,
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = made_once(fill, str(trained_once.model))
    picture = folder / f"x{NASTY.replace('/', '')}.png"
    (folder / "x.png").rename(picture)
    monkeypatch.chdir(folder)
    typed = [str(picture) if word == "PICTURE" else word for word in words]
    result = cli("--plugin", "nasty.py", *typed)
    said = result.stdout + result.stderr
    assert result.exit_code in (0, 1, 2)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert ("202e" in said) or words[0] in ("plugins", "runs", "compare", "report")
    assert clean(said), [c for c in said if unicodedata.category(c) in ("Cc", "Cf", "Zl")]
    assert not forged(said)
    if "--json" in words:
        assert "202e" in json.dumps(json.loads(result.stdout)) or words[0] == "runs"
