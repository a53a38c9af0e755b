"""What a process does over and over, and with the same result: here it is done once.

Nothing of zoo's is changed. What is torch's own affair may change: then it takes its time again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import typing
from collections.abc import Hashable


def read_operators_once() -> None:
    """Let torch read its tables of operators once a process, not once an export.

    They are three quarters of exporting a small model.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from torch.onnx._internal.exporter import _registration

        apis, registry = _registration.onnxscript_apis, _registration.ONNXRegistry
        apis.get_torchlib_ops = functools.cache(apis.get_torchlib_ops)
        registry.from_torchlib = staticmethod(functools.cache(registry.from_torchlib))
    with contextlib.suppress(ImportError, AttributeError):
        from torch._export import utils

        # Of the namespaces that there are: a library imported later brings one of its own.
        of_one = functools.cache(utils._collect_all_valid_cia_ops_for_namespace)
        utils._collect_all_valid_cia_ops_for_namespace = of_one
    with contextlib.suppress(ImportError, AttributeError):
        import torch._ops

        # An annotation that is computed at each of 10,000 calls; typing keeps what it computed.
        assert torch._ops.Callable
        torch._ops.Callable = typing.Callable


def read_digits_once() -> None:
    """Let scikit-learn read the text of its 1,797 digits once; each caller gets a copy."""
    import sklearn.datasets

    read = functools.cache(sklearn.datasets.load_digits)

    def load_digits(**options: object) -> typing.Any:
        found = read(**options)
        return type(found)(**{k: getattr(v, "copy", lambda v=v: v)() for k, v in found.items()})

    sklearn.datasets.load_digits = load_digits


def address(deployed: typing.Any, *given: object) -> Hashable:
    """Say what decides on a graph: classes, settings and numbers of all modules, and `given`."""
    modules = tuple(
        (
            name,
            type(module),
            module.extra_repr(),
            repr(sorted((k, v) for k, v in vars(module).items() if not k.startswith("_"))),
        )
        for name, module in deployed.named_modules()
    )
    tensors = (*deployed.named_parameters(), *deployed.named_buffers())
    numbers = tuple((name, t.dtype, t.detach().numpy().tobytes()) for name, t in tensors)
    return modules, numbers, repr(given)


def tracing_once(trace: typing.Any) -> typing.Any:
    """Return `zoo.export.graph._trace` as one that keeps each graph, and gives copies of it."""
    kept: dict[Hashable, typing.Any] = {}

    def traced(deployed: typing.Any, example: typing.Any, opset: int, *, fixed: bool) -> typing.Any:
        about = (example.dtype, example.shape, example.stride(), opset, fixed)
        where = address(deployed, *about)
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
