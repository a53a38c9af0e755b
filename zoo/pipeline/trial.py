"""Before a run is begun, and before data is loaded: does what is to be trained train, and save?"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from zoo.api import ImageInput, TrainConfig
from zoo.errors import OutOfMemory, ZooError
from zoo.isolation import place as line_of
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part
from zoo.pipeline.faults import blamed, training_fault
from zoo.pipeline.saved_model import built_anew, changed_by_layout, check_saved
from zoo.progress import current
from zoo.tasks import Finetuning, SelfTraining, Task
from zoo.training import Place, try_step
from zoo.training.places import Batch


def tried(
    task: Task,
    again: Callable[[], Task],
    input: ImageInput,
    parts: Mapping[str, Part],
    config: TrainConfig,
    place: Place,
) -> TrainConfig:
    """Take a step on zeros with a second build, as training will; return the options to train with.

    `again` makes that build: a copy of `task` would share what its hooks and closures refer to. The
    options are without `channels_last` where a component's code takes contiguous tensors alone, or
    answers otherwise with them, which a note tells. Then the build is held against one more: what
    training would lose is told before there is anything to lose. Raises `PluginFault`.
    """
    if config.epochs == 0:
        return config
    builds: list[Task] = []

    def another() -> Task:
        builds.append(built_anew(again, config, place, number=1))
        return builds[-1]

    batch, held = _zeros(task, input, max(1, min(2, config.batch_size // place.world)))
    with assembly.guarded(parts["backbone"].entry, assembly.TRIED) as changed:
        try:
            found = try_step(another, batch, held, config, place)
        except (ZooError, OSError):
            raise
        except Exception as error:
            if os.environ.get("ZOO_STRICT") == "1":
                raise
            raised_by = blamed(error, builds, parts)
            raise training_fault("Training failed on zeros", raised_by, error, config) from error
    entries = [part.entry for kind, part in parts.items() if kind != "dataset"]
    owners = " or ".join(f"{entry.owner} of plugin {entry.origin}" for entry in entries)
    assembly.refuse_lasting(owners, changed)
    config = found.config
    if found.error is not None:
        reason = " ".join(str(found.error).split()).partition(" (")[0].rstrip(".")[:100]
        _tell(
            blamed(found.error, builds, parts),
            f"its code wants contiguous tensors{line_of(found.error)}: {reason}",
        )
    if not found.tried:
        return config
    numbers = torch.Generator().manual_seed(0)
    raw = torch.randint(0, 256, (2, *input.shape), dtype=torch.uint8, generator=numbers)
    with contextlib.suppress(OutOfMemory):  # training itself will say so, if it must
        if part := changed_by_layout(builds[-1], raw, parts, config, place):
            _tell([part], "its answers are others where tensors lie contiguous, as in a loaded run")
            config = dataclasses.replace(config, channels_last=False)
        check_saved(builds[-1], again, raw, parts, config, place)
    return config


def _tell(concerned: Sequence[Part], problem: str) -> None:
    names = " or ".join(part.entry.owner for part in concerned)
    current().note(f"{names}: {problem}; training with --no-channels-last")


def _zeros(task: Task, input: ImageInput, count: int) -> tuple[Batch, Batch]:
    """Return a batch of zeros to train on, and one to evaluate."""
    raw = torch.zeros(count, *input.shape, dtype=torch.uint8)
    labels = torch.zeros(count, dtype=torch.int64)
    if isinstance(task, SelfTraining):
        return (raw, raw, labels - torch.arange(count)), (raw, labels)  # the second is unknown
    batch: tuple[Tensor, ...] = (raw, labels) if isinstance(task, Finetuning) else (raw,)
    return batch, batch
