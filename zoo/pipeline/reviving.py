"""A finished run's model as it was saved, whole: what a report looks at."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn

from zoo.api import Dataset
from zoo.models import Preprocess
from zoo.pipeline import assembly
from zoo.pipeline.assembly import Part
from zoo.pipeline.evaluation import load_classifier
from zoo.pipeline.teaching import Library, lending
from zoo.pipeline.workspace import Workspace
from zoo.runs import Run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A run's model in evaluation mode: what it is made of, and what turns bytes into what.

    `encode` takes preprocessed inputs to what the decoder takes; it and `decoder` are None where
    no objective trained a decoder. `classify` is raw bytes -> logits, or None.
    """

    data: Dataset
    dataset: Part
    backbone: Part
    preprocess: Preprocess
    features: nn.Module
    encode: nn.Module | None = None
    decoder: nn.Module | None = None
    classify: nn.Module | None = None
    parameters: int = 0
    watch: str = "accuracy"


class Codes(nn.Module):
    """Preprocessed inputs -> what the decoder takes, N x features: features, or an objective's own.

    An objective whose decoder takes something else than the features says so by a method
    `codes(backbone, inputs)`.
    """

    def __init__(self, backbone: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.backbone, self.objective = backbone, objective

    def forward(self, inputs: Tensor) -> Tensor:
        own: Any = getattr(self.objective, "codes", None)
        codes: Tensor
        codes = own(self.backbone, inputs) if callable(own) else self.backbone.encoder(inputs)  # type: ignore[operator]
        return codes


def revive(run: Run, workspace: Workspace) -> Model:
    """Build the model of a finished run of either kind, on the CPU, with its weights.

    Raises `ZooError` where a component or the weights are not at hand.
    """
    return (_finetuned if run.record.kind == "finetune" else _pretrained)(run, workspace)


def _finetuned(run: Run, workspace: Workspace) -> Model:
    classifier, data = load_classifier(run, workspace)
    return Model(
        data=data,
        dataset=assembly.recorded(workspace, "dataset", run.record.dataset),
        backbone=assembly.recorded(workspace, "backbone", run.record.backbone),
        preprocess=classifier.preprocess,
        features=nn.Sequential(classifier.preprocess, classifier.encoder),
        classify=classifier,
        parameters=_count(classifier),
    )


def _pretrained(run: Run, workspace: Workspace) -> Model:
    record = run.record
    assert record.objective is not None
    dataset = assembly.recorded(workspace, "dataset", record.dataset)
    backbone_part = assembly.recorded(workspace, "backbone", record.backbone)
    objective_part = assembly.recorded(workspace, "objective", record.objective)
    data = assembly.build_dataset(workspace, dataset)
    backbone: Any = assembly.build_backbone(backbone_part, run.input)
    with lending(Library(dataclasses.replace(workspace, runs=run.folder.parent))):
        objective = assembly.build_objective(workspace, objective_part, backbone)
    own: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    for name, tensor in run.load_weights().items():
        mine = name.startswith("objective.")
        (own if mine else rest)[name.removeprefix("objective.")] = tensor
    assembly.load_state(backbone, rest, backbone_part.entry.owner)
    assembly.load_state(objective, own, objective_part.entry.owner)
    preprocess = assembly.preprocess_for(run.data_input, run.input, backbone)
    spec = objective_part.entry.spec
    decodes = spec.needs_decoder and backbone.decoder is not None
    return Model(
        data=data,
        dataset=dataset,
        backbone=backbone_part,
        preprocess=preprocess,
        features=nn.Sequential(preprocess, backbone.encoder).eval(),
        encode=Codes(backbone, objective).eval() if decodes else None,
        decoder=backbone.decoder.eval() if decodes else None,
        parameters=_count(backbone),
        watch=spec.watch,
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
