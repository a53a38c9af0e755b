"""The published sets, held whole as one uint8 tensor, through torchvision's own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torchvision.datasets

from zoo.api import DataError, Dataset, Examples
from zoo_images.catalogue import Published
from zoo_images.fetch import fetch
from zoo_images.integrity import missing, verify


def build(published: Published, root: Path) -> Dataset:
    return Dataset(
        input=published.input,
        classes=published.classes,
        train=lambda: _load(published, root, train=True),
        test=lambda: _load(published, root, train=False),
    )


def reader(published: Published) -> Any:
    """Return torchvision's class, made to read the raw files that were verified and no others."""
    theirs = getattr(torchvision.datasets, published.torchvision)
    # Its pre-2021 cache in a `processed` folder would be read in place of the raw files.
    return type(theirs.__name__, (theirs,), {"_check_legacy_exist": lambda self: False})


def arguments(published: Published) -> dict[str, Any]:
    return {"split": "letters"} if published.torchvision == "EMNIST" else {}


def _load(published: Published, root: Path, *, train: bool) -> Examples:
    if missing(published, root):
        fetch(published, root, reader(published), arguments(published))
    verify(published, root, published.train if train else published.test)
    try:
        loaded = reader(published)(str(root), train=train, **arguments(published))
    except Exception as error:
        raise DataError(f"{published.name} under '{root}' cannot be read: {error}") from error
    return to_examples(published, loaded.data, loaded.targets)


def to_examples(published: Published, data: Any, targets: Any) -> Examples:
    """Turn torchvision's whole arrays into ours: uint8 N x C x H x W, labels from 0."""
    inputs = torch.as_tensor(data)
    labels = torch.as_tensor(targets, dtype=torch.int64)
    if published.torchvision == "EMNIST":
        # NIST stored them transposed, and counted the letters from 1.
        inputs, labels = inputs.transpose(1, 2), labels - 1
    # Photographs come as N x H x W x C, grey sets as N x H x W.
    inputs = inputs.permute(0, 3, 1, 2) if inputs.ndim == 4 else inputs.unsqueeze(1)
    wrong = (labels < 0) | (labels >= len(published.classes))
    if bool(wrong.any()):
        value = int(labels[wrong][0])
        raise DataError(
            f"{published.name} has a label {value}; there are {len(published.classes)}."
        )
    return Examples(inputs=inputs.contiguous(), labels=labels)
