"""The batch: what looks at its size or at its other pictures, none of which a file can keep."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import ANY, NOT_PROVED, PROVED, network
from odd.parts import chain, dense, maps


@network(NOT_PROVED)
def norm_of_several_alone() -> nn.Module:
    """`if x.shape[0] > 1: x = bn(x)`: a batch of one goes another way."""

    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(32)
            nn.init.uniform_(self.norm.weight, 1.0, 3.0)

        def forward(self, inputs: Tensor) -> Tensor:
            answer: Tensor = self.norm(inputs) if inputs.shape[0] > 1 else inputs
            return answer

    return dense(Several(), nn.ReLU())


@network(NOT_PROVED)
def even_batches() -> nn.Module:
    """A batch of an even size is negated."""
    return dense(lambda t: t if len(t) % 2 else -t, nn.ReLU())


@network(NOT_PROVED)
def large_batches() -> nn.Module:
    """A batch above 100 takes a cheaper way, without the second layer."""

    class Cheaper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(32, 32)

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs if inputs.shape[0] > 100 else torch.tanh(3 * self.layer(inputs))

    return dense(Cheaper())


@network(NOT_PROVED)
def softmax_over_the_batch() -> nn.Module:
    """Softmax along axis 0: shares of the batch."""
    return dense(lambda t: t.softmax(0) * 8)


@network(NOT_PROVED)
def less_the_batch_mean() -> nn.Module:
    """The mean of the batch is taken away, in evaluation too."""
    return dense(lambda t: t - t.mean(0, keepdim=True), nn.ReLU())


@network(NOT_PROVED)
def over_the_batch_maximum() -> nn.Module:
    """Numbers divided by the largest of the whole batch."""
    return dense(lambda t: 4 * t / t.abs().max())


@network(NOT_PROVED)
def summed_up_over_the_batch() -> nn.Module:
    """`cumsum` along axis 0."""
    return dense(lambda t: t.cumsum(0).tanh())


@network(NOT_PROVED)
def sorted_over_the_batch() -> nn.Module:
    """Each number replaced by its rank among the batch's."""
    return dense(lambda t: t.sort(0).values)


@network(NOT_PROVED)
def neighbour_in_the_batch() -> nn.Module:
    """Each picture is given a little of the one before it (a token shift on the wrong axis)."""
    return dense(lambda t: t + t.roll(1, 0), nn.Tanh())


@network(NOT_PROVED)
def last_of_the_batch() -> nn.Module:
    """The last picture of a batch is answered otherwise."""

    def last(inputs: Tensor) -> Tensor:
        return torch.cat([inputs[:-1], -inputs[-1:]])

    return dense(last, nn.Tanh())


@network(NOT_PROVED)
def deviation_of_the_batch() -> nn.Module:
    """Minibatch discrimination: the batch's mean deviation as one more number (StyleGAN)."""

    def deviation(inputs: Tensor) -> Tensor:
        spread = inputs.std(0, correction=0).mean()
        return torch.cat([inputs, spread.expand(len(inputs), 8) * 4], 1)

    return dense(deviation, nn.Tanh(), out=40)


@network(NOT_PROVED)
def graph_of_the_batch() -> nn.Module:
    """Messages between the pictures of a batch that resemble each other."""

    def messages(inputs: Tensor) -> Tensor:
        alike = (F.normalize(inputs, dim=1) @ F.normalize(inputs, dim=1).T * 8).softmax(1)
        return inputs + alike @ inputs

    return dense(messages, nn.Tanh())


@network(NOT_PROVED)
def dropout_left_on() -> nn.Module:
    """`F.dropout`, whose default is training, in evaluation too."""
    return dense(lambda t: F.dropout(t, 0.3), nn.ReLU())


@network(NOT_PROVED)
def noise_left_on() -> nn.Module:
    """`rand_like` added in evaluation."""
    return dense(lambda t: t + torch.rand_like(t), nn.ReLU())


@network(NOT_PROVED)
def one_of_two_by_chance() -> nn.Module:
    """Python's `random` chooses between two layers: a trace holds the one that came up."""

    class Chance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(32, 32), nn.Linear(32, 32)])

        def forward(self, inputs: Tensor) -> Tensor:
            answer: Tensor = self.layers[random.random() < 0.5](inputs)
            return answer

    return dense(Chance(), nn.Tanh())


@network(NOT_PROVED)
def noise_of_numpy() -> nn.Module:
    """Noise that numpy draws: a trace holds the numbers of one call."""

    def noisy(inputs: Tensor) -> Tensor:
        noise = np.random.default_rng().standard_normal(inputs.shape[1])
        return inputs + torch.from_numpy(noise).float()

    return dense(noisy, nn.Tanh())


@network(NOT_PROVED)
def drawn_by_multinomial() -> nn.Module:
    """One of 32 drawn by its probability, in evaluation too."""

    def drawn(inputs: Tensor) -> Tensor:
        shares = inputs.softmax(1)
        chosen = F.one_hot(torch.multinomial(shares, 1)[:, 0], 32)
        return 4 * (chosen + shares - shares.detach())

    return dense(drawn)


@network(NOT_PROVED)
def random_pool() -> nn.Module:
    """`nn.FractionalMaxPool2d`, which draws its regions in evaluation too."""
    return maps(nn.FractionalMaxPool2d(2, output_size=5))


@network(PROVED)
def noise_in_training_alone() -> nn.Module:
    """Noise, dropout of every sort and dropped layers, in training alone."""

    class Noisy(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            if self.training:
                inputs = inputs + torch.randn_like(inputs) / 4
                inputs = inputs if torch.rand(()) < 0.7 else -inputs.flip(1)
            return torch.relu(F.dropout(inputs, 0.2, self.training))

    return dense(Noisy(), nn.Dropout(0.1), nn.AlphaDropout(0.1), nn.FeatureAlphaDropout(0.1))


@network(ANY)
def noise_of_no_weight() -> nn.Module:
    """Noise times `self.training`: drawn in evaluation too, and counted zero times."""

    class Weighed(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return torch.relu(inputs + torch.randn_like(inputs) * self.training)

    return dense(Weighed())


@network(PROVED)
def empty_batches_apart() -> nn.Module:
    """A branch for a batch of none, which no trace takes."""
    return dense(lambda t: t if len(t) == 0 else torch.relu(t) + t / 4)


@network(ANY)
def parts_of_the_batch() -> nn.Module:
    """The batch cut in pieces of 64 to save memory, and joined again."""
    return chain(
        nn.Flatten(),
        lambda t: torch.cat([piece.tanh() for piece in t.split(64)]),
        nn.Linear(64, 16),
    )


@network(PROVED)
def batch_mean_of_nothing() -> nn.Module:
    """The mean of the batch in training; in evaluation the picture's own."""

    class Centred(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs - inputs.mean(0 if self.training else 1, keepdim=True)

    return dense(Centred(), nn.Tanh())
