"""The digits inside scikit-learn: E. Alpaydin, C. Kaynak, UCI, 1998; 1,797 images of 8×8."""

from __future__ import annotations

from typing import Any

import torch

from zoo.api import Dataset, Examples, ImageInput

TRAIN = 1437
"""The first 1,437 images train, the last 360 test: later pages, so partly other writers."""


def build() -> Dataset:
    return Dataset(
        input=ImageInput(channels=1, height=8, width=8),
        classes=tuple("0123456789"),
        train=lambda: _load(slice(0, TRAIN)),
        test=lambda: _load(slice(TRAIN, None)),
    )


def _load(part: slice) -> Examples:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    # 0..16 counts of ink become the full scale of a byte.
    inputs = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)
    labels = torch.from_numpy(digits.target).long()
    return Examples(inputs=inputs.unsqueeze(1)[part], labels=labels[part])  # N x 1 x 8 x 8
