"""`docs/objectives.md` against the registry: names, columns, options, commands."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from zoo.config import parse_pairs
from zoo.registry import Entry, Registry

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "objectives.md").read_text("utf-8")
REGISTRY = Registry.installed()
OWN = [e for e in REGISTRY.entries("objective") if e.plugin == "plugzoo:objectives"]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))
COMMANDS = re.findall(r"^zoo (?:pretrain|show) [^#\n]+", PAGE, flags=re.MULTILINE)
VIEWS = SECTIONS["redundancy"].partition("### Views")[2]
every = pytest.mark.parametrize("entry", OWN, ids=[entry.name for entry in OWN])


def test_the_table_is_the_registry() -> None:
    said = [(name, decodes, watched) for name, _, decodes, watched, _ in ROWS]
    assert sorted(said) == sorted(
        (f"`{e.name}`", "yes" if e.spec.needs_decoder else "no", f"`{e.spec.watch}`") for e in OWN
    )
    assert [f"`{name}`" for name in SECTIONS] == [row[0] for row in ROWS]


@every
def test_a_section_tells_of_every_option_and_choice(entry: Entry) -> None:
    spec, name = entry.spec, entry.name
    text = SECTIONS[name] + (VIEWS if name == "contrastive" else "")
    said = set(re.findall(r"`([\w-]+)`", text))
    for field in dataclasses.fields(spec.config):
        assert field.name in said, field.name
        for choice in re.findall(r'"([\w-]+)"', str(field.type)):
            assert choice in said, choice


@every
def test_a_section_shows_a_command_of_its_own(entry: Entry) -> None:
    name = entry.name
    assert f"--objective {name}" in SECTIONS[name]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_typed_exists(command: str) -> None:
    words = shlex.split(command)
    if words[1] == "show":
        REGISTRY.lookup(words[2], words[3])
        return
    REGISTRY.lookup("backbone", words[2])
    REGISTRY.lookup("dataset", words[words.index("--dataset") + 1])
    entry = REGISTRY.lookup("objective", words[words.index("--objective") + 1])
    pairs = [words[at + 1] for at, word in enumerate(words) if word == "-o"]
    options = parse_pairs(entry.spec.config, pairs, entry.owner)
    entry.configure(options)


def test_the_parts_are_named() -> None:
    """Each figure that a section names in backticks is an option, a choice or a part."""
    source = "".join(
        path.read_text("utf-8")
        for path in (Path(__file__).resolve().parent.parent / "plugins/zoo_objectives").glob("*.py")
    )
    for name, text in SECTIONS.items():
        for word in re.findall(r"`([a-z_]+)`", text):
            assert re.search(rf"\b{word}\b", source), f"{name}: {word}"
