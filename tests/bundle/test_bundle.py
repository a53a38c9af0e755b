"""The folder of a bundle: what is in it, whole or not there at all, and damage found."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from zoo import drafts, pipeline
from zoo.api import ImageInput, TrainConfig
from zoo.errors import ModelFileError, ZooError
from zoo.export.bundle import contents, golden_files, manifest, model_card, signing
from zoo.export.comparison import SPREAD
from zoo.export.golden import Golden
from zoo.export.runtime import open_session
from zoo.pictures import read_picture
from zoo.pipeline import bundling
from zoo.pipeline.bundling import bundle, bundle_verify

pytestmark = pytest.mark.usefixtures("graphs_kept")

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "bundle.md").read_text(encoding="utf-8")
KEYS = [
    "schema", "sha256", "name", "run", "model", "input", "outputs", "labels", "dataset",
    "metrics", "test_readings", "proved", "license", "components", "versions", "tolerance",
    "golden", "files",
]  # fmt: skip


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def content_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return found


# --- what is in it ---------------------------------------------------------------------------


def test_the_manifest_says_what_the_file_says(bundle_folder: Path, trained: Any) -> None:
    content = content_of(bundle_folder)
    assert list(content) == KEYS
    data = (bundle_folder / "model.onnx").read_bytes()
    assert data == trained.model.read_bytes()
    model = onnx.load_model_from_string(data)
    said = {prop.key: prop.value for prop in model.metadata_props}
    assert content["model"] == {
        "file": "model.onnx",
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "opset": model.opset_import[0].version,
        "ir_version": model.ir_version,
        "precision": said["zoo.precision"],
        "oldest_onnxruntime": "1.15",
    }
    for key in ("labels", "components", "versions", "metrics"):
        assert content[key] == json.loads(said[f"zoo.{key}"])
    assert (content["run"], content["dataset"]) == (said["zoo.run"], said["zoo.dataset"])
    assert content["name"] == "mlp-digits"
    described = json.loads(said["zoo.input"])
    for key in ("layout", "dtype", "range", "channels", "height", "width", "picture"):
        assert content["input"][key] == described[key]
    assert content["input"]["batch"] is None
    assert [port.name for port in model.graph.input] == [content["input"]["name"]]
    assert [port.name for port in model.graph.output] == list(content["outputs"].values())


def test_every_file_is_recorded(bundle_folder: Path) -> None:
    content = content_of(bundle_folder)
    there = tree(bundle_folder)
    assert set(content["files"]) == set(there) - {"model.json"}
    for name, recorded in content["files"].items():
        assert recorded["sha256"] == hashlib.sha256(there[name]).hexdigest(), name
        assert recorded["bytes"] == len(there[name])
    wanted = {"run.py", "requirements.txt", "run.mjs", "package.json", "picture.mjs"}
    wanted |= {"selftest.mjs", "index.html", "page.mjs", "page.css", "README.md", "proof.json"}
    assert wanted <= set(there)
    assert not [name for name in there if name.startswith("ort/") or "__pycache__" in name]


def test_the_seal_is_of_the_bytes_with_its_place_blank(bundle_folder: Path) -> None:
    data = (bundle_folder / "model.json").read_bytes()
    seal = content_of(bundle_folder)["sha256"]
    assert data.count(seal.encode()) == 1
    assert hashlib.sha256(data.replace(seal.encode(), b"0" * 64)).hexdigest() == seal


def test_the_same_file_gives_the_same_bundle(
    bundle_folder: Path, received: Path, tmp_path: Path
) -> None:
    for name in ("once", "again"):
        bundle(received, tmp_path / name, web=False)
    assert tree(tmp_path / "again") == tree(tmp_path / "once")
    # Of a run, what is said of its proof differs, and nothing else.
    pairs = zip(tree(bundle_folder).items(), tree(tmp_path / "once").values(), strict=True)
    differ = {name for (name, one), other in pairs if one != other}
    assert differ == {"README.md", "model.json", "proof.json"}


def test_the_golden_tensors_are_those_of_the_proof(bundle_folder: Path) -> None:
    golden = json.loads((bundle_folder / "golden.json").read_text())
    proof = json.loads((bundle_folder / "proof.json").read_text())
    assert golden["tensors"] == proof["golden"]
    assert golden["tensors"]["shape"] == [16, 1, 8, 8]
    assert len(set(golden["tensors"]["labels"])) == 10


def test_the_golden_pictures(bundle_folder: Path) -> None:
    golden = json.loads((bundle_folder / "golden.json").read_text())
    session = open_session(bundle_folder / "model.onnx")
    size = session.card.input
    assert [entry["file"] for entry in golden["pictures"]] == [k.file for k in golden_files.KINDS]
    for entry in golden["pictures"]:
        path = bundle_folder / entry["file"]
        pixels = read_picture(path, size, invert=entry["invert"])
        assert base64.b64decode(entry["input"]) == pixels.tobytes(), entry["file"]
        _, probabilities = session.run(pixels[None])
        assert np.allclose(probabilities[0], entry["probabilities"], atol=1e-6)
        assert int(np.argmax(probabilities[0])) == entry["label"]
        with Image.open(path) as picture:
            assert min(picture.size) > max(size.height, size.width)
            assert 60 <= max(picture.size) <= 200


def test_each_golden_picture_is_of_its_kind(bundle_folder: Path) -> None:
    found = {}
    for path in (bundle_folder / "golden").iterdir():
        with Image.open(path) as picture:
            found[path.name] = picture.copy()
            found[path.name].info["exif"] = picture.getexif().get(0x0112)
    assert found["grey.png"].mode == "L"
    red, _, blue = np.asarray(found["colour.png"]).transpose(2, 0, 1).astype(int)
    assert (red > blue).any()
    alpha = set(np.asarray(found["transparent.png"])[..., 3].ravel().tolist())
    assert {0, 255} < alpha
    assert found["wide.png"].width > 1.3 * found["wide.png"].height
    assert found["rotated.jpg"].format is None
    assert found["rotated.jpg"].info["exif"] == 6
    assert found["palette.png"].mode == "P"
    deep = np.asarray(found["deep.png"]).astype(np.int64)
    assert deep.max() > 255
    assert (deep % 257).any()
    golden = json.loads((bundle_folder / "golden.json").read_text())["pictures"]
    assert [entry["file"] for entry in golden if entry["invert"]] == ["golden/dark.png"]


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 33, 47), (1, 28, 28), (1, 1, 9)], ids=str)
def test_golden_pictures_of_other_inputs(
    shape: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kind can be drawn from every input, and is read back as recorded."""
    size = ImageInput(channels=shape[0], height=shape[1], width=shape[2])
    inputs = np.random.default_rng(0).integers(0, 256, (16, *shape), dtype=np.uint8)
    even = np.full((16, 1), 1.0, dtype=np.float32)

    class Answers:
        """Stands where a session would: what is tested are the pictures."""

        card = type("Card", (), {"input": size})

        def run(self, images: Any) -> Any:
            assert images.shape == (1, *shape)
            return np.zeros((1, 1)), np.ones((1, 1))

    golden = Golden(inputs, np.zeros(16, dtype=np.int64), even, even)
    golden_files.write(tmp_path, golden, Answers())  # type: ignore[arg-type]
    entries = json.loads((tmp_path / "golden.json").read_text())["pictures"]
    assert len(entries) == 8
    for entry in entries:
        pixels = read_picture(tmp_path / entry["file"], size, invert=entry["invert"])
        assert base64.b64decode(entry["input"]) == pixels.tobytes()


def test_an_input_that_is_no_picture_has_tensors_alone(bundle_folder: Path, tmp_path: Path) -> None:
    golden = Golden(
        np.zeros((16, 2, 8, 8), dtype=np.uint8),
        np.zeros(16, dtype=np.int64),
        *[np.ones((16, 1), dtype=np.float32)] * 2,
    )
    size = ImageInput(channels=2, height=8, width=8)
    card = type("Card", (), {"input": size})
    golden_files.write(tmp_path, golden, type("Session", (), {"card": card})())  # type: ignore[arg-type]
    assert json.loads((tmp_path / "golden.json").read_text())["pictures"] == []
    assert not (tmp_path / "golden").exists()
    facts = content_of(bundle_folder)
    facts["input"]["channels"] = 2
    text = model_card.write(facts, {"rows": []})
    assert "It takes no picture files: those have 1 or 3 channels, not 2." in text
    assert "PICTURE.png" not in text


# --- the card --------------------------------------------------------------------------------


def front_matter(text: str) -> dict[str, Any]:
    head = text.split("---\n")[1]
    pairs = (line.split(": ", 1) for line in head.splitlines())
    return {key: json.loads(value) for key, value in pairs}


def test_the_card_has_the_measured_figures(bundle_folder: Path) -> None:
    text = (bundle_folder / "README.md").read_text(encoding="utf-8")
    proof = json.loads((bundle_folder / "proof.json").read_text())
    accuracy = proof["comparison"]["onnx_accuracy"]
    head = front_matter(text)
    (entry,) = head["model-index"]
    (metric,) = entry["results"][0]["metrics"]
    assert metric["type"] == "accuracy"
    assert metric["value"] == pytest.approx(accuracy)
    assert f"Accuracy {accuracy * 100:.2f} % on all {proof['examples']} examples" in text
    assert (head["library_name"], head["pipeline_tag"]) == ("onnxruntime", "image-classification")
    assert (head["datasets"], head["license"]) == (["digits"], "unknown")
    for row in proof["rows"]:
        assert f"| {row['name']} | {row['status']} |" in text


def test_each_reading_of_the_test_split_is_told(trained: Any, tmp_path: Path) -> None:
    """The count grows from export to export, so it stands beside the file and not in it."""
    before = trained.model.read_bytes()
    pipeline.evaluate(trained.finetuned, workspace=trained.workspace)
    pipeline.export(trained.finetuned, workspace=trained.workspace)
    assert trained.model.read_bytes() == before
    tests = json.loads((trained.finetuned.folder / "run.json").read_text())["tests"]
    counted = {by: sum(test["by"] == by for test in tests) for by in ("evaluate", "export")}
    assert counted == {"evaluate": 1, "export": 2}
    folder = tmp_path / "bundle"
    bundle(trained.model, folder, web=False)
    # Proving it once more is a reading, too.
    assert content_of(folder)["test_readings"] == {**counted, "validate": 1}
    assert "had been read 4 times for this run" in (folder / "README.md").read_text()


def test_a_proof_of_an_older_zoo_tells_no_readings(received: Path, tmp_path: Path) -> None:
    path = received.with_name("proof.json")
    proof = json.loads(path.read_text())
    del proof["test_readings"]
    path.write_text(json.dumps(proof))
    folder = tmp_path / "bundle"
    bundle(received, folder, web=False)
    assert content_of(folder)["test_readings"] is None
    assert "had been read" not in (folder / "README.md").read_text()


def test_a_card_whose_names_are_hostile_stays_a_card(bundle_folder: Path) -> None:
    facts = content_of(bundle_folder)
    facts |= {"dataset": "a: b\n---\n#", "license": 'My "own"', "labels": ["x|y", "`z`"] * 40}
    proof = {"rows": [{"name": "a|b", "status": "passed", "figure": "1\n2"}], "examples": 3}
    text = model_card.write(facts, proof)
    head = front_matter(text)
    assert head["datasets"] == ["a: b\n---\n#"]
    assert (head["license"], head["license_name"]) == ("other", 'My "own"')
    assert "| a\\|b | passed | 1 2 |" in text
    assert "and 30 more" in text


def test_the_hub_reads_the_card(bundle_folder: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    data = hub.ModelCard.load(bundle_folder / "README.md").data
    assert data.eval_results[0].metric_value == pytest.approx(
        content_of(bundle_folder)["metrics"]["accuracy"]
    )


# --- from a run, from a file -----------------------------------------------------------------


def test_a_proved_file_is_not_written_again(trained: Any, tmp_path: Path) -> None:
    before = tree(trained.finetuned.folder)
    made = bundle(trained.finetuned, tmp_path / "b", web=False, workspace=trained.workspace)
    after = tree(trained.finetuned.folder)
    assert {name for name in after if after[name] != before.get(name)} <= {"run.json", ".lock"}
    assert (made.proved_by, made.not_proved) == (trained.finetuned.folder, "")
    assert made.files == len(tree(made.folder))
    assert made.bytes == sum(len(data) for data in tree(made.folder).values())


def test_a_run_without_a_proved_file_is_exported_first(trained: Any, tmp_path: Path) -> None:
    proof = trained.model.with_name("proof.json")
    content = json.loads(proof.read_text())
    proof.write_text(json.dumps(content | {"file_sha256": "0" * 64}))
    bundle("latest", tmp_path / "b", web=False, workspace=trained.workspace)
    sha256 = json.loads(proof.read_text())["file_sha256"]
    assert sha256 == hashlib.sha256(trained.model.read_bytes()).hexdigest()
    assert content_of(tmp_path / "b")["model"]["sha256"] == sha256


def test_a_file_of_another_name(trained: Any, tmp_path: Path) -> None:
    shutil.copy(trained.model, tmp_path / "digits.onnx")
    with pytest.raises(ZooError, match=r"'digits\.proof\.json', is not beside it\. Type: zoo expo"):
        bundle(tmp_path / "digits.onnx", tmp_path / "b", web=False)
    shutil.copy(trained.model.with_name("proof.json"), tmp_path / "digits.proof.json")
    made = bundle(tmp_path / "digits.onnx", tmp_path / "b", web=False)
    assert made.proved_by is None
    assert made.not_proved.startswith(f"run '{trained.finetuned.name}' is neither under '")
    assert bundle_verify(tmp_path / "b").passed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file_sha256": "0" * 64}, "proves another file"),
        ({"verdict": "intact"}, "says 'intact', not 'proved'"),
        ({"verdict": "failed"}, "says 'failed'"),
        ({"verdict": None}, "says 'None'"),
        ({"golden": None}, "has no golden vectors"),
        ({"golden": {"shape": [1]}}, "golden vectors in 'proof.json' are damaged"),
    ],
)
def test_a_file_needs_the_proof_of_its_bytes(
    received: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = received.with_name("proof.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ZooError, match=said):
        bundle(received, tmp_path / "b", web=False)
    assert not (tmp_path / "b").exists()


def test_a_changed_file_is_refused(received: Path, tmp_path: Path) -> None:
    data = bytearray(received.read_bytes())
    data[len(data) // 2] ^= 1
    received.write_bytes(data)
    with pytest.raises(ModelFileError):
        bundle(received, tmp_path / "b", web=False)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"There is no file '.*gone\.onnx'"):
        bundle(tmp_path / "gone.onnx", tmp_path / "b", web=False)


def test_bundling_a_file_alone_loads_no_torch(received: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from zoo.pipeline.bundling import bundle, bundle_verify;"
        "bundle(sys.argv[1], sys.argv[2], web=False); bundle_verify(sys.argv[2]);"
        "assert 'onnx' in sys.modules; assert 'torch' not in sys.modules, 'torch'"
    )
    command = [sys.executable, "-c", code, str(received), str(tmp_path / "b")]
    assert subprocess.run(command, capture_output=True, text=True).stderr == ""


def test_the_verb_loads_nothing_heavy() -> None:
    code = "import zoo.cli.bundle, sys; print(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "onnx", "onnxruntime", "PIL"} & set(found.stdout.split())


# --- whole or not at all ---------------------------------------------------------------------


def test_a_folder_of_somebody_else_is_never_touched(received: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(ZooError, match="not empty and no bundle; nothing was written"):
            bundle(received, folder, web=False, force=force)
    assert tree(folder) == {"thesis.txt": b"years of work"}
    (tmp_path / "file").write_text("x")
    with pytest.raises(ZooError, match="is a file"):
        bundle(received, tmp_path / "file", web=False, force=True)
    with pytest.raises(ZooError, match="mkdir -p"):
        bundle(received, tmp_path / "no" / "where", web=False)


def test_an_empty_folder_is_taken(received: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    bundle(received, tmp_path / "b", web=False)
    assert bundle_verify(tmp_path / "b").passed


def test_an_older_bundle_is_replaced_by_force_alone(
    received: Path, bundle_folder: Path, tmp_path: Path
) -> None:
    (bundle_folder / "README.md").write_text("edited")
    before = tree(bundle_folder)
    with pytest.raises(ZooError, match=r"is a bundle already.*--force"):
        bundle(received, bundle_folder, web=False)
    assert tree(bundle_folder) == before
    (bundle_folder / "notes.txt").write_text("mine")
    with pytest.raises(ZooError, match=r"not of its bundle \(notes\.txt\)"):
        bundle(received, bundle_folder, web=False, force=True)
    (bundle_folder / "notes.txt").unlink()
    bundle(received, bundle_folder, web=False, force=True)
    assert bundle_verify(bundle_folder).passed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle"]


def test_a_link_to_a_folder_is_followed(
    received: Path, bundle_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(bundle_folder)
    bundle(received, tmp_path / "link", web=False, force=True)
    assert (tmp_path / "link").is_symlink()
    assert bundle_verify(bundle_folder).passed


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ZooError])
def test_what_fails_leaves_nothing_and_keeps_the_older(
    received: Path,
    bundle_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    before = tree(tmp_path)

    def fail(*args: Any) -> None:
        raise error("late")

    monkeypatch.setattr(manifest, "write", fail)
    for folder, force in ((tmp_path / "new", False), (bundle_folder, True)):
        with pytest.raises(error):
            bundle(received, folder, web=False, force=force)
    assert tree(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_rename_that_fails_brings_the_older_back(
    received: Path, bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(tmp_path)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == bundle_folder and self.parent.name == "new" and not back:
            back.append(self)
            raise OSError(28, "No space left on device")
        return rename(self, target)

    back: list[Path] = []
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="No space left"):
        bundle(received, bundle_folder, web=False, force=True)
    assert back
    assert tree(tmp_path) == before


# --- what is bundled -------------------------------------------------------------------------


def test_another_runs_file_in_a_runs_folder_is_not_bundled(trained: Any, tmp_path: Path) -> None:
    training = TrainConfig(epochs=1)
    other = pipeline.finetune(trained.pretrained, training=training, workspace=trained.workspace)
    pipeline.export(trained.finetuned, other.model, workspace=trained.workspace)
    with pytest.raises(ZooError, match=f"no export of this run but of '{trained.finetuned.name}'"):
        bundle(other, tmp_path / "new", web=False, workspace=trained.workspace)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["golden"]["probabilities"][0].reverse(), "are not this file's"),
        (lambda p: p["golden"].update(shape=[16, 1, 4, 16]), "are not this file's"),
        (lambda p: p["golden"]["labels"].insert(0, 2**70), "golden vectors .* are damaged"),
        (lambda p: p["rows"][3].update(status="failed"), "rows that did not pass"),
        (lambda p: p["rows"][3].update(status="skipped"), "rows that did not pass"),
        (lambda p: p.update(rows=[1]), "damaged or of an older zoo"),
        (lambda p: p.update(examples="many"), "damaged or of an older zoo"),
    ],
)
def test_a_proof_is_not_believed_blindly(
    received: Path, tmp_path: Path, change: Callable[[Any], Any], words: str
) -> None:
    path = received.with_name("proof.json")
    proof = json.loads(path.read_text())
    change(proof)
    path.write_text(json.dumps(proof))
    with pytest.raises(ZooError, match=words):
        bundle(received, tmp_path / "new", web=False)
    assert not (tmp_path / "new").exists()


def test_a_link_is_no_file_of_a_bundle(bundle_folder: Path, tmp_path: Path) -> None:
    (bundle_folder / "model.onnx").rename(tmp_path / "model.onnx")
    (bundle_folder / "model.onnx").symlink_to(tmp_path / "model.onnx")
    assert bundle_verify(bundle_folder).faults == {"model.onnx": "is a link"}


# --- damage ----------------------------------------------------------------------------------


def test_every_damage_is_found(bundle_folder: Path) -> None:
    assert bundle_verify(bundle_folder).faults == {}
    for name in content_of(bundle_folder)["files"]:
        path = bundle_folder / name
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert set(bundle_verify(bundle_folder).faults) == {name}
        path.unlink()
        assert bundle_verify(bundle_folder).faults == {name: "is missing"}
        path.write_bytes(data)
    (bundle_folder / "ort").mkdir()
    (bundle_folder / "ort" / "more.mjs").write_text("")
    assert bundle_verify(bundle_folder).faults == {"ort/more.mjs": "is not of the bundle"}


def test_every_byte_of_the_manifest_counts(bundle_folder: Path) -> None:
    path = bundle_folder / "model.json"
    data = path.read_bytes()
    for place in range(0, len(data), 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ModelFileError):
            manifest.read(bundle_folder)
    for broken in (b"", b"[]", b"{}", b"null", data[:-40], b"[" * 100_000):
        path.write_bytes(broken)
        with pytest.raises(ModelFileError, match="damaged"):
            manifest.read(bundle_folder)


def test_a_link_out_of_the_bundle_is_a_stranger(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (bundle_folder / "more").symlink_to(tmp_path / "secret")
    assert bundle_verify(bundle_folder).faults == {"more": "is not of the bundle"}


def test_what_running_it_leaves_is_told_and_may_be_replaced(
    received: Path, bundle_folder: Path
) -> None:
    for name in ("node_modules/a/b.js", "node_modules/c.js", "package-lock.json", "__pycache__/r"):
        (bundle_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle_folder / name).write_text("")
    found = bundle_verify(bundle_folder).faults
    assert set(found) == {"__pycache__"}
    assert bundle_verify(bundle_folder).ignored == ["node_modules", "package-lock.json"]
    bundle(received, bundle_folder, web=False, force=True)
    assert bundle_verify(bundle_folder).passed


def test_names_that_lead_out_are_refused(bundle_folder: Path, forge: Callable[..., None]) -> None:
    def change(content: dict[str, Any]) -> None:
        content["files"]["../secret"] = {"sha256": "0" * 64, "bytes": 1}

    forge(bundle_folder, change)
    with pytest.raises(ModelFileError, match="outside its folder"):
        bundle_verify(bundle_folder)


def test_a_newer_schema(bundle_folder: Path, forge: Callable[..., None]) -> None:
    forge(bundle_folder, lambda content: content.update(schema=2))
    with pytest.raises(ModelFileError, match="has schema 2; this zoo reads 1"):
        bundle_verify(bundle_folder)


# --- the command line ------------------------------------------------------------------------


def test_the_verb(cli: Callable[..., Any], trained: Any, tmp_path: Path) -> None:
    made = cli("bundle", trained.model, "-o", "b", "--no-web", "--json")
    assert made.exit_code == 0, made.stderr
    assert json.loads(made.stdout)["files"] == len(tree(tmp_path / "b"))
    assert "Its license is 'unknown'" in made.stderr
    assert "zoo export RUN --license MIT" in made.stderr
    again = cli("bundle", trained.finetuned.name, "-o", "b", "--no-web", "--runs", trained.runs)
    assert again.exit_code == 1
    assert "--force" in again.stderr
    forced = cli("bundle", trained.model, "-o", "b", "--no-web", "--force")
    assert "without the page's runtime" in forced.stdout
    sound = cli("bundle", "--verify", "b")
    assert sound.exit_code == 0
    assert f"{len(tree(tmp_path / 'b'))} files as recorded" in sound.stdout
    (tmp_path / "b" / "run.py").write_text("print('evil')")
    broken = cli("bundle", "--verify", "b", "--json")
    assert broken.exit_code == 1
    said = json.loads(broken.stdout)
    assert (said["passed"], said["faults"]) == (False, {"run.py": "was changed"})
    assert "NOT AS RECORDED" in cli("bundle", "--verify", "b").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Name one thing to do"),
        (["RUN", "--serve", "b"], "Name one thing to do"),
        (["--serve", "b", "--verify", "b"], "Name one thing to do"),
        (["RUN"], "zoo bundle RUN -o DIR"),
        (["RUN", "-o", "b", "--port", "1"], "--port does not go with RUN or FILE"),
        (["--serve", "b", "--force"], "--force does not go with --serve"),
        (["--verify", "b", "-o", "c"], "--output does not go with --verify"),
        (["RUN", "-o", "b", "--public-key", "k"], "--public-key does not go with RUN or FILE"),
        (["RUN", "-o", "b", "--no-web", "--web-assets", "w"], "exclude each other"),
    ],
)
def test_what_cannot_be_meant(cli: Callable[..., Any], words: list[str], said: str) -> None:
    result = cli("bundle", *words)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize("option", ["--serve", "--verify"])
def test_a_folder_that_is_no_bundle(cli: Callable[..., Any], tmp_path: Path, option: str) -> None:
    (tmp_path / "b").mkdir()
    result = cli("bundle", option, "b")
    assert result.exit_code == 1
    assert "'b' is no bundle: there is no model.json in it." in result.stderr


@pytest.mark.parametrize("option", ["--serve", "--verify"])
def test_a_folder_that_does_not_exist(cli: Callable[..., Any], option: str) -> None:
    result = cli("bundle", option, "nodir")
    assert result.exit_code == 2
    assert "There is no folder 'nodir'." in result.stderr


# --- signatures ------------------------------------------------------------------------------


def test_signing_without_the_package(
    received: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.pem").write_text("")
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(ZooError, match="Type: pip install model-signing pyopenssl"):
        bundle(received, tmp_path / "b", web=False, sign=tmp_path / "key.pem")
    with pytest.raises(ZooError, match=r"There is no key.*Type: openssl ecparam"):
        bundle(received, tmp_path / "b", web=False, sign=tmp_path / "none.pem")
    assert not (tmp_path / "b").exists()


def test_an_unsigned_bundle(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("")
    found = bundle_verify(bundle_folder, public_key=tmp_path / "key")
    assert "is not signed" in found.faults["model.sig"]


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a pair of keys."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(pem, pkcs8, plain))
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, info))
    return private, public


def other_key() -> bytes:
    """Make a key that is on no elliptic curve."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def test_a_signed_bundle(received: Path, tmp_path: Path, forge: Callable[..., None]) -> None:
    for module in ("model_signing", "OpenSSL"):
        pytest.importorskip(module, reason="pip install model-signing pyopenssl")
    private, public = keys(tmp_path, "mine")
    _, stranger = keys(tmp_path, "other")
    folder = tmp_path / "b"
    made = bundle(received, folder, web=False, sign=private)
    assert made.signed
    assert made.files == len(tree(folder))
    assert bundle_verify(folder).passed
    folder = folder.rename(tmp_path / "renamed")
    assert bundle_verify(folder, public_key=public).passed
    assert set(bundle_verify(folder, public_key=stranger).faults) == {"model.sig"}
    # Whoever changes a file and all sums has no key to sign them with.
    (folder / "run.py").write_text("print('evil')")
    forge(folder)
    assert bundle_verify(folder).passed
    assert set(bundle_verify(folder, public_key=public).faults) == {"model.sig"}
    (folder / "model.sig").write_text("{}")
    assert set(bundle_verify(folder, public_key=public).faults) == {"model.sig"}
    rsa = tmp_path / "rsa.pem"
    rsa.write_bytes(other_key())
    for key in (public, rsa):  # told before the work: there is no such file
        with pytest.raises(ZooError, match=r"is no private key.*Type: openssl ecparam"):
            bundle(tmp_path / "gone.onnx", tmp_path / "c", web=False, sign=key)
    assert not (tmp_path / "c").exists()
    with pytest.raises(ZooError, match="is no public key"):
        signing.check(folder, private)


# --- the page of the docs --------------------------------------------------------------------


def typed(text: str) -> list[list[str]]:
    """Return the command lines of the page's shell blocks, comments cut off."""
    found = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in found for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_the_commands_of_the_page(
    cli: Callable[..., Any], trained: Any, tmp_path: Path, runner: Callable[..., Any]
) -> None:
    Image.effect_noise((40, 30), 80).save(tmp_path / "PICTURE.png")
    ran = []
    for words in typed(PAGE):
        if words[:2] == ["zoo", "bundle"] and "--no-web" in words and "--sign" not in words:
            result = cli(*words[1:])
            assert result.exit_code == 0, result.stderr
            ran.append("bundle")
        elif words[:3] == ["zoo", "bundle", "--verify"] and "--public-key" not in words:
            assert cli(*words[1:]).exit_code == 0
            ran.append("verify")
        elif words[0] == "python":
            done = runner(tmp_path / words[1].split("/")[0], *words[2:])
            assert done.returncode == 0, done.stderr
            ran.append("python")
    assert ran.count("python") >= 2
    assert {"bundle", "verify"} <= set(ran)


def test_the_python_of_the_page(bundle_folder: Path, tmp_path: Path) -> None:
    bundle_folder.rename(tmp_path / "digits-bundle")
    shutil.copy(tmp_path / "digits-bundle" / "golden" / "grey.png", tmp_path / "PICTURE.png")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    content = json.loads((tmp_path / "digits-bundle" / "golden.json").read_text())
    assert done.stderr == ""
    assert done.stdout.strip() == str(content["pictures"][0]["label"])


def test_the_page_names_every_file(bundle_folder: Path) -> None:
    there = {name.split("/")[0] for name in tree(bundle_folder)} | {"ort"}
    assert not [name for name in there if f"`{name}" not in PAGE]


def test_the_page_states_the_tolerances() -> None:
    for precision, bound in SPREAD.items():
        assert f"{precision} {bound:g}" in PAGE


def test_the_twin_is_public() -> None:
    assert pipeline.bundle is bundling.bundle  # type: ignore[attr-defined,unused-ignore]


def test_a_bundle_that_was_put_aside_by_a_killed_process_is_not_replaced_unasked(
    bundle_folder: Path,
) -> None:
    before = sorted(each.name for each in bundle_folder.iterdir())
    draft = bundle_folder.with_name(f"{drafts.PREFIX}{drafts.host()}-killed")
    (draft / drafts.OLDER).mkdir(parents=True)
    bundle_folder.rename(draft / drafts.OLDER / bundle_folder.name)
    with pytest.raises(ZooError, match="--force"):
        contents.check_target(bundle_folder)
    assert sorted(each.name for each in bundle_folder.iterdir()) == before
    assert not draft.exists()
    assert contents.check_target(bundle_folder, force=True) == bundle_folder
