"""`zoo plugin new`: a package of each kind, installed, tested by its own tests, and used."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo import pipeline
from zoo.api import API_VERSION
from zoo.errors import UsageError, ZooError
from zoo.registry import KINDS
from zoo.scaffold import USES

IMPLEMENTATION = {
    "dataset": "data.py",
    "backbone": "model.py",
    "objective": "loss.py",
    "head": "head.py",
}


# Types several command lines in one process: importing torch for each takes most of the time.
DRIVER = """
import contextlib, io, json, sys
from zoo.cli.main import zoo
said = []
for words in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            zoo(words, prog_name="zoo")
        except SystemExit as error:
            if error.code:
                sys.exit(f"{words}: status {error.code}: {out.getvalue()}")
    said.append(out.getvalue())
print(json.dumps(said))
"""


class Environment:
    """A virtual environment that sees what this one has, and packages of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"
        if self.python.exists():
            return
        venv.create(folder / "venv", with_pip=False)
        site = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
        ours = sysconfig.get_path("purelib")
        # addsitedir, for the editable installation of zoo is itself a .pth file.
        Path(site, "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")

    def run(self, *command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.python), *map(str, command)],
            cwd=cwd or self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "COLUMNS": "1000"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done


def sampled(*quick: str) -> list[Any]:
    """Return all kinds, those not named as long proofs: each starts several commands."""
    return [pytest.param(k, marks=[] if k in quick else pytest.mark.slow) for k in KINDS]


def scaffold_and_install(folder: Path) -> None:
    """Scaffold one package of each kind and install them all, dependencies checked."""
    found = Environment(folder)
    for kind in KINDS:
        shown = found.run("-m", "zoo", "plugin", "new", f"zoo-my-{kind}", "--kind", kind).stdout
        assert f"Next: cd zoo-my-{kind} && pip install -e '.[test]' && python -m pytest" in shown
        assert shown.rstrip().endswith(f"Then: {USES[kind].format(f'my-{kind}')}")
    # Without an index: plugzoo has to be enough.
    folders = [word for kind in KINDS for word in ("-e", f"./zoo-my-{kind}")]
    pip = [sys.executable, "-m", "pip", "--python", str(found.python), "install", "--quiet"]
    subprocess.run(
        [*pip, "--no-index", "--no-build-isolation", *folders],
        cwd=found.folder,
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def environment(made_once: Callable[..., Path]) -> Environment:
    """One package of each kind, installed; where it lies is written in what was installed."""
    return Environment(made_once(scaffold_and_install, copied=False))


@pytest.mark.slow
def test_what_is_written(environment: Environment) -> None:
    for kind in KINDS:
        folder = environment.folder / f"zoo-my-{kind}"
        files = {
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if path.is_file()
            and not {"__pycache__", ".pytest_cache"} & set(path.parts)
            and "egg-info" not in str(path)
        }
        module = f"zoo_my_{kind}"
        own = {f"{module}/{IMPLEMENTATION[kind]}"} if kind in IMPLEMENTATION else set()
        assert files == own | {
            "pyproject.toml",
            "README.md",
            f"{module}/__init__.py",
            "tests/test_conformance.py",
        }
        assert f'ZOO_API = "{API_VERSION}"' in (folder / module / "__init__.py").read_text()
        assert f"zoo show {kind} my-{kind}" in (folder / "README.md").read_text()
        assert not [p for p in folder.parent.iterdir() if p.name.startswith(".zoo-")]


@pytest.mark.slow
def test_every_entry_point_loads(environment: Environment) -> None:
    found = json.loads(environment.run("-m", "zoo", "plugins", "--json").stdout)["plugins"]
    plugins = {plugin["name"]: plugin for plugin in found}
    for kind in KINDS:
        plugin = plugins[f"zoo-my-{kind}:my-{kind}"]
        assert plugin["cause"] is None
        assert plugin["version"] == "0.1.0"
        assert [c["name"] for c in plugin["components"]] == [f"my-{kind}"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", sampled())
def test_its_own_tests_pass(environment: Environment, kind: str) -> None:
    folder = environment.folder / f"zoo-my-{kind}"
    assert "1 passed" in environment.run("-m", "pytest", "-q", cwd=folder).stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", sampled("backbone"))
def test_it_goes_through_the_command_line(environment: Environment, kind: str) -> None:
    """What it was told to be used by, then on to a proved file."""
    folder = environment.folder / f"use-{kind}"
    folder.mkdir()

    words = shlex.split(USES[kind].format(f"my-{kind}"))[1:]
    quick = ["--seeds", "1"] if kind == "recipe" else ["--epochs", "3", "--quiet"]
    typed = [[*words, *quick]]
    if words[0] == "pretrain":
        typed += [["finetune", "latest", "--epochs", "3", "--quiet"]]
    typed += [
        ["evaluate", "latest"],
        ["export", "latest", "-o", "mine.onnx", "--quiet"],
        ["validate", "mine.onnx", "--quiet"],
        ["list", f"{kind}s"],
    ]
    said = json.loads(environment.run("-c", DRIVER, json.dumps(typed), cwd=folder).stdout)
    assert len(said) == len(typed)
    assert said[-2].rstrip().endswith("proved")
    assert f"my-{kind}" in said[-1]
    assert (folder / "mine.onnx").is_file()


@pytest.mark.slow
def test_what_is_written_is_in_the_house_style(environment: Environment) -> None:
    folders = [f"zoo-my-{kind}" for kind in KINDS]
    selected = ("--no-cache", "--extend-select", "E,F,W,I,UP,B")
    environment.run("-m", "ruff", "check", *selected, *folders)
    environment.run("-m", "ruff", "format", "--no-cache", "--check", *folders)


# --- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["Zoo-Mine", "zoo_mine", "", "zoo-", "-mine", "mine-", "../mine", "a/b", "zoo--mine", "1mine",
     "zoo-1mine", "zoo mine", "mïne"],
)  # fmt: skip
def test_a_name_that_cannot_be_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="A name is kebab-case and begins with a letter"):
        pipeline.plugin_new(name, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["class", "json", "random", "tests"])
def test_a_name_that_would_hide_pythons_own(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"Type: zoo-{name}"):
        pipeline.plugin_new(name, folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("zoo", "backbone", "The module 'zoo' is installed already, by plugzoo"),
        ("zoo-mlp", "head", "The module 'zoo_mlp' is installed already, by plugzoo"),
        ("torch", "backbone", "The module 'torch' is installed already, by torch"),
        ("zoo-denoise", "objective", "The objective 'denoise' comes from plugzoo:objectives"),
        ("digits", "datasets", "The dataset 'digits' comes from plugzoo:images already"),
    ],
)
def test_a_name_that_is_taken(name: str, kind: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError) as caught:
        pipeline.plugin_new(name, kind, folder=tmp_path)
    assert words in str(caught.value)
    assert "nothing was written. Choose another name." in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "zoo-mine").mkdir()
    (tmp_path / "zoo-yours").write_text("kept")
    (tmp_path / "zoo-ours").symlink_to("nowhere")
    for name in ("zoo-mine", "zoo-yours", "zoo-ours"):
        result = cli("plugin", "new", name)
        assert result.exit_code == 1
        assert f"Error: '{name}' is there already; nothing was written." in result.stderr
    assert not list((tmp_path / "zoo-mine").iterdir())
    assert (tmp_path / "zoo-yours").read_text() == "kept"
    assert len(list(tmp_path.iterdir())) == 3


def test_half_a_package_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *args: object, **kwargs: object) -> int:
        if path.name == "model.py":
            raise OSError(28, "No space left on device", str(path))
        return path.write_bytes(b"begun")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        pipeline.plugin_new("zoo-mine", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_says_it_in_json(cli: Callable[..., Any], tmp_path: Path) -> None:
    made = json.loads(cli("plugin", "new", "zoo-own-net", "--json").stdout)
    assert made["folder"] == "zoo-own-net"
    assert (made["module"], made["component"]) == ("zoo_own_net", "own-net")
    assert all((tmp_path / "zoo-own-net" / file).is_file() for file in made["files"])
    wrong = cli("plugin", "new", "zoo-x", "--kind", "bakbone")
    assert wrong.exit_code == 2
    assert "Did you mean 'backbone'?" in wrong.stderr
