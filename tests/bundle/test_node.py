"""The bundle in Node: the picture rule to the byte, and run.mjs beside `zoo predict`."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from zoo import pipeline
from zoo.api import ImageInput
from zoo.export.targets import ExportConfig
from zoo.pictures import read_picture
from zoo.pipeline.bundling import bundle
from zoo.showing import shown

ROOT = Path(__file__).resolve().parent.parent.parent
DEVICE = ROOT / "zoo" / "export" / "bundle" / "device"
MODULES = Path(os.environ.get("ZOO_NODE_MODULES") or ROOT / "node_modules")
PACKAGES = json.loads((DEVICE / "package.json").read_text())["dependencies"]
ROUNDING = 0 if int(PIL.__version__.split(".")[0]) >= 13 else 1
"""Pillow before 13 takes the two passes of a resize in one order alone, and rounds between."""

Node = Callable[..., Any]
Runner = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def node() -> Node:
    """Run a piece of JavaScript on a JSON value and the files of the bundle; return its answer."""
    if shutil.which("node") is None:
        pytest.skip("Node is not installed")

    def run(body: str, given: Any) -> Any:
        names = ("model", "picture", "png", "selftest")
        loads = [f"const {n} = await import({(DEVICE / n).as_uri()!r} + '.mjs');" for n in names]
        read = "import { readFileSync } from 'node:fs'; const given = JSON.parse(readFileSync(0));"
        script = f"{read}\n{''.join(loads)}\n{body}"
        command = ["node", "--input-type=module", "--eval", script]
        done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def run_mjs() -> Runner:
    """Run a bundle's run.mjs with the installed packages beside it."""
    absent = [name for name in PACKAGES if not (MODULES / name).is_dir()]
    if shutil.which("node") is None or absent:
        pytest.skip(f"{absent or 'Node'} not found; ZOO_NODE_MODULES names a node_modules folder")

    def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
        link = folder.parent / "node_modules"
        if not link.exists():
            link.symlink_to(MODULES.resolve(), target_is_directory=True)
        command = ["node", str(folder / "run.mjs"), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run


# --- the picture rule ------------------------------------------------------------------------

READ = """
const answers = [];
for (const { file, input, invert } of given) {
  try {
    const pixels = await png.decodePng(new Uint8Array(readFileSync(file)));
    const bytes = picture.toInput(pixels, input, invert);
    answers.push(Buffer.from(bytes).toString('base64'));
  } catch (error) {
    answers.push({ error: error.message });
  }
}
console.log(JSON.stringify(answers));
"""


def compare(node: Node, cases: list[tuple[Path, ImageInput, bool]]) -> None:
    """Hold JavaScript's bytes of each picture against those of `read_picture`."""
    given = [
        {
            "file": str(file),
            "invert": invert,
            "input": {"channels": size.channels, "height": size.height, "width": size.width},
        }
        for file, size, invert in cases
    ]
    for (file, size, invert), answer in zip(cases, node(READ, given), strict=True):
        wanted = read_picture(file, size, invert=invert)
        assert isinstance(answer, str), (file.name, answer)
        found = np.frombuffer(base64.b64decode(answer), np.uint8).reshape(wanted.shape)
        off = int(np.abs(found.astype(int) - wanted).max())
        assert off <= ROUNDING, f"{file.name} as {size.shape}: up to {off} off"


def draw(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw noise, or soft blobs: RGBA, with every alpha."""
    share = int(rng.choice([1, 1, 9]))
    rough = rng.integers(0, 256, (height // share + 1, width // share + 1, 4), dtype=np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)


def save(picture: Image.Image, kind: str, path: Path, rng: np.random.Generator) -> None:
    options: dict[str, Any] = {}
    if kind == "I;16":
        deep = rng.integers(0, 65536, picture.size[::-1], dtype=np.uint16)
        picture = Image.fromarray(deep)
    elif kind.startswith("P"):
        picture = picture.convert("RGB").quantize(40)
        if kind == "P one clear":
            options["transparency"] = 3
        elif kind == "P many clear":
            options["transparency"] = bytes(rng.integers(0, 256, 30, dtype=np.uint8))
    elif kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(0, 10))
        picture, options["exif"] = picture.convert("RGB"), exif
    elif kind.endswith(" key"):
        picture = picture.convert(kind.split()[0])
        options["transparency"] = picture.getpixel((0, 0))
    else:
        picture = picture.convert(kind)
    picture.save(path, **options)


KINDS = [
    "L", "RGB", "RGBA", "LA", "P", "1", "I;16", "P one clear", "P many clear", "L key", "RGB key",
    "rotated",
]  # fmt: skip


def test_javascript_reads_a_png_as_pillow_does_to_the_byte(node: Node, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for i in range(120):
        width, height = (int(side) for side in rng.integers(1, 200, 2))
        if i % 7 == 0:
            height = width
        size = ImageInput(
            channels=1 if i // len(KINDS) % 2 else 3,
            height=int(rng.choice([8, 28, 32, 33])),
            width=int(rng.choice([8, 28, 32, 47])),
        )
        file = tmp_path / f"{i}-{KINDS[i % len(KINDS)].replace(';', '')}.png"
        save(draw(rng, width, height), KINDS[i % len(KINDS)], file, rng)
        cases.append((file, size, i % 5 == 0))
    compare(node, cases)


def test_a_picture_of_the_inputs_own_size_is_taken_as_it_is(node: Node, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    file = tmp_path / "same.png"
    Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(file)
    compare(node, [(file, ImageInput(channels=1, height=28, width=28), False)])


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]  # fmt: skip # noqa: E501


def write_png(
    path: Path,
    values: np.ndarray[Any, Any],
    depth: int,
    *,
    interlaced: bool,
    key: np.ndarray[Any, Any] | None = None,
    behind: bytes = b"",
) -> None:
    """Write what Pillow cannot: 1 to 16 bits, interlaced or not, a clear colour, bytes behind."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    raw = b""
    for x, y, dx, dy in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        part = values[y::dy, x::dx]
        if part.size == 0:
            continue
        bits = np.unpackbits(part.astype(">u2")[..., None].view(np.uint8), axis=-1)[..., -depth:]
        rows = np.packbits(bits.reshape(len(part), -1), axis=1)
        raw += b"".join(b"\0" + row.tobytes() for row in rows)
    height, width = values.shape[:2]
    colour = 2 if values.ndim == 3 and values.shape[2] == 3 else 0
    body = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    body += b"" if key is None else chunk(b"tRNS", key.astype(">u2").tobytes())
    body += chunk(b"IDAT", zlib.compress(raw + behind)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_every_depth_of_grey_is_read_interlaced_or_not(node: Node, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    cases = []
    for depth in (1, 2, 4, 8, 16):
        for interlaced in (False, True):
            for height, width in ((1, 1), (3, 5), (61, 47)):
                file = tmp_path / f"{depth}-{interlaced}-{height}.png"
                values = rng.integers(0, 2**depth, (height, width))
                write_png(file, values, depth, interlaced=interlaced)
                cases.append((file, ImageInput(channels=1, height=9, width=9), False))
    compare(node, cases)


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_transparent_colour_is_compared_at_its_own_depth(
    node: Node, tmp_path: Path, interlaced: bool
) -> None:
    """What differs in a high or a low byte alone is another colour."""
    rng = np.random.default_rng(6)
    cases = []
    for depth in (1, 2, 4, 8, 16):
        for colour in (0, 2) if depth >= 8 else (0,):
            most = 2**depth - 1
            values = rng.integers(0, most + 1, (21, 18, 1 if colour == 0 else 3))
            key = values[0, 0].copy()
            values[::3] = key
            values[1::3] = key ^ 1
            values[2::3, ::2] = key ^ (1 << depth - 1)
            file = tmp_path / f"{colour}-{depth}.png"
            write_png(file, values, depth, interlaced=interlaced, key=key)
            wanted = read_picture(file, ImageInput(channels=3, height=21, width=18))
            assert (wanted[:, ::3] == 255).all()
            assert (wanted[:, 1::3] < 255).any() or depth == 1
            cases += [(file, ImageInput(channels=c, height=21, width=18), False) for c in (1, 3)]
    compare(node, cases)


def test_no_more_is_inflated_than_the_picture_takes(node: Node, tmp_path: Path) -> None:
    file = tmp_path / "bomb.png"
    write_png(file, np.full((8, 8), 7), 8, interlaced=False, behind=bytes(300_000_000))
    body = """
    const pixels = await png.decodePng(new Uint8Array(readFileSync(given)));
    console.log(JSON.stringify([[...pixels.data.slice(0, 4)], process.memoryUsage().rss]));
    """
    pixels, memory = node(body, str(file))
    assert pixels == [7, 7, 7, 255]
    assert memory < 250e6


def test_a_damaged_png_is_refused_in_one_sentence(node: Node, tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(np.full((40, 40), 7, np.uint8)).save(whole)
    data = whole.read_bytes()
    huge = data[:16] + struct.pack(">II", 10_000, 10_000) + data[24:]
    damaged = {
        "empty": b"",
        "text": b"not a picture",
        "header": data[:20],
        "cut": data[:-30],
        "pixels": data.replace(data[45:60], bytes(15)),
        "depth": data[:24] + b"\x05" + data[25:],
        "summed": data[:30] + bytes([data[30] ^ 1]) + data[31:],
        "huge": huge[:29] + struct.pack(">I", zlib.crc32(huge[12:29])) + huge[33:],
    }
    for name, content in damaged.items():
        (tmp_path / f"{name}.png").write_bytes(content)
    size = {"channels": 1, "height": 8, "width": 8}
    given = [{"file": str(tmp_path / f"{n}.png"), "input": size, "invert": False} for n in damaged]
    for name, answer in zip(damaged, node(READ, given), strict=True):
        said = "100,000,000 pixels, and 89,478,485 are read here" if name == "huge" else "PNG"
        assert said in answer["error"], (name, answer)
        assert "\n" not in answer["error"], (name, answer)


def test_channels_last_is_laid_out_as_numpy_does(node: Node) -> None:
    images = np.random.default_rng(3).integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
    body = "console.log(JSON.stringify([...picture.toLayout(new Uint8Array(given), input)]))"
    size = "const input = { channels: 3, height: 4, width: 5, layout: 'NHWC' };"
    found = node(size + body, images.ravel().tolist())
    assert found == images.transpose(0, 2, 3, 1).ravel().tolist()


def test_sha256_is_that_of_hashlib_at_every_length_of_a_block(node: Node) -> None:
    data = np.random.default_rng(4).integers(0, 256, 70_001, dtype=np.uint8).tobytes()
    lengths = [*range(130), len(data)]
    body = """
    const bytes = new Uint8Array(Buffer.from(given.data, 'base64'));
    console.log(JSON.stringify(given.lengths.map((n) => model.sha256(bytes.subarray(0, n)))));
    """
    found = node(body, {"data": base64.b64encode(data).decode(), "lengths": lengths})
    assert found == [hashlib.sha256(data[:n]).hexdigest() for n in lengths]


# --- run.mjs ---------------------------------------------------------------------------------


def test_the_selftest_says_yes(bundle_folder: Path, run_mjs: Runner) -> None:
    done = run_mjs(bundle_folder, "selftest")
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[-1]) == (0, "selftest: yes"), done.stdout
    golden = json.loads((bundle_folder / "golden.json").read_text())
    for entry in golden["pictures"]:
        line = next(line for line in lines if f"{entry['file']}:" in line)
        # A JPEG's pixels are its decoder's; every PNG's are the file's own.
        assert "the same bytes" in line or entry["file"].endswith(".jpg"), line


@pytest.mark.parametrize(
    "name", ["model.onnx", "golden.json", "model.json", "golden/grey.png", "run.py", "page.mjs"]
)
def test_the_selftest_finds_one_flipped_byte(
    bundle_folder: Path, run_mjs: Runner, name: str
) -> None:
    data = bytearray((bundle_folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle_folder / name).write_bytes(data)
    done = run_mjs(bundle_folder, "selftest")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "selftest: no")
    assert any(name in line for line in done.stdout.splitlines() if line.startswith("FAILED"))


@pytest.mark.parametrize("word", ["selftest", "PICTURE", "--help"])
def test_an_answer_that_cannot_be_written(
    bundle_folder: Path, run_mjs: Runner, nowhere: tuple[int, str], word: str
) -> None:
    run_mjs(bundle_folder, "--help")  # puts the packages beside it, or skips
    place, said = nowhere
    picture = str(bundle_folder / "golden" / "grey.png")
    command = ["node", str(bundle_folder / "run.mjs"), word.replace("PICTURE", picture)]
    done = subprocess.run(command, stdout=place, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == bool(said), done.stderr
    assert done.stderr.startswith(said)


def test_a_name_is_one_line_of_text(bundle_folder: Path, run_mjs: Runner, nasty: Path) -> None:
    lost = nasty.with_name(f"lost{nasty.name}")
    for path, words in ((nasty, ()), (nasty, ("--json",)), (lost, ())):
        done = run_mjs(bundle_folder, path, *words)
        said = done.stdout + done.stderr
        assert said.isascii()
        assert not {"\x1b", "\r"} & set(said)
        assert said.count("\n") == 1
        if words:
            assert json.loads(said)["predictions"][0]["picture"] == str(path)
        else:
            assert shown(path).partition("\\n")[0] in said  # of an error the first line


def test_the_selftest_finds_a_missing_file(bundle_folder: Path, run_mjs: Runner) -> None:
    (bundle_folder / "README.md").unlink()
    done = run_mjs(bundle_folder, "selftest")
    assert done.returncode == 1
    assert "README.md is missing" in done.stdout


def test_the_selftest_believes_the_answers_not_the_sums(
    bundle_folder: Path, run_mjs: Runner, forge: Callable[..., None]
) -> None:
    path = bundle_folder / "golden.json"
    golden = json.loads(path.read_text())
    golden["tensors"]["probabilities"][5][0] += 0.01
    golden["pictures"][0]["probabilities"][0] += 0.01
    pixels = bytearray(base64.b64decode(golden["pictures"][1]["input"]))
    pixels[len(pixels) // 2] ^= 255
    golden["pictures"][1]["input"] = base64.b64encode(pixels).decode()
    path.write_text(json.dumps(golden))
    forge(bundle_folder)
    done = run_mjs(bundle_folder, "selftest")
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    files = [entry["file"] for entry in golden["pictures"]]
    assert done.returncode == 1
    assert [line.split(":")[0].split(None, 1)[1] for line in failed[:3]] == [
        "golden tensors, batch 16",
        "golden tensors, batch 1",
        files[0],
    ]
    # Where bytes differ it says by how much; that alone is no failure.
    assert any(files[1] in line and "off" in line for line in done.stdout.splitlines())


def test_logits_that_are_not_finite_fail_the_selftest(
    infinite_logits: Path, run_mjs: Runner
) -> None:
    """Though every probability is as recorded."""
    done = run_mjs(infinite_logits, "selftest")
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 10  # the golden tensors at two batch sizes, eight pictures
    assert all(line.endswith("the model's output contains NaN or infinity") for line in failed)


def test_predictions_are_those_of_zoo_predict(
    bundle_folder: Path, run_mjs: Runner, trained: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    files = sorted((bundle_folder / "golden").glob("*"))
    for kind in KINDS:
        files.append(tmp_path / f"{kind.replace(';', '')}.png")
        save(draw(rng, 61, 90), kind, files[-1], rng)
    for flags, invert in (((), False), (("--invert",), True)):
        done = run_mjs(bundle_folder, "--json", *flags, *files)
        found = json.loads(done.stdout)["predictions"]
        wanted = pipeline.predict(trained.model, files, invert=invert)
        for mine, theirs in zip(found, wanted, strict=True):
            loose = 0.05 if mine["picture"].endswith(".jpg") or ROUNDING else 1e-4
            assert mine["classes"] == pytest.approx(theirs.classes, abs=loose)
            assert mine["probability"] == max(mine["classes"].values())
            assert next(iter(mine["classes"])) == mine["label"]
            if loose < 0.01:
                assert (mine["picture"], mine["label"]) == (theirs.picture, theirs.label)


def test_top_and_a_name_that_looks_like_an_option(
    bundle_folder: Path, run_mjs: Runner, tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    Image.new("L", (20, 20)).save(file)
    done = run_mjs(bundle_folder, file, "--top", 3, "--", file)
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert all(line.startswith(f"{file}  ") and line.endswith(" %") for line in lines)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "Name a picture"),
        (["--top", "0", "a.png"], 2, "from 1, not '0'"),
        (["--depth"], 2, "no option '--depth'"),
        (["selftest", "a.png"], 2, "selftest stands alone"),
        (["absent.png"], 1, "There is no picture 'absent.png'"),
        ([str(ROOT)], 1, "is a folder"),
        ([str(ROOT / "pyproject.toml")], 1, "is no readable picture"),
    ],
)
def test_bad_input_is_one_line(
    bundle_folder: Path, run_mjs: Runner, words: list[str], status: int, said: str
) -> None:
    done = run_mjs(bundle_folder, *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1)
    assert done.stderr.startswith("Error: ")
    assert said in done.stderr


def test_what_sharp_reads_otherwise_is_refused(
    bundle_folder: Path, run_mjs: Runner, tmp_path: Path
) -> None:
    """Nothing of another kind than Python reads alike, and nothing that is no file."""
    grey = Image.linear_gradient("L").resize((20, 20))
    grey.convert("F").save(tmp_path / "float.tif")
    grey.convert("I").save(tmp_path / "deep.tif")
    grey.convert("CMYK").save(tmp_path / "inks.jpg")
    grey.convert("CMYK").save(tmp_path / "inks.tif")
    grey.convert("YCbCr").save(tmp_path / "ycbcr.tif")
    grey.save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-40])
    grey.save(tmp_path / "canvas.gif")
    canvas = bytearray((tmp_path / "canvas.gif").read_bytes())
    canvas[6:10] = struct.pack("<HH", 30, 30)
    (tmp_path / "canvas.gif").write_bytes(canvas)
    canvas[6:10] = struct.pack("<HH", 30_000, 30_000)
    (tmp_path / "huge.gif").write_bytes(canvas)
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    (tmp_path / "drawing.png").write_text(svg)
    os.mkfifo(tmp_path / "pipe.png")
    for name, said in {
        "float.tif": "which Node does not read; save it as PNG",
        "deep.tif": "which Node does not read; save it as PNG",
        "inks.jpg": "those of inks, which are not read here; save it as RGB",
        "inks.tif": "of a kind that is not read here; save it as RGB",
        "ycbcr.tif": "of a kind that is not read here; save it as RGB",
        "cut.jpg": "the JPEG file is cut short",
        "canvas.gif": "its first frame does not fill it; save it as PNG",
        "huge.gif": "it has 900,000,000 pixels, and 89,478,485 are read here at most",
        "drawing.png": "of no format that Node reads; save it as PNG or JPEG",
        "pipe.png": "it is a pipe or a device, not a file",
    }.items():
        done = run_mjs(bundle_folder, tmp_path / name)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), name
        assert f"'{tmp_path / name}' is no readable picture: " in done.stderr
        assert said in done.stderr, (name, done.stderr)


def test_a_changed_model_answers_nothing(bundle_folder: Path, run_mjs: Runner) -> None:
    with (bundle_folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    done = run_mjs(bundle_folder, bundle_folder / "golden" / "grey.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert "was changed" in done.stderr


def test_nor_does_a_changed_description(bundle_folder: Path, run_mjs: Runner) -> None:
    path = bundle_folder / "model.json"
    path.write_text(path.read_text().replace('"mlp-digits"', '"mlp-digitz"'))
    done = run_mjs(bundle_folder, bundle_folder / "golden" / "grey.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: model.json was changed: its bytes do not match its seal.\n"


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("model", "file"), "../digits.onnx", "names a file that is not of its bundle"),
        (("golden",), "/dev/stdin", "names a file that is not of its bundle"),
        (("labels",), list("1234567890"), "contradicts model.onnx: labels"),
        (("metrics", "accuracy"), 0.999, "contradicts model.onnx: metrics"),
        (("tolerance", "probabilities"), 0.5, "contradicts model.onnx: tolerance"),
        (("dataset",), "mnist", "contradicts model.onnx: dataset"),
        (("proved",), "by everybody", "contradicts model.onnx: proved"),
    ],
)
def test_a_manifest_that_lies_is_found(
    bundle_folder: Path,
    run_mjs: Runner,
    forge: Callable[..., None],
    keys: tuple[str, ...],
    value: Any,
    said: str,
) -> None:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    forge(bundle_folder, change)
    done = run_mjs(bundle_folder, bundle_folder / "golden" / "grey.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr


def test_golden_vectors_that_test_nothing_fail(
    bundle_folder: Path, run_mjs: Runner, forge: Callable[..., None]
) -> None:
    path = bundle_folder / "golden.json"
    content = json.loads(path.read_text())
    content["pictures"] = []
    path.write_text(json.dumps(content))
    forge(bundle_folder)
    done = run_mjs(bundle_folder, "selftest")
    assert "FAILED  golden.json: it has no golden pictures" in done.stdout
    assert done.stdout.rstrip().endswith("selftest: no")


def test_no_pipe_is_waited_for(bundle_folder: Path, run_mjs: Runner) -> None:
    (bundle_folder / "model.onnx").unlink()
    os.mkfifo(bundle_folder / "model.onnx")
    done = run_mjs(bundle_folder, bundle_folder / "golden" / "grey.png")
    assert (done.returncode, done.stderr) == (1, "Error: model.onnx is no file.\n")


def test_without_packages_it_says_how_to_install_them(bundle_folder: Path, node: Node) -> None:
    command = ["node", str(bundle_folder / "run.mjs"), "selftest"]
    done = subprocess.run(command, capture_output=True, text=True)
    wanted = "Error: onnxruntime-node is not installed. Type: npm install --ignore-scripts\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", wanted)


def test_packages_are_pinned_to_one_version() -> None:
    assert all(version.replace(".", "").isdigit() for version in PACKAGES.values()), PACKAGES


@pytest.mark.slow
@pytest.mark.parametrize("config", [{"layout": "nhwc"}, {"batch": 3}])
def test_other_layouts_and_fixed_batches_pass_as_well(
    trained: Any, run_mjs: Runner, tmp_path: Path, config: dict[str, Any]
) -> None:
    file = tmp_path / "other.onnx"
    pipeline.export(
        trained.finetuned, file, config=ExportConfig(**config), workspace=trained.workspace
    )
    bundle(file, tmp_path / "other", web=False, workspace=trained.workspace)
    done = run_mjs(tmp_path / "other", "selftest")
    assert done.stdout.splitlines()[-1] == "selftest: yes", done.stdout
