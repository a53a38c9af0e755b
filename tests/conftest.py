"""Fixtures that every test may use."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as CliResult
from filelock import FileLock

# The models are tiny: one thread is quicker than two. Read when torch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What the person who runs the tests has set must not reach the commands that are tested.
# xdist's workers get this environment after it was stripped: the folder is kept by another name.
REAL_DATA = os.environ.get("ZOO_DATA") or os.environ.get("TEST_REAL_DATA")
if REAL_DATA:
    os.environ["TEST_REAL_DATA"] = str(Path(REAL_DATA).absolute())
for name in [name for name in os.environ if name.startswith("ZOO_")]:
    if name not in ("ZOO_NODE_MODULES", "ZOO_BROWSER"):  # where these lie is the machine's affair
        del os.environ[name]
# Each runtime beside onnxruntime costs a process or two a proof; tests ask for them by name.
os.environ["ZOO_RUNTIMES"] = "none"

# A shell starts what runs in the background without Ctrl-C, and tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from zoo import pipeline
from zoo.api import Component, TrainConfig
from zoo.pipeline import Workspace
from zoo.runs import Run, every

from . import forked, warm

ROOT = Path(__file__).resolve().parent.parent
Result = subprocess.CompletedProcess[str]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Collect no garbage among the million objects that importing makes, now and later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the longest tests first: no worker has one of them left when the others are done."""
    items.sort(key=lambda item: item.get_closest_marker("begun_first") is None)


@pytest.fixture(autouse=True, scope="session")
def _warm(bench_script: Callable[[str], Any]) -> None:
    bench_script("once").read_operators_once()
    warm.read_digits_once()
    warm.spare_the_disk()


@pytest.fixture(scope="session")
def _tracer() -> Any:
    from zoo.export import graph

    return warm.tracing_once(graph._trace)


@pytest.fixture
def graphs_kept(_tracer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace a classifier once, however often it is exported and validated.

    For tests of what is done with files: the row "exported again" holds a graph against itself
    there. Where a graph is under test, or that two exports are the same bytes, it is traced each
    time.
    """
    monkeypatch.setattr("zoo.export.graph._trace", _tracer)


@pytest.fixture(scope="session")
def bench_script() -> Iterator[Callable[[str], Any]]:
    """Import a script of `benchmarks/` by its name; its neighbours stand beside it."""
    folder = str(ROOT / "benchmarks")
    sys.path.append(folder)
    yield importlib.import_module
    sys.path.remove(folder)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """The installed plugins, with runs and data in a temporary folder."""
    return Workspace(runs=tmp_path / "runs", data=tmp_path / "data")


@pytest.fixture
def zoo(tmp_path: Path) -> Callable[..., Result]:
    """Run the command `zoo` as a user would, in a temporary folder; output is captured.

    `zoo("list", "heads")`; keywords are environment variables. `anew` starts an interpreter: for
    what is decided before zoo is imported, as by the variables that Python and OpenMP read.
    """

    def run(*args: object, timeout: float = 120, anew: bool = False, **env: str) -> Result:
        given = {**os.environ, "COLUMNS": "1000", "OMP_NUM_THREADS": "1", **env}
        early = {name for name in env if name.startswith(("PYTHON", "OMP_", "MKL_", "LD_"))}
        if not anew and not early - {"PYTHONPATH"} and forked.imports_much(args):
            return forked.run(args, cwd=tmp_path, env=given, timeout=timeout)
        return subprocess.run(
            [sys.executable, "-m", "zoo", *map(str, args)],
            cwd=tmp_path,
            env=given,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CliResult]:
    """Run a command line within this process, quicker than `zoo`; in a temporary folder."""
    from zoo.cli.main import zoo as command

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")

    def run(*args: object) -> CliResult:
        return CliRunner().invoke(command, [str(arg) for arg in args], prog_name="zoo")

    return run


MadeOnce = Callable[..., Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Make a folder once for all workers: `made_once(fill, *given)` is a copy that is one's own.

    `fill(folder, *given)` makes it, in the worker that comes first; the others wait for it. What
    `fill` is called and what it is given are its address, in a folder of this session, so a result
    is never stale. Without `copied` it is that of all: to be left as it is.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # whose own folder stands in the session's
        root = root.parent

    def get(fill: Callable[..., object], *given: object, copied: bool = True) -> Path:
        named = repr((fill.__module__, fill.__qualname__, given))
        address = hashlib.sha256(named.encode()).hexdigest()
        folder = root / "made-once" / f"{fill.__name__}-{address[:16]}"
        folder.parent.mkdir(exist_ok=True)
        made = folder.with_name(f"{folder.name}.made")
        with FileLock(f"{folder}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of one that failed
                folder.mkdir()
                fill(folder, *given)
                made.touch()
        if not copied:
            return folder
        copy = Path(shutil.copytree(folder, tmp_path_factory.mktemp(fill.__name__) / "copy"))
        for record in copy.rglob("run.json"):  # which says where the parent lies
            record.write_text(record.read_text().replace(str(folder), str(copy)))
        return copy

    return get


PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "{version}"
dependencies = ["plugzoo"]
[project.entry-points.zoo]
{points}
[tool.setuptools]
py-modules = [{modules}]
"""


@pytest.fixture(scope="session")
def make_package(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a stranger's package: `make_package("zoo-x", {"x": "mod"}, {"mod": "…"})`.

    Points are the entry points of the group `zoo`; modules are texts by name.
    """

    def make(
        name: str, points: dict[str, str], modules: dict[str, str], version: str = "0.3.1"
    ) -> Path:
        folder = tmp_path_factory.mktemp(name)
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
        lines = "\n".join(f'{point} = "{module}"' for point, module in points.items())
        quoted = ", ".join(f'"{module}"' for module in modules)
        (folder / "pyproject.toml").write_text(
            PROJECT.format(name=name, version=version, points=lines, modules=quoted)
        )
        return folder

    return make


def install(site: Path, packages: tuple[tuple[tuple[str, str], ...], ...]) -> None:
    """Let pip install packages, each the names and texts of its files, in a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch, str(number)) for number in range(len(packages))]
        for folder, files in zip(folders, packages, strict=True):
            folder.mkdir()
            for name, text in files:
                (folder / name).write_text(text)
        install_folders(site, folders)


def install_folders(site: Path, folders: list[Path]) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "--no-compile"]
    command += ["--target", str(site), *map(str, folders)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="session")
def pip_install(
    made_once: MadeOnce, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Install packages with pip in a folder of their own, to be set as PYTHONPATH."""

    def run(*packages: Path) -> Path:
        if any(each.is_dir() for package in packages for each in package.iterdir()):
            site = tmp_path_factory.mktemp("site")  # a whole checkout is installed once
            install_folders(site, [*packages])
            return site
        files = (sorted(package.iterdir()) for package in packages)
        return made_once(
            install, tuple(tuple((p.name, p.read_text()) for p in each) for each in files)
        )

    return run


@dataclasses.dataclass(frozen=True)
class Trained:
    """A pretraining, a finetuning and its exported file on digits, in a runs folder."""

    runs: Path
    pretrained: Run
    finetuned: Run
    model: Path

    @property
    def workspace(self) -> Workspace:
        return Workspace(runs=self.runs)

    def copied(self, runs: Path) -> Trained:
        """Return a copy in a folder that is not there yet, which may be exported or broken."""
        shutil.copytree(self.runs, runs)
        pretrained, finetuned = (
            Run(runs / run.name, dataclasses.replace(run.record))
            for run in (self.pretrained, self.finetuned)
        )
        return Trained(runs, pretrained, finetuned, finetuned.model)


def train(runs: Path) -> None:
    workspace = Workspace(runs=runs)
    training = TrainConfig(epochs=4, batch_size=64, lr=3e-3)
    backbone = Component("mlp", widths=(32,), features=16)
    pretrained = pipeline.pretrain(backbone, training=training, workspace=workspace)
    finetuned = pipeline.finetune(pretrained, training=training, workspace=workspace)
    pipeline.export(finetuned, workspace=workspace)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def trained_once(made_once: MadeOnce) -> Iterator[Trained]:
    """What all tests of a worker share: it is to be left as it is, which is checked in the end."""
    folder = made_once(train)
    made = {run.record.kind: run for run in every(folder)[0]}
    before = contents(folder)
    yield Trained(folder, made["pretrain"], made["finetune"], made["finetune"].model)
    after = contents(folder)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert not changed, "a test changed what all share; let it ask for `trained`"


@pytest.fixture
def trained(trained_once: Trained, tmp_path: Path) -> Trained:
    """A copy of finished runs that a test may break."""
    return trained_once.copied(tmp_path / "runs")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real MNIST and Fashion-MNIST sets; skips where `ZOO_DATA` is not set."""
    if not REAL_DATA:
        pytest.skip("set ZOO_DATA to a folder with the real MNIST and Fashion-MNIST sets")
    return Path(REAL_DATA)
