"""Attention under masks: infinite, finite, boolean, from the picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import NOT_PROVED, PROVED, network
from odd.parts import Attend, Residual, chain, tokens, upper


@network(PROVED)
def mask_of_infinity() -> nn.Module:
    """A mask of -inf above the diagonal, `generate_square_subsequent_mask`, as a buffer."""

    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(8))

        def forward(self, inputs: Tensor) -> Tensor:
            answer: Tensor = self.layer(inputs, src_mask=self.mask)
            return answer

    return tokens(Causal())


@network(PROVED)
def boolean_mask() -> nn.Module:
    """`nn.MultiheadAttention` with a boolean mask, of which torch makes -inf."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, inputs: Tensor) -> Tensor:
            answer: Tensor = self.layer(inputs, inputs, inputs, attn_mask=upper())[0]
            return answer

    return tokens(Masked())


class Padded(nn.Module):
    """Attention that leaves dark rows out; `kept` is a row that never is."""

    def __init__(self, kept: int | None) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(16, 2, batch_first=True)
        self.embed = nn.Linear(8, 16)
        self.kept = kept

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs[:, 0]
        dark = rows.mean(-1) < -0.5
        if self.kept is not None:
            dark = dark & (torch.arange(8) != self.kept)
        embedded = self.embed(rows)
        answer: Tensor = self.layer(embedded, embedded, embedded, key_padding_mask=dark)[0]
        return answer.mean(1)


@network(PROVED)
def padding_from_the_picture() -> nn.Module:
    """A key padding mask computed from the input; one token is always kept."""
    return Padded(0)


@network(NOT_PROVED)
def all_tokens_padded() -> nn.Module:
    """A key padding mask that a dark picture fills: softmax of -inf alone is no number."""
    return Padded(None)


@network(PROVED)
def fused_causal() -> nn.Module:
    """`scaled_dot_product_attention` with `is_causal`, four heads."""

    def attend(inputs: Tensor) -> Tensor:
        heads = inputs.unflatten(-1, (4, 4)).transpose(1, 2)
        answer = F.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        return answer.transpose(1, 2).flatten(2)

    return tokens(nn.Linear(16, 16), Residual(chain(attend)))


@network(PROVED)
def fused_with_a_bias() -> nn.Module:
    """`scaled_dot_product_attention` with a trained table of relative positions."""

    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(15, 2))
            at = torch.arange(8)
            self.register_buffer("index", at[:, None] - at + 7)

        def forward(self, inputs: Tensor) -> Tensor:
            heads = inputs.unflatten(-1, (2, 8)).transpose(1, 2)
            bias = self.table[self.index].permute(2, 0, 1)
            answer = F.scaled_dot_product_attention(heads, heads, heads, attn_mask=bias)
            return inputs + answer.transpose(1, 2).flatten(2)

    return tokens(Biased())


@network(PROVED)
def infinity_made_in_forward() -> nn.Module:
    """`masked_fill` with -inf, the mask made anew each time."""
    return tokens(Attend(lambda s: s.masked_fill(upper(), float("-inf")).softmax(-1)))


@network(PROVED)
def minus_a_billion() -> nn.Module:
    """`masked_fill` with -1e9 in place of -inf."""
    return tokens(Attend(lambda s: s.masked_fill(upper(), -1e9).softmax(-1)))


@network(PROVED)
def smallest_float_mask() -> nn.Module:
    """Scores plus the smallest float32, which is no infinity but nearly overflows."""
    least = torch.finfo(torch.float32).min
    return tokens(Attend(lambda s: (s + torch.where(upper(), least, 0.0)).softmax(-1)))


@network(PROVED)
def linear_biases() -> nn.Module:
    """ALiBi: a penalty that grows with the distance, made of `arange` in forward."""

    def weights(scores: Tensor) -> Tensor:
        at = torch.arange(scores.shape[-1])
        return (scores - (at[:, None] - at).abs() * 0.5).softmax(-1)

    return tokens(Attend(weights))
