"""Functions of every sort: exponentials, angles, broken lines, norms, linear algebra."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import ANY, PROVED, network
from odd.parts import chain, dense, maps, tokens


@network(PROVED)
def powers_and_logarithms() -> nn.Module:
    """Generalized mean pool: a trained power, its root, a clamp beneath."""

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.power = nn.Parameter(torch.tensor(3.0))

        def forward(self, inputs: Tensor) -> Tensor:
            raised = inputs.clamp(min=1e-6).pow(self.power)
            return F.avg_pool2d(raised, 8).pow(1 / self.power)

    return maps(Mean())


@network(PROVED)
def sums_of_exponentials() -> nn.Module:
    """`logsumexp`, `logaddexp`, `softplus` with a threshold, `log1p` and `expm1`."""
    return tokens(
        nn.Linear(16, 16),
        lambda t: torch.logaddexp(t, -t) + t.logsumexp(1, keepdim=True) / 4,
        lambda t: F.softplus(t, beta=3, threshold=5) - torch.log1p(torch.expm1(t / 8).abs()),
    )


@network(PROVED)
def angles() -> nn.Module:
    """Sine layers of a high frequency (SIREN), angles by `atan2` behind them."""

    def polar(inputs: Tensor) -> Tensor:
        first, second = inputs.chunk(2, 1)
        length = (first.square() + second.square()).sqrt()
        return torch.cat([torch.atan2(first, second + 2), length], 1)

    return dense(lambda t: torch.sin(30 * t / 8), nn.Linear(32, 32), torch.cos, polar)


@network(PROVED)
def error_functions() -> nn.Module:
    """GELU both ways, `erf`, and every activation that torch makes of exponentials."""
    parts = nn.GELU(), nn.GELU("tanh"), nn.SELU(), nn.CELU(2), nn.Mish(), nn.SiLU()
    return dense(*parts, nn.Linear(32, 32), torch.erf, nn.Softsign(), nn.Tanhshrink(), nn.ELU(2))


@network(PROVED)
def broken_lines() -> nn.Module:
    """Every piecewise linear activation: hard, shrunk, leaky, thresholded, capped."""
    parts = nn.Hardswish(), nn.Softshrink(0.1), nn.LeakyReLU(), nn.PReLU(), nn.ReLU6()
    return dense(
        *parts, nn.Linear(32, 32), nn.Hardtanh(-2, 2), nn.Threshold(-1, -0.5), nn.Hardsigmoid()
    )


@network(PROVED)
def gated_halves() -> nn.Module:
    """`nn.GLU`, then maxout: the larger of two halves."""
    return dense(nn.GLU(1), nn.Linear(16, 32), lambda t: t.unflatten(1, (16, 2)).amax(2), out=16)


@network(ANY)
def distances_to_prototypes() -> nn.Module:
    """Gaussian radial basis functions: `cdist` to trained centres."""

    class Centres(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centres = nn.Parameter(torch.randn(24, 16))

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.exp(-torch.cdist(inputs, self.centres) / 4)

    return dense(Centres(), width=16, out=24)


@network(ANY)
def solved_within() -> nn.Module:
    """Ridge regression of the tokens in forward: `linalg.solve` of each picture's own matrix."""

    def solved(inputs: Tensor) -> Tensor:
        gram = inputs @ inputs.mT + torch.eye(8)
        return torch.linalg.solve(gram, inputs)

    return tokens(solved)


@network(ANY)
def determinant() -> nn.Module:
    """The determinant of the rows' products as a feature."""

    def volume(inputs: Tensor) -> Tensor:
        gram = torch.eye(8) + inputs @ inputs.mT / 16
        return inputs + gram.logdet()[:, None, None].tanh()

    return tokens(volume)


@network(ANY)
def gamma_functions() -> nn.Module:
    """`lgamma` and `digamma`, which ONNX does not have; `hypot` with them."""
    return dense(
        lambda t: torch.lgamma(1 + t.abs()) + torch.digamma(2 + torch.hypot(t, t + 1)), nn.Tanh()
    )


@network(ANY)
def spectrum() -> nn.Module:
    """The amplitudes of a two-dimensional Fourier transform of the picture."""
    return chain(lambda t: torch.fft.rfft2(t).abs() / 8, nn.Flatten(), nn.Linear(40, 16))


@network(ANY)
def mixed_by_fourier() -> nn.Module:
    """FNet: the real part of a transform along tokens and channels in place of attention."""
    return tokens(lambda t: t + torch.fft.fft2(t).real / 8)


@network(PROVED)
def double_sums() -> nn.Module:
    """Means and variances summed in float64 and returned in float32."""

    def standardized(inputs: Tensor) -> Tensor:
        exact = inputs.double()
        deviation = (exact.var(1, keepdim=True) + 1e-6).sqrt()
        return ((exact - exact.mean(1, keepdim=True)) / deviation).float()

    return dense(standardized)


@network(ANY)
def cancelled_digits() -> nn.Module:
    """Variance as the mean square less the square mean, far from zero: most digits cancel."""

    def variance(inputs: Tensor) -> Tensor:
        far = inputs + 300
        spread = far.square().mean(1, keepdim=True) - far.mean(1, keepdim=True).square()
        return inputs / (spread.abs() + 1e-3).sqrt()

    return dense(variance, nn.Tanh())


@network(PROVED)
def sharp_softmax() -> nn.Module:
    """Softmax at temperature 0.02: differences count fifty times."""
    return dense(lambda t: (t.tanh() / 0.02).softmax(1) * 4)


@network(PROVED)
def cosine_and_norms() -> nn.Module:
    """`cosine_similarity` to trained directions, p-norms of 1, 3 and infinity."""

    class Directions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.directions = nn.Parameter(torch.randn(13, 32))

        def forward(self, inputs: Tensor) -> Tensor:
            alike = F.cosine_similarity(inputs[:, None], self.directions, dim=2)
            norms = [torch.linalg.vector_norm(inputs, p, 1) for p in (1, 3, math.inf)]
            return torch.cat([alike, torch.stack(norms, 1) / 8], 1)

    return dense(Directions(), out=16)
