"""Every registered objective, and the built-in ones against slow second implementations."""

from __future__ import annotations

import dataclasses
import importlib
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo import pipeline
from zoo.api import (
    Component,
    Dataset,
    DatasetSpec,
    Examples,
    ImageInput,
    Losses,
    NoConfig,
    Preprocessing,
    TrainConfig,
    hookimpl,
)
from zoo.data import Batches
from zoo.errors import BadOption
from zoo.models import Preprocess
from zoo.pipeline import Workspace
from zoo.pipeline.assembly import Part, build_backbone, build_objective, check_objective
from zoo.registry import Entry, Registry
from zoo.tasks import Pretraining
from zoo.training import fit

REGISTRY = Registry.installed()
ENTRIES = REGISTRY.entries("objective")
WORK = Workspace(plugins=REGISTRY)
GREY_8 = ImageInput(channels=1, height=8, width=8)
Options = dict[str, dict[str, Any]]
every = pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])


@pytest.fixture
def needed(trained_once: Any) -> Options:
    """The options that have no default, by objective."""
    return {"distill": {"teacher": str(trained_once.model)}}


def lookup(name: str, **options: Any) -> Part:
    entry = REGISTRY.lookup("objective", name)
    return Part(entry, entry.configure(options))


def digits() -> Dataset:
    described: Dataset = REGISTRY.lookup("dataset", "digits").spec.build(NoConfig(), None)
    return described


def mlp(**options: Any) -> Any:
    torch.manual_seed(0)
    entry = REGISTRY.lookup("backbone", "mlp")
    small = {"widths": (64,), "features": 16}
    return build_backbone(Part(entry, entry.configure(small | options)), GREY_8)


class Spy(nn.Module):
    """A backbone that keeps what its encoder was given, and decodes to a fixed linear map."""

    def __init__(self, input: ImageInput, wanted: Preprocessing | None = None) -> None:
        super().__init__()
        if wanted is not None:
            self.preprocessing = wanted
        self.features = size = input.channels * input.height * input.width
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(size, size))
        self.decoder = nn.Sequential(nn.Linear(size, size), nn.Unflatten(1, input.shape))
        self.seen: list[Tensor] = []
        self.encoder.register_forward_hook(lambda module, args, output: self.seen.append(args[0]))

    def numpy(self, inputs: Tensor) -> np.ndarray[Any, Any]:
        """Encode and decode a second time, without torch."""
        layers = [self.encoder[1], self.decoder[0]]
        hidden = inputs.double().numpy().reshape(len(inputs), -1)
        for layer in layers:
            weight, bias = (t.detach().double().numpy() for t in (layer.weight, layer.bias))
            hidden = hidden @ weight.T + bias
        return hidden.reshape(inputs.shape)


def raw_bytes(input: ImageInput, count: int = 5, low: int = 1, high: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(low, high, (count, *input.shape), dtype=torch.uint8, generator=generator)


def spied(
    name: str,
    input: ImageInput,
    wanted: Preprocessing | None = None,
    count: int = 5,
    low: int = 1,
    high: int = 256,
    **options: Any,
) -> tuple[Spy, Tensor, Losses]:
    """Run an objective once; return the backbone with what it saw, the clean inputs, the loss."""
    torch.manual_seed(0)
    backbone = Spy(input, wanted)
    objective = build_objective(WORK, lookup(name, **options), backbone)
    raw = raw_bytes(input, count, low, high)
    inputs = Preprocess(input, input, wanted or Preprocessing())(raw)
    return backbone, inputs, objective(backbone, inputs, raw)


# --- every one of them ----------------------------------------------------------------------


@every
def test_losses_are_a_scalar_with_a_gradient_and_detached_parts(
    entry: Entry, needed: Options
) -> None:
    backbone = mlp()
    part = lookup(entry.name, **needed.get(entry.name, {}))
    objective = build_objective(WORK, part, backbone)
    preprocess = Preprocess(GREY_8, GREY_8, backbone.preprocessing)
    check_objective(part, objective, backbone, preprocess)
    raw = raw_bytes(GREY_8, 16)
    module = Pretraining(preprocess, backbone, objective).train()
    losses = module(raw)
    assert losses.total.shape == ()
    assert not any(value.requires_grad for value in losses.parts.values())
    assert all(value.shape == () for value in losses.parts.values())
    assert {"total", *losses.parts} >= {entry.spec.watch}
    losses.total.backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} is out of reach"
            assert bool(parameter.grad.isfinite().all()), name


@every
def test_an_objective_keeps_no_backbone(entry: Entry, needed: Options) -> None:
    """Kept, its weights would be saved twice and trained twice."""
    backbone = mlp()
    objective = build_objective(WORK, lookup(entry.name, **needed.get(entry.name, {})), backbone)
    theirs = {id(module) for module in backbone.modules()}
    assert not [module for module in objective.modules() if id(module) in theirs]
    assert not [value for value in vars(objective).values() if id(value) in theirs]


FALLS = {"contrastive": 0.97, "redundancy": 0.97}
"""Views of 8 x 8 pixels differ so much that a loss on them falls slowly."""


@every
def test_what_is_watched_falls_on_digits(entry: Entry, needed: Options) -> None:
    backbone = mlp()
    objective = build_objective(WORK, lookup(entry.name, **needed.get(entry.name, {})), backbone)
    module = Pretraining(Preprocess(GREY_8, GREY_8, backbone.preprocessing), backbone, objective)
    inputs = digits().train().inputs[:600]
    batches = Batches((inputs,), 50, seed=0)
    torch.manual_seed(0)
    epochs = fit(module, batches, TrainConfig(epochs=8, lr=3e-3, validation=0))
    watch = entry.spec.watch
    assert epochs[-1].train[watch] < FALLS.get(entry.name, 0.8) * epochs[0].train[watch]


@every
def test_neither_inputs_nor_bytes_are_changed(entry: Entry, needed: Options) -> None:
    backbone = mlp()
    objective = build_objective(WORK, lookup(entry.name, **needed.get(entry.name, {})), backbone)
    raw = raw_bytes(GREY_8)
    inputs = Preprocess(GREY_8, GREY_8, backbone.preprocessing)(raw)
    kept = raw.clone(), inputs.clone()
    objective(backbone, inputs, raw)
    assert torch.equal(raw, kept[0])
    assert torch.equal(inputs, kept[1])


@every
def test_its_noise_is_torchs_global_one(entry: Entry, needed: Options) -> None:
    """Core seeds those generators: an own one would break resuming and reproducing."""
    backbone = mlp()
    objective = build_objective(WORK, lookup(entry.name, **needed.get(entry.name, {})), backbone)
    raw = raw_bytes(GREY_8)
    inputs = Preprocess(GREY_8, GREY_8, backbone.preprocessing)(raw)

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        np.random.seed(seed + 1)
        total: float = objective(backbone, inputs, raw).total.item()
        return total

    assert loss(0) == loss(0)


@every
def test_no_label_reaches_it(entry: Entry, workspace: Workspace, needed: Options) -> None:
    """Wrong labels, and none at all, give the same weights to the last bit."""
    true = digits().train()
    assert true.labels is not None
    weights = []
    for labels in (true.labels, true.labels.flip(0), None):
        examples = Examples(
            inputs=true.inputs[:200], labels=None if labels is None else labels[:200]
        )
        described = dataclasses.replace(digits(), train=lambda e=examples: e)

        @hookimpl
        def zoo_datasets(described: Dataset = described) -> list[DatasetSpec]:
            return [
                DatasetSpec(name="relabelled", summary="", build=lambda config, root: described)
            ]

        plugin = ModuleType("relabelled")
        plugin.zoo_datasets = zoo_datasets  # type: ignore[attr-defined]
        others = [importlib.import_module(plugin.module) for plugin in REGISTRY.plugins]
        registry = Registry([*others, plugin])
        run = pipeline.pretrain(
            Component("mlp", widths=(16,), features=8),
            dataset="relabelled",
            objective=Component(entry.name, **needed.get(entry.name, {})),
            training=TrainConfig(epochs=1),
            workspace=Workspace(plugins=registry, runs=workspace.runs),
        )
        weights.append((run.folder / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1] == weights[2]


# --- reconstruct ----------------------------------------------------------------------------

IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
COLOUR_6 = ImageInput(channels=3, height=6, width=5)


@pytest.mark.parametrize(
    ("input", "wanted"), [(GREY_8, None), (COLOUR_6, IMAGENET), (COLOUR_6, None)]
)
def test_reconstruct_is_the_mean_squared_error(
    input: ImageInput, wanted: Preprocessing | None
) -> None:
    backbone, inputs, losses = spied("reconstruct", input, wanted)
    assert torch.equal(backbone.seen[0], inputs)
    error = backbone.numpy(inputs) - inputs.double().numpy()
    total = sum(float(e) ** 2 for e in error.flatten()) / error.size
    assert losses.total.item() == pytest.approx(total, rel=1e-5)
    assert set(losses.parts) == {"psnr"}
    assert losses.parts["psnr"].item() == pytest.approx(decibels(error, wanted), rel=1e-4)


def decibels(error: Any, wanted: Preprocessing | None) -> float:
    """The peak signal-to-noise ratio by its formula, on the scale where white is 1."""
    channels = error.shape[1]
    wanted = wanted or Preprocessing()
    stds = wanted.std * (channels // len(wanted.std))
    squares = [(float(e) * std) ** 2 for c, std in enumerate(stds) for e in error[:, c].flatten()]
    return 10 * math.log10(1 / (sum(squares) / len(squares)))


def test_a_reconstruction_without_error_has_a_finite_ratio() -> None:
    class Same(torch.nn.Module):
        features = 64
        encoder = torch.nn.Flatten()
        decoder = torch.nn.Unflatten(1, (1, 8, 8))

    objective = build_objective(WORK, lookup("reconstruct"), Same())
    losses = objective(Same(), torch.rand(3, 1, 8, 8), raw_bytes(GREY_8, 3))
    assert losses.parts["psnr"].item() == pytest.approx(100)


# --- denoise --------------------------------------------------------------------------------


KINDS = ["masking", "gaussian", "salt-pepper"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("input", "wanted"), [(GREY_8, None), (COLOUR_6, IMAGENET)])
def test_denoise_is_measured_against_the_clean_input(
    kind: str, input: ImageInput, wanted: Preprocessing | None
) -> None:
    backbone, inputs, losses = spied("denoise", input, wanted, kind=kind)
    (corrupted,) = backbone.seen
    assert not torch.equal(corrupted, inputs)
    error = backbone.numpy(corrupted) - inputs.double().numpy()
    total = sum(float(e) ** 2 for e in error.flatten()) / error.size
    assert losses.total.item() == pytest.approx(total, rel=1e-5)
    assert losses.parts["psnr"].item() == pytest.approx(decibels(error, wanted), rel=1e-4)
    damage = (corrupted - inputs).double().numpy().flatten()
    untouched = sum(float(e) ** 2 for e in damage) / damage.size
    assert losses.parts["corrupted"].item() == pytest.approx(untouched, rel=1e-5)


def black_of(wanted: Preprocessing, channels: int) -> list[float]:
    """What a byte of zero becomes, by the design's formula."""
    means = wanted.mean * (channels // len(wanted.mean))
    stds = wanted.std * (channels // len(wanted.std))
    return [(0 - mean) / std for mean, std in zip(means, stds, strict=True)]


STATISTICS = [
    (GREY_8, Preprocessing()),
    (GREY_8, Preprocessing(mean=(0.1307,), std=(0.3081,))),
    (COLOUR_6, IMAGENET),
    (COLOUR_6, Preprocessing(mean=(0.2, 0.5, 0.9), std=(0.5,))),
    (COLOUR_6, Preprocessing(mean=(0.0,), std=(1.0,))),
]


@pytest.mark.parametrize(("input", "wanted"), STATISTICS)
@pytest.mark.parametrize("noise", [0.1, 0.3, 0.75])
def test_masking_blackens_a_share_of_the_pixels(
    input: ImageInput, wanted: Preprocessing, noise: float
) -> None:
    # No byte of the input is zero, so that what is black has been blackened.
    backbone, inputs, _ = spied("denoise", input, wanted, count=400, noise=noise)
    (corrupted,) = backbone.seen
    changed = corrupted != inputs
    count = changed.numel()
    deviation = (noise * (1 - noise) / count) ** 0.5
    assert abs(changed.double().mean().item() - noise) < 5 * deviation
    for channel, black in enumerate(black_of(wanted, input.channels)):
        masked = corrupted[:, channel][changed[:, channel]]
        assert torch.allclose(masked, torch.tensor(black), atol=1e-6)
    # It is what preprocessing makes of black bytes.
    dark = Preprocess(input, input, wanted)(torch.zeros(1, *input.shape, dtype=torch.uint8))
    assert torch.allclose(corrupted[changed], dark.expand_as(corrupted)[changed], atol=1e-6)


def test_masking_draws_anew_for_each_pixel_channel_and_example() -> None:
    backbone, inputs, _ = spied("denoise", COLOUR_6, IMAGENET, count=200, noise=0.5)
    mask = (backbone.seen[0] != inputs).float()
    for first, second in (
        (mask[:, 0], mask[:, 1]),  # channels
        (mask[:100], mask[100:]),  # examples
        (mask[..., 1:], mask[..., :-1]),  # neighbours
    ):
        assert abs((first == second).float().mean().item() - 0.5) < 0.05
    objective = build_objective(WORK, lookup("denoise", noise=0.5), backbone)
    objective(backbone, inputs, raw_bytes(COLOUR_6, 200))
    assert not torch.equal(backbone.seen[0], backbone.seen[1])


@pytest.mark.parametrize(("input", "wanted"), STATISTICS)
@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_gaussian_noise_is_in_units_of_black_to_white(
    input: ImageInput, wanted: Preprocessing, noise: float
) -> None:
    backbone, inputs, _ = spied("denoise", input, wanted, count=600, noise=noise, kind="gaussian")
    added = backbone.seen[0] - inputs
    stds = wanted.std * (input.channels // len(wanted.std))
    for channel, std in enumerate(stds):
        # Undone, the preprocessing leaves the scale where black is 0 and white is 1.
        pixels = added[:, channel].double() * std
        count = pixels.numel()
        assert pixels.std().item() == pytest.approx(noise, rel=5 / (2 * count) ** 0.5)
        assert abs(pixels.mean().item()) < 5 * noise / count**0.5
        # The normal distribution, not a uniform one of the same deviation.
        assert (pixels.abs() < noise).double().mean().item() == pytest.approx(0.683, abs=0.02)


@pytest.mark.parametrize(("input", "wanted"), STATISTICS)
@pytest.mark.parametrize("noise", [0.1, 0.6, 1.0])
def test_salt_and_pepper_are_as_frequent(
    input: ImageInput, wanted: Preprocessing, noise: float
) -> None:
    options = {"kind": "salt-pepper", "noise": noise}
    # No byte of the input is black or white.
    backbone, inputs, _ = spied("denoise", input, wanted, count=400, low=1, high=255, **options)
    (corrupted,) = backbone.seen
    ends = torch.tensor([[[[0]]], [[[255]]]], dtype=torch.uint8).expand(2, *input.shape)
    black, white = Preprocess(input, input, wanted)(ends)
    changed = ~torch.isclose(corrupted, inputs)
    pepper = changed & torch.isclose(corrupted, black, atol=1e-5)
    salt = changed & torch.isclose(corrupted, white, atol=1e-5)
    assert torch.equal(changed, pepper | salt)
    deviation = (noise / 2 * (1 - noise / 2) / changed.numel()) ** 0.5
    for grains in (pepper, salt):
        assert abs(grains.double().mean().item() - noise / 2) < 5 * deviation


@pytest.mark.parametrize("kind", KINDS)
def test_no_noise_is_plain_reconstruction(kind: str) -> None:
    backbone, inputs, losses = spied("denoise", COLOUR_6, IMAGENET, noise=0.0, kind=kind)
    assert torch.equal(backbone.seen[0], inputs)
    assert losses.total.item() == spied("reconstruct", COLOUR_6, IMAGENET)[2].total.item()


def test_full_masking_leaves_black_alone() -> None:
    backbone, inputs, _ = spied("denoise", GREY_8, Preprocessing(), noise=1.0)
    assert torch.equal(backbone.seen[0], torch.full_like(inputs, -1.0))


def test_a_backbone_that_names_no_preprocessing_takes_the_default() -> None:
    backbone, inputs, _ = spied("denoise", GREY_8, None, noise=0.5)
    corrupted = backbone.seen[0]
    assert set(corrupted[corrupted != inputs].tolist()) == {-1.0}


def test_denoise_stores_nothing() -> None:
    """What it knows of black follows from the backbone; weights of it would have to fit."""
    assert build_objective(WORK, lookup("denoise"), mlp()).state_dict() == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [({"noise": 1.5}, "noise"), ({"noise": -0.1}, "noise"), ({"kind": "salt"}, "kind")],
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadOption, match=f"objective 'denoise': {words}"):
        lookup("denoise", **options)
