"""Reconstruction losses: plain, and from a corrupted input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import Backbone, Losses, Preprocessing
from zoo_objectives.configs import DenoiseConfig


class Reconstruct(nn.Module):
    """Mean squared error between the preprocessed input and its reconstruction."""

    def forward(self, backbone: Backbone, inputs: Tensor, raw: Tensor) -> Losses:
        assert backbone.decoder is not None  # the spec's needs_decoder
        return Losses(F.mse_loss(backbone.decoder(backbone.encoder(inputs)), inputs))


class Denoise(nn.Module):
    """Mean squared error against the clean input (Vincent et al., JMLR 11, 2010).

    Masking sets each pixel of each channel to black with probability `noise`; Gaussian adds
    noise whose deviation is `noise` on the scale where black is 0 and white is 1.
    """

    black: Tensor
    scale: Tensor

    def __init__(self, config: DenoiseConfig, backbone: Backbone) -> None:
        super().__init__()
        self.noise = config.noise
        self.gaussian = config.kind == "gaussian"
        wanted = getattr(backbone, "preprocessing", Preprocessing())
        mean = torch.tensor(wanted.mean).view(1, -1, 1, 1)
        std = torch.tensor(wanted.std).view(1, -1, 1, 1)
        self.register_buffer("black", (0 - mean) / std, persistent=False)  # 1 x C or 1 x 1 x 1
        self.register_buffer("scale", 1 / std, persistent=False)

    def forward(self, backbone: Backbone, inputs: Tensor, raw: Tensor) -> Losses:
        assert backbone.decoder is not None  # the spec's needs_decoder
        reconstructed = backbone.decoder(backbone.encoder(self.corrupt(inputs)))
        return Losses(F.mse_loss(reconstructed, inputs))

    def corrupt(self, inputs: Tensor) -> Tensor:
        if self.gaussian:
            return inputs + torch.randn_like(inputs) * (self.noise * self.scale)
        return torch.where(torch.rand_like(inputs) < self.noise, self.black, inputs)
