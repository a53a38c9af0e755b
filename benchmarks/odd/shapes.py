"""Shapes: what is made of a batch's size, sizes that depend on the data, orders of the axes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import ANY, NOT_PROVED, PROVED, REFUSED, network
from odd.parts import chain, dense, maps, tokens


@network(PROVED)
def viewed_by_size() -> nn.Module:
    """LeNet's `view(x.size(0), -1)` behind a convolution, the tutorial's way."""

    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 6, 3, padding=1)
            self.second = nn.Conv2d(6, 8, 3, padding=1)
            self.third = nn.Linear(32, 16)

        def forward(self, inputs: Tensor) -> Tensor:
            maps = F.max_pool2d(torch.relu(self.first(inputs)), 2)
            maps = F.max_pool2d(torch.relu(self.second(maps)), 2)
            answer: Tensor = self.third(maps.view(maps.size(0), -1))
            return answer

    return LeNet()


@network(PROVED)
def permuted_and_contiguous() -> nn.Module:
    """Channels moved last, made contiguous, viewed as rows of numbers."""
    move = nn.Conv2d(1, 8, 3, padding=1), lambda t: t.permute(0, 2, 3, 1).contiguous()
    return chain(*move, lambda t: t.view(t.size(0), -1), nn.Linear(512, 16), nn.Tanh())


@network(ANY)
def strides_taken_for_granted() -> nn.Module:
    """`as_strided` over the maps, which trusts that they lie contiguous in memory."""

    def every_other(inputs: Tensor) -> Tensor:
        return inputs.as_strided((inputs.shape[0], 8, 4, 4), (512, 64, 16, 2))

    return maps(every_other)


@network(ANY)
def contiguous_or_not() -> nn.Module:
    """A branch on `is_contiguous()`: another answer where channels lie innermost."""
    return maps(lambda t: t if t.is_contiguous() else t * 2)


@network(PROVED)
def channels_last_inside() -> nn.Module:
    """Maps put into the memory format channels-last by hand, and back."""
    return maps(
        lambda t: t.contiguous(memory_format=torch.channels_last),
        nn.Conv2d(8, 8, 3, padding=1),
        lambda t: t.contiguous(memory_format=torch.contiguous_format).view(len(t), 8, 8, 8),
    )


@network(NOT_PROVED)
def batch_taken_for_channels() -> nn.Module:
    """The first two axes changed places before a pool over the second: neighbours mix."""

    def mixed(inputs: Tensor) -> Tensor:
        return inputs - F.avg_pool1d(inputs.T[None], 3, 1, 1)[0].T * 3

    return dense(mixed, nn.ReLU())


@network(REFUSED, builds=False)
def one_batch_size() -> nn.Module:
    """A view to the batch size of training, 32: no other goes in."""
    return chain(lambda t: t.view(32, 64), nn.Linear(64, 16))


@network(ANY)
def batch_size_as_an_integer() -> nn.Module:
    """`int(x.shape[0])` in a view, which a tracer may take for the example's own two."""
    return chain(lambda t: t.reshape(int(t.shape[0]), 8, 8).flatten(1), nn.Linear(64, 16))


@network(REFUSED)
def picture_by_picture() -> nn.Module:
    """A Python loop over the batch, its answers stacked."""

    def each(inputs: Tensor) -> Tensor:
        return torch.stack([torch.tanh(picture) * 2 for picture in inputs])

    return dense(each)


@network(NOT_PROVED)
def squeezed() -> nn.Module:
    """`squeeze()` without an axis: a batch of one loses its own."""
    return dense(lambda t: t[:, :, None].squeeze().softmax(-1) * 4)


@network(NOT_PROVED)
def place_in_the_batch() -> nn.Module:
    """A position each, taken from the batch's axis in place of the tokens'."""

    def placed(inputs: Tensor) -> Tensor:
        at = torch.arange(inputs.shape[0], dtype=inputs.dtype)
        return inputs + torch.sin(at)[:, None] * 4

    return dense(placed, nn.ReLU())


@network(PROVED)
def tokens_folded_into_the_batch() -> nn.Module:
    """Rows joined with the batch for a shared layer, and parted again by sizes."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 2))

        def forward(self, inputs: Tensor) -> Tensor:
            count, channels, height, width = inputs.shape
            rows = self.layer(inputs.reshape(count * channels * height, width))
            return rows.reshape(count, height * channels * 2)

    return Shared()


@network(PROVED)
def batch_size_in_the_sum() -> nn.Module:
    """The batch's size goes in and out of a figure: multiplied by it, and divided."""
    return dense(lambda t: (t * t.shape[0]).tanh() * 0 + t * (t.shape[0] / len(t)), nn.Tanh())


@network(NOT_PROVED)
def scaled_by_the_batch() -> nn.Module:
    """Numbers divided by the root of the batch's size, as a normalizer got wrong."""
    return dense(lambda t: t / t.shape[0] ** 0.5, nn.Tanh())


@network(PROVED)
def coordinates() -> nn.Module:
    """Two maps of coordinates, made by `meshgrid` in forward and expanded (CoordConv)."""

    class Coordinates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(10, 8, 1)

        def forward(self, inputs: Tensor) -> Tensor:
            line = torch.linspace(-1, 1, inputs.shape[-1])
            grid = torch.stack(torch.meshgrid(line, line, indexing="ij"))
            grid = grid.expand(inputs.shape[0], -1, -1, -1)
            answer: Tensor = self.layer(torch.cat([inputs, grid], 1))
            return answer

    return maps(Coordinates())


@network(PROVED)
def padded_three_ways() -> nn.Module:
    """Maps padded by reflection, replication and around the edge, and cut again."""

    def padded(inputs: Tensor) -> Tensor:
        modes = ("reflect", "replicate", "circular")
        return torch.stack([F.pad(inputs, (2, 1, 1, 2), mode)[..., 2:-1, 1:-2] + at
                            * F.pad(inputs, (1, 1, 1, 1), mode)[..., :-2, 2:]
                            for at, mode in enumerate(modes)]).sum(0)  # fmt: skip

    return maps(padded)


@network(PROVED)
def rolled_and_mirrored() -> nn.Module:
    """Maps rolled along both axes, mirrored, turned by a quarter and transposed."""
    return maps(
        lambda t: t.roll((1, -2), (2, 3)) + t.flip(3) + torch.rot90(t, 1, (2, 3)) + t.mT,
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
    )


@network(PROVED)
def pixels_into_channels() -> nn.Module:
    """Space to depth, channels shuffled, depth to space."""
    return maps(
        nn.PixelUnshuffle(2),
        nn.ChannelShuffle(4),
        nn.Conv2d(32, 32, 3, padding=1, groups=4),
        nn.PixelShuffle(2),
    )


@network(REFUSED)
def bright_points_alone() -> nn.Module:
    """A boolean index: as many numbers as there are bright points."""

    def bright(inputs: Tensor) -> Tensor:
        chosen = inputs[inputs > 0]
        return inputs * chosen.mean() if int(chosen.numel()) > 3 else inputs

    return dense(bright)


@network(NOT_PROVED)
def distinct_values() -> nn.Module:
    """`unique` over the whole batch, and how many there are."""
    return dense(lambda t: t * torch.unique((8 * t.detach()).round()).numel() / 32, nn.Tanh())


@network(PROVED)
def mapped_by_vmap() -> nn.Module:
    """`torch.vmap` of a function of one picture over the batch."""

    def one(numbers: Tensor) -> Tensor:
        return torch.outer(numbers[:8], numbers[8:12]).flatten().tanh()

    return dense(torch.vmap(one))


@network(PROVED)
def ragged_pieces() -> nn.Module:
    """Pieces of unequal length, cut by `split`, put through layers of their own, and joined."""

    class Pieces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sizes = (3, 10, 19)
            self.layers = nn.ModuleList(nn.Linear(size, 4) for size in self.sizes)

        def forward(self, inputs: Tensor) -> Tensor:
            parts = zip(self.layers, inputs.split(self.sizes, 1), strict=True)
            return torch.cat([layer(piece) for layer, piece in parts], -1)

    return dense(Pieces(), nn.ReLU(), out=12)


@network(PROVED)
def einsum_of_many() -> nn.Module:
    """`einsum` with an ellipsis and three operands, and a `tensordot`."""

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = (nn.Parameter(torch.randn(16, 4) / 2) for _ in range(2))
            self.core = nn.Parameter(torch.randn(4, 4, 16) / 2)

        def forward(self, inputs: Tensor) -> Tensor:
            pair = torch.einsum("...i,ij,ik->...jk", inputs, self.left, self.right)
            return torch.tensordot(pair, self.core, 2).tanh()

    return tokens(Product())
