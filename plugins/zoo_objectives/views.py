"""Random views of a batch of pictures, all of them at once on the device where they lie."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import Backbone
from zoo_objectives.configs import ViewsConfig
from zoo_objectives.scale import Scale

ASPECT = 4 / 3
"""Width over height of what a view shows, and its inverse; the logarithm is uniformly drawn."""
ERASED = (0.02, 0.2)
"""Share of a view that erasing blackens, uniformly drawn; the rectangle is shaped as the view."""


class Views(nn.Module):
    """Draw a view of each picture: preprocessed inputs, N x C x H x W -> the same shape.

    The distortions are SimCLR's (arXiv 2002.05709, appendix A) where they make sense for pictures
    of a few pixels: a crop that is resized, mirrored, turned and moved by one bilinear sampling;
    then contrast, brightness and colour, blur, a blackened rectangle (arXiv 1708.04896), noise.
    All is computed on 0..1, where what lies outside of a picture is 0, black. Draws are torch's
    own, from the generator of the device.
    """

    def __init__(self, config: ViewsConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.scale = Scale(backbone)

    def forward(self, inputs: Tensor) -> Tensor:
        config = self.config
        pixels = self.scale.to_unit(inputs)
        pixels = _sampled(pixels, _boxes(config, len(inputs), inputs.device))
        pixels = _jittered(pixels, config)
        if config.blur:
            pixels = _blurred(pixels, config.blur)
        if config.erase:
            pixels = pixels * ~_rectangles(pixels, config.erase)
        if config.noise:
            pixels = pixels + config.noise * torch.randn_like(pixels)
        return self.scale.from_unit(pixels.clamp(0, 1))


def _uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    return low + (high - low) * torch.rand(count, device=device)


def _boxes(config: ViewsConfig, count: int, device: torch.device) -> Tensor:
    """Return where each view's pixels come from: N x 2 x 3, (x, y, 1) -> (x, y) in -1..1."""
    area = _uniform(count, config.crop, 1, device)
    aspect = _uniform(count, -1, 1, device).mul(math.log(ASPECT)).exp()
    wide = (area * aspect).sqrt().clamp(max=1) if config.crop < 1 else torch.ones_like(area)
    tall = (area / aspect).sqrt().clamp(max=1) if config.crop < 1 else torch.ones_like(area)
    angle = _uniform(count, -1, 1, device) * math.radians(config.rotate)
    mirror = 1 - 2.0 * (torch.rand(count, device=device) < 0.5 * config.flip)
    # The crop lies within the picture, at any place; the shift may take it beyond.
    right, down = (
        (1 - side + 2 * config.shift) * _uniform(count, -1, 1, device) for side in (wide, tall)
    )
    cos, sin = angle.cos(), angle.sin()
    across = torch.stack([wide * mirror * cos, -tall * sin, right], 1)
    along = torch.stack([wide * mirror * sin, tall * cos, down], 1)
    return torch.stack([across, along], 1)


def _sampled(pixels: Tensor, maps: Tensor) -> Tensor:
    """Take each pixel, bilinearly, from where its map says; 0 outside of the picture."""
    height, width = pixels.shape[2:]
    x = (2 * torch.arange(width, device=pixels.device) + 1) / width - 1
    y = (2 * torch.arange(height, device=pixels.device) + 1) / height - 1
    # A turn of a picture that is not square would shear it if both axes ran from -1 to 1.
    stretch = torch.ones_like(maps)
    stretch[:, 0, 1], stretch[:, 1, 0] = height / width, width / height
    maps = (maps * stretch)[..., None, None]  # N x 2 x 3 x 1 x 1
    grid = maps[:, :, 0] * x + maps[:, :, 1] * y[:, None] + maps[:, :, 2]  # N x 2 x H x W
    return F.grid_sample(
        pixels, grid.permute(0, 2, 3, 1), "bilinear", padding_mode="zeros", align_corners=False
    )


def _jittered(pixels: Tensor, config: ViewsConfig) -> Tensor:
    """Change contrast about each picture's mean, then brightness, and that of each channel."""
    count, channels = pixels.shape[:2]
    device = pixels.device
    if config.contrast:
        factor = _uniform(count, 1 - config.contrast, 1 + config.contrast, device)
        mean = pixels.mean((1, 2, 3), keepdim=True)
        pixels = mean + (pixels - mean) * factor.view(-1, 1, 1, 1)
    if config.brightness:
        factor = _uniform(count, 1 - config.brightness, 1 + config.brightness, device)
        pixels = pixels * factor.view(-1, 1, 1, 1)
    if config.colour and channels > 1:
        factor = _uniform(count * channels, 1 - config.colour, 1 + config.colour, device)
        pixels = pixels * factor.view(count, channels, 1, 1)
    return pixels.clamp(0, 1)


def _blurred(pixels: Tensor, probability: float) -> Tensor:
    """Blend pictures with their binomial 3 x 3 blur, by a share of their own."""
    count, channels = pixels.shape[:2]
    line = torch.tensor([0.25, 0.5, 0.25], device=pixels.device)
    kernel = (line[:, None] * line).expand(channels, 1, 3, 3)
    blurred = F.conv2d(pixels, kernel, padding=1, groups=channels)
    chosen = torch.rand(count, device=pixels.device) < probability
    share = torch.rand(count, device=pixels.device) * chosen
    return torch.lerp(pixels, blurred, share.view(-1, 1, 1, 1))


def _rectangles(pixels: Tensor, probability: float) -> Tensor:
    """Draw what is erased: N x 1 x H x W, true within a rectangle of some of the pictures."""
    count, _, height, width = pixels.shape
    device = pixels.device
    side = _uniform(count, *ERASED, device).sqrt()
    sides = torch.where(torch.rand(count, device=device) < probability, side, 0)
    inside = []
    for length in (height, width):
        place = (torch.arange(length, device=device) + 0.5) / length
        start = (1 - sides) * torch.rand(count, device=device)
        inside.append((place >= start[:, None]) & (place < (start + sides)[:, None]))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
