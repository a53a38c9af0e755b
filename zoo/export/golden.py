"""Golden vectors: a few real inputs with the answers a sound file gives on them."""

from __future__ import annotations

import base64
import collections
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import ModelFileError

Array = np.ndarray[Any, Any]

COUNT, LEAST = 16, 2
MOST_BYTES = 256 * 1024
"""Raw bytes of all inputs: of large inputs there are fewer vectors."""


@dataclasses.dataclass(frozen=True)
class Golden:
    """Inputs, uint8 N x C x H x W; true labels, N; logits and probabilities, N x classes."""

    inputs: Array
    labels: Array
    logits: Array
    probabilities: Array

    def to_json(self) -> dict[str, Any]:
        return {
            "shape": list(self.inputs.shape),
            "inputs": base64.b64encode(np.ascontiguousarray(self.inputs).tobytes()).decode(),
            "labels": self.labels.tolist(),
            "logits": self.logits.tolist(),
            "probabilities": self.probabilities.tolist(),
        }


def proof_path(model: Path) -> Path:
    """Where a file's vectors stand: `proof.json` beside `model.onnx`, else `NAME.proof.json`."""
    name = "proof.json" if model.name == "model.onnx" else f"{model.stem}.proof.json"
    return model.with_name(name)


def from_json(content: Any, path: object) -> Golden:
    """Read golden vectors back; raises `ModelFileError` where they are not sound."""
    try:
        shape = [int(size) for size in content["shape"]]
        flat = np.frombuffer(base64.b64decode(content["inputs"], validate=True), dtype=np.uint8)
        labels = np.asarray(content["labels"], dtype=np.int64)
        logits, probabilities = (
            np.asarray(content[name], dtype=np.float32) for name in ("logits", "probabilities")
        )
        inputs = flat.reshape(shape)
        if not len(inputs) == len(labels) == len(logits) == len(probabilities):
            raise ValueError("their counts differ")
        if logits.shape != probabilities.shape or logits.ndim != 2 or len(shape) != 4:
            raise ValueError("their shapes are not sound")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelFileError(f"The golden vectors in '{path}' are damaged: {error}.") from None
    return Golden(inputs, labels, logits, probabilities)


def count_for(shape: tuple[int, ...]) -> int:
    """Return how many vectors there are of inputs of a shape, C x H x W: 2 to 16."""
    return max(LEAST, min(COUNT, MOST_BYTES // math.prod(shape)))


def chosen(labels: Array, count: int = COUNT) -> Array:
    """Choose examples spread over the classes: the first of each, then the second, and so on."""
    seen: collections.Counter[int] = collections.Counter()
    ranked = []
    for index, label in enumerate(labels.tolist()):
        ranked.append((seen[label], index))
        seen[label] += 1
    return np.array([index for _, index in sorted(ranked)[:count]], dtype=np.int64)
