"""The curves of a run: one chart for the loss, each part of it, and the learning rate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.report import charts

MOST = 12
"""Charts of one run; the parts beyond them are in its metrics.jsonl."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
    """One drawing with its caption, and in words what it shows."""

    name: str
    title: str
    alt: str
    svg: str


def charts_of(metrics: list[dict[str, Any]], prefix: str = "") -> list[Chart]:
    """Draw what a run's `metrics.jsonl` holds, an epoch a line; `prefix` opens the ids.

    One epoch is a point and no curve: `sentence_of` tells of it.
    """
    metrics, epochs = _epochs(metrics)
    if len(epochs) < 2:
        return []
    parts: dict[str, None] = {}
    for line in metrics:
        parts |= dict.fromkeys(line.get("train") or {}) | dict.fromkeys(
            line.get("validation") or {}
        )
    parts = {"total": None, **parts} if "total" in parts else parts
    drawn = []
    for number, part in enumerate(parts):
        sides = {side: [_figure((line.get(side) or {}).get(part)) for line in metrics]
                 for side in ("train", "validation")}  # fmt: skip
        lines = {side: found for side, found in sides.items() if set(found) != {None}}
        if lines:
            title = "Loss" if part == "total" else part[:1].upper() + part[1:]
            drawn.append(_chart(f"{prefix}curve{number}", title, epochs, lines))
    rates = [_figure(line.get("lr")) for line in metrics]
    drawn = drawn[: MOST - 1]
    if any(rate is not None for rate in rates):
        drawn.append(_chart(f"{prefix}rate", "Learning rate", epochs, {"learning rate": rates}))
    return drawn


def sentence_of(metrics: list[dict[str, Any]]) -> str:
    """Say what the one epoch of a run came to; nothing of several, or of none."""
    metrics, epochs = _epochs(metrics)
    if len(epochs) != 1:
        return ""
    said = []
    for side, word in (("train", "training"), ("validation", "validation")):
        for part, value in (metrics[0].get(side) or {}).items():
            if (found := _figure(value)) is not None:
                said.append(f"{'loss' if part == 'total' else part} {found:.4g} in {word}")
    return f"One epoch: {', '.join(said)}." if said else ""


def _epochs(metrics: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the lines and their epochs; none of either where a line is not an epoch's."""
    metrics = [line for line in metrics if isinstance(line, dict)]
    epochs = [line["epoch"] for line in metrics if isinstance(line.get("epoch"), int)]
    return (metrics, epochs) if len(epochs) == len(metrics) else ([], [])


def _figure(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None


def _chart(
    name: str, title: str, epochs: list[int], lines: Mapping[str, Sequence[float | None]]
) -> Chart:
    said = []
    for side, values in lines.items():
        known = [value for value in values if value is not None]
        span = f"from {known[0]:.4g} to {known[-1]:.4g}" if len(known) > 1 else f"{known[0]:.4g}"
        said.append(f"{side} {span}")
    alt = f"{title} over {len(epochs)} epochs: {'; '.join(said)}."
    return Chart(name=name, title=title, alt=alt, svg=charts.curves(name, epochs, lines))
