"""What `fit` trains: pretraining, finetuning, self-training, each a module that returns losses."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import Losses
from zoo.models import Classifier, Preprocess

BALANCE_RATE = 0.05
"""How far the weight of a class moves in a step, for each time that its share is off by itself."""


class Pretraining(nn.Module):
    """What pretraining fits: raw bytes -> the objective's losses."""

    def __init__(self, preprocess: Preprocess, backbone: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.backbone = backbone
        self.objective = objective

    @property
    def components(self) -> dict[str, nn.Module]:
        """The modules that plugins built, by kind; an objective may hold the backbone."""
        return {"objective": self.objective, "backbone": self.backbone}

    def saved(self) -> dict[str, Tensor]:
        """Return the tensors that are saved when it is trained."""
        own = self.objective.state_dict()
        return {**self.backbone.state_dict(), **{f"objective.{n}": t for n, t in own.items()}}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what was saved; without the objective's where those are left out."""
        own = {n.removeprefix("objective."): t for n, t in tensors.items() if _objective_s(n)}
        self.backbone.load_state_dict({n: t for n, t in tensors.items() if not _objective_s(n)})
        if own:
            self.objective.load_state_dict(own)

    def forward(self, raw: Tensor) -> Losses:
        losses: Losses = self.objective(self.backbone, self.preprocess(raw), raw)
        return losses


def _objective_s(name: str) -> bool:
    return name.startswith("objective.")


class Finetuning(nn.Module):
    """What finetuning fits: raw bytes and labels -> cross entropy, and the accuracy as a part.

    Labels are int64 N, or float32 N x classes that sum to 1; the accuracy is that of the heaviest.
    `smoothing` spreads a share of each label over all classes in training (arXiv 1512.00567).
    `on_probabilities` takes cross entropy of softmax outputs: the tutorial's mistake, since
    cross entropy applies a softmax of its own.
    """

    def __init__(
        self, classifier: Classifier, *, smoothing: float = 0.0, on_probabilities: bool = False
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.smoothing = smoothing
        self.on_probabilities = on_probabilities

    @property
    def components(self) -> dict[str, nn.Module]:
        """The modules that plugins built, by kind."""
        return {"head": self.classifier.head, "backbone": self.classifier.encoder}

    def saved(self) -> dict[str, Tensor]:
        """Return the tensors that are saved when it is trained."""
        return self.classifier.state_dict()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what was saved."""
        self.classifier.load_state_dict(tensors)

    def forward(self, raw: Tensor, labels: Tensor) -> Losses:
        logits = self.classifier(raw)
        scores = logits.softmax(1) if self.on_probabilities else logits
        smoothing = self.smoothing if self.training else 0.0
        truth = labels if labels.ndim == 1 else labels.argmax(1)
        hits = (logits.argmax(1) == truth).float().mean()
        return Losses(F.cross_entropy(scores, labels, label_smoothing=smoothing), accuracy=hits)


class SelfTraining(nn.Module):
    """What self-training fits: a student, on labels and on what its own average says of the rest.

    `teacher` begins as the classifier does, another build of it or a copy, and follows it as a
    moving average (mean teacher, arXiv 1703.01780). In training, `augmented` and `raw` are the same
    examples, changed and as they are, and a label of -1 is unknown: there the class of which the
    teacher, on `raw`, is at least as sure as `confidence` is the student's label on `augmented`
    (FixMatch, arXiv 2001.07685). With `balance` the teacher's probabilities are first weighted by
    class and sum to 1 again. A weight falls as long as its class has more than 1 + `balance` of an
    equal share of what is unknown, and rises below 1 - `balance`: projected ascent on the dual of
    these bounds (as in Sinkhorn label allocation, arXiv 2102.08622). To divide by the running mean
    (arXiv 1911.09785) is too little where the teacher is sure and wrong.

    The loss is cross entropy on the labelled, and beside it on the others, where those without a
    confident label count 0. Labels are not smoothed, whatever the finetuning before did: a teacher
    that smoothing keeps below `confidence` would never label anything. The parts: `accuracy` on
    true labels, 0 in a batch that has none; `sure`, the share of the others that is trained on. In
    evaluation it is called with `raw` and labels, and judges the teacher.
    """

    above: Tensor  # of each class, what the logarithm of its weight is lowered by
    below: Tensor  # and what it is raised by

    def __init__(
        self,
        classifier: Classifier,
        classes: int,
        *,
        confidence: float,
        decay: float,
        balance: float | None,
        teacher: Classifier | None = None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        # Hooks and closures of a copy refer to what was copied.
        self.teacher = (teacher or copy.deepcopy(classifier)).requires_grad_(False).eval()
        self.confidence, self.decay, self.balance = confidence, decay, balance
        self.register_buffer("above", torch.zeros(classes))
        self.register_buffer("below", torch.zeros(classes))

    @property
    def components(self) -> dict[str, nn.Module]:
        """The modules that plugins built, by kind, student's and teacher's."""
        both = (self.classifier, self.teacher)
        return {
            "head": nn.ModuleList(each.head for each in both),
            "backbone": nn.ModuleList(each.encoder for each in both),
        }

    def saved(self) -> dict[str, Tensor]:
        """Return the tensors that are saved when it is trained: the teacher's."""
        return self.teacher.state_dict()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what was saved."""
        self.teacher.load_state_dict(tensors)

    def train(self, mode: bool = True) -> SelfTraining:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, augmented: Tensor, *rest: Tensor) -> Losses:
        if len(rest) == 1:
            logits = self.teacher(augmented)
            hits = (logits.argmax(1) == rest[0]).float().mean()
            return Losses(F.cross_entropy(logits, rest[0]), accuracy=hits)
        raw, labels = rest
        self.follow()
        logits = self.classifier(augmented)
        true = labels >= 0
        guessed, sure = self.guess(raw, ~true)
        known = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
        unknown = F.cross_entropy(logits, guessed, reduction="none") * (sure & ~true)
        few, many = true.sum().clamp(min=1), (~true).sum().clamp(min=1)
        hits = ((logits.argmax(1) == labels) & true).sum() / few
        share = (sure & ~true).sum() / many
        return Losses(known / few + unknown.sum() / many, accuracy=hits, sure=share)

    @torch.no_grad()
    def guess(self, raw: Tensor, unknown: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's class of each example, int64 N, and where it is sure, bool N."""
        chances = (self.teacher(raw).float() - self.above + self.below).softmax(1)
        if self.balance is not None:
            count, equal = unknown.sum(), 1 / chances.shape[1]
            excess = (chances * unknown[:, None]).sum(0) / count.clamp(min=1) / equal - 1
            rate = BALANCE_RATE * (count > 0)
            self.above.add_(rate * (excess - self.balance)).clamp_(min=0)
            self.below.add_(rate * (-excess - self.balance)).clamp_(min=0)
        most, guessed = chances.max(1)
        return guessed, most >= self.confidence

    @torch.no_grad()
    def follow(self) -> None:
        """Move the teacher towards the student by one step."""
        ahead = self.classifier.state_dict()
        for name, tensor in self.teacher.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(ahead[name], 1 - self.decay)
            else:
                tensor.copy_(ahead[name])


Task = Pretraining | Finetuning | SelfTraining
