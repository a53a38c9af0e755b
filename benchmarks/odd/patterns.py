"""Attention of other patterns: shares that are no softmax, positions, queries, windows."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import ANY, EXACT, NOT_PROVED, PROVED, network
from odd.parts import Attend, Residual, chain, tokens

Weights = Callable[[Tensor], Tensor]


@network(PROVED)
def quiet_softmax() -> nn.Module:
    """Softmax with one more in the denominator: a head may say nothing."""

    def weights(scores: Tensor) -> Tensor:
        raised = (scores - scores.amax(-1, keepdim=True)).exp()
        return raised / (raised.sum(-1, keepdim=True) + 1)

    return tokens(Attend(weights))


@network(ANY)
def three_best_keys() -> nn.Module:
    """Each query sees its three best keys: `topk`, then `scatter` into -inf."""

    def weights(scores: Tensor) -> Tensor:
        best, at = scores.topk(3, -1)
        return torch.full_like(scores, float("-inf")).scatter(-1, at, best).softmax(-1)

    return tokens(Attend(weights))


@network(EXACT)
def sparse_softmax() -> nn.Module:
    """Sparsemax: scores sorted and summed up, some shares exactly zero."""

    def weights(scores: Tensor) -> Tensor:
        ordered = scores.sort(-1, descending=True).values
        summed = ordered.cumsum(-1)
        rank = torch.arange(1, 9, dtype=scores.dtype)
        count = (1 + rank * ordered > summed).sum(-1, keepdim=True)
        bound = (summed.gather(-1, count - 1) - 1) / count
        return (scores - bound).clamp(min=0)

    return tokens(Attend(weights))


@network(PROVED)
def balanced_by_turns() -> nn.Module:
    """Sinkhorn: rows and columns of the scores normalized by turns, five times."""

    def weights(scores: Tensor) -> Tensor:
        for _ in range(5):
            scores = scores - scores.logsumexp(-1, keepdim=True)
            scores = scores - scores.logsumexp(-2, keepdim=True)
        return scores.exp()

    return tokens(Attend(weights))


@network(PROVED)
def linear_attention() -> nn.Module:
    """Kernel attention, causal: outer products of keys and values summed up over the tokens."""

    class Kernel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(16, 24)

        def forward(self, inputs: Tensor) -> Tensor:
            query, key, value = self.project(inputs).chunk(3, -1)
            query, key = F.elu(query) + 1, F.elu(key) + 1
            state = torch.einsum("ntk,ntv->ntkv", key, value).cumsum(1)
            norm = torch.einsum("ntk,ntk->nt", query, key.cumsum(1))
            answer = torch.einsum("ntk,ntkv->ntv", query, state) / (norm[..., None] + 1e-6)
            return torch.cat([answer, inputs[..., 8:]], -1)

    return tokens(Kernel())


class Rotary(nn.Module):
    """Queries and keys turned by their positions (arXiv 2104.09864)."""

    def __init__(self, *, complex_numbers: bool) -> None:
        super().__init__()
        self.project = nn.Linear(16, 32)
        angles = torch.outer(torch.arange(8.0), 10000 ** (-torch.arange(8.0) / 8))
        self.complex_numbers = complex_numbers
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def turn(self, inputs: Tensor) -> Tensor:
        if self.complex_numbers:
            pairs = torch.view_as_complex(inputs.unflatten(-1, (8, 2)).contiguous())
            return torch.view_as_real(pairs * torch.complex(self.cosines, self.sines)).flatten(-2)
        even, odd = inputs[..., ::2], inputs[..., 1::2]
        turned = even * self.cosines - odd * self.sines, even * self.sines + odd * self.cosines
        return torch.stack(turned, -1).flatten(-2)

    def forward(self, inputs: Tensor) -> Tensor:
        query, key = (self.turn(half) for half in self.project(inputs).chunk(2, -1))
        return inputs + (query @ key.transpose(1, 2) / 4).softmax(-1) @ inputs


@network(PROVED)
def rotary_positions() -> nn.Module:
    """Rotary positions; the tables are buffers that are not saved, and need not be."""
    return tokens(Rotary(complex_numbers=False))


@network(ANY)
def rotary_in_complex_numbers() -> nn.Module:
    """Rotary positions as products of complex numbers, which ONNX does not have."""
    return tokens(Rotary(complex_numbers=True))


class Queries(nn.Module):
    """Trained queries that read the tokens, and how they meet the batch."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(count, 16))
        self.read = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        queries = self.queries.expand(len(inputs), -1, -1)
        answer: Tensor = self.read(queries, inputs, inputs, need_weights=False)[0]
        return answer


@network(PROVED)
def trained_queries() -> nn.Module:
    """Three trained queries read the tokens (Perceiver): expanded to the batch."""
    return tokens(Queries(3))


@network(PROVED)
def grouped_queries() -> nn.Module:
    """Four query heads share two key heads: `repeat_interleave`."""

    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(16, 32)

        def forward(self, inputs: Tensor) -> Tensor:
            query, key, value = self.project(inputs).split([16, 8, 8], -1)
            query, key, value = (
                part.unflatten(-1, (-1, 4)).transpose(1, 2) for part in (query, key, value)
            )
            key, value = (part.repeat_interleave(2, 1) for part in (key, value))
            shares = (query @ key.mT / math.sqrt(4)).softmax(-1)
            return inputs + (shares @ value).transpose(1, 2).flatten(2)

    return tokens(Grouped())


@network(PROVED)
def sliding_window() -> nn.Module:
    """Each token reads three neighbours, gathered by `unfold`."""

    def window(inputs: Tensor) -> Tensor:
        near = F.pad(inputs, (0, 0, 1, 1)).unfold(1, 3, 1)
        shares = torch.einsum("ntc,ntcw->ntw", inputs, near).softmax(-1)
        return torch.einsum("ntw,ntcw->ntc", shares, near)

    return tokens(Residual(chain(nn.Linear(16, 16), window)))


@network(PROVED)
def stacked_encoder() -> nn.Module:
    """`nn.TransformerEncoder`, whose evaluation takes another path than its training."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=False)
    return tokens(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


@network(PROVED)
def encoder_and_decoder() -> nn.Module:
    """`nn.Transformer`: the decoder reads the tokens reversed, under a causal mask."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)

        def forward(self, inputs: Tensor) -> Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(8)
            answer: Tensor = self.layer(inputs, inputs.flip(1), tgt_mask=mask, tgt_is_causal=True)
            return answer

    return tokens(Both())


@network(NOT_PROVED)
def attention_over_the_batch() -> nn.Module:
    """`batch_first` forgotten: pictures read each other, not their tokens."""

    class Forgotten(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.MultiheadAttention(16, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            answer: Tensor = 4 * self.layer(4 * inputs, 4 * inputs, 4 * inputs)[0]
            return answer

    return tokens(Forgotten())


@network(NOT_PROVED)
def random_features() -> nn.Module:
    """Performer that draws its random features anew in each forward."""

    class Drawn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(16, 32)

        def forward(self, inputs: Tensor) -> Tensor:
            drawn = torch.randn(16, 8)
            query, key = (F.softplus(half @ drawn) for half in self.project(inputs).chunk(2, -1))
            read = query @ (key.mT @ inputs)
            return read / (query @ key.sum(1)[..., None] + 1e-6)

    return tokens(Drawn())
