"""What a process does over and over, and with the same result: here it is done once.

Nothing of zoo's is changed. What is torch's own affair may change: then it takes its time again.
"""

from __future__ import annotations

import functools
import os
import re
import typing
from collections.abc import Hashable


def read_digits_once() -> None:
    """Let scikit-learn read the text of its 1,797 digits once; each caller gets a copy."""
    import sklearn.datasets

    read = functools.cache(sklearn.datasets.load_digits)

    def load_digits(**options: object) -> typing.Any:
        found = read(**options)
        return type(found)(**{k: getattr(v, "copy", lambda v=v: v)() for k, v in found.items()})

    sklearn.datasets.load_digits = load_digits


def settled(value: typing.Any) -> Hashable:
    """Say all of a setting: repr leaves out the middle of a large tensor."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return tuple((repr(key), settled(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return type(value), *map(settled, value)
    return repr(value)


def address(deployed: typing.Any, *given: object) -> Hashable | None:
    """Say what decides on a graph: classes, settings and numbers of all modules, and `given`.

    Settings are all attributes, `_private` ones as well, but for those that torch keeps of any
    module; hooks count. None where one is told by its place in memory alone, such as a function,
    for another may come to lie there. Not covered: what a class or a module of Python holds, if a
    test changes that between two traces.
    """
    from torch import nn

    kept = vars(nn.Module()).keys() - {"training", "_forward_hooks", "_forward_pre_hooks"}
    modules = tuple(
        (
            name,
            type(module),
            module.extra_repr(),
            tuple((k, settled(v)) for k, v in sorted(vars(module).items()) if k not in kept),
        )
        for name, module in deployed.named_modules()
    )
    if re.search(r" at 0x[0-9a-f]+", repr(modules)):
        return None
    tensors = (*deployed.named_parameters(), *deployed.named_buffers())
    numbers = tuple((name, t.dtype, t.detach().numpy().tobytes()) for name, t in tensors)
    return modules, numbers, repr(given)


def tracing_once(trace: typing.Any) -> typing.Any:
    """Return `zoo.export.graph._trace` as one that keeps each graph, and gives copies of it.

    The row "exported again" then holds a graph against itself, so it is no test of the exporter.
    """
    kept: dict[Hashable, typing.Any] = {}

    def traced(deployed: typing.Any, example: typing.Any, opset: int, *, fixed: bool) -> typing.Any:
        about = (example.dtype, example.shape, example.stride(), opset, fixed)
        where = address(deployed, *about)
        if where is None:
            return trace(deployed, example, opset, fixed=fixed)
        if where not in kept:
            kept[where] = trace(deployed, example, opset, fixed=fixed)
        model = type(kept[where])()
        model.CopyFrom(kept[where])
        return model

    return traced


def spare_the_disk() -> None:
    """Do not wait until the disk has each file: tests kill processes, and no machine.

    Those that need a disk to fail put their own `fsync` in this one's place.
    """

    def fsync(handle: int) -> None:
        os.fstat(handle)  # raises, as it does, where there is no such file

    os.fsync = fsync
