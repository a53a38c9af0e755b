"""From what was asked for to a plan: every option resolved, every part tried, nothing trained."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from zoo.api import (
    Component,
    Dataset,
    FinetuneConfig,
    RecipeSpec,
    SelfTrainConfig,
    TrainConfig,
)
from zoo.config import knobs, make, to_json
from zoo.data import check_counts
from zoo.errors import BadOption, DataError, Unfit, UnknownName, did_you_mean, listing
from zoo.pipeline import assembly
from zoo.pipeline.assembly import choose
from zoo.pipeline.bench.draws import train_labels
from zoo.pipeline.bench.plan import (
    BY,
    ONLY_LABELS,
    SCRATCH,
    SELF_TRAINED,
    Method,
    Plan,
    resolved,
    those_of,
)
from zoo.pipeline.finetuning import check_finetuning
from zoo.pipeline.self_training import check_self_training
from zoo.pipeline.teaching import Library
from zoo.pipeline.workspace import Workspace
from zoo.training import check_training

FIXED: dict[str, tuple[Any, str]] = {
    "validation": (0.0, ONLY_LABELS),
    "keep": ("last", ONLY_LABELS),
    "patience": (None, ONLY_LABELS),
    "labels": (None, "Type --labels 10,100,all beside it."),
    "seed": (0, "Type --seeds beside it."),
    "threads": (1, "Type --threads beside it."),
    "device": ("auto", "Type --device beside it."),
    "devices": (1, "A cell trains in one process; for several cells at once, type --jobs."),
    "strategy": ("ddp", "A cell trains in one process; for several cells at once, type --jobs."),
}
"""Options that the bench sets itself, and what to do instead."""


def plan_of(
    workspace: Workspace,
    *,
    dataset: str | Component | None,
    pretrain_dataset: str | Component | None = None,
    backbone: str | Component | None,
    head: str | Component | None,
    objectives: Sequence[str | Component | Method],
    labels: Sequence[int | None],
    seeds: Sequence[int],
    pretrain: Mapping[str, Any],
    finetune: Mapping[str, Any],
    scratch: Mapping[str, Any],
    self_train: Mapping[str, Any] = MappingProxyType({}),
    steps: int,
    threads: int,
    device: str,
    recipe: str | None,
) -> tuple[Plan, torch.Tensor]:
    """Resolve every option and try every part; returns the plan and the training labels.

    Raises `ZooError` for whatever no cell could be trained with, before any is.
    """
    spec: RecipeSpec | None = workspace.registry.lookup("recipe", recipe).spec if recipe else None
    if backbone is None and spec is None:
        raise BadOption("backbone: name one with --backbone, or a recipe that has one.")
    machine = {"threads": threads, "device": device}
    forms = {
        "pretrain": _options("pretrain", pretrain, allowed=("validation", "keep", "patience")),
        "finetune": _options("finetune", finetune),
        "scratch": _options("scratch", {**_scratch_of(spec), **scratch}),
        "self-train": _options("self-train", self_train),
    }
    before = to_json(spec.pretraining) if spec else {}
    after = to_json(spec.finetuning) if spec else {}
    few = to_json(spec.finetune) if spec else {}
    fixed: dict[str, Any] = {name: FIXED[name][0] for name in ("validation", "keep", "patience")}
    training = {**before, **fixed, **those_of(TrainConfig, forms["pretrain"]), **machine}
    tuning = {**after, **those_of(TrainConfig, forms["finetune"]), **fixed, **machine}
    config = {**few, **those_of(FinetuneConfig, forms["finetune"]), "labels": None}
    given = list(objectives) or ([spec.objective] if spec else [])
    methods = [Method(label=SCRATCH, overrides=forms["scratch"]), *map(_method, given)]
    taught = _self_training(spec, forms["self-train"], {**fixed, **machine})
    methods += [
        dataclasses.replace(each, label=each.label + SELF_TRAINED, self_trained=True)
        for each in (methods if taught else ())
    ]
    plan = Plan(
        dataset=resolved(workspace, "dataset", dataset or (spec.dataset if spec else "digits")),
        backbone=resolved(workspace, "backbone", backbone or (spec.backbone if spec else "")),
        head=resolved(workspace, "head", head or (spec.head if spec else "linear")),
        methods=tuple(
            dataclasses.replace(each, objective=resolved(workspace, "objective", each.objective))
            if each.objective
            else each
            for each in methods
        ),
        labels=tuple(sorted(labels, key=lambda each: each if each else float("inf"))),
        seeds=tuple(seeds),
        pretraining=make(TrainConfig, training, "pretrain"),
        finetuning=make(TrainConfig, tuning, "finetune"),
        finetune=make(FinetuneConfig, config, "finetune"),
        steps=steps,
        examples=0,
        classes=0,
        self_training=taught[0] if taught else None,
        self_train=taught[1] if taught else SelfTrainConfig(),
    )
    _check_lists(plan)
    data = _check_data(workspace, plan)
    first = pretrain_dataset or (spec.pretrain_dataset if spec else None)
    if first is not None and (part := resolved(workspace, "dataset", first)) != plan.dataset:
        other = assembly.build_dataset(workspace, choose(workspace, "dataset", part))
        plan = dataclasses.replace(plan, pretrain_dataset=part, input=other.input)
    plan = _tried(workspace, plan, data)
    truth = train_labels(workspace, plan.dataset, data)
    for wanted in plan.labels:
        if wanted is not None and wanted > len(truth):
            raise Unfit(
                f"labels: {wanted:,} are asked for, and the training split of"
                f" '{plan.dataset.name}' has {len(truth):,}. Type all for every one."
            )
    plan = dataclasses.replace(plan, examples=len(truth), classes=len(data.classes))
    _check_options(plan, data)
    return plan, truth


def _check_options(plan: Plan, data: Dataset) -> None:
    """Refuse options that contradict each other in some cell; `BadOption`, `Unfit`."""
    with _of("pretrain"):
        check_training(plan.pretraining)
    for cell in plan.cells:
        with _of("finetune"):
            check_finetuning(plan.training_of(cell), plan.finetune_of(cell))
        if cell.method.self_trained:
            with _of("self-train"):
                check_self_training(plan.self_training_of(cell))
            if cell.labels == plan.examples and not data.unlabelled:
                raise Unfit(
                    f"labels: {cell.labels:,} are every example, and nothing is left for"
                    " self-training to label. Type all in its place."
                )


@contextlib.contextmanager
def _of(form: str) -> Iterator[None]:
    """Say of which of the command's options it is that something is wrong."""
    try:
        yield
    except BadOption as error:
        # What it says to type is an option of `zoo finetune` or the like.
        how = f" Here an option is typed --{form} KEY=VALUE." if "--" in str(error) else ""
        raise BadOption(f"{form}: {error}{how}") from None


def _scratch_of(spec: RecipeSpec | None) -> dict[str, Any]:
    """Return what a recipe sets otherwise for the model from scratch."""
    if spec is None:
        return {}
    pairs = (
        (spec.scratch_finetuning, spec.finetuning),
        (spec.scratch_finetune, spec.finetune),
    )
    found: dict[str, Any] = {}
    for own, usual in pairs:
        if own is not None:
            before = to_json(usual)
            found |= {n: v for n, v in to_json(own).items() if v != before[n] and n not in FIXED}
    return found


def _self_training(
    spec: RecipeSpec | None, given: Mapping[str, Any], fixed: Mapping[str, Any]
) -> tuple[TrainConfig, SelfTrainConfig] | None:
    """Resolve the options of self-training; None where neither they nor a recipe ask for it."""
    recipe = spec.self_training if spec else None
    if not given and recipe is None:
        return None
    training = {**(to_json(recipe) if recipe else {}), **those_of(TrainConfig, given), **fixed}
    config = {**(to_json(spec.self_train) if spec else {}), **those_of(SelfTrainConfig, given)}
    return make(TrainConfig, training, "self-train"), make(SelfTrainConfig, config, "self-train")


FORMS: dict[str, tuple[type, ...]] = {
    "pretrain": (TrainConfig,),
    "self-train": (TrainConfig, SelfTrainConfig),
}
"""The configs whose options a flag of the bench takes, where those are not finetuning's."""


def _options(form: str, values: Mapping[str, Any], allowed: Sequence[str] = ()) -> dict[str, Any]:
    """Refuse options that are unknown, or that the bench itself sets; `BadOption`."""
    configs = FORMS.get(form, (TrainConfig, FinetuneConfig))
    known = {knob.name: knob for config in configs for knob in knobs(config)}
    checked = {}
    for name, value in values.items():
        if name not in known:
            hint = did_you_mean(name, known)
            raise UnknownName(f"{form}: unknown option '{name}'.{hint} Options: {listing(known)}.")
        with _of(form):
            checked[name] = known[name].check(value)
        if name in FIXED and name not in allowed and checked.pop(name) != FIXED[name][0]:
            raise BadOption(f"{form}: {name} is not yours to set here. {FIXED[name][1]}")
    return checked


def _method(given: str | Component | Method) -> Method:
    if isinstance(given, Method):
        own = _options(given.label, given.overrides)
        return dataclasses.replace(given, overrides=own)
    return Method(label=_part(given).name, objective=_part(given))


def _part(given: str | Component) -> Component:
    return Component(given) if isinstance(given, str) else given


def _check_lists(plan: Plan) -> None:
    named: dict[str, list[Any]] = {
        "objectives": [method.label for method in plan.methods],
        "labels": list(plan.labels),
        "seeds": list(plan.seeds),
    }
    for name, values in named.items():
        if not values or len(set(values)) < len(values):
            said = ", ".join("all" if value is None else str(value) for value in values)
            raise BadOption(f"{name}: at least one, and each once; given: {said or 'none'}.")
    if not any(method.label.removesuffix(SELF_TRAINED) != SCRATCH for method in plan.methods):
        raise BadOption("objectives: name at least one. See: zoo list objectives")
    seed = next(knob for knob in knobs(TrainConfig) if knob.name == "seed")
    for each in plan.seeds:
        seed.check(each)
    if plan.steps < 0:
        raise BadOption(f"steps: {plan.steps} is not allowed. Allowed: a whole number from 0.")


def _check_data(workspace: Workspace, plan: Plan) -> Dataset:
    """Describe the data set, before any of it is read; raises `ZooError`."""
    data = assembly.build_dataset(workspace, choose(workspace, "dataset", plan.dataset))
    if not data.classes:
        raise Unfit(
            f"Dataset '{plan.dataset.name}' has no classes: nothing can be finetuned on it."
        )
    if data.test is None:
        raise DataError(f"Dataset '{plan.dataset.name}' has no test split to measure on.")
    for wanted in plan.labels:
        check_counts(0, wanted, len(data.classes))
    return data


def _tried(workspace: Workspace, plan: Plan, data: Dataset) -> Plan:
    """Build each part once, on zeros: what does not fit is told now, not after hours.

    Returns the plan with its teachers named for good: `latest` would be the bench's own cells.
    """
    backbone = choose(workspace, "backbone", plan.backbone)
    library, methods = Library(workspace, by=BY), []
    for method in plan.methods:
        built = plan.input or data.input
        model = assembly.build_backbone(backbone, built)
        assembly.preprocess_for(data.input, built, model)
        if method.objective:
            objective = library.engaged(method.objective, model, built)
            method = dataclasses.replace(method, objective=objective)
        else:
            features, classes = int(model.features), len(data.classes)  # type: ignore[arg-type]
            assembly.build_head(choose(workspace, "head", plan.head), features, classes)
        methods.append(method)
    return dataclasses.replace(plan, methods=tuple(methods), teachers=library.fingerprints)
