"""What an exported file says of itself: the metadata under `zoo.*`, written and read back."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from zoo.api import ImageInput
from zoo.errors import ModelFileError
from zoo.export.seal import BLANK, KEY
from zoo.pictures import RULE
from zoo.record import LARGEST_EXAMPLE, misfits
from zoo.untrusted import parse_json, plain

SCHEMA = 1
LAYOUTS = ("NCHW", "NHWC")
PRECISIONS = ("fp32", "int8", "fp16")
NEW = "test examples new to the run"
"""The row of a proof by which a bundle says that no test example was trained on."""
INPUT = "image"
OUTPUTS = ("logits", "probabilities")
PREPROCESSED = "preprocessed"
"""The inner tensor between preprocessing and encoder, float32; files made by 0.1.0 have none."""
PIXELS = {1: "Gray8", 3: "Rgb8"}


@dataclasses.dataclass(frozen=True)
class Card:
    """The metadata of an exported file; no date and no path, so that two exports are equal.

    `metrics` holds fractions 0..1: `accuracy` on the data set's test split. `dataset_sha256` is
    that of the test split: inputs, then labels as int64, without the `left_out` examples that the
    run has seen. `batch` is None where any size is taken.
    `names` says that nodes and shapes were asked for, whatever the file's size.
    `quantization` says of an int8 or fp16 file how it was made and how it agrees with its twin.
    """

    run: str
    labels: list[str]
    input: ImageInput
    components: dict[str, Any]
    metrics: dict[str, float]
    weights_sha256: str
    versions: dict[str, str]
    dataset_sha256: str = ""
    license: str = "unknown"
    layout: str = "NCHW"
    batch: int | None = None
    precision: str = "fp32"
    quantization: dict[str, Any] | None = None
    target: str = ""
    left_out: int = 0
    names: bool = False

    @property
    def shape(self) -> list[int | str]:
        """The shape of the graph's input, `batch` standing for any size."""
        size = self.input
        inner = [size.channels, size.height, size.width]
        if self.layout == "NHWC":
            inner = [size.height, size.width, size.channels]
        return [self.batch or "batch", *inner]

    @property
    def dataset(self) -> str:
        return self._name("dataset")

    @property
    def model(self) -> str:
        """A short name: the backbone and the data set."""
        return f"{self._name('backbone')}-{self.dataset}"

    def _name(self, kind: str) -> str:
        part = self.components.get(kind)
        return str(part.get("name", "")) if isinstance(part, dict) else ""

    def to_metadata(self) -> dict[str, str]:
        """Return every key; the seal's place is blank."""
        described = {
            "layout": self.layout,
            "dtype": "uint8",
            "range": [0, 255],
            "shape": self.shape,
            **dataclasses.asdict(self.input),
            "picture": RULE,
        }
        written = {
            "zoo.schema": str(SCHEMA),
            "zoo.model": self.model,
            "zoo.run": self.run,
            "zoo.labels": _dump(self.labels),
            "zoo.input": _dump(described),
            "zoo.components": _dump(self.components),
            "zoo.dataset": self.dataset,
            "zoo.dataset_sha256": self.dataset_sha256,
            "zoo.metrics": _dump(self.metrics),
            "zoo.weights_sha256": self.weights_sha256,
            "zoo.versions": _dump(self.versions),
            "zoo.precision": self.precision,
            "license": self.license,
            KEY: BLANK.decode(),
        }
        if self.quantization is not None:
            written["zoo.quantization"] = _dump(self.quantization)
        if self.target:
            written["zoo.target"] = self.target
        if self.names:
            written["zoo.names"] = "kept"
        if self.left_out:
            written["zoo.left_out"] = str(self.left_out)
        if self.input.channels in PIXELS:  # keys of the ONNX specification
            written["Image.BitmapPixelFormat"] = PIXELS[self.input.channels]
            written["Image.ColorSpaceGamma"] = "SRGB"
            written["Image.NominalPixelRange"] = "NominalRange_0_255"
        return written


def from_metadata(metadata: Mapping[str, str], path: object) -> Card:
    """Read a card back; raises `ModelFileError` where the file is not ours, or was damaged."""
    if "zoo.schema" not in metadata:
        raise ModelFileError(
            f"'{path}' was not exported by zoo: it says nothing of its labels and input."
            " Type: zoo export RUN"
        )
    if metadata["zoo.schema"] != str(SCHEMA):
        raise ModelFileError(
            f"'{path}' has metadata of schema {metadata['zoo.schema']}; this zoo reads {SCHEMA}."
            " Type: pip install --upgrade plugzoo"
        )
    try:
        described = parse_json(metadata["zoo.input"])
        written = metadata.get("zoo.quantization")
        card = Card(
            run=metadata["zoo.run"],
            labels=parse_json(metadata["zoo.labels"]),
            input=ImageInput(**{k: described[k] for k in ("channels", "height", "width")}),
            components=parse_json(metadata["zoo.components"]),
            metrics=parse_json(metadata["zoo.metrics"]),
            weights_sha256=metadata["zoo.weights_sha256"],
            versions=parse_json(metadata["zoo.versions"]),
            dataset_sha256=metadata["zoo.dataset_sha256"],
            license=metadata["license"],
            layout=described["layout"],
            batch=None if described["shape"][0] == "batch" else described["shape"][0],
            precision=metadata["zoo.precision"],
            quantization=None if written is None else parse_json(written),
            target=metadata.get("zoo.target", ""),
            left_out=int(metadata.get("zoo.left_out", "0")),
            names="zoo.names" in metadata,
        )
        wrong = _unsound(card, described, metadata)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__} at {str(error)[:80]}"
        raise ModelFileError(f"The metadata of '{path}' is damaged: {reason}.") from None
    if wrong:
        raise ModelFileError(f"The metadata of '{path}' is damaged: {', '.join(wrong)} not sound.")
    return card


def _unsound(card: Card, described: dict[str, Any], metadata: Mapping[str, str]) -> list[str]:
    """Name the parts of a card whose values cannot be."""
    if wrong := misfits(card):
        return wrong
    sizes = dataclasses.astuple(card.input)
    checks = {
        "text": plain(dataclasses.asdict(card)),
        "labels": len(set(card.labels)) == len(card.labels) > 0,
        "dtype": (described["dtype"], described["range"]) == ("uint8", [0, 255]),
        "layout": card.layout in LAYOUTS,
        "input": min(sizes) > 0
        and math.prod(sizes) <= LARGEST_EXAMPLE
        and described["shape"] == card.shape,
        "batch": card.batch is None or 0 < card.batch <= LARGEST_EXAMPLE,
        "metrics": 0 <= card.metrics.get("accuracy", -1) <= 1,
        "precision": card.precision in PRECISIONS,
        "left_out": card.left_out >= 0,
        "quantization": (card.quantization is None) == (card.precision == "fp32"),
        "max_drop": 0 <= (card.quantization or {}).get("max_drop", 0) <= 1,
        "seal": re.fullmatch(r"[0-9a-f]{64}", metadata.get(KEY, "")) is not None,
    }
    return [name for name, sound in checks.items() if not sound]


def _dump(value: Any) -> str:
    return json.dumps(
        value,
        ensure_ascii=False,
        sort_keys=isinstance(value, dict),
        separators=(",", ":"),
    )
