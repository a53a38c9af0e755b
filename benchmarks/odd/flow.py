"""Control flow: on data, on modes, on who is asking; loops and conditions that may be traced."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import ANY, NOT_PROVED, PROVED, REFUSED, network
from odd.parts import chain, dense, maps


@network(REFUSED)
def branch_on_the_mean() -> nn.Module:
    """`if x.mean() > 0`: a branch on the data of the whole batch."""
    return dense(lambda t: torch.relu(t) if t.mean() > 0 else torch.tanh(t))


@network(REFUSED)
def number_of_the_data() -> nn.Module:
    """`.item()` of the largest number, used as a Python float in a comparison."""

    def capped(inputs: Tensor) -> Tensor:
        largest = inputs.detach().abs().max().item()
        return inputs / largest if largest > 1 else inputs

    return dense(capped)


@network(NOT_PROVED)
def number_without_a_branch() -> nn.Module:
    """`.item()` of the batch's mean, added."""
    return dense(lambda t: torch.tanh(t + 4 * t.detach().mean().item()))


@network(PROVED)
def chosen_by_where() -> nn.Module:
    """Both branches computed, chosen for each picture by `where`."""

    def chosen(inputs: Tensor) -> Tensor:
        bright = inputs.mean(1, keepdim=True) > 0
        return torch.where(bright, torch.relu(inputs), torch.tanh(inputs))

    return dense(chosen)


@network(ANY)
def condition_as_an_operator() -> nn.Module:
    """`torch.cond` on the mean of the whole batch: the file holds an `If`."""

    def chosen(inputs: Tensor) -> Tensor:
        bright = inputs.mean() > 0
        answer: Tensor = torch.cond(
            bright, lambda t: torch.relu(t) * 2, lambda t: torch.tanh(t) * 2, (inputs,)
        )
        return answer

    class Chosen(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return torch.tanh(inputs) if self.training else chosen(inputs)

    return dense(Chosen())


@network(REFUSED)
def confident_exit() -> nn.Module:
    """An early exit where every picture of the batch is sure enough."""

    class Exit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

        def forward(self, inputs: Tensor) -> Tensor:
            for layer in self.layers:
                inputs = torch.relu(layer(inputs)) + inputs
                if bool((inputs.softmax(1).amax(1) > 0.9).all()):
                    break
            return inputs

    return dense(Exit())


@network(PROVED)
def depth_by_the_shape() -> nn.Module:
    """A `while` that halves the picture until it is one pixel, by its shape alone."""

    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, inputs: Tensor) -> Tensor:
            while inputs.shape[-1] > 1:
                inputs = F.avg_pool2d(torch.relu(self.layer(inputs)) + inputs, 2)
            return inputs

    return chain(nn.Conv2d(1, 8, 3, padding=1), Halved(), nn.Flatten(), nn.Linear(8, 16))


@network(PROVED)
def asserted_shapes() -> nn.Module:
    """Assertions on shapes and types, and a `try` around what never fails."""

    def checked(inputs: Tensor) -> Tensor:
        assert tuple(inputs.shape[1:]) == (32,), "32 numbers"
        if inputs.dtype != torch.float32:
            raise TypeError("float32 alone")
        try:
            return torch.relu(inputs)
        except RuntimeError:
            return inputs

    return dense(checked)


@network(ANY)
def asserted_values() -> nn.Module:
    """An assertion on the data: everything finite."""

    def checked(inputs: Tensor) -> Tensor:
        assert bool(torch.isfinite(inputs).all()), "not finite"
        return torch.relu(inputs)

    return dense(checked)


@network(NOT_PROVED)
def other_when_exported() -> nn.Module:
    """A branch on `torch.compiler.is_exporting()`: the file is of another network."""
    return dense(lambda t: t.flip(1) if torch.compiler.is_exporting() else t, nn.ReLU())


@network(NOT_PROVED)
def other_for_onnx() -> nn.Module:
    """A branch on `torch.onnx.is_in_onnx_export()`, as vendors' workarounds have it."""
    return dense(lambda t: t * 0.9 if torch.onnx.is_in_onnx_export() else t, nn.ReLU())


@network(ANY)
def other_without_gradients() -> nn.Module:
    """A branch on `torch.is_grad_enabled()`, which validation, proof and export may differ in."""
    return dense(lambda t: torch.relu(t) if torch.is_grad_enabled() else t.tanh())


@network(PROVED)
def other_in_training() -> nn.Module:
    """Quite another function in training than in evaluation."""

    class Other(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return F.softplus(inputs) if self.training else torch.relu(inputs)

    return dense(Other())


@network(NOT_PROVED)
def alternating_calls() -> nn.Module:
    """Every second call is answered otherwise, counted by a Python number."""

    class Alternating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls += 1
            return torch.tanh(inputs if self.calls % 2 else -inputs)

    return dense(Alternating())


@network(PROVED)
def layers_by_name() -> nn.Module:
    """Layers chosen by `getattr` and a dictionary of names, in a loop over a list."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.choices = nn.ModuleDict({"relu": nn.ReLU(), "gelu": nn.GELU(), "elu": nn.ELU()})
            for number in range(3):
                setattr(self, f"layer{number}", nn.Linear(32, 32))

        def forward(self, inputs: Tensor) -> Tensor:
            for number, name in enumerate(self.choices):
                inputs = self.choices[name](getattr(self, f"layer{number}")(inputs))
            return inputs

    return dense(Named())


@network(PROVED)
def one_expert_of_four() -> nn.Module:
    """A mixture of experts, all computed; each picture takes the best one's answer."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(32, 4)
            self.experts = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))

        def forward(self, inputs: Tensor) -> Tensor:
            share, best = self.gate(inputs).softmax(1).max(1)
            answers = torch.stack([expert(inputs) for expert in self.experts], 1)
            taken = answers.gather(1, best[:, None, None].expand(-1, 1, 32))[:, 0]
            return taken * share[:, None]

    return dense(Experts(), nn.ReLU())


@network(ANY)
def pictures_sent_to_experts() -> nn.Module:
    """The same, each expert given its own pictures alone: `nonzero` and `index_add`."""

    class Sent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(32, 3)
            self.experts = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

        def forward(self, inputs: Tensor) -> Tensor:
            share, best = self.gate(inputs).softmax(1).max(1)
            answer = torch.zeros_like(inputs)
            for number, expert in enumerate(self.experts):
                own = (best == number).nonzero()[:, 0]
                answer = answer.index_add(0, own, expert(inputs[own]) * share[own, None])
            return answer

    return dense(Sent(), nn.ReLU())


@network(PROVED)
def dropped_paths() -> nn.Module:
    """Stochastic depth: whole branches dropped for some pictures, in training alone."""

    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, inputs: Tensor) -> Tensor:
            branch: Tensor = torch.relu(self.branch(inputs))
            if self.training:
                kept = torch.rand(len(inputs), 1, 1, 1) < 0.8
                branch = branch * kept / 0.8
            return inputs + branch

    return maps(Dropped(), Dropped())
