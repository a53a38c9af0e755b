"""The one converter: config dataclass ⇄ JSON ⇄ text ⇄ command-line option."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import click

from zoo.errors import BadOption, UnknownName, did_you_mean, listing

T = TypeVar("T")

REQUIRED: Any = object()
"""The default of an option that has none."""

LARGEST = 2**63 - 1
"""No whole number of an option is larger: the libraries that are given it count in 64 bits."""
_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
UNITS = {"": 1, "b": 1}
UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}
UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)}
SUPPORTED = 'int, float, bool, str, Literal["…"], tuple[int, …] or one of these | None'


@dataclasses.dataclass(frozen=True)
class Knob:
    """One option of a config dataclass: its type, default, bounds and help."""

    name: str
    kind: type | str  # int, float, bool, str, "choice", "ints" or "bytes"
    choices: tuple[str, ...] = ()
    optional: bool = False
    default: Any = REQUIRED
    help: str = ""
    low: float | None = None
    high: float | None = None

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def parameter(self) -> str:
        """The name of its click parameter, which no parameter of a verb's own has."""
        return f"knob_{self.name}"

    @property
    def allowed(self) -> str:
        """What may be written, in words: `int from 1`, `one of: a, b`, `none`."""
        if self.kind == "choice":
            words = "one of: " + ", ".join(self.choices)
        elif self.kind == "ints":
            words = "ints separated by commas"
        elif self.kind is bool:
            words = "true or false"
        elif self.kind is str:
            words = "text"
        elif self.kind == "bytes":
            words = "a size (256MB, 2GB)"
        else:
            words = "a whole number" if self.kind is int else "a number"
        each = ", each" if self.kind == "ints" else ""
        if self.low is not None:
            words += f"{each} from {self._bound(self.low)}"
        if self.high is not None:
            words += f"{each if self.low is None else ''} up to {self._bound(self.high)}"
        return words + (", or none" if self.optional else "")

    def parse(self, text: str) -> Any:
        """Read a value from text; raises `BadOption`."""
        if self.optional and text.strip().lower() == "none":
            return None
        try:
            return self.check(self._read(text))
        except (ValueError, BadOption):  # quote what was typed, not what was read
            raise self._wrong(text) from None

    def check(self, value: Any) -> Any:
        """Return a Python or JSON value in the knob's own type; raises `BadOption`."""
        if value is None and self.optional:
            return None
        try:
            value = self._own_type(value)
        except (TypeError, ValueError, OverflowError):
            raise self._wrong(value) from None
        for number in value if self.kind == "ints" else (value,):
            below = self.low is not None and number < self.low
            above = self.high is not None and number > self.high
            if below or above:
                raise self._wrong(value)
        return value

    def format(self, value: Any) -> str:
        """Write a value as text that `parse` reads back to the same value."""
        if value is None:
            return "none"
        if self.kind == "ints" and isinstance(value, list | tuple):
            return ",".join(str(number) for number in value)
        if isinstance(value, bool) and self.kind is bool:
            return "true" if value else "false"
        if self.kind == "bytes" and isinstance(value, int):
            return size_text(value)
        return repr(value) if self.kind is float else str(value)

    def _read(self, text: str) -> Any:
        if self.kind is int:
            return int(text)
        if self.kind is float:
            return float(text)
        if self.kind == "ints":
            return tuple(int(part) for part in text.split(",")) if text.strip() else ()
        if self.kind == "bytes":
            return _read_size(text)
        if self.kind is bool:
            if text.strip().lower() not in _BOOLS:
                raise ValueError
            return _BOOLS[text.strip().lower()]
        return text.strip() if self.kind == "choice" else text

    def _own_type(self, value: Any) -> Any:
        if self.kind is bool:
            return _of(bool, value)
        if self.kind in (int, "bytes"):
            return _whole(value)
        if self.kind is float:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError
            if not math.isfinite(value):
                raise ValueError
            return float(value)
        if self.kind == "ints":
            if not isinstance(value, list | tuple):
                raise TypeError
            return tuple(_whole(number) for number in value)
        if self.kind == "choice" and value not in self.choices:
            raise ValueError
        return _of(str, value)

    def _wrong(self, value: Any) -> BadOption:
        shown = value if isinstance(value, str) else self._shown(value)
        # Of numbers none is nearer than another by its digits.
        named = self.kind == "choice" and not str(value).strip().isdecimal()
        hint = did_you_mean(str(value), self.choices) if named else ""
        whole = self.kind in (int, "ints", "bytes") and self.high is None
        vast = whole and any(len(digits) > 18 for digits in re.findall(r"\d+", str(value)))
        allowed = self.allowed + (f", up to {LARGEST}" if vast else "")
        return BadOption(f"{self.name}: {shown!r} is not allowed.{hint} Allowed: {allowed}.")

    def _shown(self, value: Any) -> Any:
        try:
            return self.format(value)
        except (TypeError, ValueError):
            return value

    def _bound(self, bound: float) -> str:
        if self.kind == "bytes":
            return size_text(int(bound))
        return f"{bound:g}" if abs(bound) < 1e6 else str(bound)


def size_text(size: int) -> str:
    """Write bytes in the largest unit that needs no fraction: 1GB, 1500MB, 1234."""
    for unit in ("GB", "MB", "kB"):
        if size and size % UNITS[unit.lower()] == 0:
            return f"{size // UNITS[unit.lower()]}{unit}"
    return str(size)


def _read_size(text: str) -> int:
    """Read bytes from 2GB, 1.5 GiB or 1500000; raises ValueError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if found is None or found[2].lower() not in UNITS:
        raise ValueError
    return round(float(found[1]) * UNITS[found[2].lower()])


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    if abs(value) > LARGEST:
        raise ValueError
    return value


def knobs(config: Any) -> tuple[Knob, ...]:
    """Read the options that a config dataclass declares.

    Raises TypeError where it is no dataclass or a field's type is not supported.
    """
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        given = f"an instance; give the class, {type(config).__name__}"
        what = given if dataclasses.is_dataclass(config) else "not a dataclass"
        raise TypeError(f"config {config!r} is {what}")
    return _knobs(config)


# never elsewhere: fields, get_type_hints
@functools.cache
def _knobs(config: type) -> tuple[Knob, ...]:
    hints = typing.get_type_hints(config)
    return tuple(
        _knob(config, field, hints[field.name])
        for field in dataclasses.fields(config)
        if field.init
    )


def _knob(config: type, field: dataclasses.Field[Any], hint: Any) -> Knob:
    where = f"{config.__name__}.{field.name}"
    optional = False
    if get_origin(hint) in (Union, types.UnionType):
        rest = [part for part in get_args(hint) if part is not type(None)]
        optional = len(rest) < len(get_args(hint))
        hint = rest[0] if len(rest) == 1 else hint
    kind: type | str
    choices: tuple[str, ...] = ()
    if hint is int and field.metadata.get("bytes"):
        kind = "bytes"
    elif hint in (int, float, bool, str):
        kind = hint
    elif get_origin(hint) is Literal and all(isinstance(part, str) for part in get_args(hint)):
        kind, choices = "choice", get_args(hint)
    elif get_origin(hint) is tuple and get_args(hint) == (int, Ellipsis):
        kind = "ints"
    else:
        name = hint.__name__ if isinstance(hint, type) and not get_args(hint) else hint
        raise TypeError(f"{where} has the type {name}, which is not supported: use {SUPPORTED}")
    bounded = (field.metadata.get("low"), field.metadata.get("high")) != (None, None)
    if bounded and kind in (bool, str, "choice"):
        raise TypeError(f"{where} has bounds, which only numbers have")
    default: Any = REQUIRED
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    knob = Knob(
        name=field.name,
        kind=kind,
        choices=choices,
        optional=optional,
        help=field.metadata.get("help", ""),
        low=field.metadata.get("low"),
        high=field.metadata.get("high"),
    )
    if default is not REQUIRED:
        try:
            default = knob.check(default)
        except BadOption as error:
            raise TypeError(f"the default of {where} is not one of its values: {error}") from None
    return dataclasses.replace(knob, default=default)


def make(config: Callable[..., T], values: Mapping[str, Any], owner: str = "") -> T:
    """Build a config from Python or JSON values, each checked; raises `BadOption`.

    `owner` opens every message: `objective 'denoise'`.
    """
    prefix = f"{owner}: " if owner else ""
    known = {knob.name: knob for knob in knobs(config)}
    for name in values:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UnknownName(f"{prefix}unknown option '{name}'.{hint} Options: {listing(known)}.")
    missing = [name for name, knob in known.items() if knob.required and name not in values]
    if missing:
        wanted = known[missing[0]]
        raise BadOption(f"{prefix}option '{missing[0]}' is required: {wanted.allowed}.")
    try:
        checked = {name: known[name].check(value) for name, value in values.items()}
    except BadOption as error:
        raise BadOption(prefix + str(error)) from None
    return config(**checked)


def to_json(config: Any) -> dict[str, Any]:
    """Write every option of a config as JSON values, in the order of declaration."""
    values = {knob.name: getattr(config, knob.name) for knob in knobs(cast(Any, type(config)))}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def parse_pairs(config: Any, pairs: Iterable[str], owner: str = "") -> dict[str, Any]:
    """Read `key=value` texts as the values of a config's options; raises `BadOption`.

    A tuple of configs has the options of all of them.
    """
    prefix = f"{owner}: " if owner else ""
    configs = config if isinstance(config, tuple) else (config,)
    known = {knob.name: knob for each in configs for knob in knobs(each)}
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        name = key.strip().replace("-", "_")
        if not equals:
            raise BadOption(f"{prefix}'{pair}' is not key=value. Options: {listing(known)}.")
        if name not in known:
            hint = did_you_mean(name, known)
            raise UnknownName(f"{prefix}unknown option '{key}'.{hint} Options: {listing(known)}.")
        try:
            values[name] = known[name].parse(text)
        except BadOption as error:
            raise BadOption(prefix + str(error)) from None
    return values


class _KnobType(click.ParamType):
    def __init__(self, knob: Knob) -> None:
        self.knob = knob
        names = {int: "int", float: "float", str: "text", "ints": "int,…", "bytes": "size"}
        self.name = names.get(knob.kind, "|".join(knob.choices))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.knob.parse(value)
        except BadOption as error:
            return self.fail(str(error).partition(": ")[2], param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.name if self.knob.kind == "choice" else self.name.upper()

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(c) for c in self.knob.choices if c.startswith(incomplete)]


def click_option(knob: Knob) -> click.Option:
    """Make the command-line option of a knob; its default is shown, and applied by `make`."""
    default = "required" if knob.required else knob.format(knob.default)
    declared = [f"{knob.flag}/--no-{knob.flag[2:]}" if knob.kind is bool else knob.flag]
    bounds = [part for part in (knob.low, knob.high) if part is not None]
    text = knob.help
    if bounds and knob.kind != "choice":
        sized = knob.kind == "bytes"
        low, high = (
            "" if bound is None else size_text(int(bound)) if sized else f"{bound:g}"
            for bound in (knob.low, knob.high)
        )
        high = "2^63-1" if knob.high is not None and knob.high > 1e18 else high
        text += f" [{low}..{high}]"
    return click.Option(
        [*declared, knob.parameter],
        type=None if knob.kind is bool else _KnobType(knob),
        is_flag=knob.kind is bool,
        default=None,
        help=f"{text}  [default: {default or 'empty'}]",
    )
