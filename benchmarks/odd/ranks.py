"""Ranks and ties: what sorts, picks and gathers, where many are equal."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import ANY, EXACT, PROVED, network
from odd.parts import chain, counted, dense, maps, tokens


@network(ANY)
def best_place() -> nn.Module:
    """The place of the brightest pixel, the first of equals."""

    def placed(inputs: Tensor) -> Tensor:
        best = inputs.flatten(1).argmax(1)
        numbers = torch.stack([best // 8, best % 8], 1).float() / 4 - 1
        return torch.cat([numbers, inputs.flatten(1)[:, 2:]], 1)

    return chain(placed, dense(nn.ReLU()))


@network(ANY)
def best_pixels_and_places() -> nn.Module:
    """The eight brightest pixels by `topk`, with their places, where many are equal."""

    def best(inputs: Tensor) -> Tensor:
        values, places = inputs.flatten(1).topk(8)
        return torch.cat([values, places / 32 - 1], 1)

    return chain(best, nn.Linear(16, 16), nn.ReLU())


@network(PROVED)
def best_values_alone() -> nn.Module:
    """The values of `topk`, which ties do not change."""
    return chain(lambda t: t.flatten(1).topk(16).values, nn.Linear(16, 16), nn.ReLU())


@network(ANY)
def gathered_by_rank() -> nn.Module:
    """Rows reordered by their brightness: `argsort`, then `gather`."""

    def ordered(inputs: Tensor) -> Tensor:
        rank = inputs[:, 0].mean(2).argsort(1)
        return inputs[:, 0].gather(1, rank[..., None].expand(-1, 8, 8))[:, None]

    return chain(ordered, dense(nn.ReLU()))


@network(ANY)
def medians_and_quantiles() -> nn.Module:
    """The median of the pixels (the lower of two), a quantile between two, the tenth smallest."""

    def middle(inputs: Tensor) -> Tensor:
        pixels = inputs.flatten(1)
        found = [pixels.median(1).values, pixels.quantile(0.3, 1), pixels.kthvalue(10, 1).values]
        return torch.cat([torch.stack(found, 1), pixels[:, 3:]], 1)

    return chain(middle, dense(nn.ReLU()))


@network(ANY)
def running_extremes() -> nn.Module:
    """`cummax` along the rows and `cumprod` along the columns."""

    def running(inputs: Tensor) -> Tensor:
        return inputs.cummax(3).values + (1 + inputs / 2).cumprod(2) / 8

    return chain(running, dense(nn.ReLU()))


@network(PROVED)
def means_of_equals() -> nn.Module:
    """`amax`, `amin`, `prod` and `any` over rows whose pixels are equal."""
    return chain(
        lambda t: torch.cat(
            [t[:, 0].amax(2), t[:, 0].amin(2), (t[:, 0] / 2 + 1).prod(2), (t[:, 0] > 0).any(2)], 1
        ),
        nn.Linear(32, 16),
    )


@network(ANY)
def buckets() -> nn.Module:
    """Pixels sorted into uneven ranges by `bucketize`, then embedded."""

    class Buckets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("bounds", torch.tensor([-0.9, -0.4, 0.3, 0.8]))
            self.table = nn.Embedding(5, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            found: Tensor = self.table(torch.bucketize(inputs.flatten(1), self.bounds))
            return found.flatten(1)

    return chain(Buckets(), nn.Linear(256, 16))


@network(EXACT)
def bags_of_words() -> nn.Module:
    """`nn.EmbeddingBag` over the bytes of each row."""

    class Bags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag = nn.EmbeddingBag(256, 16, mode="sum")

        def forward(self, inputs: Tensor) -> Tensor:
            answer: Tensor = self.bag(counted(inputs).flatten(1)) / 8
            return answer

    return Bags()


@network(PROVED)
def soft_then_hard() -> nn.Module:
    """Gumbel's softmax without its noise in evaluation: one-hot of the best of four."""

    def hard(inputs: Tensor) -> Tensor:
        soft = inputs.unflatten(1, (8, 4)).softmax(2)
        best = F.one_hot(soft.argmax(2), 4).to(soft.dtype)
        return (soft + (best - soft).detach()).flatten(1)

    return dense(hard)


@network(PROVED)
def masks_as_numbers() -> nn.Module:
    """Comparisons, `logical_xor`, `isclose`-like bounds, booleans multiplied and added."""

    def compared(inputs: Tensor) -> Tensor:
        left, right = inputs > 0.1, inputs.roll(1, 1) > 0.1
        return inputs * (left ^ right) + (left & ~right).float() + (inputs.abs() <= 2).int()

    return dense(compared)


@network(PROVED)
def morphology() -> nn.Module:
    """Dilation and erosion by a trained element: the largest of sums."""

    class Dilated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.element = nn.Parameter(torch.zeros(8, 1, 9, 1))

        def forward(self, inputs: Tensor) -> Tensor:
            patches = F.unfold(inputs, 3, padding=1)[:, None]
            grown = (patches + self.element[None, :, 0]).amax(2)
            return grown.unflatten(2, (8, 8))

    return chain(Dilated(), maps(channels=8)[2:])


@network(ANY)
def attention_to_one() -> nn.Module:
    """Hard attention: each token takes the one that is most like it."""

    def hard(inputs: Tensor) -> Tensor:
        best = (inputs @ inputs.mT - 100 * torch.eye(8)).argmax(2)
        return inputs + inputs.gather(1, best[..., None].expand(-1, -1, 16))

    return tokens(hard)


@network(ANY)
def pooled_with_places() -> nn.Module:
    """`max_pool2d` with indices, undone by `max_unpool2d`."""

    def undone(inputs: Tensor) -> Tensor:
        pooled, places = F.max_pool2d(inputs, 2, return_indices=True)
        return F.max_unpool2d(pooled, places, 2)

    return maps(undone)
