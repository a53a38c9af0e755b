"""Known networks over slots, sets, graphs and clusters, made tiny."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import ANY, NOT_PROVED, PROVED, network
from odd.parts import Rows, chain


class Slots(nn.Module):
    """Slot attention: three slots compete for the rows, updated by a GRU cell."""

    def __init__(self, *, drawn: bool) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(3, 16))
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.update = nn.GRUCell(16, 16)
        self.drawn = drawn

    def forward(self, inputs: Tensor) -> Tensor:
        slots = self.start.expand(len(inputs), 3, 16)
        if self.drawn:
            slots = slots + torch.randn(len(inputs), 3, 16)
        key, value = self.key(inputs), self.value(inputs)
        for _ in range(2):
            shares = (self.query(slots) @ key.mT / 4).softmax(1) + 1e-8
            read = shares / shares.sum(2, keepdim=True) @ value
            slots = self.update(read.flatten(0, 1), slots.flatten(0, 1)).unflatten(0, (-1, 3))
        return slots.amax(1)


@network(PROVED)
def slots() -> nn.Module:
    """Slot attention from trained slots."""
    return chain(Rows(), Slots(drawn=False))


@network(NOT_PROVED)
def drawn_slots() -> nn.Module:
    """Slot attention as it was published: slots drawn anew for each picture."""
    return chain(Rows(), Slots(drawn=True))


@network(PROVED)
def set_of_points() -> nn.Module:
    """PointNet: pixels as points with their places, a shared layer, the largest of each."""

    class Points(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            line = torch.linspace(-1, 1, 8)
            self.register_buffer("places", torch.cartesian_prod(line, line).T[None])
            self.layers = nn.Sequential(
                nn.Conv1d(3, 24, 1), nn.BatchNorm1d(24), nn.ReLU(), nn.Conv1d(24, 16, 1)
            )

        def forward(self, inputs: Tensor) -> Tensor:
            places = self.places.repeat(inputs.shape[0], 1, 1)
            answer: Tensor = self.layers(torch.cat([inputs.flatten(2), places], 1))
            return answer.max(-1)[0]

    return Points()


@network(PROVED)
def graph_of_pixels() -> nn.Module:
    """A graph convolution over pixels and their neighbours, its adjacency a buffer."""

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            at = torch.cartesian_prod(torch.arange(8), torch.arange(8)).float()
            near = (torch.cdist(at, at, p=1) <= 1).float()
            root = near.sum(1).rsqrt()
            self.register_buffer("adjacency", root[:, None] * near * root)
            self.first, self.second = nn.Linear(1, 12), nn.Linear(12, 16)

        def forward(self, inputs: Tensor) -> Tensor:
            nodes = torch.relu(self.adjacency @ self.first(inputs.flatten(2).mT))
            return torch.relu(self.adjacency @ self.second(nodes)).mean(1)

    return Graph()


@network(ANY)
def graph_of_the_nearest() -> nn.Module:
    """An edge convolution: each row joined with its three nearest, found anew (DGCNN)."""

    class Edges(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(32, 16)

        def forward(self, inputs: Tensor) -> Tensor:
            near = torch.cdist(inputs, inputs).topk(3, largest=False).indices
            index = near.flatten(1)[..., None].expand(-1, -1, 16)
            others = inputs.gather(1, index).unflatten(1, (8, 3))
            own = inputs[:, :, None].expand_as(others)
            return torch.relu(self.layer(torch.cat([own, others - own], 3))).amax(2)

    return chain(Rows(), Edges(), lambda t: t.mean(1))


@network(PROVED)
def clusters_of_descriptors() -> nn.Module:
    """NetVLAD: residues to trained centres, softly assigned, normalized twice."""

    class Vlad(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centres = nn.Parameter(torch.randn(4, 16))
            self.assign = nn.Linear(16, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            shares = self.assign(inputs).softmax(2)
            residues = inputs[:, :, None] - self.centres
            summed = torch.einsum("ntk,ntkc->nkc", shares, residues)
            return F.normalize(F.normalize(summed, dim=2).flatten(1), dim=1) * 4

    return chain(Rows(), Vlad(), nn.Linear(64, 16))


@network(PROVED)
def associative_memory() -> nn.Module:
    """A modern Hopfield layer: three steps of retrieval from trained patterns."""

    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patterns = nn.Parameter(torch.randn(24, 16))

        def forward(self, inputs: Tensor) -> Tensor:
            state = inputs
            for _ in range(3):
                state = (2.0 * state @ self.patterns.T).softmax(-1) @ self.patterns
            return state

    return chain(nn.Flatten(), nn.Linear(64, 16), Memory())
