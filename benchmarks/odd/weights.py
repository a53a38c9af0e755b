"""Weights: tied, pruned, made of others, merged, saved otherwise than they are used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from odd.network import ANY, PROVED, network
from odd.parts import dense, maps


@network(PROVED)
def one_layer_twice() -> nn.Module:
    """The same layer stands in two places of a `Sequential`."""
    shared = nn.Linear(32, 32)
    return dense(shared, nn.Tanh(), shared, nn.Tanh())


@network(PROVED)
def one_weight_in_two_layers() -> nn.Module:
    """Two layers own the same parameter: one name in the state may stand for both."""
    first, second = nn.Linear(32, 32), nn.Linear(32, 32)
    second.weight = first.weight
    return dense(first, nn.ReLU(), second, nn.Tanh())


@network(PROVED)
def tied_and_transposed() -> nn.Module:
    """A code and back by the same weights transposed; the residue joins the code."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.code = nn.Linear(32, 8)
            self.back = nn.Parameter(torch.zeros(32))

        def forward(self, inputs: Tensor) -> Tensor:
            code = torch.relu(self.code(inputs))
            residue = inputs - F.linear(code, self.code.weight.T, self.back)
            return torch.cat([code, residue], 1)

    return dense(Tied(), out=40)


@network(ANY)
def part_of_another_weight() -> nn.Module:
    """A layer's weight is a view of another's: two parameters in one memory."""
    first, second = nn.Linear(32, 32), nn.Linear(32, 16)
    second.weight = nn.Parameter(first.weight.data[:16])
    return dense(first, nn.ReLU(), second, out=16)


@network(PROVED)
def length_and_direction() -> nn.Module:
    """`parametrizations.weight_norm` of a linear layer."""
    return dense(parametrizations.weight_norm(nn.Linear(32, 32)), nn.ReLU())


@network(PROVED)
def length_and_direction_by_hook() -> nn.Module:
    """The older `utils.weight_norm`, a hook that writes the weight before each forward."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return maps(nn.utils.weight_norm(nn.Conv2d(8, 8, 3)), nn.ReLU())


@network(PROVED)
def largest_singular_value() -> nn.Module:
    """`parametrizations.spectral_norm`: power iterations in training alone, vectors saved."""
    return dense(parametrizations.spectral_norm(nn.Linear(32, 32)), nn.ReLU())


@network(PROVED)
def largest_singular_value_by_hook() -> nn.Module:
    """The older `utils.spectral_norm` on a convolution."""
    return maps(nn.utils.spectral_norm(nn.Conv2d(8, 8, 3)), nn.ReLU())


@network(ANY)
def orthogonal_weights() -> nn.Module:
    """`parametrizations.orthogonal`, as products of Householder reflections."""
    layer = nn.Linear(32, 32)
    return dense(parametrizations.orthogonal(layer, orthogonal_map="householder"), nn.ReLU())


@network(ANY)
def orthogonal_by_exponential() -> nn.Module:
    """`parametrizations.orthogonal` by the exponential of a skew matrix."""
    layer = nn.Linear(16, 16)
    return dense(
        parametrizations.orthogonal(layer, orthogonal_map="matrix_exp"), nn.ReLU(), width=16
    )


class Symmetric(nn.Module):
    """The upper half of a matrix, mirrored."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).T


@network(PROVED)
def symmetric_weights() -> nn.Module:
    """A parametrization of one's own: the lower half mirrors the upper."""
    layer = nn.Linear(32, 32)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return dense(layer, nn.ReLU())


@network(PROVED)
def pruned_weights() -> nn.Module:
    """Half of the weights pruned: `weight_orig` and a mask in the state, `weight` in none."""
    layer = nn.Linear(32, 32)
    prune.l1_unstructured(layer, "weight", 0.5)
    return dense(layer, nn.ReLU())


@network(PROVED)
def low_rank_beside_frozen() -> nn.Module:
    """A frozen layer and a trained one of rank 2 beside it (LoRA)."""

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Linear(32, 32).requires_grad_(False)
            self.down, self.up = nn.Linear(32, 2, bias=False), nn.Linear(2, 32, bias=False)

        def forward(self, inputs: Tensor) -> Tensor:
            answer: Tensor = self.frozen(inputs) + 4 * self.up(self.down(inputs))
            return answer

    return dense(Adapted(), nn.ReLU())


@network(ANY)
def merged_in_evaluation() -> nn.Module:
    """`eval()` merges a low-rank weight and `train()` parts them: what is saved may be merged."""

    class Merged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.merged = nn.Linear(32, 32), False
            self.down, self.up = (nn.Parameter(torch.randn(32, 4) / 4) for _ in range(2))

        def train(self, mode: bool = True) -> Merged:
            if mode == self.merged:
                self.layer.weight.data += (self.up @ self.down.T).data * (-1 if mode else 1)
                self.merged = not mode
            return super().train(mode)

        def forward(self, inputs: Tensor) -> Tensor:
            answer: Tensor = self.layer(inputs)
            return answer if self.merged else answer + inputs @ self.down @ self.up.T

    return dense(Merged(), nn.Tanh())


@network(PROVED)
def saved_transposed() -> nn.Module:
    """Hooks save a weight transposed, under another name, and read it back."""

    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(32, 24) / 6)
            self.register_state_dict_post_hook(self.write)
            self.register_load_state_dict_pre_hook(self.read)

        @staticmethod
        def write(module: nn.Module, state: Any, prefix: str, *_: object) -> None:
            state[f"{prefix}kernel"] = state.pop(f"{prefix}weight").T

        @staticmethod
        def read(module: nn.Module, state: Any, prefix: str, *_: object) -> None:
            state[f"{prefix}weight"] = state.pop(f"{prefix}kernel").T

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.relu(inputs @ self.weight)

    return dense(Transposed(), out=24)


@network(PROVED)
def weights_from_a_network() -> nn.Module:
    """A hypernetwork: every weight of a layer is made of a trained vector."""

    class Made(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seed = nn.Parameter(torch.randn(8))
            self.maker = nn.Linear(8, 32 * 32 + 32)

        def forward(self, inputs: Tensor) -> Tensor:
            weight, bias = self.maker(self.seed).split([32 * 32, 32])
            return F.linear(inputs, weight.view(32, 32), bias)

    return dense(Made(), nn.ReLU())


@network(PROVED)
def weights_from_the_picture() -> nn.Module:
    """A layer whose weights each picture makes for itself: `bmm`."""

    class Made(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maker = nn.Linear(16, 16 * 8)

        def forward(self, inputs: Tensor) -> Tensor:
            first, second = inputs.chunk(2, 1)
            weight = self.maker(first).view(-1, 8, 16) / 4
            return torch.bmm(weight, second[..., None])[..., 0]

    return dense(Made(), nn.Tanh(), out=8)


@network(PROVED)
def two_valued_weights() -> nn.Module:
    """Weights of ±1, trained straight through: signs of parameters, scaled by their mean."""

    class Signs(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            scale = self.weight.abs().mean(1, keepdim=True)
            rounded = torch.where(self.weight >= 0, scale, -scale)
            straight = self.weight + (rounded - self.weight).detach()
            return F.linear(inputs, straight, self.bias)

    return dense(Signs(32, 32), nn.ReLU())


@network(PROVED)
def circulant_weights() -> nn.Module:
    """A circulant matrix, gathered from one row by an index that is a buffer."""

    class Circulant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.row = nn.Parameter(torch.randn(32) / 6)
            at = torch.arange(32)
            self.register_buffer("index", (at[:, None] - at) % 32)

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs @ self.row[self.index]

    return dense(Circulant(), nn.Tanh())


@network(PROVED)
def product_of_small_ones() -> nn.Module:
    """A Kronecker product of two matrices as the weight."""

    class Kronecker(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left = nn.Parameter(torch.randn(4, 4) / 2)
            self.right = nn.Parameter(torch.randn(8, 8) / 3)

        def forward(self, inputs: Tensor) -> Tensor:
            return F.linear(inputs, torch.kron(self.left, self.right))

    return dense(Kronecker(), nn.Tanh())
