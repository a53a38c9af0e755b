"""Recurrence: torch's own layers, cells in loops, states carried where none may be."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from odd.network import ANY, NOT_PROVED, PROVED, network
from odd.parts import Rows, chain


class Last(nn.Module):
    """A recurrent layer over the tokens, N x 8 x 16 -> N x width: its last output."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.layer(inputs)[0][:, -1]
        return answer


@network(PROVED)
def lstm_over_rows() -> nn.Module:
    """An LSTM reads the rows from the top down."""
    return chain(Rows(), Last(nn.LSTM(16, 16, batch_first=True)))


@network(PROVED)
def gru_both_ways() -> nn.Module:
    """A GRU of two layers in both directions."""
    return chain(Rows(), Last(nn.GRU(16, 8, 2, bidirectional=True, batch_first=True)))


@network(PROVED)
def plain_recurrence() -> nn.Module:
    """`nn.RNN` with ReLU in place of tanh, without biases."""
    layer = nn.RNN(16, 16, nonlinearity="relu", bias=False, batch_first=True)
    return chain(Rows(), Last(layer))


@network(ANY)
def lstm_with_projection() -> nn.Module:
    """An LSTM whose state is projected, which ONNX's operator does not know."""
    return chain(Rows(), Last(nn.LSTM(16, 32, proj_size=16, batch_first=True)))


@network(PROVED)
def trained_first_state() -> nn.Module:
    """The first state of a GRU is trained and expanded to the batch."""

    class Started(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(16, 16, batch_first=True)
            self.state = nn.Parameter(torch.randn(1, 1, 16))

        def forward(self, inputs: Tensor) -> Tensor:
            state = self.state.expand(1, len(inputs), 16).contiguous()
            answer: Tensor = self.layer(inputs, state)[1][0]
            return answer

    return chain(Rows(), Started())


class Cells(nn.Module):
    """An LSTM cell in a Python loop, its first state zeros of the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(16, 16)

    def forward(self, inputs: Tensor) -> Tensor:
        state = torch.zeros(inputs.shape[0], 16), inputs.new_zeros(inputs.size(0), 16)
        for at in range(inputs.shape[1]):
            state = self.cell(inputs[:, at], state)
        return state[0]


@network(PROVED)
def cells_in_a_loop() -> nn.Module:
    """An LSTM cell in a loop of eight steps; `zeros` of the batch's size."""
    return chain(Rows(), Cells())


@network(ANY)
def packed_sequences() -> nn.Module:
    """Sequences packed by their lengths, which are read from the picture: `.tolist()` within."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(8, 16, batch_first=True)

        def forward(self, inputs: Tensor) -> Tensor:
            lengths = (inputs[:, 0].amax(-1) > 0).sum(-1).clamp(min=1)
            packed = pack_padded_sequence(
                inputs[:, 0], lengths, batch_first=True, enforce_sorted=False
            )
            answer: Tensor = self.layer(packed)[1][0]
            return answer

    return Packed()


@network(NOT_PROVED)
def recurrence_over_the_batch() -> nn.Module:
    """`batch_first` forgotten: the pictures are the sequence."""
    return chain(nn.Flatten(), nn.Linear(64, 16), lambda t: t[:, None], nn.GRU(16, 16),
                 lambda answers: answers[0][:, 0])  # fmt: skip


@network(NOT_PROVED)
def state_between_calls() -> nn.Module:
    """The state of a GRU is kept from one call to the next, in an attribute."""

    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(64, 16)
            self.state: Tensor | None = None

        def forward(self, inputs: Tensor) -> Tensor:
            before = torch.zeros(16) if self.state is None else self.state
            answer: Tensor = self.cell(inputs.flatten(1), before.expand(len(inputs), 16))
            self.state = answer.detach().mean(0)
            return answer

    return Kept()
