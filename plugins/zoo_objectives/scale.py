"""The scale on which black is 0 and white is 1, whatever a backbone's preprocessing made of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.api import Backbone, Preprocessing


def decoded_shape(backbone: Backbone) -> tuple[int, int, int]:
    """Return the shape of a preprocessed input, C x H x W, as the decoder gives it."""
    decoder = backbone.decoder
    assert decoder is not None  # the spec's needs_decoder
    modes = {module: module.training for module in decoder.modules()}
    decoder.eval()  # batch statistics stay as they are
    with torch.no_grad():
        _, channels, height, width = decoder(torch.zeros(1, backbone.features)).shape
    for module, mode in modes.items():
        module.training = mode
    return channels, height, width


class Scale(nn.Module):
    """Take preprocessed inputs, N x C x H x W, to 0..1 and back; nothing of it is saved."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        wanted = getattr(backbone, "preprocessing", Preprocessing())
        for name in ("mean", "std"):  # 1 x C x 1 x 1, or 1 x 1 x 1 x 1 for all channels
            values = torch.tensor(getattr(wanted, name)).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    @property
    def black(self) -> Tensor:
        return -self.mean / self.std

    @property
    def white(self) -> Tensor:
        return (1 - self.mean) / self.std

    def to_unit(self, inputs: Tensor) -> Tensor:
        return inputs * self.std + self.mean

    def from_unit(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std

    @torch.no_grad()
    def psnr(self, reconstructed: Tensor, inputs: Tensor, error: Tensor) -> Tensor:
        """Return the peak signal-to-noise ratio in dB, 100 at most, white being the peak of 1.

        `error` is the mean squared error of the two as they are, a scalar.
        """
        if self.std.numel() == 1:  # no second walk through the pictures
            unit = error * self.std.square().squeeze()
        else:
            unit = ((reconstructed - inputs) * self.std).square().mean()
        return -10 * unit.clamp(min=1e-10).log10()
