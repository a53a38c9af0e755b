"""The bundle's page in a real headless browser: drawn on, given pictures, damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from zoo import pipeline
from zoo.api import Component, ImageInput, TrainConfig
from zoo.export.bundle import contents, manifest, serving
from zoo.export.card import Card
from zoo.export.modelfile import open_model
from zoo.export.seal import seal
from zoo.pictures import read_picture
from zoo.pipeline import Workspace
from zoo.pipeline.bundling import bundle

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
DRIVER = Path(__file__).with_name("driver.mjs")
MODULES = Path(os.environ.get("ZOO_NODE_MODULES") or ROOT / "node_modules").resolve()
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = os.environ.get("ZOO_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)

DIGITS = {
    "0": [[(0.5, 0.18), (0.36, 0.26), (0.3, 0.42), (0.3, 0.6), (0.37, 0.76), (0.5, 0.83),
           (0.63, 0.76), (0.7, 0.6), (0.7, 0.42), (0.63, 0.26), (0.5, 0.18)]],
    "1": [[(0.5, 0.18), (0.5, 0.34), (0.5, 0.5), (0.5, 0.66), (0.5, 0.82)]],
    "3": [[(0.32, 0.28), (0.42, 0.2), (0.58, 0.21), (0.65, 0.32), (0.58, 0.44), (0.47, 0.48),
           (0.6, 0.53), (0.68, 0.65), (0.6, 0.77), (0.44, 0.82), (0.3, 0.75)]],
    "4": [[(0.58, 0.2), (0.46, 0.38), (0.32, 0.58), (0.5, 0.58), (0.72, 0.58)],
          [(0.6, 0.4), (0.6, 0.6), (0.6, 0.82)]],
    "7": [[(0.3, 0.22), (0.44, 0.22), (0.58, 0.22), (0.7, 0.22), (0.62, 0.4), (0.54, 0.58),
           (0.48, 0.7), (0.44, 0.82)]],
}  # fmt: skip
"""Strokes as a person would draw them; points in units of the pad."""

Told = list[dict[str, Any]]
Drive = Callable[..., Any]


@pytest.fixture(scope="module")
def drive() -> Drive:
    """Take a browser through steps; return what was seen after each, requests and errors."""
    needed = ("puppeteer-core", "onnxruntime-web")
    absent = [name for name in needed if not (MODULES / name).is_dir()]
    if shutil.which("node") is None or BROWSER is None or absent:
        pytest.skip(
            f"absent: {absent or 'Node or Chromium'}; ZOO_NODE_MODULES names a node_modules folder"
        )

    def run(*steps: dict[str, Any]) -> Any:
        given = json.dumps({"modules": str(MODULES), "browser": BROWSER, "steps": steps})
        done = subprocess.run(
            ["node", str(DRIVER)], input=given, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["errors"] == []
        return found

    return run


@pytest.fixture(scope="module")
def served() -> Iterator[Callable[[Path], str]]:
    """Serve folders as `zoo bundle --serve` does: `served(folder)` is the address."""
    servers = []

    def start(folder: Path) -> str:
        names = frozenset({*manifest.read(folder)["files"], manifest.NAME})
        server = serving.Server(folder.resolve(), names, 0)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://{serving.HOST}:{server.server_address[1]}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def train_and_bundle(folder: Path) -> None:
    workspace = Workspace(runs=folder / "runs")
    run = pipeline.finetune(
        backbone=Component("conv", channels=(24, 48)),
        dataset="digits",
        training=TrainConfig(epochs=30, threads=1),
        workspace=workspace,
    )
    made = folder / "bundle"
    bundle(run, made, web_assets_from=MODULES / "onnxruntime-web", workspace=workspace)


@pytest.fixture(scope="module")
def whole(drive: Drive, made_once: Callable[..., Path]) -> Path:
    """A bundle of a good classifier of digits, `ort/` included."""
    return made_once(train_and_bundle) / "bundle"


@pytest.fixture
def page(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def answers(folder: Path, pixels: list[int]) -> np.ndarray[Any, Any]:
    """Have onnxruntime in Python answer the bytes of the page's preview, RGBA."""
    rgba = np.array(pixels, dtype=np.uint8).reshape(8, 8, 4)
    assert (rgba[..., 3] == 255).all()
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    found: np.ndarray[Any, Any] = session.run(
        ["probabilities"], {"image": rgba[None, None, ..., 0]}
    )[0]
    return found[0]


def test_a_digit_drawn_with_the_mouse_is_read_while_it_is_drawn(
    whole: Path, drive: Drive, served: Callable[[Path], str]
) -> None:
    url = served(whole)
    steps: list[dict[str, Any]] = [{"act": "open", "url": url}]
    for strokes in DIGITS.values():
        steps += [{"act": "click", "what": "#clear"}] if len(steps) > 1 else []
        steps.append({"act": "draw", "strokes": strokes, "pause": 1200})
    found = drive(*steps)
    idle, *told = found["told"]
    assert (idle["label"], idle["probabilities"], idle["trouble"]) == ("?", [None] * 10, "")
    assert all(address.startswith((url, "data:,")) for address in found["requests"])
    for digit, seen in zip(DIGITS, (one for one in told if one["along"]), strict=True):
        along = np.array(seen["along"], dtype=float)
        assert np.abs(along.sum(axis=1) - 1).max() < 1e-4
        # The bars move with the pen; a line that grows is the same line once it is centred.
        moved = np.abs(np.diff(along, axis=0)).max(axis=1) > 1e-6
        assert digit == "1" or moved.mean() > 0.7, digit
        assert np.abs(answers(whole, seen["pixels"]) - seen["probabilities"]).max() < 1e-4
        assert seen["label"] == seen["order"][0] == digit
        ranking = np.argsort(-np.array(seen["probabilities"]), kind="stable")
        assert seen["order"] == [str(i) for i in ranking]
        assert seen["spoken"] == f"{digit}, {seen['share']}"
        assert seen["time"].endswith(" ms")


def test_a_drawing_is_centred_unless_one_says_otherwise(
    whole: Path, drive: Drive, served: Callable[[Path], str]
) -> None:
    small = [[(x / 3, y / 3) for x, y in stroke] for stroke in DIGITS["7"]]
    told = drive(
        {"act": "open", "url": served(whole)},
        {"act": "draw", "strokes": small},
        {"act": "click", "what": "#centre"},
        {"act": "click", "what": "#invert"},
    )["told"][1:]
    centred, plain, inverted = (np.array(one["pixels"]).reshape(8, 8, 4)[..., 0] for one in told)
    assert (told[0]["label"], centred[4:].max() > 100) == ("7", True)
    assert plain[4:].max() == plain[:, 4:].max() == 0 < plain.max()
    # Inverted, the pad is light and the pen dark, and the model gets the very same.
    assert np.abs(inverted - plain).max() <= 1


def test_undo_clear_and_the_keyboard(
    whole: Path, drive: Drive, served: Callable[[Path], str]
) -> None:
    told = drive(
        {"act": "open", "url": served(whole)},
        {"act": "draw", "strokes": DIGITS["4"]},
        {"act": "click", "what": "#undo"},
        {"act": "press", "keys": ["Control", "z"]},
        {"act": "draw", "strokes": DIGITS["1"]},
        {"act": "press", "keys": ["Escape"]},
    )["told"]
    two, one, none, drawn, cleared = (seen["probabilities"] for seen in told[1:])
    assert None not in two
    assert None not in one
    assert one != two
    assert none == cleared == [None] * 10
    assert None not in drawn


def test_a_picture_is_taken_by_the_rule_however_it_comes(
    whole: Path, drive: Drive, served: Callable[[Path], str], tmp_path: Path
) -> None:
    golden = json.loads((whole / "golden.json").read_text())["pictures"]
    light = tmp_path / "light.png"
    Image.open(whole / golden[0]["file"]).point(lambda v: 255 - v).save(light)
    files = [whole / entry["file"] for entry in golden[:4]]
    (tmp_path / "notes.png").write_text("no picture")
    told = drive(
        {"act": "open", "url": served(whole)},
        {"act": "choose", "file": str(files[0])},
        {"act": "drop", "file": str(files[1])},
        {"act": "drop", "file": str(files[2]), "by": "paste"},
        {"act": "drop", "file": str(files[3])},
        {"act": "drop", "file": str(light)},
        {"act": "click", "what": "#invert"},
        {"act": "drop", "file": str(tmp_path / "notes.png")},
    )["told"][1:]
    size = ImageInput(channels=1, height=8, width=8)
    cases = [*((file, False) for file in files), (light, False), (light, True)]
    for seen, (file, invert) in zip(told, cases, strict=False):
        wanted = read_picture(file, size, invert=invert)
        found = np.array(seen["pixels"]).reshape(8, 8, 4)[..., 0]
        assert np.abs(found - wanted[0]).max() <= 1, file.name
        assert np.abs(answers(whole, seen["pixels"]) - seen["probabilities"]).max() < 1e-4
        assert seen["trouble"] == ""
    assert [seen["advice"] for seen in told[3:6]] == ["", "(light ground?)", ""]
    assert told[-1]["trouble"].startswith("“notes.png” is no readable picture: ")


def test_the_selftest_says_yes_and_what_it_checked(
    whole: Path, drive: Drive, served: Callable[[Path], str]
) -> None:
    found = drive({"act": "open", "url": served(whole) + "?selftest"}, {"act": "selftest"})
    seen = found["told"][-1]
    assert seen["selftest"] == "yes"
    assert {kind for kind, _ in seen["checks"]} == {"passed"}
    pictures = json.loads((whole / "golden.json").read_text())["pictures"]
    assert len(seen["checks"]) == 6 + len(pictures)
    for entry in pictures:
        text = next(text for _, text in seen["checks"] if entry["file"] in text)
        assert "the same bytes" in text or entry["file"].endswith(".jpg"), text


@pytest.mark.parametrize("name", ["model.onnx", "golden.json", "golden/grey.png"])
def test_one_flipped_byte_is_found(
    page: Path, drive: Drive, served: Callable[[Path], str], name: str
) -> None:
    data = bytearray((page / name).read_bytes())
    data[len(data) // 2] ^= 1
    (page / name).write_bytes(data)
    told = drive(
        {"act": "open", "url": served(page)},
        {"act": "click", "what": "#selftest"},
        {"act": "selftest"},
    )["told"]
    assert told[-1]["selftest"] == "no"
    assert any(kind == "failed" and name in text for kind, text in told[-1]["checks"])
    changed = "model.onnx is not the file that model.json describes: it was changed."
    assert told[0]["trouble"] == (changed if name == "model.onnx" else "")


@pytest.mark.parametrize(
    ("absent", "said"),
    [("ort", "The folder ort/ is missing"), ("model.json", "model.json is missing")],
)
def test_what_is_missing_is_said_on_the_page(
    page: Path, drive: Drive, served: Callable[[Path], str], absent: str, said: str
) -> None:
    url = served(page)
    (shutil.rmtree if (page / absent).is_dir() else os.unlink)(page / absent)
    seen = drive({"act": "open", "url": url})["told"][0]
    assert seen["trouble"].startswith(said)
    assert seen["label"] == "?"


def test_opened_as_a_file_it_says_how_to_serve_it(whole: Path, drive: Drive) -> None:
    seen = drive({"act": "open", "url": (whole / "index.html").as_uri()})["told"][0]
    assert seen["unserved"]


def test_the_page_states_the_facts_and_fits_every_screen(
    whole: Path, drive: Drive, served: Callable[[Path], str]
) -> None:
    sizes = [(390, 844), (320, 568), (820, 1180), (1280, 800), (844, 390)]
    resized = [{"act": "resize", "width": w, "height": h, "pause": 50} for w, h in sizes]
    told = drive(
        {"act": "open", "url": served(whole)},
        {"act": "draw", "strokes": DIGITS["0"]},
        {"act": "click", "what": "#selftest"},
        {"act": "selftest"},
        *resized,
    )["told"]
    assert [seen["overflow"] for seen in told] == [0] * len(told)
    assert {seen["unnamed"] for seen in told} == {0}
    content = json.loads((whole / "model.json").read_text())
    accuracy = content["metrics"]["accuracy"]
    facts = ("digits", f"{accuracy * 100:.2f} %", f"{content['model']['bytes']:,} bytes", "fp32")
    assert all(fact in told[0]["facts"] for fact in (*facts, content["model"]["sha256"][:12]))
    assert manifest.HERE in told[0]["facts"]
    assert told[0]["hint"].startswith("Draw a digit")


# --- a model of colours ----------------------------------------------------------------------


def colours(folder: Path, channels: int = 3) -> Path:
    """Write a bundle whose model says which of red, green and blue there is most of; 6 x 9."""
    card = Card(
        run="none",
        labels=["mostly red", "mostly green", "mostly blue"][:channels],
        input=ImageInput(channels=channels, height=6, width=9),
        components={"dataset": {"name": "made up"}},
        metrics={"accuracy": 0.5},
        weights_sha256="",
        versions={},
        license="MIT",
    )
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["logits"], keepdims=0),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, card.shape)
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels])
        for name in ("logits", "probabilities")
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    graph = helper.make_graph(nodes, "colours", [image], outputs, [axes])
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    helper.set_model_props(model, card.to_metadata())
    folder.mkdir()
    for name, data in contents.device_files().items():
        (folder / name).write_bytes(data)
    (folder / "model.onnx").write_bytes(seal(model.SerializeToString()))
    shutil.copytree(MODULES / "onnxruntime-web" / "dist", folder / "ort")
    shape = [0, channels, 6, 9]
    tensors: dict[str, Any] = {"shape": shape, "inputs": "", "probabilities": []}
    (folder / "golden.json").write_text(json.dumps({"tensors": tensors, "pictures": []}))
    manifest.write(folder, contents.describe(open_model(folder / "model.onnx"), "1.15", None))
    return folder


def test_a_model_of_colours_wants_pictures_first_and_can_be_drawn_for(
    drive: Drive, served: Callable[[Path], str], tmp_path: Path
) -> None:
    folder = colours(tmp_path / "colours")
    green = tmp_path / "green.png"
    Image.new("RGB", (50, 80), (10, 200, 60)).save(green)
    idle, dropped, drawn = drive(
        {"act": "open", "url": served(folder)},
        {"act": "drop", "file": str(green)},
        {"act": "draw", "strokes": [[(0.1, 0.1), (0.9, 0.9)]]},
    )["told"]
    assert idle["hint"].startswith("Drop a picture")
    assert "MIT" in idle["facts"]
    assert dropped["label"] == "mostly green"
    assert dropped["pixels"] == [10, 200, 60, 255] * 54
    # Dark on light, and as much of each colour.
    pixels = np.array(drawn["pixels"]).reshape(6, 9, 4)
    assert pixels.max() == 255
    assert pixels[..., :3].min() < 160
    assert drawn["probabilities"] == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_a_model_that_takes_no_pictures_says_so(
    drive: Drive, served: Callable[[Path], str], tmp_path: Path
) -> None:
    (idle,) = drive({"act": "open", "url": served(colours(tmp_path / "two", 2))})["told"]
    assert idle["trouble"].startswith("This model takes no pictures: its input has 2 channels")
    assert idle["hint"].strip() == ""
    assert idle["probabilities"] == [None, None]
