"""The registry: whatever a plugin does, the others go on working and the user learns why."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from zoo.api import BackboneSpec, Component, HeadSpec, RecipeSpec, TrainConfig, hookimpl, knob
from zoo.config import knobs
from zoo.errors import BadOption, DuplicateName, PluginFault, UnknownName, UsageError
from zoo.registry import KINDS, Entry, Registry

BUILT_IN = Registry.installed()
COMPONENTS = [entry for kind in KINDS for entry in BUILT_IN.entries(kind)]
CONFIGURED = [entry for entry in COMPONENTS if entry.kind != "recipe"]
RECIPES = BUILT_IN.entries("recipe")


@pytest.fixture(autouse=True)
def neutral(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the tester's own settings out, and what a test imports out of the next one."""
    monkeypatch.delenv("ZOO_STRICT", raising=False)
    monkeypatch.delenv("ZOO_PLUGINS", raising=False)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("zoo_plugin_file_", "zoo_test_")):
            del sys.modules[name]


def build(*args: object) -> Any:
    raise AssertionError("a registry builds nothing")


def head(name: Any, **others: Any) -> HeadSpec:
    return HeadSpec(**{"name": name, "summary": "a head", "build": build, **others})


def backbone(name: str) -> BackboneSpec:
    return BackboneSpec(name=name, summary="a backbone", build=build)


def giving(result: object) -> Callable[[], Any]:
    """Make a hook that returns this."""

    @hookimpl
    def hook() -> Any:
        return result

    return hook


def plugin(name: str, **members: object) -> ModuleType:
    """Make a plugin in memory; members are its module-level names."""
    module = ModuleType(name)
    vars(module).update(members)
    return module


def heads(plugin_name: str, *names: str) -> ModuleType:
    return plugin(plugin_name, zoo_heads=giving([head(name) for name in names]))


def owners(registry: Registry) -> dict[tuple[str, str], list[str]]:
    """Return which plugins contribute each component."""
    found: dict[tuple[str, str], list[str]] = {}
    for kind in KINDS:
        for entry in registry.entries(kind):
            found.setdefault((kind, entry.name), []).append(entry.plugin)
    return found


def cause_of(registry: Registry, name: str) -> str | None:
    causes = [each.cause for each in registry.plugins if each.name == name]
    assert len(causes) == 1
    return causes[0]


# --- what may go wrong in a plugin's hooks --------------------------------------------------


class Unprintable(Exception):
    """An error that cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Stranger(BaseException):
    """Not an Exception, as pytest's and trio's are not: only KeyboardInterrupt passes."""


class NoRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def raising(error: BaseException) -> Callable[[], Any]:
    @hookimpl
    def hook() -> Any:
        raise error

    return hook


@hookimpl
def halfway() -> Iterator[HeadSpec]:
    yield head("half")
    raise ValueError("gave up\n  halfway")


@hookimpl
def leaving() -> None:
    sys.exit("bye")


@hookimpl
def with_argument(registrar: object) -> list[HeadSpec]:
    return []


def unmarked() -> list[HeadSpec]:
    return [head("unmarked")]


def marked(module: ModuleType, name: str) -> bool:
    """Say whether a module has a function of this name with the mark of `hookimpl`."""
    return hasattr(getattr(module, name, None), "zoo_impl")


OddConfig = dataclasses.make_dataclass("OddConfig", [("odd", dict[str, int], knob(None))])
NowhereConfig = dataclasses.make_dataclass("NowhereConfig", [("odd", "Nowhere", knob(None))])

NO_LIST = "not a list of specs"
KEBAB = "names are kebab-case: my-head"
FAULTS: dict[str, tuple[dict[str, object], str]] = {
    "raises": ({"zoo_heads": raising(RuntimeError("boom"))}, "RuntimeError: boom"),
    "raises without a word": ({"zoo_heads": raising(KeyError())}, "KeyError"),
    "raises what has no text": ({"zoo_heads": raising(Unprintable())}, "Unprintable"),
    "raises no Exception": ({"zoo_heads": raising(Stranger("far"))}, "Stranger: far"),
    "raises halfway": ({"zoo_heads": halfway}, "ValueError: gave up halfway"),
    "exits": (
        {"zoo_heads": leaving},
        "it ended the interpreter while being loaded (SystemExit: bye)",
    ),
    "misspells a hook": ({"zoo_head": giving([])}, "unknown hook 'zoo_head'"),
    "forgets hookimpl": ({"zoo_heads": unmarked}, "zoo_heads is not marked with @hookimpl"),
    "marks nothing": ({"heads": unmarked}, "no function of it is marked with @hookimpl"),
    "is empty": ({}, "no function of it is marked with @hookimpl, so it adds nothing"),
    "takes an argument": ({"zoo_heads": with_argument}, "'registrar'"),
    "returns None": ({"zoo_heads": giving(None)}, f"zoo_heads() returned None, {NO_LIST}"),
    "returns text": ({"zoo_heads": giving("mlp")}, f"zoo_heads() returned 'mlp', {NO_LIST}"),
    "returns bytes": ({"zoo_heads": giving(b"mlp")}, f"zoo_heads() returned b'mlp', {NO_LIST}"),
    "returns a number": ({"zoo_heads": giving(5)}, f"zoo_heads() returned 5, {NO_LIST}"),
    "returns a spec": ({"zoo_heads": giving(head("bare"))}, "zoo_heads() returned HeadSpec("),
    "returns numbers": ({"zoo_heads": giving([1, 2])}, "zoo_heads() gave 1, not a HeadSpec"),
    "returns a dict": (
        {"zoo_heads": giving({"mine": head("mine")})},
        "zoo_heads() gave 'mine', not a HeadSpec",
    ),
    "returns another kind": (
        {"zoo_heads": giving([backbone("wrong")])},
        "zoo_heads() gave BackboneSpec(name='wrong'",
    ),
    "returns the class": ({"zoo_heads": giving([HeadSpec])}, "not a HeadSpec"),
    "returns what has no repr": ({"zoo_heads": giving([NoRepr()])}, "no repr"),
    "names nothing": ({"zoo_heads": giving([head(None)])}, f"names a head None; {KEBAB}"),
    **{
        f"is named {name!r}": (
            {"zoo_heads": giving([head(name)])},
            f"zoo_heads() names a head {name!r}; {KEBAB}",
        )
        for name in ("", "Upper", "under_score", "two words", "-a", "a-", "a--b", "é", "a\n", 5)
    },
    "summary is no text": (
        {"zoo_heads": giving([head("x", summary=None)])},
        "the summary of head 'x' is not text",
    ),
    "build cannot be called": (
        {"zoo_heads": giving([head("x", build="build")])},
        "the build of head 'x' cannot be called",
    ),
    "unsupported option": (
        {"zoo_heads": giving([head("x", config=OddConfig)])},
        "head 'x': OddConfig.odd has the type dict[str, int], which is not supported: use int,",
    ),
    "option of no type": (
        {"zoo_heads": giving([head("x", config=NowhereConfig)])},
        "head 'x': name 'Nowhere' is not defined",
    ),
    "config is no dataclass": (
        {"zoo_heads": giving([head("x", config=int)])},
        "head 'x': config <class 'int'> is not a dataclass",
    ),
    "config is a dict": (
        {"zoo_heads": giving([head("x", config={})])},
        "head 'x': config {} is not a dataclass",
    ),
    "one name twice": (
        {"zoo_heads": giving([head("x"), head("y"), head("x")])},
        "it contributes two heads named 'x'",
    ),
}


@pytest.mark.parametrize(("members", "cause"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_plugin_is_left_out_whole_and_says_why(
    members: dict[str, object], cause: str
) -> None:
    # Its backbone is fine and read before its heads: that must not remain either.
    bad = plugin("bad", **{"zoo_backbones": giving([backbone("fine")]), **members})
    if cause.startswith("no function"):
        del bad.zoo_backbones
    registry = Registry(plugins=[heads("early", "first"), bad, heads("late", "last")])
    assert owners(registry) == {("head", "first"): ["file:early"], ("head", "last"): ["file:late"]}
    assert cause in (cause_of(registry, "file:bad") or "")
    assert registry.components_of("file:bad") == []
    hooks = tuple(name for name in ("zoo_backbones", "zoo_heads") if marked(bad, name))
    assert [each.hooks for each in registry.plugins] == [("zoo_heads",), hooks, ("zoo_heads",)]
    assert [each.cause for each in registry.plugins if each.name != "file:bad"] == [None, None]


def test_a_cause_is_one_line() -> None:
    registry = Registry(plugins=[plugin("bad", zoo_heads=halfway)])
    found = re.fullmatch(
        r"ValueError: gave up halfway \(test_registry\.py:(\d+)\)",
        cause_of(registry, "file:bad") or "",
    )
    assert found
    line = Path(__file__).read_text().splitlines()[int(found[1]) - 1]
    assert 'raise ValueError("gave up' in line


@pytest.mark.parametrize("part", ["dataset", "backbone", "objective", "head"])
def test_a_recipe_is_made_of_components(part: str) -> None:
    parts: dict[str, Any] = {
        name: Component("x") for name in ("dataset", "backbone", "objective", "head")
    }
    parts[part] = "a name alone"
    spec = RecipeSpec(
        name="mine",
        summary="",
        pretraining=TrainConfig(),
        finetuning=TrainConfig(),
        **parts,
    )
    registry = Registry(plugins=[plugin("bad", zoo_recipes=giving([spec]))])
    assert re.search(rf"recipe 'mine'.*{part}", cause_of(registry, "file:bad") or "")
    assert registry.names("recipe") == []


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_hook_is_checked(kind: str) -> None:
    registry = Registry(plugins=[plugin("bad", **{f"zoo_{kind}s": giving([object])})])
    wanted = f"zoo_{kind}s() gave <class 'object'>, not a {kind.capitalize()}Spec"
    assert cause_of(registry, "file:bad") == wanted


def test_a_hook_may_be_a_generator_and_may_give_nothing() -> None:
    @hookimpl
    def zoo_heads() -> Iterator[HeadSpec]:
        yield head("one")
        yield head("two")

    registry = Registry(
        plugins=[plugin("lazy", zoo_heads=zoo_heads), plugin("none", zoo_heads=giving([]))]
    )
    assert registry.names("head") == ["one", "two"]
    assert [(each.cause, each.hooks) for each in registry.plugins] == [(None, ("zoo_heads",))] * 2


def test_one_plugin_may_use_one_name_for_several_kinds() -> None:
    both = plugin("both", zoo_heads=giving([head("mlp")]), zoo_backbones=giving([backbone("mlp")]))
    assert owners(Registry(plugins=[both])) == {
        ("backbone", "mlp"): ["file:both"],
        ("head", "mlp"): ["file:both"],
    }


def test_registries_share_nothing() -> None:
    Registry(plugins=[heads("mine", "first")])
    assert owners(Registry()) == {}


def test_ctrl_c_passes() -> None:
    with pytest.raises(KeyboardInterrupt):
        Registry(plugins=[plugin("bad", zoo_heads=raising(KeyboardInterrupt()))])


def test_strict_raises_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_STRICT", "1")
    error = RuntimeError("boom")
    with pytest.raises(RuntimeError) as caught:
        Registry(plugins=[plugin("bad", zoo_heads=raising(error))])
    assert caught.value is error


@pytest.mark.parametrize("status", [0, 3, None])
def test_strict_makes_an_error_of_an_exit(
    status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As it is, it would end the command without a word, and with 0 as if all were well.
    monkeypatch.setenv("ZOO_STRICT", "1")
    error = SystemExit(status)
    with pytest.raises(PluginFault) as caught:
        Registry(plugins=[plugin("bad", zoo_heads=raising(error))])
    assert str(caught.value) == (
        f"Plugin file:bad: it ended the interpreter while being loaded (SystemExit: {status})"
    )
    assert caught.value.__cause__ is error


def test_strict_names_the_plugin_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_STRICT", "1")
    # The command line shows a ZooError as its message alone: without a name nothing could be done.
    with pytest.raises(PluginFault, match=r"file:bad.*zoo_heads\(\) returned None"):
        Registry(plugins=[plugin("bad", zoo_heads=giving(None))])


@pytest.mark.parametrize("value", ["0", "", "no"])
def test_strict_is_asked_for_with_1(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_STRICT", value)
    registry = Registry(plugins=[plugin("bad", zoo_heads=giving(None))])
    assert cause_of(registry, "file:bad")


# --- names ----------------------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_the_nearest_and_all() -> None:
    registry = Registry(plugins=[heads("mine", "mlp", "linear", "attention")])
    with pytest.raises(UnknownName) as error:
        registry.lookup("head", "mpl")
    wanted = "Unknown head 'mpl'. Did you mean 'mlp'? Installed: attention, linear, mlp."
    assert str(error.value) == wanted
    assert error.value.exit_status == 2


def test_an_unknown_name_like_no_other_gets_no_suggestion() -> None:
    registry = Registry(plugins=[heads("mine", "mlp")])
    with pytest.raises(UnknownName) as error:
        registry.lookup("head", "quaternion")
    assert str(error.value) == "Unknown head 'quaternion'. Installed: mlp."


def test_an_unknown_name_where_there_are_none() -> None:
    with pytest.raises(UnknownName, match=r"^Unknown recipe 'x'\. Installed: none\.$"):
        Registry().lookup("recipe", "x")


def test_an_unknown_name_may_be_that_of_a_plugin_that_failed() -> None:
    registry = Registry(
        plugins=[
            heads("good", "mlp"),
            plugin("bad", zoo_heads=giving(None)),
            plugin("worse", zoo_heads=raising(RuntimeError("boom"))),
        ]
    )
    with pytest.raises(UnknownName) as error:
        registry.lookup("head", "quaternion")
    assert re.sub(r" \(test_registry\.py:\d+\)$", "", str(error.value)) == (
        "Unknown head 'quaternion'. Installed: mlp.\n"
        "It may belong to a plugin that failed to load; see: zoo plugins\n"
        "  file:bad: zoo_heads() returned None, not a list of specs\n"
        "  file:worse: RuntimeError: boom"
    )


def two() -> Registry:
    """Two plugins with one head of the same name, and one each of their own."""
    return Registry(plugins=[heads("north", "mlp", "up"), heads("south", "mlp", "down")])


def test_a_duplicate_is_an_error_only_where_it_is_looked_up() -> None:
    registry = two()
    assert [each.cause for each in registry.plugins] == [None, None]
    assert registry.lookup("head", "up").plugin == "file:north"
    assert registry.lookup("head", "down").plugin == "file:south"
    assert registry.names("head") == ["down", "mlp", "up"]
    assert owners(registry)["head", "mlp"] == ["file:north", "file:south"]
    with pytest.raises(DuplicateName) as error:
        registry.lookup("head", "mlp")
    assert str(error.value) == (
        "Head 'mlp' comes from 2 plugins: file:north and file:south."
        " Say which one wins: ZOO_PLUGINS=file:north"
    )
    assert error.value.exit_status == 1


@pytest.mark.parametrize(
    ("setting", "winner"),
    [
        ("file:south", "file:south"),
        ("south", "file:south"),
        ("north", "file:north"),
        ("south,north", "file:south"),
        (" file:north , south", "file:north"),
        ("elsewhere,,south", "file:south"),
    ],
)
def test_zoo_plugins_settles_a_duplicate(
    setting: str, winner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_PLUGINS", setting)
    registry = two()
    assert registry.lookup("head", "mlp").plugin == winner
    # The other plugin stays loaded.
    assert registry.lookup("head", "up").plugin == "file:north"
    assert registry.lookup("head", "down").plugin == "file:south"


def test_a_distribution_may_be_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe means the components of its own distribution; the user's word comes first."""
    registry = Registry(plugins=[heads("ours", "linear"), heads("theirs", "linear")])
    with pytest.raises(DuplicateName):
        registry.lookup("head", "linear")
    for entry in registry.entries("head"):
        object.__setattr__(entry, "plugin", entry.plugin.replace("file:", "") + ":heads")
    for each in registry.plugins:
        each.name = each.name.replace("file:", "") + ":heads"
    for name in ("ours", "theirs"):
        assert registry.preferring(name).lookup("head", "linear").plugin == f"{name}:heads"
    monkeypatch.setenv("ZOO_PLUGINS", "theirs")
    assert registry.preferring("ours").lookup("head", "linear").plugin == "theirs:heads"
    monkeypatch.delenv("ZOO_PLUGINS")
    assert registry.lookup("head", "linear", plugin="theirs:heads").plugin == "theirs:heads"
    with pytest.raises(DuplicateName):
        registry.lookup("head", "linear", plugin="somebody:else")


def test_zoo_plugins_that_names_nothing_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_PLUGINS", "nowhere")
    with pytest.raises(DuplicateName, match=r"ZOO_PLUGINS names no installed plugin: nowhere\."):
        two().lookup("head", "mlp")


def test_zoo_plugins_settles_nothing_with_a_half_that_fits_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ZOO_PLUGINS", "file")
    with pytest.raises(DuplicateName, match="file:north and file:south"):
        two().lookup("head", "mlp")


def test_a_failed_plugin_is_no_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    both = plugin("bad", zoo_heads=giving([head("mlp")]), zoo_recipes=giving(None))
    registry = Registry(plugins=[heads("good", "mlp"), both])
    assert registry.lookup("head", "mlp").plugin == "file:good"


# --- files ----------------------------------------------------------------------------------

GOOD_FILE = """
from zoo.api import HeadSpec, hookimpl

@hookimpl
def zoo_heads():
    return [HeadSpec(name="from-file", summary="a head", build=print)]
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_plugin_file_is_loaded_after_the_installed_ones(tmp_path: Path) -> None:
    path = written(tmp_path, "mine.py", GOOD_FILE)
    registry = Registry.installed(files=[path])
    entry = registry.lookup("head", "from-file")
    assert (entry.plugin, entry.version, entry.owner) == ("file:mine", "-", "head 'from-file'")
    assert (registry.plugins[-1].name, registry.plugins[-1].module) == ("file:mine", str(path))
    assert [(e.kind, e.name) for e in registry.components_of("file:mine")] == [
        ("head", "from-file")
    ]


def test_a_plugin_file_may_import_what_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "zoo_test_beside.py").write_text("NAME = 'named-beside'\n")
    path = tmp_path / "main_part.py"
    path.write_text(GOOD_FILE.replace('"from-file"', "NAME").replace("'from-file'", "NAME"))
    path.write_text("from zoo_test_beside import NAME\n" + path.read_text())
    registry = Registry.installed([path])
    assert registry.lookup("head", "named-beside").plugin == "file:main_part"


def test_a_plugin_file_may_hold_a_config_with_postponed_annotations(tmp_path: Path) -> None:
    text = """
from __future__ import annotations
import dataclasses
from zoo.api import HeadSpec, hookimpl, knob

@dataclasses.dataclass(frozen=True)
class Config:
    depth: int = knob(1, "layers", low=1)

@hookimpl
def zoo_heads() -> list[HeadSpec]:
    return [HeadSpec(name="deep", summary="", build=print, config=Config)]
"""
    registry = Registry.installed(files=[written(tmp_path, "deep.py", text)])
    assert registry.lookup("head", "deep").configure({"depth": 3}).depth == 3


def test_a_plugin_file_named_like_an_installed_module_is_not_in_its_way(tmp_path: Path) -> None:
    registry = Registry.installed(files=[written(tmp_path, "json.py", GOOD_FILE)])
    assert registry.lookup("head", "from-file").plugin == "file:json"
    assert hasattr(sys.modules["json"], "dumps")


BROKEN_FILES = {
    "raises": ("raise RuntimeError('boom')", "RuntimeError: boom"),
    "exits": (
        "import sys; sys.exit(3)",
        "it ended the interpreter while being loaded (SystemExit: 3)",
    ),
    "no syntax": ("def (", "SyntaxError: invalid syntax"),
    "no module": ("import zoo_test_absent", "ModuleNotFoundError: No module named"),
    "no Exception": ("class Odd(BaseException): pass\nraise Odd('far')", "Odd: far"),
    "bytes": ("\0", "null bytes"),
    "empty": ("", "no function of it is marked with @hookimpl"),
}


@pytest.mark.parametrize(("text", "cause"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_a_broken_file_breaks_nothing_else(text: str, cause: str, tmp_path: Path) -> None:
    good = written(tmp_path, "good.py", GOOD_FILE)
    registry = Registry.installed(files=[written(tmp_path, "bad.py", text), good])
    assert cause in (cause_of(registry, "file:bad") or "")
    assert registry.lookup("head", "from-file").plugin == "file:good"
    expected = owners(BUILT_IN) | {("head", "from-file"): ["file:good"]}
    assert owners(registry) == expected


def test_ctrl_c_passes_while_a_file_is_imported(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Registry.installed(files=[written(tmp_path, "bad.py", "raise KeyboardInterrupt")])


@pytest.mark.parametrize("before", ["from zoo.api", "    return"], ids=["import", "hook"])
def test_what_a_plugin_prints_goes_to_stderr(
    before: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    indent = before[: len(before) - len(before.lstrip())]
    text = GOOD_FILE.replace(before, f"{indent}print('hello', 'there')\n{before}")
    registry = Registry.installed(files=[written(tmp_path, "loud.py", text)])
    assert cause_of(registry, "file:loud") is None
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello there\n")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "absent.py"
    with pytest.raises(UsageError) as error:
        Registry.installed(files=[path])
    assert str(error.value) == f"Plugin file '{path}' does not exist."


def test_a_file_that_is_not_python_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, "notes.txt", "hello")
    registry = Registry.installed(files=[path])
    assert cause_of(registry, "file:notes") == f"'{path}' is not a Python file"


# --- distributions --------------------------------------------------------------------------


def install(
    folder: Path, name: str, points: dict[str, str], *, metadata_text: str | None = None
) -> None:
    """Lay out a distribution as pip leaves it, with its entry points in the group `zoo`."""
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    lines = [f"{point} = {value}" for point, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[zoo]", *lines]))
    if metadata_text is None:
        metadata_text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n"
    if metadata_text:
        (info / "METADATA").write_text(metadata_text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of importable modules and distributions, after the real ones."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def test_an_entry_point_is_attributed_to_its_distribution(site: Path) -> None:
    written(site, "zoo_test_north.py", GOOD_FILE)
    install(site, "north-pole", {"points": "zoo_test_north"})
    registry = Registry.installed()
    entry = registry.lookup("head", "from-file")
    assert (entry.plugin, entry.version) == ("north-pole:points", "1.2")
    found = next(each for each in registry.plugins if each.name == "north-pole:points")
    assert (found.version, found.module, found.cause) == ("1.2", "zoo_test_north", None)
    assert found.hooks == ("zoo_heads",)
    assert found.seconds > 0


def test_one_entry_point_of_a_distribution_may_fail_alone(site: Path) -> None:
    written(site, "zoo_test_north.py", GOOD_FILE)
    written(site, "zoo_test_broken.py", "raise RuntimeError('boom')")
    points = {"a": "zoo_test_broken", "b": "zoo_test_north", "c": "zoo_test_absent", "d": "no:no:"}
    install(site, "north", points)
    registry = Registry.installed()
    assert registry.lookup("head", "from-file").plugin == "north:b"
    assert cause_of(registry, "north:a") == "RuntimeError: boom (zoo_test_broken.py:1)"
    assert "No module named 'zoo_test_absent'" in (cause_of(registry, "north:c") or "")
    assert cause_of(registry, "north:d")


@pytest.mark.parametrize(
    ("setting", "winner"),
    [
        ("south", "south:points"),
        ("south:points", "south:points"),
        ("other", "north:other"),
        # Half of both: the next in the list decides.
        ("points,other", "south:points"),
    ],
)
def test_either_half_of_a_name_settles_a_duplicate(
    setting: str, winner: str, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("zoo_test_north", "zoo_test_south"):
        written(site, f"{module}.py", GOOD_FILE)
    install(site, "north", {"other": "zoo_test_north"})
    install(site, "south", {"points": "zoo_test_south"})
    monkeypatch.setenv("ZOO_PLUGINS", setting)
    assert Registry.installed().lookup("head", "from-file").plugin == winner


@pytest.mark.parametrize(
    ("setting", "winner"), [("points,south", "south:points"), ("points", None)], ids=str
)
def test_a_half_that_names_both_decides_nothing(
    setting: str, winner: str | None, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("north", "south"):
        written(site, f"zoo_test_{name}.py", GOOD_FILE)
        install(site, name, {"points": f"zoo_test_{name}"})
    monkeypatch.setenv("ZOO_PLUGINS", setting)
    registry = Registry.installed()
    if winner:
        assert registry.lookup("head", "from-file").plugin == winner
    else:
        with pytest.raises(DuplicateName, match=r"2 plugins: north:points and south:points\."):
            registry.lookup("head", "from-file")


@pytest.mark.parametrize(
    "metadata_text",
    ["", "Metadata-Version: 2.1\n", "Name: north\n"],
    ids=["none", "no name", "no version"],
)
def test_a_distribution_with_broken_metadata_breaks_nothing(metadata_text: str, site: Path) -> None:
    # An interrupted `pip uninstall` leaves such folders behind.
    written(site, "zoo_test_north.py", GOOD_FILE)
    install(site, "north", {"points": "zoo_test_north"}, metadata_text=metadata_text)
    registry = Registry.installed()
    rest = {key: value for key, value in owners(registry).items() if key[1] != "from-file"}
    assert rest == owners(BUILT_IN)
    assert any(each.module == "zoo_test_north" for each in registry.plugins)
    for each in registry.plugins:
        assert isinstance(each.name, str)
        assert isinstance(each.version, str)


# --- the built-in plugins -------------------------------------------------------------------


def test_every_built_in_plugin_loads() -> None:
    assert {each.name: each.cause for each in BUILT_IN.plugins if each.cause} == {}
    assert all(BUILT_IN.names(kind) for kind in KINDS)
    declared = {f"plugzoo:{point.name}" for point in metadata.entry_points(group="zoo")}
    assert {each.name for each in BUILT_IN.plugins} >= declared
    assert len(declared) >= 6


def test_no_two_built_in_plugins_share_a_name() -> None:
    assert {key: found for key, found in owners(BUILT_IN).items() if len(found) > 1} == {}


@pytest.mark.parametrize("entry", COMPONENTS, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_a_built_in_component_is_attributed_and_summed_up(entry: Entry) -> None:
    assert BUILT_IN.lookup(entry.kind, entry.name) is entry
    assert entry.plugin.startswith("plugzoo:")
    assert entry.version == metadata.version("plugzoo")
    assert entry.spec.summary
    assert "\n" not in entry.spec.summary


def required_options(entry: Entry) -> dict[str, Any]:
    """Return some allowed value of each option that has no default."""
    # A path, for a text may be one and is recorded whole.
    samples: dict[Any, Any] = {int: 1, float: 1.0, bool: True, str: "/x", "ints": (1,)}
    return {
        option.name: option.choices[0] if option.choices else samples[option.kind]
        for option in knobs(entry.spec.config)
        if option.required
    }


@pytest.mark.parametrize("entry", CONFIGURED, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_the_options_of_a_built_in_component_work(entry: Entry) -> None:
    needed = required_options(entry)
    plain = entry.configure(needed)
    for option in knobs(entry.spec.config):
        assert option.help, f"{option.name} is not explained"
        default = needed.get(option.name, option.default)
        assert getattr(plain, option.name) == default
        values = [default, *option.choices]
        values += [True, False] if option.kind is bool else []
        values += [None] if option.optional else []
        for value in values:
            again = option.parse(option.format(value))
            assert getattr(entry.configure({**needed, option.name: again}), option.name) == value


BOUNDS = [
    (entry, option, bound, step)
    for entry in CONFIGURED
    for option in knobs(entry.spec.config)
    for bound, step in ((option.low, -1), (option.high, 1))
    if bound is not None
]


@pytest.mark.parametrize(
    ("entry", "option", "bound", "step"), BOUNDS, ids=lambda value: getattr(value, "name", None)
)
def test_the_bounds_of_a_built_in_component_hold(
    entry: Entry, option: Any, bound: float, step: int
) -> None:
    number = bound if option.kind is float else int(bound)
    inside, outside = number, number + step
    if option.kind == "ints":
        inside, outside = (inside,), (outside,)
    needed = required_options(entry)
    entry.configure({**needed, option.name: inside})
    with pytest.raises(BadOption, match=f"^{entry.kind} '{entry.name}': {option.name}: "):
        entry.configure({**needed, option.name: outside})


@pytest.mark.parametrize("entry", RECIPES, ids=lambda entry: entry.name)
def test_every_part_of_a_built_in_recipe_is_there(entry: Entry) -> None:
    spec = entry.spec
    for kind in ("dataset", "backbone", "objective", "head"):
        part = getattr(spec, kind)
        BUILT_IN.lookup(kind, part.name).configure(part.options)
    if spec.pretrain_dataset:
        part = spec.pretrain_dataset
        BUILT_IN.lookup("dataset", part.name).configure(part.options)
    assert spec.seeds


@pytest.mark.parametrize(
    "damage",
    [
        {"entry_points.txt": b"[zoo\nmine zoo_mine"},
        {"entry_points.txt": b"[zoo]\nmine = \xff\xfe"},
        {"METADATA": b"Metadata-Version: 2.1\nName: \xff\nVersion: 1"},
    ],
    ids=["malformed entry points", "undecodable entry points", "undecodable metadata"],
)
def test_damaged_metadata_of_another_package_is_in_nobodys_way(
    damage: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "broken-1.0.dist-info"
    folder.mkdir()
    files = {
        "METADATA": b"Metadata-Version: 2.1\nName: broken\nVersion: 1.0",
        "entry_points.txt": b"[zoo]\nmine = zoo_mine_that_is_not_there",
    }
    for name, content in {**files, **damage}.items():
        (folder / name).write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry.installed()
    assert "mlp" in registry.names("backbone")
    assert {entry.name for entry in registry.entries("head")} >= {"linear", "mlp"}
