"""Wrappers: scripted, traced, compiled, hooked, checkpointed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from odd.network import ANY, NOT_PROVED, PROVED, REFUSED, network
from odd.parts import dense


@network(REFUSED)
def scripted() -> nn.Module:
    """`torch.jit.script` of the whole encoder."""
    inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16))
    return torch.jit.script(inner)  # type: ignore[no-any-return]


@network(REFUSED)
def scripted_within() -> nn.Module:
    """One scripted layer within plain ones."""
    return dense(torch.jit.script(nn.Sequential(nn.Linear(32, 32), nn.Tanh())))


@network(ANY)
def traced() -> nn.Module:
    """`torch.jit.trace` of a layer: a graph, and no Python behind it."""
    return dense(torch.jit.trace(nn.Linear(32, 32), torch.zeros(2, 32)), nn.ReLU())


@network(ANY)
def scripted_function() -> nn.Module:
    """A scripted function called from a plain module."""

    def steep(inputs: Tensor) -> Tensor:
        return inputs * torch.sigmoid(1.7 * inputs)

    return dense(torch.jit.script(steep))


@network(ANY)
def compiled() -> nn.Module:
    """A layer behind `torch.compile`, by the backend that changes nothing."""
    inner: Any = nn.Sequential(nn.Linear(32, 32), nn.ReLU())
    return dense(torch.compile(inner, backend="eager"))


@network(PROVED)
def symbolically_traced() -> nn.Module:
    """A `torch.fx.GraphModule`, whose code was written by a tracer."""
    return torch.fx.symbolic_trace(dense(nn.ReLU(), nn.Linear(32, 32), nn.Tanh()))


@network(ANY)
def exported_program() -> nn.Module:
    """The module of a `torch.export`ed program, which fixes shapes and knows no training."""
    inner = nn.Sequential(nn.Linear(32, 32), nn.ReLU())
    shapes = ({0: torch.export.Dim("count")},)
    program = torch.export.export(inner, (torch.zeros(3, 32),), dynamic_shapes=shapes)
    module: Any = program.module()
    module.train = module.eval = lambda mode=True: module
    return dense(module)


@network(PROVED)
def hook_before() -> nn.Module:
    """A `forward_pre_hook` that changes the input of a layer."""
    layer = nn.Linear(32, 32)
    layer.register_forward_pre_hook(lambda module, inputs: (inputs[0].abs() - 0.5,))
    return dense(layer, nn.ReLU())


@network(PROVED)
def hook_behind() -> nn.Module:
    """A `forward_hook` that changes the output of a layer."""
    layer = nn.Linear(32, 32)
    layer.register_forward_hook(lambda module, inputs, output: torch.tanh(output) + inputs[0])
    return dense(layer)


@network(NOT_PROVED)
def hook_that_counts() -> nn.Module:
    """A hook that changes the output by how often it was called."""
    layer, calls = nn.Linear(32, 32), [0]

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        calls[0] += 1
        return torch.tanh(output + calls[0] % 7)

    layer.register_forward_hook(hook)
    return dense(layer)


@network(PROVED)
def features_by_hooks() -> nn.Module:
    """Maps of an inner layer caught by a hook in a list, and used further down."""

    class Caught(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 8), nn.ReLU())
            self.caught: list[Tensor] = []
            self.body[1].register_forward_hook(lambda m, i, output: self.caught.append(output))

        def forward(self, inputs: Tensor) -> Tensor:
            self.caught.clear()
            last = self.body(inputs.flatten(1))
            return torch.cat([self.caught.pop()[:, :8], last], 1)

    return Caught()


@network(PROVED)
def recomputed() -> nn.Module:
    """A block behind `torch.utils.checkpoint`, computed again for its gradient."""

    class Recomputed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(32, 32), nn.GELU())

        def forward(self, inputs: Tensor) -> Tensor:
            answer: Tensor = checkpoint(self.block, inputs, use_reentrant=False)
            return answer

    return dense(Recomputed())
