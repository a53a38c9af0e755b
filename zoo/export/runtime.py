"""An exported file run by onnxruntime alone: no torch, no onnx."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime

from zoo.api import ImageInput
from zoo.errors import ModelFileError, OutOfMemory, first_line, ran_out
from zoo.export import endless as loops
from zoo.export.card import INPUT, OUTPUTS, Card, from_metadata
from zoo.export.endless import may_be_endless, unanswered
from zoo.export.seal import check_keys, check_seal, hint, read_model

Array = np.ndarray[Any, Any]
Level = Literal["none", "full"]
PATIENCE = 2.0
"""Seconds that a run which may be endless is waited for when it is to stop."""


@dataclasses.dataclass(frozen=True)
class Session:
    """An open file: its card, and what was measured of its inputs and outputs."""

    path: Path
    card: Card
    session: Any
    endless: bool = False
    """Whether it may take any time at all; see `may_be_endless`."""

    def run(self, images: Array) -> tuple[Array, Array]:
        """Raw bytes, uint8 N x C x H x W -> logits and probabilities, float32 N x classes.

        The axes are moved, and a last batch filled up, where the file wants that. Raises
        `ModelFileError` where onnxruntime fails, `OutOfMemory` where that is the reason.
        """
        count, fixed = len(images), self.card.batch
        if fixed is not None and count != fixed:
            return self._in_batches(images, fixed)
        if self.card.layout == "NHWC":
            images = images.transpose(0, 2, 3, 1)
        try:
            feed = {INPUT: np.ascontiguousarray(images)}
            logits, probabilities = answers(self.session, OUTPUTS, feed, endless=self.endless)
        except TimeoutError:
            raise unanswered(self.path) from None
        except Exception as error:
            if ran_out(error):
                said = f"onnxruntime ran out of memory on {_counted(count)}."
                raise OutOfMemory(said, count) from error
            raise ModelFileError(
                f"onnxruntime cannot run '{self.path}': {first_line(error)}."
            ) from None
        if logits.shape != (count, len(self.card.labels)) or logits.shape != probabilities.shape:
            raise ModelFileError(f"'{self.path}' answers {count} inputs with {logits.shape}.")
        return logits, probabilities

    def _in_batches(self, images: Array, size: int) -> tuple[Array, Array]:
        count = len(images)
        if not count:
            nothing = np.zeros((0, len(self.card.labels)), dtype=np.float32)
            return nothing, nothing
        filled = np.resize(images, (-(-count // size) * size, *images.shape[1:]))
        parts = [self.run(filled[start : start + size]) for start in range(0, len(filled), size)]
        logits, probabilities = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        return logits[:count], probabilities[:count]


def answers(
    session: Any, outputs: Sequence[str], feed: Mapping[str, Array], *, endless: bool
) -> list[Array]:
    """Run an onnxruntime session once.

    onnxruntime alone would keep Ctrl-C waiting until it is done; here it is stopped at its next
    node. One that may be `endless` is stopped after `LONGEST` seconds as well, with `TimeoutError`.
    """
    options, answer = onnxruntime.RunOptions(), concurrent.futures.Future[list[Array]]()
    options.log_severity_level = 4

    def run() -> None:
        try:
            answer.set_result(session.run(list(outputs), feed, options))
        except BaseException as error:
            answer.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        return answer.result(loops.LONGEST if endless else None)
    finally:
        # It looks at that between two nodes: a loop without any never does, and is left behind.
        options.terminate = True
        thread.join(PATIENCE if endless else None)


def open_session(
    path: Path,
    data: bytes | None = None,
    *,
    level: Level = "full",
    threads: int = 0,
    sealed: bool = True,
    lean: bool = False,
) -> Session:
    """Open a file that zoo exported; `level` says how far onnxruntime may rewrite it.

    `data` are its bytes where they have been read already, `threads` 0 for onnxruntime's choice; a
    file in the making is not `sealed` yet. A `lean` session gives memory back after each run, where
    it would keep what its largest batches took; its answers are the same.

    Raises `ModelFileError` where it is missing, truncated, not ONNX, not ours, changed since it
    was sealed, or where its inputs and outputs are not what its metadata says.
    """
    data = read_model(path) if data is None else data
    onnxruntime.set_default_logger_severity(4)  # what no session says, of sizes that overflow
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = options.enable_mem_pattern = not lean
    if level == "none":
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        # Falling back would print to stdout, and here there is nothing to fall back to.
        session = onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        metadata = session.get_modelmeta().custom_metadata_map  # texts that may be no UTF-8
        ports = [
            [(port.name, port.type, list(port.shape)) for port in side]
            for side in (session.get_inputs(), session.get_outputs())
        ]
    except Exception as error:
        if ran_out(error):
            raise OutOfMemory(f"onnxruntime ran out of memory as it loaded '{path}'.") from error
        raise ModelFileError(_unloadable(path, data, error)) from None
    check_keys(data, path)
    card = from_metadata(metadata, path)
    if sealed:
        check_seal(data, path)
    _check_ports(path, ports, card)
    return Session(path, card, session, may_be_endless(data))


def _counted(count: int) -> str:
    return "a single example" if count == 1 else f"a batch of {count}"


def input_array(images: list[Array], input: ImageInput) -> Array:
    """Stack pictures into one batch, uint8 N x C x H x W."""
    return np.stack(images) if images else np.zeros((0, *input.shape), dtype=np.uint8)


def _unloadable(path: Path, data: bytes, error: Exception) -> str:
    """Say why onnxruntime cannot load a file; of one that is no ONNX file what `inspect` says."""
    said = first_line(error)
    if "INVALID_PROTOBUF" in said:
        cause = f"its {len(data):,} bytes cannot be parsed"
    elif "No graph was found" in said or "ModelProto does not have a graph" in said:
        cause = "no graph"
    else:
        return f"'{path}' is not a file that onnxruntime can load: {said}.{hint(data)}"
    return f"'{path}' is not an ONNX file, or was cut: {cause}.{hint(data)}"


def _check_ports(path: Path, ports: list[list[tuple[str, str, list[Any]]]], card: Card) -> None:
    """Hold what the graph takes and gives against what its metadata says."""
    given = ports[0]
    if given != [(INPUT, "tensor(uint8)", card.shape)]:
        raise ModelFileError(
            f"'{path}' contradicts itself: its metadata says uint8 {card.shape}, its input is"
            f" {given}."
        )
    outputs = [(name, kind, shape[1:]) for name, kind, shape in ports[1]]
    if outputs != [(name, "tensor(float)", [len(card.labels)]) for name in OUTPUTS]:
        raise ModelFileError(
            f"'{path}' contradicts itself: its metadata names {len(card.labels)} classes, its"
            f" outputs are {outputs}."
        )
