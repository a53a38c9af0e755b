"""What is asked of a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.api import ImageInput, Preprocessing
from zoo.models import Classifier, Preprocess
from zoo.pipeline.assembly import Part, build_head
from zoo.registry import Entry
from zoo.tasks import Finetuning
from zoo.testing import modules
from zoo.testing.options import check_choices, check_options
from zoo.testing.report import ComponentReport, Failure, Rows, Skipped
from zoo.training import seed_everything

SHAPES = ((3, 2), (17, 5), (64, 10))
"""Features and classes that every head is checked on."""


def check_head(entry: Entry, options: Mapping[str, Any]) -> ComponentReport:
    """Hold a head to its contract."""
    rows = Rows()
    rows.add("options", lambda: check_options(entry, options))
    part = Part(entry, entry.configure(dict(options)))
    built: list[tuple[int, int, nn.Module]] = []
    rows.add(
        "logits",
        lambda: _build_all(part, built),
        "return N x classes from forward, for any numbers of features and classes.",
    )
    for name, check in (
        ("gradients", lambda *on: _gradients(part, *on)),
        ("batch-mates", _batch_mates),
        ("state", lambda *on: _state(part, *on)),
        ("seeds", lambda *on: _seeds(part, *on)),
        ("export", _export),
    ):
        rows.add(name, lambda check=check: _each(built, check))  # type: ignore[misc]
    rows.add(
        "choices",
        lambda: check_choices(
            entry, options, lambda config: build_head(Part(entry, config), *SHAPES[0])
        ),
    )
    sizes = tuple(
        modules.size_of(
            head, f"{features} features, {classes} classes", "head", _codes(features, 1)
        )
        for features, classes, head in built
    )
    return ComponentReport("head", entry.name, tuple(rows.found), sizes)


def _build_all(part: Part, built: list[tuple[int, int, nn.Module]]) -> str:
    for features, classes in SHAPES:
        seed_everything(0)
        head = build_head(part, features, classes)
        head.eval()
        with torch.no_grad():
            logits = head(_codes(features))
        if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
            raise Failure(
                "it returns probabilities: every row is positive and sums to 1",
                "return logits, without a softmax: cross entropy and the exported file apply one.",
            )
        built.append((features, classes, head))
    return ", ".join(f"{features} → {classes}" for features, classes in SHAPES)


def _each(built: list[tuple[int, int, nn.Module]], check: Any) -> str:
    if not built:
        raise Skipped("nothing was built to check it on")
    figure = ""
    for features, classes, head in built:
        try:
            figure = check(features, classes, head)
        except Failure as failure:
            raise Failure(
                f"{features} features, {classes} classes: {failure}", failure.change
            ) from failure
    return figure


def _codes(features: int, count: int = modules.EXAMPLES) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(4))


def _run(head: nn.Module, codes: Tensor) -> Tensor:
    logits: Tensor = head(codes)
    return logits


def _classifier(features: int, head: nn.Module) -> tuple[Classifier, ImageInput]:
    """Put a head on an encoder whose features are the pixels."""
    input = ImageInput(channels=1, height=1, width=features)
    return Classifier(Preprocess(input, input, Preprocessing()), nn.Flatten(), head), input


def _gradients(part: Part, features: int, classes: int, head: nn.Module) -> str:
    classifier, input = _classifier(features, head)
    raw = modules.raw_bytes(input)
    labels = torch.arange(len(raw)) % classes
    return modules.check_gradients(
        Finetuning(classifier),
        lambda: Finetuning(_classifier(features, build_head(part, features, classes))[0]),
        (raw, labels),
        modules.named("head", head),
    )


def _batch_mates(features: int, classes: int, head: nn.Module) -> str:
    return f"{modules.check_batch_mates(head, _run, _codes(features)):.0e} apart"


def _state(part: Part, features: int, classes: int, head: nn.Module) -> str:
    seed_everything(1)
    fresh = build_head(part, features, classes)
    return f"{modules.check_state(head, fresh, _run, _codes(features)):,} bytes, safetensors"


def _seeds(part: Part, features: int, classes: int, head: nn.Module) -> str:
    modules.check_seeds(lambda: build_head(part, features, classes), _run, _codes(features))
    return "two builds equal"


def _export(features: int, classes: int, head: nn.Module) -> str:
    classifier, input = _classifier(features, head)
    worst = modules.check_export(classifier, input, classes)
    return f"onnxruntime within {worst:.0e}, batches 1, 7, 64, 257"
