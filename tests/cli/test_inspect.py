"""`zoo inspect`: what it shows, what it compares, and what it does without."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from zoo import pipeline
from zoo.cli.inspect import _figures, _side
from zoo.export.seal import BLANK, KEY, seal
from zoo.pipeline import ExportConfig

Cli = Callable[..., Any]


def test_it_says_what_the_file_holds(cli: Cli, trained: Any) -> None:
    found = json.loads(cli("inspect", trained.model, "--json").stdout)
    model = onnx.load(trained.model)
    assert found["bytes"] == trained.model.stat().st_size
    assert found["sealed"] is True
    assert (found["opset"], found["ir_version"], found["oldest_onnxruntime"]) == (18, 8, "1.15")
    assert found["inputs"] == [{"name": "image", "dtype": "uint8", "shape": ["batch", 1, 8, 8]}]
    assert [port["name"] for port in found["outputs"]] == ["logits", "probabilities"]
    assert found["labels"] == list("0123456789")
    assert sum(found["operators"].values()) == len(model.graph.node)
    assert found["parameters"] == 65 * 32 + 33 * 16 + 17 * 10
    assert found["preprocessed"] == {
        "name": "preprocessed", "dtype": "float32", "shape": ["batch", 1, 8, 8],
        "operators": {"Cast": 1, "Mul": 1, "Add": 1},
    }  # fmt: skip
    assert "web" in found["fits"]
    assert "coreml" not in found["fits"]  # it wants a fixed batch
    assert found["metadata"]["zoo.dataset"] == "digits"
    text = cli("inspect", trained.model).stdout
    assert "onnxruntime 1.15 and later (opset 18, IR 8)" in text
    assert "Gemm × 3" in text
    assert "Cast, Mul, Add → preprocessed float32 [batch, 1, 8, 8]" in text
    assert "(by operators, opset and batch; it names none that it was proved in)" in text
    accuracy = json.loads(found["metadata"]["zoo.metrics"])["accuracy"]
    assert f"accuracy {accuracy * 100:.2f} %" in text
    assert "zoo.weights_sha256" not in text
    assert "zoo.weights_sha256" in cli("inspect", trained.model, "--meta").stdout


def test_it_tells_two_files_apart(cli: Cli, trained: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    config = ExportConfig(opset="20", layout="nhwc", license="MIT")
    pipeline.export(trained.finetuned, other, config=config, workspace=trained.workspace)
    result = cli("inspect", trained.model, "--diff", other, "--json")
    found = {each["what"]: (each["one"], each["other"]) for each in
             json.loads(result.stdout)["differences"]}  # fmt: skip
    assert found["opset"] == ("18", "20")
    assert found["operator Transpose"] == ("0", "1")
    assert found["preprocessing"][1].startswith("Transpose, Cast, Mul, Add → preprocessed")
    assert found["license"] == ("unknown", "MIT")
    assert found["zoo.input.layout"] == ('"NCHW"', '"NHWC"')
    assert "weights" not in found
    assert "parameters" not in found
    same = tmp_path / "same.onnx"
    same.write_bytes(trained.model.read_bytes())
    assert "are the same, byte by byte" in cli("inspect", trained.model, "--diff", same).stdout


def test_a_file_made_by_0_1_0_has_no_preprocessed_tensor(cli: Cli, trained: Any) -> None:
    model = onnx.load(trained.model)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["z" if name == "preprocessed" else name for name in names]
    next(p for p in model.metadata_props if p.key == KEY).value = BLANK.decode()
    model.producer_version = "0.1.0"
    old = trained.model.with_name("old.onnx")
    old.write_bytes(seal(model.SerializeToString(deterministic=True)))
    assert json.loads(cli("inspect", old, "--json").stdout)["preprocessed"] is None
    assert "no tensor 'preprocessed': made by plugzoo 0.1.0" in cli("inspect", old).stdout
    found = cli("inspect", old, "--diff", trained.model).stdout
    assert re.search(r"preprocessing +no tensor .* 0\.1\.0 +Cast, Mul, Add → preprocessed", found)
    onnx.save(helper.make_model(model.graph), old)  # anybody's
    assert "preprocessing" not in cli("inspect", old).stdout


def test_it_needs_neither_torch_nor_onnxruntime(trained: Any) -> None:
    code = (
        "import sys\n"
        "sys.modules.update(torch=None, onnxruntime=None, torchvision=None)\n"
        f"sys.argv = ['zoo', 'inspect', {str(trained.model)!r}]\n"
        "from zoo.cli import main\n"
        "main()\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "opset 18" in found.stdout


def test_the_figures_of_a_smaller_file_are_points_and_percent() -> None:
    text = '{"accuracy_drop":0.0028,"agreement":0.9972,"examples":512,"method":"minmax"}'
    assert _figures(text) == (
        "accuracy drop 0.28 points, agreement 99.72 %, examples 512, method minmax"
    )
    assert _side("zoo.quantization.accuracy_drop", "0.0028") == "0.28 points"
    assert _side("zoo.quantization.accuracy_drop", "–") == "–"
    assert _side("bytes", "0.0028") == "0.0028"


def test_a_piped_table_has_no_blanks_to_cut_and_minds_columns(
    cli: Cli, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for words in (("inspect", trained.model), ("list",), ("validate", trained.model)):
        lines = cli(*words).stdout.splitlines()
        assert lines[0]
        assert [line for line in lines if line != line.rstrip()] == []
        assert max(map(len, lines)) <= 200
    assert cli("inspect", trained.model).stdout.startswith(" file ")
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, cli("inspect", trained.model).stdout.splitlines())) <= 60
    run = trained.finetuned.name
    for columns in ("40", "60"):  # folded, and all of it there
        monkeypatch.setenv("COLUMNS", columns)
        text = cli("runs", "--runs", trained.runs).stdout
        assert max(map(len, text.splitlines())) <= int(columns)
        first = "".join(line[1:].split("  ")[0].strip() for line in text.splitlines())
        assert run in first
    monkeypatch.setenv("COLUMNS", "")
    path = f"{trained.model}  {trained.model.stat().st_size:,} bytes"
    assert path in cli("inspect", trained.model).stdout
