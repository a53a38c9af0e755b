"""What a bench over label counts trains: methods, label counts, seeds, settings fixed ahead."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from zoo.api import Component, FinetuneConfig, ImageInput, SelfTrainConfig, TrainConfig
from zoo.config import knobs, to_json
from zoo.pipeline.assembly import choose
from zoo.pipeline.reuse import HARMLESS, digest, options_of
from zoo.pipeline.workspace import Workspace

BY = "bench labels"
"""What stands in the record of each run that a bench makes."""

SCRATCH = "scratch"
SCRATCH_MEANS = (
    "scratch: no run was pretrained; what a backbone loads by itself is not known to zoo."
)
SELF_TRAINED = " + self-training"

ONLY_LABELS = "With N labels, N is everything that carries one: none is held out or chosen on."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A way to a classifier: pretrained with an objective, or None, and its own settings.

    `overrides` are finetuning options that hold for this method alone.
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
    Pretraining reads `pretrain_dataset`, where that is another one, and `input` is then what every
    backbone is built for, that from scratch as well. `teachers` are the SHA-256 of those that
    objectives name, by the option's text.
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
    pretrain_dataset: Component | None = None
    input: ImageInput | None = None
    self_training: TrainConfig | None = None
    self_train: SelfTrainConfig = dataclasses.field(default_factory=SelfTrainConfig)
    teachers: Mapping[str, str] = dataclasses.field(default_factory=dict)

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
        changed = those_of(FinetuneConfig, cell.method.overrides)
        return dataclasses.replace(self.finetune, **changed, labels=cell.labels)

    def training_of(self, cell: Cell) -> TrainConfig:
        changed = those_of(TrainConfig, cell.method.overrides)
        config = dataclasses.replace(self.finetuning, **changed, seed=cell.seed)
        least = -(-self.steps // steps_an_epoch(cell.labels or self.examples, config))
        return dataclasses.replace(config, epochs=max(config.epochs, least))

    def self_training_of(self, cell: Cell) -> TrainConfig:
        assert self.self_training is not None  # no cell asks for it otherwise
        return dataclasses.replace(self.self_training, seed=cell.seed)

    def parts_of(self, objective: Component | None = None) -> dict[str, Component]:
        """Return the components of a finetuning, or of the pretraining with an objective."""
        if objective is None:
            return {"dataset": self.dataset, "backbone": self.backbone, "head": self.head}
        dataset = self.pretrain_dataset or self.dataset
        return {"dataset": dataset, "backbone": self.backbone, "objective": objective}

    def teachers_of(self, objective: Component) -> dict[str, str]:
        """Return the SHA-256 of each teacher of an objective, by the option's text."""
        said = [value for value in objective.options.values() if isinstance(value, str)]
        return {text: sha256 for text, sha256 in self.teachers.items() if text in said}

    def key(self, workspace: Workspace, cell: Cell) -> str:
        """Digest what a cell is asked to be, wherever and with whatever versions it is made."""
        training, config = self.training_of(cell), self.finetune_of(cell)
        before = None
        if cell.method.objective:
            parts = self.parts_of(cell.method.objective)
            teachers = self.teachers_of(cell.method.objective)
            training_before = self.pretraining_of(cell.seed)
            before = options_of(workspace, parts, training_before, teachers=teachers)
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
        "dataset": component_json(plan.dataset),
        "pretrain_dataset": (
            component_json(plan.pretrain_dataset) if plan.pretrain_dataset else None
        ),
        "backbone": component_json(plan.backbone),
        "head": component_json(plan.head),
        "methods": [
            {
                "label": method.label,
                "objective": component_json(method.objective) if method.objective else None,
                "overrides": dict(method.overrides),
                "self_trained": method.self_trained,
            }
            for method in plan.methods
        ],
        "labels": list(plan.labels),
        "seeds": list(plan.seeds),
        "steps": plan.steps,
        "examples": plan.examples,
        "teachers": dict(plan.teachers),
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


def component_json(part: Component) -> dict[str, Any]:
    return {"name": part.name, "options": dict(part.options)}


def those_of(config: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {knob.name for knob in knobs(config)}
    return {name: value for name, value in values.items() if name in names}


def resolved(workspace: Workspace, kind: str, given: str | Component) -> Component:
    """Look a component up, and name every option that it has."""
    part = choose(workspace, kind, given)
    return Component(part.entry.name, **to_json(part.config))
