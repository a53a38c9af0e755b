"""`run`: a recipe's whole pipeline over its seeds, going on from what was done before."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.api import ImageInput, RecipeSpec, TrainConfig
from zoo.config import make, to_json
from zoo.errors import BadOption
from zoo.export.proof import Proof
from zoo.pipeline.evaluation import accuracy_once
from zoo.pipeline.exporting import export
from zoo.pipeline.finetuning import check_finetuning
from zoo.pipeline.self_training import check_self_training
from zoo.pipeline.steps import Steps
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.runs import Run
from zoo.training import check_training, processes_of

PRETRAINED, SCRATCH = "pretrained", "from scratch"
SELF_TRAINED = ", self-trained"


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to the classifier, over the seeds: accuracies 0..1, seconds of all its training."""

    name: str
    runs: list[str]
    validation: list[float]
    accuracies: list[float]
    seconds: list[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the seeds; None for one seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def validated(self) -> float | None:
        return statistics.fmean(self.validation) if self.validation else None


@dataclasses.dataclass(frozen=True)
class RecipeResult:
    """What a recipe came to. `seconds` is this call's wall time; `reused` counts old runs."""

    recipe: str
    dataset: str
    seeds: list[int]
    methods: list[Method]
    chosen: str
    validation_examples: int
    model: Path
    model_bytes: int
    proof: Proof
    runs_folder: Path
    pretrainings: list[str]
    reused: int
    seconds: float

    @property
    def gain(self) -> tuple[float, float] | None:
        """Pretrained minus scratch, paired by seed: mean, sample deviation; None without both."""
        return self._difference(PRETRAINED, SCRATCH)

    @property
    def self_trained_gain(self) -> tuple[float, float] | None:
        """The same after both were trained on labels of their own."""
        return self._difference(PRETRAINED + SELF_TRAINED, SCRATCH + SELF_TRAINED)

    def _difference(self, name: str, other: str) -> tuple[float, float] | None:
        found = {method.name: method.accuracies for method in self.methods}
        if len(self.seeds) < 2 or not {name, other} <= found.keys():
            return None
        differences = [a - b for a, b in zip(found[name], found[other], strict=True)]
        return statistics.fmean(differences), statistics.stdev(differences)


def run(
    recipe: str,
    *,
    seeds: Sequence[int] | None = None,
    threads: int | None = None,
    device: str | None = None,
    fresh: bool = False,
    workspace: Workspace | None = None,
) -> RecipeResult:
    """Run a recipe: pretrain, finetune and train from scratch for each seed, choose, export.

    The choice is made on validation data, where the recipe holds some out; the test split is read
    once for each run, and once for the proof. Finished runs of the same options are used again, and
    those that were stopped go on, unless `fresh`.
    """
    started = time.perf_counter()
    workspace = workspace or Workspace()
    entry = workspace.registry.lookup("recipe", recipe)
    spec: RecipeSpec = entry.spec
    # The names in a recipe are those of its own distribution, whoever else uses them.
    own = workspace.registry.preferring(entry.plugin.split(":")[0])
    workspace = dataclasses.replace(workspace, plugins=own)
    seeds = list(seeds if seeds is not None else spec.seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise BadOption(f"seeds: {seeds} must name at least one seed, and each once.")
    trainings = (spec.pretraining, spec.finetuning, spec.self_training or spec.finetuning)
    if max(map(processes_of, trainings)) > 1:
        raise BadOption(
            f"devices: recipe '{recipe}' trains in one process. For several, type zoo pretrain"
            " and zoo finetune."
        )
    _check(spec)
    steps = Steps(workspace, spec.name, fresh=fresh)
    maker = _Maker(spec, steps, threads, device)
    try:
        pretrainings, made = _make(maker, spec, seeds)
    except KeyboardInterrupt:
        current().note("Type the same command again to go on from here.")
        raise
    chosen = _chosen(spec, made)
    first = made[chosen][0]
    spent = {PRETRAINED: [_seconds(each) for each in pretrainings]}
    methods = []
    for name, runs_made in made.items():
        before = spent.get(name.removesuffix(SELF_TRAINED))
        methods.append(
            _method(name, runs_made, before, workspace, device or spec.finetuning.device)
        )
        spent[name] = methods[-1].seconds  # what a self-training adds to
    exported = export(first, workspace=workspace)
    return RecipeResult(
        recipe=recipe,
        dataset=spec.dataset.name,
        seeds=seeds,
        methods=methods,
        chosen=chosen,
        validation_examples=int(first.record.metrics.get("validation_examples", 0)),
        model=exported.model,
        model_bytes=exported.bytes,
        proof=exported.proof,
        runs_folder=workspace.runs_root,
        pretrainings=[each.name for each in pretrainings],
        reused=steps.reused,
        seconds=time.perf_counter() - started,
    )


def _make(
    maker: _Maker, spec: RecipeSpec, seeds: list[int]
) -> tuple[list[Run], dict[str, list[Run]]]:
    """Return the pretrainings, and each method's classifiers, by seed."""
    of = len(seeds)
    names = [PRETRAINED, SCRATCH] if spec.scratch else [PRETRAINED]
    steps = ["", SELF_TRAINED] if spec.self_training else [""]
    pretrainings: list[Run] = []
    made: dict[str, list[Run]] = {name + step: [] for step in steps for name in names}
    for number, seed in enumerate(seeds, 1):
        current().note(f"seed {seed} ({number} of {of})")
        pretrainings.append(maker.pretrain(seed))
        made[PRETRAINED].append(maker.finetune(seed, pretrainings[-1]))
        if spec.scratch:
            # The same model: built for the input that the pretrained one was built for.
            made[SCRATCH].append(maker.finetune(seed, None, pretrainings[-1].input))
        for name in names if spec.self_training else []:
            made[name + SELF_TRAINED].append(maker.self_train(seed, made[name][-1]))
    return pretrainings, made


def _chosen(spec: RecipeSpec, made: dict[str, list[Run]]) -> str:
    """Return the method that is best on validation data; without any, what the recipe is for."""
    if spec.finetuning.validation == 0:
        return PRETRAINED + (SELF_TRAINED if spec.self_training else "")
    return max(made, key=lambda name: statistics.fmean(_validation(made[name]) or [0.0]))


class _Maker:
    """Makes a recipe's runs of one seed after the other."""

    def __init__(
        self, spec: RecipeSpec, steps: Steps, threads: int | None, device: str | None
    ) -> None:
        self.spec, self.steps = spec, steps
        self._parts = {"dataset": spec.dataset, "backbone": spec.backbone, "head": spec.head}
        self._given: dict[str, Any] = {"threads": threads, "device": device}
        self._given = {name: value for name, value in self._given.items() if value is not None}

    def pretrain(self, seed: int) -> Run:
        spec, training = self.spec, self._training(self.spec.pretraining, seed)
        dataset = spec.pretrain_dataset or spec.dataset
        return self.steps.pretrained(
            spec.backbone, dataset, spec.objective, training, spec.pretrain
        )

    def finetune(self, seed: int, parent: Run | None, input: ImageInput | None = None) -> Run:
        spec = self.spec
        tuning, config = spec.finetuning, spec.finetune
        if parent is None:
            tuning, config = spec.scratch_finetuning or tuning, spec.scratch_finetune or config
        training = self._training(tuning, seed)
        return self.steps.finetuned(self._parts, training, config, parent, input)

    def self_train(self, seed: int, teacher: Run) -> Run:
        spec = self.spec
        assert spec.self_training is not None  # asked for by the caller
        fixed = {"seed": seed, "validation": spec.finetuning.validation}
        training = make(TrainConfig, to_json(self._training(spec.self_training, seed)) | fixed)
        return self.steps.self_trained(
            self._parts, training, spec.finetune, teacher, spec.self_train
        )

    def _training(self, config: TrainConfig, seed: int) -> TrainConfig:
        changed = {**to_json(config), "seed": seed, **self._given}
        return make(TrainConfig, changed, f"recipe '{self.spec.name}'")


def _check(spec: RecipeSpec) -> None:
    """Refuse a recipe whose options contradict each other, before it trains; `BadOption`."""
    check_training(spec.pretraining)
    check_finetuning(spec.finetuning, spec.finetune)
    own = (spec.scratch_finetuning or spec.finetuning, spec.scratch_finetune or spec.finetune)
    check_finetuning(*own)
    if spec.self_training:
        check_self_training(spec.self_training)


def _validation(made: list[Run]) -> list[float]:
    held = [each.record.metrics.get("validation") for each in made]
    return [float(figures["accuracy"]) for figures in held if figures]


def _seconds(made: Run) -> float:
    return float(made.record.seconds or 0.0)


def _method(
    name: str, made: list[Run], before: list[float] | None, workspace: Workspace, device: str
) -> Method:
    """Gather one method's figures; `before` are the seconds of its pretrainings."""
    before = before or [0.0] * len(made)
    return Method(
        name=name,
        runs=[each.name for each in made],
        validation=_validation(made),
        accuracies=[accuracy_once(each, workspace, device) for each in made],
        seconds=[_seconds(each) + more for each, more in zip(made, before, strict=True)],
    )
