"""The online probe: its figures against slow ones, and that it changes nothing."""

from __future__ import annotations

import dataclasses
import math
from types import ModuleType

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from zoo import pipeline
from zoo.api import (
    Component,
    Dataset,
    DatasetSpec,
    Examples,
    ImageInput,
    PretrainConfig,
    TrainConfig,
    hookimpl,
)
from zoo.pipeline import Workspace, pretraining
from zoo.registry import Registry
from zoo.training.probing import NEIGHBOURS, RIDGE, TEMPERATURE, knn_accuracy, linear_accuracy

TRAINING = TrainConfig(epochs=2, batch_size=64, threads=1)
SMALL = Component("mlp", widths=(16,), features=8)


def cloud(seed: int, count: int = 90, wide: int = 5) -> tuple[Tensor, Tensor]:
    """Three overlapping clouds of features."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    centres = torch.randn(3, wide, generator=generator)
    return centres[labels] + torch.randn(count, wide, generator=generator), labels


def parted(seed: int, asked: int = 30) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return what is known and what is asked, of one cloud."""
    features, labels = cloud(seed)
    return (features[asked:], labels[asked:]), (features[:asked], labels[:asked])


def slow_knn(known: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor]) -> float:
    mean = known[0].mean(0)
    hits = 0
    for row, truth in zip((asked[0] - mean).tolist(), asked[1].tolist(), strict=True):
        found = []
        for other, label in zip((known[0] - mean).tolist(), known[1].tolist(), strict=True):
            dot = sum(a * b for a, b in zip(row, other, strict=True))
            found.append((dot / math.hypot(*row) / math.hypot(*other), label))
        votes: dict[int, float] = {}
        for cosine, label in sorted(found, reverse=True)[:NEIGHBOURS]:
            votes[label] = votes.get(label, 0.0) + math.exp(cosine / TEMPERATURE)
        hits += max(votes, key=lambda label: votes[label]) == truth
    return hits / len(asked[1])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_knn_is_what_neighbours_vote(seed: int) -> None:
    known, asked = parted(seed)
    figure = knn_accuracy(known, asked, 3)
    assert figure == pytest.approx(slow_knn(known, asked), abs=1e-9)
    assert 0.4 < figure < 1  # neither chance nor trivial: the case can tell


def test_knn_of_more_rows_than_a_block() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, labels = torch.randn(2500, 40, generator=generator), torch.arange(2500) % 4
    order = torch.randperm(2500, generator=generator)
    assert knn_accuracy((rows[order], labels[order]), (rows, labels), 4) == 1.0  # each finds itself
    noise = torch.randn(2500, 40, generator=generator)
    assert knn_accuracy((rows, labels), (noise, labels), 4) == pytest.approx(0.25, abs=0.05)


def test_knn_of_a_handful() -> None:
    known = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1])
    asked = torch.tensor([[0.9, 0.1], [-0.9, -0.1]]), torch.tensor([0, 1])
    assert knn_accuracy(known, asked, 2) == 1.0
    dead = torch.zeros(2, 2), torch.tensor([0, 1])
    assert knn_accuracy(dead, dead, 2) <= 1.0  # no NaN, no crash


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_linear_probe_is_ridge_regression(seed: int) -> None:
    known, asked = parted(seed)
    rows, truth = known[0].double(), torch.eye(3)[known[1]]
    centred = rows - rows.mean(0)
    ridge = Ridge(alpha=RIDGE * float((centred**2).sum(0).mean()))
    ridge.fit(rows.numpy(), truth.numpy())
    said = torch.from_numpy(ridge.predict(asked[0].double().numpy()).argmax(1))
    hits = int((said == asked[1]).sum())
    assert linear_accuracy(known, asked, 3) == hits / len(asked[1])
    assert 0.4 < hits / len(asked[1]) < 1


def test_the_linear_probe_of_dead_features_is_finite() -> None:
    dead = torch.zeros(10, 3), torch.arange(10) % 2
    assert 0 <= linear_accuracy(dead, dead, 2) <= 1


@pytest.mark.parametrize("kind", ["knn", "linear"])
def test_each_epoch_tells_its_probe_and_the_weights_are_the_same_without(
    kind: str, workspace: Workspace
) -> None:
    runs = [
        pipeline.pretrain(
            SMALL,
            objective="denoise",
            training=TRAINING,
            pretrain=PretrainConfig(probe=probe),  # type: ignore[arg-type]
            workspace=workspace,
        )
        for probe in (kind, "none")
    ]
    assert runs[0].record.weights_sha256 == runs[1].record.weights_sha256
    told, silent = (run.metrics() for run in runs)
    assert all(0.2 < epoch["validation"][kind] <= 1 for epoch in told)
    pairs = zip(told, silent, strict=True)
    assert all(a["validation"].keys() - {kind} == b["validation"].keys() for a, b in pairs)
    assert runs[0].record.pretrain == {"probe": kind}
    assert runs[0].record.metrics["probe_examples"] == 144
    assert "probe_examples" not in runs[1].record.metrics


def labelled_plugin(flip: bool, labelled: bool = True, classes: int = 2) -> ModuleType:
    """80 pictures, or 20 a class; with `flip` the labels of all of them are others."""
    module, count = ModuleType("labelled"), max(80, 20 * classes)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = (torch.arange(count) // 8 + flip) % classes if labelled else None
    examples = Examples(inputs=inputs, labels=labels)

    @hookimpl
    def zoo_datasets() -> list[DatasetSpec]:
        described = Dataset(
            input=ImageInput(channels=1, height=8, width=8),
            classes=tuple(f"class {n}" for n in range(classes)) if labelled else (),
            train=lambda: examples,
        )
        return [DatasetSpec(name="labelled", summary="noise", build=lambda config, root: described)]

    module.zoo_datasets = zoo_datasets  # type: ignore[attr-defined]
    return module


def test_no_label_reaches_the_features(workspace: Workspace) -> None:
    digests = set()
    for flip in (False, True):
        registry = Registry(plugins=[*_installed(), labelled_plugin(flip)])
        ours = Workspace(plugins=registry, runs=workspace.runs_root)
        half = dataclasses.replace(TRAINING, validation=0.5)
        run = pipeline.pretrain(SMALL, dataset="labelled", training=half, workspace=ours)
        assert "knn" in run.metrics()[-1]["validation"]
        digests.add(run.record.weights_sha256)
    assert len(digests) == 1


def test_where_no_label_is_there_is_no_probe(workspace: Workspace) -> None:
    registry = Registry(plugins=[*_installed(), labelled_plugin(False, labelled=False)])
    ours = Workspace(plugins=registry, runs=workspace.runs_root)
    run = pipeline.pretrain(SMALL, dataset="labelled", training=TRAINING, workspace=ours)
    assert run.metrics()[-1]["validation"].keys() == {"total", "psnr"}


@pytest.mark.parametrize(("count", "told"), [(9, False), (10, True), (70, True), (71, False)])
def test_too_few_labels_tell_nothing(workspace: Workspace, count: int, told: bool) -> None:
    """Of two classes: 5 examples of each, to fit it on and to ask it of."""
    registry = Registry(plugins=[*_installed(), labelled_plugin(False)])
    ours = Workspace(plugins=registry, runs=workspace.runs_root)
    training = dataclasses.replace(TRAINING, epochs=1, validation=count)
    run = pipeline.pretrain(SMALL, dataset="labelled", training=training, workspace=ours)
    assert ("knn" in run.metrics()[-1]["validation"]) == told
    assert run.record.metrics.get("probe_examples") == (count if told else None)


def test_many_classes_have_a_probe_too(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 examples a class of them are more than a probe is given at most where they are fewer."""
    monkeypatch.setattr(pretraining, "PROBED", 40)
    registry = Registry(plugins=[*_installed(), labelled_plugin(False, classes=12)])
    ours = Workspace(plugins=registry, runs=workspace.runs_root)
    training = dataclasses.replace(TRAINING, epochs=1, validation=100)
    run = pipeline.pretrain(SMALL, dataset="labelled", training=training, workspace=ours)
    assert run.record.metrics["probe_examples"] == 60


def _installed() -> list[ModuleType]:
    import zoo_mlp
    import zoo_objectives

    return [zoo_mlp, zoo_objectives]
