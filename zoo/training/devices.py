"""Where a module is trained and in which arithmetic: device, threads, precision, layout."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from zoo.api import TrainConfig
from zoo.errors import UsageError
from zoo.machine import sensible_threads
from zoo.progress import current


def seed_everything(seed: int) -> None:
    """Seed torch's global generators, those of every device included.

    Where there is no device, torch's own function keeps the seed and a whole traceback for each
    kind that may still come; that takes a hundred times as long as seeding does.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def resolve_device(name: str) -> torch.device:
    """Return the device of a `--device` text; raises `UsageError` where it is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"The device '{name}' cannot be used: {reason}\nType --device cpu, or auto."
        ) from None
    if device.type == "meta":
        raise UsageError("The device 'meta' holds no numbers. Type --device cpu, or auto.")
    return device


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[int]:
    """Use `count` CPU threads within this block, or as many as torch chose; yields the number.

    Of more than are sensible on this machine, so many, which is told.
    """
    before = torch.get_num_threads()
    if count is not None:
        usable = sensible_threads(count)
        if usable < count:
            current().note(
                f"{usable} threads in the place of {count}: this machine has fewer cores"
            )
        torch.set_num_threads(usable)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Choose kernels that give the same bits twice, where a device has others too.

    The CPU has none that differ at one number of threads. An operation that has no such kernel
    warns.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    tuned = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        torch.backends.cudnn.benchmark = tuned


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a forward pass: bfloat16 where autocast allows it, or float32."""
    if config.precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def lay_out(module: nn.Module, memory_format: torch.memory_format = torch.channels_last) -> None:
    """Put the channels of convolutions innermost, or back; their outputs follow their weights.

    Weights and results stay what they are, but for rounding. On two cores convolutions then take
    three quarters of the time.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            part.to(memory_format=memory_format)


@contextlib.contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """Leave torch's global generators as they were before this block."""
    states = read_generators(device)
    try:
        yield
    finally:
        set_generators(states, device)


def read_generators(device: torch.device) -> dict[str, Tensor]:
    """Read the states of torch's global generators: the CPU's, and that of the device in use."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_generators(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Put back what `read_generators` read."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    if "mps" in states:
        torch.mps.set_rng_state(states["mps"])
