"""`zoo list`, `show`, `plugins` and `runs`, completion, and what start-up must not import."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from zoo.api import API_VERSION, TrainConfig
from zoo.cli.main import VERBS
from zoo.cli.main import zoo as command
from zoo.config import knobs
from zoo.record import PartRecord, Record
from zoo.registry import KINDS, Entry, Registry
from zoo.runs import Run, create

REGISTRY = Registry.installed()
COMPONENTS = [entry for kind in KINDS for entry in REGISTRY.entries(kind)]
VERSION = metadata.version("plugzoo")
HEAVY = {"torch", "torchvision", "numpy", "onnx", "onnxruntime", "onnxscript", "sklearn", "PIL"}
KINDS_LINE = "Kinds: dataset, backbone, objective, head, recipe."


@pytest.fixture(autouse=True)
def neutral(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the tester's own settings and folder out."""
    for name in [name for name in os.environ if name.startswith("ZOO_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.chdir(tmp_path)


def invoke(*args: object, **env: str) -> Result:
    """Run `zoo` in this process; a traceback is a failure of the test."""
    result = CliRunner().invoke(command, [str(arg) for arg in args], env=env)
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return result


def succeed(*args: object, **env: str) -> str:
    result = invoke(*args, **env)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def succeed_json(*args: object, **env: str) -> Any:
    return json.loads(succeed(*args, "--json", **env))


def fail(status: int, *args: object, **env: str) -> str:
    """Return the message of a command that fails with this status and prints nothing else."""
    result = invoke(*args, **env)
    assert (result.exit_code, result.stdout) == (status, "")
    return result.stderr


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of a printed table, line by line."""
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()]


def installed(kind: str) -> str:
    return f"Installed: {', '.join(REGISTRY.names(kind))}."


def plugin_file(folder: Path, name: str, body: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(f"import dataclasses\nfrom zoo.api import *\n{body}")
    return path


# A backbone that refuses to be built, and says with which options.
SHADOW = """
@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    depth: int = knob(2, "how many layers", low=1)
    epochs: int = knob(3, "epochs of its own", low=1)
    quiet: bool = knob(False, "no noise of its own")

def build(config, input):
    raise Unfit(f"depth={config.depth} epochs={config.epochs} quiet={config.quiet}")

@hookimpl
def zoo_backbones():
    return [BackboneSpec(name="shadow", summary="casts one", config=Config, build=build)]
"""

TWIN = """
@hookimpl
def zoo_heads():
    return [HeadSpec(name="linear", summary="another [bold]one[/bold]", build=print)]
"""


BROKEN = "raise RuntimeError('no [red]luck[/red]')"


@pytest.fixture
def shadow(tmp_path: Path) -> Path:
    return plugin_file(tmp_path, "shadow", SHADOW)


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    return plugin_file(tmp_path, "twin", TWIN)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    return plugin_file(tmp_path, "broken", BROKEN)


# --- list -----------------------------------------------------------------------------------


def test_list_shows_every_component_with_its_plugin() -> None:
    rows = table_rows(succeed("list"))
    for entry in COMPONENTS:
        assert [entry.name, entry.spec.summary, entry.plugin, entry.version] in rows
    headings = [row for row in rows if row[1:] == ["summary", "plugin", "version"]]
    assert [row[0] for row in headings] == [f"{kind}s" for kind in KINDS]


def test_list_as_json_is_one_object_of_all_kinds() -> None:
    found = succeed_json("list")
    assert list(found) == [f"{kind}s" for kind in KINDS]
    for kind in KINDS:
        assert found[f"{kind}s"] == [
            {
                "name": entry.name,
                "summary": entry.spec.summary,
                "plugin": entry.plugin,
                "version": VERSION,
            }
            for entry in REGISTRY.entries(kind)
        ]


@pytest.mark.parametrize("word", [*KINDS, *(f"{kind}s" for kind in KINDS)])
def test_list_takes_one_kind_in_singular_and_plural(word: str) -> None:
    plural = word.removesuffix("s") + "s"
    found = succeed_json("list", word)
    assert list(found) == [plural]
    assert [each["name"] for each in found[plural]] == REGISTRY.names(word.removesuffix("s"))
    first = table_rows(succeed("list", word))[0]
    assert first == [plural, "summary", "plugin", "version"]


@pytest.mark.parametrize("verb", [["list"], ["show"]], ids=" ".join)
@pytest.mark.parametrize(
    ("word", "hint"),
    [("haed", " Did you mean 'head'?"), ("backbon", " Did you mean 'backbone'?"), ("zzz", ""),
     ("", ""), ("headss", " Did you mean 'head'?"), ("HEAD", "")],
)  # fmt: skip
def test_an_unknown_kind_is_a_usage_error(verb: list[str], word: str, hint: str) -> None:
    name = ["linear"] if verb == ["show"] else []
    message = fail(2, *verb, word, *name)
    assert message == f"Error: Unknown kind '{word}'.{hint} {KINDS_LINE}\n"


def test_list_shows_a_duplicate_with_both_plugins(twin: Path) -> None:
    result = invoke("--plugin", twin, "list", "heads")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = table_rows(result.stdout)
    assert [row[2] for row in rows if row[0] == "linear"] == ["plugzoo:heads", "file:twin"]
    # What looks like rich's markup is shown as it is.
    assert ["linear", "another [bold]one[/bold]", "file:twin", "-"] in rows


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
def test_list_says_on_stderr_which_plugins_failed(as_json: list[str], broken: Path) -> None:
    result = invoke("--plugin", broken, "list", "heads", *as_json)
    assert result.exit_code == 0
    assert result.stdout == succeed("list", "heads", *as_json)
    assert result.stderr == "Failed to load: file:broken. See: zoo plugins\n"


def test_what_a_plugin_prints_is_not_in_the_json(tmp_path: Path, zoo: Callable[..., Any]) -> None:
    path = plugin_file(tmp_path, "loud", "print('hello')\n" + TWIN)
    result = zoo("--plugin", path, "list", "heads", "--json")
    assert result.returncode == 0
    assert [each["plugin"] for each in json.loads(result.stdout)["heads"]].count("file:loud") == 1
    assert result.stderr == "hello\n"


def test_plugins_says_of_what_else_a_name_comes(twin: Path) -> None:
    result = invoke("--plugin", twin, "plugins", "--json")
    assert result.exit_code == 0
    components = {
        (plugin["name"], each["kind"], each["name"]): each["also_from"]
        for plugin in json.loads(result.stdout)["plugins"]
        for each in plugin["components"]
    }
    assert {key: others for key, others in components.items() if others} == {
        ("file:twin", "head", "linear"): ["plugzoo:heads"],
        ("plugzoo:heads", "head", "linear"): ["file:twin"],
    }
    result = invoke("--plugin", twin, "plugins")
    assert (result.exit_code, result.stderr) == (0, "")
    # Where another kind is listed the clash is of no interest.
    succeed("--plugin", twin, "list", "backbones")


def test_the_version_names_that_of_the_api() -> None:
    assert succeed("--version") == f"zoo {VERSION} (zoo.api {API_VERSION})\n"


def test_a_plugin_that_exits_does_not_end_the_command(
    tmp_path: Path, zoo: Callable[..., Any]
) -> None:
    path = plugin_file(tmp_path, "leaving", "raise SystemExit(0)")
    result = zoo("--plugin", path, "list", "--json")
    assert result.returncode == 0
    assert list(json.loads(result.stdout)) == [f"{kind}s" for kind in KINDS]


@pytest.mark.parametrize("verb", ["list", "plugins"])
def test_strict_ends_the_command_with_the_plugins_error(verb: str, broken: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^no \[red\]luck"):
        invoke("--plugin", broken, verb, ZOO_STRICT="1")


def test_a_plugin_file_after_the_verb_is_told_where_it_goes(twin: Path) -> None:
    message = fail(2, "list", "--plugin", twin)
    assert "Error: --plugin goes before the verb: zoo --plugin FILE.py VERB" in message


def test_a_plugin_file_that_is_not_there_is_a_usage_error() -> None:
    message = fail(2, "--plugin", "absent.py", "list")
    assert message == "Error: Plugin file 'absent.py' does not exist.\n"


# --- show -----------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", COMPONENTS, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_show_describes_every_component(entry: Entry) -> None:
    text = succeed("show", entry.kind, entry.name)
    assert text.startswith(
        f"{entry.kind} {entry.name} — {entry.spec.summary}\nplugin {entry.plugin} {VERSION}\n"
    )
    found = succeed_json("show", f"{entry.kind}s", entry.name)
    assert {key: found[key] for key in ("kind", "name", "summary", "plugin", "version")} == {
        "kind": entry.kind,
        "name": entry.name,
        "summary": entry.spec.summary,
        "plugin": entry.plugin,
        "version": VERSION,
    }
    if entry.kind == "recipe":
        assert found["content"]["backbone"]["name"] == entry.spec.backbone.name
        assert found["content"]["pretraining"]["epochs"] == entry.spec.pretraining.epochs
        assert found["content"]["seeds"] == list(entry.spec.seeds)
        return
    options = knobs(entry.spec.config)
    assert [(each["name"], each["allowed"], each["help"]) for each in found["options"]] == [
        (option.name, option.allowed, option.help) for option in options
    ]
    rows = table_rows(text)
    for option in options:
        default = "required" if option.required else option.format(option.default)
        row = next(row for row in rows if row[0] == option.name)
        assert row[1:3] == [default, option.allowed]
        assert row[3].startswith(option.help)
    assert ("It has no options." in text) == (not options)


def test_show_suggests_a_near_miss() -> None:
    assert fail(2, "show", "backbone", "mpl") == (
        f"Error: Unknown backbone 'mpl'. Did you mean 'mlp'? {installed('backbone')}\n"
    )


def test_a_plugin_file_that_does_not_load_is_an_error(broken: Path) -> None:
    """It was named, so it is what is wrong."""
    message = fail(1, "--plugin", broken, "show", "recipe", "zzzzzz")
    assert message == (
        f"Error: Plugin file '{broken}' does not load:"
        " RuntimeError: no [red]luck[/red] (broken.py:3).\n"
    )


@pytest.mark.parametrize(("args", "missing"), [([], "KIND"), (["head"], "NAME")])
def test_show_asks_for_what_is_missing(args: list[str], missing: str) -> None:
    assert f"Error: Missing argument '{missing}'." in fail(2, "show", *args)


def test_a_plugin_file_wins_unless_it_is_settled_otherwise(twin: Path) -> None:
    assert succeed_json("--plugin", twin, "show", "head", "linear")["plugin"] == "file:twin"
    succeed("--plugin", twin, "show", "head", "mlp")  # every other name goes on working
    for setting, plugin in (("twin", "file:twin"), ("heads,twin", "plugzoo:heads")):
        found = succeed_json("--plugin", twin, "show", "head", "linear", ZOO_PLUGINS=setting)
        assert found["plugin"] == plugin


# --- a backbone whose options are called as zoo's own ---------------------------------------


def test_show_says_which_options_are_reached_by_b_alone(shadow: Path) -> None:
    rows = {row[0]: row for row in table_rows(succeed("--plugin", shadow, "show", "backbone",
                                                      "shadow"))}  # fmt: skip
    assert rows["depth"][3] == "how many layers"
    assert rows["epochs"][3] == "epochs of its own (--epochs is zoo's own: type -b epochs=…)"
    assert rows["quiet"][3] == "no noise of its own (--quiet is zoo's own: type -b quiet=…)"


def test_help_offers_a_taken_flag_once_and_as_zoos_own(shadow: Path) -> None:
    text = succeed("--plugin", shadow, "pretrain", "shadow", "--help")
    own = next(knob for knob in knobs(TrainConfig) if knob.name == "epochs")
    assert len(re.findall(r"^ +--depth ", text, re.MULTILINE)) == 1
    assert len(re.findall(r"^ +--epochs ", text, re.MULTILINE)) == 1
    assert own.help in text
    assert "epochs of its own" not in text


@pytest.mark.parametrize(
    ("args", "built"),
    [
        ([], "depth=2 epochs=3 quiet=False"),
        (["--epochs", "1"], "depth=2 epochs=3 quiet=False"),
        (["--quiet"], "depth=2 epochs=3 quiet=False"),
        (["-b", "epochs=7", "-b", "quiet=yes"], "depth=2 epochs=7 quiet=True"),
        (["-b", "epochs=7", "--epochs", "1", "--depth", "4"], "depth=4 epochs=7 quiet=False"),
        (["-b", "depth=5"], "depth=5 epochs=3 quiet=False"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_taken_flag_stays_zoos_own(args: list[str], built: str, shadow: Path) -> None:
    message = fail(1, "--plugin", shadow, "pretrain", "shadow", "--threads", 1, *args)
    assert built in message


def test_b_checks_as_the_flag_does(shadow: Path) -> None:
    message = fail(2, "--plugin", shadow, "pretrain", "shadow", "-b", "epochs=0")
    assert message == (
        "Error: backbone 'shadow': epochs: '0' is not allowed. Allowed: a whole number from 1.\n"
    )


def test_no_option_of_a_backbone_is_taken_for_one_of_zoos(tmp_path: Path) -> None:
    # The names under which click hands over zoo's own options, whatever their flags are.
    bare = plugin_file(tmp_path, "bare", SHADOW.replace("shadow", "bare"))
    taken = {param.name for param in pretrain_command("bare", bare).params}
    names = sorted(name for name in taken if name)
    fields = "\n".join(f"    {name}: str = knob('x', 'own')" for name in names)
    body = SHADOW.split("    depth")[0] + fields + "\ndef build" + SHADOW.split("def build")[1]
    path = plugin_file(tmp_path, "greedy", body.replace("shadow", "greedy"))
    found = [param.name for param in pretrain_command("greedy", path).params]
    assert [name for name in names if found.count(name) > 1] == []


def pretrain_command(name: str, path: Path) -> click.Command:
    context = click.Context(command)
    context.meta["zoo.registry"] = Registry.installed([path])
    group = command.get_command(context, "pretrain")
    assert isinstance(group, click.Group)
    found = group.get_command(click.Context(group, parent=context), name)
    assert found is not None
    return found


@pytest.mark.parametrize("args", [["pretrain", "mpl"], ["pretrain", "mpl", "--help"]], ids=" ".join)
def test_pretrain_suggests_a_near_miss(args: list[str]) -> None:
    assert fail(2, *args) == (
        f"Error: Unknown backbone 'mpl'. Did you mean 'mlp'? {installed('backbone')}\n"
    )


def test_an_unknown_verb_is_answered_with_the_nearest() -> None:
    message = fail(2, "lst")
    assert "Error: No such command 'lst'. Did you mean 'list'? Commands: " in message
    assert message.rstrip().endswith(", ".join(VERBS) + ".")


# --- plugins --------------------------------------------------------------------------------


def test_plugins_shows_what_each_contributes_and_why_one_failed(broken: Path) -> None:
    heading, *body, last = table_rows(succeed("--plugin", broken, "plugins"))
    assert heading == ["plugin", "version", "entry point", "import", "hooks", "contributes"]
    assert last == [f"zoo.api {API_VERSION}"]
    rows = {row[0]: row for row in body}
    for plugin in REGISTRY.plugins:
        row = rows[plugin.name]
        assert row[1:3] == [VERSION, plugin.module]
        assert re.fullmatch(r"\d+ ms", row[3])
        entries = REGISTRY.components_of(plugin.name)
        assert row[4] == ", ".join(plugin.hooks)
        assert row[5] == ", ".join(f"{entry.kind} {entry.name}" for entry in entries)
    assert rows["file:broken"][1:3] == ["-", str(broken)]
    assert rows["file:broken"][4] == "FAILED: RuntimeError: no [red]luck[/red] (broken.py:3)"


def test_plugins_as_json(broken: Path) -> None:
    found = succeed_json("--plugin", broken, "plugins")
    assert list(found) == ["api_version", "plugins"]
    assert found["api_version"] == API_VERSION
    plugins = {plugin["name"]: plugin for plugin in found["plugins"]}
    assert list(plugins) == [*(plugin.name for plugin in REGISTRY.plugins), "file:broken"]
    for plugin in REGISTRY.plugins:
        shown = plugins[plugin.name]
        assert (shown["version"], shown["module"], shown["cause"]) == (VERSION, plugin.module, None)
        assert shown["hooks"] == list(plugin.hooks)
        assert shown["seconds"] >= 0
        assert shown["components"] == [
            {"kind": entry.kind, "name": entry.name, "also_from": []}
            for entry in REGISTRY.components_of(plugin.name)
        ]
    assert plugins["file:broken"]["components"] == []
    assert plugins["file:broken"]["cause"] == "RuntimeError: no [red]luck[/red] (broken.py:3)"


# --- runs -----------------------------------------------------------------------------------


def make_run(root: Path, **changes: Any) -> Run:
    part = PartRecord("digits", "plugzoo:images", "0.1.0", {})
    values: dict[str, Any] = {
        "run": "", "kind": "pretrain", "status": "", "created": "", "dataset": part,
        "backbone": PartRecord("mlp", "plugzoo:mlp", "0.1.0", {}), "objective": part, "head": None,
        "input": [1, 8, 8], "data_input": [1, 8, 8], "classes": ["a", "b"], "training": {},
        "finetune": None, "parent": None, "seed": 0, "device": "cpu", "threads": 1, "versions": {},
        "process": {}, **changes,
    }  # fmt: skip
    return create(root, Record(**values))


def finish(run: Run) -> Run:
    with run.recording():
        pass
    return run


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Run, Run]:
    """A finished run with a reading of the test split, and one that no process works on."""
    measured = make_run(tmp_path / "runs", metrics={"validation": {"accuracy": 0.9183}})
    finish(measured).add_test("evaluate", accuracy=0.5)
    return measured, make_run(tmp_path / "runs", metrics={"validation": {"total": 0.03125}})


def test_runs_where_there_is_none(tmp_path: Path) -> None:
    assert succeed("runs") == "There is no run under 'runs'. Begin with: zoo run quickstart\n"
    assert succeed_json("runs") == {"runs": []}


def test_runs_are_shown_oldest_first(two_runs: tuple[Run, Run]) -> None:
    measured, dead = two_runs
    heading, _, *rows = table_rows(succeed("runs"))
    assert heading == ["run", "state", "validation", "test", "seconds", "parent"]
    assert rows == [
        [measured.name, "finished", "91.83 %", "50.00 %", f"{measured.record.seconds:.1f}"],
        [dead.name, "dead", "0.0312"],
    ]


def test_runs_as_json(two_runs: tuple[Run, Run]) -> None:
    found = succeed_json("runs")
    assert list(found) == ["runs"]
    assert [(run["run"], run["state"]) for run in found["runs"]] == [
        (two_runs[0].name, "finished"),
        (two_runs[1].name, "dead"),
    ]
    first = found["runs"][0]
    assert {key: first[key] for key in ("kind", "metrics", "parent", "error")} == {
        "kind": "pretrain",
        "metrics": {"validation": {"accuracy": 0.9183}},  # a fraction, never per cent
        "parent": None,
        "error": None,
    }
    assert (first["tests"][0]["by"], first["tests"][0]["accuracy"]) == ("evaluate", 0.5)
    assert Path(first["folder"]).resolve() == two_runs[0].folder.resolve()


@pytest.mark.parametrize("how", ["option", "environment"])
def test_the_runs_folder_is_named_by_option_or_environment(how: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "elsewhere")
    args = ["--runs", "elsewhere"] if how == "option" else []
    env = {"ZOO_RUNS": "elsewhere"} if how == "environment" else {}
    assert [each["run"] for each in succeed_json("runs", *args, **env)["runs"]] == [run.name]


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
def test_a_corrupt_run_is_a_warning(as_json: list[str], two_runs: tuple[Run, Run]) -> None:
    (two_runs[1].folder / "run.json").write_text("[]")
    result = invoke("runs", *as_json)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"Warning: 'runs/{two_runs[1].name}/run.json' is corrupt: ")
    assert two_runs[0].name in result.stdout
    assert two_runs[1].name not in result.stdout


# --- completion -----------------------------------------------------------------------------


def complete(*words: str, **env: str) -> list[str]:
    """Return what the shell offers for the last word; nothing else may be printed."""
    line = " ".join(["zoo", *words])
    result = invoke(
        _ZOO_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words)), **env
    )
    # What goes to stderr meanwhile stands in the middle of the line that is being typed.
    assert result.stderr == ""
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


def starting(names: Sequence[str], prefix: str) -> list[str]:
    return [name for name in names if name.startswith(prefix)]


PRETRAIN, FINETUNE = ("pretrain", "mlp"), ("finetune",)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("",), list(VERBS)),
        (("pret",), ["pretrain"]),
        (("list", ""), list(KINDS)),
        (("show", "ba"), ["backbone"]),
        (("show", "head", ""), REGISTRY.names("head")),
        (("show", "datasets", "fash"), ["fashion-mnist"]),
        (("run", "quick"), ["quickstart"]),
        (("pretrain", ""), REGISTRY.names("backbone")),
        (("pretrain", "conv"), starting(REGISTRY.names("backbone"), "conv")),
        ((*PRETRAIN, "--dataset", "m"), starting(REGISTRY.names("dataset"), "m")),
        ((*PRETRAIN, "--objective", ""), REGISTRY.names("objective")),
        ((*PRETRAIN, "--optimizer", ""), ["sgd", "adam", "adamw"]),
        ((*PRETRAIN, "--optimizer", "adam"), ["adam", "adamw"]),
        ((*PRETRAIN, "--activation", ""), ["relu", "gelu", "tanh"]),
        ((*PRETRAIN, "--widths", ""), []),
        ((*PRETRAIN, "--sched"), ["--schedule"]),
        ((*PRETRAIN, "--no-nor"), ["--no-norm"]),
        ((*FINETUNE, "--head", "lin"), ["linear"]),
        ((*FINETUNE, "--backbone", ""), REGISTRY.names("backbone")),
        ((*FINETUNE, "--loss-on", "p"), ["probabilities"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_completion_offers(words: tuple[str, ...], offered: list[str]) -> None:
    assert complete(*words) == offered


@pytest.mark.parametrize(
    "words",
    [("show", "zzz", ""), ("pretrain", "zzz", "--opt"), ("list", "zzz")],
    ids=" ".join,
)
def test_completion_of_what_is_unknown_offers_nothing(words: tuple[str, ...]) -> None:
    assert complete(*words) == []


def test_completion_after_an_unknown_verb_is_quiet() -> None:
    assert set(complete("zzz", "")) <= set(VERBS)


@pytest.mark.parametrize("verb", ["evaluate", "finetune", "export", "report"])
def test_completion_offers_runs(verb: str, two_runs: tuple[Run, Run], tmp_path: Path) -> None:
    (tmp_path / "runs" / "notes").mkdir()  # no run
    (two_runs[0].folder / "run.json").write_text("[]")  # corrupt, and no reason to fail
    names = sorted(run.name for run in two_runs)
    assert complete(verb, "") == ["latest", *names]
    assert complete(verb, "la") == ["latest"]
    assert complete(verb, names[0][:-1]) == starting(names, names[0][:-1])
    # Folders only where no name fits: told to complete folders, bash drops every name.
    assert complete(verb, "zzz") == ["zzz"]
    Path("runs").rename("elsewhere")
    assert complete(verb, "") == ["latest"]
    assert complete(verb, "--runs", "elsewhere", "") == ["latest", *names]
    assert complete(verb, "", ZOO_RUNS="elsewhere") == ["latest", *names]


def test_completion_offers_the_components_of_plugin_files(shadow: Path) -> None:
    assert "shadow" in complete("--plugin", str(shadow), "pretrain", "")


def test_completion_goes_on_without_a_broken_plugin(broken: Path) -> None:
    words = ["--plugin", str(broken), "pretrain", ""]
    assert complete(*words) == REGISTRY.names("backbone")


def test_completion_works_in_a_shell(zoo: Callable[..., Any]) -> None:
    result = zoo(_ZOO_COMPLETE="bash_complete", COMP_WORDS="zoo show rec", COMP_CWORD="2")
    # `python -m zoo` is called zoo as well.
    assert (result.stdout, result.stderr) == ("plain,recipe\n", "")


# --- start-up -------------------------------------------------------------------------------

# Reports what was imported and whether any entry point was read, whatever ends the command.
PROBE = """
import atexit, json, sys
read = []

def watch(event, args):
    if event == "open" and str(args[0]).endswith("entry_points.txt"):
        read.append(str(args[0]))

def report():
    print("\\n" + json.dumps({"modules": sorted(sys.modules), "read": read}), file=sys.stderr)

sys.addaudithook(watch)
atexit.register(report)
sys.argv[0] = "zoo"
from zoo.cli import main
main()
"""


def probe(*args: str, folder: Path, completing: str | None = None) -> tuple[set[str], list[str]]:
    """Run `zoo` in a fresh interpreter; return the modules it imported, the entry points read."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("_ZOO")}
    if completing is not None:
        words = ["zoo", *completing.split(" ")]
        env |= {"_ZOO_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words)}
        env |= {"COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *args],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout
    report = json.loads(done.stderr.splitlines()[-1])
    return set(report["modules"]), report["read"]


def tops(modules: set[str]) -> set[str]:
    return {name.split(".")[0] for name in modules}


def plugins_in(modules: set[str]) -> set[str]:
    return {name for name in modules if name.startswith("zoo_")}


@pytest.mark.parametrize(
    ("args", "completing"),
    [
        (["--help"], None),
        ([], "pre"),
        ([], "validate "),
        ([], "evaluate "),
        ([], "list h"),
    ],
    ids=str,
)
def test_what_needs_no_plugin_loads_none(
    args: list[str], completing: str | None, tmp_path: Path
) -> None:
    modules, read = probe(*args, folder=tmp_path, completing=completing)
    assert "zoo.cli.main" in modules
    assert not plugins_in(modules)
    assert read == []
    assert "zoo.registry" not in modules
    assert not tops(modules) & (HEAVY | {"rich"})


@pytest.mark.parametrize(
    ("args", "completing"),
    [
        (["pretrain", "mlp", "--help"], None),
        (["pretrain", "--help"], None),
        (["finetune", "--help"], None),
        (["list"], None),
        (["list", "--json"], None),
        (["show", "recipe", "quickstart"], None),
        (["show", "backbone", "mlp"], None),
        (["plugins"], None),
        ([], "pretrain "),
        ([], "show dataset "),
        ([], "pretrain mlp --dataset "),
        ([], "pretrain mlp --opt"),
        ([], "finetune --head "),
    ],
    ids=str,
)
def test_what_needs_plugins_loads_nothing_heavy(
    args: list[str], completing: str | None, tmp_path: Path
) -> None:
    modules, read = probe(*args, folder=tmp_path, completing=completing)
    assert not tops(modules) & HEAVY
    if args[:1] != ["finetune"]:  # its help names no component
        assert plugins_in(modules)
        assert read  # the watch that the test above relies on does see entry points


def test_runs_are_listed_without_plugins_and_torch(
    two_runs: tuple[Run, Run], tmp_path: Path
) -> None:
    modules, read = probe("runs", folder=tmp_path)
    assert not tops(modules) & HEAVY
    assert not plugins_in(modules)
    assert read == []
