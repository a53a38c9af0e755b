"""What pretraining and finetuning share in making a run: its record, batches and figures."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import torch

from zoo.api import Dataset, ImageInput, TrainConfig
from zoo.config import to_json
from zoo.data import Batches
from zoo.errors import PluginFault, TrainingError, ZooError
from zoo.pipeline.assembly import Part
from zoo.record import Record
from zoo.runs import Run
from zoo.training import Epoch


def start_record(
    kind: str,
    parts: dict[str, Part],
    data: Dataset,
    built: ImageInput,
    training: TrainConfig,
    device: str,
    threads: int,
    recipe: dict[str, Any] | None,
    **more: Any,
) -> Record:
    """Describe a run that is about to begin, every option resolved."""
    return Record(
        run="",
        kind=kind,
        status="running",
        created="",
        dataset=parts["dataset"].record,
        backbone=parts["backbone"].record,
        objective=parts["objective"].record if "objective" in parts else None,
        head=parts["head"].record if "head" in parts else None,
        input=list(built.shape),
        data_input=list(data.input.shape),
        classes=list(data.classes),
        training=to_json(training),
        finetune=more.get("finetune"),
        parent=more.get("parent"),
        seed=training.seed,
        device=device,
        threads=threads,
        versions=versions(),
        process={},
        recipe=recipe,
    )


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    names = ("plugzoo", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "numpy")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def make_batches(
    tensors: tuple[torch.Tensor, ...],
    train: torch.Tensor,
    held: torch.Tensor,
    training: TrainConfig,
    device: torch.device,
) -> tuple[Batches, Batches | None]:
    """Return shuffled batches to train on, and ordered ones of what is held out, if any."""
    tensors = tuple(tensor.to(device) for tensor in tensors)  # once, for both
    batches = Batches(
        tensors, training.batch_size, indices=train, seed=training.seed, device=device
    )
    if not len(held):
        return batches, None
    return batches, Batches(tensors, 512, indices=held, device=device)


def epoch_writer(run: Run) -> Any:
    """Return a function that appends an epoch to the run's metrics."""

    def write(epoch: Epoch) -> None:
        run.append_metrics(dataclasses.asdict(epoch))

    return write


def summary(epochs: list[Epoch], **counts: int) -> dict[str, Any]:
    """Return the last epoch's figures, the rate, and how many examples of each sort there were."""
    figures: dict[str, Any] = {f"{name}_examples": count for name, count in counts.items()}
    if epochs:
        seconds = sum(epoch.seconds for epoch in epochs)
        figures |= {"train": epochs[-1].train, "validation": epochs[-1].validation}
        figures["examples_per_second"] = round(counts["train"] * len(epochs) / max(seconds, 1e-9))
    return figures


def title(deed: str, parts: dict[str, Part]) -> str:
    return f"{deed} {parts['backbone'].entry.name} on {parts['dataset'].entry.name}"


@contextlib.contextmanager
def training_guard(parts: dict[str, Part], training: TrainConfig) -> Iterator[None]:
    """Tell what plugins raise while they are trained in one line that names them."""
    try:
        yield
    except (ZooError, OSError):
        raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"The device has no memory left: {str(error).splitlines()[0]}"
            f" Type a smaller --batch-size than {training.batch_size}."
        ) from error
    except Exception as error:
        if os.environ.get("ZOO_STRICT") == "1":
            raise
        trained = [p.entry for kind, p in parts.items() if kind != "dataset"]
        names = " or ".join(f"{entry.owner} of plugin {entry.plugin}" for entry in trained)
        small = " Type --batch-size 2 or more." if training.batch_size == 1 else ""
        text = " ".join(str(error).split())
        raise PluginFault(
            f"Training failed in {names}: {type(error).__name__}: {text}.{small}"
            " For the traceback, set ZOO_STRICT=1."
        ) from error
