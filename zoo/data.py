"""Examples as tensors, resident or memory-mapped: seeded splits, label draws, shuffled batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

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
        raise Unfit(
            f"labels: {wanted:,} are asked for, and {len(labels):,} are there to train on."
            f" Type: --labels {len(labels)} or fewer"
        )
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


def labelled(
    labels: Tensor, wanted: int | None, classes: int, validation: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Choose by a seed which of `labels` are trained on, and which are held out before that.

    `wanted` in all are trained on, spread evenly over the classes; None takes every one that is
    not held out. What is held out carries labels of its own: `validation` 0 holds nothing out.
    """
    train, held = holdout(len(labels), validation, seed)
    if wanted is not None:
        train = train[draw_labels(labels[train], wanted, classes, seed)]
    return train, held


Parts = Tensor | Sequence[Tensor]
"""Examples as one tensor, or as several that are numbered through, none of them copied."""


class Batches:
    """Slice examples into batches, in order or shuffled anew each epoch by an own generator.

    Yields tuples: (inputs,) or (inputs, labels), on `device`. There all examples live as one tensor
    where they fit; what does not, or is memory-mapped, stays where it is and only batches travel.
    A last batch of fewer than `least` examples joins the batch before it, since batch statistics of
    one example do not exist.
    """

    def __init__(
        self,
        tensors: Sequence[Parts | Column],
        size: int,
        *,
        indices: Tensor | None = None,
        seed: int | None = None,
        device: torch.device | str = "cpu",
        least: int = 2,
    ) -> None:
        self.device = torch.device(device)
        self._columns = [
            each if isinstance(each, Column) else Column(each, self.device) for each in tensors
        ]
        self._indices = torch.arange(len(self._columns[0])) if indices is None else indices
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)
        self._began = self._now()
        count = len(self._indices)
        starts = list(range(0, count, size))
        if len(starts) > 1 and 0 < count % size < least:
            starts.pop()
        self._bounds = list(zip(starts, [*starts[1:], count], strict=True))
        self.sizes = [stop - start for start, stop in self._bounds]

    @property
    def examples(self) -> int:
        return len(self._indices)

    def __len__(self) -> int:
        return len(self._bounds)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self.epoch()

    def epoch(self, first: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """Draw an order and yield its batches from number `first` on."""
        self._began = self._now()
        order = self._indices
        if self._generator is not None:
            order = order[torch.randperm(len(order), generator=self._generator)]
        for start, stop in self._bounds[first:]:
            chosen = order[start:stop]
            yield tuple(column.take(chosen) for column in self._columns)

    def first(self, count: int) -> tuple[Tensor, ...]:
        """Return the first examples, `count` at most, before any order is drawn."""
        return tuple(column.take(self._indices[:count]) for column in self._columns)

    @property
    def state(self) -> Tensor:
        """The state of the generator from which the current epoch's order was drawn."""
        return self._began

    def close(self) -> None:
        """End an epoch: `state` is that of the next one from here on."""
        self._began = self._now()

    def restore(self, state: Tensor) -> None:
        """Let the next epoch be the one that `state` was read in."""
        if self._generator is not None:
            self._generator.set_state(state)

    def _now(self) -> Tensor:
        if self._generator is None:
            return torch.empty(0, dtype=torch.uint8)
        return self._generator.get_state()

    def digest(self) -> str:
        """Digest the order's examples: their number and up to 256 of them, spread evenly."""
        digest = hashlib.sha256(str(self.examples).encode())
        step = max(1, -(-self.examples // 256))
        for column in self._columns:
            digest.update(column.take(self._indices[::step]).cpu().numpy().tobytes())
        return digest.hexdigest()


class Column:
    """One tensor, or several that are numbered through, from which rows are taken."""

    def __init__(self, parts: Parts, device: torch.device) -> None:
        given = [parts] if isinstance(parts, Tensor) else list(parts)
        self._device = device
        resident = _fits(given, device)
        self._parts = [part.to(device) for part in given] if resident else given
        self._near = resident
        ends = torch.tensor([len(part) for part in given]).cumsum(0)
        self._starts = [0, *ends.tolist()]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: Tensor) -> Tensor:
        """Return the rows of these numbers, on the device."""
        if self._near:
            return self._take(rows.to(self._device))
        taken = self._take(rows)
        if self._device.type == "cuda":
            taken = taken.pin_memory()
        return taken.to(self._device, non_blocking=True)

    def _take(self, rows: Tensor) -> Tensor:
        if len(self._parts) == 1:
            return torch.index_select(self._parts[0], 0, rows)
        first = self._parts[0]
        taken = torch.empty((len(rows), *first.shape[1:]), dtype=first.dtype, device=first.device)
        for part, start in zip(self._parts, self._starts, strict=False):
            here = torch.nonzero((rows >= start) & (rows < start + len(part))).flatten()
            taken[here] = torch.index_select(part, 0, rows[here] - start)
        return taken


def _fits(parts: Sequence[Tensor], device: torch.device) -> bool:
    """Say whether tensors may live on a device: on a GPU, in half of what is free there."""
    if device.type != "cuda":
        return True
    bytes_ = sum(part.numel() * part.element_size() for part in parts if part.device != device)
    return bytes_ <= torch.cuda.mem_get_info(device)[0] // 2


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
    if examples.names is not None and len(examples.names) != len(inputs):
        raise DataError(f"{owner} needs one name an example, or none.")
    contents = examples.contents
    sound = isinstance(contents, torch.Tensor) and (contents.dtype, contents.ndim) == (
        torch.uint8,
        2,
    )
    if contents is not None and not (sound and len(contents) == len(inputs)):
        raise DataError(f"{owner} needs contents of torch.uint8, examples × bytes, or none.")
    if classes is None:
        return examples
    if labels is None:
        raise DataError(f"{owner} has no labels; it serves pretraining alone.")
    if labels.shape != (len(inputs),) or labels.dtype != torch.int64:
        raise DataError(f"{owner} needs one int64 label an example.")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(f"{owner} has labels outside 0..{classes - 1}.")
    return examples
