"""Convolutions of odd sorts, and pools."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import ANY, EXACT, PROVED, network
from odd.parts import chain, maps


@network(PROVED)
def grouped_and_dilated() -> nn.Module:
    """Groups of two, dilation 2, stride 2, a kernel of 1×3 and padding of its own."""
    return maps(
        nn.Conv2d(8, 16, 3, dilation=2, groups=4, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 8, (1, 3), stride=(1, 2), padding=(0, 2)),
    )


@network(PROVED)
def same_with_an_even_kernel() -> nn.Module:
    """`padding="same"` with a kernel of four, padded unevenly, without a bias."""
    return maps(nn.Conv2d(8, 8, 4, padding="same", bias=False), nn.ReLU())


@network(PROVED)
def padded_around() -> nn.Module:
    """`padding_mode` circular, then reflect, then replicate."""
    modes = ("circular", "reflect", "replicate")
    return maps(*(nn.Conv2d(8, 8, 3, padding=1, padding_mode=mode) for mode in modes))


@network(EXACT)
def transposed() -> nn.Module:
    """A transposed convolution with stride, padding and output padding."""
    return maps(nn.Conv2d(8, 8, 3, 2), nn.ReLU(),
                nn.ConvTranspose2d(8, 8, 3, 2, padding=1, output_padding=1))  # fmt: skip


@network(EXACT)
def transposed_in_groups() -> nn.Module:
    """A transposed convolution of four groups, dilated."""
    return maps(nn.ConvTranspose2d(8, 8, 3, groups=4, dilation=2), nn.ReLU())


@network(PROVED)
def along_the_pixels() -> nn.Module:
    """One-dimensional convolutions over the 64 pixels in a line."""
    return chain(lambda t: t.flatten(2), nn.Conv1d(1, 8, 9, 4), nn.ReLU(), nn.Conv1d(8, 4, 3),
                 nn.Flatten(), nn.Linear(48, 16))  # fmt: skip


@network(EXACT)
def through_a_volume() -> nn.Module:
    """Maps taken for a volume: `Conv3d` and a pool in three dimensions."""
    return maps(lambda t: t[:, None], nn.Conv3d(1, 4, 3, padding=1), nn.MaxPool3d(2),
                lambda t: t.flatten(1, 2), out=16)  # fmt: skip


@network(PROVED)
def unfolded_by_hand() -> nn.Module:
    """A convolution written as `unfold`, a product and `fold`, which sums what overlaps."""

    class Unfolded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(72, 72) / 12)

        def forward(self, inputs: Tensor) -> Tensor:
            columns = self.weight @ F.unfold(inputs, 3, padding=1)
            return F.fold(columns, (8, 8), 3, padding=1) / 3

    return maps(Unfolded())


@network(ANY)
def kernels_of_each_picture() -> nn.Module:
    """A kernel for each picture, applied by one convolution of N groups."""

    class Dynamic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maker = nn.Linear(8, 8 * 9)

        def forward(self, inputs: Tensor) -> Tensor:
            count = inputs.shape[0]
            kernels = self.maker(inputs.mean((2, 3))).view(count * 8, 1, 3, 3)
            one = inputs.reshape(1, count * 8, 8, 8)
            return F.conv2d(one, kernels, padding=1, groups=count * 8).view(count, 8, 8, 8)

    return maps(Dynamic(), nn.ReLU())


@network(PROVED)
def mixed_kernels() -> nn.Module:
    """CondConv by answers: three convolutions, mixed by each picture's own shares."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernels = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
            self.shares = nn.Linear(8, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            shares = self.shares(inputs.mean((2, 3))).softmax(1)
            answers = torch.stack([kernel(inputs) for kernel in self.kernels], 1)
            return (shares[:, :, None, None, None] * answers).sum(1)

    return maps(Mixed(), nn.ReLU())


@network(PROVED)
def differences_of_pixels() -> nn.Module:
    """Central differences: a kernel less its own sum in the middle; fixed Sobel maps beside."""

    class Central(nn.Conv2d):
        sobel: Tensor

        def __init__(self) -> None:
            super().__init__(8, 8, 3, padding=1)
            line = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]) / 8
            self.register_buffer("sobel", line.expand(8, 1, 3, 3).clone())

        def forward(self, inputs: Tensor) -> Tensor:
            middle = self.weight.sum((2, 3), keepdim=True)
            smooth = super().forward(inputs) - F.conv2d(inputs, middle) * 0.7
            return smooth + F.conv2d(inputs, self.sobel, padding=1, groups=8)

    return maps(Central(), nn.ReLU())


@network(PROVED)
def own_weights_in_each_place() -> nn.Module:
    """A locally connected layer: a kernel of its own in each place."""

    class Local(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(36, 72, 8) / 8)

        def forward(self, inputs: Tensor) -> Tensor:
            patches = F.unfold(inputs, 3).transpose(1, 2)
            return torch.einsum("npk,pko->nop", patches, self.weight).unflatten(2, (6, 6))

    return maps(Local(), nn.ReLU())


@network(PROVED)
def pools_of_odd_sorts() -> nn.Module:
    """Pools: ceiling, without the padding counted, of power 2, dilated, of uneven windows."""
    return maps(
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.ReplicationPad2d(2),
        nn.LPPool2d(2, 3, 1),
        nn.MaxPool2d(2, 1, dilation=3),
    )


@network(ANY)
def adaptive_pools_that_overlap() -> nn.Module:
    """Adaptive pools from 8 to 3 and 5, whose windows overlap."""
    return chain(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d((5, 3)), nn.Flatten(),
        nn.Linear(120, 16),
    )  # fmt: skip


@network(ANY)
def adaptive_largest() -> nn.Module:
    """`AdaptiveMaxPool2d` from 8 to 3."""
    return chain(nn.Conv2d(1, 8, 3, padding=1), nn.AdaptiveMaxPool2d(3), nn.Flatten(),
                 nn.Linear(72, 16))  # fmt: skip
