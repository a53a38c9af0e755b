"""The other runtimes: the same answers as onnxruntime, and no harm from one that goes wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from zoo.errors import UnknownName
from zoo.export import runtimes
from zoo.export.runtimes import Answer, Worker
from zoo.export.runtimes.catalogue import PYTHON_WORKER
from zoo.export.runtimes.running import MOST_LETTERS

Array = np.ndarray[Any, Any]
IMAGES = np.random.default_rng(0).integers(0, 256, (65, 1, 8, 8), dtype=np.uint8)


def worker(script: str) -> Worker:
    """A worker that is a shell script; its first argument is the folder."""
    return Worker("odd", ("sh", "-c", script, "odd"))


def ask(script: str, seconds: float = 60.0) -> Answer:
    return runtimes.ask(worker(script), b"a model", IMAGES, batch=7, seconds=seconds)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that temporary folders are made in."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def expected(model: Path) -> tuple[Array, Array]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"image": IMAGES})
    assert probabilities.std() > 0.02  # answers that are all alike would prove nothing
    return logits, probabilities


def need(name: str) -> None:
    if name not in runtimes.installed():
        pytest.skip(f"{name} is not installed: {runtimes.how_to_install(name)}")


@pytest.mark.parametrize("name", runtimes.NAMES)
def test_a_runtime_says_what_onnxruntime_says(
    name: str, trained_once: Any, temporary: Path
) -> None:
    need(name)
    logits, probabilities = expected(trained_once.model)
    for batch in (1, 7, 64):
        answer = runtimes.run(name, trained_once.model, IMAGES, batch=batch)
        assert answer.problem == ""
        assert answer.name == name
        assert answer.version[0].isdigit()
        np.testing.assert_allclose(answer.probabilities, probabilities, rtol=0, atol=1e-4)
        np.testing.assert_allclose(answer.logits, logits, rtol=0, atol=1e-3)
    assert not [*temporary.iterdir()]


@pytest.mark.parametrize("name", runtimes.NAMES)
def test_a_damaged_file_is_an_answer(name: str, trained_once: Any, temporary: Path) -> None:
    need(name)
    half = trained_once.model.read_bytes()[:2000]
    answer = runtimes.run(name, half, IMAGES, batch=7)
    assert answer.probabilities is None
    assert answer.logits is None
    assert answer.problem.startswith(("unsupported: ", "crashed: "))
    assert "\n" not in answer.problem
    assert str(temporary) not in answer.problem
    assert not [*temporary.iterdir()]


def reshaped(model: Path, batch: int | None, *, nhwc: bool) -> bytes:
    """The same classifier with another input: channels last, or a batch that is fixed."""
    proto = onnx.load(model)
    port = proto.graph.input[0]
    if nhwc:
        for node in proto.graph.node:
            node.input[:] = ["turned" if name == "image" else name for name in node.input]
        turn = onnx.helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 3, 1, 2])
        proto.graph.node.insert(0, turn)
        for axis, size in zip(port.type.tensor_type.shape.dim, (0, 8, 8, 1), strict=True):
            if size:
                axis.dim_value = size
    if batch:
        for each in (*proto.graph.input, *proto.graph.output):
            each.type.tensor_type.shape.dim[0].dim_value = batch
        del proto.graph.value_info[:]
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString())


@pytest.mark.parametrize("nhwc", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("name", ["onnxruntime", *runtimes.NAMES])
def test_layout_and_a_fixed_batch(name: str, nhwc: bool, trained_once: Any) -> None:
    model = reshaped(trained_once.model, 4, nhwc=nhwc)
    kind = {"layout": "NHWC" if nhwc else "NCHW", "fixed_batch": 4}
    if name == "onnxruntime":  # the worker itself, where nothing else is installed
        command = (sys.executable, "-P", str(PYTHON_WORKER), name, "")
        answer = runtimes.ask(Worker(name, command), model, IMAGES, batch=7, **kind)
    else:
        need(name)
        answer = runtimes.run(name, model, IMAGES, batch=7, **kind)
    assert answer.problem == ""
    _, probabilities = expected(trained_once.model)
    np.testing.assert_allclose(answer.probabilities, probabilities, rtol=0, atol=1e-4)


def test_a_crash_is_an_answer(temporary: Path) -> None:
    assert ask("kill -SEGV $$").problem == "crashed: SIGSEGV"
    assert ask("kill -FPE $$").problem == "crashed: SIGFPE"
    assert ask("echo first; echo last >&2; exit 3").problem == "crashed: exit status 3: last"
    assert ask("printf 12345 > $1/logits; cp $1/logits $1/probabilities").problem == (
        "crashed: its answer is not whole"
    )
    absent = runtimes.ask(Worker("odd", ("/nowhere/odd",)), b"", IMAGES, batch=7)
    assert absent.problem == "crashed: it cannot be started: No such file or directory"
    assert ask("exit 0").problem == "crashed: exit status 0: it said nothing"
    assert not [*temporary.iterdir()]


def test_a_worker_that_crashes_has_said_its_version(temporary: Path) -> None:
    answer = ask("echo 1.2.3 > $1/version; kill -ABRT $$")
    assert answer == Answer("odd", "1.2.3", problem="crashed: SIGABRT")


def test_a_worker_that_never_ends_is_ended_with_its_children(
    temporary: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    answer = ask(f"exec 3>{pipe}; echo up >&3; sleep 60 & sleep 60", seconds=1.0)
    assert answer.problem == "took longer than 1 s"
    assert os.read(reading, 9) == b"up\n"
    assert select.select([reading], [], [], 30)[0]  # its end: nobody holds it open
    assert os.read(reading, 9) == b""
    os.close(reading)
    assert not [*temporary.iterdir()]


def test_what_is_said_is_one_line_and_names_no_folder(temporary: Path) -> None:
    said = ask('printf "cannot read $1/model.onnx\\n\\n  at line 3\\n" > $1/problem').problem
    assert said == "unsupported: cannot read model.onnx at line 3"
    assert ask("pwd -P > $1/problem").problem == "unsupported: ."  # where core dumps go
    long = ask("(echo first; head -c 1000 /dev/zero | tr '\\0' x; echo last) > $1/problem").problem
    assert len(long) == len("unsupported: ") + MOST_LETTERS
    assert long.startswith("unsupported: first xxx")
    assert long.endswith("xxxlast")


def test_the_worker_gets_each_image_once_in_its_order(temporary: Path) -> None:
    copied = temporary.parent / "copied"
    ask(f"cp -r $1 {copied}")
    assert (copied / "images").read_bytes() == IMAGES.tobytes()
    assert (copied / "model.onnx").read_bytes() == b"a model"
    assert json.loads((copied / "task.json").read_text()) == {"shape": [65, 1, 8, 8], "batch": 7}


def test_an_answer_for_another_batch_is_no_answer(trained_once: Any) -> None:
    """A runtime may hand out its last result again: the numbers then look sound."""
    code = PYTHON_WORKER.read_text().replace(
        "session.run(OUTPUTS, {", "session.run(OUTPUTS, {'image': np.repeat(images[:1], 7, 0)} or {"
    )
    stale = Worker("stale", (sys.executable, "-c", code, "onnxruntime", ""))
    answer = runtimes.ask(stale, trained_once.model, IMAGES, batch=7)
    assert answer.problem == "unsupported: a batch of 2 got [7, 7] answers"


def test_a_runtime_that_is_not_installed_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    for name in ("tract", "cv2", "openvino"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert runtimes.installed() == []
    for name in runtimes.NAMES:
        answer = runtimes.run(name, b"", IMAGES, batch=7)
        assert answer == Answer(name, problem="not installed")
        assert runtimes.how_to_install(name).split()[:2] in (["pip", "install"], ["npm", "install"])


@pytest.mark.parametrize("variable", ["ZOO_NODE_MODULES", "NODE_PATH", None])
def test_where_packages_of_node_are_looked_for(
    variable: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ZOO_NODE_MODULES", "NODE_PATH"):
        monkeypatch.delenv(name, raising=False)
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "onnxruntime-web" not in runtimes.installed()
    modules = tmp_path / ("elsewhere" if variable else "node_modules")
    (modules / "onnxruntime-web").mkdir(parents=True)
    (modules / "onnxruntime-web" / "package.json").write_text("{}")
    if variable:
        assert "onnxruntime-web" not in runtimes.installed()
        monkeypatch.setenv(variable, f"{tmp_path / 'nowhere'}{os.pathsep}{modules}")
    assert "onnxruntime-web" in runtimes.installed()
    assert "onnxruntime-node" not in runtimes.installed()


def test_an_unknown_runtime_is_named() -> None:
    message = (
        "Unknown runtime 'tracd'. Did you mean 'tract'? There are: tract, openvino, opencv,"
        " onnxruntime-node, onnxruntime-web."
    )
    for call in (runtimes.how_to_install, lambda n: runtimes.run(n, b"", IMAGES, batch=1)):
        with pytest.raises(UnknownName) as caught:
            call("tracd")
        assert str(caught.value) == message


def test_looking_for_runtimes_loads_none() -> None:
    code = "import sys; from zoo.export import runtimes; runtimes.installed(); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "onnx", "onnxruntime", "tract", "openvino", "cv2"}
    assert not heavy & set(found.stdout.split())


def test_an_answer_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Answer("tract").problem = "none"  # type: ignore[misc]
