"""The classifier that a file was made from: what it answers, asked as a device asks the file."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
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
        self.classifier.eval()
        return _in_batches(self.classifier, images, batch).to(torch.float32).numpy()

    def exact(self, images: Array, batch: int) -> Array | None:
        """Run in double precision from the preprocessed input on, in batches as `logits` does.

        None where it cannot be; raises `OutOfMemory`.
        """
        self.classifier.eval()
        try:
            whole: Any = copy.deepcopy(self.classifier).double()

            def run(part: torch.Tensor) -> torch.Tensor:
                inputs = self.classifier.preprocess(part).double()  # type: ignore[operator]
                answers: torch.Tensor = whole.head(whole.encoder(inputs))
                return answers

            return _in_batches(run, images, batch).numpy()
        except OutOfMemory:
            raise
        except Exception as error:
            if ran_out(error):
                raise OutOfMemory("PyTorch ran out of memory in double precision.") from error
            return None  # a component may write single precision into its code

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


def _in_batches(
    run: Callable[[torch.Tensor], torch.Tensor], images: Array, batch: int
) -> torch.Tensor:
    count = len(images)
    filled = np.resize(images, (-(-count // batch) * batch, *images.shape[1:]))
    try:
        with torch.no_grad():
            parts = [run(part) for part in torch.split(torch.from_numpy(filled), batch)]
    except Exception as error:
        if ran_out(error):
            what = "a single example" if batch == 1 else f"a batch of {batch}"
            raise OutOfMemory(f"PyTorch ran out of memory on {what}.", batch) from error
        raise
    for part in parts:  # of one example a component may answer with an axis less
        if part.ndim != 2 or len(part) != batch:
            shape = "×".join(map(str, part.shape)) or "a scalar"
            raise ValueError(f"the answers to {batch} have the shape {shape}")
    return torch.cat(parts)[:count]


def _finite(tensor: torch.Tensor) -> bool:
    return bool(tensor.detach().isfinite().all())
