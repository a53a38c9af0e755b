"""Memories: what a network keeps of what it saw, and state that is no plain tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import ANY, NOT_PROVED, PROVED, network
from odd.parts import dense


@network(ANY)
def view_of_a_buffer() -> nn.Module:
    """A part of a buffer is returned as it lies, and what comes after changes it in place."""

    class Viewed(nn.Module):
        offset: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("offset", torch.zeros(2, 32))

        def forward(self, inputs: Tensor) -> Tensor:
            part = self.offset[0]
            part.add_(inputs.detach().mean() * 0.1)
            return torch.tanh(inputs + part)

    return dense(Viewed())


@network(NOT_PROVED)
def counted_calls() -> nn.Module:
    """A saved buffer counts the calls, in evaluation too, and the answer shows it."""

    class Counted(nn.Module):
        calls: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls.add_(1)
            return torch.tanh(inputs + torch.sin(self.calls))

    return dense(Counted())


@network(NOT_PROVED)
def adapted_at_test_time() -> nn.Module:
    """A running mean that goes on running in evaluation (test-time adaptation)."""

    class Adapting(nn.Module):
        mean: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(32))

        def forward(self, inputs: Tensor) -> Tensor:
            self.mean.lerp_(inputs.detach().mean(0), 0.3)
            return 2 * (inputs - self.mean)

    return dense(Adapting(), nn.Tanh())


@network(PROVED)
def table_by_size() -> nn.Module:
    """A table that is made at the first call and kept in a dictionary by its size."""

    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables: dict[int, Tensor] = {}

        def forward(self, inputs: Tensor) -> Tensor:
            width = int(inputs.shape[1])
            if width not in self.tables:
                self.tables[width] = torch.sin(torch.arange(width) / 3)
            return inputs + self.tables[width]

    return dense(Cached(), nn.Tanh())


@network(NOT_PROVED)
def first_batch_remembered() -> nn.Module:
    """The mean of the first batch ever seen is kept and taken away from all others."""

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean: Tensor | None = None

        def forward(self, inputs: Tensor) -> Tensor:
            if self.mean is None:
                self.mean = inputs.detach().mean(0)
            return 4 * (inputs - self.mean)

    return dense(First(), nn.Tanh())


@network(ANY)
def codebook() -> nn.Module:
    """Vector quantization: the nearest of 16 codes, moving averages in saved buffers."""

    class Codes(nn.Module):
        codes: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("codes", torch.randn(16, 8))

        def forward(self, inputs: Tensor) -> Tensor:
            vectors = inputs.unflatten(1, (4, 8))
            nearest = torch.cdist(vectors, self.codes.expand(len(inputs), -1, -1)).argmin(-1)
            found = F.embedding(nearest, self.codes)
            if self.training:
                for code in range(16):
                    near = vectors.detach()[nearest == code]
                    if len(near):
                        self.codes[code].lerp_(near.mean(0), 0.1)
            return (vectors + (found - vectors).detach()).flatten(1)

    return dense(Codes())


@network(PROVED)
def memory_bank() -> nn.Module:
    """A saved queue of what training saw last, read by attention."""

    class Bank(nn.Module):
        queue: Tensor
        at: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("queue", torch.randn(64, 32))
            self.register_buffer("at", torch.zeros((), dtype=torch.int64))

        def forward(self, inputs: Tensor) -> Tensor:
            if self.training:
                index = (self.at + torch.arange(len(inputs))) % 64
                self.queue[index] = inputs.detach()
                self.at.add_(len(inputs)).remainder_(64)
            return inputs + (inputs @ self.queue.T / 6).softmax(1) @ self.queue

    return dense(Bank(), nn.Tanh())


@network(ANY)
def sparse_buffer() -> nn.Module:
    """A matrix of neighbours as a sparse tensor."""

    class Neighbours(nn.Module):
        matrix: Tensor

        def __init__(self) -> None:
            super().__init__()
            near = torch.eye(32).roll(1, 0) / 2 + torch.eye(32) / 2
            self.register_buffer("matrix", near.to_sparse())

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.sparse.mm(self.matrix, inputs.T).T

    return dense(Neighbours(), nn.ReLU())


@network(ANY)
def extra_state() -> nn.Module:
    """State that is no tensor: `get_extra_state` gives a dictionary of numbers."""

    class Extra(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = 0

        def get_extra_state(self) -> dict[str, int]:
            return {"steps": self.steps}

        def set_extra_state(self, state: Any) -> None:
            self.steps = state["steps"]

        def forward(self, inputs: Tensor) -> Tensor:
            self.steps += self.training
            return torch.tanh(inputs * (1 + self.steps / 50))

    return dense(Extra())


@network(PROVED)
def extra_state_as_a_tensor() -> nn.Module:
    """The same number, its extra state a tensor."""

    class Extra(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = 0

        def get_extra_state(self) -> Tensor:
            return torch.tensor(self.steps)

        def set_extra_state(self, state: Tensor) -> None:
            self.steps = int(state)

        def forward(self, inputs: Tensor) -> Tensor:
            self.steps += self.training
            return torch.tanh(inputs * (1 + self.steps / 50))

    return dense(Extra())


@network(PROVED)
def empty_buffer() -> nn.Module:
    """A saved buffer without a number in it, and one without an axis."""

    class Empty(nn.Module):
        nothing: Tensor
        scale: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("nothing", torch.zeros(0, 3))
            self.register_buffer("scale", torch.tensor(2.0))

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs * self.scale + self.nothing.sum()

    return dense(Empty(), nn.ReLU())
