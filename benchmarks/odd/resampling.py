"""Resampling: grids, interpolation in every way that torch has, wavelets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import ANY, EXACT, NOT_PROVED, PROVED, network
from odd.parts import chain, maps
from zoo.api import Preprocessing


class Turned(nn.Module):
    """A spatial transformer: an affine map of each picture's own, by `grid_sample`."""

    def __init__(self, mode: str, padding: str) -> None:
        super().__init__()
        self.where = nn.Linear(8, 6)
        nn.init.normal_(self.where.weight, std=0.05)
        self.where.bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        self.mode, self.padding = mode, padding

    def forward(self, inputs: Tensor) -> Tensor:
        theta = self.where(inputs.mean((2, 3))).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(inputs.shape), align_corners=False)
        return F.grid_sample(inputs, grid, self.mode, self.padding, align_corners=False)


@network(EXACT)
def spatial_transformer() -> nn.Module:
    """`affine_grid` and `grid_sample`, bilinear, zeros beyond the edge."""
    return maps(Turned("bilinear", "zeros"))


@network(EXACT)
def cubic_transformer() -> nn.Module:
    """`grid_sample`, bicubic, mirrored at the edge."""
    return maps(Turned("bicubic", "reflection"))


@network(ANY)
def deformed() -> nn.Module:
    """torchvision's deformable convolution, which opset 18 does not have."""
    from torchvision.ops import DeformConv2d

    class Deformed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offsets = nn.Conv2d(8, 18, 3, padding=1)
            self.layer = DeformConv2d(8, 8, 3, padding=1)

        def forward(self, inputs: Tensor) -> Tensor:
            answer: Tensor = self.layer(inputs, self.offsets(inputs))
            return answer

    return maps(Deformed())


def resized(**options: object) -> Callable[[Tensor], Tensor]:
    return lambda inputs: F.interpolate(inputs, **options)  # type: ignore[arg-type]


@network(PROVED)
def nearest() -> nn.Module:
    """Nearest pixels, up by 2 and down to 5."""
    return maps(resized(scale_factor=2.0), resized(size=(5, 5)))


@network(ANY)
def nearest_exactly() -> nn.Module:
    """`nearest-exact`, which rounds otherwise, to a size that does not divide."""
    return maps(resized(size=(13, 5), mode="nearest-exact"))


@network(EXACT)
def bilinear() -> nn.Module:
    """Bilinear up to 13, corners not aligned."""
    return maps(resized(size=(13, 11), mode="bilinear", align_corners=False))


@network(EXACT)
def bilinear_with_corners() -> nn.Module:
    """Bilinear by a factor of 1.7, corners aligned: ONNX's own reference is another's opinion."""
    return maps(resized(scale_factor=1.7, mode="bilinear", align_corners=True))


@network(EXACT)
def bicubic() -> nn.Module:
    """Bicubic down to 6, without a filter."""
    return maps(resized(size=(6, 6), mode="bicubic", align_corners=False))


@network(ANY)
def bilinear_with_a_filter() -> nn.Module:
    """Bilinear down to 3 with antialias."""
    return maps(resized(size=(3, 3), mode="bilinear", antialias=True))


@network(ANY)
def by_area() -> nn.Module:
    """Means over areas that do not divide: 8 to 5."""
    return maps(resized(size=(5, 5), mode="area"))


@network(ANY)
def factor_computed_anew() -> nn.Module:
    """A factor of 1.3 with `recompute_scale_factor`: the size is rounded first."""
    return maps(resized(scale_factor=1.3, mode="bilinear", recompute_scale_factor=True))


@network(NOT_PROVED)
def random_crop() -> nn.Module:
    """A crop whose place is drawn in evaluation too."""

    def crop(inputs: Tensor) -> Tensor:
        at = int(torch.randint(0, 4, ()))
        return inputs[:, :, at : at + 5, at : at + 5]

    return maps(crop)


COLOURS = Preprocessing(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=(16, 12), channels=3
)


@network(PROVED, preprocessing=COLOURS)
def three_channels_enlarged() -> nn.Module:
    """A backbone that wants colour pictures of 16×12, normalized as ImageNet's."""
    return chain(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(280, 16))


@network(PROVED)
def wavelets() -> nn.Module:
    """Haar's wavelet by strided slices, twice: sums and differences of neighbours."""

    def haar(inputs: Tensor) -> Tensor:
        a, b, c, d = (inputs[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
        return torch.cat([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d], 1) / 2

    return chain(haar, nn.Conv2d(4, 4, 1), nn.ReLU(), haar, nn.Flatten(), nn.Linear(64, 16))
