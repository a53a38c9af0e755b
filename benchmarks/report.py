"""What every benchmark here tells: the machine, the spread of a timing, a table."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import statistics
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import click
import torch

from zoo.errors import ZooError
from zoo.machine import cores, processor
from zoo.pipeline.making import versions


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


def machine(*packages: str) -> dict[str, Any]:
    """Describe what is measured on: processor, threads in use, versions, those of more packages."""
    more = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            more[name] = metadata.version(name)
    return {
        "processor": f"{cores()} × {processor()}",
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "versions": {**versions(), **more},
    }


def print_machine(found: dict[str, Any]) -> None:
    named = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    print(f"{found['processor']} ({found['vectors']}), {found['threads']} threads; {named}\n")
