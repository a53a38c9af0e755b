"""Where steps happen: in one process, or in several that exchange what they computed.

`fit` knows a `Place` and nothing else of it: how a batch is shared, a gradient exchanged, a figure
summed. How several processes come about is told in `launching`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from zoo.api import Losses, TrainConfig
from zoo.progress import current
from zoo.training.processes import Team

Batch = tuple[Tensor, ...]


class Place:
    """One process: nothing is exchanged."""

    rank, world = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes, and speaks."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return what is called in place of the module; its weights may be shards from now on."""
        return module

    def share(self, batch: Batch) -> Batch:
        """Return this process's part of a batch that all processes drew alike."""
        return batch

    def exchanging(self, module: nn.Module, *, wanted: bool) -> AbstractContextManager[None]:
        """Return the context of a forward and backward pass; `wanted` says that a step follows."""
        return contextlib.nullcontext()

    # never elsewhere: backward
    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradient to those of the weights."""
        loss.backward()  # type: ignore[no-untyped-call]

    def alike(self, module: nn.Module) -> None:
        """Give every process the main one's buffers: running statistics are each one's own."""

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, this one's with their gradient."""
        return rows

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of each value over the processes."""
        return values

    def each(self, state: Tensor) -> list[Tensor]:
        """Return a tensor of every process, by rank."""
        return [state]

    def same(self, text: str) -> str:
        """Return what the main process says."""
        return text

    def wait(self) -> None:
        """Go on when all processes are here."""

    def together(self) -> AbstractContextManager[None]:
        """Return a context whose errors name the process that failed, not one that lost it."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the main process go through this block first: what it fetches, the others find."""
        if not self.main:
            self.wait()
        yield
        if self.main:
            self.wait()


class FabricPlace(Place):
    """One of several processes, each with a device, joined by lightning-fabric."""

    def __init__(self, fabric: Any, team: Team) -> None:
        super().__init__(fabric.device)
        self._fabric, self._team = fabric, team
        self.rank, self.world = fabric.global_rank, fabric.world_size

    def wrap(self, module: nn.Module) -> nn.Module:
        wrapped = self._fabric.setup_module(_Plain(module), _reapply_compile=False)
        return _Rich(wrapped)

    def share(self, batch: Batch) -> Batch:
        count = len(batch[0])
        first, last = self.rank * count // self.world, (self.rank + 1) * count // self.world
        return tuple(tensor[first:last] for tensor in batch)

    def exchanging(self, module: nn.Module, *, wanted: bool) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = self._fabric.no_backward_sync(
            module.wrapped, enabled=not wanted
        )
        return context

    # never elsewhere: backward
    def backward(self, loss: Tensor) -> None:
        self._fabric.backward(loss)

    def alike(self, module: nn.Module) -> None:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)

    def gather(self, rows: Tensor) -> Tensor:
        counts = [int(each) for each in self.each(torch.tensor(len(rows)))]
        padded = torch.cat([rows, rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])])
        parts = _Gather.apply(padded, self.rank, self.world)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def total(self, values: Tensor) -> Tensor:
        summed: Tensor = self._fabric.all_reduce(values.clone(), reduce_op="sum")
        return summed

    def each(self, state: Tensor) -> list[Tensor]:
        return _all_gather(state.to(self.device), self.world)

    def same(self, text: str) -> str:
        said: str = self._fabric.broadcast(text)
        return said

    def wait(self) -> None:
        self._fabric.barrier()

    def together(self) -> AbstractContextManager[None]:
        return self._team.together()


class _Plain(nn.Module):
    """A module whose losses are a plain dict: what shards weights looks for tensors in it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        losses: Losses = self.module(*batch)
        return {"total": losses.total, **losses.parts}


class _Rich(nn.Module):
    """What was wrapped, its dict of tensors made losses again."""

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped

    def forward(self, *batch: Tensor) -> Losses:
        return Losses(**self.wrapped(*batch))


class _Gather(torch.autograd.Function):
    """Gather a tensor of each process; the gradient is what all of them make of this one's."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, rank: int, world: int) -> tuple[Tensor, ...]:
        ctx.rank = rank
        return tuple(_all_gather(own, world))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        summed = torch.stack(gradients)
        torch.distributed.all_reduce(summed)
        return summed[ctx.rank], None, None


def _all_gather(own: Tensor, world: int) -> list[Tensor]:
    parts = [torch.empty_like(own) for _ in range(world)]
    torch.distributed.all_gather(parts, own.contiguous())
    return parts


_current: ContextVar[Place | None] = ContextVar("zoo_place", default=None)


def current_place() -> Place:
    """Return the place of the training that is under way: one process unless it said otherwise."""
    return _current.get() or Place(torch.device("cpu"))


@contextlib.contextmanager
def entered(place: Place) -> Iterator[None]:
    """Make a place the current one within this block."""
    token = _current.set(place)
    try:
        yield
    finally:
        _current.reset(token)


def innermost(config: TrainConfig, place: Place) -> bool:
    """Say whether training lays the channels of convolutions innermost."""
    sharded = place.world > 1 and config.strategy == "fsdp"  # shards are cut from rows
    return config.channels_last and not sharded


def unshard(module: nn.Module) -> None:
    """Put whole weights in place of a module's shards, for good; every process has to ask."""
    gathered: dict[int, nn.Parameter] = {}  # a weight may be shared
    for part in module.modules():
        for name, weight in part._parameters.items():
            if isinstance(weight, DTensor):
                if id(weight) not in gathered:
                    whole = nn.Parameter(weight.full_tensor(), weight.requires_grad)
                    gathered[id(weight)] = whole
                part._parameters[name] = gathered[id(weight)]


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors gathered from their shards; every process has to ask."""
    return {n: t.full_tensor() if isinstance(t, DTensor) else t for n, t in tensors.items()}


def local(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return a tensor that every process has whole, sharded and laid out as another one is."""
    if isinstance(other, DTensor):
        # Every process has the whole: none of it has to be sent.
        mesh, cut = other.device_mesh, other.placements
        return distribute_tensor(tensor.to(other.device), mesh, cut, src_data_rank=None)
    return torch.empty_like(other).copy_(tensor)


def settle(module: nn.Module, place: Place) -> nn.Module:
    """Make batch statistics those of all processes on GPUs; say where they cannot be."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if place.world == 1 or not norms:
        return module
    if place.device.type == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return synced
    current().note(
        f"batch normalization sees each process's own examples on a {place.device.type}:"
        " the loss differs a little from that of one process"
    )
    return module
