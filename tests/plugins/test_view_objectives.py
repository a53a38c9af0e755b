"""Objectives that compare two views: against loops in numpy, and the views themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import pipeline
from zoo.api import Component, ImageInput, Preprocessing, TrainConfig
from zoo.errors import Unfit
from zoo.pipeline import Workspace
from zoo.pipeline.assembly import build_objective, choose
from zoo.registry import Registry
from zoo_objectives.configs import ViewsConfig
from zoo_objectives.contrastive import nt_xent
from zoo_objectives.redundancy import barlow_twins, vicreg
from zoo_objectives.views import Views

WORK = Workspace(plugins=Registry.installed())
Array = np.ndarray[Any, np.dtype[np.float64]]
SHAPES = [(2, 3), (5, 4), (9, 1), (17, 8)]
shapes = pytest.mark.parametrize("shape", SHAPES)
seeds = pytest.mark.parametrize("seed", [0, 1, 2])


def embeddings(shape: tuple[int, int], seed: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(shape, generator=generator, dtype=torch.float64)
    return first, first + spread * torch.randn(shape, generator=generator, dtype=torch.float64)


# --- contrastive ----------------------------------------------------------------------------


def slow_nt_xent(first: Array, second: Array, temperature: float) -> dict[str, float]:
    """The paper's formula, one view after the other."""
    views = [*first, *second]
    count = len(first)
    losses, hits = [], []
    for i, view in enumerate(views):
        j = (i + count) % (2 * count)
        similar = {k: float(view @ other) for k, other in enumerate(views) if k != i}
        total = sum(np.exp(s / temperature) for s in similar.values())
        losses.append(-np.log(np.exp(similar[j] / temperature) / total))
        hits.append(max(similar, key=lambda k: similar[k]) == j)
    potentials = []
    for side in (first, second):
        pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
        each = [np.exp(-2 * np.sum((side[a] - side[b]) ** 2)) for a, b in pairs]
        potentials.append(np.log(np.mean(each)))
    return {
        "total": float(np.mean(losses)),
        "found": float(np.mean(hits)),
        "alignment": float(np.mean(np.sum((first - second) ** 2, axis=1))),
        "uniformity": float(np.mean(potentials)),
    }


@shapes
@seeds
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_is_the_papers(shape: tuple[int, int], seed: int, temperature: float) -> None:
    first, second = (F.normalize(z) for z in embeddings(shape, seed))
    losses = nt_xent(first, second, temperature)
    slow = slow_nt_xent(first.numpy(), second.numpy(), temperature)
    found = {"total": losses.total.item()} | {n: p.item() for n, p in losses.parts.items()}
    assert found == pytest.approx(slow, rel=1e-6)


def test_equal_views_of_scattered_pictures_are_all_found() -> None:
    first, _ = embeddings((9, 16), 0)
    losses = nt_xent(F.normalize(first), F.normalize(first), 0.5)
    assert losses.parts["found"] == 1
    assert losses.parts["alignment"] == 0


# --- redundancy -----------------------------------------------------------------------------


def slow_vicreg(first: Array, second: Array, weights: tuple[float, float, float]) -> float:
    """The loss of VICReg's authors, one pair of dimensions after the other."""
    count, width = first.shape
    invariance = sum((a - b) ** 2 for a, b in zip(first.flat, second.flat, strict=True))
    invariance /= count * width
    variance = covariance = 0.0
    for z in (first, second):
        centred = z - z.mean(axis=0)
        for i in range(width):
            for j in range(width):
                value = float(sum(centred[:, i] * centred[:, j])) / (count - 1)
                if i == j:
                    variance += max(0.0, 1 - np.sqrt(value + 1e-4)) / width / 2
                else:
                    covariance += value**2 / width
    return weights[0] * invariance + weights[1] * variance + weights[2] * covariance


@shapes
@seeds
@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 2.0)])
def test_vicreg_is_the_authors(
    shape: tuple[int, int], seed: int, weights: tuple[float, float, float]
) -> None:
    first, second = embeddings(shape, seed)
    losses = vicreg(0.5 * first, 0.5 * second, weights)
    slow = slow_vicreg(0.5 * first.numpy(), 0.5 * second.numpy(), weights)
    assert losses.total.item() == pytest.approx(slow, rel=1e-6)
    parts = [losses.parts[name].item() for name in ("invariance", "variance", "covariance")]
    assert np.dot(weights, parts) == pytest.approx(slow, rel=1e-6)


@shapes
@seeds
@pytest.mark.parametrize("weight", [0.005, 1.0])
def test_barlow_twins_is_the_papers(shape: tuple[int, int], seed: int, weight: float) -> None:
    first, second = embeddings(shape, seed)
    losses = barlow_twins(first, second, weight)
    total = 0.0
    one, two = first.numpy(), second.numpy()
    for i in range(shape[1]):
        for j in range(shape[1]):
            a, b = one[:, i] - one[:, i].mean(), two[:, j] - two[:, j].mean()
            scale = np.sqrt((np.mean(a**2) + 1e-5) * (np.mean(b**2) + 1e-5))
            value = np.mean(a * b) / scale
            total += (1 - value) ** 2 if i == j else weight * value**2
    assert losses.total.item() == pytest.approx(total, rel=1e-6)
    deviations = [z.std(axis=0).mean() for z in (one, two)]
    assert losses.parts["deviation"].item() == pytest.approx(np.mean(deviations), rel=1e-6)


def test_a_collapsed_embedding_costs_variance_and_has_a_gradient() -> None:
    first = torch.zeros(4, 3, requires_grad=True)
    losses = vicreg(first, torch.zeros(4, 3), (25.0, 25.0, 1.0))
    assert losses.parts["variance"].item() == pytest.approx(0.99)
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert first.grad is not None
    assert bool(first.grad.isfinite().all())


# --- both -----------------------------------------------------------------------------------


class Flat(nn.Module):
    """An encoder that keeps what it was given."""

    def __init__(self, input: ImageInput) -> None:
        super().__init__()
        self.features = 6
        size = input.channels * input.height * input.width
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(size, self.features))
        self.decoder = None
        self.seen: list[Tensor] = []
        self.encoder.register_forward_hook(lambda module, args, output: self.seen.append(args[0]))


@pytest.mark.parametrize("name", ["contrastive", "redundancy"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 12)])
def test_both_views_are_of_the_same_pictures(name: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    backbone = Flat(ImageInput(channels=shape[0], height=shape[1], width=shape[2]))
    objective = build_objective(WORK, choose(WORK, "objective", name), backbone)
    inputs = torch.rand(5, *shape) * 2 - 1
    objective(backbone, inputs, torch.zeros(5, *shape, dtype=torch.uint8))
    (views,) = backbone.seen
    assert views.shape == (10, *shape)
    assert not torch.equal(views[:5], views[5:])


@pytest.mark.parametrize("name", ["contrastive", "redundancy"])
@pytest.mark.parametrize("options", [{"batch_size": 1}, {"validation": 1}])
def test_a_batch_of_one_is_refused_before_data_is_loaded(
    name: str, options: dict[str, Any], workspace: Workspace
) -> None:
    with pytest.raises(Unfit, match=f"objective '{name}': .*batch of one.*--batch-size 2 or more"):
        pipeline.pretrain(
            "mlp", objective=name, training=TrainConfig(**options), workspace=workspace
        )
    assert not workspace.runs_root.exists()


@pytest.mark.parametrize("name", ["contrastive", "redundancy"])
def test_a_projector_without_layers_is_refused(name: str) -> None:
    backbone = Flat(ImageInput(channels=1, height=8, width=8))
    with pytest.raises(Unfit, match=r"widths is empty.*-o widths="):
        build_objective(WORK, choose(WORK, "objective", Component(name, widths=())), backbone)


def test_what_it_leaves_out_stays_as_it_was(workspace: Workspace) -> None:
    """The decoder is not trained, and neither weight decay nor batch statistics move it."""
    small = Component("conv", channels=(4, 8), features=8)
    decoders = []
    for epochs in (0, 1):
        training = TrainConfig(epochs=epochs, weight_decay=0.5, batch_size=256)
        run = pipeline.pretrain(
            small, objective="contrastive", training=training, workspace=workspace
        )
        weights = run.load_weights()
        decoders.append({n: w for n, w in weights.items() if n.startswith("decoder.")})
        assert any(name.startswith("objective.") for name in weights)
    assert decoders[0].keys() == decoders[1].keys() != set()
    for name, before in decoders[0].items():
        assert torch.equal(before, decoders[1][name]), name


# --- two processes --------------------------------------------------------------------------

PROCESSES = """
import json, sys
import torch
from zoo.api import Component, ImageInput, TrainConfig
from zoo.data import Batches
from zoo.tasks import Pretraining
from zoo.pipeline import Workspace
from zoo.pipeline.assembly import build_backbone, build_objective, choose, preprocess_for
from zoo.training import fit, placed, whole

cases, path = json.loads(sys.argv[1]), sys.argv[2]
still = dict(crop=1.0, shift=0.0, rotate=0.0, brightness=0.0, contrast=0.0, norm=False)
input = ImageInput(channels=1, height=4, width=4)
draws = torch.Generator().manual_seed(1)
raw = torch.randint(0, 256, (7, 1, 4, 4), dtype=torch.uint8, generator=draws)
work = Workspace()

def train(place, devices, name, options):
    torch.manual_seed(0)
    small = Component("mlp", widths=(8,), features=4)
    backbone = build_backbone(choose(work, "backbone", small), input)
    part = choose(work, "objective", Component(name, widths=(8, 5), **still, **options))
    objective = build_objective(work, part, backbone)
    module = Pretraining(preprocess_for(input, input, backbone), backbone, objective)
    training = TrainConfig(
        epochs=1, batch_size=7, optimizer="sgd", momentum=0.0, lr=0.1, weight_decay=0.0,
        schedule="constant", devices=devices,
    )
    [epoch] = fit(module, Batches((raw,), 7, least=4), training, place=place)
    return {**whole(module.state_dict()), "total": torch.tensor(epoch.train["total"])}

alone = [train(None, 1, *case) for case in cases]
with placed(TrainConfig(devices=2, device="cpu"), torch.device("cpu")) as place:
    together = [train(place, 2, *case) for case in cases]
    if place.main:
        torch.save([alone, together], path)
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    """Without distortions both views are the picture; 7 examples are 3 and 4 of each process."""
    script, path = tmp_path / "together.py", tmp_path / "weights.pt"
    script.write_text(PROCESSES)
    cases = [("contrastive", {}), ("redundancy", {}), ("redundancy", {"kind": "barlow"})]
    command = [sys.executable, str(script), json.dumps(cases), str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for alone, together in zip(*torch.load(path, weights_only=True), strict=True):
        assert alone.keys() == together.keys()
        for key, value in alone.items():
            assert torch.allclose(value, together[key], atol=2e-6), key


# --- the views ------------------------------------------------------------------------------

NOTHING = {
    "crop": 1.0, "shift": 0.0, "rotate": 0.0, "flip": False, "brightness": 0.0,
    "contrast": 0.0, "colour": 0.0, "blur": 0.0, "erase": 0.0, "noise": 0.0,
}  # fmt: skip
WANTED = [Preprocessing(), Preprocessing(mean=(0.5, 0.4, 0.1), std=(0.2, 0.3, 0.4))]


def drawn(inputs: Tensor, wanted: Preprocessing | None = None, **options: Any) -> Tensor:
    backbone: Any = nn.Module()
    backbone.preprocessing = wanted or Preprocessing()
    views: Tensor = Views(ViewsConfig(**{**NOTHING, **options}), backbone)(inputs)
    return views


def pictures(shape: tuple[int, ...], wanted: Preprocessing, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return pictures on 0..1 and as that preprocessing makes them."""
    unit = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (wanted.mean, wanted.std))
    return unit, (unit - mean) / std


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("size", [(8, 8), (5, 9), (1, 4)])
def test_without_distortions_a_view_is_the_picture(
    wanted: Preprocessing, size: tuple[int, int]
) -> None:
    _, inputs = pictures((4, 3, *size), wanted)
    assert torch.allclose(drawn(inputs, wanted), inputs, atol=1e-5)


def test_flip_mirrors_about_half() -> None:
    _, inputs = pictures((400, 1, 6, 6), WANTED[0])
    views = drawn(inputs, flip=True)
    same = torch.isclose(views, inputs, atol=1e-4).all(3).all(2).all(1)
    mirrored = torch.isclose(views, inputs.flip(3), atol=1e-4).all(3).all(2).all(1)
    assert bool((same ^ mirrored).all())
    assert 140 < int(mirrored.sum()) < 260


@pytest.mark.parametrize("size", [(9, 9), (7, 13)])
def test_turning_keeps_distances(size: tuple[int, int]) -> None:
    """A dot at the middle stays, and one beside it moves on a circle about it."""
    height, width = size
    inputs = torch.full((200, 1, height, width), -1.0)
    inputs[:, 0, height // 2, width // 2 + 2] = 1
    views = (drawn(inputs, rotate=180.0) + 1) / 2
    rows = torch.arange(height).view(1, -1, 1) - height // 2
    columns = torch.arange(width).view(1, 1, -1) - width // 2
    mass = views[:, 0].sum((1, 2))
    down = (views[:, 0] * rows).sum((1, 2)) / mass
    right = (views[:, 0] * columns).sum((1, 2)) / mass
    assert torch.allclose(down.hypot(right), torch.full((200,), 2.0), atol=0.15)
    assert down.min() < -1.5 < 1.5 < down.max()  # either way round


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_a_crop_shows_so_much_of_the_picture(share: float) -> None:
    """Of a ramp a view shows a part; how much the ramp rises in it is the part's side."""
    height, width = 16, 24
    ramp = ((torch.arange(width) + 0.5) / width).expand(300, 1, height, width)
    across = drawn(2 * ramp - 1, crop=share)
    along = drawn(
        2 * ((torch.arange(height) + 0.5) / height)[:, None].expand_as(ramp) - 1, crop=share
    )
    inner = slice(6, -6)  # where the border's black is not blended in
    wide = (across[..., -7] - across[..., 6]).mean((1, 2)) / 2 * width / (width - 13)
    assert 0.98 > wide.min() > (share * 3 / 4) ** 0.5 - 0.02
    assert wide.max() <= 1.02
    assert wide.std() > 0.05
    assert along[..., inner].shape[0] == 300
    # It may lie anywhere within the picture, and nothing beyond is seen.
    left = across[:, 0, 8, 6]
    assert left.std() > 0.05


@pytest.mark.parametrize("wanted", WANTED)
def test_what_lies_outside_of_a_picture_is_black(wanted: Preprocessing) -> None:
    _, inputs = pictures((50, 3, 10, 10), wanted)
    white = (1 - torch.tensor(wanted.mean).view(1, -1, 1, 1)) / torch.tensor(wanted.std).view(
        1, -1, 1, 1
    )
    views = drawn(white.expand_as(inputs), wanted, shift=0.5)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (wanted.mean, wanted.std))
    seen = views * std + mean
    assert float(seen.min()) == pytest.approx(0, abs=1e-5)
    assert float(seen.max()) == pytest.approx(1, abs=1e-5)
    # White pictures moved by up to half their side: about a quarter of an axis is black.
    assert 0.4 < float(seen.mean()) < 0.75


@pytest.mark.parametrize("kind", ["brightness", "contrast", "colour"])
def test_jitter_is_by_a_factor_of_each_picture(kind: str) -> None:
    wanted = WANTED[1]
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (wanted.mean, wanted.std))
    unit = 0.3 + 0.2 * torch.rand(300, 3, 6, 6)  # nothing is cut at 0 or 1
    seen = drawn((unit - mean) / std, wanted, **{kind: 0.4}) * std + mean
    before = unit - unit.mean((1, 2, 3), keepdim=True) if kind == "contrast" else unit
    after = seen - unit.mean((1, 2, 3), keepdim=True) if kind == "contrast" else seen
    over = (2, 3) if kind == "colour" else (1, 2, 3)
    factors = (after * before).sum(over, keepdim=True) / before.square().sum(over, keepdim=True)
    assert torch.allclose(after, before * factors, atol=1e-4)
    assert 0.59 < float(factors.min()) < 0.65
    assert 1.35 < float(factors.max()) < 1.41


def test_blur_blends_with_the_neighbours_of_some() -> None:
    unit, inputs = pictures((200, 2, 7, 7), WANTED[0])
    seen = (drawn(inputs, blur=0.5) + 1) / 2
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    shares = []
    for picture, view in zip(unit.double().numpy(), seen.double().numpy(), strict=True):
        padded = np.pad(picture, ((0, 0), (1, 1), (1, 1)))
        blurred = np.zeros_like(picture)
        for row in range(7):
            for column in range(7):
                window = padded[:, row : row + 3, column : column + 3]
                blurred[:, row, column] = (window * kernel).sum(axis=(1, 2))
        step = blurred - picture
        share = float(((view - picture) * step).sum() / (step**2).sum())
        assert np.allclose(view, picture + share * step, atol=1e-5)
        shares.append(share)
    spared = sum(abs(share) < 1e-4 for share in shares)
    assert 70 < spared < 130
    assert max(shares) > 0.9


def test_erasing_blackens_a_rectangle_of_some() -> None:
    inputs = torch.ones(300, 2, 12, 18)
    seen = drawn(inputs, erase=0.5)
    black = seen == -1
    assert torch.equal(black[:, 0], black[:, 1])
    areas = []
    for mask in black[:, 0]:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)  # a rectangle
        for line in (rows, columns):
            assert int((line.int().diff() != 0).sum()) <= 2  # without gaps
        areas.append(float(mask.float().mean()))
    erased = [area for area in areas if area]
    assert 110 < len(erased) < 190
    assert max(erased) < 0.27
    assert np.mean(erased) == pytest.approx(0.11, abs=0.02)


def test_noise_has_its_deviation_and_stays_between_black_and_white() -> None:
    inputs = torch.zeros(100, 1, 10, 10)  # grey
    seen = (drawn(inputs, noise=0.1) + 1) / 2
    assert float((seen - 0.5).std()) == pytest.approx(0.1, rel=0.05)
    loud = drawn(inputs, noise=1.0)
    assert float(loud.min()) == -1
    assert float(loud.max()) == 1


def test_the_defaults_are_those_of_drawings() -> None:
    """Digits have a left and a right: nothing is mirrored unless that is asked for."""
    assert ViewsConfig().flip is False
    assert 0.4 <= ViewsConfig().crop <= 1
