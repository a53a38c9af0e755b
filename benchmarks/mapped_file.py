"""A large file of random pictures, mapped into memory; how much of it the page cache holds."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from zoo.api import ImageInput

CHUNK = 64 << 20


def write(path: Path, input: ImageInput, gigabytes: float) -> int:
    """Write random bytes unless the file is there already; return how many pictures it holds."""
    count = int(gigabytes * 1e9) // _bytes(input)
    size = count * _bytes(input)
    if path.exists() and path.stat().st_size == size:
        return count
    path.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(path.parent).free) < size * 1.05:
        raise click.ClickException(
            f"'{path.parent}' has {free / 1e9:.1f} GB left, too little for {size / 1e9:.1f} GB."
            " Type a smaller --gigabytes, or another --folder."
        )
    noise = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, size, CHUNK):
            file.write(noise.bytes(min(CHUNK, size - start)))
        file.flush()
        os.fsync(file.fileno())
    return count


def open_mapped(path: Path, input: ImageInput, count: int) -> Tensor:
    """Map a file as uint8 N x C x H x W; nothing of it is read yet."""
    # Shared, though never written to: the kernel counts a private map as memory that may be needed.
    size = count * _bytes(input)
    mapped = torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)
    return mapped.view(count, *input.shape)


def warm(path: Path) -> None:
    """Read a file from one end to the other, so that the page cache holds what it can."""
    buffer = bytearray(CHUNK)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def cool(path: Path) -> None:
    """Let the page cache drop a file; it must not be mapped, nor changed since it was synced."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached(mapped: Tensor) -> float:
    """Return the share of a mapped tensor's pages that lie in the page cache."""
    pages = -(-mapped.numel() // mmap.PAGESIZE)
    flags = np.zeros(pages, dtype=np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    address, length = ctypes.c_void_p(mapped.data_ptr()), ctypes.c_size_t(mapped.numel())
    if libc.mincore(address, length, ctypes.c_void_p(flags.ctypes.data)) != 0:
        raise OSError(ctypes.get_errno(), "mincore")
    return float((flags & 1).mean())


class Memory:
    """Anonymous resident memory of this process in MB: what mapped files are no part of."""

    def __init__(self) -> None:
        self.before = self.peak = anonymous()

    @property
    def added(self) -> float:
        return self.peak - self.before


@contextmanager
def watching(every: float = 0.02) -> Iterator[Memory]:
    """Sample the anonymous memory within this block."""
    memory, ended = Memory(), threading.Event()

    def sample() -> None:
        while not ended.wait(every):
            memory.peak = max(memory.peak, anonymous())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()
        memory.peak = max(memory.peak, anonymous())


def anonymous() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise click.ClickException("/proc/self/status has no RssAnon: this needs Linux 4.5 or later.")


def _bytes(input: ImageInput) -> int:
    return input.channels * input.height * input.width
