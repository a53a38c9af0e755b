"""How much memory one more example takes in a forward pass, and how many fit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.memory import MEMORY

LARGEST = 256
"""Examples in a batch where memory allows: more make nothing faster."""


class _Widest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the most bytes that one operation reads and writes, weights left out."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        held = (*module.parameters(), *module.buffers())
        self.weights = {each.untyped_storage().data_ptr() for each in held}
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = (each for each in tree_leaves((args, kwargs, found)) if isinstance(each, Tensor))
        moving = (t for t in tensors if t.untyped_storage().data_ptr() not in self.weights)
        self.bytes = max(self.bytes, sum(each.numel() * each.element_size() for each in moving))
        return found


@torch.no_grad()
def batch_that_fits(module: nn.Module, inputs: Tensor, memory: int = MEMORY) -> int:
    """Return how many examples a forward pass may take at once: 256, or fewer by memory.

    Measured on one and on two examples: what the second one adds to the widest operation. Where a
    module cannot be watched, memory is not asked.
    """
    if len(inputs) < 3:
        return LARGEST
    try:
        found = []
        for count in (1, 2):
            with _Widest(module) as widest:
                module(inputs[:count])
            found.append(widest.bytes)
    except Exception:  # its own affair, which a whole batch may not meet
        return LARGEST
    each = found[1] - found[0]
    return LARGEST if each <= 0 else max(1, min(LARGEST, memory // each))
