"""The rules that the design puts under "Never"."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from zoo.api import (
    Backbone,
    Component,
    Dataset,
    DatasetSpec,
    Examples,
    FinetuneConfig,
    ImageInput,
    Losses,
    ObjectiveSpec,
    TrainConfig,
    hookimpl,
)
from zoo.digests import Digested
from zoo.models import Preprocess
from zoo.pipeline import Workspace, finetune, pretrain
from zoo.pipeline.identity import digest_test
from zoo.registry import KINDS, Registry
from zoo.runs import Run

ROOT = Path(__file__).resolve().parent.parent
CORE = sorted((ROOT / "zoo").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
COMMAND_LINE = sorted((ROOT / "zoo" / "cli").glob("*.py"))
HEAVY = {"torch", "torchvision", "numpy", "onnx", "onnxruntime", "onnxscript", "sklearn", "scipy",
         "matplotlib", "jinja2"}  # fmt: skip
LIGHT = ["api", "hookspecs", "registry", "isolation", "surroundings", "errors", "config", "cli"]


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def imports(path: Path, *, top_level: bool = False) -> tuple[str, ...]:
    """Return the modules that a file imports; those under TYPE_CHECKING are for the checker."""
    skipped: set[int] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped |= {id(inner) for inner in ast.walk(node)}
        if top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            skipped |= {id(inner) for inner in ast.walk(node)}
    found = []
    for node in ast.walk(tree(path)):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return tuple(found)


def test_the_files_looked_at_are_there() -> None:
    assert len(CORE) > 25
    assert len(PLUGINS) > 10
    assert len(light_files()) > 20
    assert len(COMMAND_LINE) > 10


def test_core_imports_no_plugin() -> None:
    found = [(name(path), module) for path in CORE for module in imports(path)]
    assert not [pair for pair in found if pair[1].split(".")[0].startswith("zoo_")]


def test_a_plugin_imports_zoo_api_alone() -> None:
    for path in PLUGINS:
        own = path.relative_to(ROOT / "plugins").parts[0]
        ours = [module for module in imports(path) if module.split(".")[0].startswith("zoo")]
        others = [n for n in ours if n != "zoo.api" and n.split(".")[0] != own]
        assert not others, name(path)


def light_files() -> list[Path]:
    return [p for p in CORE if p.relative_to(ROOT / "zoo").parts[0].removesuffix(".py") in LIGHT]


def test_light_modules_import_nothing_heavy_at_module_level() -> None:
    for path in light_files():
        assert not {n.split(".")[0] for n in imports(path, top_level=True)} & HEAVY, name(path)


# Forks itself for each module: what one has loaded is not there for the next.
LOADS = """
import json, os, sys
for module in sys.argv[1:]:
    if not os.fork():
        __import__(module)
        print(json.dumps([module, sorted(sys.modules)]), flush=True)
        os._exit(0)
    os.wait()
"""


def modules_loaded(*modules: str) -> dict[str, set[str]]:
    """Import each module in a process of its own, without what Python itself has loaded."""
    command = [sys.executable, "-c", LOADS, "__future__", *modules]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stderr == ""
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert [module for module, _ in lines] == ["__future__", *modules]
    (_, bare), *others = lines
    return {module: set(loaded) - set(bare) for module, loaded in others}


def test_light_modules_load_nothing_heavy() -> None:
    rest = ["api", "hookspecs", "registry", "isolation", "surroundings", "errors", "config"]
    commands = [path.stem for path in COMMAND_LINE if not path.stem.startswith("__")]
    wanted = [*(f"zoo.{module}" for module in rest), *(f"zoo.cli.{c}" for c in commands)]
    for module, loaded in modules_loaded(*wanted).items():
        assert module in loaded
        assert not HEAVY & loaded, module


def test_api_needs_the_standard_library_and_pluggy_alone() -> None:
    (found,) = modules_loaded("zoo.api").values()
    loaded = {module.split(".")[0] for module in found}
    assert {n for n in loaded if n not in sys.stdlib_module_names} == {"zoo", "pluggy"}


def test_the_command_line_does_no_arithmetic_on_tensors() -> None:
    for path in COMMAND_LINE:
        assert not {n.split(".")[0] for n in imports(path)} & HEAVY, name(path)


def decisive(path: Path) -> list[str]:
    """Return the texts that a file compares, matches or looks up with."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript):
            parts = [node.slice]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        else:
            continue
        for part in parts:
            found += [
                n.value
                for n in ast.walk(part)
                if isinstance(n, ast.Constant) and isinstance(n.value, str)
            ]
    return found


def test_core_does_not_branch_on_a_component_name() -> None:
    registry = Registry.installed()
    names = {name for kind in KINDS for name in registry.names(kind)}
    parts = ("training", "augment.py", "models.py", "tasks.py", "data.py", "pipeline", "export")
    parts += ("report",)
    watched = [p for p in CORE if p.relative_to(ROOT / "zoo").parts[0] in parts]
    assert len(watched) > 10
    assert not [(str(p), text) for p in watched for text in decisive(p) if text in names]


# --- what is done in one place alone ----------------------------------------------------------

MARK = re.compile(r"# never elsewhere: ([\w, ]+)")
RULES = {
    "test": 2,  # one loads it to be measured on, one to be digested, and no more
    "load_test": 1,
    "hold_test": 2,  # evaluation, and the reference that a proof holds a file against
    "digest_test": 4,  # as a run is made; and whether what was measured is still there
    "add_test": 3,  # beside those two, the reading of a run that is made again
    "backward": 3,  # the one loop, and a gradient's one call: of one process, of several
    "interpolate": 1,  # normalizing or resizing tensors elsewhere would be a second preprocessing
    "Normalize": 0,
    "ToTensor": 0,
    "fields": 2,  # the option parser; and run.json, which its own dataclass's annotations check
    "get_type_hints": 3,
    "echo": 1,  # what a verb prints goes through one function, that shows a stranger's text as text
    "print": 3,  # beside it the tables, and progress: lines, and a line above the live one
    "secho": 0,
    "ArgumentParser": 0,
    "literal_eval": 0,
}
"""Calls that the functions alone make over which `# never elsewhere: NAME` stands, and how many
functions that are: one more is a decision, and a line here."""


@functools.cache
def calls(node: ast.AST) -> tuple[tuple[str, int], ...]:
    """Return what is called, and in which line; `load_split` calls what it is given."""
    found = []
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute | ast.Name):
            function = inner.func
            called = function.attr if isinstance(function, ast.Attribute) else function.id
            found.append((called, inner.lineno))
            if called == "load_split":
                given = [each for each in inner.args if isinstance(each, ast.Attribute)]
                found += [(each.attr, inner.lineno) for each in given]
    return tuple(found)


@functools.cache
def marked(path: Path) -> tuple[tuple[str, ast.FunctionDef], ...]:
    """Return what each marked function may do, and the function; the mark is the line above it."""
    found = []
    lines = path.read_text().splitlines()
    marks = {
        number: match[1] for number, line in enumerate(lines, 1) if (match := MARK.search(line))
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first - 1 in marks:
                found += [(rule, node) for rule in marks.pop(first - 1).split(", ")]
    assert not marks, f"{name(path)}: a mark above no function"
    return tuple(found)


@pytest.mark.parametrize("rule", RULES)
def test_it_is_done_where_it_is_marked_alone(rule: str) -> None:
    everywhere, allowed = set(), set()
    functions = 0
    for path in CORE + PLUGINS:
        everywhere |= {(name(path), line) for called, line in calls(tree(path)) if called == rule}
        for what, function in marked(path):
            if what == rule:
                functions += 1
                here = {(name(path), line) for called, line in calls(function) if called == rule}
                assert here, f"{name(path)}: {function.name} is marked, and does not call {rule}"
                allowed |= here
    assert everywhere == allowed, f"mark the function: # never elsewhere: {rule}"
    assert functions == RULES[rule]


def test_nobody_writes_to_a_standard_stream_past_those() -> None:
    """But a bundle's runner, which has none of our modules beside it."""
    streams = ("sys.stdout.write", "sys.stderr.write", "sys.stdout.buffer", "sys.stderr.buffer")
    found = {
        name(path)
        for path in CORE + PLUGINS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(streams)
    }
    assert found == {"zoo/export/bundle/device/run.py"}


def test_a_mark_names_a_rule() -> None:
    assert {rule for path in CORE + PLUGINS for rule, _ in marked(path)} <= RULES.keys()


def test_digesting_the_test_split_tells_of_nothing_else() -> None:
    assert inspect.signature(digest_test).return_annotation == "Digested | None"
    told = [field.name for field in dataclasses.fields(Digested)]
    assert told == ["examples", "sha256", "names", "contents"]  # digests, and what messages call it
    shown = [path for path in CORE if path.parent.name == "report"]
    assert len(shown) > 10
    assert not [path for path in shown for called, _ in calls(tree(path)) if called == "test"]


def test_there_is_one_preprocessing() -> None:
    classes = [
        node
        for path in CORE + PLUGINS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and node.name == "Preprocess"
    ]
    assert len(classes) == 1


def test_nothing_is_unpickled() -> None:
    banned = {"pickle", "dill", "joblib", "shelve", "cloudpickle"}
    assert not [name(p) for p in CORE + PLUGINS if banned & set(imports(p))]
    for path in CORE + PLUGINS:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("torch", "load"), ("torch", "save")}, (
                    path
                )


# --- labels and the test split, watched from inside ------------------------------------------


BRIGHT = 255
"""What each byte of the spied test split is, and no other example has."""


class Spy(nn.Module):
    """An objective that keeps what it was given."""

    seen: list[tuple[Tensor, ...]]

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def forward(self, backbone: Backbone, *given: Tensor) -> Losses:
        self.seen.append(given)
        return Losses(backbone.encoder(given[0]).square().mean())


def spy_plugin(spy: Spy, tested: Callable[[], Examples]) -> ModuleType:
    """A data set whose test split, like nothing else in it, is given from outside."""
    module = ModuleType("spy_plugin")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 250, (60, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(60) % 3

    def train() -> Examples:
        return Examples(inputs=inputs, labels=labels)

    dataset = Dataset(
        input=ImageInput(channels=1, height=8, width=8),
        classes=("a", "b", "c"),
        train=train,
        test=tested,
    )

    @hookimpl
    def zoo_datasets() -> list[DatasetSpec]:
        return [DatasetSpec(name="spied", summary="", build=lambda config, root: dataset)]

    @hookimpl
    def zoo_objectives() -> list[ObjectiveSpec]:
        return [ObjectiveSpec(name="spy", summary="", build=lambda config, backbone: spy)]

    module.zoo_datasets = zoo_datasets  # type: ignore[attr-defined]
    module.zoo_objectives = zoo_objectives  # type: ignore[attr-defined]
    return module


def trained(
    folder: Path, tested: Callable[[], Examples], monkeypatch: pytest.MonkeyPatch
) -> tuple[Run, Spy, list[Tensor]]:
    """Pretrain and finetune; return the run, and all bytes that any network was asked of."""
    import zoo_heads
    import zoo_mlp

    asked: list[Tensor] = []
    forward = Preprocess.forward

    def watched(self: Preprocess, raw: Tensor) -> Tensor:
        asked.append(raw)
        return forward(self, raw)

    monkeypatch.setattr(Preprocess, "forward", watched)
    spy = Spy()
    registry = Registry(plugins=[zoo_mlp, zoo_heads, spy_plugin(spy, tested)])
    workspace = Workspace(plugins=registry, runs=folder)
    short = TrainConfig(epochs=2, batch_size=16, threads=1)
    run = pretrain(
        Component("mlp", widths=(8,), features=4),
        dataset="spied",
        objective="spy",
        training=short,
        workspace=workspace,
    )
    tuned = finetune(run, training=short, finetune=FinetuneConfig(labels=9), workspace=workspace)
    return tuned, spy, asked


def bright(label: int) -> Callable[[], Examples]:
    inputs = torch.full((20, 1, 8, 8), BRIGHT, dtype=torch.uint8)
    inputs[:, 0, 0, 0] = torch.arange(20)  # each is another one
    return lambda: Examples(inputs=inputs, labels=torch.full((20,), label))


def test_training_reads_neither_labels_nor_the_test_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, spy, asked = trained(tmp_path, bright(0), monkeypatch)
    assert len(spy.seen) > 4
    for inputs, raw in spy.seen:  # two tensors of image shape: nothing else came with them
        assert inputs.shape[1:] == (1, 8, 8)
        assert raw.shape[1:] == (1, 8, 8)
        assert inputs.dtype == torch.float32
        assert raw.dtype == torch.uint8
    assert len(asked) > 8
    assert not any((raw[:, 0, 7, 7] == BRIGHT).any() for raw in asked)
    assert run.record.data is not None
    assert run.record.data.splits["test"].examples == 20
    assert run.record.tests == []  # it was digested, which is no reading


def test_nothing_of_the_test_split_decides_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other labels, other examples, or a split that cannot be read: the weights are the same."""

    def forbidden() -> Examples:
        raise ValueError("the test split was read in training")

    def black() -> Examples:
        return Examples(inputs=torch.zeros(3, 1, 8, 8, dtype=torch.uint8), labels=torch.arange(3))

    splits = {"one": bright(0), "two": bright(2), "three": black, "four": forbidden}
    runs = [trained(tmp_path / n, tested, monkeypatch)[0] for n, tested in splits.items()]
    assert len({run.record.weights_sha256 for run in runs}) == 1
    known = [run.record.data.splits.get("test") for run in runs if run.record.data]
    assert len(known) == 4
    assert known[-1] is None
