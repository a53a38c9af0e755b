"""What odd networks are put together from: the plain layers around what is odd in them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]
Middle = nn.Module | Function


class Op(nn.Module):
    """A function of one tensor as a module."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(inputs)


def chain(*parts: Middle) -> nn.Sequential:
    """Put modules and functions behind each other."""
    return nn.Sequential(*(p if isinstance(p, nn.Module) else Op(p) for p in parts))


def dense(*middle: Middle, width: int = 32, out: int | None = None) -> nn.Sequential:
    """64 pixels -> `width` numbers -> what is odd, which leaves `out` of them -> 16 features."""
    return chain(
        nn.Flatten(), nn.Linear(64, width), *middle, nn.Linear(out or width, 16), nn.ReLU()
    )


def maps(*middle: Middle, channels: int = 8, out: int | None = None) -> nn.Sequential:
    """Picture -> maps, N x channels x 8 x 8 -> what is odd -> their means and a layer: 16."""
    return chain(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.ReLU(),
        *middle,
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * (out or channels), 16),
        nn.ReLU(),
    )


class Rows(nn.Module):
    """Rows of a picture as tokens: N x 1 x 8 x 8 -> N x 8 x 16, with a position each."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(torch.randn(8, width) / 4)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens: Tensor = self.embed(inputs[:, 0]) + self.position
        return tokens


def tokens(*middle: Middle) -> nn.Sequential:
    """Rows as tokens -> what is odd, N x tokens x 16 -> their mean and largest: 16 features."""
    return chain(Rows(), *middle, lambda t: t.mean(1) + t.amax(1))


class Residual(nn.Module):
    """A layer whose input is added to what it answers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = inputs + self.layer(inputs)
        return answer


def unit(before: int, after: int, size: int = 3, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU: the brick that most of these are built of."""
    layer = nn.Conv2d(before, after, size, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU())


def top(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 16))


class Block(nn.Module):
    """A pre-norm transformer block of 16 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(2))
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, inputs: Tensor) -> Tensor:
        normed = self.norms[0](inputs)
        inputs = inputs + self.attend(normed, normed, normed, need_weights=False)[0]
        answer: Tensor = inputs + self.layers(self.norms[1](inputs))
        return answer


class Attend(nn.Module):
    """One head over the tokens, N x T x 16; `weights` turns scores, N x T x T, into shares."""

    def __init__(self, weights: Function = lambda scores: scores.softmax(-1)) -> None:
        super().__init__()
        self.project = nn.Linear(16, 48)
        self.weights = weights

    def forward(self, inputs: Tensor) -> Tensor:
        query, key, value = self.project(inputs).chunk(3, -1)
        return inputs + self.weights(query @ key.transpose(1, 2) / 4) @ value


def upper(size: int = 8) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).triu(1)


def counted(inputs: Tensor) -> Tensor:
    """Preprocessed pixels -> their bytes again, int64 0..255."""
    return ((inputs + 1) * 127.5).round().long()
