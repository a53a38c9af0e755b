"""What a module holds beside the state that is saved: found by holding it against a fresh build."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

Value = Tensor | np.ndarray | np.generic | torch.Generator | str | bytes | int | float | complex
LEAVES = (Tensor, np.ndarray, np.generic, torch.Generator, str, bytes, int, float, complex, Set)
OPAQUE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_INTERNAL = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}
"""What every module has for torch's own use: its modes, hooks, and tables of what it is made of."""


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Walk through the tensors, arrays, numbers and texts that an object holds, each but once.

    Yields each with its dotted path: those of a module's parameters, buffers and parts first, then
    its plain attributes, into lists, dicts and objects of plain classes.
    """
    yield from _walk(value, path, {})


def _walk(value: Any, path: str, seen: dict[int, Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, LEAVES) or value is None:
        if not isinstance(value, Tensor) or id(value) not in seen:
            yield path, value
        seen[id(value)] = value
    elif not isinstance(value, OPAQUE) and id(value) not in seen:
        seen[id(value)] = value  # kept, so that its id stays its own
        for name, each in _inside(value):
            yield from _walk(each, _join(path, name), seen)


def _join(path: str, name: Any) -> str:
    return f"{path}.{name}" if path else str(name)


def _inside(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, nn.Module):
        for table in (value._parameters, value._buffers, value._modules):
            yield from table.items()
        yield from ((n, each) for n, each in vars(value).items() if n not in _INTERNAL)
    elif isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list | tuple | deque):
        yield from enumerate(value)
    else:
        yield from getattr(value, "__dict__", {}).items()


def unsaved(trained: nn.Module, fresh: nn.Module, name: str = "") -> list[str]:
    """Name what a trained module holds otherwise than a fresh build that was given its state.

    Each is a dotted path below `name`, and says what it is: buffers come before attributes.
    """
    held, given = dict(leaves(trained, name)), dict(leaves(fresh, name))
    differing = [path for path, value in held.items() if not _same(value, given.get(path, value))]
    differing += [path for path in held if path not in given]
    buffers = {_join(name, n) for n, _ in trained.named_buffers(remove_duplicate=False)}
    state = {_join(name, n) for n in trained.state_dict()}
    temporary = [path for path in differing if path in buffers - state]
    loaded = [path for path in differing if path in state]
    others = [path for path in differing if path not in buffers | state]
    return [
        *(f"{path} (persistent=False)" for path in temporary),
        *(f"{path} (changed when it is loaded)" for path in loaded),
        *(f"{path} (an attribute)" for path in others),
    ]


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, DTensor):  # a shard was gathered before it was saved
        return True
    if isinstance(one, torch.Generator) and isinstance(two, torch.Generator):
        one, two = one.get_state(), two.get_state()
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return alike(one.detach().cpu(), two.detach().cpu())
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        inexact = one.dtype.kind in "fc" and two.dtype.kind in "fc"
        return np.array_equal(one, two, equal_nan=inexact)
    if type(one) is not type(two):
        return False
    return bool(one == two) or bool(one != one and two != two)


def alike(one: Tensor, two: Tensor) -> bool:
    """Say whether two tensors are equal, element by element; nan is equal to nan."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    return bool(((one == two) | ((one != one) & (two != two))).all())
