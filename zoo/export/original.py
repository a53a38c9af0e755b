"""The classifier that a file was made from: what it answers, asked as a device asks the file."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo.errors import OutOfMemory, ran_out

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Original:
    """A classifier of raw bytes, in PyTorch."""

    classifier: nn.Module

    def logits(self, images: Array, batch: int) -> Array:
        """Run uint8 N x C x H x W in batches of one size, the last one filled up; float32 N x C.

        A component's own errors come through as they are; raises `OutOfMemory`.
        """
        count = len(images)
        filled = np.resize(images, (-(-count // batch) * batch, *images.shape[1:]))
        self.classifier.eval()
        try:
            with torch.no_grad():
                given = torch.split(torch.from_numpy(filled), batch)
                parts = [self.classifier(part) for part in given]
        except Exception as error:
            if ran_out(error):
                raise OutOfMemory(f"PyTorch ran out of memory on a batch of {batch}.") from error
            raise
        for part in parts:  # of one example a component may answer with an axis less
            if part.ndim != 2 or len(part) != batch:
                shape = "×".join(map(str, part.shape)) or "a scalar"
                raise ValueError(f"the answers to {batch} have the shape {shape}")
        return torch.cat(parts).to(torch.float32).numpy()[:count]

    def exact(self, images: Array) -> Array | None:
        """Run in double precision from the preprocessed input on; None where it cannot be."""
        try:
            whole: Any = copy.deepcopy(self.classifier).double().eval()
            with torch.no_grad():
                inputs = self.classifier.preprocess(torch.from_numpy(images))  # type: ignore[operator]
                return np.asarray(whole.head(whole.encoder(inputs.double())))
        except Exception:  # a component may write single precision into its code
            return None

    @property
    def unsound(self) -> list[str]:
        """Name the parameters that are not finite, and the buffers that hold NaN."""
        wrong = [name for name, each in self.classifier.named_parameters() if not _finite(each)]
        return wrong + [
            n for n, each in self.classifier.named_buffers() if bool(each.isnan().any())
        ]

    @property
    def infinite(self) -> list[str]:
        """Name the buffers that hold an infinity, as masks do."""
        return [n for n, each in self.classifier.named_buffers() if bool(each.isinf().any())]


def _finite(tensor: torch.Tensor) -> bool:
    return bool(tensor.detach().isfinite().all())
