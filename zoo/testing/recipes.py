"""What is asked of a recipe: its parts are there, go together, and train on its input."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.api import Dataset, RecipeSpec, TrainConfig
from zoo.data import Batches
from zoo.models import Classifier
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part, choose
from zoo.pipeline.workspace import Workspace
from zoo.registry import Entry, Registry
from zoo.tasks import Finetuning, Pretraining
from zoo.testing import modules
from zoo.testing.report import ComponentReport, Failure, Rows, Skipped
from zoo.training import fit, seed_everything

KINDS = ("dataset", "backbone", "objective", "head")


def check_recipe(registry: Registry, entry: Entry, data_root: Path | None) -> ComponentReport:
    """Hold a recipe to its contract, on random bytes of its data set's shape."""
    own = registry.preferring(entry.plugin.split(":")[0])  # as when it is run
    workspace = Workspace(plugins=own, data=data_root)
    spec: RecipeSpec = entry.spec
    rows = Rows()
    parts: dict[str, Part] = {}
    rows.add(
        "parts",
        lambda: _parts(workspace, spec, parts),
        "name components that are installed, with options that they have.",
    )
    trained: dict[str, Any] = {}
    rows.add("pretraining", lambda: _pretrain(workspace, spec, parts, trained))
    rows.add("finetuning", lambda: _finetune(workspace, spec, parts, trained))
    rows.add("export", lambda: _export(trained))
    rows.add("seeds", lambda: _seeds(spec))
    return ComponentReport("recipe", entry.name, tuple(rows.found))


def _parts(workspace: Workspace, spec: RecipeSpec, parts: dict[str, Part]) -> str:
    found = {kind: choose(workspace, kind, getattr(spec, kind)) for kind in KINDS}
    first = spec.pretrain_dataset or spec.dataset
    found["pretrain_dataset"] = choose(workspace, "dataset", first)
    parts |= found
    return ", ".join(part.entry.name for part in found.values())


def _described(workspace: Workspace, parts: dict[str, Part], name: str) -> Dataset:
    if not parts:
        raise Skipped("its parts are not all there")
    return assembly.build_dataset(workspace, parts[name])


def _short(config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(config, epochs=1, batch_size=modules.EXAMPLES)


def _pretrain(
    workspace: Workspace, spec: RecipeSpec, parts: dict[str, Part], trained: dict[str, Any]
) -> str:
    data = _described(workspace, parts, "pretrain_dataset")
    seed_everything(0)
    backbone = assembly.build_backbone(parts["backbone"], data.input)
    objective = assembly.build_objective(workspace, parts["objective"], backbone)
    preprocess = assembly.preprocess_for(data.input, data.input, backbone)
    assembly.check_objective(parts["objective"], objective, backbone, preprocess)
    batches = Batches((modules.raw_bytes(data.input),), modules.EXAMPLES)
    fit(Pretraining(preprocess, backbone, objective), batches, _short(spec.pretraining))
    trained |= {"backbone": backbone, "built": data.input}
    return f"a step on {data.input}"


def _finetune(
    workspace: Workspace, spec: RecipeSpec, parts: dict[str, Part], trained: dict[str, Any]
) -> str:
    if not trained:
        raise Skipped("it was not pretrained")
    data = _described(workspace, parts, "dataset")
    if spec.finetune.labels is not None and spec.finetune.labels < len(data.classes):
        raise Failure(
            f"{spec.finetune.labels} labels cannot cover {len(data.classes)} classes",
            "give FinetuneConfig as many labels as there are classes, or more.",
        )
    backbone: Any = trained["backbone"]
    head: nn.Module = assembly.build_head(parts["head"], backbone.features, len(data.classes))
    preprocess = assembly.preprocess_for(data.input, trained["built"], backbone)
    classifier = Classifier(preprocess, backbone.encoder, head, frozen=spec.finetune.freeze)
    raw = modules.raw_bytes(data.input)
    labels = torch.arange(len(raw)) % len(data.classes)
    fit(Finetuning(classifier), Batches((raw, labels), len(raw)), _short(spec.finetuning))
    trained |= {"classifier": classifier, "input": data.input, "classes": len(data.classes)}
    return f"a step on {data.input}, {len(data.classes)} classes"


def _export(trained: dict[str, Any]) -> str:
    if "classifier" not in trained:
        raise Skipped("it was not finetuned")
    worst = modules.check_export(trained["classifier"], trained["input"], trained["classes"])
    return f"onnxruntime within {worst:.0e}, batches 1, 7, 64, 257"


def _seeds(spec: RecipeSpec) -> str:
    if not spec.seeds or len(set(spec.seeds)) != len(spec.seeds):
        raise Failure(f"its seeds are {spec.seeds}", "name one seed or more, each once.")
    return ", ".join(str(seed) for seed in spec.seeds)
