"""What an exported file says of itself: the metadata under `zoo.*`, written and read back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from zoo.api import ImageInput
from zoo.errors import ModelFileError

SCHEMA = 1
LAYOUT = "NCHW"
INPUT = "image"
OUTPUTS = ("logits", "probabilities")


@dataclasses.dataclass(frozen=True)
class Card:
    """The metadata of an exported file; no date and no path, so that two exports are equal.

    `metrics` holds fractions 0..1: `accuracy` on the data set's test split.
    """

    run: str
    labels: list[str]
    input: ImageInput
    components: dict[str, Any]
    metrics: dict[str, float]
    weights_sha256: str
    versions: dict[str, str]

    def to_metadata(self) -> dict[str, str]:
        described = {
            "layout": LAYOUT,
            "dtype": "uint8",
            "range": [0, 255],
            **dataclasses.asdict(self.input),
        }
        return {
            "zoo.schema": str(SCHEMA),
            "zoo.run": self.run,
            "zoo.labels": _dump(self.labels),
            "zoo.input": _dump(described),
            "zoo.components": _dump(self.components),
            "zoo.metrics": _dump(self.metrics),
            "zoo.weights_sha256": self.weights_sha256,
            "zoo.versions": _dump(self.versions),
        }


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
        described = json.loads(metadata["zoo.input"])
        card = Card(
            run=metadata["zoo.run"],
            labels=json.loads(metadata["zoo.labels"]),
            input=ImageInput(**{k: described[k] for k in ("channels", "height", "width")}),
            components=json.loads(metadata["zoo.components"]),
            metrics=json.loads(metadata["zoo.metrics"]),
            weights_sha256=metadata["zoo.weights_sha256"],
            versions=json.loads(metadata["zoo.versions"]),
        )
        sound = (
            (described["layout"], described["dtype"]) == (LAYOUT, "uint8")
            and described["range"] == [0, 255]
            and all(isinstance(name, str) for name in card.labels)
            and all(isinstance(size, int) and size > 0 for size in card.input.shape)
            and isinstance(card.metrics, dict)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"The metadata of '{path}' is damaged: {error!r}.") from None
    if not sound:
        raise ModelFileError(f"The metadata of '{path}' is damaged: labels or input are not sound.")
    return card


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=isinstance(value, dict))
