"""Classifier → ONNX graph: raw bytes in, logits and probabilities out, one dynamic batch axis."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from zoo.api import ImageInput
from zoo.errors import ModelFileError, PluginFault
from zoo.export.card import INPUT, OUTPUTS, Card

OPSET = 18
"""With IR 8 every onnxruntime from 1.15 loads it."""


class Deployed(nn.Module):
    """What is exported: a classifier with its softmax."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.classifier(image)
        return logits, logits.softmax(1)


def to_onnx(classifier: nn.Module, input: ImageInput, card: Card) -> bytes:
    """Export a classifier as the bytes of one ONNX file; the same one gives the same bytes.

    Raises `PluginFault` where a component has an operation that cannot be exported.
    """
    deployed = Deployed(classifier).cpu().eval()
    # Two different examples: a trace with one, or with zeros, may fix what should vary.
    example = torch.arange(2 * input.channels * input.height * input.width) % 256
    example = example.to(torch.uint8).view(2, *input.shape)
    model = _trace(deployed, example)
    _strip(model)
    versions = {opset.domain: opset.version for opset in model.opset_import}
    if versions != {"": OPSET} or model.functions:
        raise PluginFault(
            f"The exported graph needs operators {versions}, not opset {OPSET} alone:"
            " a component uses an operation that ONNX does not have."
        )
    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import))
    model.producer_name, model.producer_version = "plugzoo", card.versions.get("plugzoo", "")
    model.model_version = 1
    model.doc_string = ""
    onnx.helper.set_model_props(model, card.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def open_checked(data: bytes, path: object) -> onnx.ModelProto:
    """Parse and check the bytes of a file; raises `ModelFileError`.

    Loading alone proves nothing: an empty file loads as an empty model.
    """
    if not data:
        raise ModelFileError(f"'{path}' is empty, not an ONNX file.")
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        hint = " It is a zip archive, as a PyTorch file is." if data[:2] == b"PK" else ""
        reason = str(error).strip().splitlines()
        said = reason[0] if reason else type(error).__name__
        raise ModelFileError(f"'{path}' is not a sound ONNX file: {said}.{hint}") from None
    outside = [t.name for t in _tensors(model.graph) if t.data_location == t.EXTERNAL]
    if outside:
        raise ModelFileError(
            f"'{path}' is not one file: its weights lie in another ({outside[0]})."
            " Type: zoo export RUN"
        )
    return model


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the graphs inside it: branches and loop bodies."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else []
            for each in (*inner, *attribute.graphs):
                yield from _graphs(each)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every constant of a graph, those held by attributes included."""
    for each in _graphs(graph):
        yield from each.initializer
        for node in each.node:
            for attribute in node.attribute:
                yield from ([attribute.t] if attribute.HasField("t") else [])
                yield from attribute.tensors


def _trace(deployed: nn.Module, example: Tensor) -> onnx.ModelProto:
    try:
        with _silence():
            program: Any = torch.onnx.export(
                deployed,
                (example,),
                None,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                # A named axis: exporting fails where a component fixes the batch.
                dynamic_shapes=({0: "batch"},),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except Exception as error:
        cause = error.__cause__ or error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [repr(cause)]
        # A heading says nothing without the line below it.
        reason = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
        raise PluginFault(
            f"This classifier cannot be exported: {type(cause).__name__}: {reason}"
        ) from error
    model: onnx.ModelProto = program.model_proto
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Take out what tells of the machine: stack traces, source paths, comments."""
    for graph in _graphs(model.graph):
        ports = (*graph.value_info, *graph.input, *graph.output)
        for part in (graph, *graph.node, *graph.initializer, *ports):
            del part.metadata_props[:]
            part.doc_string = ""
    del model.metadata_props[:]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's graph dumps from the user; its exceptions still come through."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(before)
