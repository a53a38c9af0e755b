"""What every benchmark here tells: machine, commit, the spread of a timing; earlier commits."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import torch

import zoo
import zoo.machine
from zoo.errors import ZooError
from zoo.machine import cores, processor
from zoo.pipeline.making import versions

ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Tell what zoo refuses in one message, as its own commands do."""
    try:
        yield
    except ZooError as error:
        raise click.ClickException(str(error)) from None


@dataclasses.dataclass(frozen=True)
class Spread:
    """One thing measured several times; `spread` is largest less smallest, over the median."""

    minimum: float
    median: float
    spread: float
    n: int

    def __str__(self) -> str:
        return f"{self.minimum:.3f} / {self.median:.3f} / {self.spread:.0%}"


def spread(values: Sequence[float]) -> Spread:
    middle = statistics.median(values)
    return Spread(min(values), middle, (max(values) - min(values)) / middle, len(values))


def changed(tree: Path) -> bool:
    """Say whether a checkout differs from its commit in anything that could change a result.

    Results, and the pages that show them, are left out: writing one does not spoil the next.
    """
    parts = (".", ":!benchmarks/results", ":!*.md")
    git = ["git", "-C", str(tree), "status", "--porcelain", "--untracked-files=no", "--", *parts]
    done = subprocess.run(git, capture_output=True, text=True)
    return bool(done.returncode or done.stdout)


def commit() -> str:
    """Return the commit of the zoo that is measured, with `-dirty` where its tree was changed."""
    found = zoo.machine.commit()
    if found.endswith("-dirty") and not changed(Path(zoo.__file__).resolve().parents[1]):
        return found.removesuffix("-dirty")
    return found


@contextlib.contextmanager
def checked_out(name: str) -> Iterator[Path]:
    """Check a commit out in a folder of its own, and remove that in the end.

    Raises `click.UsageError` where there is no such commit.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        try:
            subprocess.run([*git, "add", "--quiet", "--detach", str(tree), name], check=True)
        except subprocess.CalledProcessError:
            raise click.UsageError(f"'{name}' is no commit of this repository.") from None
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def head_of(tree: Path) -> str:
    git = ["git", "-C", str(tree), "rev-parse", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()


def environment_of(tree: Path) -> dict[str, str]:
    """Return the environment in which a process imports the zoo of a checkout."""
    path = os.pathsep.join(str(each) for each in (tree, tree / "plugins"))
    return {**os.environ, "PYTHONPATH": path, "ZOO_RUNTIMES": "none"}


def refuse_part(write: bool, part: bool, options: str) -> None:
    """Raise `click.UsageError` where a published result would be replaced by a part of it."""
    if write and part:
        raise click.UsageError(f"--write keeps the whole result: leave out {options}.")


def machine(*packages: str) -> dict[str, Any]:
    """Describe what is measured, and where: commit, processor, threads, versions.

    Further packages' versions are added where they are installed. Ask before measuring: the tree
    may be changed meanwhile.
    """
    more = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            more[name] = metadata.version(name)
    return {
        "commit": commit(),
        "processor": f"{cores()} × {processor()}",
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "versions": {**versions(), **more},
    }


def print_machine(found: dict[str, Any]) -> None:
    named = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    print(f"{found['processor']} ({found['vectors']}), {found['threads']} threads; {named}")
    print(f"{found['commit']}\n")
