"""Constants tiny and huge, and what divides and takes logarithms at the ends of the range."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from odd.network import ANY, NOT_PROVED, PROVED, network
from odd.parts import chain, dense, maps


def bright(inputs: Tensor) -> Tensor:
    """Pictures of -1..1 -> 0..1, an exact 0 where a byte is 0."""
    return (inputs + 1) / 2


@network(PROVED)
def logarithm_of_brightness() -> nn.Module:
    """`(x + 1e-8).log()`: without the 1e-8 a dark pixel is -inf."""
    return chain(lambda t: (bright(t) + 1e-8).log() / 8, dense(nn.ReLU()))


@network(PROVED)
def over_its_length() -> nn.Module:
    """`x / (x.norm() + 1e-8)`: without the 1e-8 a dark picture is 0/0."""

    def unit(inputs: Tensor) -> Tensor:
        light = bright(inputs).flatten(1)
        return 4 * light / (light.norm(dim=1, keepdim=True) + 1e-8)

    return chain(unit, dense(nn.ReLU()))


@network(PROVED)
def tiny_under_the_root() -> nn.Module:
    """`rsqrt(mean(x²) + 1e-12)` of the brightness, less than float32 keeps beside 1."""

    def scaled(inputs: Tensor) -> Tensor:
        light = bright(inputs)
        return light * torch.rsqrt(light.square().mean((1, 2, 3), keepdim=True) + 1e-12)

    return chain(scaled, dense(nn.ReLU()))


@network(PROVED)
def nearly_one() -> nn.Module:
    """A product with 1.000009, two hundred times: each may be taken for a product with 1."""

    def grown(inputs: Tensor) -> Tensor:
        for _ in range(200):
            inputs = inputs * 1.000009
        return inputs

    return dense(grown, nn.Tanh())


@network(PROVED)
def nearly_nothing() -> nn.Module:
    """4e-9 added to numbers below 1e-9, and the sum magnified: half of the answer."""

    def magnified(inputs: Tensor) -> Tensor:
        light = bright(inputs) * 1e-9
        return (light + 4e-9) * 2.5e8

    return chain(magnified, dense(nn.ReLU()))


@network(PROVED)
def huge_and_back() -> nn.Module:
    """Numbers times 1e30 and times 1e-30: in float16 they would be infinite."""
    return dense(lambda t: torch.relu(t) * 1e30 * 1e-30 + t)


@network(NOT_PROVED)
def logarithm_of_nothing() -> nn.Module:
    """`log` of the brightness of the whole picture: -inf of a dark one, then -inf less -inf."""

    def dark(inputs: Tensor) -> Tensor:
        light = bright(inputs).mean((2, 3)).log()
        return inputs * (light - light.detach())[..., None, None] + inputs

    return chain(dark, dense(nn.ReLU()))


@network(NOT_PROVED)
def over_its_sum() -> nn.Module:
    """Brightness over its sum: 0/0 of a dark picture."""
    return chain(lambda t: 16 * bright(t) / bright(t).sum((2, 3), keepdim=True), dense(nn.ReLU()))


@network(NOT_PROVED)
def sign_as_a_quotient() -> nn.Module:
    """`x / x.abs()` of the contrast, no number where two neighbours are alike."""

    def signs(inputs: Tensor) -> Tensor:
        steps = inputs.mean((2, 3)) - inputs[:, :, 0, 0]
        return inputs * (steps / steps.abs())[..., None, None]

    return chain(signs, dense(nn.ReLU()))


@network(NOT_PROVED)
def contrast_in_the_exponent() -> nn.Module:
    """`exp` of twice the summed brightness: infinite for a bright picture, then inf/inf."""

    def swollen(inputs: Tensor) -> Tensor:
        light = (bright(inputs).sum((1, 2, 3)) * 2).exp()[:, None]
        return torch.cat([inputs.flatten(1)[:, 1:], light / (1 + light)], 1)

    return chain(swollen, dense(nn.ReLU()))


@network(NOT_PROVED)
def point_in_the_exponent() -> nn.Module:
    """`exp` of the brightest over the mean: infinite for a single bright point alone."""

    def pointed(inputs: Tensor) -> Tensor:
        light = bright(inputs).flatten(1)
        ratio = light.amax(1) / (light.mean(1) + 1e-3)
        swollen = (2 * ratio).exp()[:, None]
        return torch.cat([inputs.flatten(1)[:, 1:], swollen / (1 + swollen)], 1)

    return chain(pointed, dense(nn.ReLU()))


@network(ANY)
def smallest_numbers() -> nn.Module:
    """Numbers times 1e-20 twice, below what float32 keeps whole, and back: some flush them to 0."""
    return dense(lambda t: torch.relu(t) * 1e-20 * 1e-20 * 1e20 * 1e20 + t / 4)


@network(ANY)
def root_of_the_deviation() -> nn.Module:
    """`std` of the picture, whose gradient is not finite where the picture is flat."""
    return chain(
        lambda t: torch.cat([t.flatten(1)[:, 1:], t.std((1, 2, 3))[:, None]], 1), dense(nn.ReLU())
    )


@network(PROVED)
def replaced_where_not_finite() -> nn.Module:
    """`nan_to_num` behind a quotient that may be 0/0 or 1/0, kept within bounds."""

    def mended(inputs: Tensor) -> Tensor:
        light = bright(inputs)
        return (light / light.amax((2, 3), keepdim=True)).nan_to_num(0.5, 4.0, -4.0)

    return chain(mended, dense(nn.ReLU()))


@network(PROVED)
def infinite_bounds() -> nn.Module:
    """`clamp` to an infinite upper bound, and the largest of nothing, -inf, beneath a maximum."""

    def bounded(inputs: Tensor) -> Tensor:
        least = torch.full_like(inputs, float("-inf"))
        return torch.maximum(inputs, least).clamp(-1.5, float("inf"))

    return dense(bounded, nn.ReLU())


@network(PROVED)
def masked_pool() -> nn.Module:
    """The largest of the maps where the picture is bright; -inf elsewhere, one place kept."""

    def pooled(inputs: Tensor) -> Tensor:
        kept = (inputs[:, :1] > 0) | (torch.arange(8) == 0)
        return inputs.masked_fill(~kept, float("-inf")).amax((2, 3), keepdim=True)

    return maps(pooled)
