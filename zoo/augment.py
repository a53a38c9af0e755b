"""Augmentation of whole batches of raw bytes, drawn on the CPU, computed where the batch is."""

from __future__ import annotations

import dataclasses
import functools
import random

import torch
from torch import Tensor
from torch.nn import functional as F

ERASED_AREA = (0.02, 0.33)
"""Share of a picture that random erasing takes, uniformly drawn."""
ERASED_ASPECT = (0.3, 3.3)
"""Height over width of what random erasing takes; its logarithm is uniformly drawn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Change each example of a batch by draws of its own; labels stay true.

    uint8 N x C x H x W -> the same shape, a new tensor; `raw` itself where nothing is active. In
    this order an example is mirrored (half of them are, with `flip`), turned and resized about
    its centre, moved by whole pixels, changed in contrast and brightness, made noisy, and erased
    in a rectangle. `shift` is the largest move along each axis, `rotate` (degrees), `zoom` (below
    1; 0.1 for sizes of 0.9 to 1.1), `shear` (degrees, below 90) and `jitter` (a share, of the
    contrast about the picture's mean and of the brightness) the largest change either way, all
    uniformly drawn; `noise` is the deviation of what is added, white being 1; `erase` is a
    probability.

    Flip and shift alone copy bytes; with rotate, zoom or shear all moves are one bilinear
    resampling, rounded to bytes. What comes from outside the picture is 0: the background of
    stored drawings, where repeating the edge would smear a stroke that touches it, and for
    photographs the usual padding. Random erasing (arXiv 1708.04896) fills with random bytes, as
    the paper does: one noise picture a batch, of which each rectangle shows its own part.

    Everything random comes from `generator`, a CPU one; how much is drawn depends on the batch's
    shape and the settings alone.
    """

    shift: int = 0
    flip: bool = False
    rotate: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    jitter: float = 0.0
    noise: float = 0.0
    erase: float = 0.0

    @property
    def active(self) -> bool:
        return self != Augmentation()

    def __call__(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        count, channels, height, width = raw.shape
        resamples = bool(self.rotate or self.zoom or self.shear)
        flips = torch.randint(2, (count,), generator=generator) if self.flip else None
        shifts = torch.zeros(2, count, dtype=torch.int64)
        if self.shift:
            shifts = torch.randint(-self.shift, self.shift + 1, (2, count), generator=generator)
        if resamples:
            largest = torch.tensor([[self.rotate], [self.zoom], [self.shear]])
            angles, sizes, shears = largest * (2 * torch.rand(3, count, generator=generator) - 1)
            raw = resample(raw, sources(flips, shifts, angles, 1 + sizes, shears))
        elif self.flip or self.shift:
            raw = move(raw, flips, shifts, reach=self.shift)
        if self.jitter or self.noise:
            factors = 1 + self.jitter * (2 * torch.rand(2, count, generator=generator) - 1)
            grain = None
            if self.noise:
                grain = self.noise * torch.randn(raw.shape, generator=generator)
            raw = recolour(raw, factors, grain)
        if self.erase:
            boxes = draw_boxes(count, height, width, self.erase, generator)
            noise = torch.randint(
                256, (channels, height, width), dtype=torch.uint8, generator=generator
            )
            raw = erase(raw, boxes, noise)
        return raw


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mix each example, and its target, with the one before it in a shuffled batch.

    uint8 N x C x H x W and int64 N -> uint8 of the same shape and targets, float32 N x classes,
    that sum to 1. `mixup` (arXiv 1710.09412) and `cutmix` (arXiv 1905.04899) are the alphas of
    Beta(alpha, alpha), of which one share a batch is drawn; 0 is off. With both, each batch takes
    either with probability one half. With none, `raw` itself and one-hot targets come back.

    Mixup rounds to the nearest byte. CutMix weighs a target by the pixels that are left of its
    example, after its box was cut at the border. Draws come from `generator` alone, a CPU one.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    classes: int

    @property
    def active(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def __call__(
        self, raw: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        targets = (labels[:, None] == torch.arange(self.classes, device=raw.device)).float()
        if not self.active:
            return raw, targets
        # A beta draw rejects, so it takes a generator of its own: one draw of ours seeds it.
        lot = random.Random(int(torch.randint(2**63 - 1, (), generator=generator)))
        cut = bool(self.cutmix) and (not self.mixup or lot.random() < 0.5)
        alpha = self.cutmix if cut else self.mixup
        kept = lot.betavariate(alpha, alpha)
        if cut:
            raw, kept = cut_and_paste(raw, kept, lot)
        else:
            own = raw.contiguous().float()
            raw = _to_bytes(torch.lerp(own.roll(1, 0), own, kept))
        return raw, torch.lerp(targets.roll(1, 0), targets, kept)


def move(raw: Tensor, flips: Tensor | None, shifts: Tensor, *, reach: int) -> Tensor:
    """Mirror where `flips` (N) is 1, then move down and right by `shifts` (2 x N, to `reach`)."""
    count, channels, height, width = raw.shape
    tall, wide = height + 2 * reach, width + 2 * reach
    versions = 1 if flips is None else 2
    framed = raw.new_zeros(versions, count, channels, tall, wide)
    inside = framed[..., reach : reach + height, reach : reach + width]
    inside[0] = raw
    picture = torch.arange(count)
    if flips is not None:
        inside[1] = raw.flip(3)
        picture = picture + flips * count
    down, right = shifts
    corner = (picture * channels * tall + reach - down) * wide + reach - right
    starts = _sent(corner, raw.device)[:, None, None] + (
        torch.arange(channels, device=raw.device)[:, None] * (tall * wide)
        + torch.arange(height, device=raw.device) * wide
    )
    rows = _copied_rows if raw.is_cpu else _gathered_rows
    return rows(framed.view(-1), starts.view(-1), width).view(raw.shape)


def _copied_rows(flat: Tensor, starts: Tensor, width: int) -> Tensor:
    # Every window of the bytes as a row: index_select copies rows whole, many times quicker than
    # indexing does element by element.
    return flat.unfold(0, width, 1).index_select(0, starts)


def _gathered_rows(flat: Tensor, starts: Tensor, width: int) -> Tensor:
    # Devices that cannot stride over overlapping windows would write all of them out first.
    return flat[starts[:, None] + torch.arange(width, device=flat.device)]


def sources(
    flips: Tensor | None, shifts: Tensor, angles: Tensor, sizes: Tensor, shears: Tensor
) -> Tensor:
    """Return where each pixel comes from: N x 2 x 3, (x, y, 1) -> (x, y), pixels off the centre.

    It is the inverse of: mirror, resize, shear along x, rotate, shift (2 x N: down, right).
    """
    cos, sin = angles.deg2rad().cos(), angles.deg2rad().sin()
    slope = shears.deg2rad().tan()
    down, right = shifts
    across = torch.stack([cos + slope * sin, sin - slope * cos]) / sizes  # 2 x N
    along = torch.stack([-sin, cos]) / sizes
    if flips is not None:
        across = across * (1 - 2 * flips)
    maps = torch.stack([across, along]).permute(2, 0, 1)  # N x 2 x 2
    offsets = -maps @ torch.stack([right, down], 1)[..., None].float()
    return torch.cat([maps, offsets], 2)


def resample(raw: Tensor, maps: Tensor) -> Tensor:
    """Take each pixel, bilinearly, from where `sources` says; 0 outside of the picture."""
    height, width = raw.shape[2:]
    # grid_sample measures each axis in halves of the picture's side.
    maps = _sent(maps * torch.tensor([[2 / width], [2 / height]]), raw.device)
    x, y = _centred(width, raw.device), _centred(height, raw.device)
    planes = maps[:, :, :1, None] * x + (maps[:, :, 1:2] * y + maps[:, :, 2:])[..., None]
    grid = planes.permute(0, 2, 3, 1)  # N x H x W x 2; affine_grid takes twenty times as long
    return _to_bytes(
        F.grid_sample(raw.float(), grid, "bilinear", padding_mode="zeros", align_corners=False)
    )


def recolour(raw: Tensor, factors: Tensor, grain: Tensor | None) -> Tensor:
    """Change contrast and brightness by `factors` (2 x N), and add `grain`, where white is 1."""
    contrast, brightness = _sent(factors, raw.device)[..., None, None, None]
    values = raw.contiguous().float()
    means = values.mean((1, 2, 3), keepdim=True)
    values = torch.lerp(means, values, contrast).mul_(brightness)
    if grain is not None:
        values = values.add_(_sent(grain, raw.device), alpha=255)
    return _to_bytes(values.clamp_(0, 255))


@functools.lru_cache(maxsize=64)
def _centred(side: int, device: torch.device) -> Tensor:
    return torch.arange(side, dtype=torch.float32, device=device) - (side - 1) / 2


def draw_boxes(
    count: int, height: int, width: int, probability: float, generator: torch.Generator
) -> Tensor:
    """Draw what random erasing takes: 4 x N, top, bottom, left and right; empty where spared.

    Where a picture is too long for every area and aspect, the aspect gives way to what fits.
    """
    chosen, share, shape, vertical, horizontal = torch.rand(5, count, generator=generator)
    smallest, largest = ERASED_AREA
    area = (smallest + (largest - smallest) * share) * (height * width)
    narrow, tall = (
        torch.full_like(area, bound).clamp(area / width**2, height**2 / area)
        for bound in ERASED_ASPECT
    )
    aspect = narrow * (tall / narrow) ** shape
    rows = (area * aspect).sqrt().round().clamp(1, height)
    columns = (area / aspect).sqrt().round().clamp(1, width)
    top = (vertical * (height - rows + 1)).floor()
    left = (horizontal * (width - columns + 1)).floor()
    rows = torch.where(chosen < probability, rows, 0)
    return torch.stack([top, top + rows, left, left + columns]).to(torch.int64)


def erase(raw: Tensor, boxes: Tensor, noise: Tensor) -> Tensor:
    """Fill the box of each example (4 x N) with its part of `noise`, C x H x W."""
    top, bottom, left, right = _sent(boxes, raw.device)[..., None]
    rows = torch.arange(raw.shape[2], device=raw.device)
    columns = torch.arange(raw.shape[3], device=raw.device)
    across = ((rows >= top) & (rows < bottom)).to(torch.uint8) * 255  # N x H
    along = ((columns >= left) & (columns < right)).to(torch.uint8) * 255
    mask = (across[:, :, None] & along[:, None, :])[:, None]  # N x 1 x H x W
    raw = raw.contiguous()
    # On bytes, bit operations are several times quicker than torch.where.
    erased: Tensor = raw ^ ((raw ^ _sent(noise, raw.device)) & mask)
    return erased


def cut_and_paste(raw: Tensor, kept: float, lot: random.Random) -> tuple[Tensor, float]:
    """Paste a box of the example before onto each; return the share of pixels really kept."""
    height, width = raw.shape[2:]
    side = (1 - kept) ** 0.5
    rows, columns = round(height * side), round(width * side)
    top = lot.randrange(height) - rows // 2
    left = lot.randrange(width) - columns // 2
    box = (
        ...,
        slice(max(top, 0), min(top + rows, height)),
        slice(max(left, 0), min(left + columns, width)),
    )
    pasted = raw[box].roll(1, 0)
    mixed = raw.clone(memory_format=torch.contiguous_format)
    mixed[box] = pasted
    return mixed, 1 - pasted[0, 0].numel() / (height * width)


def _to_bytes(values: Tensor) -> Tensor:
    # By way of int16, which the CPU converts in vectors: four times as quick as straight to uint8.
    return values.round_().to(torch.int16).to(torch.uint8)


def _sent(drawn: Tensor, device: torch.device) -> Tensor:
    # Only CUDA stages ordinary memory before it returns, so that no one need wait.
    return drawn.to(device, non_blocking=device.type == "cuda")
