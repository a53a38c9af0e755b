"""Heads, which see features alone: distances, margins, ties between classes, batches again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import NOT_PROVED, PROVED, network
from odd.parts import chain, dense


class Prototypes(nn.Module):
    """A trained vector for each class; `measure` compares it with the features."""

    def __init__(self, features: int, classes: int, measure: Callable[..., Tensor]) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(classes, features))
        self.scale = nn.Parameter(torch.tensor(8.0))
        self.measure = measure

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * self.measure(inputs, self.vectors)


def cosines(inputs: Tensor, vectors: Tensor) -> Tensor:
    return F.linear(F.normalize(inputs), F.normalize(vectors))


def distances(inputs: Tensor, vectors: Tensor) -> Tensor:
    return -(inputs[:, None] - vectors).square().mean(2)


@network(PROVED, head=lambda features, classes: Prototypes(features, classes, cosines))
def cosine_head() -> nn.Module:
    """Scaled cosines between features and a vector a class (ArcFace without its margin)."""
    return dense(nn.Tanh())


@network(PROVED, head=lambda features, classes: Prototypes(features, classes, distances))
def prototype_head() -> nn.Module:
    """Squared distances to a prototype a class."""
    return dense(nn.Tanh())


@network(PROVED, head=lambda features, classes: nn.Sequential(nn.Linear(features, classes),
                                                              nn.LogSoftmax(1)))  # fmt: skip
def logarithms_of_shares() -> nn.Module:
    """A head that answers with a log-softmax: the loss takes another."""
    return dense(nn.ReLU())


@network(PROVED, head=lambda features, classes: nn.Sequential(nn.Linear(features, classes),
                                                              nn.Softmax(1)))  # fmt: skip
def shares_for_logits() -> nn.Module:
    """A head that answers with a softmax: probabilities lie close together."""
    return dense(nn.ReLU())


class Squared(nn.Module):
    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Bilinear(features, features, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.layer(inputs, inputs)
        return answer


@network(PROVED, head=Squared)
def bilinear_head() -> nn.Module:
    """`nn.Bilinear` of the features with themselves."""
    return dense(nn.Tanh())


class Committee(nn.Module):
    """Five small heads whose probabilities are averaged: logits are logarithms."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(features, classes) for _ in range(5))

    def forward(self, inputs: Tensor) -> Tensor:
        shares = torch.stack([head(inputs).softmax(1) for head in self.heads]).mean(0)
        return (shares + 1e-9).log()


@network(PROVED, head=Committee)
def committee() -> nn.Module:
    """The mean of five heads' probabilities, as logarithms with 1e-9 beneath."""
    return dense(nn.ReLU())


class Twins(nn.Module):
    """Pairs of classes share a weight: their logits are equal to the bit."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(features, classes // 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs).repeat_interleave(2, 1)  # type: ignore[no-any-return]


@network(PROVED, head=Twins)
def classes_in_pairs() -> nn.Module:
    """Every best class ties with its neighbour, everywhere."""
    return dense(nn.ReLU())


class Ranked(nn.Module):
    """Logits less their mean over the batch."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(features, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.layer(inputs)
        return logits - logits.mean(0)  # type: ignore[no-any-return]


@network(NOT_PROVED, head=Ranked)
def calibrated_by_the_batch() -> nn.Module:
    """Logits less the batch's mean, as transductive evaluation has it."""
    return dense(nn.ReLU())


class Doubtful(nn.Module):
    """Monte Carlo dropout: the mean of four passes with dropout, in evaluation too."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(features, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        passes = [self.layer(F.dropout(inputs, 0.3, True)) for _ in range(4)]
        return torch.stack(passes).mean(0)


@network(NOT_PROVED, head=Doubtful)
def dropout_as_doubt() -> nn.Module:
    """A head that averages passes with dropout, in evaluation too."""
    return chain(dense(nn.ReLU()))
