"""Many bad plugins, installed by pip all at once beside good ones: they are in no verb's way."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoo import registry
from zoo.api import API_VERSION
from zoo.registry import KINDS

# A backbone that works. What a bad plugin does is written before or after it.
GOOD = """
from zoo.api import BackboneSpec, hookimpl


def build(config, input):
    import math

    from torch import nn

    size = math.prod(input.shape)
    module = nn.Module()
    module.features = 8
    module.encoder = nn.Sequential(nn.Flatten(), nn.Linear(size, 8))
    module.decoder = nn.Sequential(nn.Linear(8, size), nn.Unflatten(1, input.shape))
    return module


@hookimpl
def zoo_backbones():
    return [BackboneSpec(name="NAME", summary="a stranger's", build=build)]
"""


def good(name: str) -> str:
    return GOOD.replace("NAME", name)


def with_field(name: str) -> str:
    """A backbone with a field of the future; the hook is what fails."""
    return good(name).replace("build=build", "build=build, colour='red'")


LOUD = """
import os, subprocess, sys

print("loud: print")
sys.stdout.write("loud: sys.stdout\\n")
sys.__stdout__.write("loud: sys.__stdout__\\n")
os.write(1, b"loud: descriptor 1\\n")
subprocess.run([sys.executable, "-c", "print('loud: child')"])
"""
NOISE = [
    f"loud: {what}" for what in ("print", "sys.stdout", "sys.__stdout__", "descriptor 1", "child")
]

SLOW = """
import os, time

time.sleep(float(os.environ.get("TEST_SLEEP", "2")))
"""

ODD = """
import dataclasses

from zoo.api import HeadSpec, knob


@dataclasses.dataclass(frozen=True, kw_only=True)
class OddConfig:
    table: dict[str, int] = knob(None, "no type of an option")
"""

NEXT = re.sub(r"\d+$", lambda minor: str(int(minor[0]) + 1), API_VERSION)
FUTURE = f"this zoo has {API_VERSION}. Type: pip install --upgrade plugzoo"
FIELD = f"BackboneSpec has no field 'colour' in zoo.api {API_VERSION}"

# Entry point: source, cause, hooks.
BAD: dict[str, tuple[str, str, list[str]]] = {
    "raises": (
        good("raises") + "\nraise RuntimeError('broken\\nat import')\n",
        "RuntimeError: broken at import (zoo_test_raises.py:22)",
        [],
    ),
    "exits": (
        good("exits") + "\nimport sys\nsys.exit(0)\n",
        "it ended the interpreter while being loaded (SystemExit: 0)",
        [],
    ),
    "exits-at-once": (
        good("exits-at-once") + "\nimport os\nos._exit(3)\n",
        "it ended the interpreter while being loaded (SystemExit: 3)",
        [],
    ),
    "misspells": (
        good("misspells").replace("zoo_backbones", "zoo_backbone"),
        "unknown hook 'zoo_backbone'. Did you mean 'zoo_backbones'? Hooks: zoo_datasets,"
        " zoo_backbones, zoo_objectives, zoo_heads, zoo_recipes",
        [],
    ),
    "garbage": (
        good("garbage") + "\n\n@hookimpl\ndef zoo_heads():\n    return {'linear': 1}\n",
        "zoo_heads() gave 'linear', not a HeadSpec",
        ["zoo_backbones", "zoo_heads"],
    ),
    "needs": (
        "import a_dependency_that_is_not_installed\n" + good("needs"),
        "ModuleNotFoundError: No module named 'a_dependency_that_is_not_installed'",
        [],
    ),
    "odd-option": (
        ODD + good("odd-option").replace("build=build", "build=build, config=OddConfig"),
        "backbone 'odd-option': OddConfig.table has the type dict[str, int], which is not"
        ' supported: use int, float, bool, str, Literal["…"], tuple[int, …] or one of these | None',
        ["zoo_backbones"],
    ),
    "field-of-1-7": (
        'ZOO_API = "1.7"\n' + with_field("field-of-1-7"),
        f"it needs zoo.api 1.7, and {FUTURE}",
        [],
    ),
    "field-at-import": (
        'ZOO_API = "1.7"\n' + with_field("x") + "\nSPECS = zoo_backbones()\n",
        f"{FIELD}: it needs zoo.api 1.7, and {FUTURE}",
        [],
    ),
    "name-of-the-next": (
        f'ZOO_API = "{NEXT}"\nfrom zoo.api import Telescope\n' + good("name-of-the-next"),
        f"cannot import name 'Telescope' from 'zoo.api': it needs zoo.api {NEXT}, and {FUTURE}",
        [],
    ),
    "of-2-0": ('ZOO_API = "2.0"\n' + good("of-2-0"), f"it needs zoo.api 2.0, and {FUTURE}", []),
    "field-of-no-version": (
        with_field("field-of-no-version"),
        f"{FIELD}: misspelt, or it needs zoo.api newer than {API_VERSION}, and {FUTURE}",
        ["zoo_backbones"],
    ),
    "field-of-1-0": (
        'ZOO_API = "1.0"\n' + with_field("field-of-1-0"),
        f"{FIELD}, though the plugin says that 1.0 is enough (ZOO_API)",
        ["zoo_backbones"],
    ),
}
GOOD_POINTS = {
    "wave": 'ZOO_API = "1.0"\n' + good("wave"),
    "loud": LOUD + good("loud"),
    "slow": SLOW + good("slow"),
}
CLASH = (
    "Backbone 'mlp' comes from {}plugzoo:mlp and zoo-twin:twin."
    " Say which one wins: ZOO_PLUGINS=plugzoo:mlp"
)
FAILED = ", ".join(sorted(f"zoo-bad:{point}" for point in BAD))


def module_of(point: str) -> str:
    return "zoo_test_" + point.replace("-", "_")


@pytest.fixture(scope="module")
def site(make_package: Callable[..., Path], pip_install: Callable[..., Path]) -> Path:
    """A folder into which pip has installed every bad plugin, the good ones and the twin."""
    sources = {
        "zoo-bad": {point: source for point, (source, _, _) in BAD.items()},
        "zoo-good": GOOD_POINTS,
        "zoo-twin": {"twin": good("mlp")},
    }
    return pip_install(
        *(
            make_package(
                name,
                {point: module_of(point) for point in points},
                {module_of(point): text for point, text in points.items()},
            )
            for name, points in sources.items()
        )
    )


@pytest.fixture
def bare(zoo: Callable[..., Any]) -> Callable[..., Any]:
    """Run `zoo` without the installed plugins; stdout is buffered, as it is for a user."""

    def run(*args: object, status: int = 0, **env: Any) -> Any:
        result = zoo(*args, **{"PYTHONUNBUFFERED": "", "TEST_SLEEP": "0", **env})
        assert result.returncode == status, result.stderr
        return result

    return run


@pytest.fixture
def verb(bare: Callable[..., Any], site: Path) -> Callable[..., Any]:
    """Run `zoo` with all of them installed: there is no traceback, and stdout is zoo's own."""

    def run(*args: object, **options: Any) -> Any:
        result = bare(*args, **{"PYTHONPATH": str(site), **options})
        assert "Traceback" not in result.stderr
        for line in NOISE:
            assert line not in result.stdout
        if "--json" in args and not options.get("status"):
            assert isinstance(json.loads(result.stdout), dict)
        return result

    return run


def quiet(stderr: str) -> list[str]:
    """Return the lines of stderr but those of the printing plugin; it printed each of its own."""
    lines = stderr.splitlines()
    assert sorted(line for line in lines if line in NOISE) == sorted(NOISE)
    return [line for line in lines if line not in NOISE]


# --- what is told ---------------------------------------------------------------------------


def test_every_bad_plugin_is_told_with_its_cause(verb: Callable[..., Any]) -> None:
    result = verb("plugins", "--json", TEST_SLEEP=str(registry.SLOW))
    found = json.loads(result.stdout)
    assert found["api_version"] == API_VERSION
    plugins = {plugin["name"]: plugin for plugin in found["plugins"]}
    told = {
        name: (plugin["version"], plugin["module"], without_path(plugin["cause"]), plugin["hooks"])
        for name, plugin in plugins.items()
        if not name.startswith("plugzoo:")
    }
    works = (None, ["zoo_backbones"])
    assert told == {
        **{
            f"zoo-bad:{point}": ("0.3.1", module_of(point), cause, hooks)
            for point, (_, cause, hooks) in BAD.items()
        },
        **{f"zoo-good:{point}": ("0.3.1", module_of(point), *works) for point in GOOD_POINTS},
        "zoo-twin:twin": ("0.3.1", module_of("twin"), *works),
    }
    assert all(plugins[f"zoo-bad:{point}"]["components"] == [] for point in BAD)
    assert plugins["zoo-twin:twin"]["components"] == [
        {"kind": "backbone", "name": "mlp", "also_from": ["plugzoo:mlp"]}
    ]
    assert plugins["plugzoo:mlp"]["components"] == [
        {"kind": "backbone", "name": "mlp", "also_from": ["zoo-twin:twin"]}
    ]
    assert all(plugin["seconds"] >= 0 for plugin in plugins.values())
    assert plugins["zoo-good:slow"]["seconds"] >= registry.SLOW
    seconds = f"{plugins['zoo-good:slow']['seconds']:.1f}"
    told_slow = f"Plugin zoo-good:slow took {seconds} s to load. See: zoo plugins"
    assert told_slow in quiet(result.stderr)


def without_path(cause: str | None) -> str | None:
    """Leave out where `zoo.api` lies, which Python adds to an ImportError."""
    return cause and re.sub(r" \(\S+api\.py\)", "", cause)


def test_the_table_shows_each_failure(verb: Callable[..., Any]) -> None:
    result = verb("plugins")
    lines = [line.strip() for line in result.stdout.splitlines()]
    rows = {line.split()[0]: re.split(r"\s{2,}", line) for line in lines if line}
    for point, (_, cause, hooks) in BAD.items():
        row = rows[f"zoo-bad:{point}"]
        assert row[1:3] == ["0.3.1", module_of(point)]
        assert re.fullmatch(r"\d+ ms", row[3])
        assert row[4:-1] == ([", ".join(hooks)] if hooks else [])
        assert without_path(row[-1]) == f"FAILED: {cause}"
    for point in GOOD_POINTS:
        assert rows[f"zoo-good:{point}"][4:] == ["zoo_backbones", f"backbone {point}"]
    assert rows["zoo-twin:twin"][4:] == ["zoo_backbones", "backbone mlp"]
    assert result.stdout.count("FAILED") == len(BAD)
    assert lines[-1] == f"zoo.api {API_VERSION}"
    assert quiet(result.stderr) == [CLASH.format("")]


def test_an_unknown_name_may_be_that_of_any_of_them(verb: Callable[..., Any]) -> None:
    # What the user typed may be the very backbone of a plugin that failed.
    result = verb("pretrain", "garbage", status=2)
    assert result.stdout == ""
    first, second, *causes = quiet(result.stderr)
    assert first.startswith("Error: Unknown backbone 'garbage'.")
    assert first.endswith(
        " Installed: conv, conv-nano, conv-patch, conv-residual, loud, mlp, slow, wave."
    )
    assert second == "  It may belong to a plugin that failed to load; see: zoo plugins"
    assert [without_path(line) for line in causes] == [
        f"  zoo-bad:{point}: {BAD[point][1]}" for point in sorted(BAD)
    ]


# --- every verb -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "loads"),
    [
        ("--help", False),
        ("--version", False),
        ("runs", False),
        ("runs --json", False),
        ("show backbone conv", True),
        ("show backbone conv --json", True),
        ("show recipe quickstart --json", True),
        ("list heads", True),
        ("list heads --json", True),
        ("pretrain conv --help", True),
        ("finetune --help", False),
        ("run quickstart --help", False),
    ],
)
def test_a_verb_prints_what_it_did_without_them(
    command: str, loads: bool, verb: Callable[..., Any], bare: Callable[..., Any]
) -> None:
    result = verb(*command.split())
    assert result.stdout == bare(*command.split()).stdout
    assert result.stdout
    if not loads:
        assert result.stderr == ""  # it did not even import them
        return
    failed = [f"Failed to load: {FAILED}. See: zoo plugins"] if "list" in command else []
    assert quiet(result.stderr) == failed


def test_list_adds_what_works_and_says_what_does_not(
    verb: Callable[..., Any], bare: Callable[..., Any]
) -> None:
    result = verb("list", "--json")
    found, before = json.loads(result.stdout), json.loads(bare("list", "--json").stdout)
    assert list(found) == [f"{kind}s" for kind in KINDS]
    added = [entry for entry in found["backbones"] if entry not in before["backbones"]]
    others = [("mlp", "zoo-twin:twin"), *((p, f"zoo-good:{p}") for p in GOOD_POINTS)]
    assert sorted((entry["name"], entry["plugin"]) for entry in added) == sorted(others)
    assert {entry["version"] for entry in added} == {"0.3.1"}
    assert [entry for entry in found["backbones"] if entry not in added] == before["backbones"]
    assert {**found, "backbones": None} == {**before, "backbones": None}
    assert quiet(result.stderr) == [
        CLASH.format(""),
        f"Failed to load: {FAILED}. See: zoo plugins",
    ]


@pytest.mark.slow
def test_a_backbone_goes_through_every_verb_beside_them(
    verb: Callable[..., Any], tmp_path: Path
) -> None:
    def result(*args: object) -> Any:
        return json.loads(verb(*args, "--json").stdout)

    pretrained = result("pretrain", "conv", "--channels", "4", "--epochs", "1")
    finetuned = result("finetune", "latest", "--epochs", "1")
    assert finetuned["parent"] == pretrained["run"]
    assert 0 <= result("evaluate", "latest")["accuracy"] <= 1
    assert result("export", "latest", "-o", "conv.onnx")["proof"]["passed"] is True
    assert result("validate", "conv.onnx")["passed"] is True
    Image.fromarray(np.full((30, 50), 90, np.uint8)).save(tmp_path / "x.png")
    (prediction,) = result("predict", "conv.onnx", "x.png")["predictions"]
    assert sum(prediction["classes"].values()) == pytest.approx(1, abs=1e-4)
    assert [(run["run"], run["state"]) for run in result("runs")["runs"]] == [
        (pretrained["run"], "finished"),
        (finetuned["run"], "finished"),
    ]
    record = json.loads((tmp_path / pretrained["folder"] / "run.json").read_text())
    assert record["backbone"]["plugin"] == "plugzoo:conv"


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOD_POINTS)
def test_a_good_plugin_works_beside_them(
    name: str, verb: Callable[..., Any], tmp_path: Path
) -> None:
    result = json.loads(verb("pretrain", name, "--epochs", "0", "--json", "--quiet").stdout)
    record = json.loads((tmp_path / result["folder"] / "run.json").read_text())
    assert record["backbone"] == {
        "name": name, "plugin": f"zoo-good:{name}", "version": "0.3.1", "options": {}
    }  # fmt: skip
    assert record["status"] == "finished"


# --- the name of two plugins ----------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        *("pretrain mlp", "pretrain mlp --help", "show backbone mlp --json"),
        pytest.param("finetune --backbone mlp", marks=pytest.mark.slow),  # it imports torch first
    ],
)
def test_a_name_of_two_plugins_says_what_to_type(command: str, verb: Callable[..., Any]) -> None:
    result = verb(*command.split(), status=1)
    assert result.stdout == ""
    assert quiet(result.stderr) == ["Error: " + CLASH.format("2 plugins: ")]


@pytest.mark.parametrize(
    ("setting", "winner"),
    [
        ("plugzoo", "plugzoo:mlp"),
        ("plugzoo:mlp", "plugzoo:mlp"),
        ("zoo-twin", "zoo-twin:twin"),
        ("zoo-twin:twin", "zoo-twin:twin"),
    ],
)
def test_zoo_plugins_settles_it(setting: str, winner: str, verb: Callable[..., Any]) -> None:
    shown = json.loads(verb("show", "backbone", "mlp", "--json", ZOO_PLUGINS=setting).stdout)
    assert (shown["name"], shown["plugin"]) == ("mlp", winner)


@pytest.mark.slow
def test_a_recipe_means_the_components_of_its_own_distribution(
    verb: Callable[..., Any], tmp_path: Path
) -> None:
    result = json.loads(verb("run", "quickstart", "--seeds", "1", "--json", "--quiet").stdout)
    assert result["proof"]["passed"] is True
    (made,) = json.loads(verb("runs", "--json").stdout)["runs"][:1]
    record = json.loads((tmp_path / made["folder"] / "run.json").read_text())
    assert record["backbone"]["plugin"] == "plugzoo:mlp"


@pytest.mark.slow
def test_a_run_keeps_to_the_plugin_it_was_made_with(trained: Any, verb: Callable[..., Any]) -> None:
    """Made while there was one `mlp`: its twin, installed later, is not what it is built with."""
    assert trained.finetuned.record.backbone.plugin == "plugzoo:mlp"
    runs = ("--runs", trained.runs, "--json")
    before = trained.finetuned.record.metrics["validation"]["accuracy"]
    assert json.loads(verb("evaluate", "latest", *runs).stdout)["accuracy"] > before - 0.2
    trained.model.unlink()
    assert json.loads(verb("export", "latest", *runs).stdout)["proof"]["passed"] is True
    assert trained.model.is_file()


# --- strict ---------------------------------------------------------------------------------


def test_strict_fails_and_names_the_first_at_fault(bare: Callable[..., Any], site: Path) -> None:
    result = bare("list", "--json", status=1, PYTHONPATH=str(site), ZOO_STRICT="1")
    assert result.stdout == ""
    first = min(BAD)
    assert result.stderr == f"Error: Plugin zoo-bad:{first}: {BAD[first][1]}\n"


@pytest.mark.parametrize(
    ("point", "shown"),
    [
        ("exits", "Error: Plugin file:exits: it ended the interpreter while being loaded"),
        ("exits-at-once", "Error: Plugin file:exits-at-once: it ended the interpreter"),
        ("raises", "Traceback (most recent call last)"),
        ("garbage", "Error: Plugin file:garbage: zoo_heads() gave 'linear', not a HeadSpec"),
        ("field-of-1-7", "Error: Plugin file:field-of-1-7: it needs zoo.api 1.7"),
        ("field-of-no-version", "Traceback (most recent call last)"),
    ],
)
def test_strict_fails_by_each_alone(
    point: str, shown: str, bare: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / f"{point}.py"
    path.write_text(BAD[point][0])
    result = bare("--plugin", path, "list", status=1, ZOO_STRICT="1")
    assert result.stdout == ""
    assert result.stderr.startswith(shown)
    if shown.startswith("Traceback"):
        assert str(path) in result.stderr  # who is at fault, and where


def test_strict_fails_by_an_installed_plugin_that_leaves_with_0(
    bare: Callable[..., Any], make_package: Callable[..., Path], pip_install: Callable[..., Path]
) -> None:
    package = make_package("zoo-leaver", {"leaver": "leaver"}, {"leaver": BAD["exits"][0]})
    site = str(pip_install(package))
    result = bare("plugins", status=1, PYTHONPATH=site, ZOO_STRICT="1")
    assert result.stdout == ""
    assert result.stderr == f"Error: Plugin zoo-leaver:leaver: {BAD['exits'][1]}\n"
    bare("plugins", status=0, PYTHONPATH=site)


# --- a newer zoo ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A copy of zoo one minor version on: every spec and config has gained a defaulted field."""
    folder = tmp_path_factory.mktemp("newer")
    shutil.copytree(request.config.rootpath / "zoo", folder / "zoo")
    api = folder / "zoo" / "api.py"
    text = api.read_text()
    for old, new, count in (
        ("    summary: str\n", '    summary: str\n    colour: str = "red"\n', 5),
        ("    epochs: int = knob(", '    warmup: int = knob(0, "new")\n    epochs: int = knob(', 1),
        ("    freeze: bool = knob(", '    thaw: int = knob(0, "new")\n    freeze: bool = knob(', 1),
        (f'API_VERSION = "{API_VERSION}"', f'API_VERSION = "{NEXT}"', 1),
    ):
        assert text.count(old) == count
        text = text.replace(old, new)
    api.write_text(text)
    return folder


@pytest.mark.slow
def test_plugins_of_an_older_api_work_in_a_newer_zoo(
    bare: Callable[..., Any], site: Path, newer: Path, tmp_path: Path
) -> None:
    def result(*args: object) -> Any:
        path = f"{newer}:{site}"
        return json.loads(bare(*args, "--json", anew=True, PYTHONPATH=path).stdout)

    found = result("plugins")
    assert found["api_version"] == NEXT
    causes = {plugin["name"]: plugin["cause"] for plugin in found["plugins"]}
    works = {name for name, cause in causes.items() if cause is None}
    # What was written for what the newer zoo has works there, and so does all that worked before.
    assert {name for name in works if name.startswith("zoo-")} == {
        *(f"zoo-good:{point}" for point in GOOD_POINTS),
        "zoo-twin:twin",
        "zoo-bad:field-of-1-0",
        "zoo-bad:field-of-no-version",
    }
    assert {name for name in causes if name.startswith("plugzoo:")} <= works
    assert causes["zoo-bad:of-2-0"] == BAD["of-2-0"][1].replace(f"has {API_VERSION}", f"has {NEXT}")
    run = result("pretrain", "wave", "--epochs", "0", "--quiet")
    record = json.loads((tmp_path / run["folder"] / "run.json").read_text())
    assert record["backbone"]["plugin"] == "zoo-good:wave"
    assert record["training"]["warmup"] == 0


@pytest.mark.parametrize("declared", ["1.0", API_VERSION])
def test_a_plugin_that_declares_a_version_we_have_loads(
    declared: str, bare: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "declared.py"
    path.write_text(f'ZOO_API = "{declared}"\n' + good("declared"))
    shown = json.loads(bare("--plugin", path, "show", "backbone", "declared", "--json").stdout)
    assert shown["plugin"] == "file:declared"


@pytest.mark.parametrize(
    ("declared", "shown"), [("1", "'1'"), ("1.0.0", "'1.0.0'"), ("", "''"), ("new", "'new'")]
)
def test_a_plugin_that_declares_no_version_says_so(
    declared: str, shown: str, bare: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "declared.py"
    path.write_text(f'ZOO_API = "{declared}"\n' + good("declared"))
    found = json.loads(bare("--plugin", path, "plugins", "--json").stdout)["plugins"][-1]
    assert found["cause"] == f'its ZOO_API is {shown}, not a version such as "{API_VERSION}"'
