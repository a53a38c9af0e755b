"""The online probe: its figures against slow ones, and that it changes nothing."""

from __future__ import annotations

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
from zoo.pipeline import Workspace
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


def slow_knn(features: Tensor, labels: Tensor) -> float:
    rows = (features - features.mean(0)).tolist()
    hits = 0
    for i, row in enumerate(rows):
        found = []
        for j, other in enumerate(rows):
            if i != j:
                dot = sum(a * b for a, b in zip(row, other, strict=True))
                found.append((dot / math.hypot(*row) / math.hypot(*other), int(labels[j])))
        votes: dict[int, float] = {}
        for cosine, label in sorted(found, reverse=True)[:NEIGHBOURS]:
            votes[label] = votes.get(label, 0.0) + math.exp(cosine / TEMPERATURE)
        hits += max(votes, key=lambda label: votes[label]) == int(labels[i])
    return hits / len(rows)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_knn_is_what_neighbours_vote(seed: int) -> None:
    features, labels = cloud(seed)
    figure = knn_accuracy(features, labels, 3)
    assert figure == pytest.approx(slow_knn(features, labels), abs=1e-9)
    assert 0.4 < figure < 1  # neither chance nor trivial: the case can tell


def test_knn_of_more_rows_than_a_block_leaves_each_row_itself_out() -> None:
    # Features of pure noise: whoever counted itself would be right every time.
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (2500,), generator=generator)
    figure = knn_accuracy(torch.randn(2500, 40, generator=generator), labels, 4)
    assert figure == pytest.approx(0.25, abs=0.05)


def test_knn_of_a_handful() -> None:
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-0.9, -0.1]])
    assert knn_accuracy(features, torch.tensor([0, 0, 1, 1]), 2) == 1.0
    assert knn_accuracy(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]), 2) <= 1.0  # no NaN, no crash


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_linear_probe_is_ridge_regression_on_halves(seed: int) -> None:
    features, labels = cloud(seed)
    hits = 0
    halves = [slice(0, None, 2), slice(1, None, 2)]
    for fitted, asked in (halves, halves[::-1]):
        rows, truth = features[fitted].double(), torch.eye(3)[labels[fitted]]
        centred = rows - rows.mean(0)
        ridge = Ridge(alpha=RIDGE * float((centred**2).sum(0).mean()))
        ridge.fit(rows.numpy(), truth.numpy())
        said = ridge.predict(features[asked].double().numpy()).argmax(1)
        hits += int((torch.from_numpy(said) == labels[asked]).sum())
    assert linear_accuracy(features, labels, 3) == hits / len(features)


def test_the_linear_probe_of_dead_features_is_finite() -> None:
    assert 0 <= linear_accuracy(torch.zeros(10, 3), torch.arange(10) % 2, 2) <= 1


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


def labelled_plugin(flip: bool, labelled: bool = True) -> ModuleType:
    """80 pictures; with `flip` the labels of all of them are others."""
    module = ModuleType("labelled")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (80, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = (torch.arange(80) // 8 + flip) % 2 if labelled else None
    examples = Examples(inputs=inputs, labels=labels)

    @hookimpl
    def zoo_datasets() -> list[DatasetSpec]:
        described = Dataset(
            input=ImageInput(channels=1, height=8, width=8),
            classes=("dark", "light") if labelled else (),
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
        run = pipeline.pretrain(SMALL, dataset="labelled", training=TRAINING, workspace=ours)
        assert "knn" in run.metrics()[-1]["validation"]
        digests.add(run.record.weights_sha256)
    assert len(digests) == 1


def test_where_no_label_is_there_is_no_probe(workspace: Workspace) -> None:
    registry = Registry(plugins=[*_installed(), labelled_plugin(False, labelled=False)])
    ours = Workspace(plugins=registry, runs=workspace.runs_root)
    run = pipeline.pretrain(SMALL, dataset="labelled", training=TRAINING, workspace=ours)
    assert run.metrics()[-1]["validation"].keys() == {"total", "psnr"}


def _installed() -> list[ModuleType]:
    import zoo_mlp
    import zoo_objectives

    return [zoo_mlp, zoo_objectives]
