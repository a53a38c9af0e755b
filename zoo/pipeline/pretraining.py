"""`pretrain`: a backbone and an objective, no labels."""

from __future__ import annotations

import functools
from typing import Any

import torch

from zoo.api import Component, Dataset, TrainConfig
from zoo.config import make, to_json
from zoo.data import check_counts, checked, holdout
from zoo.loggers import check_logger
from zoo.models import Pretraining
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part, choose
from zoo.pipeline.making import (
    augmenter,
    begun,
    checkpoints_of,
    make_batches,
    resume_epochs,
    start_record,
    summary,
    telling,
    title,
    training_guard,
)
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.runs import Run
from zoo.training import (
    Goal,
    check_training,
    cpu_threads,
    fit,
    listening,
    placed,
    resolve_device,
    seed_everything,
    whole,
)


def pretrain(
    backbone: str | Component,
    *,
    dataset: str | Component = "digits",
    objective: str | Component = "reconstruct",
    training: TrainConfig | None = None,
    workspace: Workspace | None = None,
    recipe: dict[str, Any] | None = None,
) -> Run:
    """Train a backbone on a data set without its labels, and return the finished run.

    `recipe` is what a recipe notes in the run's record. Raises `ZooError` before any data is
    loaded where the parts do not go together.
    """
    workspace = workspace or Workspace()
    training = make(TrainConfig, to_json(training or TrainConfig()))
    parts = {
        "dataset": choose(workspace, "dataset", dataset),
        "backbone": choose(workspace, "backbone", backbone),
        "objective": choose(workspace, "objective", objective),
    }
    return make_pretraining(workspace, parts, training, recipe=recipe)


def make_pretraining(
    workspace: Workspace,
    parts: dict[str, Part],
    training: TrainConfig,
    *,
    recipe: dict[str, Any] | None = None,
    resumed: Run | None = None,
) -> Run:
    """Make a run of these parts, or go on with the one that `resumed` began."""
    check_training(training)
    check_logger(training.log)
    device = resolve_device(training.device)
    wanted = resumed.record.threads if resumed else training.threads
    with listening(), placed(training, device) as place, cpu_threads(wanted) as threads:
        device = place.device
        data = assembly.build_dataset(workspace, parts["dataset"])
        check_counts(training.validation)
        seed_everything(training.seed)
        model = assembly.build_backbone(parts["backbone"], data.input)
        task = assembly.build_objective(workspace, parts["objective"], model)
        preprocess = assembly.preprocess_for(data.input, data.input, model)
        assembly.check_objective(parts["objective"], task, model, preprocess)
        record = start_record(
            "pretrain", parts, data, data.input, training, str(device), threads, recipe
        )
        with begun(workspace, resumed, record, place) as run:
            with place.in_turn():
                inputs, labelled = _unlabelled_inputs(parts["dataset"], data)
            # Held out of the training split alone, as in finetuning: what that is validated on
            # is never pretrained on.
            train, held = holdout(labelled, training.validation, training.seed)
            train = torch.cat([train, torch.arange(labelled, sum(map(len, inputs)))])
            module = Pretraining(preprocess, model, task).to(device)
            batches, validation = make_batches((inputs,), train, held, training, place)
            seed_everything(training.seed + place.rank)
            with telling(run, training) as tell, training_guard(parts, training):
                epochs = fit(
                    module,
                    batches,
                    training,
                    validation=validation,
                    goal=Goal(parts["objective"].entry.spec.watch),
                    title=title("pretraining", parts),
                    augment=augmenter(training),
                    on_epoch=tell,
                    on_resume=functools.partial(resume_epochs, run),
                    checkpoints=checkpoints_of(run, training),
                    place=place,
                )
            tensors = {**model.state_dict(), **_prefixed("objective", task)}
            run.save_weights(whole(tensors))
            run.record.metrics = summary(epochs, train=len(train), validation=len(held))
    return run


def _unlabelled_inputs(part: Part, data: Dataset) -> tuple[list[torch.Tensor], int]:
    """Return the inputs of the training split, then the unlabelled ones, and how many are first."""
    with assembly.guarded(part.entry, "loaded"):
        splits = [data.train()] + ([data.unlabelled()] if data.unlabelled else [])
    inputs = [checked(s, data.input.shape, None, part.entry.owner).inputs for s in splits]
    current().note(f"{sum(map(len, inputs)):,} examples of {part.entry.name}, labels unused")
    return inputs, len(inputs[0])


def _prefixed(prefix: str, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}
