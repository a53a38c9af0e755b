"""What pretraining and finetuning share in making a run: its record, batches and figures."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from zoo import runs
from zoo.api import Dataset, FinetuneConfig, ImageInput, TrainConfig
from zoo.augment import Augmentation, Mixing
from zoo.config import to_json
from zoo.data import Batches, Column, Parts
from zoo.errors import (
    BadOption,
    DataError,
    OtherExamples,
    OutOfMemory,
    ZooError,
    first_line,
    ran_out,
    recurs,
)
from zoo.loggers import logging_to
from zoo.machine import processor_of
from zoo.pipeline.assembly import Part
from zoo.pipeline.identity import Origin, origin_of
from zoo.pipeline.leakage import check_origin
from zoo.pipeline.sameness import change_of, commands_anew, refusal
from zoo.pipeline.sources import sources_of
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.record import Record
from zoo.runs import Run
from zoo.training import Checkpoints, Epoch, Goal, Place, holding, kept_of


def start_record(
    kind: str,
    parts: dict[str, Part],
    data: Dataset,
    built: ImageInput,
    training: TrainConfig,
    device: str,
    threads: int,
    recipe: dict[str, Any] | None,
    **more: Any,
) -> Record:
    """Describe a run that is about to begin, every option resolved."""
    return Record(
        run="",
        kind=kind,
        status="running",
        created="",
        dataset=parts["dataset"].record,
        backbone=parts["backbone"].record,
        objective=parts["objective"].record if "objective" in parts else None,
        head=parts["head"].record if "head" in parts else None,
        input=list(built.shape),
        data_input=list(data.input.shape),
        classes=list(data.classes),
        training=to_json(training),
        finetune=more.get("finetune"),
        pretrain=more.get("pretrain"),
        self_train=more.get("self_train"),
        parent=more.get("parent"),
        seed=training.seed,
        device=device,
        threads=threads,
        versions=versions(),
        process={},
        recipe=recipe,
        processor=processor_of(device),
        sources=sources_of(parts),
    )


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    names = ("plugzoo", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "numpy")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def make_batches(
    tensors: Sequence[Parts],
    train: torch.Tensor,
    held: torch.Tensor,
    training: TrainConfig,
    place: Place,
) -> tuple[Batches, Batches | None]:
    """Return shuffled batches to train on, and ordered ones of what is held out, if any."""
    device, least = place.device, 2 * place.world
    columns = [Column(tensor, device) for tensor in tensors]  # once, for both
    batches = Batches(
        columns, training.batch_size, indices=train, seed=training.seed, device=device, least=least
    )
    for name, count in (("batch_size", min(batches.sizes)), ("validation", len(held))):
        if 0 < count < place.world:
            raise BadOption(
                f"{name}: {count} examples cannot be shared by {place.world} processes."
                f" Type {place.world} or more."
            )
    if not len(held):
        if training.patience is not None or training.keep == "best":
            raise BadOption(
                f"validation: {training.validation:g} holds no example out, and --patience or"
                " --keep best want some. Type a larger --validation."
            )
        return batches, None
    return batches, Batches(columns, 512, indices=held, device=device, least=least)


def some_examples(
    batches: Batches, validation: Batches | None, training: TrainConfig, place: Place
) -> torch.Tensor:
    """Return raw examples that were held out, else some of training's: a process's batch at most.

    uint8 N x C x H x W.
    """
    held = batches if validation is None else validation
    return held.first(max(1, training.batch_size // place.world))[0]


def augmenter(
    training: TrainConfig, finetune: FinetuneConfig | None = None, classes: int = 0
) -> Callable[[tuple[torch.Tensor, ...], torch.Generator], tuple[torch.Tensor, ...]] | None:
    """Return what changes each training batch, (inputs,) or (inputs, labels), or None."""
    pictures = Augmentation(
        shift=training.shift,
        flip=training.flip,
        rotate=training.rotate,
        zoom=training.zoom,
        shear=training.shear,
        jitter=training.jitter,
        noise=training.noise,
        erase=training.erase,
    )
    mixing = Mixing(
        mixup=finetune.mixup if finetune else 0.0,
        cutmix=finetune.cutmix if finetune else 0.0,
        classes=classes,
    )
    if not (pictures.active or mixing.active):
        return None

    def augment(
        batch: tuple[torch.Tensor, ...], generator: torch.Generator
    ) -> tuple[torch.Tensor, ...]:
        raw, *labels = batch
        raw = pictures(raw, generator)
        return mixing(raw, labels[0], generator) if mixing.active else (raw, *labels)

    return augment


def checkpoints_of(run: Run, training: TrainConfig) -> Checkpoints:
    """Return the checkpoints of a run, as its options want them."""
    return Checkpoints(
        run.checkpoint, seconds=training.checkpoint_seconds, steps=training.checkpoint_steps
    )


class _Withdrawn(Exception):
    """A run is refused after it was begun, and before anything was made of it; `error` says why."""

    def __init__(self, error: ZooError) -> None:
        super().__init__(str(error))
        self.error = error


@contextlib.contextmanager
def begun(workspace: Workspace, resumed: Run | None, record: Record, place: Place) -> Iterator[Run]:
    """Begin a run and keep its record true; from its first moment on, Ctrl-C is written down.

    Nothing is left of a run that is refused while it is `unmade`, or by `known_origin`.
    """
    with holding() as stop:
        run = _begin(workspace, resumed, record, place)
        try:
            with run.recording(), place.together(), _advised(run, workspace):
                stop.release()
                yield run
        except _Withdrawn as withdrawn:
            shutil.rmtree(run.folder, ignore_errors=True)
            workspace.run = None
            raise withdrawn.error from None


@contextlib.contextmanager
def unmade(resumed: Run | None) -> Iterator[None]:
    """Look at the examples, before anything is made of them: what they refuse leaves no run.

    What could be had later leaves one, to be gone on with.
    """
    try:
        yield
    except ZooError as error:
        if resumed or not recurs(error):
            raise
        raise _Withdrawn(error) from error


@contextlib.contextmanager
def _advised(run: Run, workspace: Workspace) -> Iterator[None]:
    """Add what to type to the error of a run whose examples are others now; name want of memory."""
    try:
        yield
    except OtherExamples as error:
        raise OtherExamples(
            f"{error} Bring them back and type zoo resume {shlex.quote(str(run.folder))}, or train"
            f" anew:{commands_anew(run, workspace)}"
        ) from None
    except Exception as error:
        if isinstance(error, ZooError) or not ran_out(error):
            raise
        raise OutOfMemory(f"Out of memory: {first_line(error)}. Close other programs.") from error


def known_origin(
    part: Part,
    data: Dataset,
    parents: Sequence[Run],
    place: Place,
    resumed: Run | None,
    workspace: Workspace,
    *,
    unknown: Sequence[str] = (),
    refuse: bool = False,
) -> Origin | None:
    """Look at the test split, once a run is begun and its examples are loaded; as `origin_of`.

    With `refuse`, raises `DataError` where the run's parent has seen what are test examples now.
    """
    try:
        origin = origin_of(part, data, parents, place, resumed, unknown)
        if refuse:
            check_origin(origin, parents[0] if parents else None, part.entry.name, workspace)
    except ZooError as error:
        if resumed:
            raise
        raise _Withdrawn(error) from error
    return origin


def _begin(workspace: Workspace, resumed: Run | None, record: Record, place: Place) -> Run:
    """Make the run's folder, or take one that goes on; raises `DataError` where data changed."""
    if place.main:
        run = resumed or runs.create(workspace.runs_root, record)
    folder = Path(place.same(str(run.folder) if place.main else ""))
    if not place.main:
        run = Run(folder, record, main=False)
    if resumed:
        before = resumed.record
        if change := change_of(before, record.classes, record.data_input):
            raise DataError(refusal(before, change, commands_anew(resumed, workspace)))
        before.training["channels_last"] = record.training["channels_last"]  # as it was tried
        changed = [n for n, v in record.versions.items() if before.versions.get(n, v) != v]
        for name in changed:
            current().note(
                f"the run began with {name} {before.versions[name]}, and this is"
                f" {record.versions[name]}: its weights may differ in the last bits"
            )
    workspace.run = run
    return run


@contextlib.contextmanager
def telling(run: Run, training: TrainConfig) -> Iterator[Callable[[Epoch], None]]:
    """Yield what writes an epoch down: into the run, and to the logger that is asked for."""
    with logging_to(training.log, run) as log:

        def tell(epoch: Epoch) -> None:
            run.append_metrics(dataclasses.asdict(epoch))
            log(epoch)

        yield tell


def resume_epochs(run: Run, epochs: list[Epoch]) -> None:
    """Let the run's metrics be those of the epochs that its checkpoint holds, if it has one."""
    if not epochs and not run.metrics():
        return
    run.write_metrics(dataclasses.asdict(epoch) for epoch in epochs)
    run.earlier = max(run.earlier, sum(epoch.seconds for epoch in epochs))
    current().note(f"going on after {len(epochs)} whole epochs")


def summary(
    epochs: list[Epoch], training: TrainConfig, goal: Goal, **counts: int
) -> dict[str, Any]:
    """Return the kept epoch's figures, the rate, and how many examples of each sort there were."""
    figures: dict[str, Any] = {f"{name}_examples": count for name, count in counts.items()}
    if epochs:
        seconds = sum(epoch.seconds for epoch in epochs)
        kept = kept_of(epochs, training, goal)
        figures |= {"train": kept.train, "validation": kept.validation}
        if training.keep == "best":
            figures["kept_epoch"] = kept.epoch
        figures["examples_per_second"] = round(counts["train"] * len(epochs) / max(seconds, 1e-9))
    return figures


def title(deed: str, parts: dict[str, Part]) -> str:
    return f"{deed} {parts['backbone'].entry.name} on {parts['dataset'].entry.name}"
