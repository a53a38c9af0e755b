"""`finetune --self-train`: a classifier learns from its own labels of the other examples."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from zoo.api import Dataset, Examples, FinetuneConfig, SelfTrainConfig, TrainConfig
from zoo.config import make, to_json
from zoo.errors import BadOption, Unfit
from zoo.loggers import check_logger
from zoo.models import stages
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part
from zoo.pipeline.evaluation import classifier_of
from zoo.pipeline.faults import training_guard
from zoo.pipeline.finetuning import labelled_examples, parent_record
from zoo.pipeline.identity import keep
from zoo.pipeline.making import (
    augmenter,
    begun,
    checkpoints_of,
    known_origin,
    make_batches,
    resume_epochs,
    some_examples,
    start_record,
    summary,
    telling,
    title,
    unmade,
)
from zoo.pipeline.saved_model import check_saved
from zoo.pipeline.trial import tried
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.runs import Run
from zoo.tasks import SelfTraining
from zoo.training import (
    Goal,
    check_training,
    cpu_threads,
    fit,
    listening,
    placed,
    resolve_device,
    seed_everything,
)

UNKNOWN = -1
INHERITED = ("seed", "validation")
"""Training options that are the teacher's: they decide which examples have labels."""


def self_train(
    source: Run | str | Path,
    *,
    training: TrainConfig | None = None,
    self_train: SelfTrainConfig | None = None,
    without_seen: bool = False,
    workspace: Workspace | None = None,
    recipe: dict[str, Any] | None = None,
) -> Run:
    """Train a finished finetuning on its labels and on what it says of the other examples.

    The examples with labels, those held out, head, seed, `freeze` and `layer_decay` are the
    finetuning's; the others are the rest of its training split and the data set's unlabelled
    examples, whose labels are not read. Raises `ZooError` before any data is loaded where the parts
    do not go together, and before any training where the teacher has seen what are test examples
    now, unless `without_seen` lets it go on.
    """
    workspace = workspace or Workspace()
    teacher = workspace.teacher(source)
    kept = {name: teacher.record.training[name] for name in INHERITED}
    training = make(TrainConfig, {**to_json(training or TrainConfig()), **kept})
    config = make(SelfTrainConfig, to_json(self_train or SelfTrainConfig()))
    return make_self_training(
        workspace, teacher, training, config, recipe=recipe, without_seen=without_seen
    )


def make_self_training(
    workspace: Workspace,
    teacher: Run,
    training: TrainConfig,
    config: SelfTrainConfig,
    *,
    recipe: dict[str, Any] | None = None,
    resumed: Run | None = None,
    without_seen: bool = False,
) -> Run:
    """Make the run that goes on from `teacher`, or go on with the one that `resumed` began."""
    check_self_training(training)
    check_logger(training.log)
    finetune = make(FinetuneConfig, teacher.record.finetune or {}, f"run '{teacher.name}'")
    device = resolve_device(training.device)
    wanted = resumed.record.threads if resumed else training.threads
    with listening(), placed(training, device) as place, cpu_threads(wanted) as threads:
        parts = _parts(workspace, teacher)
        data = assembly.build_dataset(workspace, parts["dataset"])
        again = functools.partial(
            _assembled, workspace, teacher, len(data.classes), finetune, config
        )
        module = again()
        classifier = module.classifier
        training = tried(module, again, data.input, parts, training, place)
        record = start_record(
            "finetune",
            parts,
            data,
            teacher.input,
            training,
            str(place.device),
            threads,
            recipe,
            finetune=to_json(finetune),
            self_train=to_json(config),
            parent=parent_record(teacher),
        )
        with begun(workspace, resumed, record, place) as run:
            with unmade(resumed):
                every, tensors, train, held, unlabelled = _examples(
                    parts["dataset"], data, teacher, finetune
                )
            trained = torch.cat([train, unlabelled])
            part, refuse = parts["dataset"], not without_seen
            origin = known_origin(part, data, [teacher], place, resumed, workspace, refuse=refuse)
            keep(run, origin, part, every, trained, held, workspace)
            current().note(f"{len(train):,} labels, and {len(unlabelled):,} examples without")
            times = repeats(len(train), len(unlabelled), config.labelled)
            seed_everything(training.seed)
            rates = classifier.rates(finetune.layer_decay)
            module.to(place.device)
            chosen = torch.cat([train.repeat(times), unlabelled])
            with unmade(resumed):
                batches, validation = make_batches(tensors, chosen, held, training, place)
            goal = Goal("accuracy", rises=True)
            with telling(run, training) as tell, training_guard(parts, training):
                epochs = fit(
                    module,
                    batches,
                    training,
                    validation=validation,
                    goal=goal,
                    title=title("self-training", parts),
                    augment=_twice(augmenter(training)),
                    rates={f"classifier.{name}": factor for name, factor in rates.items()},
                    on_epoch=tell,
                    on_resume=functools.partial(resume_epochs, run),
                    checkpoints=checkpoints_of(run, training),
                    place=place,
                )
            asked = some_examples(batches, validation, training, place)
            check_saved(module, again, asked, parts, training, place)
            run.save_weights(module.saved())
            run.record.metrics = summary(
                epochs, training, goal, train=len(chosen), validation=len(held), labelled=len(train)
            )
    return run


def _assembled(
    workspace: Workspace,
    run: Run,
    classes: int,
    finetune: FinetuneConfig,
    config: SelfTrainConfig,
) -> SelfTraining:
    """Make what is trained of a finished finetuning, on the CPU: student and teacher."""
    classifier = classifier_of(run, workspace)
    if finetune.freeze:
        classifier.freeze(len(stages(classifier.encoder)))
    return SelfTraining(
        classifier,
        classes,
        confidence=config.confidence,
        decay=config.teacher_ema,
        balance=config.balance,
        teacher=classifier_of(run, workspace),
    )


def repeats(labelled: int, unlabelled: int, share: float) -> int:
    """Return how often an epoch takes each labelled example, so that they are `share` of it."""
    return max(1, round(unlabelled * share / (1 - share) / labelled))


def check_self_training(training: TrainConfig) -> None:
    """Refuse options that do not go with self-training, before any data is loaded; `BadOption`."""
    check_training(training)
    if training.ema:
        raise BadOption("ema: the teacher is an average already; tune it by --teacher-ema.")
    if training.devices > 1:
        raise BadOption("devices: self-training runs in one process. Leave --devices out.")


def _parts(workspace: Workspace, teacher: Run) -> dict[str, Part]:
    record = teacher.record
    assert record.head is not None  # a finetuning has one
    kinds = {"dataset": record.dataset, "backbone": record.backbone, "head": record.head}
    return {kind: assembly.recorded(workspace, kind, part) for kind, part in kinds.items()}


def _examples(
    part: Part, data: Dataset, teacher: Run, finetune: FinetuneConfig
) -> tuple[list[Examples], tuple[Any, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the splits, inputs and labels, and the indices of labelled, held out and others.

    The labels of the others are unknown from here on. Raises `Unfit` where there are no others.
    """
    training = make(TrainConfig, teacher.record.training, f"run '{teacher.name}'")
    examples, train, held = labelled_examples(part, data, training, finetune)
    assert examples.labels is not None
    splits = [examples]
    if data.unlabelled:
        splits.append(assembly.load_split(part, data, data.unlabelled))
    inputs = [split.inputs for split in splits]
    count = sum(map(len, inputs))
    known = torch.zeros(count, dtype=torch.bool)
    known[train] = known[held] = True
    if bool(known.all()):
        raise Unfit(
            f"Run '{teacher.name}' was trained on every label there is, and nothing is left to"
            " label. Finetune with --labels N first."
        )
    labels = torch.full((count,), UNKNOWN, dtype=torch.int64)
    labels[train], labels[held] = examples.labels[train], examples.labels[held]
    return splits, (inputs, labels), train, held, torch.nonzero(~known).flatten()


def _twice(
    augment: Callable[[tuple[torch.Tensor, ...], torch.Generator], tuple[torch.Tensor, ...]] | None,
) -> Callable[[tuple[torch.Tensor, ...], torch.Generator], tuple[torch.Tensor, ...]]:
    """Return what makes (augmented, raw, labels) of a batch (raw, labels)."""

    def both(
        batch: tuple[torch.Tensor, ...], generator: torch.Generator
    ) -> tuple[torch.Tensor, ...]:
        raw, labels = batch
        augmented = augment((raw,), generator)[0] if augment else raw
        return augmented, raw, labels

    return both
