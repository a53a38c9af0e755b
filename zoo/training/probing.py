"""Whether features improve while a backbone is pretrained: a small classifier on held-out examples.

A probe sees features of examples that are never trained on, without a gradient, and their labels
reach nothing else: the weights of a run are the same, to the bit, with it and without.
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


class Probe:
    """Measure a pretraining's encoder by the labels of held-out examples; an accuracy, 0..1.

    `kind` is one of `PretrainConfig.probe`; `held` are those examples in order, on their device,
    (inputs,) a batch; `labels` int64, theirs.
    """

    def __init__(
        self,
        kind: str,
        module: Pretraining,
        held: Batches,
        labels: Tensor,
        classes: int,
        config: TrainConfig,
    ) -> None:
        self.name = kind
        self._module, self._held, self._config = module, held, config
        self._labels, self._classes = labels.to(held.device), classes

    def __call__(self) -> float:
        measure = knn_accuracy if self.name == "knn" else linear_accuracy
        return measure(self._features(), self._labels, self._classes)

    @torch.no_grad()
    def _features(self) -> Tensor:
        module = self._module.eval()
        encoder: nn.Module = module.backbone.encoder  # type: ignore[assignment]
        parts = []
        with autocast(self._config, self._held.device):
            for (raw,) in self._held:
                parts.append(encoder(module.preprocess(raw)))
        return torch.cat(parts).float()


@torch.no_grad()
def knn_accuracy(features: Tensor, labels: Tensor, classes: int) -> float:
    """Classify each example by its nearest others, N x D and int64 N -> the share that is right.

    The 20 nearest by cosine vote with the weight exp(cosine / 0.07), as in arXiv 1805.01978; an
    example is no neighbour of itself. Features are centred first.
    """
    rows = F.normalize(features - features.mean(0), dim=1)
    neighbours = min(NEIGHBOURS, len(rows) - 1)
    hits = 0
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        likeness = part @ rows.T
        own = torch.arange(len(part), device=rows.device)
        likeness[own, own + start] = -torch.inf
        nearest, which = likeness.topk(neighbours, 1)
        votes = torch.zeros(len(part), classes, device=rows.device)
        # Less the nearest one's: a weight relative to it cannot overflow.
        votes.scatter_add_(1, labels[which], ((nearest - nearest[:, :1]) / TEMPERATURE).exp())
        hits += int((votes.argmax(1) == labels[start : start + ROWS]).sum())
    return hits / len(rows)


@torch.no_grad()
def linear_accuracy(features: Tensor, labels: Tensor, classes: int) -> float:
    """Classify each half by a linear map fitted on the other half: the share that is right.

    N x D and int64 N. The map is ridge regression onto the classes (a linear probe in the sense of
    arXiv 1610.01644, in closed form); the halves are every second example.
    """
    even = torch.arange(len(features), device=features.device) % 2 == 0
    hits = 0
    for fitted in (even, ~even):
        rows = features[fitted].double()
        centre = rows.mean(0)
        rows = rows - centre
        truth = F.one_hot(labels[fitted], classes).double()
        mean = truth.mean(0)
        gram = rows.T @ rows
        penalty = RIDGE * gram.diagonal().mean().clamp(min=1e-12)
        eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        weights = torch.linalg.solve(gram + penalty * eye, rows.T @ (truth - mean))
        scores = (features[~fitted].double() - centre) @ weights + mean
        hits += int((scores.argmax(1) == labels[~fitted]).sum())
    return hits / len(features)
