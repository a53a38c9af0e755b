"""What torch does over and over at every export, and with the same result: here it is done once.

Nothing of zoo's is changed. What is torch's own affair may change: then it takes its time again.
"""

from __future__ import annotations

import contextlib
import functools
import typing


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
