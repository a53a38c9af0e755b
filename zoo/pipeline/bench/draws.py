"""Which examples carry a label: the same for every method, named for whoever asks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch

from zoo.api import Component, Dataset
from zoo.data import labelled
from zoo.pipeline import assembly
from zoo.pipeline.assembly import choose
from zoo.pipeline.bench.plan import component_json, resolved
from zoo.pipeline.workspace import Workspace


def draws_of(
    workspace: Workspace, dataset: str | Component, labels: Sequence[int], seeds: Sequence[int]
) -> dict[str, Any]:
    """Draw labels as a bench on this data set does."""
    part = resolved(workspace, "dataset", dataset)
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
        "dataset": component_json(dataset),
        "examples": len(truth),
        "labels_sha256": hashlib.sha256(truth.numpy().astype("<i8").tobytes()).hexdigest(),
        "draws": drawn,
    }


def train_labels(workspace: Workspace, dataset: Component, data: Dataset) -> torch.Tensor:
    """Return the labels of the training split."""
    part = choose(workspace, "dataset", dataset)
    labels = assembly.load_split(part, data, data.train, len(data.classes)).labels
    assert labels is not None
    return labels


def written(content: dict[str, Any]) -> str:
    """Write draws as JSON, each on a line of its own."""
    head = {name: value for name, value in content.items() if name != "draws"}
    lines = [
        f'    "{labels}": {{\n'
        + ",\n".join(f'      "{seed}": {json.dumps(places)}' for seed, places in by_seed.items())
        + "\n    }"
        for labels, by_seed in content["draws"].items()
    ]
    text = json.dumps(head, indent=2)[:-2]
    return text + ',\n  "draws": {\n' + ",\n".join(lines) + "\n  }\n}\n"
