"""Whole numbers and steps: bytes, bits, quotients, rounding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import ANY, PROVED, network
from odd.parts import chain, counted, dense


@network(PROVED)
def embedded_bytes() -> nn.Module:
    """Every byte looked up in a table of 256 vectors."""
    return chain(
        lambda t: counted(t).flatten(1), nn.Embedding(256, 4), nn.Flatten(), nn.Linear(256, 16)
    )


@network(ANY)
def planes_of_bits() -> nn.Module:
    """Bytes taken apart into eight planes by shifts and masks of int64."""

    def planes(inputs: Tensor) -> Tensor:
        return (counted(inputs) >> torch.arange(8).view(1, 8, 1, 1) & 1).float()

    return chain(planes, nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 16))


@network(ANY)
def bits_of_small_integers() -> nn.Module:
    """The same in uint8: shifts, exclusive or, complement; numbers that wrap around."""

    def mixed(inputs: Tensor) -> Tensor:
        byte = counted(inputs).to(torch.uint8)
        return (((byte << 3) ^ (byte >> 2) ^ ~byte) & 0x7F).float() / 64 - 1

    return chain(mixed, dense(nn.ReLU()))


@network(ANY)
def wrapped_integers() -> nn.Module:
    """A hash of neighbours in int32, whose products overflow."""

    def hashed(inputs: Tensor) -> Tensor:
        mixed = counted(inputs).to(torch.int32) * 1_000_003 + 374_761_393
        return (mixed & 0xFF).float() / 128 - 1

    return chain(hashed, dense(nn.ReLU()))


@network(ANY)
def negative_numbers_to_bytes() -> nn.Module:
    """Negative floats cast to uint8, which no language defines."""
    return dense(lambda t: (20 * t).to(torch.uint8).float() / 64 + t, nn.ReLU())


@network(PROVED)
def floored_quotients() -> nn.Module:
    """`//` and `%` of negative whole numbers, which languages round differently."""

    def divided(inputs: Tensor) -> Tensor:
        number = counted(inputs) - 128
        return (number // 7).float() / 8 + (number % 7).float() / 4 - torch.fmod(number, 5) / 4

    return chain(divided, dense(nn.ReLU()))


@network(PROVED)
def truncated_quotients() -> nn.Module:
    """`div` with `trunc` and `floor`, `remainder` of floats of both signs."""

    def divided(inputs: Tensor) -> Tensor:
        number = (counted(inputs) - 128).float()
        parts = (number.div(16, rounding_mode=mode) / 4 for mode in ("trunc", "floor"))
        return sum(parts, torch.remainder(number, -3.0) / 4)

    return chain(divided, dense(nn.ReLU()))


@network(PROVED)
def histogram() -> nn.Module:
    """How many pixels are in each of 16 ranges of brightness: `one_hot`, summed."""
    return chain(
        lambda t: F.one_hot(counted(t).flatten(1) // 16, 16).sum(1).float() / 8, nn.Linear(16, 16)
    )


@network(ANY)
def histogram_by_scatter() -> nn.Module:
    """The same by `scatter_add`, 64 additions to 16 places."""

    def summed(inputs: Tensor) -> Tensor:
        places = counted(inputs).flatten(1) // 16
        return torch.zeros(len(inputs), 16).scatter_add(1, places, torch.ones(places.shape)) / 8

    return chain(summed, nn.Linear(16, 16))


@network(PROVED)
def halves_to_even() -> nn.Module:
    """Bytes to halves: `round` takes them to even numbers, not up."""
    return chain(lambda t: (counted(t) / 2 - 32).round() / 16 - 2, dense(nn.ReLU()))


@network(ANY)
def steps_of_activations() -> nn.Module:
    """Activations rounded to quarters straight through: a step may fall either way."""
    return dense(lambda t: t + ((t * 4).round() / 4 - t).detach(), nn.ReLU())


@network(ANY)
def signs_of_activations() -> nn.Module:
    """A binary network: signs of activations, their slope a clipped line's."""

    def signs(inputs: Tensor) -> Tensor:
        soft = inputs.clamp(-1, 1)
        return soft + (inputs.sign() - soft).detach()

    return dense(signs, nn.Linear(32, 32), signs)


@network(ANY)
def fake_quantized() -> nn.Module:
    """`torch.fake_quantize_per_tensor_affine`, as quantization-aware training has it."""
    return dense(lambda t: torch.fake_quantize_per_tensor_affine(t, 0.05, 0, -128, 127), nn.ReLU())
