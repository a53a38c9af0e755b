"""Masked image modelling for any autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.api import Backbone, Losses, Unfit
from zoo_objectives.configs import MaskedConfig
from zoo_objectives.scale import Scale, decoded_shape


class Masked(nn.Module):
    """Predict the squares of a picture that are masked (SimMIM, arXiv 2111.09886).

    A share `ratio` of each picture's squares, all channels of them, is replaced by one learned
    value a channel or by black; the decoder is judged on these pixels alone. Squares at the right
    and lower border may be cut. `visible` is the same error on the other pixels, which nothing
    lowers. Raises `Unfit` where a square does not fit into the input.
    """

    def __init__(self, config: MaskedConfig, backbone: Backbone) -> None:
        super().__init__()
        channels, height, width = decoded_shape(backbone)
        if config.patch > min(height, width):
            raise Unfit(
                f"patch {config.patch} is larger than the input, {height}×{width}."
                f" Type: -o patch={max(1, min(height, width) // 4)}"
            )
        self.config = config
        self.scale = Scale(backbone)
        if config.fill == "learned":
            self.value = nn.Parameter(self.scale.black.expand(1, channels, 1, 1).clone())

    def forward(self, backbone: Backbone, inputs: Tensor, raw: Tensor) -> Losses:
        assert backbone.decoder is not None  # the spec's needs_decoder
        masked = draw_mask(inputs, self.config.patch, self.config.ratio)
        fill = self.value if self.config.fill == "learned" else self.scale.black
        decoded = backbone.decoder(backbone.encoder(torch.where(masked, fill, inputs)))
        error = (decoded - inputs).abs() if self.config.loss == "l1" else (decoded - inputs) ** 2
        each = error.mean(1, keepdim=True)  # N x 1 x H x W
        return Losses(
            (each * masked).sum() / masked.sum(),
            visible=(each * ~masked).sum() / (~masked).sum().clamp(min=1),
        )


def draw_mask(inputs: Tensor, patch: int, ratio: float) -> Tensor:
    """Draw N x 1 x H x W, true in as many squares of each picture as `ratio` says, one at least."""
    count, _, height, width = inputs.shape
    rows, columns = -(-height // patch), -(-width // patch)
    squares = rows * columns
    ranks = torch.rand(count, squares, device=inputs.device).argsort(1).argsort(1)
    chosen = (ranks < max(1, round(ratio * squares))).view(count, 1, rows, columns)
    spread = chosen.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return spread[:, :, :height, :width]
