"""Classifier → ONNX graph: raw bytes in, logits and probabilities out."""

from __future__ import annotations

import contextlib
import functools
import importlib
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from zoo.api import ImageInput
from zoo.errors import ModelFileError, OutOfMemory, PluginFault, ran_out
from zoo.export.card import INPUT, OUTPUTS, PREPROCESSED, Card
from zoo.export.modelfile import check_weights, examined, graphs
from zoo.export.naming import describe, large, name_nodes, shorten
from zoo.export.optimizing import optimize
from zoo.export.seal import seal
from zoo.export.silence import silence
from zoo.export.targets import OPSET
from zoo.models import Classifier


class Deployed(nn.Module):
    """What is exported: a classifier with its softmax.

    uint8 N x C x H x W, or N x H x W x C where `last` -> logits and probabilities, N x classes, and
    what the encoder takes, float32 N x C' x H' x W'.
    """

    def __init__(self, classifier: Classifier, *, last: bool = False) -> None:
        super().__init__()
        self.classifier = classifier
        self.last = last

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inputs = self.classifier.preprocess(image.permute(0, 3, 1, 2) if self.last else image)
        preprocessed = inputs.clone()  # an encoder may change its input in place
        logits = self.classifier.classify(inputs)
        return logits, logits.softmax(1), preprocessed


def to_graph(
    classifier: Classifier,
    input: ImageInput,
    *,
    opset: int = OPSET,
    layout: str = "NCHW",
    batch: int | None = None,
) -> onnx.ModelProto:
    """Trace a classifier as a graph without metadata; the same one gives the same graph.

    `batch` fixes the first axis; None leaves it open under the name `batch`. The inner tensor that
    the encoder takes is called `preprocessed`.
    Raises `PluginFault` where a component has an operation that cannot be exported.
    """
    deployed = Deployed(classifier, last=layout == "NHWC").cpu().eval()
    # Different examples, two where any number may come: a trace with one, or with zeros, may fix
    # what should vary.
    count = batch or 2
    example = torch.arange(count * input.channels * input.height * input.width) % 256
    example = example.to(torch.uint8).view(count, *input.shape)
    if layout == "NHWC":
        example = example.permute(0, 2, 3, 1).contiguous()
    model = _trace(deployed, example, opset, fixed=batch is not None)
    # It was an output while the graph was optimized, so that nothing was merged across it.
    del model.graph.output[len(OUTPUTS) :]
    name_nodes(model)
    strip(model)
    versions = {each.domain: each.version for each in model.opset_import}
    if versions != {"": opset} or model.functions:
        raise PluginFault(
            f"The exported graph needs operators {versions}, not opset {opset} alone:"
            " a component uses an operation that ONNX does not have there."
        )
    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import))
    return model


def finished(model: onnx.ModelProto, card: Card) -> bytes:
    """Write names, metadata and seal: the bytes of the file.

    In a small file names are short, unless the card says that they are to be kept.

    The model is changed in place: a copy would be as large as its weights. It may be finished anew,
    with another card. Raises `PluginFault` where what came out is not a sound file.
    """
    named = Path("the exported graph")
    try:
        check_weights(named, model)  # while they have the names that the classifier gave them
        (describe if card.names or large(model) else shorten)(model)
        model.producer_name = "plugzoo"
        model.producer_version = card.versions.get("plugzoo", "")
        model.model_version = 1
        model.domain = model.doc_string = ""
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, card.to_metadata())
        data = seal(bytes(model.SerializeToString(deterministic=True)))
        examined(named, data, model)
    except ModelFileError as error:
        raise PluginFault(f"This classifier cannot be exported: {error}") from error
    return data


def strip(model: onnx.ModelProto) -> None:
    """Take out what tells of the machine, and shapes that can be inferred."""
    for graph in graphs(model.graph):
        del graph.value_info[:]
        for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
            del part.metadata_props[:]
            part.doc_string = ""
    del model.metadata_props[:]
    model.doc_string = ""


def _read_operators_once() -> None:
    """Let torch read its table of ONNX functions once a process, not once an export.

    It is the same each time, and reading it takes a second.
    """
    with contextlib.suppress(ImportError, AttributeError):  # torch's own affair, and it may change
        registration: Any = importlib.import_module("torch.onnx._internal.exporter._registration")
        apis = registration.onnxscript_apis
        if not hasattr(apis.get_torchlib_ops, "cache_info"):
            apis.get_torchlib_ops = functools.cache(apis.get_torchlib_ops)


def _trace(deployed: nn.Module, example: Tensor, opset: int, *, fixed: bool) -> onnx.ModelProto:
    _read_operators_once()
    try:
        with silence():
            program: Any = torch.onnx.export(
                deployed,
                (example,),
                None,
                input_names=[INPUT],
                output_names=[*OUTPUTS, PREPROCESSED],
                # A named axis: exporting fails where a component fixes the batch.
                dynamic_shapes=None if fixed else ({0: "batch"},),
                opset_version=opset,
                dynamo=True,
                external_data=False,
                optimize=False,
                verbose=False,
            )
            optimize(program.model)
    except Exception as error:
        cause = error.__cause__ or error
        if ran_out(error) or ran_out(cause):
            raise OutOfMemory("Tracing the classifier ran out of memory.") from error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [repr(cause)]
        # A heading says nothing without the line below it.
        reason = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
        raise PluginFault(
            f"This classifier cannot be exported: {type(cause).__name__}: {reason}"
        ) from error
    model: onnx.ModelProto = program.model_proto
    return model
