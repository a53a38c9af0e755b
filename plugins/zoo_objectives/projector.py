"""Two views of each input, embedded; the projector is trained with the backbone, then unused."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from zoo.api import Backbone, Unfit
from zoo_objectives.configs import ViewsConfig
from zoo_objectives.views import Views


class TwoViews(nn.Module):
    """Embed two views of each input: preprocessed, N x C x H x W -> twice N x the last width.

    Both views pass the encoder as one batch, so that its batch statistics are those of both.
    Raises `Unfit` where the projector has no layer.
    """

    def __init__(self, config: ViewsConfig, widths: tuple[int, ...], backbone: Backbone) -> None:
        super().__init__()
        if not widths:
            raise Unfit("widths is empty: the projector needs an output. Type: -o widths=256,128")
        self.views = Views(config, backbone)
        self.projector = _layers([backbone.features, *widths], norm=config.norm)

    def forward(self, backbone: Backbone, inputs: Tensor) -> tuple[Tensor, Tensor]:
        both = self.projector(backbone.encoder(self.views(inputs.repeat(2, 1, 1, 1))))
        first, second = both.float().chunk(2)
        return first, second


def _layers(sizes: list[int], *, norm: bool) -> nn.Sequential:
    """Return linear layers of these sizes with ReLU between; a bias where no norm takes it away."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes[:-1]):
        layers.append(nn.Linear(before, after, bias=not norm))
        layers += [nn.BatchNorm1d(after)] if norm else []
        layers.append(nn.ReLU())
    # SimCLR's last layer has no bias, and the other losses do not see one.
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1], bias=False))


def enough(rows: Tensor) -> None:
    """Raise `Unfit` where a batch of all processes has nothing to compare."""
    if len(rows) < 2:
        raise Unfit(
            "it compares examples with each other, and a batch of one has no other."
            " Type --batch-size 2 or more, and no --validation of 1."
        )
