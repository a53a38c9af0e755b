"""The examples that a smaller file is calibrated, chosen and proved by; none of the test split."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import torch
from torch import Tensor

from zoo.api import FinetuneConfig, TrainConfig
from zoo.config import make
from zoo.data import Column, holdout
from zoo.errors import ZooError
from zoo.export.budget import Budget
from zoo.export.runtime import Array
from zoo.pipeline import assembly
from zoo.pipeline.finetuning import labelled_examples
from zoo.pipeline.model_files import Source
from zoo.progress import current

CALIBRATION, MEASURED = 512, 2000
"""Examples for calibration, and at most as many others to choose a candidate by, or to prove it."""
FEWEST = 64
"""Of either, where there are as many: worth any work."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """Raw bytes, uint8 N x C x H x W, for three purposes.

    No example serves two of them, unless there are too few with labels. `labels` are those of the
    first of `choosing`. From number `fresh` on no label of these was trained on, if there are such.
    """

    calibration: Array
    choosing: Array
    labels: Array  # int64
    fresh: int
    proving: Array

    @property
    def digest(self) -> str:
        """The first 16 characters of the SHA-256 of all of them, for the metadata."""
        digest = hashlib.sha256()
        for part in (self.calibration, self.choosing, self.labels, self.proving):
            digest.update(f"{part.shape}".encode())
            digest.update(part.tobytes())
        return digest.hexdigest()[:16]


def drawn(source: Source, budget: Budget) -> Samples:
    """Draw by the run's seed, and fewer where `budget` says that an example is much work.

    Calibration takes examples that were trained on, and where these are few up to a third of those
    whose labels the run did not use, or that have none. The rest of these is halved between
    choosing and proving. Labels are those of the examples held out; where none were, of some that
    were trained on.
    """
    inputs, labels, train, known, held = _pool(source)
    generator = torch.Generator().manual_seed(int(source.run.record.training["seed"]))
    trained = torch.isin(train, known)
    others = torch.arange(len(labels), sum(map(len, inputs)))
    spare = torch.cat([train[~trained], others])
    spare = spare[torch.randperm(len(spare), generator=generator)]
    seen = train[trained]
    wanted, most = (budget.examples(n, least=FEWEST) for n in (CALIBRATION, MEASURED))
    # Something must be left to measure on.
    first = min(wanted, len(seen) if len(held) or len(spare) else -(-len(seen) // 2))
    taken = min(wanted - first, len(spare) // 3)
    calibration = torch.cat([seen[:first], spare[:taken]])
    spare = spare[taken:]
    half = -(-len(spare) // 2)
    marked = next(some for some in (held, seen[first:], known) if len(some))
    marked = marked[: most if len(held) else -(-most // 2)].sort().values
    unmarked = spare[:half][: most - len(marked)].sort().values
    column = Column(inputs, torch.device("cpu"))

    def pictures(rows: Tensor) -> Array:
        return np.ascontiguousarray(column.take(rows).numpy())

    return Samples(
        calibration=pictures(calibration.sort().values),
        choosing=pictures(torch.cat([marked, unmarked])),
        labels=labels[marked].numpy(),
        fresh=0 if len(held) or not len(unmarked) else len(marked),
        proving=pictures(spare[half:][:most].sort().values),
    )


def _pool(source: Source) -> tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor]:
    """Load a run's data set but for its test split.

    Returns the inputs, with those that have no label last; the labels of the others; the numbers of
    those not held out, in the order drawn; of those trained on with their labels; of those held
    out.
    """
    record, data = source.run.record, source.data
    part = assembly.recorded(source.workspace, "dataset", record.dataset)
    where = f"run '{record.run}'"
    training = make(TrainConfig, record.training, where)
    finetune = make(FinetuneConfig, record.finetune or {}, where)
    examples, known, held = labelled_examples(part, data, training, finetune)
    assert examples.labels is not None
    inputs = [examples.inputs]
    if data.unlabelled:
        try:
            inputs.append(assembly.load_split(part, data, data.unlabelled).inputs)
        except ZooError as error:
            current().note(f"measuring without unlabelled examples: {error}")
    train = holdout(len(examples), training.validation, training.seed)[0]
    return inputs, examples.labels, train, known, held
