"""`pretrain`: a backbone and an objective, no labels."""

from __future__ import annotations

import dataclasses
import platform
from importlib import metadata
from typing import Any

import torch

from zoo import runs
from zoo.api import Component, Dataset, ImageInput, TrainConfig
from zoo.config import to_json
from zoo.data import Batches, checked, holdout
from zoo.models import Pretraining
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part, choose
from zoo.pipeline.workspace import Workspace
from zoo.progress import current
from zoo.record import Record
from zoo.runs import Run
from zoo.training import Epoch, cpu_threads, fit, resolve_device, seed_everything


def pretrain(
    backbone: str | Component,
    *,
    dataset: str | Component = "digits",
    objective: str | Component = "reconstruct",
    training: TrainConfig | None = None,
    workspace: Workspace | None = None,
    recipe: dict[str, Any] | None = None,
) -> Run:
    """Train a backbone on a data set without its labels, and return the finished run.

    `recipe` is what a recipe notes in the run's record. Raises `ZooError` before any data is
    loaded where the parts do not go together.
    """
    workspace = workspace or Workspace()
    training = training or TrainConfig()
    parts = {
        "dataset": choose(workspace, "dataset", dataset),
        "backbone": choose(workspace, "backbone", backbone),
        "objective": choose(workspace, "objective", objective),
    }
    device = resolve_device(training.device)
    with cpu_threads(training.threads) as threads:
        data = assembly.build_dataset(workspace, parts["dataset"])
        seed_everything(training.seed)
        model = assembly.build_backbone(parts["backbone"], data.input)
        task = assembly.build_objective(workspace, parts["objective"], model)
        preprocess = assembly.preprocess_for(data.input, data.input, model)
        assembly.check_objective(parts["objective"], task, model, preprocess)
        record = start_record(
            "pretrain", parts, data, data.input, training, str(device), threads, recipe
        )
        run = runs.create(workspace.runs_root, record)
        with run.recording():
            inputs = _unlabelled_inputs(parts["dataset"], data)
            train, held = holdout(len(inputs), training.validation, training.seed)
            module = Pretraining(preprocess, model, task).to(device)
            batches, validation = make_batches((inputs,), train, held, training, device)
            seed_everything(training.seed)
            epochs = fit(
                module,
                batches,
                training,
                validation=validation,
                watch=parts["objective"].entry.spec.watch,
                title=title("pretraining", parts),
                on_epoch=epoch_writer(run),
            )
            tensors = {**model.state_dict(), **_prefixed("objective", task)}
            run.save_weights(tensors)
            run.record.metrics = summary(epochs, train=len(train), validation=len(held))
    return run


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


def _unlabelled_inputs(part: Part, data: Dataset) -> torch.Tensor:
    """Return the inputs of the training split and of the unlabelled one; labels are dropped."""
    with assembly.guarded(part.entry, "loaded"):
        splits = [data.train()] + ([data.unlabelled()] if data.unlabelled else [])
    inputs = [checked(s, data.input.shape, None, part.entry.owner).inputs for s in splits]
    current().note(f"{sum(map(len, inputs)):,} examples of {part.entry.name}, labels unused")
    return torch.cat(inputs) if len(inputs) > 1 else inputs[0]


def _prefixed(prefix: str, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}
