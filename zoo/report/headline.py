"""The first things a report says: what the run is, and its figures."""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo.record import DEEDS, Record
from zoo.report.facts import Facts
from zoo.report.outcomes import Outcomes
from zoo.report.statistics import Share, share


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of the headline; `span` is drawn where it is a share with an interval."""

    name: str
    value: str
    unit: str = ""
    detail: str = ""
    span: Share | None = None


def title_of(record: Record) -> str:
    return f"{record.backbone.name} on {record.dataset.name}"


def sentence_of(facts: Facts) -> str:
    """Say in one sentence how the run came to be."""
    record = facts.record
    data = record.dataset.name
    if record.objective is not None:
        return (
            f"A {DEEDS[record.kind]}: {record.backbone.name} learned {data} without its labels,"
            f" with the objective {record.objective.name}."
        )
    assert record.head is not None
    labels = (record.finetune or {}).get("labels")
    given = "all labels of the training examples" if labels is None else f"{labels:,} labels"
    start = "trained from scratch"
    before = facts.lineage if record.self_train is None else facts.lineage[1:]
    if before:
        start = "finetuned from a pretraining"
        if (first := before[-1].record) and first.objective:
            start += f" on {first.dataset.name} with {first.objective.name}"
    further = "" if record.self_train is None else ", then trained on its own labels of the others"
    # Weights that a plugin brings along are nowhere recorded.
    unknown = "" if before else " What the backbone loads by itself is not known to zoo."
    return (
        f"A classifier of {len(record.classes)} classes: {record.backbone.name} with the head"
        f" {record.head.name}, {start}, with {given}{further}.{unknown}"
    )


def figures_of(facts: Facts) -> list[Figure]:
    """Return the figures of the headline, those that are known."""
    record = facts.record
    found = [*_test_figure(facts), *_validation_figure(facts)]
    if facts.parameters is not None:
        found.append(_parameters(facts.parameters))
    if record.seconds is not None:
        trained = record.metrics.get("train_examples")
        epochs = f"{len(facts.metrics)} epochs" if len(facts.metrics) != 1 else "1 epoch"
        detail = f"{epochs} on {trained:,} examples" if isinstance(trained, int) else epochs
        found.append(_time(record.seconds, f"{detail}, {record.device}"))
    return found


def _parameters(count: int) -> Figure:
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return Figure(
                name="Parameters", value=f"{count / size:.3g}", unit=unit, detail=f"{count:,}"
            )
    return Figure(name="Parameters", value=str(count))


def _time(seconds: float, detail: str) -> Figure:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if seconds < 60:
        return Figure(name="Training", value=f"{seconds:.1f}", unit="s", detail=detail)
    value = f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
    return Figure(name="Training", value=value, unit="h" if hours else "min", detail=detail)


def _test_figure(facts: Facts) -> list[Figure]:
    if facts.record.kind == "pretrain":
        return []
    if isinstance(facts.tested, Outcomes):
        outcomes = facts.tested
        hits = int((outcomes.logits.argmax(1) == outcomes.labels).sum())
        return [_share("Test accuracy", share(hits, len(outcomes.labels)))]
    read = [t for t in facts.record.tests if "accuracy" in t and isinstance(t.get("examples"), int)]
    if not read:
        return [Figure(name="Test accuracy", value="–", detail="not evaluated yet")]
    count = max(1, int(read[-1]["examples"]))
    hits = min(count, max(0, round(float(read[-1]["accuracy"]) * count)))
    return [_share("Test accuracy", share(hits, count))]


def _validation_figure(facts: Facts) -> list[Figure]:
    record = facts.record
    figures: dict[str, Any] = record.metrics.get("validation") or {}
    count = record.metrics.get("validation_examples")
    if not figures or not isinstance(count, int) or count < 1:
        return [Figure(name="Validation", value="–", detail="no example was held out")]
    if "accuracy" in figures:
        hits = min(count, max(0, round(float(figures["accuracy"]) * count)))
        return [_share("Validation accuracy", share(hits, count))]
    watched = facts.watch if facts.watch in figures else "total"
    word = "loss" if watched == "total" else watched
    kept = record.metrics.get("kept_epoch")
    epoch = f"epoch {kept:,}" if isinstance(kept, int) else "last epoch"
    detail = f"{epoch}, on {count:,} held-out examples"
    return [Figure(name=f"Validation {word}", value=f"{figures[watched]:.4g}", detail=detail)]


def _share(name: str, found: Share) -> Figure:
    detail = (
        f"95 % interval {found.low * 100:.2f} to {found.high * 100:.2f} %,"
        f" on {found.examples:,} examples"
    )
    return Figure(name=name, value=f"{found.value * 100:.2f}", unit="%", detail=detail, span=found)
