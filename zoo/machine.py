"""Where a result was made: the processor, its cores, the commit of the source."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from pathlib import Path

MOST_THREADS = 4096
"""No option asks for more threads: tens of thousands end a process without a word."""


def processor() -> str:
    """Name the CPU, as its maker does where the system knows."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def processor_of(device: str) -> str:
    """Name what computes on a device: the CPU, or the GPU and the CPU beside it."""
    if device.startswith("cuda"):
        import torch

        return f"{torch.cuda.get_device_name(torch.device(device))}; {processor()}"
    return processor()


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sensible_threads(count: int) -> int:
    """Return so many threads, or as many as this machine should have: a few for each core.

    A run may have been recorded on a larger one.
    """
    return min(count, max(64, 4 * cores()))


def commit() -> str:
    """Return the git commit of this source, with `-dirty` where it was changed; else the version.

    A copy that lies ignored in somebody else's repository has no commit of its own.
    """
    folder = Path(__file__).resolve().parent
    known = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    found = known and _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    if found:
        return found
    from importlib.metadata import version

    return f"plugzoo {version('plugzoo')}"


def _git(folder: Path, *words: str) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(folder), *words]
        made = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return made.stdout.strip()
    return ""
