"""Reconstruction losses: plain, and from a corrupted input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import Backbone, Losses
from zoo_objectives.configs import DenoiseConfig
from zoo_objectives.scale import Scale


class Reconstruct(nn.Module):
    """Mean squared error between the preprocessed input and its reconstruction.

    Hinton and Salakhutdinov, Reducing the dimensionality of data with neural networks, Science 313,
    2006. Part: `psnr`, the peak signal-to-noise ratio in dB, white being the peak.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.scale = Scale(backbone)

    def forward(self, backbone: Backbone, inputs: Tensor, raw: Tensor) -> Losses:
        assert backbone.decoder is not None  # the spec's needs_decoder
        reconstructed = backbone.decoder(backbone.encoder(inputs))
        total = F.mse_loss(reconstructed, inputs)
        return Losses(total, psnr=self.scale.psnr(reconstructed, inputs, total))


class Denoise(nn.Module):
    """Mean squared error against the clean input (Vincent et al., JMLR 11, 2010).

    Masking sets each pixel of each channel to black with probability `noise`; salt-and-pepper to
    black or white, either alike; Gaussian adds noise whose deviation is `noise` on the scale where
    black is 0 and white is 1. Parts: `psnr`, the peak signal-to-noise ratio in dB of what is
    reconstructed, white being the peak; `corrupted`, the same mean squared error of the corrupted
    input, which is what changing nothing would come to.
    """

    def __init__(self, config: DenoiseConfig, backbone: Backbone) -> None:
        super().__init__()
        self.noise = config.noise
        self.kind = config.kind
        self.scale = Scale(backbone)

    def forward(self, backbone: Backbone, inputs: Tensor, raw: Tensor) -> Losses:
        assert backbone.decoder is not None  # the spec's needs_decoder
        corrupted = self.corrupt(inputs)
        reconstructed = backbone.decoder(backbone.encoder(corrupted))
        total = F.mse_loss(reconstructed, inputs)
        psnr = self.scale.psnr(reconstructed, inputs, total)
        return Losses(total, psnr=psnr, corrupted=F.mse_loss(corrupted, inputs))

    def corrupt(self, inputs: Tensor) -> Tensor:
        if self.kind == "gaussian":
            return inputs + torch.randn_like(inputs) * (self.noise / self.scale.std)
        drawn = torch.rand_like(inputs)
        if self.kind == "salt-pepper":
            inputs = torch.where(drawn < self.noise, self.scale.white, inputs)
            return torch.where(drawn < self.noise / 2, self.scale.black, inputs)
        return torch.where(drawn < self.noise, self.scale.black, inputs)
