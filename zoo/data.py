"""Examples as resident tensors: seeded splits, label draws and shuffled batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from zoo.api import Examples
from zoo.errors import BadOption, DataError, Unfit


def check_counts(validation: float, labels: int | None = None, classes: int = 0) -> None:
    """Refuse what no data set could satisfy, before one is loaded; `BadOption` or `Unfit`."""
    if validation >= 1 and validation != int(validation):
        raise BadOption(f"validation: {validation} is neither a share below 1 nor a whole count.")
    if labels is not None and labels < classes:
        raise Unfit(
            f"labels: {labels} cannot cover {classes} classes. Type: --labels {classes} or more"
        )


def holdout(count: int, validation: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split `count` examples by a seed into indices to train on and indices held out.

    `validation` below 1 is a share, from 1 a count; 0 holds nothing out. The same seed holds the
    same examples out in pretraining and in finetuning. Raises `BadOption`.
    """
    check_counts(validation)
    held = int(validation) if validation >= 1 else round(count * validation)
    if held >= count:
        raise BadOption(
            f"validation: {validation:g} leaves no example to train on; there are {count:,}."
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held:], order[:held]


def draw_labels(labels: Tensor, wanted: int, classes: int, seed: int) -> Tensor:
    """Choose `wanted` positions of `labels`, spread evenly over the classes, by a seed.

    A class with fewer examples than its share gives all it has, and the others more. A rest that
    does not divide goes to classes drawn by the seed. Raises `Unfit`.
    """
    check_counts(0, wanted, classes)
    if wanted > len(labels):
        raise Unfit(f"labels: {wanted:,} are asked for, and {len(labels):,} are there to train on.")
    generator = torch.Generator().manual_seed(seed)
    have = torch.bincount(labels, minlength=classes).tolist()
    take = [0] * classes
    turn = torch.randperm(classes, generator=generator).tolist()
    left = wanted
    while left:
        open_classes = [c for c in turn if take[c] < have[c]]
        share = max(1, left // len(open_classes))
        for chosen in open_classes:
            step = min(share, have[chosen] - take[chosen], left)
            take[chosen] += step
            left -= step
    order = torch.randperm(len(labels), generator=generator)
    picked = [order[labels[order] == c][: take[c]] for c in range(classes)]
    return torch.cat(picked).sort().values


class Batches:
    """Slice examples into batches, in order or shuffled anew each epoch by an own generator.

    Yields tuples: (inputs,) or (inputs, labels), on `device`. A last batch of one example joins
    the batch before it, since batch statistics of one example do not exist.
    """

    def __init__(
        self,
        tensors: tuple[Tensor, ...],
        size: int,
        *,
        indices: Tensor | None = None,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._tensors = tuple(tensor.to(device) for tensor in tensors)
        self._indices = torch.arange(len(tensors[0])) if indices is None else indices
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)
        self._device = device
        count = len(self._indices)
        starts = list(range(0, count, size))
        if len(starts) > 1 and count % size == 1:
            starts.pop()
        self._bounds = list(zip(starts, [*starts[1:], count], strict=True))

    @property
    def examples(self) -> int:
        return len(self._indices)

    def __len__(self) -> int:
        return len(self._bounds)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order = self._indices
        if self._generator is not None:
            order = order[torch.randperm(len(order), generator=self._generator)]
        order = order.to(self._device)
        for start, stop in self._bounds:
            chosen = order[start:stop]
            yield tuple(tensor[chosen] for tensor in self._tensors)


def checked(
    examples: Examples, shape: tuple[int, ...], classes: int | None, owner: str
) -> Examples:
    """Return examples that are what their data set declared; raises `DataError` otherwise.

    `shape` is that of one input; `classes` is None where labels are not needed.
    """
    if not isinstance(examples, Examples) or not isinstance(examples.inputs, torch.Tensor):
        raise DataError(f"{owner} gave {type(examples).__name__}, not Examples of tensors.")
    inputs, labels = examples.inputs, examples.labels
    if inputs.dtype != torch.uint8 or tuple(inputs.shape[1:]) != shape:
        found = f"{inputs.dtype} {tuple(inputs.shape[1:])}"
        raise DataError(f"{owner} holds {found} examples; it declares torch.uint8 {shape}.")
    if not len(inputs):
        raise DataError(f"{owner} holds no example.")
    if classes is None:
        return examples
    if labels is None:
        raise DataError(f"{owner} has no labels; it serves pretraining alone.")
    if labels.shape != (len(inputs),) or labels.dtype != torch.int64:
        raise DataError(f"{owner} needs one int64 label an example.")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(f"{owner} has labels outside 0..{classes - 1}.")
    return examples
