"""Pictures that are nearly the same, though no byte need be: one is tested on, one trained on.

Two are, where their difference hashes are equal and their bytes correlate almost wholly. The hash
says of 8 rows of 9 grey cells which is brighter than the one before it, 64 bits (N. Krawetz, "Kind
of Like That", 2013); a picture that is nearly flat has too few of them to tell.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]

ROWS, COLUMNS = 8, 9
BRIGHTER = 2
"""Of 255: what a cell is brighter than its left neighbour by, at least, where that is a bit."""
FEWEST = 8
"""Bits of a picture that is not flat."""
LEAST = 0.99
"""Pearson's correlation of two pictures' bytes, at least: it spares brightness and contrast."""
COMPARED = 64
"""Pictures of one hash that another is compared with, at most."""
PIECE = 256

LUMA = (0.299, 0.587, 0.114)


def near_pairs(tested: Tensor, others: Tensor) -> list[tuple[int, int]]:
    """Return (test, other) for each test picture that is nearly another: uint8 N x C x H x W."""
    hashes, usable = difference_hashes(tested)
    elsewhere, also = difference_hashes(others)
    usable &= np.isin(hashes, elsewhere[also])
    order = np.argsort(elsewhere, kind="stable")
    order = order[also[order]]
    starts = np.searchsorted(elsewhere[order], hashes, side="left")
    stops = np.searchsorted(elsewhere[order], hashes, side="right")
    found = []
    for at in np.flatnonzero(usable).tolist():
        alike = order[starts[at] : stops[at]][:COMPARED]
        alikeness = _standard(others[torch.from_numpy(alike)]) @ _standard(tested[at : at + 1])[0]
        best = int(alikeness.argmax())
        if float(alikeness[best]) >= LEAST:
            found.append((at, int(alike[best])))
    return found


def _standard(pixels: Tensor) -> Tensor:
    """Return pictures as vectors of mean 0 and length 1: N x (C H W)."""
    flat = pixels.float().flatten(1)
    return torch.nn.functional.normalize(flat - flat.mean(1, keepdim=True), dim=1)


def difference_hashes(pixels: Tensor) -> tuple[Array, Array]:
    """Return each picture's hash, uint64 N, and whether it is not too flat to have one, bool N."""
    hashes = [np.empty(0, np.uint64)]
    usable = [np.empty(0, bool)]
    for start in range(0, len(pixels), PIECE):
        piece = pixels[start : start + PIECE]
        grey = piece.float()
        if grey.shape[1] == len(LUMA):
            grey = (grey * torch.tensor(LUMA).view(1, -1, 1, 1)).sum(1, keepdim=True)
        cells = torch.nn.functional.adaptive_avg_pool2d(grey, (ROWS, COLUMNS))[:, 0]
        bits = (cells[:, :, 1:] - cells[:, :, :-1] > BRIGHTER).flatten(1)
        hashes.append(np.packbits(bits.numpy(), axis=1).view(np.uint64)[:, 0])
        usable.append((bits.sum(1) >= FEWEST).numpy())
    return np.concatenate(hashes), np.concatenate(usable)
