"""Known networks that route, gate, join or sample, made tiny."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import ANY, EXACT, NOT_PROVED, PROVED, network
from odd.parts import chain, top, unit


@network(EXACT)
def unet() -> nn.Module:
    """U-Net's way down and up again, with maps joined across."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = unit(1, 6), unit(6, 8)
            self.up = nn.ConvTranspose2d(8, 6, 2, 2)
            self.last = unit(12, 8)

        def forward(self, inputs: Tensor) -> Tensor:
            high = self.first(inputs)
            low = self.second(F.max_pool2d(high, 2))
            answer: Tensor = self.last(torch.cat([high, self.up(low)], 1))
            return answer

    return chain(Both(), top(8))


@network(PROVED)
def pyramid() -> nn.Module:
    """A feature pyramid: levels enlarged to the size of the one above and added."""

    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.downs = nn.ModuleList([unit(8, 8), unit(8, 8)])
            self.sides = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(3))

        def forward(self, inputs: Tensor) -> Tensor:
            levels = [inputs]
            for down in self.downs:
                levels.append(down(F.max_pool2d(levels[-1], 2)))
            answer: Tensor = self.sides[-1](levels[-1])
            for level, side in zip(levels[-2::-1], self.sides, strict=False):
                answer = side(level) + F.interpolate(answer, size=level.shape[-2:])
            return answer

    return chain(unit(1, 8), Levels(), top(8))


@network(EXACT)
def reversible() -> nn.Module:
    """A reversible block: two halves that add functions of each other, joined by `hstack`."""

    class Coupled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = unit(4, 4), unit(4, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            first, second = inputs.tensor_split(2, 1)
            first = first + self.left(second)
            return torch.hstack([first, second + self.right(first)])

    return chain(unit(1, 8), Coupled(), Coupled(), top(8))


@network(PROVED)
def highway() -> nn.Module:
    """Highway layers: a gate carries the input past each of four."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.gate = nn.Linear(64, 64), nn.Linear(64, 64)
            nn.init.constant_(self.gate.bias, -2.0)

        def forward(self, inputs: Tensor) -> Tensor:
            share = torch.sigmoid(self.gate(inputs))
            return torch.lerp(inputs, torch.relu(self.layer(inputs)), share)

    return chain(nn.Flatten(), *(Gated() for _ in range(4)), nn.Linear(64, 16))


@network(PROVED)
def attention_of_two_sorts() -> nn.Module:
    """CBAM: channels weighed by means and maxima, then places by the same."""

    class Weighed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.channels = chain(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8))
            self.places = nn.Conv2d(2, 1, 5, padding=2)

        def forward(self, inputs: Tensor) -> Tensor:
            both = inputs.mean((2, 3)), inputs.amax((2, 3))
            gate = torch.sigmoid(sum(map(self.channels, both), torch.zeros(8)))
            inputs = inputs * gate[..., None, None]
            both = inputs.mean(1, keepdim=True), inputs.max(1, keepdim=True).values
            return inputs * torch.sigmoid(self.places(torch.cat(both, 1)))

    return chain(unit(1, 8), Weighed(), top(8))


@network(PROVED)
def capsules() -> nn.Module:
    """Capsules: vectors squashed by their length, three rounds of routing by agreement."""

    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.votes = nn.Parameter(torch.randn(16, 4, 8, 4) / 4)

        def squash(self, vectors: Tensor) -> Tensor:
            power = vectors.square().sum(-1, keepdim=True)
            return power / (1 + power) * vectors / (power + 1e-8).sqrt()

        def forward(self, inputs: Tensor) -> Tensor:
            capsules = self.squash(inputs.flatten(2).transpose(1, 2))
            votes = torch.einsum("nic,iocd->niod", capsules, self.votes.transpose(1, 2))
            scores = votes.new_zeros(votes.shape[:3])
            for _ in range(3):
                shares = scores.softmax(2)[..., None]
                answer = self.squash((shares * votes).sum(1))
                scores = scores + (votes * answer[:, None]).sum(-1)
            return answer.flatten(1)

    return chain(nn.Conv2d(1, 4, 2, 2), nn.ReLU(), Routed(), nn.Linear(32, 16))


@network(PROVED)
def wavenet() -> nn.Module:
    """WaveNet: causal convolutions of growing dilation over the pixels, gated, skips summed."""

    class Wave(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start = nn.Conv1d(1, 8, 1)
            self.layers = nn.ModuleList(nn.Conv1d(8, 16, 2, dilation=2**n) for n in range(5))
            self.skips = nn.ModuleList(nn.Conv1d(8, 16, 1) for _ in range(5))

        def forward(self, inputs: Tensor) -> Tensor:
            line = self.start(inputs.flatten(2))
            summed: Tensor = torch.zeros(())
            for number, (layer, skip) in enumerate(zip(self.layers, self.skips, strict=True)):
                left, right = layer(F.pad(line, (2**number, 0))).chunk(2, 1)
                gated = torch.tanh(left) * torch.sigmoid(right)
                summed, line = summed + skip(gated), line + gated
            return torch.relu(summed).mean(2)

    return Wave()


@network(ANY)
def decision_forest() -> nn.Module:
    """A neural decision tree: sigmoid branches, probabilities of 16 leaves as products."""

    class Tree(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branches = nn.Linear(64, 15)

        def forward(self, inputs: Tensor) -> Tensor:
            right = torch.sigmoid(self.branches(inputs.flatten(1)))
            reached = right.new_ones(len(inputs), 1)
            for depth in range(4):
                here = right[:, 2**depth - 1 : 2 ** (depth + 1) - 1]
                pair = torch.stack([reached * (1 - here), reached * here], 2)
                reached = pair.reshape(len(inputs), -1)
            return 8 * reached

    return Tree()


@network(PROVED)
def splines() -> nn.Module:
    """Kolmogorov-Arnold: a trained piecewise line on each edge, in place of weights."""

    class Splines(nn.Module):
        knots: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("knots", torch.linspace(-1, 1, 6))
            self.heights = nn.Parameter(torch.randn(16, 64, 6) / 16)

        def forward(self, inputs: Tensor) -> Tensor:
            tents = torch.relu(1 - 2.5 * (inputs.flatten(1)[..., None] - self.knots).abs())
            return torch.einsum("nik,oik->no", tents, self.heights)

    return Splines()


@network(NOT_PROVED)
def variational() -> nn.Module:
    """A variational encoder that goes on sampling in evaluation."""

    class Sampled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.spread = nn.Linear(64, 16), nn.Linear(64, 16)

        def forward(self, inputs: Tensor) -> Tensor:
            pixels = inputs.flatten(1)
            mean, spread = self.mean(pixels), F.softplus(self.spread(pixels))
            sample: Tensor = torch.distributions.Normal(mean, spread + 1e-3).rsample()
            return sample

    return Sampled()
