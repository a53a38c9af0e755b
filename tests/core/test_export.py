"""Export and proof: what the file holds, and which damage the proof finds."""

from __future__ import annotations

import dataclasses
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
from zoo.errors import ModelFileError, PluginFault, ProofError, RunError
from zoo.export.card import Card, from_metadata
from zoo.export.graph import to_onnx
from zoo.export.proof import BATCH_SIZES, _compare, prove
from zoo.export.runtime import open_session
from zoo.models import Classifier, Preprocess
from zoo.pipeline import Workspace, exporting

CARD = Card(
    run="run",
    labels=["a", "b", "c"],
    input=ImageInput(channels=3, height=9, width=7),
    components={"backbone": {"name": "x"}},
    metrics={"accuracy": 0.5},
    weights_sha256="0" * 64,
    versions={"plugzoo": "0.1.0"},
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


def run_file(data: bytes, images: np.ndarray[Any, Any]) -> Any:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})


@pytest.mark.parametrize(
    ("source", "target"),
    [((3, 9, 7), (3, 9, 7)), ((1, 8, 8), (3, 12, 10)), ((3, 20, 9), (1, 7, 7))],
)
@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_the_graph_is_the_classifier_preprocessing_included(
    source: tuple[int, ...], target: tuple[int, ...], batch: int
) -> None:
    names = ("channels", "height", "width")
    stored = ImageInput(**dict(zip(names, source, strict=True)))
    built = ImageInput(**dict(zip(names, target, strict=True)))
    model = classifier(stored, built, Preprocessing(mean=(0.4,), std=(0.2,)))
    data = to_onnx(model, stored, dataclasses.replace(CARD, input=stored))
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
        "range": [0, 255],
    }  # fmt: skip
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


def test_a_card_survives_the_metadata() -> None:
    assert from_metadata(CARD.to_metadata(), "x.onnx") == CARD


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("zoo.schema", None, "was not exported by zoo"),
        ("zoo.schema", "99", "schema 99; this zoo reads 1"),
        ("zoo.labels", None, "is damaged"),
        ("zoo.labels", "[1, 2]", "is damaged"),
        ("zoo.input", "{}", "is damaged"),
        ("zoo.input", "not json", "is damaged"),
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
        (not_a_number, "finite outputs"),
        (swap_label_names, "class names"),
        (boast, "accuracy as recorded"),
        (foreign_weights, "weights are the run's"),
        (another_run, "metadata as the run records"),
        (
            lie("zoo.components", lambda c: {**c, "backbone": {"name": "vit-giant"}}),
            "metadata as the run records",
        ),
        (lie("zoo.versions", lambda v: {**v, "torch": "1.0"}), "metadata as the run records"),
        (lie("zoo.metrics", lambda m: {**m, "top5": 0.999}), "metadata as the run records"),
    ],
)
def test_the_proof_finds_the_damage(trained: Any, damage: Damage, row: str) -> None:
    model = exported_model(trained)
    damage(model)
    onnx.save(model, trained.model)
    run = trained.finetuned.folder
    proof = pipeline.validate(trained.model, run=run, workspace=trained.workspace)
    assert not proof.passed
    assert row in [failed.name for failed in proof.failures]
    json.dumps(proof.to_json(), allow_nan=False)


@pytest.mark.parametrize("what", ["labels", "input"])
def test_metadata_that_contradicts_the_graph_is_refused(trained: Any, what: str) -> None:
    model = exported_model(trained)
    for prop in model.metadata_props:
        if prop.key == f"zoo.{what}":
            content = json.loads(prop.value)
            changed = content[:-1] if what == "labels" else {**content, "width": 9}
            prop.value = json.dumps(changed)
    onnx.save(model, trained.model)
    with pytest.raises(ModelFileError, match="contradicts itself"):
        open_session(trained.model)


@pytest.mark.parametrize("damage", [{"dtype": "float32"}, {"range": [0, 1]}, {"layout": "NHWC"}])
def test_an_input_described_as_another_one_is_refused(trained: Any, damage: Any) -> None:
    model = exported_model(trained)
    lie("zoo.input", lambda described: {**described, **damage})(model)
    onnx.save(model, trained.model)
    with pytest.raises(ModelFileError, match="is damaged"):
        open_session(trained.model)


def test_weights_in_a_second_file_are_refused(trained: Any, monkeypatch: Any) -> None:
    """onnxruntime would read them from wherever it is started, and no hash covers them."""
    folder = trained.model.parent
    monkeypatch.chdir(folder)
    onnx.save(exported_model(trained), "ext.onnx", save_as_external_data=True, location="ext.data",
              size_threshold=0)  # fmt: skip
    with pytest.raises(ModelFileError, match=r"its weights lie in another|cannot|load"):
        pipeline.validate(folder / "ext.onnx", workspace=trained.workspace)


@pytest.mark.parametrize("size", BATCH_SIZES)
def test_every_batch_size_is_run(trained: Any, size: int) -> None:
    """Also those larger than the split; a file that is wrong at one of them alone is refused."""
    session = open_session(trained.model)
    seen: list[int] = []

    class Watched:
        def run(self, names: Any, feed: Any) -> Any:
            count = len(feed["image"])
            seen.append(count)
            logits, probabilities = session.session.run(names, feed)
            return logits + (1.0 if count == size else 0.0), probabilities

    reference = exporting._reference(trained.finetuned, trained.workspace, "test")
    few = dataclasses.replace(
        reference, images=reference.images[:30], labels=reference.labels[:30],
        logits=reference.logits[:30],
    )  # fmt: skip
    found = _compare(dataclasses.replace(session, session=Watched()), few)
    assert set(BATCH_SIZES) <= set(seen)
    assert found is not None
    assert found.max_logit_difference > 0.9


def test_branches_are_stripped_too() -> None:
    from onnx import TensorProto, helper

    from zoo.export.graph import _strip

    inner_node = helper.make_node("Identity", ["x"], ["y"], doc_string="/home/me/model.py")
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    inner = helper.make_graph([inner_node], "branch", [], [out])
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    end = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph([node], "g", [condition, value], [end]))
    assert b"/home/me" in model.SerializeToString()
    _strip(model)
    assert b"/home/me" not in model.SerializeToString()


def test_a_frozen_batch_is_found(trained: Any) -> None:
    model = exported_model(trained)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, trained.model)
    with pytest.raises(ModelFileError, match="cannot run"):
        pipeline.validate(trained.model, workspace=trained.workspace)


def test_what_is_not_proved_is_not_written(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_export = to_onnx

    def buggy_export(*given: Any) -> bytes:
        model = onnx.load_model_from_string(true_export(*given))
        scale_a_layer(model)
        return bytes(model.SerializeToString())

    monkeypatch.setattr(exporting, "to_onnx", buggy_export)
    before = trained.model.read_bytes()
    with pytest.raises(ProofError, match=r"No file was written: .*logits"):
        pipeline.export(trained.finetuned, workspace=trained.workspace)
    assert trained.model.read_bytes() == before
    with pytest.raises(ProofError):
        pipeline.export(trained.finetuned, tmp_path / "new.onnx", workspace=trained.workspace)
    left = {path.name for path in (*tmp_path.iterdir(), *trained.finetuned.folder.iterdir())}
    assert not [name for name in left if name.startswith(("new", ".new", ".model"))]


def test_ties_are_told_apart_from_flips(trained: Any) -> None:
    """A label may differ only where PyTorch's two best are nearer than twice the bound."""
    workspace = trained.workspace
    reference = exporting._reference(trained.finetuned, workspace, "test")
    logits = reference.logits.copy()
    order = np.argsort(logits, axis=1)
    rows = np.arange(len(logits))
    best, second = order[:, -1], order[:, -2]
    middle = (logits[rows, best] + logits[rows, second]) / 2
    tied = logits.copy()
    # Example 0: both at the same height, the second one ahead by less than anything measurable.
    tied[0, best[0]], tied[0, second[0]] = middle[0], np.nextafter(middle[0], np.inf)
    proof = prove(trained.model, dataclasses.replace(reference, logits=tied))
    assert proof.comparison is not None
    assert proof.comparison.ties == 1
    assert next(row for row in proof.rows if row.name == "same label").passed


def test_a_classifier_that_cannot_be_exported_says_why() -> None:
    class Branching(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            flat = inputs.flatten(1)[:, :5]
            return flat if flat.sum() > 0 else -flat

    shape = CARD.input
    model = Classifier(Preprocess(shape, shape, Preprocessing()), Branching(), nn.Linear(5, 3))
    with pytest.raises(PluginFault, match="cannot be exported"):
        to_onnx(model, shape, CARD)


def test_validate_finds_the_run_or_says_where_it_looked(trained: Any, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.onnx"
    moved.write_bytes(trained.model.read_bytes())
    assert pipeline.validate(moved, workspace=trained.workspace).passed
    nowhere = Workspace(runs=tmp_path / "none")
    with pytest.raises(RunError, match=r"neither in its folder nor under .*--run FOLDER"):
        pipeline.validate(moved, workspace=nowhere)
    assert pipeline.validate(moved, run=trained.finetuned.folder, workspace=nowhere).passed


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
