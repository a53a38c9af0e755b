"""Norms: with statistics and without, saved and unsaved, with and without a constant beneath."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import ANY, NOT_PROVED, PROVED, network
from odd.parts import chain, dense, maps, tokens


@network(PROVED)
def group_norm() -> nn.Module:
    """Group norm of two groups, after another with a group a channel."""
    return maps(nn.GroupNorm(8, 8), nn.GroupNorm(2, 8))


@network(PROVED)
def instance_norm() -> nn.Module:
    """Instance norm without statistics or weights, as its default is."""
    return maps(nn.InstanceNorm2d(8))


@network(PROVED)
def instance_norm_with_statistics() -> nn.Module:
    """Instance norm that tracks running statistics and uses them in evaluation."""
    return maps(nn.InstanceNorm2d(8, affine=True, track_running_stats=True))


@network(PROVED)
def channels_norm() -> nn.Module:
    """Layer norm over the channels of maps: permuted there and back (ConvNeXt)."""
    return maps(lambda t: t.permute(0, 2, 3, 1), nn.LayerNorm(8), lambda t: t.permute(0, 3, 1, 2))


@network(PROVED)
def whole_layer_norm() -> nn.Module:
    """Layer norm over channels, rows and columns at once, without weights."""
    return maps(nn.LayerNorm([8, 8, 8], elementwise_affine=False))


@network(PROVED)
def root_mean_square() -> nn.Module:
    """`nn.RMSNorm`, whose constant depends on the type where none is given."""
    return tokens(nn.RMSNorm(16))


@network(PROVED)
def local_response() -> nn.Module:
    """Local response norm across channels, AlexNet's."""
    return maps(nn.LocalResponseNorm(5, alpha=0.1, k=2.0))


@network(PROVED)
def plain_batch_norm() -> nn.Module:
    """Batch norm without weights, its average cumulative (`momentum=None`)."""
    return dense(nn.BatchNorm1d(32, affine=False, momentum=None), nn.Tanh())


@network(NOT_PROVED)
def batch_statistics_for_ever() -> nn.Module:
    """Batch norm that tracks no statistics: the batch's own, in evaluation too."""
    return maps(nn.BatchNorm2d(8, track_running_stats=False))


@network(PROVED)
def functional_batch_norm() -> nn.Module:
    """`F.batch_norm` on running statistics that are one's own saved buffers."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(32))
            self.register_buffer("variance", torch.ones(32))

        def forward(self, inputs: Tensor) -> Tensor:
            return F.batch_norm(inputs, self.mean, self.variance, training=self.training)

    return dense(Own(), nn.ReLU())


@network(NOT_PROVED)
def evaluation_undone() -> nn.Module:
    """A batch norm whose `train` always says yes, as in a frozen recipe gone wrong."""

    class Always(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Always:
            return super().train(True)

    return dense(Always(32), nn.ReLU())


@network(PROVED)
def frozen_batch_norm() -> nn.Module:
    """A batch norm that never leaves evaluation: its statistics stay 0 and 1."""

    class Never(nn.BatchNorm2d):
        def train(self, mode: bool = True) -> Never:
            return super().train(False)

    return maps(Never(8))


@network(PROVED)
def standardized_weights() -> nn.Module:
    """Convolution whose weights are brought to mean 0 and variance 1 in each forward."""

    class Standardized(nn.Conv2d):
        def forward(self, inputs: Tensor) -> Tensor:
            variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
            weight = (self.weight - mean) / (variance + 1e-5).sqrt()
            return F.conv2d(inputs, weight, self.bias, padding=1)

    return maps(Standardized(8, 8, 3), nn.GroupNorm(4, 8), nn.ReLU())


@network(PROVED)
def unit_length() -> nn.Module:
    """Features of length 1: `F.normalize`, which keeps a least length."""
    return dense(lambda t: 4 * F.normalize(t, dim=1))


@network(NOT_PROVED)
def contrast_without_a_constant() -> nn.Module:
    """Pictures to mean 0 and deviation 1, with nothing added: 0/0 where a picture is flat."""
    return chain(
        lambda t: (t - t.mean((2, 3), keepdim=True)) / t.std((2, 3), keepdim=True), dense(nn.ReLU())
    )


@network(PROVED)
def contrast_with_a_constant() -> nn.Module:
    """The same with 1e-2 under the root."""
    return chain(
        lambda t: (
            (t - t.mean((2, 3), keepdim=True))
            / (t.var((2, 3), keepdim=True, correction=0) + 1e-2).sqrt()
        ),
        dense(nn.ReLU()),
    )


@network(PROVED)
def filter_response() -> nn.Module:
    """Filter response norm with a thresholded unit: no mean is taken away."""

    class Response(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.least = nn.Parameter(torch.zeros(1, 8, 1, 1))

        def forward(self, inputs: Tensor) -> Tensor:
            power = inputs.pow(2).mean((2, 3), keepdim=True)
            return torch.maximum(inputs * torch.rsqrt(power + 1e-6), self.least)

    return maps(Response())


@network(PROVED)
def global_response() -> nn.Module:
    """Global response norm: a channel against the mean of all (ConvNeXt V2)."""

    class Response(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1, 8, 1, 1))

        def forward(self, inputs: Tensor) -> Tensor:
            length = torch.linalg.vector_norm(inputs, dim=(2, 3), keepdim=True)
            return inputs + self.gain * inputs * length / (length.mean(1, keepdim=True) + 1e-6)

    return maps(Response())


@network(PROVED)
def switchable_norm() -> nn.Module:
    """A trained mixture of batch, layer and instance norm."""

    class Switch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            norms = nn.BatchNorm2d(8), nn.GroupNorm(1, 8), nn.InstanceNorm2d(8)
            self.norms = nn.ModuleList(norms)
            self.mixture = nn.Parameter(torch.zeros(3))

        def forward(self, inputs: Tensor) -> Tensor:
            answers = torch.stack([norm(inputs) for norm in self.norms])
            return torch.einsum("k,knchw->nchw", self.mixture.softmax(0), answers)

    return maps(Switch())


@network(ANY)
def synchronized_batch_norm() -> nn.Module:
    """`SyncBatchNorm`, which is a plain one where no processes are joined."""
    return nn.SyncBatchNorm.convert_sync_batchnorm(maps(nn.BatchNorm2d(8)))


@network(PROVED)
def whitening() -> nn.Module:
    """Batch whitening: a running covariance, saved, and its Newton-Schulz inverse root."""

    class Whiten(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(32))
            self.register_buffer("covariance", torch.eye(32))

        def forward(self, inputs: Tensor) -> Tensor:
            if self.training:
                self.mean.lerp_(inputs.detach().mean(0), 0.1)
                self.covariance.lerp_(inputs.detach().T.cov(), 0.1)
            matrix, root = self.covariance / self.covariance.trace(), torch.eye(32)
            for _ in range(4):
                root = 1.5 * root - 0.5 * root @ root @ root @ matrix
            return (inputs - self.mean) @ root / self.covariance.trace().sqrt()

    return dense(Whiten(), nn.Tanh())


@network(NOT_PROVED)
def ghost_batches() -> nn.Module:
    """Statistics of each half of the batch, in evaluation too."""

    def halves(inputs: Tensor) -> Tensor:
        parts = [part - part.mean(0) for part in inputs.chunk(2)]
        return torch.cat(parts)

    return dense(halves, nn.ReLU())
