"""Whether features improve while a backbone is pretrained: a small classifier tells each epoch.

It is fitted on the features and labels of training examples, and asked of held-out ones, without a
gradient. No label reaches anything else: the weights of a run are the same, to the bit, with it and
without.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import TrainConfig
from zoo.data import Batches
from zoo.tasks import Pretraining
from zoo.training.devices import autocast

NEIGHBOURS = 20
TEMPERATURE = 0.07
RIDGE = 1e-2
"""Weight of the squared norm in the linear probe, a share of the features' mean variance."""
ROWS = 1024


Labelled = tuple[Batches, Tensor]
"""Examples in order, (inputs,) a batch, and their labels, int64."""


class Probe:
    """Measure a pretraining's encoder by a classifier of its features; an accuracy, 0..1.

    `kind` is one of `PretrainConfig.probe`. It is fitted on `known` examples and asked of `held`
    ones, which are not trained on; both lie on the module's device.
    """

    def __init__(
        self,
        kind: str,
        module: Pretraining,
        known: Labelled,
        held: Labelled,
        classes: int,
        config: TrainConfig,
    ) -> None:
        self.name = kind
        self.examples = len(held[1])
        self._module, self._config, self._classes = module, config, classes
        self._known, self._held = (
            (batches, labels.to(batches.device)) for batches, labels in (known, held)
        )

    def __call__(self) -> float:
        measure = knn_accuracy if self.name == "knn" else linear_accuracy
        known, held = (
            (self._features(batches), labels) for batches, labels in (self._known, self._held)
        )
        return measure(known, held, self._classes)

    @torch.no_grad()
    def _features(self, batches: Batches) -> Tensor:
        module = self._module.eval()
        encoder: nn.Module = module.backbone.encoder  # type: ignore[assignment]
        parts = []
        with autocast(self._config, batches.device):
            for (raw,) in batches:
                parts.append(encoder(module.preprocess(raw)))
        return torch.cat(parts).float()


Rows = tuple[Tensor, Tensor]
"""Features, N x D, and labels, int64 N."""


@torch.no_grad()
def knn_accuracy(known: Rows, asked: Rows, classes: int) -> float:
    """Classify what is asked by its nearest neighbours in what is known -> the share that is right.

    The 20 nearest by cosine vote with the weight exp(cosine / 0.07), as in arXiv 1805.01978.
    Features are centred first, by the mean of the known.
    """
    (features, labels), (others, truth) = known, asked
    centre = features.mean(0)
    rows = F.normalize(features - centre, dim=1)
    hits = 0
    for start in range(0, len(others), ROWS):
        part = F.normalize(others[start : start + ROWS] - centre, dim=1)
        nearest, which = (part @ rows.T).topk(min(NEIGHBOURS, len(rows)), 1)
        votes = torch.zeros(len(part), classes, device=rows.device)
        # Less the nearest one's: a weight relative to it cannot overflow.
        votes.scatter_add_(1, labels[which], ((nearest - nearest[:, :1]) / TEMPERATURE).exp())
        hits += int((votes.argmax(1) == truth[start : start + ROWS]).sum())
    return hits / len(others)


@torch.no_grad()
def linear_accuracy(known: Rows, asked: Rows, classes: int) -> float:
    """Classify what is asked by a linear map fitted on what is known -> the share that is right.

    The map is ridge regression onto the classes: a linear probe in the sense of arXiv 1610.01644,
    in closed form.
    """
    features, labels = known[0].double(), known[1]
    centre = features.mean(0)
    rows = features - centre
    truth = F.one_hot(labels, classes).double()
    mean = truth.mean(0)
    gram = rows.T @ rows
    penalty = RIDGE * gram.diagonal().mean().clamp(min=1e-12)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve(gram + penalty * eye, rows.T @ (truth - mean))
    scores = (asked[0].double() - centre) @ weights + mean
    return int((scores.argmax(1) == asked[1]).sum()) / len(asked[1])
