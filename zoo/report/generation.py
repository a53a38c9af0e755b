"""What an autoencoder makes: reconstructions, and samples from a density of its codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.models import Preprocess
from zoo.training import outputs


def to_bytes(preprocess: Preprocess, values: Tensor) -> Tensor:
    """Undo the normalization of preprocessed values, N x C x H x W, for the eye: uint8."""
    raw: Tensor = (values - preprocess.bias) / preprocess.scale
    return raw.nan_to_num().round().clamp(0, 255).to(torch.uint8)


def reconstruct(encode: nn.Module, decoder: nn.Module, inputs: Tensor) -> Tensor:
    """Return the reconstructions of preprocessed inputs, N x C x H x W."""
    return outputs(decoder, outputs(encode, inputs))


def draw_codes(codes: Tensor, count: int, seed: int = 0) -> Tensor:
    """Draw codes from a Gaussian with the mean and covariance of given ones, N x D -> count x D.

    An ex-post density in place of a prior (Ghosh et al., arXiv 1903.12436). Sums of the centred
    codes with normal weights have just that covariance: no D x D matrix is taken apart.
    """
    generator = torch.Generator().manual_seed(seed)
    mean = codes.double().mean(0)
    weights = torch.randn(count, len(codes), generator=generator, dtype=torch.float64)
    drawn: Tensor = mean + weights @ (codes.double() - mean) / max(1, len(codes) - 1) ** 0.5
    return drawn.to(codes.dtype)
