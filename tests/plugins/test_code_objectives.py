"""Objectives on an autoencoder's code or masked input, against second implementations in numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import pipeline
from zoo.api import Component, ImageInput, Losses, Preprocessing, TrainConfig
from zoo.errors import Unfit
from zoo.pipeline import Workspace
from zoo.pipeline.assembly import build_objective, choose
from zoo.registry import Registry
from zoo_objectives.masked import draw_mask
from zoo_objectives.sparse import kl_divergence
from zoo_objectives.variational import divergence

WORK = Workspace(plugins=Registry.installed())
IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CASES = [((1, 4, 4), Preprocessing(), 0), ((3, 5, 3), IMAGENET, 1), ((3, 5, 3), IMAGENET, 2)]
cases = pytest.mark.parametrize(("shape", "wanted", "seed"), CASES)
Shape = tuple[int, int, int]


class Linear(nn.Module):
    """An autoencoder of two linear layers, in double precision; it keeps what it was given."""

    def __init__(self, shape: Shape, wanted: Preprocessing, features: int = 5) -> None:
        super().__init__()
        self.preprocessing, self.features = wanted, features
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), features))
        self.decoder = nn.Sequential(nn.Linear(features, math.prod(shape)), nn.Unflatten(1, shape))
        self.given: list[Tensor] = []
        self.decoded: list[Tensor] = []
        self.encoder.register_forward_hook(lambda module, args, out: self.given.append(args[0]))
        self.decoder.register_forward_hook(lambda module, args, out: self.decoded.append(args[0]))

    def encode(self, inputs: Tensor) -> Any:
        return self._numpy(self.encoder[1], inputs.detach().numpy().reshape(len(inputs), -1))

    def decode(self, code: Any, shape: Any) -> Any:
        return self._numpy(self.decoder[0], code).reshape(shape)

    def _numpy(self, layer: Any, values: Any) -> Any:
        return values @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def tried(
    name: str, shape: Shape, wanted: Preprocessing, seed: int, **options: Any
) -> tuple[Linear, Any, Tensor, Losses]:
    """Run an objective once, in double precision; return backbone, objective, inputs, losses."""
    torch.manual_seed(seed)
    backbone = Linear(shape, wanted)
    part = choose(WORK, "objective", Component(name, **options))
    objective = build_objective(WORK, part, backbone).double()
    backbone.double()
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (wanted.mean, wanted.std))
    inputs = ((torch.rand(7, *shape) - mean) / std).double()
    backbone.given.clear()
    backbone.decoded.clear()
    raw = torch.zeros(7, *shape, dtype=torch.uint8)
    return backbone, objective, inputs, objective(backbone, inputs, raw)


def figures(losses: Losses) -> dict[str, float]:
    return {"total": losses.total.item()} | {n: p.item() for n, p in losses.parts.items()}


# --- sparse ---------------------------------------------------------------------------------


@cases
@pytest.mark.parametrize(("weight", "wanted_mean"), [(0.003, 0.05), (1.0, 0.3)])
def test_kl_sparsity_is_the_lecture_notes(
    shape: Shape, wanted: Preprocessing, seed: int, weight: float, wanted_mean: float
) -> None:
    options = {"kind": "kl", "weight": weight, "activation": wanted_mean}
    backbone, _, inputs, losses = tried("sparse", shape, wanted, seed, **options)
    code = 1 / (1 + np.exp(-backbone.encode(inputs)))
    penalty = 0.0
    for unit in range(code.shape[1]):
        mean = sum(code[:, unit]) / len(code)
        penalty += wanted_mean * math.log(wanted_mean / mean)
        penalty += (1 - wanted_mean) * math.log((1 - wanted_mean) / (1 - mean))
    error = np.mean((backbone.decode(code, inputs.shape) - inputs.numpy()) ** 2)
    assert figures(losses) == pytest.approx(
        {
            "total": error + weight * penalty,
            "reconstruction": error,
            "penalty": penalty,
            "activation": code.mean(),
        },
        rel=1e-5,
    )


@cases
def test_l1_sparsity_sums_what_is_active(shape: Shape, wanted: Preprocessing, seed: int) -> None:
    backbone, _, inputs, losses = tried("sparse", shape, wanted, seed, kind="l1", weight=0.2)
    code = np.maximum(backbone.encode(inputs), 0)
    penalty = sum(float(value) for value in code.flat) / len(code)
    error = np.mean((backbone.decode(code, inputs.shape) - inputs.numpy()) ** 2)
    assert figures(losses) == pytest.approx(
        {
            "total": error + 0.2 * penalty,
            "reconstruction": error,
            "penalty": penalty,
            "active": np.mean(code != 0),
        },
        rel=1e-5,
    )


@cases
@pytest.mark.parametrize(("keep", "kept"), [(0.001, 1), (0.4, 2), (1.0, 5)])
def test_top_k_decodes_the_largest_alone(
    shape: Shape, wanted: Preprocessing, seed: int, keep: float, kept: int
) -> None:
    backbone, _, inputs, losses = tried("sparse", shape, wanted, seed, kind="top-k", keep=keep)
    code = np.zeros((7, 5))
    for row, values in enumerate(backbone.encode(inputs)):
        for place in sorted(range(5), key=lambda unit: -values[unit])[:kept]:
            code[row, place] = values[place]
    error = np.mean((backbone.decode(code, inputs.shape) - inputs.numpy()) ** 2)
    assert np.allclose(backbone.decoded[0].detach().numpy(), code)
    assert figures(losses) == pytest.approx({"total": error, "active": kept / 5}, rel=1e-5)


def test_a_saturated_unit_has_a_finite_penalty() -> None:
    means = torch.tensor([0.0, 1.0, 0.05], requires_grad=True)
    penalty = kl_divergence(0.05, means)
    assert bool(penalty.isfinite().all())
    assert penalty[2].item() == pytest.approx(0, abs=1e-6)
    assert bool((penalty[:2] > 0.4).all())


# --- variational ----------------------------------------------------------------------------


@cases
@pytest.mark.parametrize(("beta", "deviation"), [(1.0, 0.2), (4.0, 1.0), (0.0, 0.5)])
def test_the_bound_is_the_papers(
    shape: Shape, wanted: Preprocessing, seed: int, beta: float, deviation: float
) -> None:
    options = {"beta": beta, "deviation": deviation}
    backbone, objective, inputs, losses = tried("variational", shape, wanted, seed, **options)
    features = backbone.encode(inputs)
    mean = backbone._numpy(objective.mean, features)
    log_variance = backbone._numpy(objective.log_variance, features)
    sample = backbone.decoded[0].detach().numpy()
    values = math.prod(shape)
    costs, divergences = [], []
    decoded = backbone.decode(sample, inputs.shape)
    stds = wanted.std * (shape[0] // len(wanted.std))
    for row in range(7):
        cost = divergence = 0.0
        for channel in range(shape[0]):
            error = (decoded[row, channel] - inputs[row, channel].numpy()) * stds[channel]
            cost += float(np.sum(error**2)) / (2 * deviation**2)
        for m, v in zip(mean[row], log_variance[row], strict=True):
            divergence += 0.5 * (m**2 + math.exp(v) - 1 - v)
        costs.append(cost + beta * divergence)
        divergences.append(divergence)
    assert figures(losses) == pytest.approx(
        {
            "total": np.mean(costs) / values,
            "reconstruction": np.mean((decoded - inputs.numpy()) ** 2),
            "kl": np.mean(divergences),
            "active": np.mean(np.var(mean, axis=0) > 0.01),
        },
        rel=1e-4,
    )
    # Not the mean: the sample's own noise is normal with that deviation.
    noise = (sample - mean) / np.exp(log_variance / 2)
    assert noise.std() == pytest.approx(1, abs=0.45)


def test_a_posterior_that_is_the_prior_costs_nothing() -> None:
    assert divergence(torch.zeros(3, 4), torch.zeros(3, 4)).item() == 0


@cases
@pytest.mark.parametrize(
    ("name", "options"),
    [*(("sparse", {"kind": kind}) for kind in ("kl", "l1", "top-k")), ("variational", {})],
)
def test_codes_are_what_is_decoded(
    name: str, options: dict[str, Any], shape: Shape, wanted: Preprocessing, seed: int
) -> None:
    """A report decodes them: features would show another model's pictures."""
    backbone, objective, inputs, _ = tried(name, shape, wanted, seed, **options)
    if name == "variational":  # a draw without variance is the mean
        torch.nn.init.zeros_(objective.log_variance.weight)
        torch.nn.init.constant_(objective.log_variance.bias, -200.0)
    backbone.decoded.clear()
    objective(backbone, inputs, torch.zeros(7, *shape, dtype=torch.uint8))
    codes = objective.codes(backbone, inputs)
    assert torch.allclose(codes, backbone.decoded[0], atol=1e-9)
    assert not torch.allclose(codes, backbone.encoder(inputs), atol=1e-3)


# --- adversarial ----------------------------------------------------------------------------


@cases
@pytest.mark.parametrize("on", ["code", "reconstruction"])
@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_one_loss_has_the_gradients_of_two(
    shape: Shape, wanted: Preprocessing, seed: int, on: str, weight: float
) -> None:
    """Of two backward passes, each into its own weights, as the paper trains them in turn."""
    options = {"on": on, "weight": weight}
    backbone, objective, inputs, _ = tried("adversarial", shape, wanted, seed, **options)
    raw = torch.zeros(7, *shape, dtype=torch.uint8)
    torch.manual_seed(5)
    losses = objective(backbone, inputs, raw)
    losses.total.backward()
    together = [p.grad.clone() for m in (backbone, objective) for p in m.parameters()]

    torch.manual_seed(5)
    code = backbone.encoder(inputs)
    decoded = backbone.decoder(code)
    made, true = (code, torch.randn_like(code)) if on == "code" else (decoded, inputs)
    judge = objective.discriminator
    softplus = F.softplus  # -log sigmoid(x) is softplus(-x)
    generator = softplus(-judge(made)).mean()
    reconstruction = (decoded - inputs).square().mean()
    apart = list(
        torch.autograd.grad(
            reconstruction + weight * generator, list(backbone.parameters()), retain_graph=True
        )
    )
    on_made, on_true = judge(made.detach()), judge(true)
    discriminator = (softplus(on_made).mean() + softplus(-on_true).mean()) / 2
    apart += torch.autograd.grad(discriminator, list(objective.parameters()))
    for one, two in zip(together, apart, strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-12)
    assert figures(losses) == pytest.approx(
        {
            "total": (reconstruction + weight * generator + discriminator).item(),
            "reconstruction": reconstruction.item(),
            "generator": generator.item(),
            "discriminator": discriminator.item(),
            "caught": torch.cat([on_made < 0, on_true > 0]).double().mean().item(),
        },
        rel=1e-6,
    )


def test_the_discriminator_alone_does_not_move_the_backbone() -> None:
    backbone, objective, inputs, _ = tried("adversarial", *CASES[0], weight=0.0)
    losses = objective(backbone, inputs, inputs)
    code = backbone.encoder(inputs)
    plain = (backbone.decoder(code) - inputs).square().mean()
    weights = list(backbone.parameters())
    for one, two in zip(
        torch.autograd.grad(losses.total, weights), torch.autograd.grad(plain, weights), strict=True
    ):
        assert torch.allclose(one, two)


# --- masked ---------------------------------------------------------------------------------


@cases
@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("fill", ["learned", "black"])
@pytest.mark.parametrize(("patch", "ratio"), [(1, 0.5), (2, 0.6), (3, 1.0)])
def test_masked_pixels_alone_are_judged(
    shape: Shape,
    wanted: Preprocessing,
    seed: int,
    loss: str,
    fill: str,
    patch: int,
    ratio: float,
) -> None:
    options = {"loss": loss, "fill": fill, "patch": patch, "ratio": ratio}
    backbone, _, inputs, losses = tried("masked", shape, wanted, seed, **options)
    given = backbone.given[0].detach()
    decoded = backbone.decode(backbone.encode(given), inputs.shape)
    sums = {True: [0.0, 0], False: [0.0, 0]}
    for row, channel, y, x in np.ndindex(*inputs.shape):
        # No input is just what it is replaced by, so that what changed was masked.
        masked = bool(given[row, channel, y, x] != inputs[row, channel, y, x])
        error = abs(decoded[row, channel, y, x] - inputs[row, channel, y, x].item())
        sums[masked][0] += error if loss == "l1" else error**2
        sums[masked][1] += 1
    assert figures(losses) == pytest.approx(
        {
            "total": sums[True][0] / sums[True][1],
            "visible": sums[False][0] / max(1, sums[False][1]),
        },
        rel=1e-5,
    )
    black = [
        (0 - wanted.mean[c % len(wanted.mean)]) / wanted.std[c % len(wanted.std)]
        for c in range(shape[0])
    ]
    for channel in range(shape[0]):
        filled = given[:, channel][given[:, channel] != inputs[:, channel]]
        assert filled.numpy() == pytest.approx(black[channel], rel=1e-5)  # learned: at first


@pytest.mark.parametrize(("size", "patch"), [((8, 8), 4), ((28, 28), 4), ((9, 13), 4), ((5, 5), 5)])
@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.6, 1.0])
def test_a_share_of_the_squares_is_masked(size: tuple[int, int], patch: int, ratio: float) -> None:
    torch.manual_seed(0)
    mask = draw_mask(torch.zeros(300, 2, *size), patch, ratio)[:, 0]
    rows, columns = math.ceil(size[0] / patch), math.ceil(size[1] / patch)
    chosen = mask[:, ::patch, ::patch]  # the corner of each square
    assert chosen.shape == (300, rows, columns)
    assert set(chosen.sum((1, 2)).tolist()) == {max(1, round(ratio * rows * columns))}
    for y, x in np.ndindex(*size):
        assert torch.equal(mask[:, y, x], chosen[:, y // patch, x // patch])
    # Each square as often as any other.
    share = max(1, round(ratio * rows * columns)) / (rows * columns)
    spread = 5 * math.sqrt(share * (1 - share) / 300) + 1e-9
    assert float((chosen.float().mean(0) - share).abs().max()) < spread


def test_a_square_larger_than_the_input_is_refused(workspace: Workspace) -> None:
    message = r"objective 'masked': patch 9 is larger than the input, 8×8\. Type: -o patch=2"
    with pytest.raises(Unfit, match=message):
        pipeline.pretrain(
            "mlp", objective=Component("masked", patch=9), training=SHORT, workspace=workspace
        )
    assert not workspace.runs_root.exists()


# --- all of them ----------------------------------------------------------------------------

SHORT = TrainConfig(epochs=1, batch_size=256)
DECODED = ["denoise", "masked", "sparse", "variational", "adversarial"]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features, self.decoder = 4, None
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


@pytest.mark.parametrize("name", DECODED)
def test_a_backbone_without_a_decoder_is_refused(name: str) -> None:
    with pytest.raises(Unfit, match=f"'{name}' needs a decoder.*contrastive, .*redundancy"):
        build_objective(WORK, choose(WORK, "objective", name), Encoder())


@pytest.mark.parametrize("name", ["masked", "adversarial"])
def test_finding_the_input_s_shape_leaves_the_decoder_as_it_was(name: str) -> None:
    input = ImageInput(channels=1, height=8, width=8)
    entry = choose(WORK, "backbone", Component("conv", channels=(4, 8), features=4))
    backbone: Any = entry.entry.spec.build(entry.config, input)
    backbone.train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    options = {"on": "reconstruction"} if name == "adversarial" else {}
    build_objective(WORK, choose(WORK, "objective", Component(name, **options)), backbone)
    assert all(module.training for module in backbone.modules())
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before[key]), key
