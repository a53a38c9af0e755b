"""The golden vectors on disk: tensors, and the same inputs as pictures of every awkward kind."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.api import ImageInput
from zoo.errors import ModelFileError
from zoo.export.card import Card
from zoo.export.golden import Golden, from_json
from zoo.export.runtime import Session
from zoo.pictures import read_picture
from zoo.showing import shown
from zoo.untrusted import parse_json

if TYPE_CHECKING:
    from PIL.Image import Image

SCHEMA = 1
NAME = "golden.json"
LONG_SIDE = 113
"""Of a golden picture: larger than most inputs, and a multiple of none."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of picture: its file, what a reader must do right, and how it is drawn."""

    file: str
    what: str
    draw: Callable[[Image, Path], None]
    invert: bool = False


def write(folder: Path, golden: Golden, session: Session) -> None:
    """Write `golden.json` and `golden/*`: real test examples, each enlarged to a picture.

    The bytes of each picture's input are those of `read_picture`, its answers those of the file.
    An input of neither 1 nor 3 channels is no picture: then there are tensors alone.
    """
    pictures = _pictures(folder, golden, session) if is_picture(session.card.input) else []
    content = {"schema": SCHEMA, "tensors": golden.to_json(), "pictures": pictures}
    (folder / NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def is_picture(input: ImageInput) -> bool:
    """Whether a picture file can become this input."""
    return input.channels in (1, 3)


def _pictures(folder: Path, golden: Golden, session: Session) -> list[dict[str, Any]]:
    (folder / "golden").mkdir()
    size = session.card.input
    entries = []
    for kind, index in zip(KINDS, _clearest(golden), strict=False):
        path = folder / kind.file
        kind.draw(_enlarged(golden.inputs[index]), path)
        pixels = read_picture(path, size, invert=kind.invert)
        _, probabilities = session.run(pixels[None])
        entries.append(
            {
                "file": kind.file,
                "what": kind.what,
                "invert": kind.invert,
                "input": base64.b64encode(pixels.tobytes()).decode(),
                "probabilities": probabilities[0].tolist(),
                "label": int(probabilities[0].argmax()),
            }
        )
    return entries


def fault(data: bytes, card: Card, files: Collection[str]) -> str:
    """Say what is wrong with `golden.json`, read for a model; empty where it can test a runner.

    `files` are those of the bundle, which the pictures must be among.
    """
    try:
        content = parse_json(data)
        golden = from_json(content["tensors"], NAME)
        shape, pictures = list(content["tensors"]["shape"]), list(content["pictures"])
        inputs = [base64.b64decode(entry["input"], validate=True) for entry in pictures]
        answers = [golden.logits, golden.probabilities]
        answers += [np.asarray([entry["probabilities"]], np.float32) for entry in pictures]
        outside = [str(entry["file"]) for entry in pictures if entry["file"] not in files]
    except (ModelFileError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return "is damaged"
    wanted = list(card.input.shape)
    if shape != [len(golden.inputs), *wanted] or not len(golden.inputs):
        return f"has no golden tensors of {wanted}"
    if any(len(each) != math.prod(wanted) for each in inputs):
        return f"has pictures that are no inputs of {wanted}"
    classes = len(card.labels)
    if any(each.shape[1:] != (classes,) or not np.isfinite(each).all() for each in answers):
        return f"has answers that are none of {classes} classes"
    if outside:
        return f"names a picture that is not of the bundle: '{shown(outside[0])[:200]}'"
    return "has no golden pictures" if is_picture(card.input) and not pictures else ""


def _clearest(golden: Golden) -> list[int]:
    """Order the examples by the margin of the best class: a decoder's rounding flips no label."""
    best = np.sort(golden.probabilities, axis=1)
    margins = best[:, -1] - best[:, -2] if best.shape[1] > 1 else best[:, -1]
    order = np.argsort(-margins, kind="stable")
    chosen = [int(index) for index in order]
    return (chosen * len(KINDS))[: max(len(KINDS), len(chosen))]


def _enlarged(pixels: np.ndarray[Any, Any]) -> Image:
    """Turn C x H x W into a picture whose long side is well over the input's."""
    from PIL import Image

    channels, height, width = pixels.shape
    flat = Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))
    scale = max(LONG_SIDE, round(1.4 * max(height, width))) / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return flat.resize(size, Image.Resampling.BICUBIC)


def _grey(picture: Image, path: Path) -> None:
    picture.convert("L").save(path)


def _colour(picture: Image, path: Path) -> None:
    """Tint it, so that luma is no plain mean."""
    from PIL import Image

    red, green, blue = picture.convert("RGB").split()
    green, blue = green.point(lambda v: v * 0.9), blue.point(lambda v: v * 0.7)
    Image.merge("RGB", (red, green, blue)).save(path)


def _transparent(picture: Image, path: Path) -> None:
    """Let the upper left fade out."""
    from PIL import Image

    clear = picture.convert("RGBA")
    width, height = clear.size
    steps = np.add.outer(np.arange(height) / height, np.arange(width) / width)
    clear.putalpha(Image.fromarray(np.clip(steps * 512, 0, 255).astype(np.uint8)))
    clear.save(path)


def _wide(picture: Image, path: Path) -> None:
    """Put it in the middle of a wider ground, an even number of columns on either side."""
    from PIL import Image

    width, height = picture.size
    ground = Image.new(picture.mode, (width + 2 * (width // 4), height), picture.getpixel((0, 0)))
    ground.paste(picture, (width // 4, 0))
    ground.save(path)


def _rotated(picture: Image, path: Path) -> None:
    """Store it lying on its side, with the EXIF entry that says so."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    lying = picture.convert("RGB").transpose(Image.Transpose.ROTATE_90)
    lying.save(path, quality=95, subsampling=0, exif=exif)


def _palette(picture: Image, path: Path) -> None:
    picture.convert("RGB").quantize(64).save(path)


def _dark(picture: Image, path: Path) -> None:
    from PIL import ImageOps

    ImageOps.invert(picture).save(path)


def _deep(picture: Image, path: Path) -> None:
    """16 bits with a low byte of its own, so that scaling must round."""
    from PIL import Image

    values = np.asarray(picture.convert("L"), dtype=np.uint16)
    Image.fromarray(values * 256 + (255 - values)).save(path)


KINDS = (
    Kind("golden/grey.png", "grey PNG, larger than the input", _grey),
    Kind("golden/colour.png", "RGB PNG", _colour),
    Kind("golden/transparent.png", "RGBA PNG, partly transparent", _transparent),
    Kind("golden/wide.png", "PNG with another aspect ratio", _wide),
    Kind("golden/rotated.jpg", "JPEG with an EXIF rotation of 6", _rotated),
    Kind("golden/palette.png", "palette PNG", _palette),
    Kind("golden/dark.png", "dark on light, inverted", _dark, invert=True),
    Kind("golden/deep.png", "16-bit grey PNG", _deep),
)
