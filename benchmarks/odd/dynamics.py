"""Recurrence written by hand: scans, fixed points, spikes, halting, reservoirs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from odd.network import ANY, EXACT, PROVED, REFUSED, network
from odd.parts import dense, tokens


@network(PROVED)
def state_space() -> nn.Module:
    """A diagonal linear recurrence, its decay the exponential of an exponential (S4D)."""

    class Diagonal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decay = nn.Parameter(torch.linspace(-3, 1, 16))
            self.mix = nn.Linear(16, 16)

        def forward(self, inputs: Tensor) -> Tensor:
            keep = torch.exp(-torch.exp(self.decay))
            state, answers = torch.zeros_like(inputs[:, 0]), []
            for token in inputs.unbind(1):
                state = keep * state + (1 - keep) * token
                answers.append(self.mix(state))
            return torch.stack(answers, 1)

    return tokens(Diagonal())


@network(PROVED)
def selective_scan() -> nn.Module:
    """Gates of the input in a scan in closed form: cumulative sums of logarithms (Mamba-like)."""

    class Scan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(16, 16)

        def forward(self, inputs: Tensor) -> Tensor:
            decay = nn.functional.logsigmoid(self.gate(inputs)).cumsum(1)
            return decay.exp() * ((inputs / 8) * (-decay).exp()).cumsum(1)

    return tokens(Scan())


@network(PROVED)
def equilibrium() -> nn.Module:
    """Ten steps towards a fixed point, the input fed in at each (a deep equilibrium)."""

    class Equilibrium(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(32, 32)
            nn.init.orthogonal_(self.inner.weight, 0.5)

        def forward(self, inputs: Tensor) -> Tensor:
            state = torch.zeros_like(inputs)
            for _ in range(10):
                state = torch.tanh(self.inner(state) + inputs)
            return state

    return dense(Equilibrium())


@network(PROVED)
def differential_equation() -> nn.Module:
    """Four Runge-Kutta steps through a field that depends on time."""

    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.field = nn.Linear(33, 32)

        def slope(self, at: float, state: Tensor) -> Tensor:
            time = torch.full_like(state[:, :1], at)
            return torch.tanh(self.field(torch.cat([state, time], 1)))

        def forward(self, inputs: Tensor) -> Tensor:
            state, step = inputs, 0.25
            for number in range(4):
                at = number * step
                first = self.slope(at, state)
                second = self.slope(at + step / 2, state + first * step / 2)
                third = self.slope(at + step / 2, state + second * step / 2)
                fourth = self.slope(at + step, state + third * step)
                state = state + step / 6 * (first + 2 * second + 2 * third + fourth)
            return state

    return dense(Flow())


class Spikes(nn.Module):
    """Leaky neurons that fire above 1 and start anew; a sigmoid's slope in training."""

    def forward(self, inputs: Tensor) -> Tensor:
        potential, fired = torch.zeros_like(inputs), torch.zeros_like(inputs)
        for _ in range(6):
            potential = 0.75 * potential + inputs
            soft = torch.sigmoid(4 * (potential - 1))
            spike = (potential > 1).to(inputs.dtype)
            fired = fired + spike.detach() + soft - soft.detach()
            potential = potential * (1 - spike)
        return fired / 6


@network(ANY)
def spiking_neurons() -> nn.Module:
    """Leaky neurons that fire: steps over a threshold, six of them."""
    return dense(Spikes())


@network(PROVED)
def fixed_reservoir() -> nn.Module:
    """An echo state network: its random weights are drawn once and saved as a buffer."""

    class Reservoir(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("inside", torch.randn(32, 32) / 8)
            self.register_buffer("entrance", torch.randn(8, 32))
            self.read = nn.Linear(32, 16)

        def forward(self, inputs: Tensor) -> Tensor:
            state = inputs.new_zeros(len(inputs), 32)
            for row in inputs[:, 0].unbind(1):
                state = torch.tanh(state @ self.inside + row @ self.entrance)
            answer: Tensor = self.read(state)
            return answer

    return Reservoir()


@network(REFUSED)
def until_it_is_sure() -> nn.Module:
    """Adaptive computation: steps until every picture has halted, counted by the data."""

    class Halting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step, self.halt = nn.Linear(32, 32), nn.Linear(32, 1)

        def forward(self, inputs: Tensor) -> Tensor:
            state, left = inputs, torch.ones(len(inputs), 1)
            while bool((left > 0.1).any()):
                state = torch.tanh(self.step(state)) * left + state * (1 - left)
                left = left * (0.4 + 0.4 * torch.sigmoid(self.halt(state)))
            return state

    return dense(Halting())


@network(EXACT)
def convolution_lstm() -> nn.Module:
    """A convolutional LSTM over four strips of the picture."""

    class Strips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gates = nn.Conv2d(5, 16, 3, padding=1)
            self.read = nn.Linear(64, 16)

        def forward(self, inputs: Tensor) -> Tensor:
            hidden = memory = inputs.new_zeros(len(inputs), 4, 2, 8)
            for strip in inputs.split(2, 2):
                gates = self.gates(torch.cat([strip, hidden], 1)).chunk(4, 1)
                enter, keep, leave = (torch.sigmoid(gate) for gate in gates[:3])
                memory = keep * memory + enter * torch.tanh(gates[3])
                hidden = leave * torch.tanh(memory)
            answer: Tensor = self.read(hidden.flatten(1))
            return answer

    return Strips()
