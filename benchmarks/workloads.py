"""What is trained in a comparison: the same module, batches and order for every contestant."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import Examples, RecipeSpec, TrainConfig
from zoo.data import Batches, holdout
from zoo.models import Classifier
from zoo.pipeline.assembly import (
    build_backbone,
    build_dataset,
    build_head,
    build_objective,
    choose,
    preprocess_for,
)
from zoo.pipeline.workspace import Workspace
from zoo.tasks import Finetuning, Pretraining
from zoo.training import outputs

RECIPES = {"mlp": "textbook", "conv": "mnist-to-fashion"}
HELD = 5_000
READERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
"""Classes of torchvision.datasets."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """One training that every contestant repeats from the same initial weights."""

    title: str
    module: nn.Module
    examples: Examples
    train: Tensor  # positions in examples
    held: Tensor
    orders: list[list[Tensor]]  # for each epoch its batches of positions: what `Batches` draws
    config: TrainConfig
    root: Path
    torchvision: str  # the class in torchvision.datasets that reads the same files

    @property
    def labels(self) -> Tensor:
        assert self.examples.labels is not None
        return self.examples.labels

    def fresh(self) -> nn.Module:
        """Return a copy with the initial weights, and seed what the objective draws."""
        torch.manual_seed(self.config.seed)
        return copy.deepcopy(self.module).train()

    def as_trained(self) -> nn.Module:
        """Return such a copy with its weights laid out in memory as `fit` lays them out."""
        module = self.fresh()
        if self.config.channels_last:
            for part in module.modules():
                if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                    part.to(memory_format=torch.channels_last)
        return module

    def batches(self) -> Batches:
        """Return the batches that `fit` takes; `orders` is what they draw."""
        labelled = isinstance(self.module, Finetuning)
        tensors = (self.examples.inputs, self.labels) if labelled else (self.examples.inputs,)
        return _batches(tensors, self.train, self.config)

    def loss(self, module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss on inputs preprocessed already, float32 N x C x H x W."""
        if isinstance(module, Finetuning):
            classifier = module.classifier
            logits = classifier.head(classifier.encoder(inputs))
            return F.cross_entropy(logits, labels, label_smoothing=module.smoothing)
        assert isinstance(module, Pretraining)
        total: Tensor = module.objective(module.backbone, inputs, inputs).total
        return total

    def accuracy(self, module: nn.Module) -> float | None:
        """Return the accuracy on what is held out; None for an autoencoder."""
        if not isinstance(module, Finetuning):
            return None
        logits = outputs(module.classifier, self.examples.inputs[self.held])
        module.train()
        return float((logits.argmax(1) == self.labels[self.held]).float().mean())


def pretraining(backbone: str, workspace: Workspace, epochs: int) -> Workload:
    """Return the pretraining of recipe `textbook` (mlp) or `mnist-to-fashion` (conv) on MNIST."""
    recipe = _recipe(RECIPES[backbone], workspace)
    config = _config(recipe.pretraining, epochs)
    data = build_dataset(workspace, choose(workspace, "dataset", "mnist"))
    torch.manual_seed(config.seed)
    model = build_backbone(choose(workspace, "backbone", recipe.backbone), data.input)
    task = build_objective(workspace, choose(workspace, "objective", recipe.objective), model)
    module = Pretraining(preprocess_for(data.input, data.input, model), model, task)
    title = f"{recipe.backbone.name}: {recipe.objective.name} on MNIST, as recipe {recipe.name}"
    return _workload(title, module, data.train(), 0, config, workspace.data_root, "MNIST")


def classifying(backbone: str, workspace: Workspace, epochs: int) -> Workload:
    """Return the same encoder with a linear head on Fashion-MNIST, 5,000 examples held out.

    The training options are `mnist-to-fashion`'s for both: `textbook`'s hardly learn at all.
    """
    config = _recipe("mnist-to-fashion", workspace).finetuning
    return _classifying(_recipe(RECIPES[backbone], workspace), config, workspace, epochs, 0)


def of_recipe(name: str, workspace: Workspace, epochs: int, seed: int) -> Workload:
    """Return a recipe's classifier from scratch, 5,000 examples held out."""
    recipe = _recipe(name, workspace)
    return _classifying(recipe, recipe.finetuning, workspace, epochs, seed)


def _classifying(
    recipe: RecipeSpec, config: TrainConfig, workspace: Workspace, epochs: int, seed: int
) -> Workload:
    config = dataclasses.replace(_config(config, epochs), seed=seed)
    data = build_dataset(workspace, choose(workspace, "dataset", recipe.dataset))
    torch.manual_seed(config.seed)
    model = build_backbone(choose(workspace, "backbone", recipe.backbone), data.input)
    features: int = model.features  # type: ignore[assignment]
    head = build_head(choose(workspace, "head", recipe.head), features, len(data.classes))
    preprocess = preprocess_for(data.input, data.input, model)
    classifier = Classifier(preprocess, model.encoder, head)  # type: ignore[arg-type]
    module = Finetuning(classifier, smoothing=recipe.finetune.label_smoothing)
    title = f"{recipe.backbone.name}: classifier of {recipe.dataset.name}, from scratch"
    root, reader = workspace.data_root, READERS[recipe.dataset.name]
    return _workload(title, module, data.train(), HELD, config, root, reader)


def _recipe(name: str, workspace: Workspace) -> RecipeSpec:
    recipe: RecipeSpec = workspace.registry.lookup("recipe", name).spec
    return recipe


def _config(config: TrainConfig, epochs: int) -> TrainConfig:
    return dataclasses.replace(config, epochs=epochs, validation=0, device="cpu")


def _workload(
    title: str,
    module: nn.Module,
    examples: Examples,
    hold: int,
    config: TrainConfig,
    root: Path,
    torchvision: str,
) -> Workload:
    train, held = holdout(len(examples), hold, config.seed)
    drawn = _batches((torch.arange(len(examples)),), train, config)
    orders = [[chosen.clone() for (chosen,) in drawn] for _ in range(config.epochs)]
    return Workload(title, module, examples, train, held, orders, config, root, torchvision)


def _batches(tensors: tuple[Tensor, ...], train: Tensor, config: TrainConfig) -> Batches:
    return Batches(tensors, config.batch_size, indices=train, seed=config.seed)
