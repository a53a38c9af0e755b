"""Stages of an encoder: where they are, which train when and at which rate; the labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo import pipeline
from zoo.api import Component, FinetuneConfig, ImageInput, Preprocessing, TrainConfig
from zoo.errors import BadOption
from zoo.models import Classifier, Preprocess, stages
from zoo.pipeline import Workspace
from zoo.registry import Registry
from zoo.tasks import Finetuning

GREY = ImageInput(channels=1, height=8, width=8)


# --- where stages are -----------------------------------------------------------------------


def names(encoder: nn.Module) -> list[str]:
    """The names of an encoder's stages within it."""
    known = {id(module): name for name, module in encoder.named_modules()}
    return [known[id(stage)] for stage in stages(encoder)]


class Block(nn.Module):
    """A block as transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.mix = nn.Linear(6, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.mix(self.norm(inputs)).relu()


class Former(nn.Module):
    """As a vision transformer: loose weights, an embedding, a list of like blocks, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(6))
        self.embed = nn.Linear(64, 6)
        self.drop = nn.Dropout(0.5)  # without weights: no stage
        self.blocks = nn.ModuleList([Block(), Block(), Block()])
        self.norm = nn.BatchNorm1d(6)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.drop(self.embed(inputs.flatten(1))) + self.token
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(hidden)


class Loose(nn.Module):
    """A weight beside its only child."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("encoder", "wanted"),
    [
        (Former(), ["embed", "blocks.0", "blocks.1", "blocks.2", "norm"]),
        (nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))), ["0.0", "0.2"]),
        # A list of like blocks within a list: block by block; of unlike ones: as one.
        (
            nn.Sequential(
                nn.Conv2d(1, 2, 1),
                nn.Sequential(Block(), Block()),
                nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)),
                nn.Sequential(Block()),
            ),
            ["0", "1.0", "1.1", "2", "3"],
        ),
        (nn.Linear(2, 2), [""]),
        (nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), ["1"]),
        (Loose(), [""]),
        (nn.Sequential(nn.Flatten(), Loose()), ["1"]),
        (nn.Flatten(), [""]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_stages_follow_each_other_from_the_input(encoder: nn.Module, wanted: list[str]) -> None:
    assert names(encoder) == wanted


@pytest.mark.parametrize(
    ("backbone", "options", "wanted"),
    [
        ("mlp", {"widths": (8, 6)}, ["1", "3", "5"]),
        ("mlp", {"widths": (8,), "norm": True, "dropout": 0.5}, ["1", "2", "5"]),
        ("conv", {"channels": (4, 8)}, ["0", "1", "3"]),
        ("conv-residual", {"channels": (4, 8)}, ["0", "1", "2", "3", "5"]),
    ],
)
def test_stages_of_the_built_in_backbones(
    backbone: str, options: dict[str, Any], wanted: list[str]
) -> None:
    entry = Registry.installed().lookup("backbone", backbone)
    assert names(entry.spec.build(entry.configure(options), GREY).encoder) == wanted


def test_every_weight_of_a_backbone_is_in_one_stage() -> None:
    """Whatever is installed: in one at most, and what is in none lies beside them all."""
    registry = Registry.installed()
    for entry in registry.entries("backbone"):
        encoder = entry.spec.build(entry.configure({}), entry.spec.inputs[1]).encoder
        parts = [{id(p) for p in part.parameters()} for part in stages(encoder)]
        assert len(parts) > 1, entry.name
        assert all(parts), entry.name
        assert sum(map(len, parts)) == len(set().union(*parts)), entry.name
        beside = {id(p) for p in encoder.parameters()} - set().union(*parts)
        assert beside <= {id(p) for p in encoder.parameters(recurse=False)}, entry.name


# --- which of them train --------------------------------------------------------------------


def classifier(**options: Any) -> Classifier:
    torch.manual_seed(0)
    preprocess = Preprocess(GREY, GREY, Preprocessing())
    return Classifier(preprocess, Former(), nn.Linear(6, 3), **options)


# From the input on; the token lies beside the stages and goes with the first.
FORMER = [
    {"token", "embed.weight", "embed.bias"},
    *(
        {f"blocks.{at}.{name}" for name in ("norm.weight", "norm.bias", "mix.weight", "mix.bias")}
        for at in range(3)
    ),
    {"norm.weight", "norm.bias"},
]


@pytest.mark.parametrize("before", [0, 3, 5])
@pytest.mark.parametrize("count", range(7))
def test_the_first_stages_are_frozen_and_the_others_train(count: int, before: int) -> None:
    module = classifier()
    module.freeze(before)  # whatever was frozen before
    module.freeze(count)
    trained = {name for name, p in module.encoder.named_parameters() if p.requires_grad}
    assert trained == set().union(*FORMER[count:])
    assert all(p.requires_grad for p in module.head.parameters())


@pytest.mark.parametrize("count", range(6))
def test_frozen_stages_stay_in_evaluation_mode(count: int) -> None:
    module = classifier()
    module.freeze(count)
    for mode in (True, False, True):
        module.train(mode)
        parts = stages(module.encoder)
        assert [part.training for part in parts] == [False] * count + [mode] * (5 - count)
        assert module.head.training is mode
        # All within a stage is as it is.
        assert all(each.training == part.training for part in parts for each in part.modules())
    # What draws or counts beside the stages rests when all of them do.
    assert module.encoder.drop.training is (count < 5)  # type: ignore[union-attr]


def test_a_probe_is_a_classifier_whose_stages_are_all_frozen() -> None:
    probe, frozen = classifier(frozen=True).train(), classifier()
    frozen.freeze(5)
    for module in (probe, frozen):
        assert not any(p.requires_grad for p in module.encoder.parameters())
        assert not any(each.training for each in module.encoder.modules())


@pytest.mark.parametrize("decay", [1.0, 0.5, 0.0])
def test_each_stage_has_a_share_of_the_rate_of_the_next(decay: float) -> None:
    rates = classifier().rates(decay)
    wanted = {
        f"encoder.{name}": decay ** (5 - at) for at, stage in enumerate(FORMER) for name in stage
    }
    assert rates == wanted  # the head is not among them: its factor is 1


# --- unfreezing, epoch by epoch -------------------------------------------------------------

MLP = Component("mlp", widths=(8,), features=4, norm=True)
STAGES = ("encoder.1.", "encoder.2.", "encoder.4.")
"""A linear layer, a norm with its statistics, a linear layer."""

SLOW = {"batch_size": 20, "lr": 0.01, "schedule": "constant", "validation": 0, "threads": 1}


def weights(
    workspace: Workspace, epochs: int, optimizer: Any = "adamw", **options: Any
) -> dict[str, Tensor]:
    training = TrainConfig(epochs=epochs, optimizer=optimizer, **SLOW)  # type: ignore[arg-type]
    run = pipeline.finetune(
        backbone=MLP,
        training=training,
        finetune=FinetuneConfig(labels=60, **options),
        workspace=workspace,
    )
    return run.load_weights()


@pytest.mark.parametrize(("every", "optimizer"), [(1, "adamw"), (2, "adamw"), (1, "sgd")])
def test_one_more_stage_trains_every_so_many_epochs(
    workspace: Workspace, every: int, optimizer: str
) -> None:
    """A run of one epoch more does as the shorter one did, and then one epoch: what moved in it?"""
    before = weights(workspace, 0, unfreeze=every)
    # A bias before a norm has no gradient but rounding, which Adam alone amplifies.
    left_out = {"encoder.1.bias"} if optimizer == "sgd" else set()
    for epoch in range(1, 3 * every + 3):
        after = weights(workspace, epoch, optimizer, unfreeze=every)
        moved = {n for n in after if not torch.equal(after[n], before[n])}
        open_ = min(3, (epoch - 1) // every)
        trained = STAGES[3 - open_ :]
        wanted = {n for n in after if n.startswith((*trained, "head."))}
        assert moved - left_out == wanted - left_out
        before = after


def test_layer_decay_scales_what_a_step_moves(workspace: Workspace) -> None:
    """The first step of plain SGD is the rate times the gradient, so the factor alone differs."""

    def step(decay: float) -> dict[str, Tensor]:
        training = TrainConfig(
            epochs=1, batch_size=60, optimizer="sgd", momentum=0.0, weight_decay=0.0,
            schedule="constant", lr=0.5, validation=0, threads=1,
        )  # fmt: skip
        run = pipeline.finetune(
            backbone=MLP,
            training=training,
            finetune=FinetuneConfig(labels=60, layer_decay=decay),
            workspace=workspace,
        )
        return run.load_weights()

    start, plain, decayed = weights(workspace, 0), step(1.0), step(0.5)
    factors = dict(zip(STAGES, (0.125, 0.25, 0.5), strict=True)) | {"head.": 1.0}
    for name, tensor in start.items():
        if "running" in name or "tracked" in name:
            continue
        factor = factors[name[: name.rindex(".") + 1]]
        assert torch.allclose(decayed[name] - tensor, factor * (plain[name] - tensor), atol=1e-6)
        assert not torch.equal(plain[name], tensor), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"freeze": True, "unfreeze": 2},
            "unfreeze: --freeze keeps the encoder fixed. Leave one of them out.",
        ),
        (
            {"freeze": True, "layer_decay": 0.9},
            "layer_decay: with --freeze no stage of the encoder has a rate.",
        ),
    ],
)
def test_options_that_contradict_each_other(
    workspace: Workspace, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadOption) as caught:
        pipeline.finetune(backbone=MLP, finetune=FinetuneConfig(**options), workspace=workspace)
    assert str(caught.value) == message
    assert not workspace.runs_root.exists()


# --- labels ---------------------------------------------------------------------------------


def raw(count: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)


HARD = torch.tensor([0, 2, 1, 1, 0, 2, 2])
SOFT = torch.tensor(
    [[0.7, 0.2, 0.1], [0.0, 0.0, 1.0], [0.1, 0.8, 0.1], [0.2, 0.6, 0.2], [0.9, 0.1, 0.0],
     [0.25, 0.25, 0.5], [0.3, 0.3, 0.4]]
)  # fmt: skip


def cross_entropy(scores: Tensor, target: Tensor) -> float:
    """The mean of -sum(target · log softmax), example by example."""
    total = 0.0
    for row, wanted in zip(scores.double(), target.double(), strict=True):
        logs = row - row.exp().sum().log()
        total -= float((wanted * logs).sum())
    return total / len(scores)


@pytest.mark.parametrize("on_probabilities", [False, True])
@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_labels_are_smoothed_in_training_alone(
    training: bool, smoothing: float, labels: Tensor, on_probabilities: bool
) -> None:
    module = Finetuning(
        classifier(frozen=True), smoothing=smoothing, on_probabilities=on_probabilities
    )
    module.train(training)
    losses = module(raw(), labels)
    logits = module.classifier(raw()).detach()
    target = labels if labels.ndim > 1 else torch.eye(3)[labels]
    if training:
        target = (1 - smoothing) * target + smoothing / 3
    scores = logits.softmax(1) if on_probabilities else logits
    assert losses.total.item() == pytest.approx(cross_entropy(scores, target), rel=1e-5)
    # SOFT's heaviest classes are HARD.
    hits = sum(int(row.argmax() == label) for row, label in zip(logits, HARD, strict=True))
    assert losses.parts["accuracy"].item() == pytest.approx(hits / 7)


def test_smoothing_reaches_training_and_not_validation(workspace: Workspace) -> None:
    """At a rate of zero the weights stay, so that all that differs is how they are judged."""

    def figures(smoothing: float) -> tuple[float, float]:
        training = TrainConfig(epochs=1, batch_size=64, lr=0.0, validation=200, threads=1)
        run = pipeline.finetune(
            backbone=Component("mlp", widths=(8,), features=4),
            training=training,
            finetune=FinetuneConfig(label_smoothing=smoothing),
            workspace=workspace,
        )
        [line] = run.metrics()
        return line["train"]["total"], line["validation"]["total"]

    plain, smoothed = figures(0.0), figures(0.5)
    assert plain[0] != smoothed[0]
    assert plain[1] == smoothed[1]
