"""An exported file run by onnxruntime alone: no torch, no onnx."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from zoo.api import ImageInput
from zoo.errors import ModelFileError
from zoo.export.card import INPUT, OUTPUTS, Card, from_metadata

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Session:
    """An open file: its card, and what was measured of its inputs and outputs."""

    path: Path
    card: Card
    session: Any

    def run(self, images: Array) -> tuple[Array, Array]:
        """Raw bytes, uint8 N x C x H x W -> logits and probabilities, float32 N x classes."""
        try:
            logits, probabilities = self.session.run(list(OUTPUTS), {INPUT: images})
        except Exception as error:
            raise ModelFileError(
                f"onnxruntime cannot run '{self.path}': {_first_line(error)}"
            ) from None
        return logits, probabilities


def open_session(path: Path, data: bytes | None = None) -> Session:
    """Open a file that zoo exported, at onnxruntime's default optimization level.

    `data` are its bytes where they have been read already.

    Raises `ModelFileError` where it is missing, truncated, not ONNX, not ours, or where its
    inputs and outputs are not what its metadata says.
    """
    data = read_model(path) if data is None else data
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        hint = " It is a zip archive, as a PyTorch file is." if data[:2] == b"PK" else ""
        raise ModelFileError(
            f"'{path}' is not a file that onnxruntime can load: {_first_line(error)}.{hint}"
        ) from None
    card = from_metadata(session.get_modelmeta().custom_metadata_map, path)
    _check_ports(path, session, card)
    return Session(path, card, session)


def read_model(path: Path) -> bytes:
    """Read a model file's bytes; raises `ModelFileError`."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelFileError(f"There is no file '{path}'. Type: zoo export RUN") from None
    except IsADirectoryError:
        raise ModelFileError(f"'{path}' is a folder; name the .onnx file in it.") from None
    except OSError as error:
        raise ModelFileError(f"'{path}' cannot be read: {error.strerror}.") from None
    if not data:
        raise ModelFileError(f"'{path}' is empty, not an ONNX file.")
    return data


def input_array(images: list[Array], input: ImageInput) -> Array:
    """Stack pictures into one batch, uint8 N x C x H x W."""
    return np.stack(images) if images else np.zeros((0, *input.shape), dtype=np.uint8)


def _check_ports(path: Path, session: Any, card: Card) -> None:
    """Hold what the graph takes and gives against what its metadata says."""
    given = [(port.name, port.type, list(port.shape)[1:]) for port in session.get_inputs()]
    if given != [(INPUT, "tensor(uint8)", list(card.input.shape))]:
        raise ModelFileError(
            f"'{path}' contradicts itself: its metadata says uint8 {card.input}, its input is"
            f" {given}."
        )
    outputs = [(port.name, list(port.shape)[1:]) for port in session.get_outputs()]
    if outputs != [(name, [len(card.labels)]) for name in OUTPUTS]:
        raise ModelFileError(
            f"'{path}' contradicts itself: its metadata names {len(card.labels)} classes, its"
            f" outputs are {outputs}."
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
