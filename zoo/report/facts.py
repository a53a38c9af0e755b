"""What a report tells of a run, gathered; a part that is absent says why, and what to type."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from zoo.record import Record
from zoo.report.embedding import Map
from zoo.report.outcomes import Outcomes
from zoo.report.saliency import Sanity

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Absent:
    """Why a part of the report is missing, and the command that brings it, if one does."""

    reason: str
    command: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """One option as it was used, as text; `default` is None where nobody can tell it any more."""

    name: str
    value: str
    default: str | None
    help: str = ""

    @property
    def changed(self) -> bool:
        return self.default is not None and self.value != self.default


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """The options of a component or of the training; `origin` is its plugin and version."""

    kind: str
    name: str
    origin: str
    options: list[Option]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lineage:
    """A run that another began with: a pretraining, or the finetuning before a self-training.

    `record` is None where its folder is gone or holds another run now; `fault` says which.
    """

    run: str
    weights_sha256: str
    record: Record | None
    metrics: list[dict[str, Any]]
    fault: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proved:
    """One exported file's proof; `fault` where the file beside it is not the one proved."""

    file: str
    verdict: str
    sha256: str
    rows: list[tuple[str, str, str]]
    fault: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoencoded:
    """Pictures and their reconstructions, and samples: uint8 N x C x H x W."""

    inputs: Array
    outputs: Array
    samples: Array
    codes: int
    """Codes that the density of the samples was fitted on."""
    examples: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mapped:
    """A map of features, and which examples it shows; `labels` is None where there are none."""

    map: Map
    labels: Array | None
    examples: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Looked:
    """Examples, uint8 N x C x H x W, what a classifier looked at in them, and the check of that."""

    pictures: Array
    labels: Array
    probabilities: Array
    sanity: Sanity
    samples: int
    examples: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the page of a finished run shows."""

    record: Record
    metrics: list[dict[str, Any]]
    parameters: int | None
    tested: Outcomes | Absent | None
    """None for a pretraining, as are its proofs."""
    doubts: list[str]
    """What stands between the figures of the test split and a claim."""
    autoencoded: Autoencoded | Absent | None
    """None where nothing trained a decoder."""
    mapped: Mapped | Absent
    looked: Looked | Absent | None
    """None for a pretraining, which has no classes."""
    groups: list[Group]
    lineage: list[Lineage]
    """What the run came of, the nearest first."""
    proofs: list[Proved] | Absent | None
    commands: list[str]
    watch: str
    """The part of the losses that the run watched."""
