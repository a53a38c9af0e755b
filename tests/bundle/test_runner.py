"""run.py: the Python runner of a bundle, alone and started from anywhere."""

from __future__ import annotations

import ast
import base64
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import vermin
from PIL import Image

from zoo import pictures
from zoo.api import ImageInput
from zoo.errors import ZooError
from zoo.export.bundle.contents import describe, device_files
from zoo.export.card import Card
from zoo.export.modelfile import open_model
from zoo.export.seal import BLANK, KEY, seal
from zoo.pipeline.bundling import bundle
from zoo.pipeline.prediction import predict
from zoo.showing import shown

ROOT = Path(__file__).resolve().parent.parent.parent
RUNNER = ROOT / "zoo" / "export" / "bundle" / "device" / "run.py"
Run = Callable[..., subprocess.CompletedProcess[str]]
Forge = Callable[..., None]


@pytest.fixture(scope="module")
def run() -> ModuleType:
    """run.py as a module."""
    spec = importlib.util.spec_from_file_location("bundle_run", RUNNER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verdict(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line, once status and verdict agree and nothing was said elsewhere."""
    assert done.stderr == ""
    last = done.stdout.splitlines()[-1]
    assert (last, done.returncode) in (("selftest: yes", 0), ("selftest: no", 1)), done.stdout
    return last


def failed(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert verdict(done) == "selftest: no"
    return [line for line in done.stdout.splitlines() if line.startswith("FAILED")]


# --- alone -----------------------------------------------------------------------------------


def test_it_needs_three_packages(bundle_folder: Path) -> None:
    tree = ast.parse(RUNNER.read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    outside = {name for name in names if name not in sys.stdlib_module_names}
    assert outside == {"numpy", "PIL", "onnxruntime"}
    head, *wanted = (bundle_folder / "requirements.txt").read_text().splitlines()
    assert head == "# Python 3.8 or newer"
    assert [line.split(">=")[0] for line in wanted] == ["numpy", "onnxruntime", "Pillow"]


def test_it_runs_on_the_oldest_python_that_its_packages_run_on() -> None:
    """Nothing in it is newer than Python 3.8: neither its syntax, nor a name, nor a keyword."""
    source = RUNNER.read_text()
    ast.parse(source, feature_version=(3, 8))
    assert vermin.detect("list(zip([1], strict=True))")[1] == (3, 10)
    assert vermin.detect(source)[1] <= (3, 8)


def test_an_older_python_is_told_which_it_needs(tmp_path: Path) -> None:
    code = "import sys, runpy; sys.version_info = (3, 7, 16); runpy.run_path(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(RUNNER)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: Python 3.8 or newer is needed; this is 3.7.\n"


def test_a_missing_package_is_one_line(bundle_folder: Path) -> None:
    code = "import sys, runpy; sys.modules['onnxruntime'] = None; runpy.run_path(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle_folder / "run.py")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.endswith("Type: pip install -r requirements.txt\n")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("word", ["selftest", "PICTURE", "--help"])
def test_an_answer_that_cannot_be_written(
    bundle_folder: Path, nowhere: tuple[int, str], word: str
) -> None:
    place, said = nowhere
    picture = str(bundle_folder / "golden" / "grey.png")
    command = [sys.executable, str(bundle_folder / "run.py"), word.replace("PICTURE", picture)]
    done = subprocess.run(command, stdout=place, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == bool(said), done.stderr
    assert done.stderr.startswith(said)


def test_it_shows_names_as_zoo_does(run: ModuleType) -> None:
    letters = [*map(chr, range(0x3000)), "\ud800", "\udcff", "\U0001f600", "\U000e0041"]
    text = "".join(letters)
    assert run.shown(text) == shown(text)
    assert "\\x1b" in run.shown(text)


def test_a_name_is_one_line_of_text(bundle_folder: Path, runner: Run, nasty: Path) -> None:
    lost = nasty.with_name(f"lost{nasty.name}")
    for path, words in ((nasty, ()), (nasty, ("--json",)), (lost, ()), (lost, ("--json",))):
        done = runner(bundle_folder, path, *words)
        said = done.stdout + done.stderr
        assert "u202e" in said
        assert said.isascii()
        assert not {"\x1b", "\r"} & set(said)
        assert words or said.count("\n") == 1
    assert json.loads(runner(bundle_folder, nasty, "--json").stdout)["predictions"][0][
        "picture"
    ] == str(nasty)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_nowhere(bundle_folder: Path, closed: str) -> None:
    command = f'exec "$0" "$1" "$2" {closed}'
    words = [sys.executable, bundle_folder / "run.py", bundle_folder / "golden" / "grey.png"]
    done = subprocess.run(["sh", "-c", command, *words], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
    assert ("%" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.parametrize(
    "program",
    [
        "run.py",
        *(pytest.param(f"zoo {v}", marks=pytest.mark.slow) for v in ("predict", "validate")),
    ],
)
def test_onnxruntime_writes_nothing_about_the_user(
    bundle_folder: Path, tmp_path: Path, program: str
) -> None:
    picture = str(bundle_folder / "golden" / "grey.png")
    command = [sys.executable, str(bundle_folder / "run.py"), picture]
    if program == "zoo predict":
        model = str(bundle_folder / "model.onnx")
        command = [sys.executable, "-m", "zoo", "predict", model, picture]
    elif program == "zoo validate":
        model = str(bundle_folder / "model.onnx")
        command = [sys.executable, "-m", "zoo", "validate", model, "--partial"]
    left = {"CI", "ORT_DISABLE_TELEMETRY"}  # each of which onnxruntime obeys by itself
    env = {name: value for name, value in os.environ.items() if name not in left}
    cache = tmp_path / "cache"
    cache.mkdir()
    env |= {"XDG_CACHE_HOME": str(cache), "HOME": str(cache)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not list(cache.rglob("*onnxruntime*"))


# --- pictures --------------------------------------------------------------------------------


def test_it_says_what_zoo_predict_says(bundle_folder: Path, runner: Run, tmp_path: Path) -> None:
    paths = sorted((bundle_folder / "golden").iterdir())
    for invert in (False, True):
        done = runner(bundle_folder, *paths, "--json", *["--invert"] * invert)
        assert done.stderr == ""
        found = json.loads(done.stdout)["predictions"]
        wanted = predict(bundle_folder / "model.onnx", paths, invert=invert)
        for one, other in zip(found, wanted, strict=True):
            assert (one["picture"], one["label"]) == (other.picture, other.label)
            assert list(one["classes"]) == list(other.classes)
            assert one["probability"] == pytest.approx(other.probability, abs=1e-6)


def test_a_program_reads_the_same_of_both(
    bundle_folder: Path, runner: Run, cli: Callable[..., Any]
) -> None:
    path = bundle_folder / "golden" / "palette.png"
    (mine,) = json.loads(runner(bundle_folder, path, "--json").stdout)["predictions"]
    said = json.loads(cli("predict", bundle_folder / "model.onnx", path, "--json").stdout)
    (theirs,) = said["predictions"]
    assert list(mine) == list(theirs)
    assert list(mine["classes"]) == list(theirs["classes"])


def test_what_a_person_reads(bundle_folder: Path, runner: Run) -> None:
    path = bundle_folder / "golden" / "grey.png"
    (best,) = predict(bundle_folder / "model.onnx", [path])
    lines = runner(bundle_folder, path).stdout.splitlines()
    assert lines == [f"{path}  {best.label}  {best.probability * 100:.2f} %"]
    three = runner(bundle_folder, "--top=3", path).stdout.splitlines()
    assert [line.split()[1] for line in three] == list(best.classes)[:3]
    assert runner(bundle_folder, path, "--top", "99").stdout.count("\n") == 10


def many_pictures(folder: Path) -> Iterator[Path]:
    """Write pictures of every mode, format, rotation and size that Pillow has here."""
    random = np.random.default_rng(3)
    for height, width in ((40, 30), (9, 31), (8, 8), (1, 50), (3, 2), (57, 91)):
        colour = Image.fromarray(random.integers(0, 256, (height, width, 4), dtype=np.uint8))
        deep = random.integers(0, 65536, (height, width))
        made: dict[str, Any] = {
            f"{mode}.png": colour.convert("RGB").convert(mode)
            for mode in ("1", "L", "LA", "P", "RGB")
        }
        clear = colour.quantize(16)
        made |= {"RGBA.png": colour, "RGBA.webp": colour, "clear.png": clear, "clear.gif": clear}
        made |= {"CMYK.jpg": colour.convert("CMYK"), "YCbCr.jpg": colour.convert("YCbCr")}
        made |= {"L.bmp": colour.convert("L"), "RGB.tif": colour.convert("RGB")}
        made["16.png"] = Image.fromarray(deep.astype(np.uint16))
        made["16.tif"] = made["16.pgm"] = made["16.png"]
        for name, picture in made.items():
            path = folder / f"{height}x{width}-{name}"
            picture.save(path)
            yield path
        for turn in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = turn
            path = folder / f"{height}x{width}-turned{turn}.jpg"
            colour.convert("RGB").save(path, exif=exif)
            yield path


def test_the_picture_rule_is_zoos(run: ModuleType, tmp_path: Path) -> None:
    """The two programs give the same bytes, picture by picture."""
    paths = list(many_pictures(tmp_path))
    assert len(paths) > 130
    for channels, height, width in ((1, 8, 8), (3, 33, 47), (3, 5, 2)):
        size = ImageInput(channels=channels, height=height, width=width)
        said = {"channels": channels, "height": height, "width": width}
        for path in paths:
            for invert in (False, True):
                wanted = pictures.read_picture(path, size, invert=invert)
                found = run.read_picture(path, said, invert=invert)
                assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), path.name
                assert found.tobytes() == wanted.tobytes(), path.name


def body(function: str, path: Path, renamed: dict[str, str]) -> list[str]:
    """Return a function's statements as text, without its docstring and its imports."""
    tree = ast.parse(path.read_text())
    (found,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function)
    for node in ast.walk(found):
        if isinstance(node, ast.Name):
            node.id = renamed.get(node.id, node.id)
    return [ast.unparse(n) for n in found.body[1:] if not isinstance(n, ast.ImportFrom)]


COPIES = [
    "quieten", "too_large", "decode", "held_whole", "open_picture", "orientation", "flatten",
    "range_of", "scaled", "clear_pixels", "low_bytes", "netpbm",
]  # fmt: skip


@pytest.mark.parametrize("name", COPIES)
def test_the_picture_rule_is_zoos_word_for_word(name: str) -> None:
    renamed = {f"_{copy}": copy for copy in COPIES}
    assert body(name, RUNNER, {}) == body(f"_{name}", Path(pictures.__file__), renamed)


@pytest.mark.parametrize("name", ["FORMATS", "NO_FORMAT", "MOST_PIXELS", "MOST_BYTES"])
def test_the_limits_of_a_picture_are_zoos(run: ModuleType, name: str) -> None:
    assert getattr(run, name) == getattr(pictures, name)


def test_the_rule_that_is_written_is_the_one_in_use(bundle_folder: Path) -> None:
    content = json.loads((bundle_folder / "model.json").read_text())
    assert content["input"]["picture"] == pictures.RULE


# --- what is refused -------------------------------------------------------------------------


def test_a_bad_picture_is_one_line(bundle_folder: Path, runner: Run, tmp_path: Path) -> None:
    good = bundle_folder / "golden" / "grey.png"
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:900])
    (tmp_path / "empty.png").write_bytes(b"")
    for path in ("gone.png", "text.png", "cut.png", "empty.png", "bundle"):
        done = runner(bundle_folder, good, tmp_path / path)
        assert (done.returncode, done.stdout) == (1, ""), path
        assert len(done.stderr.splitlines()) == 1
        assert str(tmp_path / path) in done.stderr
        with pytest.raises(ZooError) as other:
            predict(bundle_folder / "model.onnx", [tmp_path / path])
        assert done.stderr == f"Error: {other.value}\n"


def test_pipes_limits_and_other_programs_pictures(
    bundle_folder: Path, runner: Run, tmp_path: Path
) -> None:
    """What is refused without being waited for, held in memory or handed on."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "gs").write_text(f"#!/bin/sh\necho started >> {tmp_path}/log\n")
    (tools / "gs").chmod(0o755)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "eps.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    (tmp_path / "huge.png").touch()
    os.truncate(tmp_path / "huge.png", 2**30 + 1)  # takes no room: it has a hole
    large = bundle_folder / "golden" / "grey.png"
    with Image.open(large) as picture:
        pixels = picture.width * picture.height
    damaged = tmp_path / "damaged.tif"
    Image.linear_gradient("L").save(damaged, compression="tiff_adobe_deflate")
    data = bytearray(damaged.read_bytes())
    data[data.index(b"\x78\x9c")] ^= 255  # where the compressed bytes begin
    damaged.write_bytes(data)
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    limited = {**env, "ZOO_MAX_PIXELS": str(pixels - 1)}
    for path, given, said in (
        (tmp_path / "pipe.png", env, "it is a pipe or a device, not a file."),
        (tmp_path / "eps.jpg", env, f"{pictures.NO_FORMAT}."),
        (tmp_path / "huge.png", env, "it is larger than 1,073,741,824 bytes."),
        (large, limited, f"set ZOO_MAX_PIXELS={pixels}."),
        (damaged, env, "."),
    ):
        done = runner(bundle_folder, path, env=given)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert done.stderr.startswith(f"Error: '{path}' is no readable picture: "), done.stderr
        assert done.stderr.endswith(f"{said}\n"), done.stderr
    assert not (tmp_path / "log").exists()
    wrong = runner(bundle_folder, large, env={**env, "ZOO_MAX_PIXELS": "many"})
    assert wrong.stderr.startswith("Error: ZOO_MAX_PIXELS is 'many'; it takes a whole number")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--top", "0", "x"],
        ["--top"],
        ["--top", "a", "x"],
        ["--wrong", "x"],
        ["--json"],
        ["selftest", "x"],
    ],
)
def test_wrong_usage(bundle_folder: Path, runner: Run, words: list[str]) -> None:
    done = runner(bundle_folder, *words)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_help(bundle_folder: Path, runner: Run) -> None:
    done = runner(bundle_folder, "--help")
    assert done.returncode == 0
    assert "python run.py selftest" in done.stdout


def test_no_changed_model_is_run(bundle_folder: Path, runner: Run, forge: Forge) -> None:
    picture = bundle_folder / "golden" / "grey.png"
    model = bundle_folder / "model.onnx"
    data = model.read_bytes()
    model.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    done = runner(bundle_folder, picture)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not the file that model.json describes" in done.stderr
    forge(bundle_folder)
    assert "do not match its seal" in runner(bundle_folder, picture).stderr
    model.write_bytes(data)
    text = (bundle_folder / "model.json").read_text().replace('"mlp-digits"', '"mlp-digitz"')
    (bundle_folder / "model.json").write_text(text)
    assert "model.json was changed" in runner(bundle_folder, picture).stderr
    model.unlink()
    forge_free = runner(bundle_folder, picture)
    assert len(forge_free.stderr.splitlines()) == 1


# --- the self-test ---------------------------------------------------------------------------


def test_the_self_test(bundle_folder: Path, runner: Run) -> None:
    done = runner(bundle_folder, "selftest")
    assert verdict(done) == "selftest: yes"
    content = json.loads((bundle_folder / "model.json").read_text())
    checked = [line.split()[1].rstrip(":") for line in done.stdout.splitlines()[:-1]]
    assert set(content["files"]) | {"model.json"} <= set(checked)
    assert done.stdout.count("the same bytes") == 8
    assert "golden tensors at batch 16" in done.stdout
    assert "golden tensors at batch 1:" in done.stdout


def test_every_changed_file_fails_it(bundle_folder: Path, runner: Run) -> None:
    for name in ("README.md", "golden/rotated.jpg", "model.onnx", "golden.json", "page.mjs"):
        path = bundle_folder / name
        data = path.read_bytes()
        path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
        assert any(line.startswith(f"FAILED  {name}: was changed") for line in failed(
            runner(bundle_folder, "selftest")
        )), name  # fmt: skip
        path.write_bytes(data)
    (bundle_folder / "golden" / "grey.png").unlink()
    assert any("grey.png: is missing" in x for x in failed(runner(bundle_folder, "selftest")))


def test_another_model_fails_it(bundle_folder: Path, runner: Run, forge: Forge) -> None:
    """Every sum and seal fits; the answers do not."""
    model = onnx.load_model(bundle_folder / "model.onnx")
    weights = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    values = np.frombuffer(weights.raw_data, dtype=np.float32).copy()
    values[: len(values) // 4] *= 1.01
    weights.raw_data = values.tobytes()
    for prop in model.metadata_props:
        if prop.key == KEY:
            prop.value = BLANK.decode()
    (bundle_folder / "model.onnx").write_bytes(seal(model.SerializeToString(deterministic=True)))
    forge(bundle_folder)
    lines = failed(runner(bundle_folder, "selftest"))
    assert any("golden tensors at batch 16" in line for line in lines)
    assert any("golden tensors at batch 1:" in line for line in lines)


def test_logits_that_are_not_finite_fail_it(infinite_logits: Path, runner: Run) -> None:
    """Though every probability is as recorded."""
    lines = failed(runner(infinite_logits, "selftest"))
    assert len(lines) == 10  # the golden tensors at two batch sizes, eight pictures
    assert all(line.endswith("the model's output contains NaN or infinity") for line in lines)
    done = runner(infinite_logits, infinite_logits / "golden" / "grey.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: the model's output contains NaN or infinity.\n"


def golden_changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "golden.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def two_golden_tensors(content: dict[str, Any]) -> None:
    tensors = content["tensors"]
    count = len(base64.b64decode(tensors["inputs"])) // tensors["shape"][0]
    tensors["inputs"] = base64.b64encode(base64.b64decode(tensors["inputs"])[: 2 * count]).decode()
    tensors["shape"][0] = 2
    for name in ("labels", "logits", "probabilities"):
        tensors[name] = tensors[name][:2]


def test_fewer_golden_tensors_are_read_too(bundle_folder: Path, runner: Run, forge: Forge) -> None:
    """As of large inputs: 16 of these would be megabytes."""
    golden_changed(bundle_folder, two_golden_tensors)
    forge(bundle_folder)
    done = runner(bundle_folder, "selftest")
    assert verdict(done) == "selftest: yes"
    assert "golden tensors at batch 2: 2 examples" in done.stdout


def test_wrong_answers_fail_it(bundle_folder: Path, runner: Run, forge: Forge) -> None:
    def nudge(content: dict[str, Any]) -> None:
        content["tensors"]["probabilities"][3][0] += 3e-4

    golden_changed(bundle_folder, nudge)
    forge(bundle_folder)
    lines = failed(runner(bundle_folder, "selftest"))
    assert len(lines) == 2
    assert all("golden tensors" in line and "3.0e-04 off" in line for line in lines)


@pytest.mark.parametrize("how", ["label", "answers", "not a number"])
def test_a_wrong_picture_fails_it(bundle_folder: Path, runner: Run, forge: Forge, how: str) -> None:
    def change(content: dict[str, Any]) -> None:
        entry = content["pictures"][2]
        if how == "label":
            entry["label"] = (entry["label"] + 1) % 10
        else:
            entry["probabilities"][0] = 0.4 if how == "answers" else float("nan")

    golden_changed(bundle_folder, change)
    forge(bundle_folder)
    (line,) = failed(runner(bundle_folder, "selftest"))
    assert "golden/transparent.png" in line


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("zip(model.labels, row)", "zip(model.labels, row, unknown=True)"),
        ("key=lambda pair: -pair[1]", "key=lambda pair: pair[1]"),
        ("probability * 100:.2f} %", "probability * 100:.2f:} %"),
        ("f\"{one['picture']}  {label}", "f\"{one['picture']}: {label}"),
        ('{"predictions": found}, indent', "found, indent"),
    ],
)
def test_what_classifies_is_what_is_tested(
    bundle_folder: Path, runner: Run, forge: Forge, was: str, becomes: str
) -> None:
    """A runner that cannot rank, print or write its answers fails its own test."""
    path = bundle_folder / "run.py"
    assert path.read_text().count(was) == 1
    path.write_text(path.read_text().replace(was, becomes))
    forge(bundle_folder)
    lines = failed(runner(bundle_folder, "selftest"))
    assert "golden tensors at batch" in lines[0] or "golden" not in lines[0]


def test_another_decoder_is_told_and_allowed_for(
    bundle_folder: Path, runner: Run, forge: Forge
) -> None:
    def change(content: dict[str, Any]) -> None:
        entry = content["pictures"][4]
        pixels = np.frombuffer(base64.b64decode(entry["input"]), dtype=np.uint8).astype(int)
        pixels[5] += 2 if pixels[5] < 200 else -2
        entry["input"] = base64.b64encode(pixels.astype(np.uint8).tobytes()).decode()
        entry["probabilities"][0] += 1e-3

    golden_changed(bundle_folder, change)
    forge(bundle_folder)
    done = runner(bundle_folder, "selftest")
    assert verdict(done) == "selftest: yes"
    assert "rotated.jpg: JPEG with an EXIF rotation of 6: bytes up to 2 off" in done.stdout


@pytest.mark.parametrize("broken", [b"", b"{}", b"[1]", b"null", b"\xff"], ids=repr)
@pytest.mark.parametrize("name", ["model.json", "golden.json"])
def test_damage_is_no_traceback(
    bundle_folder: Path, runner: Run, forge: Forge, name: str, broken: bytes
) -> None:
    (bundle_folder / name).write_bytes(broken)
    if name == "golden.json":
        forge(bundle_folder)
    assert failed(runner(bundle_folder, "selftest"))


# --- other forms of the file -----------------------------------------------------------------


def averaging(layout: str, batch: int | None) -> bytes:
    """A sealed model whose logits are the means of three channels."""
    inner: list[int | str] = [4, 5, 3] if layout == "NHWC" else [3, 4, 5]
    port = onnx.helper.make_tensor_value_info
    kinds = onnx.TensorProto
    nodes = [onnx.helper.make_node("Cast", ["image"], ["float"], to=kinds.FLOAT)]
    if layout == "NHWC":
        nodes.append(onnx.helper.make_node("Transpose", ["float"], ["moved"], perm=[0, 3, 1, 2]))
    nodes += [
        onnx.helper.make_node("ReduceMean", [nodes[-1].output[0], "axes"], ["logits"], keepdims=0),
        onnx.helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "averaging",
        [port("image", kinds.UINT8, [batch or "batch", *inner])],
        [port(name, kinds.FLOAT, [batch or "batch", 3]) for name in ("logits", "probabilities")],
        [onnx.helper.make_tensor("axes", kinds.INT64, [2], [2, 3])],
    )
    opset = onnx.helper.make_opsetid("", 18)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    card = Card(
        run="none",
        labels=["a", "b", "c"],
        input=ImageInput(channels=3, height=4, width=5),
        components={},
        metrics={"accuracy": 0.5},
        weights_sha256="",
        versions={},
        layout=layout,
        batch=batch,
    )
    onnx.helper.set_model_props(model, card.to_metadata())
    return seal(model.SerializeToString(deterministic=True))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("batch", [None, 1, 3, 20])
def test_layouts_and_batch_sizes(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, batch: int | None
) -> None:
    data = averaging(layout, batch)
    (tmp_path / "model.onnx").write_bytes(data)
    monkeypatch.setattr(run, "HERE", tmp_path)
    described = describe(open_model(tmp_path / "model.onnx"), "1.15", None)
    model = run.Model({**described, "files": {"model.onnx": {"bytes": len(data)}}})
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 5), dtype=np.uint8)
    for size in (1, 2, 16):
        logits, probabilities = model.run(images, size)
        assert np.allclose(logits, images.mean((2, 3)), atol=1e-3)
        assert probabilities.shape == (7, 3)


@pytest.mark.slow
def test_other_layout_fixed_batch_and_opset(trained: Any, tmp_path: Path, runner: Run) -> None:
    from zoo.export.targets import ExportConfig
    from zoo.pipeline.exporting import export

    config = ExportConfig(opset="20", layout="nhwc", batch=3)
    export(trained.finetuned, config=config, runtimes=(), workspace=trained.workspace)
    bundle(trained.model, tmp_path / "b", web=False)
    content = json.loads((tmp_path / "b" / "model.json").read_text())
    assert (content["input"]["layout"], content["input"]["batch"]) == ("NHWC", 3)
    assert content["model"]["oldest_onnxruntime"] == "1.17"
    assert "onnxruntime>=1.17" in (tmp_path / "b" / "requirements.txt").read_text()
    assert verdict(runner(tmp_path / "b", "selftest")) == "selftest: yes"
    paths = sorted((tmp_path / "b" / "golden").glob("*.png"))[:4]
    found = json.loads(runner(tmp_path / "b", *paths, "--json").stdout)["predictions"]
    assert [one["label"] for one in found] == [
        p.label for p in predict(tmp_path / "b" / "model.onnx", paths)
    ]


def test_it_is_in_the_package() -> None:
    assert device_files()["run.py"] == RUNNER.read_bytes()
    assert not [name for name in device_files() if name.endswith(".pyc")]
