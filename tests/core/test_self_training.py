"""Self-training: its loss against a slow one, the labels it reads, and that it goes on exactly."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo_conv
import zoo_heads
import zoo_mlp
from zoo import pipeline, runs
from zoo.api import (
    Component,
    Dataset,
    DatasetSpec,
    Examples,
    FinetuneConfig,
    ImageInput,
    Preprocessing,
    SelfTrainConfig,
    TrainConfig,
    hookimpl,
)
from zoo.data import draw_labels, holdout
from zoo.errors import BadOption, RunError, Unfit
from zoo.models import Classifier, Preprocess
from zoo.pipeline import Workspace
from zoo.pipeline.self_training import repeats
from zoo.registry import Registry
from zoo.tasks import BALANCE_RATE, SelfTraining

INPUT = ImageInput(channels=1, height=4, width=4)
CLASSES = 3
ABOVE, BELOW = (0.2, 0.1, 0.0), (0.0, 0.1, 0.1)
FEW = FinetuneConfig(labels=8)
TEACH = TrainConfig(epochs=6, batch_size=4, threads=1, lr=0.01)
STUDY = TrainConfig(epochs=3, batch_size=16, threads=1, shift=1, lr=0.01)


def network(seed: int) -> Classifier:
    torch.manual_seed(seed)
    preprocess = Preprocess(INPUT, INPUT, Preprocessing())
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.ReLU())
    return Classifier(preprocess, encoder, nn.Linear(6, CLASSES))


def task(**options: Any) -> SelfTraining:
    chosen = {"confidence": 0.4, "decay": 0.9, "balance": None, **options}
    return SelfTraining(network(0), CLASSES, **chosen)


def batch(seed: int, count: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randint(256, (2, count, 1, 4, 4), dtype=torch.uint8, generator=generator)
    labels = torch.randint(-1, CLASSES, (count,), generator=generator)
    return pictures[0], pictures[1], labels


def slow_loss(module: SelfTraining, pictures: Tensor, raw: Tensor, labels: Tensor) -> list[float]:
    """The loss and its parts, example by example, from the logits of both networks."""
    logits = module.classifier(pictures).tolist()
    guesses = module.teacher(raw).softmax(1).tolist()
    if module.balance is not None:
        weights = [math.exp(below - above) for above, below in zip(ABOVE, BELOW, strict=True)]
        guesses = [[p * w for p, w in zip(guess, weights, strict=True)] for guess in guesses]
        guesses = [[p / sum(guess) for p in guess] for guess in guesses]
    known, unknown, hits, sure = [], [], 0, 0
    for scores, guess, label in zip(logits, guesses, labels.tolist(), strict=True):
        log_sum = math.log(sum(map(math.exp, scores)))
        if label >= 0:
            known.append(log_sum - scores[label])
            hits += scores.index(max(scores)) == label
        else:
            confident = max(guess) >= module.confidence
            unknown.append((log_sum - scores[guess.index(max(guess))]) if confident else 0.0)
            sure += confident
    mean = sum(known) / max(1, len(known)) + sum(unknown) / max(1, len(unknown))
    return [mean, hits / max(1, len(known)), sure / max(1, len(unknown))]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("balance", [None, 0.0])
def test_the_loss_is_that_of_its_definition(seed: int, balance: float | None) -> None:
    module = task(balance=balance).train()
    if balance is not None:
        module.above.copy_(torch.tensor(ABOVE))
        module.below.copy_(torch.tensor(BELOW))
    given = batch(seed)
    losses = module(*given)
    module.decay = 1.0  # the teacher as it was in that step; batch statistics need no state
    figures = [losses.total, losses.parts["accuracy"], losses.parts["sure"]]
    assert [f.item() for f in figures] == pytest.approx(slow_loss(module, *given), rel=1e-5)
    assert 0 < float(losses.parts["sure"]) < 1  # the threshold parts the examples


@pytest.mark.parametrize("balance", [0.0, 0.02])
def test_balance_moves_each_class_by_its_excess_among_the_unknown(balance: float) -> None:
    module = task(balance=balance).train()
    pictures, raw, labels = batch(0)
    module(pictures, raw, labels)
    unknown = [i for i, label in enumerate(labels.tolist()) if label < 0]
    guesses = module.teacher(raw).softmax(1).tolist()
    for c in range(CLASSES):
        excess = CLASSES * sum(guesses[i][c] for i in unknown) / len(unknown) - 1
        above, below = max(0.0, excess - balance), max(0.0, -excess - balance)
        assert module.above[c].item() == pytest.approx(BALANCE_RATE * above, abs=1e-6)
        assert module.below[c].item() == pytest.approx(BALANCE_RATE * below, abs=1e-6)
    assert module.above.any() or module.below.any()


@pytest.mark.parametrize(("balance", "most"), [(0.0, 12), (0.25, 15)])
def test_balance_comes_to_its_bounds_where_the_teacher_is_sure_and_wrong(
    balance: float, most: int
) -> None:
    """A teacher that gives one class everything, by a hair or by far."""
    module = task(balance=balance, decay=1.0).eval()
    logits = torch.full((36, CLASSES), -8.0)
    logits[:, 0] = 8.0
    logits[torch.arange(36), torch.arange(36) % CLASSES] += torch.linspace(1, 9, 36)
    module.teacher = Fixed(logits)
    everyone = torch.ones(36, dtype=torch.bool)
    assert torch.bincount(module.guess(logits, everyone)[0], minlength=CLASSES)[0] == 36
    for _ in range(6000):
        guessed, _ = module.guess(logits, everyone)
    counts = torch.bincount(guessed, minlength=CLASSES)
    assert abs(int(counts[0]) - most) <= 1  # a bound on probabilities, counted whole
    assert counts.min() >= 12 * (1 - balance) - 1


def test_a_bound_that_holds_is_forgotten() -> None:
    """What a class was held back by fades once its share is within the bounds."""
    module = task(balance=0.5, decay=1.0).eval()
    module.above.copy_(torch.tensor([2.0, 0.0, 0.0]))
    module.teacher = Fixed(torch.eye(CLASSES).repeat(12, 1) * 4)
    for _ in range(400):
        module.guess(torch.zeros(36), torch.ones(36, dtype=torch.bool))
    assert not module.above.any()
    assert not module.below.any()


def test_a_batch_without_unknown_examples_moves_no_class() -> None:
    module = task(balance=0.0).train()
    pictures, raw, labels = batch(0)
    module(pictures, raw, labels.clamp(min=0))
    assert not module.above.any()
    assert not module.below.any()


class Fixed(nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, raw: Tensor) -> Tensor:
        return self.logits


@pytest.mark.parametrize("label", [-1, 0])
def test_a_batch_of_one_sort_alone_has_a_finite_loss(label: int) -> None:
    pictures, raw, labels = batch(0)
    losses = task(confidence=0.0)(pictures, raw, torch.full_like(labels, label))
    losses.total.backward()
    assert torch.isfinite(losses.total)


def test_only_the_student_is_trained_and_the_teacher_follows_it() -> None:
    module = task(decay=0.75).train()
    first = {n: t.clone() for n, t in module.teacher.state_dict().items()}
    losses = module(*batch(0))
    losses.total.backward()
    assert all(p.grad is None for p in module.teacher.parameters())
    assert all(p.grad is not None for p in module.classifier.parameters())
    with torch.no_grad():
        for parameter in module.classifier.parameters():
            parameter.add_(1.0)
    student = {n: t.clone() for n, t in module.classifier.state_dict().items()}
    module(*batch(1))
    for name, tensor in module.teacher.state_dict().items():
        if tensor.is_floating_point():
            wanted = 0.75 * first[name] + 0.25 * student[name]
            assert torch.allclose(tensor, wanted, atol=1e-6), name


def test_evaluation_judges_the_teacher() -> None:
    module = task().eval()
    _, raw, labels = batch(0)
    labels = labels.clamp(min=0)
    with torch.no_grad():
        for parameter in module.classifier.parameters():
            parameter.zero_()
        wanted = nn.functional.cross_entropy(module.teacher(raw), labels)
        assert module(raw, labels).total == pytest.approx(float(wanted))


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "share", "times"),
    [(100, 54900, 0.25, 183), (1000, 59000, 0.25, 20), (30000, 100, 0.01, 1), (10, 90, 0.5, 9)],
)
def test_the_labelled_are_repeated_to_their_share(
    labelled: int, unlabelled: int, share: float, times: int
) -> None:
    assert repeats(labelled, unlabelled, share) == times


def plugin(labels: Callable[[Tensor], Tensor]) -> ModuleType:
    """120 pictures of two brightnesses, 20 more without a label; `labels` changes the true ones."""
    module = ModuleType("shades")
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(160) % 2
    noise = torch.randint(0, 150, (160, 1, 8, 8), dtype=torch.uint8, generator=generator)
    inputs = noise + (true * 80).to(torch.uint8).view(-1, 1, 1, 1)
    test = Examples(inputs=inputs[140:], labels=true[140:])

    @hookimpl
    def zoo_datasets() -> list[DatasetSpec]:
        described = Dataset(
            input=ImageInput(channels=1, height=8, width=8),
            classes=("dark", "light"),
            train=lambda: Examples(inputs=inputs[:120], labels=labels(true[:120])),
            test=lambda: test,
            unlabelled=lambda: Examples(inputs=inputs[120:140]),
        )
        return [DatasetSpec(name="shades", summary="two", build=lambda config, root: described)]

    module.zoo_datasets = zoo_datasets  # type: ignore[attr-defined]
    return module


def place(folder: Path, labels: Callable[[Tensor], Tensor] = lambda true: true) -> Workspace:
    parts = [zoo_conv, zoo_mlp, zoo_heads, plugin(labels)]
    return Workspace(plugins=Registry(plugins=parts), runs=folder)


def teach(workspace: Workspace, **changes: Any) -> runs.Run:
    return pipeline.finetune(
        backbone=Component("mlp", widths=(16,), features=8, norm=True),
        dataset="shades",
        training=dataclasses.replace(TEACH, **changes),
        finetune=FEW,
        workspace=workspace,
    )


def test_it_starts_from_the_teacher_and_keeps_to_its_labels(tmp_path: Path) -> None:
    workspace = place(tmp_path)
    teacher = teach(workspace, seed=3, validation=20)
    run = pipeline.self_train(teacher, training=STUDY, workspace=workspace)
    record = run.record
    assert record.parent is not None
    assert record.parent.weights_sha256 == teacher.record.weights_sha256
    assert (record.seed, record.training["validation"]) == (3, 20)
    assert record.finetune == teacher.record.finetune
    assert record.self_train == dataclasses.asdict(SelfTrainConfig())
    counts = {k: v for k, v in record.metrics.items() if k.endswith("_examples")}
    # 120 less 20 held out less 8 labelled, and the 20 without: 112; a quarter in all are labelled.
    assert counts == {
        "labelled_examples": 8, "validation_examples": 20, "train_examples": 112 + 8 * 5
    }  # fmt: skip
    assert record.weights_sha256 != teacher.record.weights_sha256
    assert pipeline.evaluate(run, workspace=workspace).accuracy > 0.6

    idle = pipeline.self_train(
        teacher, training=dataclasses.replace(STUDY, epochs=0), workspace=workspace
    )
    for name, tensor in teacher.load_weights().items():
        assert torch.equal(idle.load_weights()[name], tensor), name


def test_a_frozen_encoder_stays_frozen(tmp_path: Path) -> None:
    """Its batch statistics too: the classifier stays a linear probe."""
    workspace = place(tmp_path)
    teacher = pipeline.finetune(
        backbone=Component("mlp", widths=(16,), features=8, norm=True),
        dataset="shades",
        training=TEACH,
        finetune=dataclasses.replace(FEW, freeze=True),
        workspace=workspace,
    )
    run = pipeline.self_train(teacher, training=STUDY, workspace=workspace)
    moved = {n for n, t in teacher.load_weights().items() if not run.load_weights()[n].equal(t)}
    assert moved
    assert all(name.startswith("head.") for name in moved)


def test_the_encoder_has_the_layer_decay_of_the_finetuning(tmp_path: Path) -> None:
    workspace = place(tmp_path)

    def moved(decay: float) -> dict[str, float]:
        teacher = pipeline.finetune(
            backbone=Component("mlp", widths=(16,), features=8),
            dataset="shades",
            training=dataclasses.replace(TEACH, epochs=0),
            finetune=dataclasses.replace(FEW, layer_decay=decay),
            workspace=workspace,
        )
        config = SelfTrainConfig(teacher_ema=0.0, confidence=0.0)
        run = pipeline.self_train(teacher, training=STUDY, self_train=config, workspace=workspace)
        ahead = run.load_weights()
        return {n: float((ahead[n] - t).norm()) for n, t in teacher.load_weights().items()}

    usual, slow = moved(1.0), moved(0.01)
    first = next(name for name in usual if name.startswith("encoder.") and "weight" in name)
    head = next(name for name in usual if name.startswith("head.") and "weight" in name)
    assert slow[first] < 0.1 * usual[first]
    assert slow[head] > 0.5 * usual[head]


def test_no_label_beyond_those_drawn_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = place(tmp_path / "honest")
    teacher = teach(honest, validation=0)
    train, _ = holdout(120, 0, 0)
    drawn = draw_labels((torch.arange(120) % 2)[train], 8, 2, 0)
    run = pipeline.self_train(teacher, training=STUDY, workspace=honest)

    def poisoned(labels: Tensor) -> Tensor:
        wrong = 1 - labels
        wrong[train[drawn]] = labels[train[drawn]]
        return wrong

    # Every other label is wrong; drawn anew, such labels would give another draw.
    monkeypatch.setattr("zoo.data.draw_labels", lambda *given: drawn)
    other = place(tmp_path / "poisoned", poisoned)
    copied = other.runs_root / teacher.name
    copied.parent.mkdir()
    teacher.folder.rename(copied)
    again = pipeline.self_train(copied, training=STUDY, workspace=other)
    assert again.record.weights_sha256 == run.record.weights_sha256


def test_one_that_is_stopped_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = place(tmp_path)
    teacher = teach(workspace)
    config = SelfTrainConfig(balance=0.1, confidence=0.6)
    training = dataclasses.replace(STUDY, checkpoint_steps=1, checkpoint_seconds=None)
    whole = pipeline.self_train(teacher, training=training, self_train=config, workspace=workspace)

    forward, calls = SelfTraining.forward, iter(range(10**6))

    def failing(self: SelfTraining, *given: Tensor) -> Any:
        if next(calls) == 15:
            raise KeyboardInterrupt
        return forward(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(SelfTraining, "forward", failing)
        with pytest.raises(KeyboardInterrupt):
            pipeline.self_train(teacher, training=training, self_train=config, workspace=workspace)
    assert workspace.run is not None
    assert list(workspace.run.checkpoint.iterdir())
    resumed = pipeline.resume(workspace.run, workspace=workspace)
    assert resumed.record.weights_sha256 == whole.record.weights_sha256


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    workspace = place(tmp_path)
    with pytest.raises(RunError, match="no finished finetuning that was not self-trained yet"):
        pipeline.self_train("latest", workspace=workspace)
    teacher = teach(workspace)
    for options, message in (
        ({"ema": 0.9}, "ema: the teacher is an average already; tune it by --teacher-ema"),
        ({"devices": 2}, "devices: self-training runs in one process"),
    ):
        with pytest.raises(BadOption, match=message):
            pipeline.self_train(teacher, training=TrainConfig(**options), workspace=workspace)
    done = pipeline.self_train(
        teacher, training=dataclasses.replace(STUDY, epochs=1), workspace=workspace
    )
    with pytest.raises(RunError, match="needed is a finished finetuning that was not self-trained"):
        pipeline.self_train(done, workspace=workspace)
    latest = pipeline.self_train(
        "latest", training=dataclasses.replace(STUDY, epochs=1), workspace=workspace
    )
    assert latest.record.parent is not None
    assert latest.record.parent.run == teacher.name


def test_where_every_label_was_used_nothing_is_left_to_label(workspace: Workspace) -> None:
    teacher = pipeline.finetune(
        backbone=Component("mlp", widths=(16,), features=8),
        training=TrainConfig(epochs=1, threads=1),
        workspace=workspace,
    )
    with pytest.raises(Unfit, match="nothing is left to label"):
        pipeline.self_train(teacher, workspace=workspace)


def test_the_command(cli: Any, tmp_path: Path) -> None:
    where = ("--runs", str(tmp_path))
    few = ("--labels", "20", "--epochs", "3", "--threads", "1")
    cli("finetune", "--backbone", "mlp", *few, *where)
    made = cli("finetune", "latest", "--self-train", "--epochs", "1", "--threads", "1",
               "--confidence", "0.8", *where, "--json")  # fmt: skip
    assert made.exit_code == 0, made.output
    record = json.loads((Path(json.loads(made.stdout)["folder"]) / "run.json").read_text())
    assert record["self_train"]["confidence"] == 0.8
    for options, message in (
        (("latest", "--self-train", "--labels", "5", "--seed", "1", "--head", "mlp"),
         "--labels, --seed, --head: with --self-train that is as it was in RUN. Leave it out."),
        (("latest", "--confidence", "0.5", "--balance", "0"),
         "--confidence, --balance: that goes with --self-train."),
        (("--self-train",), "Name the finetuning to go on from: latest, a run's name or folder."),
    ):  # fmt: skip
        refused = cli("finetune", *options, *where)
        assert refused.exit_code == 2
        assert message in refused.stderr
