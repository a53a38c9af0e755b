"""What a bench over label counts trains: methods, label counts, seeds, and settings fixed ahead."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
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
from zoo.data import check_counts, checked, labelled
from zoo.errors import BadOption, DataError, Unfit, UnknownName, did_you_mean, listing
from zoo.pipeline import assembly
from zoo.pipeline.assembly import choose
from zoo.pipeline.reuse import HARMLESS, digest, options_of
from zoo.pipeline.workspace import Workspace

SCRATCH = "scratch"
SELF_TRAINED = " + self-training"
ONLY_LABELS = "With N labels, N is everything that carries one: none is held out or chosen on."
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A way to a classifier: pretrained with an objective, or None, and its own settings.

    `overrides` are finetuning options that hold for this method alone. With `self_trained`, the
    classifier goes on to learn from its own labels of the other examples.
    """

    label: str
    objective: Component | None = None
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    self_trained: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One classifier of the bench: a method, so many labels (None: all), a seed."""

    method: Method
    labels: int | None
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method.label}, {shown(self.labels)} labels, seed {self.seed}"

    @property
    def teacher(self) -> Cell:
        """The cell without self-training, whose classifier a self-trained one goes on from."""
        label = self.method.label.removesuffix(SELF_TRAINED)
        method = dataclasses.replace(self.method, label=label, self_trained=False)
        return dataclasses.replace(self, method=method)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole bench. `examples` is how many the training split has, each with a label.

    `steps` is the least number of finetuning steps: epochs are raised where labels are few.
    """

    dataset: Component
    backbone: Component
    head: Component
    methods: tuple[Method, ...]
    labels: tuple[int | None, ...]
    seeds: tuple[int, ...]
    pretraining: TrainConfig
    finetuning: TrainConfig
    finetune: FinetuneConfig
    steps: int
    examples: int
    classes: int
    self_training: TrainConfig | None = None
    self_train: SelfTrainConfig = dataclasses.field(default_factory=SelfTrainConfig)

    @property
    def cells(self) -> Iterator[Cell]:
        """Walk through the cells seed by seed: after one seed there is a first table.

        Where every example has a label, none is left for self-training.
        """
        for seed in self.seeds:
            for method in self.methods:
                for labels in self.labels:
                    if labels is not None or not method.self_trained:
                        yield Cell(method=method, labels=labels, seed=seed)

    def pretraining_of(self, seed: int) -> TrainConfig:
        return dataclasses.replace(self.pretraining, seed=seed)

    def finetune_of(self, cell: Cell) -> FinetuneConfig:
        changed = _those_of(FinetuneConfig, cell.method.overrides)
        return dataclasses.replace(self.finetune, **changed, labels=cell.labels)

    def training_of(self, cell: Cell) -> TrainConfig:
        changed = _those_of(TrainConfig, cell.method.overrides)
        config = dataclasses.replace(self.finetuning, **changed, seed=cell.seed)
        least = -(-self.steps // steps_an_epoch(cell.labels or self.examples, config))
        return dataclasses.replace(config, epochs=max(config.epochs, least))

    def self_training_of(self, cell: Cell) -> TrainConfig:
        assert self.self_training is not None  # no cell asks for it otherwise
        return dataclasses.replace(self.self_training, seed=cell.seed)

    def parts_of(self, objective: Component | None = None) -> dict[str, Component]:
        """Return the components of a finetuning, or of the pretraining with an objective."""
        parts = {"dataset": self.dataset, "backbone": self.backbone}
        return parts | ({"objective": objective} if objective else {"head": self.head})

    def key(self, workspace: Workspace, cell: Cell) -> str:
        """Digest what a cell is asked to be, wherever and with whatever versions it is made."""
        training, config = self.training_of(cell), self.finetune_of(cell)
        before = None
        if cell.method.objective:
            parts = self.parts_of(cell.method.objective)
            before = options_of(workspace, parts, self.pretraining_of(cell.seed))
        ours = options_of(workspace, self.parts_of(), training, config)
        content = {"method": cell.method.label, "finetuning": ours, "pretraining": before}
        if cell.method.self_trained:
            taught = options_of(workspace, {}, self.self_training_of(cell))["training"]
            content["self_training"] = taught | to_json(self.self_train)
        return digest(content)


def steps_an_epoch(examples: int, config: TrainConfig) -> int:
    """Count the steps of an epoch, as `zoo.data.Batches` and the loop make them."""
    batches, rest = divmod(examples, config.batch_size)
    batches += rest > (1 if batches else 0)
    return -(-batches // config.accumulate)


def shown(labels: int | None) -> str:
    return "all" if labels is None else f"{labels:,}"


def settings(plan: Plan) -> dict[str, Any]:
    """Write what was fixed ahead as JSON: every option, resolved."""
    return {
        "dataset": _component(plan.dataset),
        "backbone": _component(plan.backbone),
        "head": _component(plan.head),
        "methods": [
            {
                "label": method.label,
                "objective": _component(method.objective) if method.objective else None,
                "overrides": dict(method.overrides),
                "self_trained": method.self_trained,
            }
            for method in plan.methods
        ],
        "labels": list(plan.labels),
        "seeds": list(plan.seeds),
        "steps": plan.steps,
        "examples": plan.examples,
        "pretraining": _kept(to_json(plan.pretraining)),
        "finetuning": _kept(to_json(plan.finetuning)),
        "finetune": to_json(plan.finetune),
        "self_training": (
            _kept(to_json(plan.self_training)) | to_json(plan.self_train)
            if plan.self_training
            else None
        ),
    }


def _kept(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in (*HARMLESS, "seed")}


def _component(part: Component) -> dict[str, Any]:
    return {"name": part.name, "options": dict(part.options)}


def plan_of(
    workspace: Workspace,
    *,
    dataset: str | Component | None,
    backbone: str | Component | None,
    head: str | Component | None,
    objectives: Sequence[str | Component | Method],
    labels: Sequence[int | None],
    seeds: Sequence[int],
    pretrain: Mapping[str, Any],
    finetune: Mapping[str, Any],
    scratch: Mapping[str, Any],
    self_train: Mapping[str, Any],
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
        "scratch": _options("scratch", scratch),
        "self-train": _options("self-train", self_train),
    }
    before = to_json(spec.pretraining) if spec else {}
    after = to_json(spec.finetuning) if spec else {}
    few = to_json(spec.finetune) if spec else {}
    fixed: dict[str, Any] = {name: FIXED[name][0] for name in ("validation", "keep", "patience")}
    training = {**before, **fixed, **_those_of(TrainConfig, forms["pretrain"]), **machine}
    tuning = {**after, **_those_of(TrainConfig, forms["finetune"]), **fixed, **machine}
    config = {**few, **_those_of(FinetuneConfig, forms["finetune"]), "labels": None}
    given = list(objectives) or ([spec.objective] if spec else [])
    methods = [Method(label=SCRATCH, overrides=forms["scratch"]), *map(_method, given)]
    taught = _self_training(spec, forms["self-train"], {**fixed, **machine})
    methods += [
        dataclasses.replace(each, label=each.label + SELF_TRAINED, self_trained=True)
        for each in (methods if taught else ())
    ]
    plan = Plan(
        dataset=_resolved(workspace, "dataset", dataset or (spec.dataset if spec else "digits")),
        backbone=_resolved(workspace, "backbone", backbone or (spec.backbone if spec else "")),
        head=_resolved(workspace, "head", head or (spec.head if spec else "linear")),
        methods=tuple(
            dataclasses.replace(each, objective=_resolved(workspace, "objective", each.objective))
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
    _try_parts(workspace, plan, data)
    truth = train_labels(workspace, plan.dataset, data)
    for wanted in plan.labels:
        if wanted is not None and wanted > len(truth):
            raise Unfit(
                f"labels: {wanted:,} are asked for, and the training split of"
                f" '{plan.dataset.name}' has {len(truth):,}. Type all for every one."
            )
    return dataclasses.replace(plan, examples=len(truth), classes=len(data.classes)), truth


def _self_training(
    spec: RecipeSpec | None, given: Mapping[str, Any], fixed: Mapping[str, Any]
) -> tuple[TrainConfig, SelfTrainConfig] | None:
    """Resolve the options of self-training; None where neither they nor a recipe ask for it."""
    recipe = spec.self_training if spec else None
    if not given and recipe is None:
        return None
    training = {**(to_json(recipe) if recipe else {}), **_those_of(TrainConfig, given), **fixed}
    config = {**(to_json(spec.self_train) if spec else {}), **_those_of(SelfTrainConfig, given)}
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
        try:
            checked[name] = known[name].check(value)
        except BadOption as error:
            raise BadOption(f"{form}: {error}") from None
        if name in FIXED and name not in allowed and checked.pop(name) != FIXED[name][0]:
            raise BadOption(f"{form}: {name} is not yours to set here. {FIXED[name][1]}")
    return checked


def _those_of(config: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {knob.name for knob in knobs(config)}
    return {name: value for name, value in values.items() if name in names}


def _method(given: str | Component | Method) -> Method:
    if isinstance(given, Method):
        own = _options(given.label, given.overrides)
        return dataclasses.replace(given, overrides=own)
    return Method(label=_part(given).name, objective=_part(given))


def _part(given: str | Component) -> Component:
    return Component(given) if isinstance(given, str) else given


def _resolved(workspace: Workspace, kind: str, given: str | Component) -> Component:
    """Look a component up, and name every option that it has."""
    return Component(_part(given).name, **to_json(choose(workspace, kind, given).config))


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
    if not any(method.objective for method in plan.methods):
        raise BadOption("objectives: name at least one. See: zoo list objectives")
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


def _try_parts(workspace: Workspace, plan: Plan, data: Dataset) -> None:
    """Build each part once, on zeros: what does not fit is told now, not after hours."""
    backbone = choose(workspace, "backbone", plan.backbone)
    for method in plan.methods:
        if method.self_trained:
            continue
        model = assembly.build_backbone(backbone, data.input)
        if method.objective:
            part = choose(workspace, "objective", method.objective)
            task = assembly.build_objective(workspace, part, model)
            preprocess = assembly.preprocess_for(data.input, data.input, model)
            assembly.check_objective(part, task, model, preprocess)
        else:
            features, classes = int(model.features), len(data.classes)  # type: ignore[arg-type]
            assembly.build_head(choose(workspace, "head", plan.head), features, classes)


def train_labels(workspace: Workspace, dataset: Component, data: Dataset) -> torch.Tensor:
    """Return the labels of the training split."""
    part = choose(workspace, "dataset", dataset)
    with assembly.guarded(part.entry, "loaded"):
        loaded = data.train()
    labels = checked(loaded, data.input.shape, len(data.classes), part.entry.owner).labels
    assert labels is not None
    return labels


def draws_of(
    workspace: Workspace, dataset: str | Component, labels: Sequence[int], seeds: Sequence[int]
) -> dict[str, Any]:
    """Draw labels as a bench on this data set does."""
    part = _resolved(workspace, "dataset", dataset)
    data = assembly.build_dataset(workspace, choose(workspace, "dataset", part))
    truth = train_labels(workspace, part, data)
    return draws(part, len(data.classes), truth, labels, seeds)


def draws(
    dataset: Component,
    classes: int,
    truth: torch.Tensor,
    labels: Sequence[int | None],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Name the examples that carry a label in each cell, by their places in the training split.

    They are those that finetuning draws without validation. `all` is every example, and is not
    written out.
    """
    drawn: dict[str, Any] = {}
    for wanted in labels:
        if wanted is not None:
            drawn[str(wanted)] = {
                str(seed): labelled(truth, wanted, classes, 0, seed)[0].sort().values.tolist()
                for seed in seeds
            }
    return {
        "schema": 1,
        "dataset": _component(dataset),
        "examples": len(truth),
        "labels_sha256": hashlib.sha256(truth.numpy().astype("<i8").tobytes()).hexdigest(),
        "draws": drawn,
    }
