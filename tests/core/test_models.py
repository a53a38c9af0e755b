"""Preprocessing against slow oracles, the classifier, and the two modules that `fit` trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.api import Backbone, ImageInput, Losses, Preprocessing, TrainConfig
from zoo.data import Batches
from zoo.errors import Unfit
from zoo.models import Classifier, Preprocess, preprocessed_input
from zoo.tasks import Finetuning, Pretraining
from zoo.training import fit

PLAIN = Preprocessing(mean=(0.0,), std=(1.0,))


def image(channels: int, height: int, width: int) -> ImageInput:
    return ImageInput(channels=channels, height=height, width=width)


def bytes_of(input: ImageInput, count: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *input.shape), dtype=torch.uint8, generator=generator)


# --- Preprocess -----------------------------------------------------------------------------

SIDES = st.integers(1, 40)


def filter_matrix(before: int, after: int) -> Tensor:
    """The after x before matrix of a triangle filter, as wide as the step from pixel to pixel."""
    scale = before / after
    rows = torch.zeros(after, before, dtype=torch.float64)
    for row in range(after):
        for column in range(before):
            distance = abs(column + 0.5 - (row + 0.5) * scale) / max(scale, 1.0)
            rows[row, column] = max(0.0, 1 - distance)
    return rows / rows.sum(1, keepdim=True)


@given(channels=st.sampled_from([1, 3]), source=st.tuples(SIDES, SIDES),
       target=st.tuples(SIDES, SIDES), seed=st.integers(0, 1000))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_resizing_is_bilinear_with_antialias(
    channels: int, source: tuple[int, int], target: tuple[int, int], seed: int
) -> None:
    stored, taken = image(channels, *source), image(channels, *target)
    raw = bytes_of(stored, seed=seed)
    found = Preprocess(stored, taken, PLAIN)(raw)
    assert found.dtype == torch.float32
    rows, columns = filter_matrix(source[0], target[0]), filter_matrix(source[1], target[1])
    expected = rows @ (raw.double() / 255) @ columns.T
    assert torch.allclose(found.double(), expected, atol=1e-5)
    # Where the result is one pixel wide, torch 2.14 itself is wrong: it repeats the first row.
    if target[1] > 1:
        theirs = F.interpolate(raw / 255, size=target, mode="bilinear", antialias=True)
        assert torch.allclose(found, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("source", "target"),
    [((28, 28), (8, 8)), ((8, 8), (28, 28)), ((33, 47), (32, 32)), ((9, 31), (31, 9))],
)  # fmt: skip
def test_resizing_agrees_with_pillow(source: tuple[int, int], target: tuple[int, int]) -> None:
    """A second implementation, by other people: Pillow's bilinear filter on floats."""
    stored = image(1, *source)
    raw = bytes_of(stored)
    found = Preprocess(stored, image(1, *target), PLAIN)(raw)
    for one, ours in zip(raw, found, strict=True):
        picture = Image.fromarray(one[0].numpy().astype(np.float32))
        theirs = picture.resize(target[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_allclose(ours[0].numpy(), np.asarray(theirs) / 255, atol=1e-5)


def test_the_backbones_own_size_and_channels_come_first() -> None:
    wanted = Preprocessing(size=(20, 12), channels=3)
    assert preprocessed_input(image(1, 28, 28), wanted) == image(3, 20, 12)
    assert preprocessed_input(image(1, 28, 28), PLAIN) == image(1, 28, 28)
    preprocess = Preprocess(image(1, 8, 8), image(1, 28, 28), wanted)
    assert preprocess(bytes_of(image(1, 8, 8))).shape == (3, 3, 20, 12)
    assert preprocess.changes == "1×8×8 becomes 3×20×12"
    assert Preprocess(image(1, 8, 8), image(1, 8, 8), PLAIN).changes == ""


def test_grey_is_luma_as_pillow_takes_it() -> None:
    stored = image(3, 16, 16)
    raw = bytes_of(stored)
    found = Preprocess(stored, image(1, 16, 16), PLAIN)(raw)
    assert found.shape == (3, 1, 16, 16)
    for one, ours in zip(raw, found, strict=True):
        grey = np.asarray(Image.fromarray(one.permute(1, 2, 0).numpy()).convert("L"))
        # Pillow rounds to a whole byte.
        np.testing.assert_allclose(ours[0].numpy() * 255, grey, atol=0.51)


def test_luma_of_the_primaries() -> None:
    stored = image(3, 1, 1)
    primaries = torch.eye(3, dtype=torch.uint8).mul(255).view(3, 3, 1, 1)
    found = Preprocess(stored, image(1, 1, 1), PLAIN)(primaries).flatten()
    assert torch.allclose(found, torch.tensor([0.299, 0.587, 0.114]), atol=1e-6)


def test_grey_becomes_three_equal_channels() -> None:
    stored = image(1, 8, 8)
    raw = bytes_of(stored)
    found = Preprocess(stored, image(3, 8, 8), PLAIN)(raw)
    assert torch.allclose(found, (raw / 255).expand(3, 3, 8, 8), atol=1e-7)


@pytest.mark.parametrize("source_channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (13, 5)])
def test_mean_and_deviation_a_channel(source_channels: int, size: tuple[int, int]) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    stored = image(source_channels, 8, 8)
    raw = bytes_of(stored)
    found = Preprocess(stored, image(3, *size), Preprocessing(mean=mean, std=std))(raw)
    resized = F.interpolate(raw / 255, size=size, mode="bilinear", antialias=True).expand(
        -1, 3, -1, -1
    )
    for channel in range(3):
        expected = (resized[:, channel] - mean[channel]) / std[channel]
        assert torch.allclose(found[:, channel], expected, atol=2e-5)


def test_one_value_serves_every_channel_and_the_default_is_minus_one_to_one() -> None:
    stored = image(3, 1, 2)
    raw = torch.tensor([0, 255], dtype=torch.uint8).expand(1, 3, 1, 2)
    found = Preprocess(stored, stored, Preprocessing())(raw)
    assert torch.allclose(found, torch.tensor([-1.0, 1.0]).expand(1, 3, 1, 2), atol=1e-6)
    mixed = Preprocess(stored, stored, Preprocessing(mean=(0.0, 0.5, 1.0), std=(0.5,)))(raw)
    assert torch.allclose(mixed[0, :, 0, 0], torch.tensor([0.0, -1.0, -2.0]), atol=1e-6)


def test_preprocessing_stores_no_weights() -> None:
    """It is made anew from the input and the backbone, so that weights never hold a copy."""
    preprocess = Preprocess(image(3, 8, 8), image(1, 9, 9), Preprocessing())
    assert preprocess.state_dict() == {}
    assert list(preprocess.parameters()) == []


@pytest.mark.parametrize(("source", "target"), [(2, 1), (2, 3), (4, 3), (1, 2), (3, 4), (1, 4)])
def test_other_channels_do_not_map(source: int, target: int) -> None:
    with pytest.raises(Unfit) as caught:
        Preprocess(image(source, 8, 8), image(target, 8, 8), PLAIN)
    assert str(caught.value) == (
        f"Images of {source} channels cannot become {target}: only 1 to 3 and 3 to 1 are defined."
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_equal_channels_always_go_together(channels: int) -> None:
    stored = image(channels, 8, 8)
    raw = bytes_of(stored)
    assert torch.allclose(Preprocess(stored, stored, PLAIN)(raw), raw / 255, atol=1e-7)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Preprocessing(std=(0.0,)), "has std (0.0,); it must be positive"),
        (Preprocessing(std=(1.0, 0.0, 1.0)), "has std (1.0, 0.0, 1.0); it must be positive"),
        (Preprocessing(std=(-0.5,)), "has std (-0.5,); it must be positive"),
        (Preprocessing(std=(float("nan"),)), "it must be positive"),
        (Preprocessing(mean=(0.5, 0.5)), "has 2 values for 3 channels; it needs one, or one"),
        (Preprocessing(std=(0.5,) * 4), "has 4 values for 3 channels; it needs one, or one"),
        (Preprocessing(mean=()), "has 0 values for 3 channels"),
        (Preprocessing(mean=(0.5,) * 3, channels=1), "has 3 values for 1 channels"),
    ],
)
def test_statistics_that_do_not_fit(wanted: Preprocessing, message: str) -> None:
    with pytest.raises(Unfit) as caught:
        Preprocess(image(3, 8, 8), image(3, 8, 8), wanted)
    assert "The backbone's preprocessing" in str(caught.value)
    assert message in str(caught.value)


# --- Classifier -----------------------------------------------------------------------------


def classifier(*, frozen: bool) -> Classifier:
    torch.manual_seed(0)
    stored = image(1, 8, 8)
    encoder = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6),
        nn.Dropout(0.5),
    )  # fmt: skip
    return Classifier(
        Preprocess(stored, stored, Preprocessing()), encoder, nn.Linear(6, 3), frozen=frozen
    )


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def trained(module: Classifier) -> None:
    raw = bytes_of(image(1, 8, 8), 40)
    labels = torch.arange(40) % 3
    config = TrainConfig(epochs=2, batch_size=10, lr=0.05)
    fit(Finetuning(module), Batches((raw, labels), 10, seed=0), config)


def test_a_frozen_encoder_stays_as_it_was() -> None:
    module = classifier(frozen=True)
    before, head = copy_of(module.encoder), copy_of(module.head)
    trained(module)
    after = module.encoder.state_dict()
    # Running statistics are buffers: only evaluation mode keeps those.
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(p.grad is None and not p.requires_grad for p in module.encoder.parameters())
    assert not torch.equal(module.head.weight, head["weight"])  # type: ignore[arg-type]


def test_a_frozen_encoder_is_in_evaluation_mode_while_the_head_trains() -> None:
    module = classifier(frozen=True)
    wrapped = Finetuning(module).train()
    assert wrapped.training
    assert module.head.training
    assert not any(part.training for part in module.encoder.modules())
    raw = bytes_of(image(1, 8, 8))
    assert torch.equal(module(raw), module(raw))  # dropout in the encoder is off


def test_an_encoder_that_is_not_frozen_trains() -> None:
    module = classifier(frozen=False)
    before = copy_of(module.encoder)
    trained(module)
    after = module.encoder.state_dict()
    assert all(not torch.equal(after[name], tensor) for name, tensor in before.items())
    module.train()
    assert all(part.training for part in module.encoder.modules())


@pytest.mark.parametrize("frozen", [False, True])
def test_a_classifier_turns_bytes_into_logits(frozen: bool) -> None:
    module = classifier(frozen=frozen).eval()
    raw = bytes_of(image(1, 8, 8), 5)
    expected = module.head(module.encoder(raw / 127.5 - 1))
    assert torch.allclose(module(raw), expected, atol=1e-5)
    assert module(raw).shape == (5, 3)


# --- Finetuning and Pretraining -------------------------------------------------------------


@pytest.mark.parametrize("on_probabilities", [False, True])
def test_the_loss_of_finetuning(on_probabilities: bool) -> None:
    module = classifier(frozen=False).eval()
    raw, labels = bytes_of(image(1, 8, 8), 7), torch.arange(7) % 3
    losses = Finetuning(module, on_probabilities=on_probabilities)(raw, labels)
    scores = module(raw).detach().double()
    if on_probabilities:
        scores = scores.exp() / scores.exp().sum(1, keepdim=True)
    # Cross entropy by its definition.
    log = scores - scores.exp().sum(1, keepdim=True).log()
    expected = -log[torch.arange(7), labels].mean()
    assert losses.total.item() == pytest.approx(expected.item(), abs=1e-6)
    assert losses.total.item() == pytest.approx(
        F.cross_entropy(scores.float(), labels).item(), abs=1e-6
    )
    hits = (module(raw).argmax(1) == labels).sum().item() / 7
    assert losses.parts["accuracy"].item() == pytest.approx(hits)
    assert not losses.parts["accuracy"].requires_grad
    assert losses.total.requires_grad


class Spy(nn.Module):
    """An objective that keeps what it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def forward(self, *args: Any, **keywords: Any) -> Losses:
        assert not keywords
        self.calls.append(args)
        backbone: Backbone = args[0]
        return Losses(backbone.encoder(args[1]).mean())


def test_pretraining_passes_bytes_and_no_label() -> None:
    stored = image(1, 8, 8)
    backbone = nn.Module()
    backbone.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    spy = Spy()
    preprocess = Preprocess(stored, stored, Preprocessing())
    raw = bytes_of(stored)
    kept = raw.clone()
    losses = Pretraining(preprocess, backbone, spy)(raw)
    assert isinstance(losses, Losses)
    ((given_backbone, inputs, given_raw),) = spy.calls
    assert given_backbone is backbone
    assert given_raw is raw
    assert given_raw.dtype == torch.uint8
    assert torch.equal(given_raw, kept)
    assert torch.equal(inputs, preprocess(raw))
    with pytest.raises(TypeError):
        Pretraining(preprocess, backbone, spy)(raw, torch.zeros(3))


def test_what_pretraining_holds_is_trained_and_saved_once() -> None:
    stored = image(1, 8, 8)
    backbone, objective = nn.Linear(2, 2), nn.Linear(2, 3)
    module = Pretraining(Preprocess(stored, stored, Preprocessing()), backbone, objective)
    names = {name.split(".")[0] for name in module.state_dict()}
    assert names == {"backbone", "objective"}
    assert len(list(module.parameters())) == 4
