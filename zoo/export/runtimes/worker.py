"""Run one file by one runtime: python -P worker.py NAME VARIANT FOLDER.

A script: it imports numpy and the runtime it is asked for, nothing of ours. The folder holds
model.onnx, images (raw bytes) and task.json; it writes version, then logits and probabilities
(raw float32), or problem.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Run = Callable[[Array], Sequence[Any]]  # images -> logits and probabilities, in that order
OUTPUTS = ["logits", "probabilities"]


def load_tract(tract: Any, model: str, variant: str) -> Run:
    runnable = tract.onnx().load(model).into_model().into_runnable()
    # It names outputs by their nodes: they are told apart by their order.
    return lambda images: [output.to_numpy() for output in runnable.run([images])]


def load_openvino(openvino: Any, model: str, variant: str) -> Run:
    # Without it a CPU that has bfloat16 computes in it, and labels differ.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", exact)

    def run(images: Array) -> Sequence[Any]:
        found = compiled({"image": images})
        return [found[name] for name in OUTPUTS]

    return run


def load_opencv(cv2: Any, model: str, variant: str) -> Run:
    engine = getattr(cv2.dnn, variant, None)  # OpenCV 4 has but one
    net = cv2.dnn.readNetFromONNX(model, **({} if engine is None else {"engine": engine}))

    def run(images: Array) -> Sequence[Any]:
        net.setInput(images, "image")
        found: Sequence[Any] = net.forward(OUTPUTS)
        return found

    return run


def load_onnxruntime(onnxruntime: Any, model: str, variant: str) -> Run:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda images: session.run(OUTPUTS, {"image": images})


def load_reference(reference: Any, model: str, variant: str) -> Run:
    evaluator = reference.ReferenceEvaluator(model)
    return lambda images: evaluator.run(OUTPUTS, {"image": images})


RUNTIMES: dict[str, tuple[str, Callable[[Any, str, str], Run]]] = {
    "tract": ("tract", load_tract),
    "openvino": ("openvino", load_openvino),
    "opencv": ("cv2", load_opencv),
    "onnxruntime": ("onnxruntime", load_onnxruntime),
    "onnx.reference": ("onnx.reference", load_reference),
}


def main(name: str, variant: str, folder: Path) -> None:
    task = json.loads((folder / "task.json").read_text())
    images = np.fromfile(folder / "images", np.uint8).reshape(task["shape"])
    module, load = RUNTIMES[name]
    try:
        runtime = importlib.import_module(module)
        (folder / "version").write_text(version_of(runtime, variant))
        outputs = answer(load(runtime, str(folder / "model.onnx"), variant), images, task["batch"])
    except Exception as error:
        reason = str(error).partition("Stack backtrace")[0]  # Rust adds a page of it
        (folder / "problem").write_text(reason.strip() or type(error).__name__)
        return
    for output, array in zip(OUTPUTS, outputs, strict=True):
        array.tofile(folder / output)


def version_of(runtime: Any, variant: str) -> str:
    package = sys.modules[runtime.__name__.split(".")[0]]
    found = getattr(package, "__version__", None) or package.version()
    return f"{found.split('-')[0]} {variant}".strip()


def answer(run: Run, images: Array, batch: int) -> list[Array]:
    """Run every batch; an answer for another number of examples is an error, whatever it holds."""
    parts = []
    for start in range(0, len(images), batch):
        given = images[start : start + batch]
        # A copy: a runtime may hand out the same memory at every call.
        found = [np.array(output, np.float32) for output in run(given)]
        rows = [len(output) for output in found]
        if rows != [len(given)] * len(OUTPUTS):
            raise ValueError(f"a batch of {len(given)} got {rows} answers")
        parts.append(found)
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
