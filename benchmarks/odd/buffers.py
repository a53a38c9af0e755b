"""Buffers and attributes: constants and statistics, saved and unsaved."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from odd.network import NOT_PROVED, PROVED, network
from odd.parts import chain, dense, maps


class Statistics(nn.Module):
    """A batch norm of one's own: 32 numbers minus a running mean, over a running deviation."""

    mean: Tensor
    variance: Tensor

    def __init__(self, *, persistent: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(32), persistent=persistent)
        self.register_buffer("variance", torch.ones(32), persistent=persistent)

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return (inputs - self.mean) / (self.variance + 1e-3).sqrt()
        self.mean.lerp_(inputs.detach().mean(0), 0.2)
        self.variance.lerp_(inputs.detach().var(0), 0.2)
        return (inputs - inputs.mean(0)) / (inputs.var(0) + 1e-3).sqrt()


@network(PROVED)
def saved_statistics() -> nn.Module:
    """Running statistics in saved buffers, changed in place in training."""
    return dense(Statistics(persistent=True), nn.ReLU())


@network(NOT_PROVED)
def unsaved_statistics() -> nn.Module:
    """The same, `persistent=False`: a fresh build has those of the beginning."""
    return dense(Statistics(persistent=False), nn.ReLU())


@network(NOT_PROVED)
def statistics_in_an_attribute() -> nn.Module:
    """A running mean in a plain attribute, which is no buffer at all."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = torch.zeros(32)

        def forward(self, inputs: Tensor) -> Tensor:
            if self.training:
                self.mean = 0.8 * self.mean + 0.2 * inputs.detach().mean(0)
            return 4 * (inputs - self.mean)

    return dense(Plain(), nn.Tanh())


@network(NOT_PROVED)
def temperature_by_steps() -> nn.Module:
    """A temperature that falls with every training step, a Python number."""

    class Cooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.temperature = 4.0

        def forward(self, inputs: Tensor) -> Tensor:
            if self.training:
                self.temperature *= 0.98
            return (inputs / self.temperature).softmax(1) * 8

    return dense(Cooling())


@network(PROVED)
def unsaved_constants() -> nn.Module:
    """A table of cosines that is not saved, and is the same in every build."""

    class Cosines(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            at = torch.arange(32.0)
            self.register_buffer("table", torch.cos(torch.outer(at + 0.5, at) / 10), False)

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs @ self.table / 4

    return dense(Cosines(), nn.ReLU())


def drawn(*, persistent: bool) -> nn.Module:
    class Drawn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("matrix", torch.randn(32, 32) / 4, persistent=persistent)

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.tanh(inputs @ self.matrix)

    return dense(Drawn())


@network(PROVED)
def saved_random_matrix() -> nn.Module:
    """A random matrix drawn at the beginning and saved as a buffer."""
    return drawn(persistent=True)


@network(NOT_PROVED)
def unsaved_random_matrix() -> nn.Module:
    """The same, not saved: each build draws its own."""
    return drawn(persistent=False)


@network(PROVED)
def permuted_pixels() -> nn.Module:
    """A saved random order of the pixels: int64 in the state."""

    class Permuted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("order", torch.randperm(64))

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.flatten(1)[:, self.order]

    return chain(Permuted(), nn.Unflatten(1, (1, 8, 8)), maps(nn.MaxPool2d(2)))


@network(PROVED)
def boolean_buffer() -> nn.Module:
    """A saved mask of booleans, and a buffer that is None."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.arange(32) % 3 > 0)
            self.register_buffer("bias", None)

        def forward(self, inputs: Tensor) -> Tensor:
            kept = torch.where(self.mask, inputs, 0.0)
            return kept if self.bias is None else kept + self.bias

    return dense(Masked(), nn.ReLU())


@network(PROVED)
def replaced_buffer() -> nn.Module:
    """A saved buffer that training replaces by another tensor, not in place."""

    class Replaced(nn.Module):
        mean: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(32, dtype=torch.float64))

        def forward(self, inputs: Tensor) -> Tensor:
            if self.training:
                self.mean = 0.8 * self.mean + 0.2 * inputs.detach().double().mean(0)
            return inputs - self.mean.float()

    return dense(Replaced(), nn.Tanh())
