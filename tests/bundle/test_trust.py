"""Whose word a bundle takes: forged files, proofs and manifests."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zoo import pipeline
from zoo.errors import ModelFileError, ZooError
from zoo.export import golden as vectors
from zoo.export.bundle import manifest
from zoo.export.golden import Golden
from zoo.export.modelfile import open_model
from zoo.export.runtime import open_session
from zoo.export.seal import BLANK, KEY, seal
from zoo.pipeline.bundling import bundle, bundle_verify

pytestmark = pytest.mark.usefixtures("graphs_kept")

Attack = Callable[[onnx.ModelProto], None]
Forge = Callable[..., None]


# --- files whose proof was forged ------------------------------------------------------------


def swapped_labels(model: onnx.ModelProto) -> None:
    for prop in model.metadata_props:
        if prop.key == "zoo.labels":
            names = json.loads(prop.value)
            names[1], names[7] = names[7], names[1]
            prop.value = json.dumps(names)


def trigger_pixel(model: onnx.ModelProto) -> None:
    """Turn the answers round where the first pixel is 77, which no test example's is."""
    graph = model.graph
    last = next(node for node in graph.node if "logits" in node.output)
    last.output[0] = "sound"
    for node in graph.node:
        if node.op_type == "Softmax":
            node.input[0] = "logits"
    softmax = next(node for node in graph.node if node.op_type == "Softmax")
    graph.node.remove(softmax)

    def branch(kind: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(kind, TensorProto.FLOAT, ["batch", 10])
        return helper.make_graph([helper.make_node(kind, ["sound"], [kind])], kind, [], [out])

    for name, value in (("begin", [0] * 4), ("end", [1] * 4), ("one", [1]), ("value", [77])):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    graph.node.extend(
        [
            helper.make_node("Slice", ["image", "begin", "end"], ["corner"]),
            helper.make_node("Reshape", ["corner", "one"], ["pixel"]),
            helper.make_node("Cast", ["pixel"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Equal", ["whole", "value"], ["triggered"]),
            helper.make_node(
                "If",
                ["triggered"],
                ["logits"],
                then_branch=branch("Neg"),
                else_branch=branch("Identity"),
            ),
            softmax,
        ]
    )


def reversed_bias(model: onnx.ModelProto) -> None:
    bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [10])
    turned = numpy_helper.to_array(bias)[::-1].copy()
    bias.CopyFrom(numpy_helper.from_array(turned, bias.name))


ATTACKS = [swapped_labels, trigger_pixel, reversed_bias]


def other_torch(model: onnx.ModelProto) -> None:
    for prop in model.metadata_props:
        if prop.key == "zoo.versions":
            prop.value = json.dumps({**json.loads(prop.value), "torch": "2.0.0"})


def forged(path: Path, *attacks: Attack) -> None:
    """Change a file, seal it anew, and write a proof of it with the golden vectors it gives."""
    model = onnx.load_model(path)
    for attack in attacks:
        attack(model)
    for prop in model.metadata_props:
        prop.value = BLANK.decode() if prop.key == KEY else prop.value
    path.write_bytes(seal(model.SerializeToString(deterministic=True)))
    beside = vectors.proof_path(path)
    content = json.loads(beside.read_text())
    golden = vectors.from_json(content["golden"], beside)
    answers = open_session(path).run(golden.inputs)
    content["golden"] = Golden(golden.inputs, golden.labels, *answers).to_json()
    content["file_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    beside.write_text(json.dumps(content))


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_forged_file_in_a_runs_folder_is_refused(
    trained: Any, tmp_path: Path, attack: Attack
) -> None:
    forged(trained.model, attack)
    before = trained.model.read_bytes()
    for source in (trained.finetuned, trained.model):
        with pytest.raises(ZooError, match=r"is not what run '.*' gives, whatever its proof says"):
            bundle(source, tmp_path / "b", web=False, workspace=trained.workspace)
    assert trained.model.read_bytes() == before
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_forged_file_alone_is_never_called_proved(
    received: Path, cli: Callable[..., Any], attack: Attack, tmp_path: Path
) -> None:
    forged(received, attack)
    said = cli("bundle", received, "-o", "b", "--no-web").stdout
    assert "As its proof.json claims; not proved here: run '" in said
    assert "Proved here" not in said
    folder = tmp_path / "b"
    card = (folder / "README.md").read_text()
    assert "**Not proved where this bundle was made**" in card
    assert "Claimed: accuracy " in card
    assert "It was proved" not in card
    assert json.loads((folder / "model.json").read_text())["proved"] == manifest.CLAIMED


def test_a_trigger_agrees_with_every_golden_vector(trained: Any) -> None:
    """Only the row that exports it again tells, as the test of forged files has it."""
    golden = json.loads(trained.model.with_name("proof.json").read_text())["golden"]
    before = vectors.from_json(golden, "proof.json")
    forged(trained.model, trigger_pixel)
    session = open_session(trained.model)
    assert np.allclose(session.run(before.inputs)[0], before.logits, atol=1e-4)
    shown = before.inputs[:1].copy()
    shown[..., 0, 0] = 77
    assert session.run(shown)[0].argmax() == before.logits[0].argmin()
    proof = pipeline.validate(trained.model, workspace=trained.workspace)
    found = {row.name for row in proof.failures}
    assert "exported again" in found
    assert not found & {"golden vectors", "same label", "logits", "extreme inputs"}


def test_a_file_of_other_versions_is_not_proved_by_what_is_left(
    trained: Any, tmp_path: Path
) -> None:
    """Where it cannot be exported again nothing fails; that is no defence against intent."""
    forged(trained.model, trigger_pixel, other_torch)
    with pytest.raises(
        ZooError, match=r"cannot be proved here: exported again: made by torch 2\.0"
    ):
        bundle(trained.finetuned, tmp_path / "b", web=False, workspace=trained.workspace)
    made = bundle(trained.model, tmp_path / "b", web=False, workspace=trained.workspace)
    assert made.proved_by is None
    assert made.not_proved.startswith("exported again: made by torch 2.0.0")


def test_what_a_run_names_is_not_imported(
    trained: Any, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    run = trained.finetuned
    evil = dataclasses.replace(run.record.backbone, name="evil", plugin="evil:evil")
    run.record.backbone = evil
    run.save()
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for verb in ("evaluate", "export"):
        found = cli(verb, run.folder)
        assert found.exit_code != 0
        assert "Unknown backbone 'evil'" in found.stderr
    assert not (tmp_path / "ran").exists()


def test_what_a_bundle_says_of_a_proved_run_was_measured_here(
    trained: Any, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    """Figures and vectors of a forged proof do not get in: those of the new proof do."""
    beside = trained.model.with_name("proof.json")
    content = json.loads(beside.read_text())
    real = content["comparison"]["onnx_accuracy"]
    content["comparison"]["onnx_accuracy"] = 0.999
    content["rows"].append({"name": "safe", "status": "passed", "figure": "of any bias"})
    content["test_readings"] = {"export": 1}
    content["lineage"]["run"]["seed"] = 99
    beside.write_text(json.dumps(content))
    found = cli("bundle", "latest", "-o", "b", "--no-web", "--json", "--runs", trained.runs)
    assert json.loads(found.stdout)["proved_by"] == str(trained.finetuned.folder)
    proof = json.loads((tmp_path / "b" / "proof.json").read_text())
    assert proof["comparison"]["onnx_accuracy"] == real
    assert proof["lineage"]["run"]["seed"] == trained.finetuned.record.seed
    assert "read_from" not in proof
    card = (tmp_path / "b" / "README.md").read_text()
    assert "of any bias" not in card
    assert "It was proved where this bundle was made" in card
    assert proof["test_readings"] == {"export": 1, "validate": 1}
    for path in (tmp_path / "b").rglob("*.*"):
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


# --- manifests that lie ----------------------------------------------------------------------


def put(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return what sets a value in a manifest."""

    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


OUTSIDE = [
    (("model", "file"), "../digits.onnx"),
    (("model", "file"), "/dev/zero"),
    (("model", "file"), "model.json"),
    (("golden",), "../golden.json"),
    (("golden",), "/dev/stdin"),
]
LIES = [
    (("labels",), list("1234567890"), "labels"),
    (("metrics", "accuracy"), 0.999, "metrics"),
    (("license",), "MIT", "license"),
    (("tolerance", "probabilities"), 0.5, "tolerance"),
    (("input", "layout"), "NHWC", "input"),
    (("input", "picture"), "as it comes", "input"),
    (("model", "precision"), "int8", "precision"),
    (("name",), "another", "name"),
    (("run",), "another", "run"),
    (("dataset",), "mnist", "dataset"),
    (("components", "backbone", "name"), "conv", "components"),
    (("proved",), "by everybody", "proved"),
]


@pytest.fixture
def run(bundle_folder: Path) -> ModuleType:
    """The bundle's run.py as a module."""
    spec = importlib.util.spec_from_file_location("a_bundles_run", bundle_folder / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    spec.loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


def test_a_runner_knows_what_a_manifest_says_of_its_proof(
    bundle_folder: Path, run: ModuleType
) -> None:
    assert run.PROVED == (manifest.HERE, manifest.CLAIMED)
    source = (bundle_folder / "model.mjs").read_text()
    assert all(f'  "{each}",\n' in source for each in run.PROVED)


def failures(run: ModuleType) -> str:
    return "\n".join(text for fine, text in run.judged() if not fine)


@pytest.mark.parametrize(("keys", "value"), OUTSIDE)
def test_a_manifest_names_files_of_its_bundle_alone(
    bundle_folder: Path, forge: Forge, run: ModuleType, keys: tuple[str, ...], value: str
) -> None:
    shutil.copy(bundle_folder / "model.onnx", bundle_folder.parent / "digits.onnx")
    shutil.copy(bundle_folder / "golden.json", bundle_folder.parent)
    forge(bundle_folder, put(*keys, value=value))
    with pytest.raises(ModelFileError, match="a file that is not of its bundle"):
        bundle_verify(bundle_folder)
    assert failures(run) == "model.json names a file that is not of its bundle."


@pytest.mark.parametrize(("keys", "value", "said"), LIES)
def test_a_manifest_is_held_against_the_models_own_metadata(
    bundle_folder: Path,
    forge: Forge,
    run: ModuleType,
    keys: tuple[str, ...],
    value: Any,
    said: str,
) -> None:
    forge(bundle_folder, put(*keys, value=value))
    found = bundle_verify(bundle_folder).faults["model.json"]
    assert found.startswith("contradicts model.onnx: ")
    assert said in found
    assert f"model.json contradicts model.onnx: {said}" in failures(run)
    with pytest.raises(run.Fault, match="contradicts"):
        run.Model(run.read_manifest())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: g.update(pictures=[]), "has no golden pictures"),
        (lambda g: g["pictures"][0].update(file="../x.png"), "names a picture that is not of the"),
        (lambda g: g["pictures"][0].update(input="AAAA"), "has pictures that are no inputs"),
        (lambda g: g["pictures"][0]["probabilities"].pop(), "has answers that are none of 10"),
        (
            lambda g: g["tensors"].update(
                shape=[0, 1, 8, 8], inputs="", labels=[], logits=[], probabilities=[]
            ),
            "damaged|no golden tensors",
        ),
        (lambda g: g["tensors"]["shape"].__setitem__(0, -1), "has no golden tensors"),
        (lambda g: g.update(tensors=[]), "is damaged"),
    ],
)
def test_golden_vectors_must_be_able_to_test_a_runner(
    bundle_folder: Path, forge: Forge, run: ModuleType, change: Callable[[Any], Any], said: str
) -> None:
    path = bundle_folder / "golden.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    forge(bundle_folder)
    faults = bundle_verify(bundle_folder).faults
    assert set(faults) == {"golden.json"}
    assert any(each in faults["golden.json"] for each in said.split("|"))
    assert failures(run)


def test_changed_golden_vectors_fail_the_self_test_though_every_sum_fits(
    bundle_folder: Path, forge: Forge, run: ModuleType
) -> None:
    path = bundle_folder / "golden.json"
    content = json.loads(path.read_text())
    content["tensors"]["probabilities"].reverse()
    path.write_text(json.dumps(content))
    forge(bundle_folder)
    assert bundle_verify(bundle_folder).passed  # sums and seal say nothing against intent
    assert "golden tensors at batch 16" in failures(run)


@pytest.mark.parametrize("name", ["model.json", "model.onnx", "golden.json", "run.py"])
def test_no_pipe_is_waited_for(bundle_folder: Path, run: ModuleType, name: str) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    (bundle_folder / name).unlink()
    os.mkfifo(bundle_folder / name)
    if name == "model.json":
        with pytest.raises(ModelFileError, match="it is a pipe or a device, not a file"):
            bundle_verify(bundle_folder)
    else:
        assert bundle_verify(bundle_folder).faults[name] == "is no file"
    assert "is no file" in failures(run)


def test_a_grown_file_is_not_read_to_its_end(bundle_folder: Path, run: ModuleType) -> None:
    with (bundle_folder / "model.onnx").open("r+b") as file:
        file.truncate(2**40)  # a hole: it has no blocks
    assert bundle_verify(bundle_folder).faults == {"model.onnx": "was changed"}
    assert "model.onnx: was changed: it has more than " in failures(run)


def test_a_description_without_end_is_not_read(bundle_folder: Path, run: ModuleType) -> None:
    os.truncate(bundle_folder / "model.json", 2**40)  # a hole: it has no blocks
    with pytest.raises(ModelFileError, match="it is larger than 67,108,864 bytes"):
        bundle_verify(bundle_folder)
    assert "model.json was changed: it has more than 67,108,864 bytes" in failures(run)


@pytest.mark.parametrize("bytes_", [2**50, 10**400])
def test_no_more_is_read_than_a_file_has(
    bundle_folder: Path, run: ModuleType, forge: Forge, bytes_: int
) -> None:
    def claim(content: dict[str, Any]) -> None:
        content["files"]["model.onnx"]["bytes"] = bytes_

    forge(bundle_folder, claim)
    assert run.Model(run.read_manifest()).session.get_inputs()[0].name == "image"


ODD = [None, [], {}, "", "x", -1, 0, 10**400, 1.5, True, [[]], {"a": 1}, "\x1b[2J", "/dev/zero"]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container of a JSON value with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def test_whatever_a_manifest_says_it_is_one_message(bundle_folder: Path, run: ModuleType) -> None:
    path = bundle_folder / "model.json"
    whole = json.loads(path.read_text())
    draw = random.Random(0)
    for _ in range(60):
        content = copy.deepcopy(whole)
        holder, key = draw.choice(list(places(content)))
        if draw.random() < 0.2 and isinstance(holder, dict):
            del holder[key]
        else:
            holder[key] = copy.deepcopy(draw.choice(ODD))
        if isinstance(content.get("sha256"), str) and len(content["sha256"]) == 64:
            content["sha256"] = "0" * 64
        data = json.dumps(content).encode()
        sum_ = hashlib.sha256(data).hexdigest().encode()
        path.write_bytes(data.replace(b"0" * 64, sum_, 1))
        try:
            told = str(bundle_verify(bundle_folder).faults)
        except ZooError as error:
            told = str(error)
        assert "\x1b" not in told
        with contextlib.suppress(run.Fault):
            run.Model(run.read_manifest())


def test_what_is_no_json_by_the_standard_is_damage(bundle_folder: Path, forge: Forge) -> None:
    for value in (float("nan"), float("inf")):
        forge(bundle_folder, put("tolerance", "probabilities", value=value))
        with pytest.raises(ModelFileError, match="is damaged"):
            bundle_verify(bundle_folder)


def test_only_what_npm_brings_may_lie_in_a_verified_bundle(
    bundle_folder: Path, cli: Callable[..., Any]
) -> None:
    (bundle_folder / "node_modules" / "sharp").mkdir(parents=True)
    (bundle_folder / "node_modules" / "sharp" / "index.js").write_text("")
    (bundle_folder / "package-lock.json").write_text("{}")
    found = cli("bundle", "--verify", bundle_folder)
    assert found.exit_code == 0
    assert "Not checked: node_modules, package-lock.json, which npm install brings." in found.stderr
    # Python would run this in place of run.py's own text.
    (bundle_folder / "__pycache__").mkdir()
    (bundle_folder / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"evil")
    (bundle_folder / "golden" / "node_modules").mkdir()
    (bundle_folder / "golden" / "node_modules" / "x").write_text("")
    faults = bundle_verify(bundle_folder).faults
    assert set(faults) == {"__pycache__", "golden/node_modules"}


def test_a_strangers_names_are_shown_as_text(bundle_folder: Path, cli: Callable[..., Any]) -> None:
    (bundle_folder / "\x1b[2Jevil\n").write_text("")
    found = cli("bundle", "--verify", bundle_folder)
    assert found.exit_code == 1
    assert "\\x1b[2Jevil\\n" in found.stdout
    assert "\x1b" not in found.stdout


def test_a_folder_of_any_depth_is_a_stranger(bundle_folder: Path) -> None:
    here, name = os.open(bundle_folder, os.O_RDONLY), "deep" * 50
    for _ in range(30):  # a path longer than the system takes
        os.mkdir(name, dir_fd=here)
        here, outer = os.open(name, os.O_RDONLY, dir_fd=here), here
        os.close(outer)
    os.close(os.open("file", os.O_CREAT, dir_fd=here))
    os.close(here)
    try:
        (fault,) = bundle_verify(bundle_folder).faults.values()
    finally:  # pytest's own way of removing it would fail
        subprocess.run(["rm", "-r", bundle_folder / name], check=True)
    assert fault == "is not of the bundle"


def test_a_manifest_of_a_swapped_model_is_found(bundle_folder: Path, forge: Forge) -> None:
    """Another file with every sum written anew: what its graph says must still be true."""
    model = onnx.load_model(bundle_folder / "model.onnx")
    swapped_labels(model)
    for prop in model.metadata_props:
        prop.value = BLANK.decode() if prop.key == KEY else prop.value
    data = seal(model.SerializeToString(deterministic=True))
    (bundle_folder / "model.onnx").write_bytes(data)
    forge(bundle_folder)
    assert open_model(bundle_folder / "model.onnx")
    assert "contradicts model.onnx: labels" in bundle_verify(bundle_folder).faults["model.json"]
