"""Learning from a trained model."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import Backbone, Losses, teacher
from zoo_objectives.configs import DistillConfig


class Distill(nn.Module):
    """Answer raw bytes as a teacher does, by one linear layer over the features.

    A classifier's logits are learnt as softened probabilities (Hinton et al., arXiv 1503.02531):
    the divergence KL(teacher || student) at `temperature`, times its square. A pretraining's
    features are regressed on (FitNets, arXiv 1412.6550): `match` "cosine" is one minus the cosine
    of both, half the squared distance at length 1; "mse" the mean squared error. Parts:
    `agreement`, the share of examples whose largest logit is the teacher's, or `cosine`.
    The teacher is not trained and not saved; labels that it once learnt from are not read.
    """

    def __init__(self, config: DistillConfig, backbone: Backbone) -> None:
        super().__init__()
        self.temperature, self.match = config.temperature, config.match
        self.teacher = teacher(config.teacher)  # no nn.Module: it is none of this one's weights
        self.projector = nn.Linear(backbone.features, self.teacher.width)

    def forward(self, backbone: Backbone, inputs: Tensor, raw: Tensor) -> Losses:
        wanted = self.teacher(raw)
        answer = self.projector(backbone.encoder(inputs)).to(wanted.dtype)
        if self.teacher.kind == "logits":
            agreement = (answer.argmax(1) == wanted.argmax(1)).float().mean()
            return Losses(soft_divergence(answer, wanted, self.temperature), agreement=agreement)
        cosine = F.cosine_similarity(answer, wanted).mean()
        total = F.mse_loss(answer, wanted) if self.match == "mse" else 1 - cosine
        return Losses(total, cosine=cosine)


def soft_divergence(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Return T² x KL(softmax(wanted / T) || softmax(logits / T)) as the mean over N, in nats."""
    student = (logits / temperature).log_softmax(1)
    goal = (wanted / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(student, goal, reduction="batchmean", log_target=True)
