"""The conformance kit: built-in components pass it, and each faulty one is caught by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from zoo.errors import PluginFault, UnknownName, UsageError
from zoo.registry import KINDS, Registry
from zoo.testing import Report, assert_conforms, check

BUILT_IN = Registry.installed()
FAULTY = Path(__file__).resolve().parent.parent / "faulty_plugin.py"
ABSENT = "its files are not at hand"


def failed(report: Report) -> dict[str, str]:
    return {row.check: row.figure for _, row in report.rows if row.state == "FAILED"}


# --- what is built in -----------------------------------------------------------------------


LONG = ("conv", "conv-nano", "conv-patch", "conv-residual", "adversarial", "distill", "masked",
        "redundancy", "sparse", "variational", "fashion-1000", "fashion-conv", "fashion-few",
        "mnist-conv", "mnist-few", "mnist-nano", "mnist-to-fashion", "fashion-mlp")  # fmt: skip
"""What takes seconds each: checked whole with the slow tests."""


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(k, n, marks=pytest.mark.slow if n in LONG else [])
        for k in KINDS
        if k != "dataset"
        for n in BUILT_IN.names(k)
    ],
)
def test_every_built_in_component_conforms(kind: str, name: str) -> None:
    assert_conforms(kind, name)


def test_the_embedded_data_set_conforms() -> None:
    assert_conforms("dataset", "digits")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_sets_conform(name: str, real_data: Path) -> None:
    report = check(name, registry=BUILT_IN, data_root=real_data)
    assert report.verdict == "conforms", report.explain()


@pytest.mark.usefixtures("graphs_kept")
def test_sizes_are_shown() -> None:
    """784-128-64-12-3 on 28×28: the multiply-accumulates of its four matrices."""
    settings = ["widths=128,64,12", "features=3"]
    (plugin,) = check("mlp", registry=Registry(plugins=[_mlp()]), settings=settings).plugins
    sizes = {(size.on, size.part): size for size in plugin.components[0].sizes}
    encoder = sizes["1×28×28", "encoder"]
    products = 784 * 128 + 128 * 64 + 64 * 12 + 12 * 3
    assert encoder.macs == products
    assert encoder.parameters == products + 128 + 64 + 12 + 3
    assert plugin.import_seconds is not None
    assert 0 < plugin.import_seconds < 60


def _mlp() -> ModuleType:
    import zoo_mlp

    return zoo_mlp


@pytest.mark.usefixtures("graphs_kept")
def test_the_kit_leaves_the_random_numbers_as_they_were() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert_conforms("head", "linear")
    assert torch.equal(torch.rand(3), expected)


# --- what is faulty -------------------------------------------------------------------------

FAULTS = {
    "batch-dependent": ("batch-mates", "on 1×8×8: an output changes by "),
    "blind-to-the-dark": ("export", "PyTorch itself is not finite on all zero"),
    "unused-parameter": ("encoder gradients", "on 1×8×8: 'encoder.unused' gets no gradient"),
    "detached-parameter": ("encoder gradients", "on 1×8×8: 'encoder.scale' gets no gradient"),
    "stray-parameter": ("encoder gradients", "'token' is in neither .encoder nor .decoder"),
    "turned-decoder": (
        "decoder output",
        "on 1×8×8: the decoder returned (8, 8, 8, 1) for inputs of (8, 1, 8, 8)",
    ),
    "unseeded": ("seeds", "'encoder.linear.bias' differs between two builds with one seed"),
    "unexportable": ("export", "This classifier cannot be exported"),
    "fixed-batch": ("export", "This classifier cannot be exported"),
    "hidden-state": ("state", "after loading, outputs differ by "),
    "eight-at-a-time": ("encoder output", "it takes a batch of 8, and not one of 1: RuntimeError"),
    "random-answers": ("encoder output", "the same batch gives another output each time"),
    "indivisible": ("choices", "heads=3: backbone 'indivisible' of plugin file:faulty_plugin: "),
    "wide": ("encoder output", "the encoder returned (8, 12) for 8 inputs, not (8, 6)"),
    "two-choices": ("choices", "KeyError while it was built: 'swish' (faulty_plugin.py:"),
    "restless": ("options", "came back from JSON as Restless(width=6)"),
    "ambiguous": ("options", "word: 'none' came back from text as None"),
    "keeps-the-backbone": ("own weights", "'kept' is the backbone's"),
    "forgets-the-decoder": ("gradients", "'decoder.0.weight' gets no gradient"),
    "watches-what-rises": ("watch falls", "'rising' went from -"),
    "softmax": ("logits", "it returns probabilities"),
    "overlapping-splits": ("splits disjoint", "10 of 10 test examples are in train too"),
    "labels-out-of-range": ("train split", "has labels outside 0..2"),
    "false-input": ("train split", "holds torch.uint8 (1, 8, 8) examples; it declares"),
    "absent-class": ("every class", "class 'c' has no training example"),
    "shuffled-anew": ("loads the same twice", "a second load of its training split gave other"),
    "dim": ("train split", "its brightest byte is 1"),
    "missing-part": ("parts", "Unknown backbone 'not-installed'"),
}
# What cannot go well either where the first fault is.
CONSEQUENCES = {
    "turned-decoder": {"choices"},
    "wide": {"choices"},
    "eight-at-a-time": {"choices"},
    "unexportable": {"batch-mates"},
    "batch-dependent": {"export"},
}  # fmt: skip


@pytest.fixture(scope="module")
def faulty() -> Registry:
    return Registry.installed([FAULTY])


SAMPLED = ("batch-dependent", "unused-parameter", "unseeded", "softmax", "watches-what-rises",
           "overlapping-splits", "missing-part")  # fmt: skip
"""Faults of each kind of component, looked for with the quick tests; the others with the slow."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in SAMPLED else pytest.mark.slow) for n in FAULTS]
)
def test_each_fault_is_caught_by_name(name: str, faulty: Registry) -> None:
    report = check(name, registry=faulty)
    found = failed(report)
    row, words = FAULTS[name]
    assert words in found[row]
    assert set(found) <= {row} | CONSEQUENCES.get(name, set())
    assert report.verdict == "fails"
    change = next(r.change for _, r in report.rows if r.check == row)
    assert change or name in ("missing-part",)
    assert f"{row} FAILED: " in report.explain()


def test_what_needs_a_failed_check_is_not_made(faulty: Registry) -> None:
    """One cause is one failure."""
    report = check("random-answers", registry=faulty)
    assert list(failed(report)) == ["encoder output"]
    assert "batch-mates, state, seeds, export not checked: it needs 'encoder output'" in (
        report.explain()
    )


def test_the_sound_twin_of_the_faulty_ones_conforms(faulty: Registry) -> None:
    report = check("sound", registry=faulty)
    assert report.verdict == "conforms", report.explain()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("import torch\n", "torch is imported at heavy.py:1"),
        pytest.param("import torchvision.ops\n", "heavy.py:1", marks=pytest.mark.slow),
        (
            "\ndef late():\n    import onnxruntime\nlate()\n",
            "onnxruntime is imported at heavy.py:3",
        ),
    ],
)
@pytest.mark.usefixtures("graphs_kept")
def test_a_heavy_entry_module_is_caught(text: str, where: str, tmp_path: Path) -> None:
    path = tmp_path / "heavy.py"
    path.write_text(
        text
        + "from zoo.api import HeadSpec, hookimpl\n"
        + "def build(config, features, classes):\n"
        + "    from torch import nn\n"
        + "    return nn.Linear(features, classes)\n"
        + "@hookimpl\n"
        + "def zoo_heads():\n"
        + "    return [HeadSpec(name='heavy', summary='', build=build)]\n"
    )
    report = check(path)
    assert set(failed(report)) == {"light import"}
    assert where in failed(report)["light import"]


def test_an_assertion_says_what_to_change(tmp_path: Path) -> None:
    import sys

    from zoo.registry import load_file

    module = load_file(FAULTY)
    try:
        with pytest.raises(AssertionError) as caught:
            assert_conforms("head", "softmax", plugins=[module])
    finally:
        sys.modules.pop("zoo_plugin_file_faulty_plugin", None)
    assert "head softmax: logits FAILED: it returns probabilities" in str(caught.value)
    assert "Change: return logits, without a softmax" in str(caught.value)
    broken = ModuleType("broken")
    with pytest.raises(AssertionError, match="file:broken does not load: no function of it"):
        assert_conforms("head", "softmax", plugins=[broken])


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.api import DataError
    from zoo_images import fetch

    def offline(*args: object, **kwargs: object) -> None:
        raise DataError("There is no network.")

    for name in [name for name, value in vars(fetch).items() if callable(value)]:
        if name.startswith(("fetch", "download")):
            monkeypatch.setattr(fetch, name, offline)


@pytest.mark.usefixtures("offline")
def test_a_data_set_that_is_not_at_hand_is_not_checked(tmp_path: Path) -> None:
    report = check("kmnist", registry=BUILT_IN, data_root=tmp_path)
    states = {row.check: row.state for _, row in report.rows}
    assert states["train split"] == states["splits disjoint"] == "skipped"
    assert report.verdict == "incomplete"
    assert ABSENT in report.explain()


# --- what is meant by a name ----------------------------------------------------------------


@pytest.mark.usefixtures("offline")
def test_a_plugin_by_either_half_of_its_name_a_component_or_a_file(tmp_path: Path) -> None:
    def about(target: str) -> set[str]:
        report = check(target, registry=BUILT_IN, data_root=tmp_path)
        return {about for about, _ in report.rows}

    sets = {f"dataset {e.name}" for e in BUILT_IN.components_of("plugzoo:images")}
    assert len(sets) > 3
    assert about("plugzoo:images") == about("images") == {"plugzoo:images", *sets}
    assert about("denoise") == {"plugzoo:objectives", "objective denoise"}
    with pytest.raises(UnknownName) as caught:
        check("objectivs", registry=BUILT_IN)
    assert "No plugin and no component is named 'objectivs'. Did you mean 'objectives'?" in str(
        caught.value
    )


def test_what_cannot_be_checked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Plugin file '.*nowhere.py' does not exist"):
        check(tmp_path / "nowhere.py")
    broken = tmp_path / "broken.py"
    broken.write_text("import not_there_at_all\n")
    with pytest.raises(PluginFault, match="file:broken does not load: ModuleNotFoundError"):
        check(broken)
    (tmp_path / "zoo-mine").mkdir()
    (tmp_path / "zoo-mine" / "pyproject.toml").touch()
    with pytest.raises(UnknownName, match=r"is not installed. Type: pip install -e /"):
        check(f"{tmp_path}/zoo-mine/", registry=BUILT_IN)
    with pytest.raises(UnknownName, match="has an option 'colour'"):
        check("heads", registry=BUILT_IN, settings=["colour=red"])


@pytest.mark.usefixtures("graphs_kept")
def test_a_required_option_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "asking.py"
    path.write_text(
        "import dataclasses\n"
        "from zoo.api import HeadSpec, hookimpl, knob\n"
        "@dataclasses.dataclass(frozen=True, kw_only=True)\n"
        "class Config:\n"
        "    word: str = knob(help='a word')\n"
        "def build(config, features, classes):\n"
        "    from torch import nn\n"
        "    assert config.word == 'yes'\n"
        "    return nn.Linear(features, classes)\n"
        "@hookimpl\n"
        "def zoo_heads():\n"
        "    return [HeadSpec(name='asking', summary='', config=Config, build=build)]\n"
    )
    report = check(path)
    assert report.verdict == "incomplete"
    assert "the option 'word' is required: give it a value, --set word=" in report.explain()
    assert check(path, settings=["word=yes"]).verdict == "conforms"


TAUGHT = """
import dataclasses
from zoo.api import Losses, ObjectiveSpec, hookimpl, knob, teacher
@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    text: str = knob(help='a text')
def build(config, backbone):
    from torch import nn
    class Pupil(nn.Module):
        def __init__(self):
            super().__init__()
            self.teacher = {asks}
            self.answer = nn.Linear(backbone.features, 4)
        def forward(self, backbone, inputs, raw):
            wanted = self.teacher(raw){change}
            return Losses((self.answer(backbone.encoder(inputs)) - wanted).square().mean())
    return Pupil()
@hookimpl
def zoo_objectives():
    return [ObjectiveSpec(name='pupil', summary='', config=Config, build=build)]
"""


@pytest.mark.usefixtures("graphs_kept")
def test_a_teacher_is_the_kits_own(tmp_path: Path) -> None:
    """Of a text that an objective asks `zoo.api.teacher` for; any other one has to be given."""
    path = tmp_path / "pupil.py"
    path.write_text(TAUGHT.format(asks="teacher(config.text)", change=""))
    assert check(path).verdict == "conforms"
    # What is wrong with a taught objective is found as in any other.
    path.write_text(TAUGHT.format(asks="teacher(config.text)", change=" + float('nan')"))
    report = check(path)
    assert report.verdict == "fails"
    assert "gradients" in report.explain()
    path.write_text(TAUGHT.format(asks="{'yes': lambda raw: 0.0}[config.text]", change=""))
    report = check(path)
    assert report.verdict == "incomplete"
    assert "the option 'text' is required: give it a value, --set text=" in report.explain()
    assert check(path, settings=["text=yes"]).verdict == "conforms"


# --- the command ----------------------------------------------------------------------------


@pytest.mark.usefixtures("graphs_kept")
def test_the_command_prints_a_table_and_json(cli: Callable[..., Any]) -> None:
    shown = cli("plugin", "check", "linear", "--quiet")
    assert shown.exit_code == 0
    assert "light import" in shown.stdout
    assert "multiply-accumulates" in shown.stdout
    assert shown.stdout.rstrip().endswith("linear conforms")
    found = json.loads(cli("plugin", "check", "linear", "--json").stdout)
    assert found["verdict"] == "conforms"
    (plugin,) = found["plugins"]
    assert (plugin["name"], plugin["module"]) == ("plugzoo:heads", "zoo_heads")
    assert plugin["import_seconds"] > 0
    linear = plugin["components"][0]
    assert (linear["kind"], linear["name"]) == ("head", "linear")
    assert {"check": "options", "state": "ok", "figure": "1 option", "change": ""} in linear["rows"]
    assert linear["sizes"][0]["macs"] == 6


def test_the_command_fails_where_a_check_does(cli: Callable[..., Any]) -> None:
    result = cli("--plugin", FAULTY, "plugin", "check", "softmax", "--quiet")
    assert result.exit_code == 1
    assert "Change: return logits" in result.stdout
    assert result.stdout.rstrip().endswith("softmax fails")
    unknown = cli("plugin", "check", "nothing-of-that-name")
    assert unknown.exit_code == 2
    assert "No plugin and no component is named 'nothing-of-that-name'" in unknown.stderr


def test_an_incomplete_check_passes_only_when_that_is_asked_for(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "offline.py").write_text(
        "from zoo.api import DataError, Dataset, DatasetSpec, ImageInput, hookimpl\n"
        "def absent():\n"
        "    raise DataError('There is no network.')\n"
        "def build(config, root):\n"
        "    input = ImageInput(channels=1, height=8, width=8)\n"
        "    return Dataset(input=input, classes=('a', 'b'), train=absent, test=absent)\n"
        "@hookimpl\n"
        "def zoo_datasets():\n"
        "    return [DatasetSpec(name='offline', summary='', build=build)]\n"
    )
    assert cli("plugin", "check", "offline.py", "-q").exit_code == 1
    partial = cli("plugin", "check", "offline.py", "-q", "--partial")
    assert partial.exit_code == 0
    assert "train split not checked: its files are not at hand" in partial.stdout
    assert partial.stdout.rstrip().endswith("offline.py incomplete")


@pytest.mark.usefixtures("graphs_kept")
def test_the_page_names_every_check(faulty: Registry) -> None:
    """docs/check.md has a row for each check, under its kind's heading."""
    import re

    page = (Path(__file__).resolve().parents[2] / "docs" / "check.md").read_text()
    sections = {part.split("\n")[0]: part for part in page.split("\n## ")[1:]}

    def rows(heading: str) -> set[str]:
        text = next(part for title, part in sections.items() if title.startswith(heading))
        found = re.findall(r"^\| ([a-z][^|]*?) \|", text, flags=re.MULTILINE)
        return {name for cell in found for name in cell.split(", ")} - {"check"}

    for name, kind in (
        ("sound", "backbone"),
        ("keeps-the-backbone", "objective"),
        ("softmax", "head"),
        ("dim", "data set"),
        ("missing-part", "recipe"),
    ):
        report = check(name, registry=faulty)
        article = "An" if kind == "objective" else "A"
        every = set() if kind == "recipe" else rows("Every component")
        (plugin,) = report.plugins
        assert {row.check for row in plugin.rows} == rows("A plugin")
        made = {row.check for row in plugin.components[0].rows}
        assert made == rows(f"{article} {kind}") | every
