"""`finetune`: a pretrained backbone, or one from scratch, and a head, with labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from zoo import runs
from zoo.api import Component, FinetuneConfig, ImageInput, TrainConfig
from zoo.config import make, to_json
from zoo.data import check_counts, checked, draw_labels, holdout
from zoo.errors import UsageError
from zoo.models import Classifier, Finetuning
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part, choose
from zoo.pipeline.making import (
    epoch_writer,
    make_batches,
    start_record,
    summary,
    title,
    training_guard,
)
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.record import Parent
from zoo.runs import Run
from zoo.training import cpu_threads, fit, resolve_device, seed_everything

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
    workspace: Workspace | None = None,
    recipe: dict[str, Any] | None = None,
) -> Run:
    """Train a classifier on labels, and return the finished run.

    `source` is a finished pretraining (a run, its folder, its name or `latest`); without one,
    `backbone` is trained from scratch. `dataset` is the pretraining's unless it is given; another
    one is resized, and its channels mapped, to the input the backbone was built for. `input` is
    what a backbone from scratch is built for, where that is not the data set's own.
    Raises `ZooError` before any data is loaded where the parts do not go together.
    """
    workspace = workspace or Workspace()
    training = make(TrainConfig, to_json(training or TrainConfig()))
    finetune = make(FinetuneConfig, to_json(finetune or FinetuneConfig()))
    if (source is None) == (backbone is None):
        raise UsageError("Name either a pretraining to start from, or a backbone to train anew.")
    parent = None if source is None else workspace.pretrained(source)
    parts = _parts(workspace, parent, backbone, dataset, head)
    device = resolve_device(training.device)
    with cpu_threads(training.threads) as threads:
        data = assembly.build_dataset(workspace, parts["dataset"])
        built = parent.input if parent else input or data.input
        check_counts(training.validation, finetune.labels, len(data.classes))
        seed_everything(training.seed)
        model = assembly.build_backbone(parts["backbone"], built)
        top = assembly.build_head(parts["head"], int(model.features), len(data.classes))  # type: ignore[arg-type]
        if parent:
            _load_backbone(parent, model, parts["backbone"])
        preprocess = assembly.preprocess_for(data.input, built, model)
        if preprocess.changes and parent:
            current().note(f"{parts['dataset'].entry.name}: {preprocess.changes}, as pretrained")
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
            parent=Parent(parent.record.run, str(parent.record.weights_sha256)) if parent else None,
        )
        run = runs.create(workspace.runs_root, record)
        with run.recording():
            with assembly.guarded(parts["dataset"].entry, "loaded"):
                loaded = data.train()
            owner = parts["dataset"].entry.owner
            examples = checked(loaded, data.input.shape, len(data.classes), owner)
            assert examples.labels is not None
            train, held = holdout(len(examples), training.validation, training.seed)
            if finetune.labels is not None:
                labels, classes = examples.labels[train], len(data.classes)
                train = train[draw_labels(labels, finetune.labels, classes, training.seed)]
            classifier = Classifier(preprocess, model.encoder, top, frozen=finetune.freeze)  # type: ignore[arg-type]
            module = Finetuning(classifier, on_probabilities=finetune.loss_on == "probabilities")
            module.to(device)
            tensors = (examples.inputs, examples.labels)
            batches, validation = make_batches(tensors, train, held, training, device)
            if finetune.labels is not None:
                _warn_of_few_steps(len(batches) * training.epochs, training)
            seed_everything(training.seed)
            with training_guard(parts, training):
                epochs = fit(
                    module,
                    batches,
                    training,
                    validation=validation,
                    title=title("finetuning" if parent else "training", parts),
                    on_epoch=epoch_writer(run),
                )
            run.save_weights(classifier.state_dict())
            run.record.metrics = summary(epochs, train=len(train), validation=len(held))
    return run


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


def _load_backbone(parent: Run, model: torch.nn.Module, part: Part) -> None:
    tensors = {
        name: tensor
        for name, tensor in parent.load_weights().items()
        if not name.startswith("objective.")
    }
    assembly.load_state(model, tensors, part.entry.owner)
