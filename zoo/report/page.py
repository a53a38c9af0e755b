"""The page of a report: facts into a template, everything escaped, nothing loaded."""

from __future__ import annotations

import dataclasses
import shlex
from importlib import resources
from importlib.metadata import version
from typing import Any

import numpy as np

from zoo.record import DEEDS
from zoo.report import charts, curves, headline, pictures, tested
from zoo.report.charts import class_colours
from zoo.report.facts import Absent, Autoencoded, Facts, Lineage, Looked, Mapped
from zoo.report.outcomes import Outcomes
from zoo.report.pictures import Picture
from zoo.showing import shown

LOOKED = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Glance:
    """An example, what the trained model looked at, and the map of the reinitialised one."""

    picture: Picture
    trained: Picture
    control: Picture
    true: str
    predicted: str
    probability: float
    correlation: float | None


def render(facts: Facts) -> str:
    """Return the page, the same text each time for the same facts."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_finalized,
    )
    environment.filters |= {
        "percent": _percent,
        "count": lambda value: f"{value:,}",
        "short": charts.shortened,
        "moment": _moment,
    }
    environment.tests["absent"] = lambda value: isinstance(value, Absent)
    return environment.get_template("page.html.j2").render(**_view(facts))


def _finalized(value: Any) -> Any:
    """Show a text as text: a name that turns the direction of writing would turn its sentence."""
    plain = type(value) is str and not value.startswith("data:")
    return shown(value, lines=True) if plain else value


def _source(name: str) -> str:
    return (resources.files("zoo.report") / "page" / name).read_text(encoding="utf-8")


def _view(facts: Facts) -> dict[str, Any]:
    """Return what the template is given."""
    record = facts.record
    names = record.classes
    return {
        "facts": facts,
        "record": record,
        "names": names,
        "deed": DEEDS[record.kind],
        "title": headline.title_of(record),
        "sentence": headline.sentence_of(facts),
        "figures": headline.figures_of(facts),
        "curves": curves.charts_of(facts.metrics),
        "once": curves.sentence_of(facts.metrics),
        "tested": _or(facts.tested, Outcomes, lambda part: tested.tested(part, names)),
        "autoencoded": _or(facts.autoencoded, Autoencoded, _autoencoded),
        "map": _or(facts.mapped, Mapped, lambda part: _map(part, names)),
        "looked": _or(facts.looked, Looked, lambda part: _glances(part, names)),
        "lineage": [_step(step, number) for number, step in enumerate(facts.lineage)],
        "changed": [(g, option) for g in facts.groups for option in g.options if option.changed],
        "made_by": version("plugzoo"),
    }


def _step(step: Lineage, number: int) -> dict[str, Any]:
    """Return what the template shows of a run that this one came of."""
    return {
        "run": step,
        "deed": DEEDS[step.record.kind] if step.record else "run",
        "curves": curves.charts_of(step.metrics, f"parent{number}-"),
        "once": curves.sentence_of(step.metrics),
        "command": shlex.join(["zoo", "report", step.run]),
    }


def _or(part: Any, kind: type, make: Any) -> Any:
    """Return what is made of a part, or why it is absent, or None where it does not apply."""
    return make(part) if isinstance(part, kind) else part


def _autoencoded(part: Autoencoded) -> dict[str, Any]:
    pairs = zip(part.inputs, part.outputs, strict=True)
    return {
        "pairs": [(pictures.picture(one), pictures.picture(other)) for one, other in pairs],
        "samples": [pictures.picture(each) for each in part.samples],
        "codes": part.codes,
        "examples": part.examples,
    }


def _map(part: Mapped, names: list[str]) -> dict[str, Any]:
    coloured = part.labels is not None
    few = coloured and len(names) <= charts.NAMED
    there = set() if part.labels is None else set(part.labels.tolist())
    colours = class_colours(len(names))
    return {
        "svg": charts.scatter(part.map.points, part.labels, names),
        "method": part.map.method,
        "examples": part.examples,
        "coloured": coloured,
        "legend": [(names[i], colours[i]) for i in sorted(there)] if few else [],
    }


def _glances(part: Looked, names: list[str]) -> dict[str, Any]:
    predicted = part.probabilities.argmax(1)
    sanity = part.sanity
    glances = []
    for at in _various(predicted)[:LOOKED]:
        correlation = sanity.correlations[at]
        glances.append(
            Glance(
                picture=pictures.picture(part.pictures[at]),
                trained=pictures.heat(sanity.maps[at].numpy()),
                control=pictures.heat(sanity.control[at].numpy()),
                true=names[int(part.labels[at])],
                predicted=names[int(predicted[at])],
                probability=float(part.probabilities[at, predicted[at]]),
                correlation=None if np.isnan(correlation) else correlation,
            )
        )
    return {"glances": glances, "sanity": sanity, "samples": part.samples,
            "examples": part.examples}  # fmt: skip


def _various(predicted: Any) -> list[int]:
    """Return positions so that each predicted class comes once before any comes twice."""
    seen: dict[int, int] = {}
    turns = []
    for at, label in enumerate(predicted.tolist()):
        seen[label] = seen.get(label, 0) + 1
        turns.append((seen[label], at))
    return [at for _, at in sorted(turns)]


def _percent(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value * 100:.{digits}f} %"


def _moment(text: str) -> str:
    """Write an ISO time to the second, as it was recorded."""
    day, _, rest = str(text).partition("T")
    return f"{day} {rest[:8]}" if rest else day
