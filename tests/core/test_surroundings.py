"""What a plugin's code changes of what is everybody's is put back and named."""

from __future__ import annotations

import gc
import importlib
import json
import locale
import logging
import multiprocessing
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from zoo import pipeline, surroundings
from zoo.api import HeadSpec, ImageInput, hookimpl
from zoo.errors import PluginFault
from zoo.isolation import as_guest
from zoo.pipeline import Workspace, assembly
from zoo.progress import reporting
from zoo.registry import Registry
from zoo.surroundings import as_it_was

_, FILES = resource.getrlimit(resource.RLIMIT_NOFILE)
GUARDS = [torch.inference_mode()]


def infer() -> None:
    GUARDS[0].__enter__()


# What a plugin does; what reads the thing; what it is called.
CHANGES: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "the working folder": (lambda: os.chdir("/"), Path.cwd),
    "the environment's HOME": (lambda: os.environ.update(HOME="/other"), Path.home),
    "the environment's PATH": (lambda: os.environ.pop("PATH"), lambda: os.environ.get("PATH")),
    "the environment's PYTHONHASHSEED and ZOO_RUNS": (
        lambda: os.environ.update(ZOO_RUNS="/other", PYTHONHASHSEED="7"),
        lambda: "ZOO_RUNS" in os.environ or "PYTHONHASHSEED" in os.environ,
    ),
    "sys.stdout and sys.stderr": (
        lambda: vars(sys).update(stdout=None, stderr=None),
        lambda: (sys.stdout, sys.stderr),
    ),
    "descriptors 1 and 2": (
        lambda: (os.close(1), os.close(2)),
        lambda: [(os.fstat(number).st_dev, os.fstat(number).st_ino) for number in (1, 2)],
    ),
    "the handlers of SIGINT and SIGTERM": (
        lambda: [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)],
        lambda: [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
    ),
    "the blocked signals": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    ),
    "the timer of SIGALRM": (lambda: signal.alarm(600), lambda: signal.getitimer(0)),
    "the umask": (lambda: os.umask(0o111), surroundings._umask),
    "sys.path": (lambda: sys.path.remove(sys.path[-1]), lambda: list(sys.path)),
    "the filters of warnings": (
        lambda: warnings.simplefilter("error"),
        lambda: list(warnings.filters),
    ),
    "the recursion limit": (lambda: sys.setrecursionlimit(900), sys.getrecursionlimit),
    "the garbage collector": (gc.disable, gc.isenabled),
    "the locale": (
        lambda: locale.setlocale(locale.LC_NUMERIC, "C.UTF-8"),
        lambda: locale.setlocale(locale.LC_ALL),
    ),
    "the root logger": (
        lambda: logging.basicConfig(level=1, force=True),
        lambda: (logging.root.level, list(logging.root.handlers)),
    ),
    "how processes are started": (
        lambda: multiprocessing.set_start_method("forkserver", force=True),
        lambda: multiprocessing.get_start_method(allow_none=True),
    ),
    "numpy's seterr": (lambda: np.seterr(all="raise"), np.geterr),
    "the time-out of sockets": (lambda: socket.setdefaulttimeout(1), socket.getdefaulttimeout),
    "torch's default dtype": (
        lambda: torch.set_default_dtype(torch.float64),
        lambda: torch.zeros(()).dtype,
    ),
    "torch's default device": (
        lambda: torch.set_default_device("meta"),
        lambda: torch.zeros(()).device,
    ),
    "torch's gradient mode": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "torch's deterministic algorithms": (
        lambda: torch.set_deterministic_debug_mode("error"),
        torch.are_deterministic_algorithms_enabled,
    ),
    "torch's number of threads": (lambda: torch.set_num_threads(3), torch.get_num_threads),
    "torch's precision of products": (
        lambda: torch.set_float32_matmul_precision("medium"),
        torch.get_float32_matmul_precision,
    ),
    "torch's anomaly mode": (
        lambda: torch.autograd.set_detect_anomaly(True),
        torch.is_anomaly_enabled,
    ),
    "torch's autocast on cpu": (
        lambda: torch.set_autocast_enabled("cpu", True),
        lambda: torch.is_autocast_enabled("cpu"),
    ),
    "torch's inference mode": (
        infer,
        lambda: (torch.is_inference_mode_enabled(), torch.is_grad_enabled()),
    ),
    "the limits of resources": (
        lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, FILES)),
        lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
    ),
    "torch's cudnn.allow_tf32": (
        lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
        lambda: torch.backends.cudnn.allow_tf32,
    ),
    "torch's mkldnn.enabled": (
        lambda: setattr(torch.backends.mkldnn, "enabled", False),
        lambda: torch.backends.mkldnn.enabled,
    ),
    "how torch's processes share tensors": (
        lambda: torch.multiprocessing.set_sharing_strategy("file_system"),
        torch.multiprocessing.get_sharing_strategy,
    ),
    "torch's cudnn.benchmark": (
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
        lambda: torch.backends.cudnn.benchmark,
    ),
}


@pytest.fixture
def outermost() -> Iterator[None]:
    """Put back what a test left changed, should `as_it_was` be broken."""
    with as_it_was([]):
        yield


@pytest.mark.usefixtures("outermost")
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", CHANGES)
def test_what_is_changed_is_put_back_and_named(name: str) -> None:
    change, read = CHANGES[name]
    before, changed = read(), list[str]()
    with as_it_was(changed):
        change()
    assert changed == [name]
    assert read() == before


def test_a_setting_that_can_no_longer_be_read_was_changed() -> None:
    """torch refuses to tell one that a newer one contradicts."""
    changed: list[str] = []
    with as_it_was(changed):
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        with pytest.raises(RuntimeError):
            torch.get_float32_matmul_precision()
    assert changed == ["torch's precision of products"]
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"


@pytest.mark.usefixtures("outermost")
@pytest.mark.parametrize(
    "change",
    [
        lambda: os.environ.update(KMP_INIT_AT_FORK="FALSE"),  # as scikit-learn does
        lambda: os.environ.update(PATH=f"/more{os.pathsep}{os.environ['PATH']}"),
        lambda: sys.path.insert(0, "/more"),
        lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 1),
        lambda: warnings.filterwarnings("ignore", message="a message of its own"),
        lambda: warnings.simplefilter("ignore", FutureWarning),
        lambda: logging.getLogger("its own").setLevel(1),
        lambda: torch.manual_seed(3),
    ],
)
def test_what_a_library_does_for_itself_stays(
    change: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ)
    for name in ("PATH", "KMP_INIT_AT_FORK"):  # put back when the test ends
        monkeypatch.setitem(os.environ, name, os.environ.get(name, ""))
    monkeypatch.delitem(os.environ, "KMP_INIT_AT_FORK")
    monkeypatch.setattr(sys, "path", list(sys.path))
    limit, changed = sys.getrecursionlimit(), list[str]()
    with torch.random.fork_rng(), warnings.catch_warnings():
        with as_it_was(changed):
            change()
            after = [dict(os.environ), list(sys.path), sys.getrecursionlimit()]
        assert changed == []
        assert [dict(os.environ), list(sys.path), sys.getrecursionlimit()] == after
    sys.setrecursionlimit(limit)


def test_a_library_first_imported_meanwhile_is_held_to_what_it_was_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoo_test_arriving.py").write_text("speed = 3\n")
    monkeypatch.syspath_prepend(tmp_path)

    def watches(module: Any) -> list[surroundings.Watch]:
        def write(before: int) -> None:
            module.speed = before

        return [surroundings.setting("its speed", lambda: module.speed, write)]

    monkeypatch.setitem(surroundings.LIBRARIES, "zoo_test_arriving", watches)
    finders, changed = list(sys.meta_path), list[str]()
    with as_it_was(changed):
        found = importlib.import_module("zoo_test_arriving")
        found.speed = 9
    assert (changed, found.speed) == (["its speed"], 3)
    assert sys.meta_path == finders
    assert importlib.reload(found).speed == 3  # its loader is as it was


def test_it_is_put_back_where_the_code_fails() -> None:
    before, changed = Path.cwd(), list[str]()

    def interrupted() -> None:
        with as_it_was(changed):
            os.chdir("/")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (Path.cwd(), changed) == (before, ["the working folder"])


# --- stdout ---------------------------------------------------------------------------------


def test_stdout_is_left_alone_whoever_writes(capfd: pytest.CaptureFixture[str]) -> None:
    import ctypes

    with as_guest([]), as_guest([]):
        print("print")
        sys.__stdout__ and sys.__stdout__.write("original\n")
        os.write(1, b"descriptor\n")
        ctypes.CDLL(None).puts(b"machine code")
        os.system("echo child")
    print("result")
    out, err = capfd.readouterr()
    assert out == "result\n"
    assert sorted(err.splitlines()) == ["child", "descriptor", "machine code", "original", "print"]


WAITING = """
import ctypes, threading, time
from zoo.errors import PluginFault
from zoo.isolation import as_guest
threading.Thread(target=ctypes.CDLL(None).getchar, daemon=True).start()
time.sleep(0.3)
with as_guest([]):
    pass
print("on it went", flush=True)
input()
"""


def test_a_thread_that_waits_for_input_holds_nothing_up() -> None:
    command = [sys.executable, "-c", WAITING]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 30)
        if not ready:
            process.kill()
        assert process.stdout.readline() == "on it went\n"  # print may write its newline later
        process.kill()


@pytest.mark.parametrize("quiet", [True, False])
def test_a_verb_leaves_stdout_to_its_result(quiet: bool, capfd: pytest.CaptureFixture[str]) -> None:
    from zoo.cli.options import progress

    with progress(quiet):  # what a forward pass does, in training or in a proof
        print("print")
        os.write(1, b"descriptor\n")
    print("result")
    assert capfd.readouterr().out == "result\n"


# --- plugins --------------------------------------------------------------------------------

SLOPPY = """
import os

import torch

from zoo.api import HeadSpec, hookimpl

os.chdir("/")


@hookimpl
def zoo_heads():
    torch.set_default_dtype(torch.float64)
    return [HeadSpec(name="sloppy", summary="a stranger's", build=print)]
"""


def test_a_plugin_is_named_for_what_it_changed_while_it_was_loaded(tmp_path: Path) -> None:
    (tmp_path / "sloppy.py").write_text(SLOPPY)
    folder = Path.cwd()
    plugins = Registry.installed([tmp_path / "sloppy.py"]).plugins
    told = {plugin.name: plugin.changed for plugin in plugins if plugin.changed}
    assert told == {"file:sloppy": ("the working folder", "torch's default dtype")}
    assert (Path.cwd(), torch.get_default_dtype()) == (folder, torch.float32)


def test_every_command_says_which_plugin_changed_what(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "sloppy.py").write_text(SLOPPY)
    result = cli("--plugin", "sloppy.py", "list", "heads")
    assert result.stderr == (
        "Plugin file:sloppy changed the working folder and torch's default dtype while it was"
        " loaded; zoo put it back.\n"
    )
    assert "sloppy" in result.stdout


class Notes:
    """A reporter that keeps what is noted."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def note(self, text: str) -> None:
        self.found.append(text)


def built_in() -> list[ModuleType]:
    return [importlib.import_module(f"zoo_{name}") for name in ("mlp", "images", "heads")]


def sloppy(build: Callable[..., Any], *others: ModuleType, runs: Path | None = None) -> Workspace:
    module = ModuleType("zoo_test_sloppy")
    spec = HeadSpec(name="sloppy", summary="a stranger's", build=build)
    vars(module)["zoo_heads"] = hookimpl(lambda: [spec])
    return Workspace(plugins=Registry([module, *others]), runs=runs)


def test_a_build_is_named_once_for_what_it_changed() -> None:
    def build(config: Any, features: int, classes: int) -> torch.nn.Module:
        torch.set_default_dtype(torch.float64)
        return torch.nn.Linear(features, classes, dtype=torch.float32)

    notes: Any = Notes()
    part = assembly.choose(sloppy(build), "head", "sloppy")
    with reporting(notes):
        for _ in range(2):
            assembly.build_head(part, 4, 3)
            assert torch.get_default_dtype() == torch.float32
    assert notes.found == [
        "head 'sloppy' of plugin file:zoo_test_sloppy changed torch's default dtype while it was"
        " built; zoo put it back"
    ]


@pytest.mark.parametrize("evaluating", [True, False])
def test_a_forward_pass_that_leaves_a_mode_changed_is_refused(
    tmp_path: Path, evaluating: bool
) -> None:
    """Training would run on in it, and whatever is built next would be blamed."""

    class Head(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            if self.training is not evaluating:
                torch.set_default_dtype(torch.float64)
            return super().forward(input)

    build = lambda config, features, classes: Head(features, classes)  # noqa: E731
    ours = sloppy(build, *built_in(), runs=tmp_path / "runs")
    refused = r"a forward pass leaves torch's default dtype changed, for all that comes after\. Set"
    with pytest.raises(PluginFault, match=refused) as caught:
        pipeline.finetune(None, backbone="mlp", head="sloppy", workspace=ours)
    assert "head 'sloppy' of plugin file:zoo_test_sloppy" in str(caught.value)
    assert torch.get_default_dtype() == torch.float32
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_names_what_was_being_built() -> None:
    def build(*_: object) -> torch.nn.Module:
        raise KeyboardInterrupt

    part = assembly.choose(sloppy(build), "head", "sloppy")
    with pytest.raises(KeyboardInterrupt) as caught:
        assembly.build_head(part, 4, 3)
    line = build.__code__.co_firstlineno + 1
    assert caught.value.__notes__ == [
        "Head 'sloppy' of plugin file:zoo_test_sloppy was being built"
        f" (test_surroundings.py:{line})."
    ]


def test_ctrl_c_names_the_plugin_that_was_being_loaded(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "endless.py").write_text("import zoo\nraise KeyboardInterrupt\n")
    result = cli("--plugin", "endless.py", "list")
    assert result.exit_code == 130
    assert result.stderr.split("\n", 1)[1] == (
        "Interrupted.\nPlugin file:endless was being loaded (endless.py:2).\n"
        "To do without it, leave out: --plugin endless.py\n"
    )


def test_the_built_in_components_change_nothing() -> None:
    workspace, notes = Workspace(), Notes()
    grey = ImageInput(channels=1, height=8, width=8)
    with reporting(notes):  # type: ignore[arg-type]
        data = assembly.build_dataset(workspace, assembly.choose(workspace, "dataset", "digits"))
        backbone = assembly.call_build(assembly.choose(workspace, "backbone", "mlp"), grey)
        for entry in workspace.registry.entries("head"):
            assembly.build_head(assembly.choose(workspace, "head", entry.name), 4, 3)
        for entry in workspace.registry.entries("backbone"):
            assembly.call_build(assembly.choose(workspace, "backbone", entry.name), grey)
        for entry in workspace.registry.entries("objective"):
            if entry.name != "distill":  # which needs a run
                part = assembly.choose(workspace, "objective", entry.name)
                assembly.build_objective(workspace, part, backbone)
        part = assembly.choose(workspace, "dataset", "digits")
        assembly.load_split(part, data, data.train)
    assert notes.found == []
    assert not [plugin for plugin in workspace.registry.plugins if plugin.changed]


# --- the end --------------------------------------------------------------------------------

HANGS = """
import {module}
import time

from zoo.api import HeadSpec, hookimpl


def forever():
    while True:
        time.sleep(1)


{start}


@hookimpl
def zoo_heads():
    return [HeadSpec(name="hanging", summary="a stranger's", build=print)]
"""


@pytest.mark.parametrize(
    "start", ["threading.Thread(target=forever).start()", "atexit.register(forever)"]
)
def test_what_hangs_at_the_end_is_named_and_ends_with_ctrl_c(start: str, tmp_path: Path) -> None:
    source = HANGS.format(module=start.partition(".")[0], start=start)
    (tmp_path / "hangs.py").write_text(source)
    code = "from zoo.cli import ending, main; ending.PATIENCE = 0.1; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--plugin", "hangs.py", "list", "heads", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    assert (
        process.stderr.readline()
        == "zoo has finished, and waits for hangs.py:10. Ctrl-C ends it.\n"
    )
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "hanging" in [entry["name"] for entry in json.loads(out)["heads"]]


def test_a_crash_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "aborts.py").write_text("import os\n\nos.abort()\n")
    code = "from pathlib import Path; from zoo.registry import Registry\n"
    code += "Registry.installed([Path('aborts.py')])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGABRT
    assert 'aborts.py", line 3 in <module>' in done.stderr
