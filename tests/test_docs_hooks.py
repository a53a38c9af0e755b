"""`docs/hooks.md` against the code: every name, its signature, and every example checked."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from zoo import api
from zoo.config import Knob, knobs
from zoo.registry import KINDS, Registry
from zoo.testing import check

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")


def load(path: Path) -> ModuleType:
    """Import a file by its path: tests are no package."""
    spec = importlib.util.spec_from_file_location(f"{path.stem}_of_the_docs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


SURFACE = load(ROOT / "tests" / "core" / "test_api_surface.py")
NAMES: dict[str, Any] = {name: getattr(api, name) for name in api.__all__} | SURFACE.hooks()


def blocks(text: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def sections() -> dict[str, str]:
    """Return what stands under each heading that is a name."""
    parts = re.split(r"^(##+) (.+)$", PAGE, flags=re.MULTILINE)[1:]
    found = list(zip(parts[1::3], parts[::3], parts[2::3], strict=True))
    names = [name for name, level, _ in found if level == "###"]
    assert len(set(names)) == len(names)
    return {name: text for name, level, text in found if level == "###"}


SECTIONS = sections()
EXAMPLES = {
    found[1]: block for block in blocks(PAGE) if (found := re.match(r"# (my_\w+\.py)\n", block))
}


def test_every_name_has_a_section_and_no_other() -> None:
    missing, foreign = set(NAMES) - set(SECTIONS), set(SECTIONS) - set(NAMES)
    assert not missing, f"docs/hooks.md has no section: {', '.join(sorted(missing))}"
    assert not foreign, f"docs/hooks.md has a section of nothing: {', '.join(sorted(foreign))}"


@pytest.mark.parametrize("name", NAMES)
def test_the_signature_is_that_of_the_code(name: str) -> None:
    wanted = f"```python\n{SURFACE.signature(name, NAMES[name])}\n```"
    text = SECTIONS[name].strip()
    if not text.startswith(wanted):
        pytest.fail(f"Paste below the heading '### {name}':\n\n{wanted}\n", pytrace=False)
    said = text.removeprefix(wanted).lstrip().partition("```")[0]
    assert re.search(r"[.:]$", said.strip(), flags=re.MULTILINE), f"{name}: not a word on it"


@pytest.mark.parametrize("name", [*SURFACE.hooks(), *(n for n in NAMES if n.endswith("Spec"))])
def test_every_hook_and_every_spec_has_a_whole_example(name: str) -> None:
    (example,) = [block for block in EXAMPLES.values() if block in SECTIONS[name]]
    assert name in example
    assert "hookimpl" in example


def noise(shape: tuple[int, ...], seed: int) -> Any:
    import numpy as np

    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def galaxies(root: Path) -> None:
    import numpy as np

    (root / "galaxies").mkdir(parents=True)
    for seed, split in enumerate(("train", "test")):
        labels = np.arange(20) % 2
        images = noise((20, 3, 24, 24), seed)
        np.savez(root / "galaxies" / f"{split}.npz", images=images, labels=labels)


def leaves(root: Path) -> None:
    from PIL import Image

    seed = 0
    for split in ("train", "test"):
        for tree in ("maple", "oak"):
            folder = root / "leaves" / split / tree
            folder.mkdir(parents=True)
            for number in range(3):
                Image.fromarray(noise((40, 50, 3), seed)).save(folder / f"{number}.png")
                seed += 1
    (root / "leaves" / "train" / "oak" / "damaged.png").write_bytes(b"no picture")


SAMPLED = ("my_noise.py", "my_linear.py", "my_prototypes.py")
"""Examples that are checked whole with the quick tests; the others with the slow ones."""

FILES = {"my_galaxies.py": galaxies, "my_leaves.py": leaves}
"""What the data sets of the examples read; the others draw theirs."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in SAMPLED else pytest.mark.slow) for n in EXAMPLES],
)
def test_an_example_loads_and_conforms(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(EXAMPLES[name], encoding="utf-8")
    if name in FILES:
        absent = check(path, data_root=tmp_path / "data")
        assert absent.verdict == "incomplete"
        assert "its files are not at hand" in absent.explain()
        FILES[name](tmp_path / "data")
    registry = Registry.installed([path])
    (plugin,) = [plugin for plugin in registry.plugins if plugin.module == str(path)]
    assert plugin.cause is None
    contributed = registry.components_of(plugin.name)
    assert contributed
    assert [registry.rivals(entry) for entry in contributed] == [[]] * len(contributed)
    report = check(path, registry=registry, data_root=tmp_path / "data")
    assert report.verdict == "conforms", report.explain()


def test_the_examples_are_of_every_kind() -> None:
    hooks = {f"zoo_{kind}s" for kind in KINDS}
    assert {hook for hook in hooks for text in EXAMPLES.values() if f"def {hook}(" in text} == hooks


def test_the_damaged_picture_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example's note and progress, as the command line shows them."""
    from zoo.progress import Plain, reporting

    leaves(tmp_path)
    path = tmp_path / "my_leaves.py"
    path.write_text(EXAMPLES["my_leaves.py"], encoding="utf-8")
    entry = Registry.installed([path]).lookup("dataset", "leaves")
    with reporting(Plain()):
        train = entry.spec.build(entry.configure({}), tmp_path).train()
    assert train.inputs.shape == (6, 3, 32, 32)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    told = capsys.readouterr().err
    assert "left out: '" in told
    assert "reading train 100%" in told
    assert "pictures/s" in told


def test_the_tiles_refuse_what_they_do_not_fill(tmp_path: Path) -> None:
    path = tmp_path / "my_tiles.py"
    path.write_text(EXAMPLES["my_tiles.py"], encoding="utf-8")
    spec = Registry.installed([path]).lookup("backbone", "tiles").spec
    odd = api.ImageInput(channels=1, height=9, width=8)
    with pytest.raises(api.Unfit, match=r"tiles of 4 do not fill 1×9×8\. Type: -b tile=1"):
        spec.build(spec.config(), odd)
    assert spec.build(spec.config(tile=1), odd).features == 16


def test_the_options_of_the_knob_example(tmp_path: Path) -> None:
    """Each type once; what its comment types is read as its type."""
    (text,) = [block for block in blocks(SECTIONS["knob"]) if "@dataclasses" in block]
    path = tmp_path / "every.py"
    path.write_text(text, encoding="utf-8")
    read = {knob.name: knob for knob in knobs(load(path).EveryConfig)}
    assert [(k.kind, k.optional, k.required) for k in read.values()] == [
        (int, False, False),
        (float, False, False),
        (bool, False, False),
        (str, False, False),
        ("choice", False, False),
        ("ints", False, False),
        (int, True, False),
        (int, False, True),
    ]
    typed = dict(re.findall(r"^    (\w+): .*\)  # (--.*)$", text, flags=re.MULTILINE))
    assert list(typed) == list(read)
    values = {name: _value(read[name], shlex.split(line)) for name, line in typed.items()}
    assert values == {
        "depth": 4,
        "dropout": 0.25,
        "bias": False,
        "prefix": "block",
        "norm": "layer",
        "widths": (128, 64),
        "limit": None,
        "features": 16,
    }


def _value(knob: Knob, words: Iterable[str]) -> Any:
    flag, *value = words
    if knob.kind is bool:
        assert flag == f"--no-{knob.name}"
        return False
    assert flag == knob.flag
    return knob.parse(*value)


def test_the_script_that_makes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    exec(compile(blocks(SECTIONS["data_root"])[1], "docs/hooks.md", "exec"), {})
    oak = tmp_path / "leaves" / "train" / "oak"
    assert capsys.readouterr().out == f"put the pictures into {oak}\n"
    assert oak.is_dir()


def test_what_an_older_zoo_says(tmp_path: Path) -> None:
    text = SECTIONS["API_VERSION"]
    assert f'ZOO_API = "{api.API_VERSION}"\n' in blocks(text)
    major, minor = api.API_VERSION.split(".")
    newer = f"{major}.{int(minor) + 1}"
    path = tmp_path / "my_deep.py"
    path.write_text(f'ZOO_API = "{newer}"\n' + EXAMPLES["my_deep.py"], encoding="utf-8")
    (cause,) = [p.cause for p in Registry.installed([path]).plugins if p.module == str(path)]
    assert blocks(text, "text") == [f"{cause}\n"]


def test_links_within_the_page_lead_to_a_heading() -> None:
    headings = re.findall(r"^##+ (.+)$", PAGE, flags=re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
