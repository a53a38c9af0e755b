"""A component's options: round trips through text, JSON and the command line; every choice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from zoo.config import Knob, click_option, knobs, make, parse_pairs, to_json
from zoo.errors import DataError, Unfit
from zoo.registry import Entry
from zoo.testing.report import Failure, Skipped

RANGE = 16
"""Whole numbers between bounds that lie closer than this are all built."""


def complete(entry: Entry, given: Mapping[str, Any], text: str | None = None) -> dict[str, Any]:
    """Return options that every check builds with: those given, and samples of required ones.

    Raises `Skipped` where a required option is text, which nobody can guess, unless `text` stands
    for it.
    """
    options = dict(given)
    for knob in knobs(entry.spec.config):
        if knob.required and knob.name not in options:
            samples = list(_samples(knob)) or ([text] if text else [])
            if not samples:
                raise Skipped(
                    f"the option '{knob.name}' is required: give it a value,"
                    f" --set {knob.name}=… or {knob.name}=… in assert_conforms"
                )
            options[knob.name] = samples[0]
    return options


def check_options(entry: Entry, options: Mapping[str, Any]) -> str:
    """Every option's values survive text, JSON and the command line; the whole config JSON."""
    known = knobs(entry.spec.config)
    for knob in known:
        click_option(knob)
        values = [*_samples(knob), *([options[knob.name]] if knob.name in options else [])]
        for value in values:
            _round_trip(entry, knob, value)
    config = make(entry.spec.config, options, entry.owner)
    again = make(entry.spec.config, json.loads(json.dumps(to_json(config))), entry.owner)
    if again != config:
        raise Failure(
            f"{config!r} came back from JSON as {again!r}",
            "declare the config with @dataclasses.dataclass(frozen=True, kw_only=True), and leave"
            " its fields as they were given.",
        )
    return f"{len(known)} options" if len(known) != 1 else "1 option"


def variations(entry: Entry, options: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each value to build with that the default is not, with the options that make it.

    Choices, switches, None, the lowest of numbers, and every whole number of a small range.
    """
    config = make(entry.spec.config, options, entry.owner)
    for knob in knobs(entry.spec.config):
        current = getattr(config, knob.name)
        for value in _worth_building(knob):
            if value != current:
                yield f"{knob.name}={knob.format(value)}", {**options, knob.name: value}


def _worth_building(knob: Knob) -> list[Any]:
    if knob.kind is bool or knob.kind == "choice":
        return list(_samples(knob))
    optional = [None] if knob.optional else []
    if knob.kind is str or knob.low is None:
        return optional
    low = knob.low
    if knob.kind == "ints":
        return [(int(low),), *optional]
    if knob.kind is float:
        return [float(low), *optional]
    few = knob.high is not None and knob.high - low < RANGE
    return [*range(int(low), int(knob.high or 0) + 1 if few else int(low) + 1), *optional]


def check_choices(entry: Entry, options: Mapping[str, Any], build: Any) -> str:
    """Every value of every choice and switch builds; `build(config)` raises where it does not."""
    built, refused = 0, []
    for text, varied in variations(entry, options):
        try:
            build(make(entry.spec.config, varied, entry.owner))
            built += 1
        except (Unfit, DataError):  # it may not go with the others, or its files are not at hand
            refused.append(text)
        except Exception as error:
            raise Failure(
                f"{text}: {' '.join(str(error).split())}",
                f"make {text} work, bound the option more narrowly, or raise Unfit where it does"
                " not go with the rest.",
            ) from error
    if not built and not refused:
        return "none to make"
    return f"{built} built" + (f", refused: {', '.join(refused)}" if refused else "")


def _samples(knob: Knob) -> Iterator[Any]:
    if not knob.required:
        yield knob.default
    if knob.kind == "choice":
        yield from knob.choices
    elif knob.kind is bool:
        yield from (False, True)
    elif knob.kind is not str:
        number = int if knob.kind in (int, "ints") else float
        bounds = [bound for bound in (knob.low, knob.high) if bound is not None] or [1]
        for bound in bounds:
            yield (number(bound),) if knob.kind == "ints" else number(bound)
    if knob.optional:
        yield None


def _round_trip(entry: Entry, knob: Knob, value: Any) -> None:
    text = knob.format(value)
    pairs = parse_pairs(entry.spec.config, [f"{knob.name}={text}"], entry.owner)
    jsonable = list(value) if isinstance(value, tuple) else value
    for way, again in (
        ("text", pairs[knob.name]),
        ("JSON", knob.check(json.loads(json.dumps(jsonable)))),
    ):
        if again != value or type(again) is not type(value):
            raise Failure(
                f"{knob.name}: {value!r} came back from {way} as {again!r}",
                f"choose other values of '{knob.name}': text has no quotes, spaces around a choice"
                " are cut off, and none means None where None is allowed.",
            )
