"""Classify picture files with the model beside this file: numpy, Pillow and onnxruntime alone.

    python run.py PICTURE… [--invert] [--top N] [--json]
    python run.py selftest

`--invert` is for dark strokes on a light ground, where the model was trained on light on dark.
`selftest` checks every file of the folder, and the model's answers on the golden vectors.
Exit status: 0; 1 with one line on stderr; 2 for wrong usage.
"""

from __future__ import annotations  # Python 3.8 or newer is needed

import base64
import contextlib
import ctypes
import functools
import hashlib
import json
import logging
import os
import re
import stat
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

OLDEST = (3, 8)
"""The oldest Python for which the packages of requirements.txt can be had."""
if sys.version_info < OLDEST:
    sys.exit("Error: Python 3.8 or newer is needed; this is {}.{}.".format(*sys.version_info))

# Read when onnxruntime is imported: newer versions would write a device's identity and a log of
# what was run into the user's cache folder, to be sent to their makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

try:
    import numpy as np
    import onnxruntime
    from PIL import Image, ImageOps, UnidentifiedImageError, _imaging
    from PIL.JpegImagePlugin import JpegImageFile
except ImportError as error:
    sys.exit(f"Error: {error}. Type: pip install -r requirements.txt")

HERE = Path(__file__).resolve().parent
BLANK = b"0" * 64
# The entry `zoo.sha256` of an ONNX file's metadata, as protobuf writes it, before its value.
# On whose word the proof stands: what zoo/export/bundle/manifest.py writes.
PROVED = (
    "where it was bundled, by the run that it came from",
    "as its proof.json claims; not proved where it was bundled",
)
MARK = b"\x0a\x0azoo.sha256\x12\x40"
TOLERANCES = {"fp32": 1e-4, "fp16": 0.01, "int8": 0.05}
"""How far a probability may be off from one runtime to another, by precision."""
OUTPUTS = {"logits": "logits", "probabilities": "probabilities"}
MOST_OF_MANIFEST = 64 * 2**20
"""Bytes of model.json; every other file's size stands in it."""
LOOSE = 0.05
"""How far a probability may be off where another decoder gave other pixels."""
FORMATS = (
    "AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FLI", "FTEX", "GBR", "GIF", "ICNS", "ICO",
    "IM", "IMT", "JPEG", "JPEG2000", "MCIDAS", "MSP", "PCD", "PCX", "PIXAR", "PNG", "PPM", "PSD",
    "QOI", "SGI", "SPIDER", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM", "XVTHUMB",
)  # fmt: skip
"""What is read, whatever a file is called; nothing that another program would draw."""
NO_FORMAT = "it is of no known format; save it as PNG or JPEG"
MOST_PIXELS = 89_478_485
"""Pixels of a picture that are decoded at most; a larger JPEG is decoded at half its size."""
MOST_BYTES = 2**30
ORIENTATION = 0x0112
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF


class Fault(Exception):
    """One line for whoever typed the command."""


# --- the model -------------------------------------------------------------------------------


def read_manifest() -> dict[str, Any]:
    """Read model.json; its own SHA-256 is taken with the place of that sum filled with zeros.

    It names files of its own folder alone, each with its size and sum.
    """
    data = read("model.json", MOST_OF_MANIFEST)
    try:
        content: dict[str, Any] = json.loads(data)
        seal, files = content["sha256"].encode(), content["files"]
        named = [content["model"]["file"], content["golden"]]
        sums = [content["model"]["sha256"], *(each["sha256"] for each in files.values())]
        sound = all(isinstance(text, str) for text in (*named, *sums))
        sound = sound and all(
            type(each["bytes"]) is int and each["bytes"] >= 0 for each in files.values()
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise Fault("model.json is damaged.")
    if sha256(data.replace(seal, BLANK, 1)) != seal.decode():
        raise Fault("model.json was changed: its bytes do not match its seal.")
    for name in files:
        if set(name) & set("\\:\0") or {"", ".", ".."} & set(name.split("/")):
            raise Fault("model.json names files outside its folder.")
    if not set(named) <= set(files):
        raise Fault("model.json names a file that is not of its bundle.")
    return content


def contradictions(manifest: dict[str, Any], metadata: dict[str, str]) -> list[str]:
    """Name what model.json says otherwise than the model itself."""
    try:
        said, size = json.loads(metadata["zoo.input"]), manifest["input"]
        batch = None if said["shape"][0] == "batch" else said["shape"][0]
        fields = ("layout", "channels", "height", "width", "dtype", "range", "picture")
        precision = metadata["zoo.precision"]
        sides = {
            "name": (manifest["name"], metadata["zoo.model"]),
            "run": (manifest["run"], metadata["zoo.run"]),
            "dataset": (manifest["dataset"], metadata["zoo.dataset"]),
            "components": (manifest["components"], json.loads(metadata["zoo.components"])),
            "proved": (manifest["proved"] in PROVED, True),
            "labels": (manifest["labels"], json.loads(metadata["zoo.labels"])),
            "metrics": (manifest["metrics"], json.loads(metadata["zoo.metrics"])),
            "license": (manifest["license"], metadata["license"]),
            "input": ([size[n] for n in fields], [said[n] for n in fields]),
            "names": ([size["name"], manifest["outputs"]], ["image", OUTPUTS]),
            "batch": (size["batch"], batch),
            "precision": (manifest["model"]["precision"], precision),
            "tolerance": (manifest["tolerance"]["probabilities"], TOLERANCES[precision]),
        }
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ["what it says is damaged"]
    return [name for name, (here, there) in sides.items() if here != there]


def check_seal(data: bytes) -> None:
    """Hold the model's bytes against the seal within them."""
    start = data.find(MARK) + len(MARK)
    if data.count(MARK) != 1:
        raise Fault("the model has no seal.")
    blank = data[:start] + BLANK + data[start + 64 :]
    if data[start : start + 64] != sha256(blank).encode():
        raise Fault("the model was changed: its bytes do not match its seal.")


class Model:
    """The ONNX file, opened once its bytes are known to be the recorded ones."""

    def __init__(self, manifest: dict[str, Any]) -> None:
        name = manifest["model"]["file"]
        data = read(name, manifest["files"][name]["bytes"])
        if sha256(data) != manifest["model"]["sha256"]:
            raise Fault(f"{name} is not the file that model.json describes.")
        check_seal(data)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            self.session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise Fault(
                f"onnxruntime {onnxruntime.__version__} cannot load the model, which needs"
                f" {manifest['model'].get('oldest_onnxruntime')} or newer: {first_line(error)}"
            ) from None
        wrong = contradictions(manifest, self.session.get_modelmeta().custom_metadata_map)
        if wrong:
            raise Fault(f"model.json contradicts {name}: {', '.join(wrong)}.")
        self.labels: list[str] = manifest["labels"]
        self.input: dict[str, Any] = manifest["input"]
        self.outputs: dict[str, str] = manifest["outputs"]

    def run(self, images: np.ndarray, batch: int = 64) -> tuple[np.ndarray, np.ndarray]:
        """Run uint8 N x C x H x W -> logits and probabilities, float32 N x classes.

        A model of a fixed batch size is given whole batches, the last one filled up.
        """
        size = self.input["batch"] or batch
        names = [self.outputs["logits"], self.outputs["probabilities"]]
        parts = []
        for start in range(0, len(images), size):
            chunk = images[start : start + size]
            count = len(chunk)
            if self.input["batch"]:
                chunk = np.resize(chunk, (size, *chunk.shape[1:]))
            if self.input["layout"] == "NHWC":
                chunk = chunk.transpose(0, 2, 3, 1)
            feed = {self.input["name"]: np.ascontiguousarray(chunk)}
            parts.append([answer[:count] for answer in self.session.run(names, feed)])
        logits, probabilities = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        return logits, probabilities


# --- a picture file -> the input's bytes -----------------------------------------------------


def read_picture(path: Path, input: dict[str, Any], *, invert: bool = False) -> np.ndarray:
    """Read a picture of any size and mode as uint8 C x H x W, by the rule in model.json."""
    if input["channels"] not in (1, 3):
        raise Fault(f"Pictures have 1 or 3 channels; the input has {input['channels']}.")
    most = most_pixels()
    quieten()
    try:
        with warnings.catch_warnings():
            # A picture too large to be one is an error; a damaged EXIF block is nobody's concern.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            pixels = fit(decode(read_file(path), most), input)
    except FileNotFoundError:
        raise Fault(f"There is no picture '{path}'.") from None
    except IsADirectoryError:
        raise Fault(f"'{path}' is a folder; name the pictures in it.") from None
    except UnidentifiedImageError:
        raise Fault(f"'{path}' is no readable picture: {NO_FORMAT}.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        count = re.search("([0-9]+) pixels", str(error))
        reason = too_large(int(count.group(1)) if count else most + 1, most)
        raise Fault(f"'{path}' is no readable picture: {reason}.") from None
    except Exception as error:  # decoders of damaged files raise whatever they like
        told = Fault(getattr(error, "strerror", None) or error)
        reason = first_line(told if str(told) else error)
        raise Fault(f"'{path}' is no readable picture: {reason}") from None
    return np.ascontiguousarray(255 - pixels if invert else pixels)


@functools.lru_cache(None)
def quieten() -> None:
    """Keep stderr clean of what is told in one line: Pillow has a log, and libtiff writes there."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with contextlib.suppress(OSError, AttributeError):  # where libtiff is within Pillow itself
        library = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


def read_file(path: Path) -> bytes:
    """Read a regular file of at most `MOST_BYTES`; never waits for the writer of a pipe."""
    way = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, way)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is a pipe or a device, not a file")
        if found.st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
        return file.read(found.st_size)  # Python sets aside as much as it is asked for


def most_pixels() -> int:
    """Return how many pixels of a picture are decoded at most, as the environment has it."""
    text = os.environ.get("ZOO_MAX_PIXELS")
    if not text:
        return MOST_PIXELS
    if not re.fullmatch("[1-9][0-9]{0,17}", text):
        raise Fault(
            f"ZOO_MAX_PIXELS is '{text}'; it takes a whole number from 1, as in"
            " ZOO_MAX_PIXELS=200000000."
        )
    # Pillow's own limit would be in the way.
    if Image.MAX_IMAGE_PIXELS is not None and int(text) > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = int(text)
    return int(text)


def too_large(count: int, most: int) -> str:
    """Say that a picture is too large, and what helps."""
    return (
        f"it has {count:,} pixels, and {most:,} are read at most (of a baseline JPEG four times as"
        f" many); make it smaller, or set ZOO_MAX_PIXELS={count}"
    )


def fit(picture: Any, input: dict[str, Any]) -> np.ndarray:
    """Turn an upright picture of mode L or RGB into C x H x W."""
    flat = picture.convert("L" if input["channels"] == 1 else "RGB")
    size = (input["width"], input["height"])
    fitted = ImageOps.fit(flat, size, method=Image.Resampling.BILINEAR, centering=(0.5, 0.5))
    pixels = np.asarray(fitted, dtype=np.uint8)
    return pixels[None] if input["channels"] == 1 else pixels.transpose(2, 0, 1)


def decode(data: bytes, most: int) -> Any:
    """Decode a file of at most `most` pixels: upright, without transparency, of mode L or RGB."""
    jpeg = data.startswith(b"\xff\xd8\xff")
    # Not by `Image.open`, which would refuse a large JPEG before it can be halved.
    with JpegImageFile(BytesIO(data)) if jpeg else open_picture(data, FORMATS) as picture:
        count = decoded = picture.width * picture.height
        if jpeg and count > MOST_PIXELS:
            picture.draft(None, (picture.width // 2, picture.height // 2))
            decoded = count if held_whole(picture, data) else count // 4
        if decoded > most:
            raise ValueError(too_large(count, most))
        flat = netpbm(picture, data)
        if flat is None:
            picture.load()
            flat = flatten(picture, data)
        turn = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_270,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90,
        }.get(orientation(picture))
        return flat if turn is None else flat.transpose(turn)


def held_whole(picture: Any, data: bytes) -> bool:
    """Say whether the decoder must hold a whole JPEG: one that is told in several scans."""
    scan = data.rfind(b"\xff\xda", 0, picture.fp.tell())
    return "progressive" in picture.info or data[scan + 4] < picture.layers


def open_picture(data: bytes, formats: tuple[str, ...]) -> Any:
    """Open a file that is of one of the formats, as far as this Pillow has them."""
    Image.init()
    return Image.open(BytesIO(data), formats=[name for name in formats if name in Image.OPEN])


def orientation(picture: Any) -> Any:
    """Return the rotation, 1 to 8, that EXIF states; where it cannot be read there is none."""
    try:
        if picture.format == "TIFF":
            turn = picture.tag_v2.get(ORIENTATION)  # gone where Pillow has applied it
        else:
            block = picture.info.get("exif") or b""
            if not re.match(rb"(Exif\0\0)?(II\*\0|MM\0\*)", block):
                return None
            exif = Image.Exif()
            exif.load(block)
            turn = exif.get(ORIENTATION)
    except Exception:
        return None
    return turn if isinstance(turn, int) else None  # 6.0 is no number of a rotation


def flatten(picture: Any, data: bytes) -> Any:
    """Return a decoded picture without transparency, of mode L or RGB."""
    if picture.format == "TIFF" and set(picture.tag_v2.get(SAMPLE_FORMAT, (1,))) != {1}:
        raise ValueError("its numbers are signed or floats; save it with 8 or 16 bits a channel")
    if picture.format == "SGI" and picture.mode == "L" and data[3] == 2:
        raise ValueError("its 16 bits come out as 8 that are not rounded; save it as PNG")
    if picture.format == "JPEG" and picture.mode == "CMYK" and "adobe" not in picture.info:
        raise ValueError("it does not say whether its inks are inverted; save it as RGB")
    clear = clear_pixels(picture, data)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        flat = Image.fromarray(scaled(np.asarray(picture), *range_of(picture)))
    elif clear is not None:
        flat = picture.convert("RGB") if picture.mode == "RGB" else picture.convert("L")
    elif picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        above = picture.convert("LA") if picture.mode == "La" else picture
        ground = Image.new("RGBA", picture.size, "white")
        flat = Image.alpha_composite(ground, above.convert("RGBA")).convert("RGB")
    else:
        flat = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
    if clear is not None:
        flat.paste("white", mask=Image.fromarray(clear))
    return flat


def range_of(picture: Any) -> tuple[int, bool]:
    """Return the largest value of a deep grey picture, and whether it is black."""
    bits = picture.tag_v2.get(BITS, (1,))[0] if picture.format == "TIFF" else 16
    # "I" is a PNG's before Pillow 11, and a PGM's; elsewhere nothing says of what range it is.
    deep = ("ICNS", "ICO", "IM", "JPEG2000", "PNG", "TIFF")
    stated = ("PNG", "PPM", "TIFF") if picture.mode == "I" else deep
    if picture.mode != "F" and picture.format in stated and bits <= 16:
        inverted = picture.format == "TIFF" and picture.tag_v2.get(PHOTOMETRIC) == 0
        return 2**bits - 1, inverted
    raise ValueError(
        "it does not say which of its values is white; save it with 8 or 16 bits a channel"
    )


def scaled(values: np.ndarray, most: int, inverted: bool = False) -> np.ndarray:
    """Scale whole numbers, 0 to `most`, to bytes."""
    levels = np.rint(np.arange(most + 1) * 255 / most).astype(np.uint8)
    levels = levels[::-1] if inverted else levels
    out = np.empty(values.shape, np.uint8)
    for row in range(len(values)):  # a whole picture's indices would be eight times its size
        np.take(levels, values[row], mode="clip", out=out[row])
    return out


def clear_pixels(picture: Any, data: bytes) -> np.ndarray | None:
    """Return 255 where a PNG has its one transparent colour, else 0; None where it has none.

    Pillow compares what it has scaled, or the low bytes, of the one and of the other.
    """
    if picture.format != "PNG" or picture.mode not in ("1", "L", "I", "I;16", "RGB"):
        return None
    key = picture.info.pop("transparency", None)
    if key is None:
        return None
    depth = data[data.index(b"IHDR") + 12]
    values = np.asarray(picture)
    if picture.mode == "1":
        return np.where(values == bool(key & 1), 255, 0).astype(np.uint8)
    if picture.mode != "RGB":
        level = key % 2**depth
        level = level * 255 // (2**depth - 1) if depth < 8 else level  # as Pillow scaled it
        return np.where(values == level, 255, 0).astype(np.uint8)
    same = (values == [level >> 8 if depth == 16 else level & 255 for level in key]).all(2)
    if depth == 16:
        low = np.asarray(low_bytes(data))
        same &= (low == [level & 255 for level in key]).all(2)
    return np.where(same, 255, 0).astype(np.uint8)


def low_bytes(data: bytes) -> Any:
    """Decode the low bytes of a PNG of 3 x 16 bits, of which Pillow gives the high ones."""
    picture = open_picture(data, ("PNG",))
    tile = picture.tile[0]
    picture.tile = [(*tile[:3], "RGB;16L")]  # as if they stood in the other order
    picture.load()
    return picture


def netpbm(picture: Any, data: bytes) -> Any:
    """Decode a binary PGM or PPM of an odd largest value; None for any other picture.

    Pillow takes seconds for each million of its pixels.
    """
    if picture.format != "PPM" or picture.tile[0][0] != "ppm":
        return None
    _, _, offset, (_, most) = picture.tile[0]
    shape = (picture.height, picture.width) + ((3,) if picture.mode == "RGB" else ())
    kind = np.dtype(np.uint8 if most < 256 else ">u2")
    count = int(np.prod(shape))
    if len(data) - offset < count * kind.itemsize:
        raise ValueError("image file is truncated")
    values = np.frombuffer(data, kind, count, offset).reshape(shape)
    return Image.fromarray(scaled(values, most))


# --- the self-test ---------------------------------------------------------------------------


def selftest() -> bool:
    """Print one line a check, then the verdict."""
    passed = True
    for fine, text in judged():
        passed = passed and fine
        say(f"{'ok' if fine else 'FAILED':6}  {text}")
    say(f"selftest: {'yes' if passed else 'no'}")
    return passed


def judged() -> Iterator[tuple[bool, str]]:
    """Yield whether each check passed, and its line; what stops them is the last."""
    try:
        for name, fault, figure in checks():
            yield not fault, f"{name}: {fault or figure}"
    except Fault as fault:
        yield False, str(fault)
    except Exception as error:  # what is damaged fails in ways nobody foresaw
        yield False, first_line(error)


def checks() -> Iterator[tuple[str, str, str]]:
    """Yield each check: its name, what is wrong with it, the figure it was judged by."""
    manifest = read_manifest()
    yield "model.json", "", "matches its seal"
    for name, recorded in manifest["files"].items():
        data, fault = attempt(name, recorded["bytes"])
        if not fault and sha256(data) != recorded["sha256"]:
            fault = "was changed"
        yield name, fault, f"{recorded['bytes']:,} bytes, SHA-256 as recorded"
    model = Model(manifest)
    yield manifest["model"]["file"], "", "matches its seal; loaded"
    name = manifest["golden"]
    golden = json.loads(read(name, manifest["files"][name]["bytes"]))
    bound = TOLERANCES[manifest["model"]["precision"]]
    if golden["tensors"]["shape"][0] < 1:
        raise Fault(f"{name} has no golden tensors.")
    if model.input["channels"] in (1, 3) and not golden["pictures"]:
        raise Fault(f"{name} has no golden pictures.")
    for batch in (golden["tensors"]["shape"][0], 1):
        fault, figure = check_tensors(model, golden["tensors"], bound, batch)
        yield f"golden tensors at batch {batch}", fault, figure
    for entry in golden["pictures"]:
        if entry["file"] not in manifest["files"]:
            raise Fault(f"{name} names a picture that is not of the bundle.")
        fault, figure = check_picture(model, entry, bound)
        yield entry["file"], fault, figure


def check_tensors(
    model: Model, golden: dict[str, Any], bound: float, batch: int
) -> tuple[str, str]:
    """Hold the model's answers against the recorded ones; a label may differ in a tie alone."""
    flat = np.frombuffer(base64.b64decode(golden["inputs"]), dtype=np.uint8)
    images = flat.reshape(golden["shape"])
    wanted = np.array(golden["probabilities"], dtype=np.float32)
    logits, found = model.run(images, batch)
    if not np.isfinite(logits).all():
        return "the model's output contains NaN or infinity", ""
    difference = float(np.abs(found - wanted).max())
    rows = np.arange(len(wanted))
    behind = wanted.max(1) - wanted[rows, found.argmax(1)]
    flips = int((behind > 2 * bound).sum())
    figure = f"{len(images)} examples, {difference:.1e} off; at most {bound:g}"
    # Written so that a difference that is no number fails.
    if not difference <= bound or flips:
        return f"{figure}; {flips} labels differ", figure
    return check_words(model, [str(row) for row in rows], found), figure


def check_picture(model: Model, entry: dict[str, Any], bound: float) -> tuple[str, str]:
    """Hold a picture's bytes against the recorded ones, or say by how much they are off."""
    pixels = read_picture(HERE / entry["file"], model.input, invert=entry["invert"])
    wanted = np.frombuffer(base64.b64decode(entry["input"]), dtype=np.uint8).reshape(pixels.shape)
    apart = int(np.abs(pixels.astype(int) - wanted).max())
    logits, found = model.run(pixels[None])
    if not np.isfinite(logits).all():
        return "the model's output contains NaN or infinity", ""
    difference = float(np.abs(found[0] - np.array(entry["probabilities"])).max())
    bytes_ = "the same bytes" if apart == 0 else f"bytes up to {apart} off"
    figure = f"{entry['what']}: {bytes_}, probabilities {difference:.1e} off"
    same = int(found[0].argmax()) == entry["label"]
    if not difference <= max(bound, LOOSE if apart else 0) or not same:
        return figure + ("" if same else ", another label"), figure
    return check_words(model, [entry["file"]], found), figure


def check_words(model: Model, names: list[str], probabilities: np.ndarray) -> str:
    """Put answers into words as the command line does; say what is wrong with them, or nothing."""
    found = ranked(model, names, probabilities)
    if json.loads("\n".join(written(found, 1, True))) != {"predictions": found}:
        return "what --json prints is not the answer"
    for one, name, row in zip(found, names, probabilities):
        start = f"{name}  {model.labels[row.argmax()]}  "
        if not written([one], 1, False)[0].startswith(start):
            return "what is printed is not the answer"
    return ""


# --- the command line ------------------------------------------------------------------------


def classify(paths: list[str], invert: bool, top: int, as_json: bool) -> None:
    """Print what each picture shows; nothing where one of them cannot be read."""
    model = Model(read_manifest())
    images = np.stack([read_picture(Path(p), model.input, invert=invert) for p in paths])
    logits, probabilities = model.run(images)
    if not (np.isfinite(logits).all() and np.isfinite(probabilities).all()):
        raise Fault("the model's output contains NaN or infinity.")
    say(*written(ranked(model, paths, probabilities), top, as_json))


def ranked(model: Model, names: list[str], probabilities: np.ndarray) -> list[dict[str, Any]]:
    """Return a dict for each picture: its name, its label, the probability of each class."""
    if probabilities.shape != (len(names), len(model.labels)):
        count, shape = len(model.labels), probabilities.shape
        raise Fault(f"the model's answer is {shape}, not {len(names)} × {count} classes.")
    found = []
    for name, row in zip(names, probabilities.tolist()):
        classes = sorted(zip(model.labels, row), key=lambda pair: -pair[1])
        label, probability = classes[0]
        found.append(
            {"picture": name, "label": label, "probability": probability, "classes": dict(classes)}
        )
    return found


def written(found: list[dict[str, Any]], top: int, as_json: bool) -> list[str]:
    """Return the lines that are printed of the answers."""
    if as_json:
        return json.dumps({"predictions": found}, indent=2).splitlines()
    return [
        f"{one['picture']}  {label}  {probability * 100:.2f} %"
        for one in found
        for label, probability in list(one["classes"].items())[:top]
    ]


def parse(words: list[str]) -> tuple[list[str], bool, int, bool]:
    """Read the command line; what cannot be meant ends with status 2."""
    paths: list[str] = []
    invert, top, as_json = False, 1, False
    rest = iter(words)
    for word in rest:
        name, _, value = word.partition("=")
        if word == "--":
            paths += rest
        elif word == "--invert":
            invert = True
        elif word == "--json":
            as_json = True
        elif name == "--top":
            value = value or next(rest, "")
            if not value.isdecimal() or int(value) < 1:
                usage(f"--top takes a whole number from 1, not '{value}'.")
            top = int(value)
        elif word.startswith("-"):
            usage(f"There is no option '{word}'.")
        elif word == "selftest":
            usage("selftest stands alone; a picture of that name is ./selftest.")
        else:
            paths.append(word)
    if not paths:
        usage("Name a picture.")
    return paths, invert, top, as_json


def usage(fault: str) -> None:
    complain(f"{fault} See: python run.py --help")
    sys.exit(2)


def read(name: str, most: int) -> bytes:
    """Read a file of this folder of at most so many bytes."""
    data, fault = attempt(name, most)
    if fault:
        raise Fault(f"{name} {fault}.")
    return data


def attempt(name: str, most: int) -> tuple[bytes, str]:
    """Return a file's bytes, or what is wrong with it: no pipe and no device is waited for."""
    path = HERE / name
    try:
        if not path.is_file():
            return b"", "is no file" if path.exists() else "is missing"
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(min(size, most) + 1)  # Python sets aside as much as it is asked for
    except OSError as error:
        return b"", f"cannot be read: {error.strerror}"
    return data, f"was changed: it has more than {most:,} bytes" if len(data) > most else ""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def first_line(error: Exception) -> str:
    return (" ".join(str(error).split()).rstrip(".") or type(error).__name__)[:200] + "."


def say(*lines: str) -> None:
    for line in map(shown, lines):
        try:
            sys.stdout.write(line + "\n")
        except UnicodeEncodeError:  # a terminal that cannot write a class's name
            sys.stdout.write(line.encode("ascii", "backslashreplace").decode() + "\n")


def complain(fault: object) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"Error: {shown(str(fault))}\n")


def shown(text: str) -> str:
    """Return a text as one line: what would move a terminal's cursor stands as its escape."""
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        and letter not in "\u00ad\u200c\u200d"  # of words and emoji
        else letter
        for letter in text
    )


def open_missing_streams() -> None:
    """Let standard streams that are closed, as cron may have them, be the null device."""
    for name, way in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, way))  # noqa: PTH123, SIM115


def main(words: list[str]) -> int:
    open_missing_streams()
    try:
        status = answer(words)
        sys.stdout.flush()  # a disk that is full says so here at the latest
    except Fault as fault:
        complain(fault)
        return 1
    except BrokenPipeError:  # the reader has seen enough
        drop_output()
        return 1
    except OSError as error:
        drop_output()
        complain(f"the answer cannot be written: {error.strerror or error}.")
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def answer(words: list[str]) -> int:
    if "-h" in words or "--help" in words:
        say(*(__doc__ or "").strip().splitlines())
        return 0
    if words == ["selftest"]:
        return 0 if selftest() else 1
    classify(*parse(words))
    return 0


def drop_output() -> None:
    """Let what is still to be written go nowhere: the interpreter writes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
