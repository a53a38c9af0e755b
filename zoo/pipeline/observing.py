"""What a report shows of a run's model: run on training and held-out examples, on the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from zoo.api import FinetuneConfig, ImageInput, TrainConfig
from zoo.config import make
from zoo.data import holdout
from zoo.errors import DataError, ZooError
from zoo.pipeline import assembly
from zoo.pipeline.finetuning import labelled_examples
from zoo.pipeline.identity import digested
from zoo.pipeline.reviving import Model, revive
from zoo.pipeline.sameness import BACK, change_of, change_of_split, commands_anew, refusal
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.report import generation, saliency
from zoo.report.embedding import embed
from zoo.report.facts import Absent, Autoencoded, Looked, Mapped
from zoo.runs import Run
from zoo.training import outputs

T = TypeVar("T")
PICTURED = (1, 3)
"""Channels of inputs that can be shown."""
NO_PICTURES = "Inputs of {} channels are no pictures: those have 1 or 3."
SHOWN = 16


@dataclasses.dataclass(frozen=True)
class Budget:
    """How many examples are looked at, so that a report takes seconds: features, codes, saliency.

    `noisy` is the number of noisy copies that a map of SmoothGrad averages over.
    """

    features: int = 1000
    codes: int = 2000
    looked: int = 24
    noisy: int = 25


LARGE = Budget(features=300, codes=300, looked=8, noisy=8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
    """Examples to look at: `seen` were held out where the run held any out, `train` never were."""

    inputs: Tensor
    labels: Tensor | None
    seen: Tensor
    train: Tensor
    told: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observed:
    """The parts of a report that take a model."""

    parameters: int | None
    autoencoded: Autoencoded | Absent | None
    mapped: Mapped | Absent
    looked: Looked | Absent | None
    watch: str


def observe(run: Run, workspace: Workspace) -> Observed:
    """Run a finished run's model on examples of its training split; the test split stays closed."""
    finetuned = run.record.kind == "finetune"
    model = _attempt(lambda: revive(run, workspace))
    current().note("looking at examples of the training split")
    pool = model if isinstance(model, Absent) else _attempt(lambda: _pool(run, model, workspace))
    if isinstance(model, Absent) or isinstance(pool, Absent):
        assert isinstance(pool, Absent)
        known = None if isinstance(model, Absent) else model
        return Observed(
            parameters=known.parameters if known else None,
            autoencoded=None if finetuned or (known and known.decoder is None) else pool,
            mapped=pool,
            looked=pool if finetuned else None,
            watch=known.watch if known else ("accuracy" if finetuned else "total"),
        )
    budget = Budget() if pool.inputs[0].numel() <= 3 * 64 * 64 else LARGE

    def guarded(deed: Callable[[Model, Pool, Budget], T]) -> T | Absent:
        def run_it() -> T:
            with assembly.guarded(model.backbone.entry, "run for the report"):
                return deed(model, pool, budget)

        return _attempt(run_it)

    return Observed(
        parameters=model.parameters,
        autoencoded=guarded(_autoencoded) if model.decoder is not None else None,
        mapped=guarded(_mapped),
        looked=guarded(_looked) if model.classify is not None else None,
        watch=model.watch,
    )


def _attempt(deed: Callable[[], T]) -> T | Absent:
    """Do what a report can do without."""
    try:
        return deed()
    except (ZooError, OSError) as error:
        return Absent(reason=str(error))


def _pool(run: Run, model: Model, workspace: Workspace) -> Pool:
    """Split the training split as the run did, and say which part of it is looked at."""
    training = make(TrainConfig, run.record.training)
    if change := change_of(run.record, model.data.classes, model.data.input.shape):
        raise DataError(refusal(run.record, change, commands_anew(run, workspace)))
    if run.record.finetune is not None:
        finetune = make(FinetuneConfig, run.record.finetune)
        examples, train, held = labelled_examples(model.dataset, model.data, training, finetune)
    else:
        examples = assembly.load_split(model.dataset, model.data, model.data.train)
        train, held = holdout(len(examples), training.validation, training.seed)
    counted = run.record.metrics.get("validation_examples", len(held))
    change = change_of_split(run, "train", digested(examples))
    if not change and len(held) != counted:  # all that is known of a run made before digests
        change = f"{len(held):,} examples are held out now, and {counted:,} were. {BACK}, or train"
        change += " anew"
    if change:
        raise DataError(refusal(run.record, change, commands_anew(run, workspace)))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    train = train[order]  # a draw of labels is in the order of the data set
    told = "held-out validation examples" if len(held) else "training examples"
    seen = held if len(held) else train
    return Pool(
        inputs=examples.inputs,
        labels=_usable(examples.labels, len(examples), len(run.record.classes)),
        seen=seen,
        train=train,
        told=told,
    )


def _usable(labels: Tensor | None, count: int, classes: int) -> Tensor | None:
    """Return labels that colour a map; a pretraining needs none, so none are asked for."""
    if labels is None or labels.shape != (count,) or labels.dtype != torch.int64 or not classes:
        return None
    return labels if int(labels.min()) >= 0 and int(labels.max()) < classes else None


def _mapped(model: Model, pool: Pool, budget: Budget) -> Mapped:
    at = pool.seen[: budget.features]
    features = outputs(model.features, pool.inputs[at])
    labels = None if pool.labels is None else pool.labels[at].numpy()
    return Mapped(map=embed(features.numpy()), labels=labels, examples=f"{len(at):,} {pool.told}")


def _autoencoded(model: Model, pool: Pool, budget: Budget) -> Autoencoded | Absent:
    assert model.encode is not None
    assert model.decoder is not None
    target: ImageInput = model.preprocess.target
    if target.channels not in PICTURED:
        return Absent(reason=NO_PICTURES.format(target.channels))
    inputs = outputs(model.preprocess, pool.inputs[pool.seen[:SHOWN]])
    back = generation.reconstruct(model.encode, model.decoder, inputs)
    known = pool.inputs[pool.train[: budget.codes]]
    codes = outputs(nn.Sequential(model.preprocess, model.encode), known)
    drawn = outputs(model.decoder, generation.draw_codes(codes, SHOWN))
    shown = (generation.to_bytes(model.preprocess, each).numpy() for each in (inputs, back, drawn))
    return Autoencoded(**dict(zip(("inputs", "outputs", "samples"), shown, strict=True)),
                       codes=len(codes), examples=pool.told)  # fmt: skip


def _looked(model: Model, pool: Pool, budget: Budget) -> Looked | Absent:
    assert model.classify is not None
    assert pool.labels is not None
    if model.data.input.channels not in PICTURED:
        return Absent(reason=NO_PICTURES.format(model.data.input.channels))
    at = pool.seen[: budget.looked]
    raw = pool.inputs[at]

    def maps(module: nn.Module, examples: Tensor) -> Tensor:
        return saliency.smoothgrad(module, examples, samples=budget.noisy)

    sanity = saliency.check(model.classify, raw, maps)
    return Looked(
        pictures=raw.numpy(),
        labels=pool.labels[at].numpy(),
        probabilities=outputs(model.classify, raw).double().softmax(1).numpy(),
        sanity=sanity,
        samples=budget.noisy,
        examples=f"{len(at)} {pool.told}",
    )
