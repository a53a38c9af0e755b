"""The modules that training and export share: preprocessing and classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import ImageInput, Preprocessing
from zoo.errors import Unfit

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey: ITU-R BT.601."""


def preprocessed_input(built: ImageInput, wanted: Preprocessing) -> ImageInput:
    """Describe what a backbone built for `built` takes: its own wishes come first."""
    height, width = wanted.size or (built.height, built.width)
    return ImageInput(channels=wanted.channels or built.channels, height=height, width=width)


class Preprocess(nn.Module):
    """Turn raw bytes into what an encoder takes; the only implementation there is.

    uint8 N x C x H x W as a data set stores them -> float32 N x C' x H' x W': channels mapped,
    resized, normalized. Everything is a product with constants, so that every runtime computes it
    alike: resizing is linear, hence one matrix for rows and one for columns.
    Raises `Unfit` where channels or statistics do not match.
    """

    scale: Tensor
    bias: Tensor
    luma: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(self, source: ImageInput, built: ImageInput, wanted: Preprocessing) -> None:
        super().__init__()
        self.source = source
        self.target = target = preprocessed_input(built, wanted)
        if {source.channels, target.channels} not in ({1}, {3}, {1, 3}) and (
            source.channels != target.channels
        ):
            raise Unfit(
                f"Images of {source.channels} channels cannot become {target.channels}:"
                " only 1 to 3 and 3 to 1 are defined."
            )
        mean, std = _a_channel(wanted.mean, target), _a_channel(wanted.std, target)
        if not bool((std > 0).all()):
            raise Unfit(f"The backbone's preprocessing has std {wanted.std}; it must be positive.")
        self._buffer("scale", 1 / (255 * std))  # 1 x C' x 1 x 1: one grey channel spreads to three
        self._buffer("bias", -mean / std)
        self.to_grey = source.channels == 3 and target.channels == 1
        self._buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1))
        self.resizes = (source.height, source.width) != (target.height, target.width)
        self._buffer("rows", _resize_matrix(source.height, target.height))  # H' x H
        self._buffer("columns", _resize_matrix(source.width, target.width).T.contiguous())  # W x W'

    def _buffer(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    @property
    def changes(self) -> str:
        """Say how the stored input differs from the one taken; empty where it does not."""
        return "" if self.source == self.target else f"{self.source} becomes {self.target}"

    def forward(self, raw: Tensor) -> Tensor:
        inputs = raw.to(torch.float32, copy=True)  # to be changed in place: memory is what it costs
        if self.to_grey:
            inputs = (inputs * self.luma).sum(1, keepdim=True)
        if self.resizes:
            inputs = torch.matmul(self.rows, torch.matmul(inputs, self.columns))
        spread = self.scale.shape[1] > inputs.shape[1]  # one grey channel to three
        return (inputs * self.scale if spread else inputs.mul_(self.scale)).add_(self.bias)


def stages(encoder: nn.Module) -> list[nn.Module]:
    """Return an encoder's stages from the input on: parts with weights that follow each other.

    They are the children of the first module within that has several with weights, in the order in
    which they were registered; a list of like blocks counts block by block. Weights that lie beside
    them, as a class token does, belong to the first.
    """
    children = [child for child in encoder.children() if any(True for _ in child.parameters())]
    if len(children) == 1 and not list(encoder.parameters(recurse=False)):
        return stages(children[0])
    if len(children) < 2:
        return [encoder]
    found: list[nn.Module] = []
    for child in children:
        blocks = list(child.children())
        listed = isinstance(child, nn.Sequential | nn.ModuleList) and len(blocks) > 1
        alike = listed and len({type(block) for block in blocks}) == 1
        found += blocks if alike else [child]
    return found


class Classifier(nn.Module):
    """Raw bytes, uint8 N x C x H x W -> logits, N x classes.

    A frozen encoder stays in evaluation mode and gets no gradient: a linear probe.
    """

    def __init__(
        self, preprocess: Preprocess, encoder: nn.Module, head: nn.Module, *, frozen: bool = False
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.encoder = encoder
        self.head = head
        self._frozen: list[nn.Module] = []
        if frozen:
            self.freeze(len(stages(encoder)))

    def freeze(self, count: int) -> None:
        """Keep the encoder's first `count` stages as they are; train the others."""
        parts = stages(self.encoder)
        whole = count >= len(parts)
        self._frozen = [self.encoder] if whole else parts[:count]
        self.encoder.requires_grad_(not count)  # what lies beside the stages goes with the first
        for part in [] if whole else parts[count:]:
            part.requires_grad_(True)
        self.train(self.training)

    def rates(self, decay: float) -> dict[str, float]:
        """Return factors of the learning rate by parameter name, seen from this module.

        The head has 1, each stage of the encoder `decay` times that of the one after it (layer-wise
        decay, arXiv 2106.08254).
        """
        parts = stages(self.encoder)
        stage = {id(p): at for at, part in enumerate(parts) for p in part.parameters()}
        return {
            f"encoder.{name}": decay ** (len(parts) - stage.get(id(parameter), 0))
            for name, parameter in self.encoder.named_parameters()
        }

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def forward(self, raw: Tensor) -> Tensor:
        return self.classify(self.preprocess(raw))

    def classify(self, inputs: Tensor) -> Tensor:
        """Preprocessed inputs, float32 N x C' x H' x W' -> logits, N x classes."""
        logits: Tensor = self.head(self.encoder(inputs))
        return logits


def _a_channel(values: tuple[float, ...], target: ImageInput) -> Tensor:
    if len(values) not in (1, target.channels):
        raise Unfit(
            f"The backbone's preprocessing has {len(values)} values for {target.channels} channels;"
            " it needs one, or one a channel."
        )
    return torch.tensor(values, dtype=torch.float32).expand(target.channels).reshape(1, -1, 1, 1)


# never elsewhere: interpolate
def _resize_matrix(before: int, after: int) -> Tensor:
    """Return the after x before matrix of bilinear resizing with antialias along one axis."""
    if before == after:
        return torch.eye(before)
    eye = torch.eye(before).view(1, 1, before, before)
    resized = F.interpolate(eye, size=(after, before), mode="bilinear", antialias=True)
    return resized.view(after, before)
