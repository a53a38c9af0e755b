"""The one converter: every option type to text, JSON and the command line, and back."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from click.core import ParameterSource
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.api import NoConfig, TrainConfig, knob
from zoo.config import SUPPORTED, Knob, click_option, knobs, make, parse_pairs, to_json
from zoo.errors import BadOption, UnknownName

# A deadline would be a timed assertion.
unhurried = settings(deadline=None, max_examples=60)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Every:
    count: int = knob(3, "how many")
    share: float = knob(0.5, "how much")
    on: bool = knob(False, "whether")
    title: str = knob("x", "what")
    mode: Literal["slow", "fast"] = knob("slow", "how")
    widths: tuple[int, ...] = knob((4, 2), "how wide")
    maybe_count: int | None = knob(None, "how many, if any")
    maybe_share: float | None = knob(0.5, "how much, if any")
    maybe_on: bool | None = knob(None, "whether, if known")
    maybe_title: str | None = knob(None, "what, if anything")
    maybe_mode: Literal["slow", "fast"] | None = knob("fast", "how, if at all")
    maybe_widths: tuple[int, ...] | None = knob(None, "how wide, if at all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounded:
    count: int = knob(2, "how many", low=1, high=4)
    share: float = knob(0.5, "how much", low=0.0, high=1.0)
    widths: tuple[int, ...] = knob((2,), "how wide", low=1, high=9)
    least: int | None = knob(None, "at least", low=1)
    most: float = knob(0.0, "at most", high=2.5)
    narrow: tuple[int, ...] = knob((0,), "how narrow", high=7)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needy:
    need: int = knob(help="must be given", low=1)
    plain: str = "no knob"


INTS = st.integers(-(2**63) + 1, 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
MODES = st.sampled_from(["slow", "fast"])
# Half of them made of what a parser may trip over: blanks, separators, dashes.
TEXTS = st.text() | st.text(" \t\n=,-ax", max_size=4)
WIDTHS = st.lists(INTS, max_size=5).map(tuple)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "count": INTS,
    "share": FLOATS,
    "on": st.booleans(),
    "title": TEXTS,
    "mode": MODES,
    "widths": WIDTHS,
    "maybe_count": st.none() | INTS,
    "maybe_share": st.none() | FLOATS,
    "maybe_on": st.none() | st.booleans(),
    # None is written `none`, so no text of that spelling can be meant.
    "maybe_title": st.none() | TEXTS.filter(lambda text: text.strip().lower() != "none"),
    "maybe_mode": st.none() | MODES,
    "maybe_widths": st.none() | WIDTHS,
}
CONFIGS = st.builds(Every, **VALUES)
KNOBS = {each.name: each for each in knobs(Every)}
BOUNDED = {each.name: each for each in knobs(Bounded)}


def odd(hint: Any, default: Any = None, **bounds: Any) -> type:
    """Make a config class `Odd` with the one option `odd`."""
    return dataclasses.make_dataclass("Odd", [("odd", hint, knob(default, "odd", **bounds))])


def parsed(options: list[Knob], *args: str) -> click.Context:
    """Parse words as a command with these options does."""
    return click.Command("do", params=[click_option(k) for k in options]).make_context(
        "do", [*args]
    )


# --- round trips ----------------------------------------------------------------------------


def test_every_option_has_values_to_try() -> None:
    assert list(VALUES) == list(KNOBS)


@pytest.mark.parametrize("name", VALUES)
@given(data=st.data())
@unhurried
def test_a_value_written_as_text_reads_back_the_same(name: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[name])
    again = KNOBS[name].parse(KNOBS[name].format(value))
    assert again == value
    assert type(again) is type(value)
    assert repr(again) == repr(value)  # tells -0.0 from 0.0


@given(config=CONFIGS)
@unhurried
def test_a_config_written_as_json_reads_back_the_same(config: Every) -> None:
    written = to_json(config)
    assert list(written) == list(KNOBS)  # in the order of declaration
    again = make(Every, json.loads(json.dumps(written)))
    assert again == config
    assert repr(again) == repr(config)


@given(config=CONFIGS)
@unhurried
def test_a_config_written_as_pairs_reads_back_the_same(config: Every) -> None:
    pairs = [f"{name}={KNOBS[name].format(getattr(config, name))}" for name in KNOBS]
    assert make(Every, parse_pairs(Every, pairs)) == config


@given(config=CONFIGS)
@unhurried
def test_a_config_typed_as_flags_reads_back_the_same(config: Every) -> None:
    typed = [each for each in KNOBS.values() if each.kind is not bool]
    words = [f"{each.flag}={each.format(getattr(config, each.name))}" for each in typed]
    params = parsed(typed, *words).params
    assert params == {each.parameter: getattr(config, each.name) for each in typed}


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("Yes", True), ("1", True), ("FALSE", False), ("no", False), ("0", False)],
)
def test_a_bool_is_written_in_several_ways(text: str, value: bool) -> None:
    assert KNOBS["on"].parse(text) is value


@pytest.mark.parametrize("name", [name for name in KNOBS if name.startswith("maybe_")])
@pytest.mark.parametrize("text", ["none", "None", " NONE "])
def test_none_is_written_none(name: str, text: str) -> None:
    assert KNOBS[name].parse(text) is None
    assert KNOBS[name].format(None) == "none"


def test_a_whole_number_of_a_float_option_becomes_a_float() -> None:
    made = make(Every, {"share": 1, "maybe_share": 2})
    assert (repr(made.share), repr(made.maybe_share)) == ("1.0", "2.0")


def test_a_list_becomes_a_tuple() -> None:
    assert make(Every, {"widths": [3, 1]}).widths == (3, 1)


# --- what is refused ------------------------------------------------------------------------

INT, NUMBER, TRUTH = "a whole number", "a number", "true or false"
CHOICE, EACH = "one of: slow, fast", "ints separated by commas"


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        *[("count", text, INT) for text in ("x", "", "1.5", "1e3", "none", "0x10", "1,2")],
        *[("share", text, NUMBER) for text in ("x", "", "1,5", "none")],
        *[("share", text, NUMBER) for text in ("nan", "inf", "-inf", "1e999")],
        *[("on", text, TRUTH) for text in ("maybe", "", "2", "none")],
        *[("mode", text, CHOICE) for text in ("x", "", "none", "SLOW")],
        *[("widths", text, EACH) for text in ("x", "1,,2", ",", "1.5", "none")],
        ("maybe_count", "nil", INT + ", or none"),
        ("maybe_share", "nan", NUMBER + ", or none"),
        ("maybe_on", "perhaps", TRUTH + ", or none"),
        ("maybe_mode", "x", CHOICE + ", or none"),
        ("maybe_widths", "1;2", EACH + ", or none"),
    ],
)
def test_a_text_that_cannot_be_meant_is_quoted(name: str, text: str, allowed: str) -> None:
    with pytest.raises(BadOption) as error:
        KNOBS[name].parse(text)
    message = str(error.value).replace(" Did you mean 'slow'?", "")
    assert message == f"{name}: {text!r} is not allowed. Allowed: {allowed}."
    assert error.value.exit_status == 2


@pytest.mark.parametrize(
    ("name", "value", "shown", "allowed"),
    [
        *[("count", v, s, INT) for v, s in ((1.0, "1.0"), (True, "True"), ("1", "1"))],
        *[("count", v, s, INT) for v, s in ((None, "none"), ([1], "[1]"), (math.nan, "nan"))],
        *[("share", v, s, NUMBER) for v, s in ((True, "True"), ("1", "1"), (None, "none"))],
        *[("share", v, str(v), NUMBER) for v in (math.nan, math.inf, -math.inf, 10**400, 1j)],
        *[("on", v, s, TRUTH) for v, s in ((1, "1"), (0.0, "0.0"), ("true", "true"))],
        *[("on", v, s, TRUTH) for v, s in ((None, "none"), ([], "[]"))],
        *[("title", v, s, "text") for v, s in ((1, "1"), (None, "none"), (True, "True"))],
        *[("mode", v, s, CHOICE) for v, s in ((1, "1"), (None, "none"), (True, "True"))],
        *[("mode", v, str(v), CHOICE) for v in ([], {})],
        *[("widths", v, s, EACH) for v, s in ((5, "5"), ("1,2", "1,2"), (None, "none"))],
        *[("widths", v, s, EACH) for v, s in (([1.0], "1.0"), ([True], "True"))],
        ("maybe_count", 1.5, "1.5", INT + ", or none"),
        ("maybe_widths", [None], "None", EACH + ", or none"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(
    name: str, value: object, shown: str, allowed: str
) -> None:
    with pytest.raises(BadOption) as error:
        KNOBS[name].check(value)
    # Quotes or none: what counts is that the value is shown as it was given.
    message = str(error.value).replace("'", "")
    assert message == f"{name}: {shown} is not allowed. Allowed: {allowed}."


@pytest.mark.parametrize(
    ("name", "text"),
    [("count", str(2**63)), ("widths", f"4,{-(10**40)}"), ("maybe_count", "9" * 30)],
)
def test_a_whole_number_has_64_bits(name: str, text: str) -> None:
    with pytest.raises(BadOption, match=f"is not allowed.*, up to {2**63 - 1}"):
        KNOBS[name].parse(text)
    assert KNOBS["count"].parse(str(2**63 - 1)) == 2**63 - 1


@pytest.mark.parametrize("value", [b"ab", {1: 2}, {3, 4}], ids=repr)
def test_widths_are_a_list_or_a_tuple_not_whatever_can_be_walked(value: object) -> None:
    with pytest.raises(BadOption, match=f"^widths: .*Allowed: {EACH}\\.$"):
        KNOBS["widths"].check(value)


BOUNDS = [
    ("count", ["1", "4"], ["0", "5", "-1"], "a whole number from 1 up to 4"),
    ("share", ["0", "1", "0.25"], ["-0.001", "1.001"], "a number from 0 up to 1"),
    ("widths", ["1,9", ""], ["0", "1,10", "5,0,5"], f"{EACH}, each from 1 up to 9"),
    ("least", ["1", "none"], ["0"], "a whole number from 1, or none"),
    ("most", ["2.5", "-1e300"], ["2.6"], "a number up to 2.5"),
    ("narrow", ["7,-8"], ["8", "1,8"], f"{EACH}, each up to 7"),
]


@pytest.mark.parametrize(("name", "inside", "outside", "allowed"), BOUNDS)
def test_bounds_are_inclusive(
    name: str, inside: list[str], outside: list[str], allowed: str
) -> None:
    option = BOUNDED[name]
    for text in inside:
        assert option.check(option.parse(text)) == option.parse(text)
    for text in outside:
        with pytest.raises(BadOption) as error:
            option.parse(text)
        assert str(error.value) == f"{name}: {text!r} is not allowed. Allowed: {allowed}."


@given(value=st.integers(-10, 10))
@unhurried
def test_a_value_is_taken_exactly_within_its_bounds(value: int) -> None:
    if 1 <= value <= 4:
        assert make(Bounded, {"count": value}).count == value
    else:
        with pytest.raises(BadOption, match=f"^count: '{value}' is not allowed"):
            make(Bounded, {"count": value})


def test_a_large_bound_is_written_in_full() -> None:
    seed = next(each for each in knobs(TrainConfig) if each.name == "seed")
    assert seed.allowed == f"a whole number from 0 up to {2**63 - 1}"


@pytest.mark.parametrize(("typed", "meant"), [("fsat", "fast"), ("sloww", "slow")])
def test_a_near_miss_of_a_choice_is_suggested(typed: str, meant: str) -> None:
    with pytest.raises(BadOption) as error:
        KNOBS["mode"].parse(typed)
    wanted = f"mode: '{typed}' is not allowed. Did you mean '{meant}'? Allowed: {CHOICE}."
    assert str(error.value) == wanted


# --- make and pairs -------------------------------------------------------------------------


def test_unknown_option_is_named_with_a_suggestion_and_all_there_are() -> None:
    wanted = (
        "objective 'mine': unknown option 'cuont'. Did you mean 'count'?"
        " Options: count, least, most, narrow, share, widths."
    )
    with pytest.raises(UnknownName) as error:
        make(Bounded, {"cuont": 1}, "objective 'mine'")
    assert str(error.value) == wanted
    with pytest.raises(UnknownName) as error:
        parse_pairs(Bounded, ["cuont=1"], "objective 'mine'")
    assert str(error.value) == wanted


def test_an_option_of_a_config_without_any_is_refused() -> None:
    with pytest.raises(UnknownName, match=r"^unknown option 'zzz'\. Options: none\.$"):
        make(NoConfig, {"zzz": 1})


def test_a_required_option_is_asked_for() -> None:
    with pytest.raises(BadOption) as error:
        make(Needy, {}, "head 'needy'")
    assert str(error.value) == "head 'needy': option 'need' is required: a whole number from 1."
    assert make(Needy, {"need": 2}) == Needy(need=2)


def test_a_refused_value_names_its_owner() -> None:
    wanted = "head 'mine': count: '9' is not allowed. Allowed: a whole number from 1 up to 4."
    with pytest.raises(BadOption) as error:
        make(Bounded, {"count": 9}, "head 'mine'")
    assert str(error.value) == wanted
    with pytest.raises(BadOption) as error:
        parse_pairs(Bounded, ["count=9"], "head 'mine'")
    assert str(error.value) == wanted


def test_a_pair_without_equals_says_how_it_is_written() -> None:
    with pytest.raises(BadOption) as error:
        parse_pairs(Needy, ["need"], "head 'needy'")
    assert str(error.value) == "head 'needy': 'need' is not key=value. Options: need, plain."


def test_pairs_take_kebab_case_the_last_one_and_further_equals_signs() -> None:
    pairs = ["maybe-count=1", "maybe_count=2", "title=a=b"]
    assert parse_pairs(Every, pairs) == {"maybe_count": 2, "title": "a=b"}


# --- declarations ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hint",
    [list[int], dict[str, int], tuple[int, int], tuple[str, ...], tuple[int], int | str,
     int | str | None, Literal[1, 2], Literal["a", 1], Any, complex, bytes, Path, None, type(None),
     list, tuple],
    ids=str,
)  # fmt: skip
def test_an_unsupported_annotation_names_the_field(hint: Any) -> None:
    with pytest.raises(TypeError) as error:
        knobs(odd(hint))
    message = str(error.value)
    assert message.startswith("Odd.odd has the type ")
    assert message.endswith(f", which is not supported: use {SUPPORTED}")


@pytest.mark.parametrize(
    ("hint", "default", "bounds"),
    [(int, 0, {"low": 1}), (int, 1.5, {}), (float, math.nan, {}), (str, None, {}), (bool, 1, {}),
     (Literal["a", "b"], "c", {}), (tuple[int, ...], "1,2", {}),
     (tuple[int, ...], (3, 11), {"high": 10})],
    ids=str,
)  # fmt: skip
def test_a_default_outside_its_own_option_names_the_field(
    hint: Any, default: Any, bounds: dict[str, float]
) -> None:
    with pytest.raises(
        TypeError, match=r"^the default of Odd\.odd is not one of its values: odd: "
    ):
        knobs(odd(hint, default, **bounds))


@pytest.mark.parametrize(
    ("hint", "default"), [(str, "x"), (Literal["a", "b"], "a"), (str | None, None)], ids=str
)
def test_a_bound_on_what_has_no_order_names_the_field(hint: Any, default: Any) -> None:
    with pytest.raises(TypeError, match=r"Odd\.odd"):
        knobs(odd(hint, default, low=1))


@dataclasses.dataclass
class Changeable:
    """An instance of it cannot be hashed."""


@pytest.mark.parametrize("config", [int, 5, "text", {}, [], Needy(need=1), Changeable()], ids=repr)
def test_a_config_is_a_dataclass_and_not_one_of_its_instances(config: Any) -> None:
    with pytest.raises(TypeError) as error:
        knobs(config)
    what = "not a dataclass"
    if dataclasses.is_dataclass(config):
        what = f"an instance; give the class, {type(config).__name__}"
    assert str(error.value) == f"config {config!r} is {what}"


def test_defaults_may_come_from_a_factory_and_derived_fields_are_no_options() -> None:
    made = dataclasses.make_dataclass(
        "Made",
        [
            ("widths", tuple[int, ...], dataclasses.field(default_factory=lambda: (1, 2))),
            ("derived", list[int], dataclasses.field(init=False, default_factory=list)),
        ],
    )
    assert [(each.name, each.default) for each in knobs(made)] == [("widths", (1, 2))]


def test_options_are_inherited_in_order() -> None:
    more = [("more", int, knob(1))]
    child = dataclasses.make_dataclass("Child", more, bases=(Bounded,), frozen=True)
    assert [each.name for each in knobs(child)] == [*BOUNDED, "more"]


# --- the command line -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "text", "message"),
    [
        ("--count", "5", "'5' is not allowed. Allowed: a whole number from 1 up to 4."),
        ("--count", "a: b", "'a: b' is not allowed. Allowed: a whole number from 1 up to 4."),
        ("--least", "x", "'x' is not allowed. Allowed: a whole number from 1, or none."),
        ("--widths", "1,x", f"'1,x' is not allowed. Allowed: {EACH}, each from 1 up to 9."),
    ],
)
def test_a_flag_with_a_bad_value_says_what_is_allowed(flag: str, text: str, message: str) -> None:
    with pytest.raises(click.BadParameter) as error:
        parsed(list(BOUNDED.values()), flag, text)
    assert error.value.format_message() == f"Invalid value for '{flag}': {message}"


def test_a_flag_suggests_a_near_miss() -> None:
    with pytest.raises(click.BadParameter) as error:
        parsed([KNOBS["mode"]], "--mode", "fsat")
    assert error.value.message == (
        f"'fsat' is not allowed. Did you mean 'fast'? Allowed: {CHOICE}."
    )


@pytest.mark.parametrize("name", KNOBS)
def test_a_flag_not_typed_is_told_from_one_typed(name: str) -> None:
    option = KNOBS[name]
    assert parsed([option]).get_parameter_source(option.parameter) is ParameterSource.DEFAULT
    words = (
        [option.flag] if option.kind is bool else [f"{option.flag}={option.format(option.default)}"]
    )
    context = parsed([option], *words)
    assert context.get_parameter_source(option.parameter) is ParameterSource.COMMANDLINE


@pytest.mark.parametrize(("word", "value"), [("--on", True), ("--no-on", False)])
def test_a_bool_has_a_flag_for_either_way(word: str, value: bool) -> None:
    assert parsed([KNOBS["on"]], word).params == {"knob_on": value}


def test_flags_are_kebab_case() -> None:
    assert parsed([KNOBS["maybe_count"]], "--maybe-count", "2").params == {"knob_maybe_count": 2}


@pytest.mark.parametrize(
    ("option", "metavar", "text"),
    [
        (KNOBS["count"], "INT", "how many  [default: 3]"),
        (KNOBS["mode"], "slow|fast", "how  [default: slow]"),
        (KNOBS["maybe_count"], "INT", "how many, if any  [default: none]"),
        (BOUNDED["count"], "INT", "how many [1..4]  [default: 2]"),
        (BOUNDED["most"], "FLOAT", "at most [..2.5]  [default: 0.0]"),
        (BOUNDED["widths"], "INT,…", "how wide [1..9]  [default: 2]"),
        (knobs(Needy)[0], "INT", "must be given [1..]  [default: required]"),
        (knobs(odd(str, ""))[0], "TEXT", "odd  [default: empty]"),
    ],
)
def test_help_shows_type_bounds_and_default(option: Knob, metavar: str, text: str) -> None:
    context = click.Context(click.Command("do"))
    shown = click_option(option).get_help_record(context)
    assert shown == (f"{option.flag} {metavar}", text)


def test_choices_are_completed() -> None:
    context = click.Context(click.Command("do"))
    option = click_option(KNOBS["mode"])
    assert [item.value for item in option.shell_complete(context, "")] == ["slow", "fast"]
    assert [item.value for item in option.shell_complete(context, "f")] == ["fast"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sized:
    memory: int = dataclasses.field(
        default=10**9, metadata={"help": "how much", "low": 10**7, "bytes": True}
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("256 mb", 256 * 10**6), ("1.5GiB", 3 * 2**29), ("20000000", 2 * 10**7)],
)
def test_a_size_is_read_with_its_unit(text: str, size: int) -> None:
    [option] = knobs(Sized)
    assert option.parse(text) == size
    assert option.parse(option.format(size)) == size
    assert parse_pairs(Sized, [f"memory={text}"]) == {"memory": size}


@unhurried
@given(st.integers(10**7, 10**15))
def test_a_size_is_written_so_that_it_can_be_read(size: int) -> None:
    [option] = knobs(Sized)
    assert option.parse(option.format(size)) == size


@pytest.mark.parametrize("text", ["", "GB", "2XB", "-1GB", "1e9", "9MB", "nan", "1.5.2GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    [option] = knobs(Sized)
    with pytest.raises(BadOption) as caught:
        option.parse(text)
    said = f"memory: {text!r} is not allowed. Allowed: a size (256MB, 2GB) from 10MB."
    assert str(caught.value) == said


def test_a_size_on_the_command_line() -> None:
    [option] = knobs(Sized)
    shown = click_option(option)
    assert shown.help == "how much [10MB..]  [default: 1GB]"
    assert shown.opts == ["--memory"]
    assert (option.format(1234), option.format(1500 * 10**6)) == ("1234", "1500MB")
