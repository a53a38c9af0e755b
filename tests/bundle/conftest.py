"""A bundle of the trained run, for every test of bundles."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from zoo.export.seal import BLANK, KEY, seal
from zoo.pipeline.bundling import bundle

Result = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def bundle_once(trained_once: Any, made_once: Callable[..., Path]) -> Path:
    def write(folder: Path) -> None:
        # A copy: the run is asked for its proof, which it writes down.
        trained = trained_once.copied(folder / "runs")
        bundle(trained.finetuned, folder / "bundle", web=False, workspace=trained.workspace)

    return made_once(write) / "bundle"


@pytest.fixture
def bundle_folder(bundle_once: Path, tmp_path: Path) -> Path:
    """A copy, without `ort/`, that a test may break."""
    return Path(shutil.copytree(bundle_once, tmp_path / "bundle"))


@pytest.fixture
def received(trained_once: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with its proof.json, as somebody gets them: without the run."""
    folder = tmp_path_factory.mktemp("received")
    for name in ("model.onnx", "proof.json"):
        shutil.copy(trained_once.finetuned.folder / name, folder)
    return folder / "model.onnx"


@pytest.fixture
def runner(tmp_path: Path) -> Callable[..., Result]:
    """Run a bundle's run.py from another folder: `runner(folder, "selftest")`."""

    def run(folder: Path, *words: object, **options: Any) -> Result:
        command = [sys.executable, "-I", str(folder / "run.py"), *map(str, words)]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, **options
        )

    return run


@pytest.fixture
def nasty(bundle_folder: Path, tmp_path: Path) -> Path:
    """A picture whose name would clear a terminal, turn its writing and forge a line."""
    name = "\x1b[2J\u202e\x9b5m\u2028\U000e0041\nselftest: yes\r.png"
    return Path(shutil.copy(bundle_folder / "golden" / "grey.png", tmp_path / name))


@pytest.fixture(params=["closed pipe", "full disk"])
def nowhere(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """A descriptor that takes nothing, and how what is said of it begins."""
    if request.param == "closed pipe":
        reader, place = os.pipe()
        os.close(reader)
        said = ""
    elif Path("/dev/full").exists():
        place = os.open("/dev/full", os.O_WRONLY)
        said = "Error: the answer cannot be written: "
    else:
        pytest.skip("needs Linux's full device")
    yield place, said
    os.close(place)


@pytest.fixture
def forge() -> Callable[..., None]:
    """Rewrite model.json as somebody would who knows of the sums: recorded anew, sealed anew."""

    def write(
        folder: Path, change: Callable[[dict[str, Any]], None] = lambda content: None
    ) -> None:
        path = folder / "model.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        for name, recorded in content["files"].items():
            data = (folder / name).read_bytes()
            recorded |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        model = (folder / content["model"]["file"]).read_bytes()
        content["model"]["sha256"] = hashlib.sha256(model).hexdigest()
        change(content)
        content["sha256"] = "0" * 64
        data = json.dumps(content, indent=2, ensure_ascii=False).encode()
        seal = hashlib.sha256(data).hexdigest().encode()
        path.write_bytes(data.replace(b"0" * 64, seal, 1))

    return write


@pytest.fixture
def infinite_logits(bundle_folder: Path, forge: Callable[..., None]) -> Path:
    """A bundle whose probabilities are sound and whose logits are not; sums and seals fit."""
    model = onnx.load_model(bundle_folder / "model.onnx")
    last = next(node for node in model.graph.node if "logits" in node.output)
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    last.output[0] = softmax.input[0] = "sound"
    infinity = helper.make_node("Constant", [], ["infinity"], value_float=float("inf"))
    added = helper.make_node("Add", ["sound", "infinity"], ["logits"])
    model.graph.node.extend([infinity, added])
    for prop in model.metadata_props:
        prop.value = BLANK.decode() if prop.key == KEY else prop.value
    (bundle_folder / "model.onnx").write_bytes(seal(model.SerializeToString(deterministic=True)))
    forge(bundle_folder)
    return bundle_folder
