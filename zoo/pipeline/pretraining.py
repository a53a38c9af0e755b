"""`pretrain`: a backbone and an objective, no labels."""

from __future__ import annotations

import functools
from typing import Any

import torch

from zoo.api import Component, Dataset, Examples, ImageInput, PretrainConfig, TrainConfig
from zoo.config import make, to_json
from zoo.data import Batches, check_counts, holdout
from zoo.loggers import check_logger
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
from zoo.pipeline.teaching import Library, lending
from zoo.pipeline.trial import tried
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.runs import Run
from zoo.tasks import Pretraining
from zoo.training import (
    Goal,
    Place,
    Probe,
    check_training,
    cpu_threads,
    fit,
    listening,
    placed,
    resolve_device,
    seed_everything,
    unshard,
)

PROBED = 5000
"""Examples that a probe is fitted on, and that it is asked of, at most: all pairs are compared.

More where so few would be less than `FEW` a class.
"""
FEW = 5
"""Examples a class, on average, of either, below which a probe would say nothing."""


def pretrain(
    backbone: str | Component,
    *,
    dataset: str | Component = "digits",
    objective: str | Component = "reconstruct",
    training: TrainConfig | None = None,
    pretrain: PretrainConfig | None = None,
    workspace: Workspace | None = None,
    recipe: dict[str, Any] | None = None,
) -> Run:
    """Train a backbone on a data set without its labels, and return the finished run.

    `recipe` is what a recipe notes in the run's record. Raises `ZooError` before any data is
    loaded where the parts do not go together.
    """
    workspace = workspace or Workspace()
    training = make(TrainConfig, to_json(training or TrainConfig()))
    pretrain = make(PretrainConfig, to_json(pretrain or PretrainConfig()))
    parts = {
        "dataset": choose(workspace, "dataset", dataset),
        "backbone": choose(workspace, "backbone", backbone),
        "objective": choose(workspace, "objective", objective),
    }
    return make_pretraining(workspace, parts, training, pretrain, recipe=recipe)


def make_pretraining(
    workspace: Workspace,
    parts: dict[str, Part],
    training: TrainConfig,
    pretrain: PretrainConfig,
    *,
    recipe: dict[str, Any] | None = None,
    resumed: Run | None = None,
    library: Library | None = None,
) -> Run:
    """Make a run of these parts, or go on with the one that `resumed` began.

    `library` has the teachers, where those are not among the workspace's runs.
    """
    check_training(training)
    check_logger(training.log)
    device = resolve_device(training.device)
    wanted = resumed.record.threads if resumed else training.threads
    with listening(), placed(training, device) as place, cpu_threads(wanted) as threads:
        device = place.device
        data = assembly.build_dataset(workspace, parts["dataset"])
        check_counts(training.validation)
        seed_everything(training.seed)
        library = library or Library(workspace)
        module = _assembled(workspace, parts, data.input, library)
        model, task = module.backbone, module.objective
        parts = {**parts, "objective": library.settled(parts["objective"])}
        if resumed:
            library.check(resumed)
        fewest = _fewest(training, place)
        assembly.check_objective(parts["objective"], task, model, module.preprocess, count=fewest)
        again = functools.partial(_assembled, workspace, parts, data.input, library)
        training = tried(module, again, data.input, parts, training, place)
        record = start_record(
            "pretrain",
            parts,
            data,
            data.input,
            training,
            str(device),
            threads,
            recipe,
            pretrain=to_json(pretrain),
        )
        record.teachers = library.fingerprints
        with begun(workspace, resumed, record, place) as run:
            with unmade(resumed), place.in_turn():
                splits = _splits(parts["dataset"], data)
            inputs = [split.inputs for split in splits]
            # Held out of the training split alone, as in finetuning: what that is validated on
            # is never pretrained on.
            count = len(inputs[0])
            with unmade(resumed):
                train, held = holdout(count, training.validation, training.seed)
            train = torch.cat([train, torch.arange(count, sum(map(len, inputs)))])
            taught = list(library.runs.values())
            origin = known_origin(
                parts["dataset"], data, taught, place, resumed, workspace, unknown=library.files
            )
            keep(run, origin, parts["dataset"], splits, train, held, workspace)
            module.to(device)
            with unmade(resumed):
                batches, validation = make_batches((inputs,), train, held, training, place)
            known = train[train < count]
            probe = _probe(pretrain, training, module, splits[0], known, held, data, place)
            seed_everything(training.seed + place.rank)
            goal = Goal(parts["objective"].entry.spec.watch)
            with telling(run, training) as tell, training_guard(parts, training):
                epochs = fit(
                    module,
                    batches,
                    training,
                    validation=validation,
                    goal=goal,
                    title=title("pretraining", parts),
                    augment=augmenter(training),
                    on_epoch=tell,
                    on_resume=functools.partial(resume_epochs, run),
                    checkpoints=checkpoints_of(run, training),
                    probe=probe,
                    place=place,
                )
            unshard(module)
            asked = some_examples(batches, validation, training, place)
            check_saved(module, again, asked, parts, training, place)
            run.save_weights(module.saved())
            run.record.metrics = summary(
                epochs, training, goal, train=len(train), validation=len(held)
            )
            if probe:
                run.record.metrics["probe_examples"] = probe.examples
    return run


def _assembled(
    workspace: Workspace, parts: dict[str, Part], input: ImageInput, library: Library
) -> Pretraining:
    """Build what is trained, on the CPU."""
    model = assembly.build_backbone(parts["backbone"], input)
    with lending(library):
        task = assembly.build_objective(workspace, parts["objective"], model)
    return Pretraining(assembly.preprocess_for(input, input, model), model, task)


def _fewest(training: TrainConfig, place: Place) -> int:
    """Say whether the options let a process have a batch of one example, or two at least."""
    counts = [
        training.batch_size,
        *([int(training.validation)] if training.validation >= 1 else []),
    ]
    return max(1, min(2, *(count // place.world for count in counts)))


def _splits(part: Part, data: Dataset) -> list[Examples]:
    """Return the training split, then the unlabelled one, if any."""
    loads = [data.train] + ([data.unlabelled] if data.unlabelled else [])
    splits = [assembly.load_split(part, data, load) for load in loads]
    current().note(f"{sum(map(len, splits)):,} examples of {part.entry.name}, labels unused")
    return splits


def _probe(
    config: PretrainConfig,
    training: TrainConfig,
    module: Pretraining,
    examples: Examples,
    known: torch.Tensor,
    held: torch.Tensor,
    data: Dataset,
    place: Place,
) -> Probe | None:
    """Return what measures features by labels, where there are enough: `known` fit it.

    Several processes have none: a part of a module must not be called around its wrapper.
    """
    labels, classes = examples.labels, len(data.classes)
    if config.probe == "none" or labels is None or place.world > 1:
        return None
    sides, most = [], max(PROBED, FEW * classes)
    for chosen in (known[:most], held[:most]):
        truth = labels[chosen]
        if len(truth) < FEW * classes or len(set(truth.tolist())) < 2:
            return None
        if not 0 <= int(truth.min()) <= int(truth.max()) < classes:
            return None
        batches = Batches((examples.inputs,), 512, indices=chosen, device=place.device)
        sides.append((batches, truth))
    fitted, asked = sides
    return Probe(config.probe, module, fitted, asked, classes, training)
