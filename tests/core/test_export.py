"""Export and proof: what the file holds, and which damage the proof finds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from zoo import pipeline
from zoo.api import ImageInput, Preprocessing
from zoo.errors import (
    BadOption,
    DataError,
    ModelFileError,
    PluginFault,
    ProofError,
    UnknownName,
)
from zoo.export import trials
from zoo.export.budget import BATCH_SIZES
from zoo.export.card import Card, from_metadata
from zoo.export.comparison import compare, softmax32
from zoo.export.graph import finished, to_graph
from zoo.export.modelfile import open_model
from zoo.export.runtime import open_session
from zoo.export.seal import BLANK, KEY, check_seal, seal
from zoo.models import Classifier, Preprocess
from zoo.pictures import RULE
from zoo.pipeline import ExportConfig, Workspace, model_files

CARD = Card(
    run="run",
    labels=["a", "b", "c"],
    input=ImageInput(channels=3, height=9, width=7),
    components={"backbone": {"name": "x"}},
    metrics={"accuracy": 0.5},
    weights_sha256="0" * 64,
    versions={"plugzoo": "0.1.0"},
    dataset_sha256="1" * 64,
)


def classifier(source: ImageInput, target: ImageInput, wanted: Preprocessing) -> Classifier:
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(target.channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * target.height * target.width, 5),
        nn.Dropout(0.5),
    )
    return Classifier(Preprocess(source, target, wanted), encoder, nn.Linear(5, 3))


class Brain(nn.Module):
    """Computes in bfloat16, of which onnxruntime has next to no kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 8, dtype=torch.bfloat16)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs.flatten(1).bfloat16()).float()


@pytest.mark.parametrize("form", [{}, {"fp16": True}], ids=str)
def test_what_onnxruntime_cannot_load_is_told_without_a_draft(mine: Any, form: Any) -> None:
    mine.encoder = Brain
    run = mine.finetune()
    with pytest.raises(ModelFileError) as raised:
        pipeline.export(run, config=ExportConfig(**form), workspace=mine.workspace)
    assert str(raised.value).startswith(
        "No file was written: what was exported is not a file that onnxruntime can load: "
    )
    assert str(run.folder.parent) not in str(raised.value)
    assert not list(run.folder.glob("*.onnx"))


def run_file(data: bytes, images: np.ndarray[Any, Any]) -> Any:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})


@pytest.mark.parametrize(
    ("source", "target"),
    [((3, 9, 7), (3, 9, 7)), ((1, 8, 8), (3, 12, 10)), ((3, 20, 9), (1, 7, 7))],
)
def test_the_graph_is_the_classifier_preprocessing_included(
    source: tuple[int, ...], target: tuple[int, ...]
) -> None:
    names = ("channels", "height", "width")
    stored = ImageInput(**dict(zip(names, source, strict=True)))
    built = ImageInput(**dict(zip(names, target, strict=True)))
    model = classifier(stored, built, Preprocessing(mean=(0.4,), std=(0.2,)))
    data = finished(to_graph(model, stored), dataclasses.replace(CARD, input=stored))
    for batch in (1, 2, 5, 64):
        images = np.random.default_rng(0).integers(0, 256, (batch, *source), dtype=np.uint8)
        logits, probabilities = run_file(data, images)
        with torch.no_grad():
            expected = model.eval()(torch.from_numpy(images))
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
        np.testing.assert_allclose(probabilities, expected.softmax(1).numpy(), atol=1e-5)


def exported_model(trained: Any) -> ModelProto:
    return onnx.load(trained.model)


def test_the_file_is_self_contained_portable_and_silent_of_this_machine(trained: Any) -> None:
    model = exported_model(trained)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    assert model.ir_version == 8
    assert not model.functions
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    assert "Dropout" not in {node.op_type for node in model.graph.node}
    raw = trained.model.read_bytes()
    assert not re.search(rb"site-packages|\.py\b|/home/|/root/|/tmp/", raw)
    assert not [node for node in model.graph.node if node.metadata_props or node.doc_string]


def test_the_metadata_says_what_was_measured(trained: Any) -> None:
    said = {prop.key: prop.value for prop in exported_model(trained).metadata_props}
    assert json.loads(said["zoo.labels"]) == list("0123456789")
    assert json.loads(said["zoo.input"]) == {
        "channels": 1, "height": 8, "width": 8, "layout": "NCHW", "dtype": "uint8",
        "range": [0, 255], "shape": ["batch", 1, 8, 8], "picture": RULE,
    }  # fmt: skip
    assert said["zoo.dataset"] == "digits"
    assert said["zoo.precision"] == "fp32"
    assert said["license"] == "unknown"
    assert said["Image.BitmapPixelFormat"] == "Gray8"
    assert set(json.loads(said["zoo.versions"])) == {"plugzoo", "torch", "onnx", "onnxscript"}
    assert json.loads(said["zoo.components"])["backbone"]["options"]["widths"] == [32]
    assert said["zoo.run"] == trained.finetuned.name
    assert said["zoo.weights_sha256"] == trained.finetuned.record.weights_sha256
    evaluation = pipeline.evaluate(trained.finetuned, workspace=trained.workspace)
    assert json.loads(said["zoo.metrics"])["accuracy"] == evaluation.accuracy
    assert not re.search(r"\d{4}-\d\d-\d\dT", said["zoo.versions"] + said["zoo.components"])


def test_two_exports_are_the_same_bytes(trained: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    pipeline.export(trained.finetuned, other, workspace=trained.workspace)
    assert other.read_bytes() == trained.model.read_bytes()
    assert json.loads((tmp_path / "other.proof.json").read_text())["passed"]


def test_the_hash_of_the_data_is_that_of_the_test_split(trained: Any) -> None:
    source = model_files.read(trained.finetuned, trained.workspace, "test")
    wanted = hashlib.sha256(source.images.tobytes() + source.labels.astype("<i8").tobytes())
    assert open_session(trained.model).card.dataset_sha256 == wanted.hexdigest()


def test_inner_names_are_short_and_ports_keep_theirs(trained: Any) -> None:
    graph = exported_model(trained).graph
    assert [port.name for port in graph.input] == ["image"]
    assert [port.name for port in graph.output] == ["logits", "probabilities"]
    inner = {name for node in graph.node for name in node.output} - {"logits", "probabilities"}
    assert "preprocessed" in inner
    inner.remove("preprocessed")
    assert inner
    assert all(len(name) <= 2 for name in inner | {t.name for t in graph.initializer})


QUANTIZED = dataclasses.replace(
    CARD, precision="int8", quantization={"method": "per-channel minmax", "max_drop": 0.005},
    layout="NHWC", batch=4, target="coreml", license="MIT",
)  # fmt: skip


@pytest.mark.parametrize("card", [CARD, QUANTIZED], ids=["fp32", "int8"])
def test_a_card_survives_the_metadata(card: Card) -> None:
    assert from_metadata({**card.to_metadata(), KEY: "a" * 64}, "x.onnx") == card


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("zoo.schema", None, "was not exported by zoo"),
        ("zoo.schema", "99", "schema 99; this zoo reads 1"),
        ("zoo.labels", None, "is damaged"),
        ("zoo.labels", "[1, 2]", "is damaged"),
        ("zoo.input", "{}", "is damaged"),
        ("zoo.input", "not json", "is damaged"),
        ("zoo.input", "[]", "is damaged"),
        ("zoo.labels", '["\\ud800", "b"]', "text not sound"),
        ("zoo.input", "[" * 5000, "is damaged"),
        ("zoo.metrics", "{}", "is damaged"),
        *[
            ("zoo.metrics", f'{{"accuracy": {value}}}', "is damaged")
            for value in ("NaN", "1e999", "9" * 400, "-0.1", "1.01", "true", '"1"')
        ],
        ("zoo.metrics", '{"accuracy": 1, "more": []}', "metrics not sound"),
        ("zoo.components", '{"head": %s}' % ("9" * 400), "text not sound"),
        ("zoo.versions", '{"torch": 2}', "versions not sound"),
        ("zoo.left_out", "-1", "left_out not sound"),
        ("zoo.precision", "int4", "is damaged"),
        ("zoo.precision", "int8", "is damaged"),
        (KEY, "short", "is damaged"),
    ],
)
def test_metadata_that_is_not_sound_is_refused(key: str, value: str | None, words: str) -> None:
    said = CARD.to_metadata()
    if value is None:
        del said[key]
    else:
        said[key] = value
    with pytest.raises(ModelFileError, match=words):
        from_metadata(said, "x.onnx")


# --- damage ----------------------------------------------------------------------------------

Damage = Callable[[ModelProto], None]


def save(model: ModelProto, path: Path) -> Path:
    """Write a model and seal it anew: another check than the seal's has to find the damage."""
    for prop in model.metadata_props:
        if prop.key == KEY:
            prop.value = BLANK.decode()
    path.write_bytes(seal(model.SerializeToString()))
    check_seal(path.read_bytes(), path)
    return path


def weights(model: ModelProto) -> list[Any]:
    """The matrices of the layers, largest first; constants of the preprocessing are smaller."""
    found = [t for t in model.graph.initializer if len(t.dims) == 2]
    return sorted(found, key=lambda t: -int(np.prod(t.dims)))


def edit(tensor: Any, change: Callable[[np.ndarray[Any, Any]], Any]) -> None:
    array = numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(change(array), array.dtype), tensor.name))


def scale_a_layer(model: ModelProto) -> None:
    edit(weights(model)[0], lambda array: array * 1.005)


def double_a_weight(model: ModelProto) -> None:
    def change(array: np.ndarray[Any, Any]) -> Any:
        array.flat[np.abs(array).argmax()] *= 2
        return array

    edit(weights(model)[0], change)


def swap_two_classes(model: ModelProto) -> None:
    rows = next(t for t in reversed(weights(model)) if 10 in t.dims)

    def change(array: np.ndarray[Any, Any]) -> Any:
        order = np.arange(10)
        order[[2, 4]] = [4, 2]
        return array[order] if array.shape[0] == 10 else array[:, order]

    edit(rows, change)


def wrong_normalization(model: ModelProto) -> None:
    scale = next(t for t in model.graph.initializer if list(t.dims) == [1, 1, 1, 1])
    edit(scale, lambda array: array * 1.2)


def not_a_number(model: ModelProto) -> None:
    edit(weights(model)[0], lambda array: np.full_like(array, np.nan))


def lie(key: str, change: Callable[[Any], Any]) -> Damage:
    """Damage that only changes what the file says of itself."""

    def damage(model: ModelProto) -> None:
        for prop in model.metadata_props:
            if prop.key == key:
                prop.value = json.dumps(change(json.loads(prop.value)))

    return damage


def another_run(model: ModelProto) -> None:
    for prop in model.metadata_props:
        if prop.key == "zoo.run":
            prop.value = "2020-01-01T00-00-00-finetune-mlp-digits-0000"


def round_to_half(model: ModelProto) -> None:
    for tensor in weights(model):
        edit(tensor, lambda array: array.astype(np.float16))


def other_data(model: ModelProto) -> None:
    for prop in model.metadata_props:
        if prop.key == "zoo.dataset_sha256":
            prop.value = "e" * 64


def swap_label_names(model: ModelProto) -> None:
    for prop in model.metadata_props:
        if prop.key == "zoo.labels":
            names = json.loads(prop.value)
            prop.value = json.dumps([names[1], names[0], *names[2:]])


def boast(model: ModelProto) -> None:
    for prop in model.metadata_props:
        if prop.key == "zoo.metrics":
            prop.value = json.dumps({"accuracy": 0.999})


def foreign_weights(model: ModelProto) -> None:
    for prop in model.metadata_props:
        if prop.key == "zoo.weights_sha256":
            prop.value = "f" * 64


@pytest.mark.parametrize(
    ("damage", "row"),
    [
        (scale_a_layer, "logits"),
        (double_a_weight, "logits"),
        (swap_two_classes, "same label"),
        (wrong_normalization, "probabilities"),
        (swap_label_names, "class names"),
        (boast, "accuracy as recorded"),
        (foreign_weights, "weights are the run's"),
        (another_run, "metadata as the run records"),
        (
            lie("zoo.components", lambda c: {**c, "backbone": {"name": "vit-giant"}}),
            "metadata as the run records",
        ),
        (round_to_half, "logits"),
        (other_data, "test split as recorded"),
        (lie("zoo.labels", lambda n: n), "exported again"),
        (lie("zoo.metrics", lambda m: {**m, "top5": 0.999}), "metadata as the run records"),
    ],
)
def test_the_proof_finds_the_damage(
    trained: Any, damage: Damage, row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if row != "exported again":  # that row finds every damage, and takes longer than all others
        monkeypatch.setattr(model_files, "other_versions", lambda card: "other versions")
    model = exported_model(trained)
    damage(model)
    save(model, trained.model)
    open_model(trained.model)  # what can be said without running it is sound
    run = trained.finetuned.folder
    proof = pipeline.validate(trained.model, run=run, workspace=trained.workspace)
    assert not proof.passed
    assert row in [failed.name for failed in proof.failures]
    json.dumps(proof.to_json(), allow_nan=False)


def training_left_on(model: ModelProto) -> None:
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    dropout = onnx.helper.make_node("Dropout", [softmax.input[0]], ["dropped"])
    softmax.input[0] = "dropped"
    model.graph.node.insert(len(model.graph.node) - 1, dropout)


def custom_operator(model: ModelProto) -> None:
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))


def unknown_operator(model: ModelProto) -> None:
    model.graph.node[0].op_type = "Castle"


def other_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 99


def other_ir(model: ModelProto) -> None:
    model.ir_version = 99


def newer_ir(model: ModelProto) -> None:
    model.ir_version = 10


def a_path(model: ModelProto) -> None:
    model.graph.node[0].doc_string = "/home/me/model.py"


def fewer_classes(model: ModelProto) -> None:
    for value in model.graph.output:
        value.type.tensor_type.shape.dim[1].dim_value = 9


def dangling(model: ModelProto) -> None:
    model.graph.node[-1].input[0] = "nowhere"


def outside(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def unfit_target(model: ModelProto) -> None:
    model.metadata_props.add(key="zoo.target", value="coreml")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (not_a_number, r"Weight '\w+' of .* is not finite"),
        (training_left_on, r"left in training mode: Dropout"),
        (custom_operator, r"not ONNX's own: (Cast|Shape) of com.example"),
        (unknown_operator, r"unknown operators: Castle"),
        (other_opset, r"opset 99 and IR version 8; this onnx knows them up to"),
        (other_ir, r"opset 18 and IR version 99; this onnx knows them up to"),
        (newer_ir, r"IR version 10; opset 18 goes with 8"),
        (a_path, r"tells of a machine: '/home/'"),
        (fewer_classes, r"not a sound ONNX file"),
        (dangling, r"not a sound ONNX file"),
        (outside, r"its weights lie in another \('../../etc/passwd'\)"),
        (unfit_target, r"not fit for coreml: operators Flatten; batch not fixed"),
    ],
)
def test_what_is_not_sound_is_one_line(trained: Any, damage: Damage, words: str) -> None:
    model = exported_model(trained)
    damage(model)
    save(model, trained.model)
    for call in (pipeline.inspect, pipeline.validate):
        with pytest.raises(ModelFileError, match=words):
            call(trained.model)


def test_any_changed_byte_breaks_the_seal(trained: Any) -> None:
    data = trained.model.read_bytes()
    for place in (8, len(data) // 3, len(data) // 2, len(data) - 1):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(ModelFileError, match="seal"):
            check_seal(bytes(damaged), "x.onnx")
    with pytest.raises(ModelFileError, match="has no seal"):
        check_seal(data + data, "x.onnx")


@pytest.mark.parametrize("what", ["labels", "input"])
def test_metadata_that_contradicts_the_graph_is_refused(trained: Any, what: str) -> None:
    model = exported_model(trained)
    for prop in model.metadata_props:
        if prop.key == f"zoo.{what}":
            content = json.loads(prop.value)
            wider = what == "input" and {**content, "width": 9, "shape": ["batch", 1, 8, 9]}
            changed = content[:-1] if what == "labels" else wider
            prop.value = json.dumps(changed)
    save(model, trained.model)
    with pytest.raises(ModelFileError, match="contradicts itself"):
        open_session(trained.model)


@pytest.mark.parametrize("damage", [{"dtype": "float32"}, {"range": [0, 1]}, {"layout": "NHWC"}])
def test_an_input_described_as_another_one_is_refused(trained: Any, damage: Any) -> None:
    model = exported_model(trained)
    lie("zoo.input", lambda described: {**described, **damage})(model)
    save(model, trained.model)
    with pytest.raises(ModelFileError, match="is damaged"):
        open_session(trained.model)


def test_weights_in_a_second_file_are_refused(trained: Any, monkeypatch: Any) -> None:
    """onnxruntime would read them from wherever it is started, and no hash covers them."""
    folder = trained.model.parent
    monkeypatch.chdir(folder)
    onnx.save(exported_model(trained), "ext.onnx", save_as_external_data=True, location="ext.data",
              size_threshold=0)  # fmt: skip
    with pytest.raises(ModelFileError, match=r"seal|its weights lie in another"):
        pipeline.validate(folder / "ext.onnx", workspace=trained.workspace)


@pytest.mark.parametrize("size", BATCH_SIZES)
def test_every_batch_size_is_run(trained: Any, size: int) -> None:
    """Also those larger than the split; a file that is wrong at one of them alone is refused."""
    session = open_session(trained.model)
    seen: list[int] = []

    class Watched:
        def run(self, names: Any, feed: Any, options: Any) -> Any:
            count = len(feed["image"])
            seen.append(count)
            logits, probabilities = session.session.run(names, feed, options)
            return logits, probabilities + (0.5 if count == size else 0.0)

    source = model_files.read(trained.finetuned, trained.workspace, "test")
    watched = dataclasses.replace(session, session=Watched())
    assert trials.spread_over_batches(watched, source.images[:30])[0] > 0.4
    assert set(seen) == set(BATCH_SIZES)
    assert trials.spread_over_batches(session, source.images[:30])[0] < 1e-5


def test_branches_are_stripped_too() -> None:
    from onnx import TensorProto, helper

    from zoo.export.graph import strip

    inner_node = helper.make_node("Identity", ["x"], ["y"], doc_string="/home/me/model.py")
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    inner = helper.make_graph([inner_node], "branch", [], [out])
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    end = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph([node], "g", [condition, value], [end]))
    assert b"/home/me" in model.SerializeToString()
    strip(model)
    assert b"/home/me" not in model.SerializeToString()


def test_a_frozen_batch_is_found(trained: Any) -> None:
    model = exported_model(trained)
    frozen_ports(model)
    save(model, trained.model)
    with pytest.raises(ModelFileError, match="contradicts itself"):
        pipeline.validate(trained.model, workspace=trained.workspace)


def off_by_one(model: ModelProto) -> None:
    """255 levels are 256 values: pictures divided by 256."""
    scale = next(t for t in model.graph.initializer if list(t.dims) == [1, 1, 1, 1])
    edit(scale, lambda array: array * 255 / 256)


def batch_statistics(model: ModelProto) -> None:
    """Normalize by the batch, as batch normalization does in training mode."""
    layer = next(node for node in model.graph.node if node.op_type in ("Gemm", "MatMul"))
    made = layer.output[0]
    layer.output[0] = "plain"
    at = list(model.graph.node).index(layer) + 1
    axis = numpy_helper.from_array(np.array([0]), "over_the_batch")
    model.graph.initializer.append(axis)
    mean = onnx.helper.make_node("ReduceMean", ["plain", axis.name], ["mean"], keepdims=1)
    model.graph.node.insert(at, mean)
    model.graph.node.insert(at + 1, onnx.helper.make_node("Sub", ["plain", "mean"], [made]))


def frozen_ports(model: ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 2


def frozen_reshape(model: ModelProto) -> None:
    """A batch of 2 written into the graph, as tracing does; the ports say nothing of it."""
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[0] = "unshaped"
    shape = numpy_helper.from_array(np.array([2, 10]), "shape_of_two")
    model.graph.initializer.append(shape)
    at = list(model.graph.node).index(last) + 1
    reshape = onnx.helper.make_node("Reshape", ["unshaped", shape.name], ["logits"])
    model.graph.node.insert(at, reshape)


FAULTS = [
    ("a layer × 1.005", scale_a_layer, "logits"),
    ("one weight doubled", double_a_weight, "logits"),
    ("two classes swapped", swap_two_classes, "same label"),
    ("weights rounded to fp16", round_to_half, "logits"),
    ("normalization × 1.2", wrong_normalization, "probabilities"),
    ("pictures divided by 256, not 255", off_by_one, "logits"),
    ("training mode left on: dropout", training_left_on, "left in training mode"),
    ("training mode left on: batch statistics", batch_statistics, "batches"),
    ("batch frozen at 2: inputs and outputs", frozen_ports, "contradicts itself"),
    ("batch frozen at 2: inside", frozen_reshape, "onnxruntime cannot run"),
]


@pytest.mark.slow
def test_each_fault_of_an_export_is_found_by_another_row_than_the_seal(trained: Any) -> None:
    """Prints the table of docs/export.md; `pytest -n 0 -s -m slow` shows it."""
    whole = trained.model.read_bytes()
    run = trained.finetuned.folder
    proof = pipeline.validate(trained.model, run=run, workspace=trained.workspace)
    assert proof.verdict == "proved"
    for name, damage, wanted in FAULTS:
        trained.model.write_bytes(whole)
        model = exported_model(trained)
        damage(model)
        save(model, trained.model)
        try:
            proof = pipeline.validate(trained.model, run=run, workspace=trained.workspace)
            found = [f"{row.name}: {row.figure}" for row in proof.failures]
        except ModelFileError as error:
            found = [f"refused: {error}"]
        print(f"| {name} | {'; '.join(found)} |".replace(str(trained.model), "FILE"))
        assert wanted in " ".join(found)
        assert "seal" not in " ".join(found)


def test_what_is_not_proved_is_not_written(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_export = model_files.to_graph

    def buggy_export(*given: Any, **options: Any) -> ModelProto:
        model = true_export(*given, **options)
        scale_a_layer(model)
        return model

    monkeypatch.setattr(model_files, "to_graph", buggy_export)
    before = trained.model.read_bytes()
    with pytest.raises(ProofError, match=r"No file was written: .*logits"):
        pipeline.export(trained.finetuned, workspace=trained.workspace)
    assert trained.model.read_bytes() == before
    with pytest.raises(ProofError):
        pipeline.export(trained.finetuned, tmp_path / "new.onnx", workspace=trained.workspace)
    left = {path.name for path in (*tmp_path.iterdir(), *trained.finetuned.folder.iterdir())}
    assert not [name for name in left if name.startswith(("new", ".new", ".model"))]


def test_ties_are_told_apart_from_flips_and_listed() -> None:
    """A label may differ only where the two best are nearer than twice the bound."""
    expected = np.array([[1.0, 1.0 + 1e-5, -9], [2, 1, 0], [0, 3, 0]])
    swapped = expected[:, [1, 0, 2]]
    labels = np.array([1, 0, 1])
    found = compare(expected, [(swapped, softmax32(swapped))], labels)
    assert found is not None
    assert [(tie.index, tie.reference_class, tie.file_class) for tie in found.ties] == [(0, 1, 0)]
    assert found.ties[0].margin < 1e-4
    assert found.flips == 2
    assert found.agreement == 0
    same = compare(expected, [(expected, softmax32(expected))], labels)
    assert same is not None
    assert (same.flips, same.ties, same.agreement) == (0, [], 1)


def test_a_classifier_that_cannot_be_exported_says_why() -> None:
    class Branching(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            flat = inputs.flatten(1)[:, :5]
            return flat if flat.sum() > 0 else -flat

    shape = CARD.input
    model = Classifier(Preprocess(shape, shape, Preprocessing()), Branching(), nn.Linear(5, 3))
    with pytest.raises(PluginFault, match="cannot be exported"):
        to_graph(model, shape)


def row(proof: Any, name: str) -> Any:
    return next(row for row in proof.rows if row.name.startswith(name))


def test_validate_finds_the_run_or_is_content_with_less(trained: Any, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.onnx"
    moved.write_bytes(trained.model.read_bytes())
    assert pipeline.validate(moved, workspace=trained.workspace).passed
    nowhere = Workspace(runs=tmp_path / "none")
    proof = pipeline.validate(moved, workspace=nowhere)
    assert proof.verdict == "intact"
    assert not proof.passed
    skipped = {row.name for row in proof.skipped}
    wanted = {"what its run records", "golden vectors", "test split", "exported again"}
    assert skipped == wanted
    assert "--run FOLDER" in row(proof, "test split").figure
    found = pipeline.validate(moved, run=trained.finetuned.folder, workspace=nowhere)
    assert found.passed
    moved.with_name("elsewhere.proof.json").write_bytes(
        trained.model.with_name("proof.json").read_bytes()
    )
    proof = pipeline.validate(moved, workspace=nowhere)
    assert row(proof, "golden vectors").status == "passed"
    assert proof.verdict == "intact"


def test_golden_vectors_find_what_happened_to_a_file(trained: Any) -> None:
    """Without its run: the bytes are sealed anew, and the proof beside them names them."""
    model = exported_model(trained)
    swap_two_classes(model)
    save(model, trained.model)
    path = trained.model.with_name("proof.json")
    content = json.loads(path.read_text())
    content["file_sha256"] = hashlib.sha256(trained.model.read_bytes()).hexdigest()
    path.write_text(json.dumps(content))
    (trained.finetuned.folder / "run.json").rename(trained.runs / "hidden.json")
    proof = pipeline.validate(trained.model, workspace=Workspace(runs=trained.runs / "none"))
    assert proof.verdict == "failed"
    assert [failed.name for failed in proof.failures] == ["golden vectors"]


def test_a_run_whose_data_are_gone_leaves_the_file_intact(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any, **__: Any) -> Any:
        raise DataError("there is nothing")

    monkeypatch.setattr(model_files, "hold_test", gone)
    proof = pipeline.validate(trained.model, workspace=trained.workspace)
    assert proof.verdict == "intact"
    assert "there is nothing" in row(proof, "test split").figure


def test_other_versions_cannot_export_the_same_bytes(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = model_files.versions
    monkeypatch.setattr(model_files, "versions", lambda: {**real(), "onnxscript": "0.0"})
    proof = pipeline.validate(trained.model, workspace=trained.workspace)
    assert proof.verdict == "intact"
    assert row(proof, "exported again").figure.endswith("here 0.0")


@pytest.mark.parametrize(
    ("options", "shape", "opset", "ir"),
    [
        pytest.param({"opset": "20"}, ["batch", 1, 8, 8], 20, 9, marks=pytest.mark.slow),
        ({"opset": "21", "layout": "nhwc"}, ["batch", 8, 8, 1], 21, 10),
        pytest.param({"batch": 3}, [3, 1, 8, 8], 18, 8, marks=pytest.mark.slow),
        ({"target": "coreml", "layout": "nhwc"}, [1, 8, 8, 1], 18, 8),
    ],
)
def test_other_forms_of_the_file_are_proved_too(
    trained: Any, tmp_path: Path, options: dict[str, Any], shape: list[Any], opset: int, ir: int
) -> None:
    path = tmp_path / "other.onnx"
    found = pipeline.export(
        trained.finetuned, path, config=ExportConfig(**options), workspace=trained.workspace
    )
    assert found.proof.passed
    file = open_model(path)
    assert (file.card.shape, file.opset, file.model.ir_version) == (shape, opset, ir)
    assert pipeline.validate(path, workspace=trained.workspace).passed
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    plain = open_session(trained.model).run(images)[1]
    np.testing.assert_allclose(open_session(path).run(images)[1], plain, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "onnxruntime-1.15", "opset": "20"}, "loads up to 18, not 20"),
        ({"target": "coreml", "batch": 2}, "wants 1, not 2"),
        ({"int8": True, "fp16": True}, "exclude each other"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    trained: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadOption, match=words):
        pipeline.export(
            trained.finetuned, config=ExportConfig(**options), workspace=trained.workspace
        )


def test_a_runtime_that_is_not_there_is_told(trained: Any, monkeypatch: Any) -> None:
    from zoo.export.runtimes import catalogue

    monkeypatch.setattr(catalogue, "workers", lambda name: [])
    monkeypatch.setattr("zoo.export.runtimes.running.workers", lambda name: [])
    with pytest.raises(ProofError, match=r"tract: not installed. Type: pip.*--partial"):
        pipeline.export(trained.finetuned, runtimes=["tract"], workspace=trained.workspace)
    with pytest.raises(UnknownName, match=r"Unknown runtime 'tracked'. Did you mean 'tract'"):
        pipeline.export(trained.finetuned, runtimes=["tracked"], workspace=trained.workspace)


def test_predicting_needs_neither_torch_nor_onnx(trained: Any, zoo: Any, tmp_path: Path) -> None:
    import subprocess
    import sys

    from PIL import Image

    Image.effect_noise((50, 40), 90).save(tmp_path / "x.png")
    code = (
        "import sys, zoo.pipeline as p; "
        f"print(p.predict({str(trained.model)!r}, [{str(tmp_path / 'x.png')!r}])[0].label); "
        "assert not {'torch', 'onnx', 'torchvision'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() in "0123456789"


def test_predictions_are_those_of_pytorch(trained: Any, tmp_path: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    from zoo.pipeline.evaluation import load_classifier

    digits = load_digits()
    pictures, tensors = [], []
    for index in (3, 500, 1700):
        pixels = np.round(digits.images[index] * 255 / 16).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        pictures.append(tmp_path / f"{index}.png")
        tensors.append(torch.from_numpy(pixels)[None])
    model, _ = load_classifier(trained.finetuned, trained.workspace)
    with torch.no_grad():
        expected = model(torch.stack(tensors)).softmax(1)
    found = pipeline.predict(trained.model, pictures)
    for prediction, row in zip(found, expected, strict=True):
        assert prediction.label == str(int(row.argmax()))
        assert prediction.probability == pytest.approx(float(row.max()), abs=1e-5)
        assert sum(prediction.classes.values()) == pytest.approx(1, abs=1e-5)
