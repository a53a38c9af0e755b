"""Known families of convolutional networks, made tiny."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import PROVED, network
from odd.parts import Residual, chain, top, unit


@network(PROVED)
def vgg() -> nn.Module:
    """VGG: pairs of convolutions, pools, dropout before the last layers."""
    return chain(unit(1, 8), unit(8, 8), nn.MaxPool2d(2), unit(8, 12), nn.MaxPool2d(2),
                 nn.Flatten(), nn.Dropout(0.2), nn.Linear(48, 16), nn.ReLU())  # fmt: skip


@network(PROVED)
def resnet() -> nn.Module:
    """ResNet: added branches, one of them with a stride and a projection."""

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.norms = nn.ModuleList(nn.BatchNorm2d(after) for _ in range(2))
            self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
            self.short = nn.Conv2d(before, after, 1, stride) if stride > 1 else nn.Identity()
            nn.init.zeros_(self.norms[1].weight)

        def forward(self, inputs: Tensor) -> Tensor:
            inner = F.relu(self.norms[0](self.first(inputs)), inplace=True)
            answer: Tensor = self.norms[1](self.second(inner))
            answer += self.short(inputs)
            return F.relu_(answer)

    return chain(unit(1, 8), Block(8, 8, 1), Block(8, 16, 2), top(16))


@network(PROVED)
def inception() -> nn.Module:
    """Inception: four branches of other kernels, joined, and a second answer in training alone."""

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branches = nn.ModuleList(
                [unit(8, 4, 1), chain(unit(8, 4, 1), unit(4, 6)), chain(unit(8, 2, 1), unit(2, 4)),
                 chain(nn.MaxPool2d(3, 1, 1), unit(8, 2, 1))]
            )  # fmt: skip
            self.aside = nn.Linear(16, 10)

        def forward(self, inputs: Tensor) -> Tensor:
            answer = torch.cat([branch(inputs) for branch in self.branches], 1)
            if self.training:
                self.last = self.aside(answer.mean((2, 3)))
            return answer

    return chain(unit(1, 8), Module(), top(16))


@network(PROVED)
def densenet() -> nn.Module:
    """DenseNet: each layer reads all before it, norm and ReLU first."""

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(
                chain(nn.BatchNorm2d(w), nn.ReLU(), nn.Conv2d(w, 4, 3, padding=1))
                for w in (4, 8, 12)
            )

        def forward(self, inputs: Tensor) -> Tensor:
            found = [inputs]
            for layer in self.layers:
                found.append(layer(torch.cat(found, 1)))
            return torch.cat(found, 1)

    return chain(unit(1, 4), Dense(), nn.AvgPool2d(2), top(16))


class Squeeze(nn.Module):
    """Squeeze and excite: channels weighed by their own means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        gate = self.up(F.silu(self.down(inputs.mean((2, 3), keepdim=True))))
        return inputs * torch.sigmoid(gate)


@network(PROVED)
def mobilenet() -> nn.Module:
    """MobileNet v2 and v3: inverted bottlenecks, depthwise, squeezed, hard swish."""
    block = chain(unit(8, 24, 1), unit(24, 24, 3, 24), Squeeze(24), nn.Hardswish(),
                  nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8))  # fmt: skip
    return chain(unit(1, 8), Residual(block), nn.Conv2d(8, 12, 3, 2), top(12))


@network(PROVED)
def shufflenet() -> nn.Module:
    """ShuffleNet: half of the channels pass, then all are shuffled by views."""

    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = chain(unit(4, 4, 1), unit(4, 4, 3, 4))

        def forward(self, inputs: Tensor) -> Tensor:
            kept, taken = inputs.chunk(2, 1)
            joined = torch.cat([kept, self.branch(taken)], 1)
            count, channels, height, width = joined.size()
            parted = joined.view(count, 2, channels // 2, height, width)
            return parted.transpose(1, 2).contiguous().view(count, -1, height, width)

    return chain(unit(1, 8), Shuffled(), Shuffled(), top(8))


@network(PROVED)
def convnext() -> nn.Module:
    """ConvNeXt: a large depthwise kernel, channels last, scaled by a trained 1e-6."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
            self.inner = chain(nn.LayerNorm(8), nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))
            self.scale = nn.Parameter(torch.full((8,), 1e-6))

        def forward(self, inputs: Tensor) -> Tensor:
            moved = self.depthwise(inputs).permute(0, 2, 3, 1)
            return inputs + (self.scale * self.inner(moved)).permute(0, 3, 1, 2)

    return chain(nn.Conv2d(1, 8, 2, 2), Block(), Block(), top(8))
