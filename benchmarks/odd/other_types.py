"""Weights of other types, in containers, on no device, or where nothing saves them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from odd.network import ANY, NOT_PROVED, PROVED, network
from odd.parts import chain, dense, tokens


@network(ANY)
def complex_weights() -> nn.Module:
    """A complex parameter; what leaves is a modulus."""

    class Phases(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(16, 32, dtype=torch.complex64) / 6)

        def forward(self, inputs: Tensor) -> Tensor:
            turned = inputs.to(torch.complex64) @ self.weight.T
            return torch.view_as_real(turned).square().sum(-1)

    return dense(Phases(), out=16)


@network(PROVED)
def double_weights() -> nn.Module:
    """A layer in float64 between layers in float32."""
    return dense(lambda t: t.double(), nn.Linear(32, 32).double(), nn.Tanh(), lambda t: t.float())


@network(ANY)
def bfloat_weights() -> nn.Module:
    """A layer in bfloat16, which rounds to three digits."""
    return dense(
        lambda t: t.bfloat16(), nn.Linear(32, 32).bfloat16(), lambda t: t.float(), nn.ReLU()
    )


@network(ANY)
def half_weights() -> nn.Module:
    """Numbers through float16 and back, between layers."""
    return dense(lambda t: t.half().float(), nn.ReLU())


@network(PROVED)
def weights_in_containers() -> nn.Module:
    """Parameters in a list and a dictionary, one of them without an axis."""

    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.listed = nn.ParameterList(torch.randn(16, 16) / 4 for _ in range(3))
            self.named = nn.ParameterDict({"scale": torch.tensor(1.5), "gain": torch.ones(16)})

        def forward(self, inputs: Tensor) -> Tensor:
            for weight in self.listed:
                inputs = torch.relu(inputs @ weight * self.named["scale"]) + inputs
            return inputs * self.named["gain"]

    return tokens(Held())


@network(NOT_PROVED)
def layers_in_a_plain_list() -> nn.Module:
    """Layers in a Python list: drawn at random, neither trained nor saved."""

    class Unregistered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(32, 32), nn.Linear(32, 32)]

        def forward(self, inputs: Tensor) -> Tensor:
            for layer in self.layers:
                inputs = torch.tanh(2 * layer(inputs))
            return inputs

    return dense(Unregistered())


@network(NOT_PROVED)
def weight_in_a_closure() -> nn.Module:
    """A random matrix in a function's closure, which no state holds."""
    weight = torch.randn(32, 32)
    return dense(lambda t: torch.tanh(t @ weight))


@network(ANY)
def lazy_layers() -> nn.Module:
    """Lazy layers, whose weights are made at the first forward."""
    return chain(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(),
                 nn.LazyLinear(16))  # fmt: skip


@network(PROVED)
def made_on_meta() -> nn.Module:
    """Layers made without memory (`meta`), given some, and drawn then."""
    with torch.device("meta"):
        inner = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.ReLU())
    inner = inner.to_empty(device="cpu")
    for part in inner[:2]:
        part.reset_parameters()
    return dense(inner)


@network(ANY)
def left_on_meta() -> nn.Module:
    """A layer left without memory; it is never called."""
    with torch.device("meta"):
        unused = nn.Linear(4, 4)

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = unused

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.relu(inputs)

    return dense(Beside())
