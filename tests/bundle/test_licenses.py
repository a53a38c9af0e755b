"""Every file of a bundle has a stated license."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo.export.bundle import contents, licenses

ROOT = Path(__file__).resolve().parent.parent.parent
NOT_OURS = {
    "model.onnx", "model.json", "proof.json", "README.md", "golden.json",
    "ort/ort.wasm.min.mjs", "ort/LICENSE.txt",
}  # fmt: skip


def rows(text: str) -> dict[str, str]:
    """Read the list, down to what explains it, by the files' names."""
    _, listed, *_ = text.split("\n\n")
    return dict(line.split("  ", 1) for line in listed.splitlines())


def stated(folder: Path) -> dict[str, str]:
    text = (folder / licenses.NAME).read_text(encoding="utf-8")
    return {name: license.strip() for name, license in rows(text).items()}


def test_every_file_of_a_bundle_is_listed_with_its_license(bundle_once: Path) -> None:
    content = json.loads((bundle_once / "model.json").read_text())
    found = stated(bundle_once)
    assert set(found) == {*content["files"], "model.json"}
    assert found["model.onnx"] == f"the model's: {content['license']}"
    assert found["golden.json"] == "examples of the data set 'digits': as that is"
    ours = {name for name, license in found.items() if license == licenses.OURS}
    assert ours == {name for name in found if name not in NOT_OURS and "golden/" not in name}


def test_the_pages_runtime_is_listed_and_its_text_is_there(tmp_path: Path) -> None:
    facts: dict[str, Any] = {
        "model": {"file": "model.onnx"}, "license": "MIT", "dataset": "digits"
    }  # fmt: skip
    (tmp_path / "ort").mkdir()
    for name in ("model.onnx", "run.py", "ort/ort.wasm.min.mjs", "ort/LICENSE.txt"):
        (tmp_path / name).touch()
    licenses.write(tmp_path, facts, contents.WEB)
    assert stated(tmp_path) == {
        "LICENSES.txt": "Apache-2.0",
        "model.json": "the model's: MIT",
        "model.onnx": "the model's: MIT",
        "ort/LICENSE.txt": "MIT",
        "ort/ort.wasm.min.mjs": "MIT",
        "run.py": "Apache-2.0",
    }


def test_the_text_of_our_license_goes_with_a_bundle(bundle_once: Path) -> None:
    text = (bundle_once / licenses.NAME).read_text(encoding="utf-8")
    assert text.endswith((ROOT / "LICENSE").read_text(encoding="utf-8"))
