"""The rules that the design puts under "Never"."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
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
HEAVY = {"torch", "torchvision", "numpy", "onnx", "onnxruntime", "onnxscript", "sklearn", "scipy",
         "matplotlib", "jinja2"}  # fmt: skip
LIGHT = ["api", "hookspecs", "registry", "isolation", "errors", "config", "cli"]


def names_of(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Yield the modules that a file imports; those under TYPE_CHECKING are for the checker."""
    tree = ast.parse(path.read_text())
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped |= {id(inner) for inner in ast.walk(node)}
        if top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_the_files_looked_at_are_there() -> None:
    assert len(CORE) > 25
    assert len(PLUGINS) > 10


@pytest.mark.parametrize("path", CORE, ids=names_of(CORE))
def test_core_imports_no_plugin(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[0].startswith("zoo_")]


@pytest.mark.parametrize("path", PLUGINS, ids=names_of(PLUGINS))
def test_a_plugin_imports_zoo_api_alone(path: Path) -> None:
    own = path.relative_to(ROOT / "plugins").parts[0]
    ours = [name for name in imports(path) if name.split(".")[0].startswith("zoo")]
    assert not [n for n in ours if n != "zoo.api" and n.split(".")[0] != own]


@pytest.mark.parametrize(
    "path",
    [p for p in CORE if p.relative_to(ROOT / "zoo").parts[0].removesuffix(".py") in LIGHT],
    ids=str,
)
def test_light_modules_import_nothing_heavy_at_module_level(path: Path) -> None:
    assert not [n for n in imports(path, top_level=True) if n.split(".")[0] in HEAVY]


@pytest.mark.parametrize("module", ["zoo.api", "zoo.hookspecs", "zoo.registry", "zoo.isolation",
                                    "zoo.errors", "zoo.config", "zoo.cli.main", "zoo.cli.train",
                                    "zoo.cli.catalogue", "zoo.cli.deploy", "zoo.cli.measure",
                                    "zoo.cli.recipe", "zoo.cli.bundle", "zoo.cli.benchmark",
                                    "zoo.cli.inspect", "zoo.cli.bench"])  # fmt: skip
def test_light_modules_load_nothing_heavy(module: str) -> None:
    code = f"import {module}, sys, json; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(json.loads(found.stdout))


def test_api_needs_the_standard_library_and_pluggy_alone() -> None:
    code = "import zoo.api, sys, json; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    bare = subprocess.run(
        [sys.executable, "-c", "import sys, json; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {n.split(".")[0] for n in json.loads(found.stdout)}
    loaded -= {n.split(".")[0] for n in json.loads(bare.stdout)}
    assert {n for n in loaded if n not in sys.stdlib_module_names} == {"zoo", "pluggy"}


@pytest.mark.parametrize("path", sorted((ROOT / "zoo" / "cli").glob("*.py")), ids=str)
def test_the_command_line_does_no_arithmetic_on_tensors(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[0] in HEAVY]


def decisive(path: Path) -> list[str]:
    """Return the texts that a file compares, matches or looks up with."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
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


def calls(path: Path, *wanted: str) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute | ast.Name)
        and (node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id) in wanted
    ]


def test_there_is_one_training_loop() -> None:
    loops = {p.name: calls(p, "backward") for p in CORE + PLUGINS if calls(p, "backward")}
    # places.py has the two forms of a gradient's one call: of one process, of several.
    assert {name: len(lines) for name, lines in loops.items()} == {"loop.py": 1, "places.py": 2}


def callers(*wanted: str) -> set[tuple[str, str]]:
    """Return the file and the function of every call in core."""
    found = set()
    for path in CORE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                lines = range(node.lineno, (node.end_lineno or 0) + 1)
                found |= {(path.name, node.name) for at in calls(path, *wanted) if at in lines}
    return found


def test_evaluation_and_the_proof_alone_measure_on_the_test_split() -> None:
    """Two functions call it: one loads it to be measured on, one to be digested, and no more."""
    assert callers("test") == {("evaluation.py", "load_test"), ("identity.py", "digest_test")}
    assert callers("load_test") == {("evaluation.py", "hold_test")}
    assert callers("hold_test") == {("evaluation.py", "evaluate"), ("model_files.py", "read")}
    assert {name for name, _ in callers("digest_test")} == {
        "identity.py",  # as a run is made
        "evaluation.py", "reporting.py",  # whether what was measured is still there
    }  # fmt: skip
    assert inspect.signature(digest_test).return_annotation == "Digested | None"
    assert [field.name for field in dataclasses.fields(Digested)] == ["examples", "sha256", "names"]
    shown = [p for p in CORE if p.parent.name == "report" or p.name == "observing.py"]
    assert len(shown) > 10
    assert not [p.name for p in shown if calls(p, "test", "add_test")]


def test_there_is_one_preprocessing() -> None:
    scaling = [
        p.name
        for p in CORE + PLUGINS
        for node in ast.walk(ast.parse(p.read_text()))
        if isinstance(node, ast.ClassDef) and node.name == "Preprocess"
    ]
    assert scaling == ["models.py"]
    # Normalizing or resizing tensors anywhere else would be a second one.
    second = [p.name for p in CORE + PLUGINS if calls(p, "interpolate", "Normalize", "ToTensor")]
    assert second == ["models.py"]


def test_there_is_one_option_parser() -> None:
    # record.py checks what run.json holds by the annotations of its own dataclass, no option.
    readers = [p.name for p in CORE + PLUGINS if calls(p, "fields", "get_type_hints")]
    parsers = [name for name in readers if name != "record.py"]
    assert parsers == ["config.py"]
    assert not [p.name for p in CORE + PLUGINS if calls(p, "ArgumentParser", "literal_eval")]


def test_nothing_is_unpickled() -> None:
    banned = {"pickle", "dill", "joblib", "shelve", "cloudpickle"}
    assert not [p.name for p in CORE + PLUGINS if banned & set(imports(p))]
    for path in CORE + PLUGINS:
        for node in ast.walk(ast.parse(path.read_text())):
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
