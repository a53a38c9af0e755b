"""One network through the pipeline: trained, exported, and asked again; what came of it."""

from __future__ import annotations

import dataclasses
import functools
import random
import re
import tempfile
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import zoo_heads
import zoo_images
from odd.network import FEATURES, Network
from odd.questions import Answers, ask, pictures
from zoo.api import (
    BackboneSpec,
    FinetuneConfig,
    HeadSpec,
    ImageInput,
    NoConfig,
    TrainConfig,
    hookimpl,
)
from zoo.errors import ProofError, ZooError
from zoo.pipeline import Workspace, export, finetune
from zoo.pipeline.evaluation import load_classifier
from zoo.registry import Registry

TRAINING = TrainConfig(epochs=6, batch_size=32, lr=5e-3, threads=1)
FINETUNING = FinetuneConfig(labels=500)
MOST_LOST = 0.2
"""How far accuracy on 144 held-out and on 360 test examples, of other writers, may lie apart."""
OTHER_SEED = 4321
"""What a fresh process draws is not what the training drew."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a network; `outcome` is one that is expected of some, or a finding.

    Findings: `wrong` is a file handed over that answers otherwise than PyTorch; `lost` one of
    another model than was validated; `raised` an error that is no `ZooError`; `hung` and `died`
    what the process did.
    """

    name: str
    kind: str
    expected: tuple[str, ...]
    outcome: str
    stage: str
    message: str
    validation: float | None = None
    accuracy: float | None = None
    answers: Answers | None = None

    @property
    def sound(self) -> bool:
        return self.outcome in self.expected

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "sound": self.sound}


def scanned(network: Network) -> Result:
    """Train a network, export it, and ask its file; nothing that it raises comes through."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(plugins=Registry([plugin(network), zoo_heads, zoo_images]),
                              runs=Path(folder))  # fmt: skip
        outcome: dict[str, Any] = {}
        random.seed(0)  # torch's numbers are seeded by the training
        try:
            for step in _steps(network, workspace):
                outcome |= step
        except ProofError as error:
            outcome |= {"outcome": "failed", "message": str(error)}
        except ZooError as error:
            outcome |= {"outcome": "refused", "message": str(error)}
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}, {last.name}"
            outcome |= {
                "outcome": "raised",
                "message": f"{type(error).__name__}: {error} ({where})",
            }
        if outcome["stage"] == "preparation" and workspace.run is not None:
            outcome["stage"] = "training"
        outcome["message"] = _plain(outcome["message"], workspace, folder)
    return Result(network.name, network.kind, network.expected, **outcome)


def _steps(network: Network, workspace: Workspace) -> Iterator[dict[str, Any]]:
    """Yield what is known after each stage, the next stage's name first."""
    yield {"stage": "preparation"}
    run = finetune(
        backbone=network.name,
        head=network.name if network.head else "linear",
        training=TRAINING,
        finetune=FINETUNING,
        workspace=workspace,
    )
    validated = float(run.record.metrics["validation"]["accuracy"])
    yield {"stage": "export", "validation": validated}
    made = export(run, runtimes=["none"], partial=True, workspace=workspace)
    skipped = "; ".join(f"{row.name}: {row.figure}" for row in made.proof.skipped)
    assert made.proof.comparison is not None
    accuracy = made.proof.comparison.reference_accuracy
    yield {"stage": "questions", "accuracy": accuracy}
    torch.manual_seed(OTHER_SEED)
    classifier, data = load_classifier(run, workspace)
    assert data.test is not None
    answers = ask(classifier, made.model, questions(data.test().inputs.numpy().tobytes()))
    outcome, message = str(made.proof.verdict), skipped
    if abs(validated - accuracy) > MOST_LOST:
        outcome, message = "lost", f"validated at {validated:.1%}, evaluated at {accuracy:.1%}"
    if answers.wrong:
        outcome, message = "wrong", str(answers)
    yield {"outcome": outcome, "message": message, "answers": answers}


@functools.lru_cache
def questions(digits: bytes) -> np.ndarray[Any, Any]:
    return pictures(np.frombuffer(digits, np.uint8).reshape(-1, 1, 8, 8))


def plugin(network: Network) -> types.ModuleType:
    """Make a plugin that contributes the network as a backbone, and its head if it has one."""

    def build(config: Any, input: ImageInput) -> nn.Module:
        made: Any = nn.Module()
        made.encoder, made.decoder, made.features = network.build(), None, FEATURES
        if network.preprocessing:
            made.preprocessing = network.preprocessing
        return made  # type: ignore[no-any-return]

    def build_head(config: NoConfig, features: int, classes: int) -> nn.Module:
        assert network.head is not None
        return network.head(features, classes)

    @hookimpl
    def zoo_backbones() -> list[BackboneSpec]:
        return [BackboneSpec(name=network.name, summary=network.summary, build=build)]

    @hookimpl
    def zoo_heads() -> list[HeadSpec]:
        spec = HeadSpec(name=network.name, summary=network.summary, build=build_head)
        return [spec] if network.head else []

    module: Any = types.ModuleType("odd")
    module.zoo_backbones, module.zoo_heads = zoo_backbones, zoo_heads
    return module  # type: ignore[no-any-return]


def _plain(message: str, workspace: Workspace, folder: str) -> str:
    """Return a message in one line, without folders and the run's name, which holds the time."""
    run = workspace.run.name if workspace.run else ""
    for name, word in ((folder, "RUNS"), (run, "RUN")):
        message = message.replace(name, word) if name else message
    message = re.sub(r"\.zoo-draft-\w+", "DRAFT", message)
    return re.sub(r"\s+", " ", message).strip()
