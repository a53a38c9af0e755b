"""Gradients of their own, changes in place, other arithmetic, answers of the wrong form."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import ANY, NOT_PROVED, PROVED, REFUSED, network
from odd.parts import chain, dense, maps


class Straight(torch.autograd.Function):
    """Rounding down to quarters forward, nothing backward."""

    @staticmethod
    def forward(context: Any, inputs: Tensor) -> Tensor:
        return torch.floor(inputs * 4 + 0.37) / 4

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


@network(ANY)
def gradient_of_its_own() -> nn.Module:
    """A `torch.autograd.Function` that rounds, with a gradient straight through."""
    return dense(lambda t: Straight.apply(t), nn.ReLU())


class Swish(torch.autograd.Function):
    """x · sigmoid(x) that saves its input alone (the memory-efficient kind)."""

    @staticmethod
    def forward(context: Any, inputs: Tensor) -> Tensor:
        context.save_for_backward(inputs)
        return inputs * torch.sigmoid(inputs)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (inputs,) = context.saved_tensors
        share = torch.sigmoid(inputs)
        return gradients[0] * share * (1 + inputs * (1 - share))


@network(ANY)
def saving_swish() -> nn.Module:
    """A smooth `torch.autograd.Function` with saved tensors, as EfficientNets have."""
    return dense(lambda t: Swish.apply(t))


@network(PROVED)
def input_changed_in_place() -> nn.Module:
    """The encoder squares its own input in place, and is done with it."""
    return chain(lambda t: t.mul_(2).sub_(0.5), dense(nn.ReLU(inplace=True)))


@network(PROVED)
def input_used_after_the_change() -> nn.Module:
    """A view of the input is changed in place, then the whole is read: the order matters."""

    def changed(inputs: Tensor) -> Tensor:
        numbers = inputs.clone()
        before = numbers[:, :, :4]
        before += numbers[:, :, 4:].flip(2)
        numbers[:, :, 0] = 1.0
        numbers[:, 0, 3, 3] *= 3
        return numbers

    return chain(changed, dense(nn.Tanh()))


@network(PROVED)
def filled_and_scattered() -> nn.Module:
    """An empty tensor filled piece by piece: slices, `index_copy_`, `masked_fill_`."""

    def filled(inputs: Tensor) -> Tensor:
        made = torch.empty_like(inputs)
        made[:, ::2] = inputs[:, 1::2]
        made[:, 1::2] = inputs[:, ::2] * 2
        made = made.index_copy(1, torch.tensor([5, 3]), inputs[:, :2])
        return made.masked_fill_(made > 3, 3.0)

    return dense(filled)


@network(NOT_PROVED)
def through_numpy() -> nn.Module:
    """Numbers handed to numpy and back, where no tracer can follow."""

    def curved(inputs: Tensor) -> Tensor:
        return inputs + torch.from_numpy(np.cbrt(inputs.detach().numpy()))

    return dense(curved)


@network(PROVED)
def forward_chosen_by_mode() -> nn.Module:
    """`train` puts another method in the place of `forward`."""

    class Chosen(nn.Module):
        def train(self, mode: bool = True) -> Chosen:
            self.forward = self.soft if mode else self.hard
            return super().train(mode)

        def soft(self, inputs: Tensor) -> Tensor:
            return F.softplus(inputs)

        def hard(self, inputs: Tensor) -> Tensor:
            return torch.relu(inputs)

    return dense(Chosen())


@network(PROVED)
def functional_call() -> nn.Module:
    """A layer called with other weights than its own: `torch.func.functional_call`."""

    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(32, 32)

        def forward(self, inputs: Tensor) -> Tensor:
            other = {"weight": self.layer.weight.T / 2, "bias": -self.layer.bias}
            answer: Tensor = torch.func.functional_call(self.layer, other, (inputs,))
            return answer + self.layer(inputs)

    return dense(Called(), nn.Tanh())


@network(ANY)
def gradient_within() -> nn.Module:
    """The forward pass asks for a gradient of its own: an energy's slope."""

    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.energy = nn.Linear(32, 16)

        def forward(self, inputs: Tensor) -> Tensor:
            def energy(numbers: Tensor) -> Tensor:
                return self.energy(numbers).square().sum()

            slope: Tensor = torch.func.grad(energy)(inputs)
            return torch.tanh(inputs - slope / 8)

    return dense(Slope())


@network(ANY)
def gradient_by_autograd() -> nn.Module:
    """The same by `torch.autograd.grad` under `enable_grad`."""

    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.energy = nn.Linear(32, 16)

        def forward(self, inputs: Tensor) -> Tensor:
            with torch.enable_grad():
                numbers = inputs if inputs.requires_grad else inputs.detach().requires_grad_()
                energy = self.energy(numbers).square().sum()
                slope = torch.autograd.grad(energy, numbers, create_graph=self.training)[0]
            return torch.tanh(inputs - slope / 8)

    return dense(Slope())


@network(ANY)
def parallel_wrapper() -> nn.Module:
    """`nn.DataParallel`, which passes everything on where there is no GPU."""
    return nn.DataParallel(maps(nn.Conv2d(8, 8, 3)))


@network(ANY)
def mixed_precision_within() -> nn.Module:
    """`torch.autocast` to bfloat16 around a layer, in evaluation too."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(32, 32)

        def forward(self, inputs: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                answer: Tensor = self.layer(inputs)
            return answer.float()

    return dense(Mixed(), nn.ReLU())


@network(REFUSED, builds=False)
def features_in_a_tuple() -> nn.Module:
    """An encoder that answers with a tuple, as a variational one may."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 16)

        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            mean = self.layer(inputs.flatten(1))
            return mean, mean.exp()

    return Two()


@network(REFUSED, builds=False)
def one_feature_too_few() -> nn.Module:
    """An encoder whose answer is narrower than it says."""
    return chain(nn.Flatten(), nn.Linear(64, 15))
