"""`finetune`: a pretrained backbone, or one from scratch, and a head, with labels."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from zoo.api import Component, Dataset, Examples, FinetuneConfig, ImageInput, TrainConfig
from zoo.config import make, to_json
from zoo.data import check_counts, labelled
from zoo.errors import BadOption, Unfit, UsageError
from zoo.loggers import check_logger
from zoo.models import Classifier, stages
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part, choose
from zoo.pipeline.faults import training_guard
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
from zoo.record import Parent, digest_of
from zoo.runs import Run
from zoo.tasks import Finetuning
from zoo.training import (
    Goal,
    check_training,
    cpu_threads,
    fit,
    listening,
    placed,
    resolve_device,
    seed_everything,
    unshard,
)

FEW_STEPS = 100


def finetune(
    source: Run | str | Path | None = None,
    *,
    backbone: str | Component | None = None,
    dataset: str | Component | None = None,
    head: str | Component = "linear",
    training: TrainConfig | None = None,
    finetune: FinetuneConfig | None = None,
    input: ImageInput | None = None,
    without_seen: bool = False,
    workspace: Workspace | None = None,
    recipe: dict[str, Any] | None = None,
) -> Run:
    """Train a classifier on labels, and return the finished run.

    `source` is a finished pretraining (a run, its folder, its name or `latest`); without one,
    `backbone` is trained from scratch. `dataset` is the pretraining's unless it is given; another
    one is resized, and its channels mapped, to the input the backbone was built for. `input` is
    what a backbone from scratch is built for, where that is not the data set's own.
    Raises `ZooError` before any data is loaded where the parts do not go together, and before any
    training where the pretraining has seen some of today's test examples. `without_seen` trains
    even so; `evaluate` and `export` of the run then need it as well.
    """
    workspace = workspace or Workspace()
    training = make(TrainConfig, to_json(training or TrainConfig()))
    finetune = make(FinetuneConfig, to_json(finetune or FinetuneConfig()))
    if (source is None) == (backbone is None):
        raise UsageError("Name either a pretraining to start from, or a backbone to train anew.")
    parent = None if source is None else workspace.pretrained(source)
    parts = _parts(workspace, parent, backbone, dataset, head)
    return make_finetuning(
        workspace,
        parts,
        training,
        finetune,
        parent=parent,
        input=input,
        recipe=recipe,
        without_seen=without_seen,
    )


def make_finetuning(
    workspace: Workspace,
    parts: dict[str, Part],
    training: TrainConfig,
    finetune: FinetuneConfig,
    *,
    parent: Run | None,
    input: ImageInput | None = None,
    recipe: dict[str, Any] | None = None,
    resumed: Run | None = None,
    without_seen: bool = False,
) -> Run:
    """Make a run of these parts, or go on with the one that `resumed` began."""
    check_finetuning(training, finetune)
    check_logger(training.log)
    device = resolve_device(training.device)
    wanted = resumed.record.threads if resumed else training.threads
    with listening(), placed(training, device) as place, cpu_threads(wanted) as threads:
        device = place.device
        data = assembly.build_dataset(workspace, parts["dataset"])
        if not data.classes:
            raise Unfit(
                f"{parts['dataset'].entry.owner} has no classes: it serves pretraining alone."
                " Type --dataset with one that has labels."
            )
        built = parent.input if parent else input or data.input
        check_counts(training.validation, finetune.labels, len(data.classes))
        seed_everything(training.seed)
        model, module = _assembled(parts, data, built, finetune)
        classifier = module.classifier
        if parent:
            assembly.load_backbone(parent, model, parts["backbone"])
        if (changes := classifier.preprocess.changes) and parent:
            current().note(f"{parts['dataset'].entry.name}: {changes}, as pretrained")
        again = lambda: _assembled(parts, data, built, finetune)[1]  # noqa: E731
        training = tried(module, again, data.input, parts, training, place)
        record = start_record(
            "finetune",
            parts,
            data,
            built,
            training,
            str(device),
            threads,
            recipe,
            finetune=to_json(finetune),
            parent=parent_record(parent) if parent else None,
        )
        with begun(workspace, resumed, record, place) as run:
            with unmade(resumed), place.in_turn():
                examples, train, held = labelled_examples(
                    parts["dataset"], data, training, finetune
                )
            parents = [parent] if parent else []
            origin = known_origin(
                parts["dataset"], data, parents, place, resumed, workspace, refuse=not without_seen
            )
            keep(run, origin, parts["dataset"], examples, train, held, workspace)
            module.to(device)
            assert examples.labels is not None
            tensors = (examples.inputs, examples.labels)
            with unmade(resumed):
                batches, validation = make_batches(tensors, train, held, training, place)
            if finetune.labels is not None:
                _warn_of_few_steps(len(batches) * training.epochs, training)
            rates = classifier.rates(finetune.layer_decay)
            seed_everything(training.seed + place.rank)
            goal = Goal("accuracy", rises=True)
            with telling(run, training) as tell, training_guard(parts, training):
                epochs = fit(
                    module,
                    batches,
                    training,
                    validation=validation,
                    goal=goal,
                    title=title("finetuning" if parent else "training", parts),
                    augment=augmenter(training, finetune, len(data.classes)),
                    rates={f"classifier.{name}": factor for name, factor in rates.items()},
                    before_epoch=functools.partial(_thaw, classifier, finetune),
                    on_epoch=tell,
                    on_resume=functools.partial(resume_epochs, run),
                    checkpoints=checkpoints_of(run, training),
                    place=place,
                )
            unshard(module)
            asked = some_examples(batches, validation, training, place)
            check_saved(module, again, asked, parts, training, place)
            run.save_weights(module.saved())
            run.record.metrics = summary(
                epochs, training, goal, train=len(train), validation=len(held)
            )
    return run


def _assembled(
    parts: dict[str, Part], data: Dataset, built: ImageInput, config: FinetuneConfig
) -> tuple[torch.nn.Module, Finetuning]:
    """Build a backbone and what is trained with its encoder, on the CPU."""
    model = assembly.build_backbone(parts["backbone"], built)
    top = assembly.build_head(parts["head"], int(model.features), len(data.classes))  # type: ignore[arg-type]
    preprocess = assembly.preprocess_for(data.input, built, model)
    classifier = Classifier(preprocess, model.encoder, top, frozen=config.freeze)  # type: ignore[arg-type]
    return model, Finetuning(
        classifier,
        smoothing=config.label_smoothing,
        on_probabilities=config.loss_on == "probabilities",
    )


def parent_record(parent: Run) -> Parent:
    sha256, folder = str(parent.record.weights_sha256), str(parent.folder.resolve())
    return Parent(parent.record.run, sha256, folder, digest_of(parent.record))


def labelled_examples(
    part: Part, data: Dataset, training: TrainConfig, finetune: FinetuneConfig
) -> tuple[Examples, torch.Tensor, torch.Tensor]:
    """Return the examples, the indices of those to train on, and of those held out."""
    examples = assembly.load_split(part, data, data.train, len(data.classes))
    assert examples.labels is not None
    train, held = labelled(
        examples.labels, finetune.labels, len(data.classes), training.validation, training.seed
    )
    return examples, train, held


def check_finetuning(training: TrainConfig, config: FinetuneConfig) -> None:
    """Refuse options that contradict each other, before any data is loaded; `BadOption`."""
    check_training(training)
    if config.freeze and config.unfreeze is not None:
        raise BadOption("unfreeze: --freeze keeps the encoder fixed. Leave one of them out.")
    if config.freeze and config.layer_decay < 1:
        raise BadOption("layer_decay: with --freeze no stage of the encoder has a rate.")
    if config.unfreeze is not None and training.devices > 1:
        raise BadOption("unfreeze: it trains in one process. Leave --devices out.")


def _thaw(classifier: Classifier, config: FinetuneConfig, epoch: int) -> None:
    """Train one more stage of the encoder every so many epochs, the last stage first."""
    if config.unfreeze is not None:
        classifier.freeze(max(0, len(stages(classifier.encoder)) - (epoch - 1) // config.unfreeze))


def _parts(
    workspace: Workspace,
    parent: Run | None,
    backbone: str | Component | None,
    dataset: str | Component | None,
    head: str | Component,
) -> dict[str, Part]:
    if parent is None:
        assert backbone is not None
        return {
            "dataset": choose(workspace, "dataset", dataset or "digits"),
            "backbone": choose(workspace, "backbone", backbone),
            "head": choose(workspace, "head", head),
        }
    data = (
        choose(workspace, "dataset", dataset)
        if dataset
        else assembly.recorded(workspace, "dataset", parent.record.dataset)
    )
    return {
        "dataset": data,
        "backbone": assembly.recorded(workspace, "backbone", parent.record.backbone),
        "head": choose(workspace, "head", head),
    }


def _warn_of_few_steps(steps: int, training: TrainConfig) -> None:
    """Few labels in large batches make few steps; that is told, not mended in silence."""
    if 0 < steps < FEW_STEPS:
        current().note(
            f"only {steps} training steps: so few labels want more --epochs than {training.epochs},"
            f" or a smaller --batch-size than {training.batch_size}"
        )
