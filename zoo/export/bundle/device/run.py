"""Classify picture files with the model beside this file: numpy, Pillow and onnxruntime alone.

    python run.py PICTURE… [--invert] [--top N] [--json]
    python run.py selftest

`--invert` is for dark strokes on a light ground, where the model was trained on light on dark.
`selftest` checks every file of the folder, and the model's answers on the golden vectors.
Exit status: 0; 1 with one line on stderr; 2 for wrong usage.
"""

from __future__ import annotations  # Python 3.8 or newer is needed

import base64
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
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
    from PIL import Image, ImageOps, UnidentifiedImageError
except ImportError as error:
    sys.exit(f"Error: {error}. Type: pip install -r requirements.txt")

HERE = Path(__file__).resolve().parent
BLANK = b"0" * 64
# The entry `zoo.sha256` of an ONNX file's metadata, as protobuf writes it, before its value.
MARK = b"\x0a\x0azoo.sha256\x12\x40"
LOOSE = 0.05
"""How far a probability may be off where another decoder gave other pixels."""


class Fault(Exception):
    """One line for whoever typed the command."""


# --- the model -------------------------------------------------------------------------------


def read_manifest() -> dict[str, Any]:
    """Read model.json; its own SHA-256 is taken with the place of that sum filled with zeros."""
    data = read("model.json")
    try:
        content: dict[str, Any] = json.loads(data)
        seal = content["sha256"].encode()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Fault("model.json is damaged.") from None
    if sha256(data.replace(seal, BLANK, 1)) != seal.decode():
        raise Fault("model.json was changed: its bytes do not match its seal.")
    return content


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
        self.labels: list[str] = manifest["labels"]
        self.input: dict[str, Any] = manifest["input"]
        self.outputs: dict[str, str] = manifest["outputs"]
        data = read(manifest["model"]["file"])
        if sha256(data) != manifest["model"]["sha256"]:
            raise Fault(f"{manifest['model']['file']} is not the file that model.json describes.")
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
                f" {manifest['model']['oldest_onnxruntime']} or newer: {first_line(error)}"
            ) from None

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
    try:
        with warnings.catch_warnings():
            # A picture too large to be one is an error; a damaged EXIF block is nobody's concern.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                opened.load()
                picture = upright(opened)
    except FileNotFoundError:
        raise Fault(f"There is no picture '{path}'.") from None
    except IsADirectoryError:
        raise Fault(f"'{path}' is a folder; name the pictures in it.") from None
    except UnidentifiedImageError:
        raise Fault(f"'{path}' is no readable picture: it is of no known format.") from None
    except Exception as error:  # decoders of damaged files raise whatever they like
        raise Fault(f"'{path}' is no readable picture: {first_line(error)}") from None
    flat = flatten(picture).convert("L" if input["channels"] == 1 else "RGB")
    size = (input["width"], input["height"])
    fitted = ImageOps.fit(flat, size, method=Image.Resampling.BILINEAR, centering=(0.5, 0.5))
    pixels = np.asarray(fitted, dtype=np.uint8)
    pixels = pixels[None] if input["channels"] == 1 else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(255 - pixels if invert else pixels)


def upright(picture: Any) -> Any:
    """Apply the EXIF rotation; a picture whose EXIF block cannot be read has none."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture.copy()


def flatten(picture: Any) -> Any:
    """Return a picture without transparency, 8 bits a channel."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        # Pillow's own conversion clips 16-bit grey at 255 instead of scaling it.
        values = np.asarray(picture, dtype=np.float64)
        # "I" and "F" do not say how deep they are; their values do.
        deep = picture.mode.startswith("I;") or values.max(initial=0) > 255
        scale = 255 / 65535 if deep else 1.0
        return Image.fromarray(np.clip(values * scale, 0, 255).round().astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        above = picture.convert("RGBA")
        ground = Image.new("RGBA", above.size, "white")
        return Image.alpha_composite(ground, above).convert("RGB")
    return picture


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
        path = HERE / name
        fault = "" if path.is_file() else "is missing"
        if not fault and sha256(path.read_bytes()) != recorded["sha256"]:
            fault = "was changed"
        yield name, fault, f"{recorded['bytes']:,} bytes, SHA-256 as recorded"
    model = Model(manifest)
    yield manifest["model"]["file"], "", "matches its seal; loaded"
    golden = json.loads(read(manifest["golden"]))
    bound = float(manifest["tolerance"]["probabilities"])
    for batch in (golden["tensors"]["shape"][0], 1):
        fault, figure = check_tensors(model, golden["tensors"], bound, batch)
        yield f"golden tensors at batch {batch}", fault, figure
    for entry in golden["pictures"]:
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
    if json.loads(written(found, 1, True)) != {"predictions": found}:
        return "what --json prints is not the answer"
    for one, name, row in zip(found, names, probabilities):
        start = f"{name}  {model.labels[row.argmax()]}  "
        if not written([one], 1, False).startswith(start):
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
    say(written(ranked(model, paths, probabilities), top, as_json))


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


def written(found: list[dict[str, Any]], top: int, as_json: bool) -> str:
    """Return what is printed of the answers."""
    if as_json:
        return json.dumps({"predictions": found}, indent=2)
    return "\n".join(
        f"{one['picture']}  {label}  {probability * 100:.2f} %"
        for one in found
        for label, probability in list(one["classes"].items())[:top]
    )


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
    sys.stderr.write(f"Error: {fault} See: python run.py --help\n")
    sys.exit(2)


def read(name: str) -> bytes:
    """Read a file of this folder."""
    try:
        return (HERE / name).read_bytes()
    except OSError as error:
        raise Fault(f"{name} cannot be read: {error.strerror}.") from None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def first_line(error: Exception) -> str:
    return (" ".join(str(error).split()).rstrip(".") or type(error).__name__)[:200] + "."


def say(text: str) -> None:
    try:
        sys.stdout.write(text + "\n")
    except UnicodeEncodeError:  # a terminal that cannot write a class's name
        sys.stdout.write(text.encode("ascii", "backslashreplace").decode() + "\n")


def main(words: list[str]) -> int:
    try:
        status = answer(words)
        sys.stdout.flush()  # a disk that is full says so here at the latest
    except Fault as fault:
        sys.stderr.write(f"Error: {fault}\n")
        return 1
    except BrokenPipeError:  # the reader has seen enough
        drop_output()
        return 1
    except OSError as error:
        drop_output()
        sys.stderr.write(f"Error: the answer cannot be written: {error.strerror or error}.\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def answer(words: list[str]) -> int:
    if "-h" in words or "--help" in words:
        say((__doc__ or "").strip())
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
