"""Augmentation against slow oracles, and what it draws."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TV

from zoo import augment
from zoo.augment import Augmentation, Mixing

SIZES = [(1, 8, 8), (3, 33, 47), (1, 28, 28)]
COUNTS = [1, 2, 7]
ALL = Augmentation(
    shift=2, flip=True, rotate=15.0, zoom=0.2, shear=10.0, jitter=0.4, noise=0.1, erase=0.5
)
SETTINGS = [
    Augmentation(flip=True),
    Augmentation(shift=3),
    Augmentation(shift=2, flip=True),
    Augmentation(rotate=30.0),
    Augmentation(zoom=0.3),
    Augmentation(shear=20.0),
    Augmentation(jitter=0.5),
    Augmentation(noise=0.2),
    Augmentation(erase=0.5),
    Augmentation(shift=2, flip=True, erase=1.0),
    ALL,
]
MIXINGS = [
    Mixing(mixup=0.2, classes=5),
    Mixing(cutmix=1.0, classes=5),
    Mixing(mixup=0.4, cutmix=1.0, classes=5),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bytes_of(count: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    return torch.randint(256, (count, *shape), dtype=torch.uint8, generator=seeded(seed))


def smooth_bytes_of(count: int, shape: tuple[int, int, int]) -> Tensor:
    """Pictures whose neighbouring pixels differ little, as photographs' do."""
    channels, height, width = shape
    coarse = torch.rand(count, channels, 4, 4, generator=seeded()) * 255
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return fine.round().to(torch.uint8)


def labels_of(count: int, classes: int = 5) -> Tensor:
    return torch.arange(count) % classes


def spy(monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple[Any, ...]]:
    """Keep what a function of the module is called with."""
    calls: list[tuple[Any, ...]] = []
    real = getattr(augment, name)

    def spied(*args: Any, **keywords: Any) -> Any:
        calls.append(args)
        return real(*args, **keywords)

    monkeypatch.setattr(augment, name, spied)
    return calls


def assert_uniform(values: Tensor, low: float, high: float) -> None:
    """Bounds are kept and all but reached, and nothing between them is preferred."""
    assert low <= float(values.min()) < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < float(values.max()) <= high
    assert stats.kstest(values.double(), stats.uniform(low, high - low).cdf).pvalue > 0.01


# --- flip and shift -------------------------------------------------------------------------


def moved_slowly(raw: Tensor, flips: list[int], downs: list[int], rights: list[int]) -> Tensor:
    found = torch.zeros_like(raw)
    _, _, height, width = raw.shape
    for n, (flip, down, right) in enumerate(zip(flips, downs, rights, strict=True)):
        for y in range(height):
            for x in range(width):
                from_y, from_x = y - down, x - right
                if 0 <= from_y < height and 0 <= from_x < width:
                    column = width - 1 - from_x if flip else from_x
                    found[n, :, y, x] = raw[n, :, from_y, column]
    return found


@given(count=st.integers(1, 4), channels=st.sampled_from([1, 2, 3]), height=st.integers(1, 9),
       width=st.integers(1, 9), reach=st.integers(0, 11), data=st.data())  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_moving_copies_bytes(
    count: int, channels: int, height: int, width: int, reach: int, data: st.DataObject
) -> None:
    """Shifts beyond the picture's side are among them: nothing is left then."""
    flips = data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    shift = st.lists(st.integers(-reach, reach), min_size=count, max_size=count)
    downs, rights = data.draw(shift), data.draw(shift)
    raw = bytes_of(count, (channels, height, width))
    found = augment.move(raw, torch.tensor(flips), torch.tensor([downs, rights]), reach=reach)
    assert torch.equal(found, moved_slowly(raw, flips, downs, rights))
    straight = augment.move(raw, None, torch.tensor([downs, rights]), reach=reach)
    assert torch.equal(straight, moved_slowly(raw, [0] * count, downs, rights))


def test_rows_are_gathered_as_they_are_copied() -> None:
    """One is for the CPU, the other for every other device."""
    flat = bytes_of(1, (1, 20, 20)).view(-1)
    starts = torch.tensor([0, 1, 17, 393, 393, 5])
    copied = augment._copied_rows(flat, starts, 7)
    assert torch.equal(copied, augment._gathered_rows(flat, starts, 7))
    assert copied[2].tolist() == flat[17:24].tolist()


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("count", COUNTS)
def test_flip_and_shift_together(shape: tuple[int, int, int], count: int) -> None:
    raw = bytes_of(count, shape)
    found = Augmentation(flip=True, shift=2)(raw, seeded(3))
    drawn = seeded(3)
    flips = torch.randint(2, (count,), generator=drawn).tolist()
    downs, rights = torch.randint(-2, 3, (2, count), generator=drawn).tolist()
    assert torch.equal(found, moved_slowly(raw, flips, downs, rights))


def test_half_of_the_examples_are_mirrored() -> None:
    raw = bytes_of(4000, (1, 2, 3))
    found = Augmentation(flip=True)(raw, seeded())
    mirrored = (found == raw.flip(3)).flatten(1).all(1)
    straight = (found == raw).flatten(1).all(1)
    assert bool((mirrored | straight).all())
    assert mirrored.double().mean().item() == pytest.approx(0.5, abs=0.03)


def test_every_shift_is_as_likely() -> None:
    raw = torch.zeros(5000, 1, 9, 11, dtype=torch.uint8)
    raw[:, :, 4, 5] = 255
    found = Augmentation(shift=2)(raw, seeded())
    assert found.flatten(1).sum(1).unique().tolist() == [255]
    _, _, rows, columns = found.nonzero(as_tuple=True)
    counts = torch.bincount((rows - 2) * 5 + columns - 3, minlength=25)
    assert len(counts) == 25
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


def test_uncovered_pixels_are_black() -> None:
    raw = torch.full((50, 3, 8, 8), 255, dtype=torch.uint8)
    found = Augmentation(shift=3)(raw, seeded())
    assert found.unique().tolist() == [0, 255]
    turned = Augmentation(rotate=45.0)(raw, seeded())
    assert turned.amin(dim=(2, 3)).min().item() == 0
    assert turned[..., 3:5, 3:5].unique().tolist() == [255]


# --- rotate, zoom and shear -----------------------------------------------------------------


def forward_map(
    flip: int, down: float, right: float, angle: float, size: float, shear: float
) -> np.ndarray[Any, Any]:
    """Mirror, resize, shear, rotate, shift, one matrix each, on (x, y, 1) off the centre."""
    turn, slope = np.deg2rad(angle), np.tan(np.deg2rad(shear))
    mirrored = np.diag([-1.0 if flip else 1.0, 1, 1])
    resized = np.diag([size, size, 1.0])
    sheared = np.array([[1, slope, 0], [0, 1, 0], [0, 0, 1.0]])
    rotated = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    shifted = np.array([[1, 0, right], [0, 1, down], [0, 0, 1.0]])
    return np.asarray(shifted @ rotated @ sheared @ resized @ mirrored)


def resampled_slowly(one: Tensor, inverse: np.ndarray[Any, Any]) -> Tensor:
    _, height, width = one.shape
    found = torch.zeros(one.shape, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            spot = inverse @ [x - (width - 1) / 2, y - (height - 1) / 2, 1]
            column, row = spot[0] + (width - 1) / 2, spot[1] + (height - 1) / 2
            left, top = int(np.floor(column)), int(np.floor(row))
            for from_y, weight_y in ((top, top + 1 - row), (top + 1, row - top)):
                for from_x, weight_x in ((left, left + 1 - column), (left + 1, column - left)):
                    if 0 <= from_y < height and 0 <= from_x < width:
                        found[:, y, x] += weight_y * weight_x * one[:, from_y, from_x]
    return found


def drawn_moves(count: int, shift: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Flips, shifts and (angle, size, shear) of each example."""
    drawn = seeded(seed)
    flips = torch.randint(2, (count,), generator=drawn)
    shifts = torch.randint(-shift, shift + 1, (2, count), generator=drawn)
    spread = torch.tensor([[90.0], [0.4], [30.0]])
    angles, sizes, shears = spread * (2 * torch.rand(3, count, generator=drawn) - 1)
    return flips, shifts, torch.stack([angles, 1 + sizes, shears])


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 14), (2, 13, 6), (1, 1, 5)])
def test_resampling_is_bilinear(shape: tuple[int, int, int]) -> None:
    raw = bytes_of(6, shape)
    flips, shifts, moves = drawn_moves(6, 3)
    maps = augment.sources(flips, shifts, *moves)
    found = augment.resample(raw, maps)
    for n in range(6):
        down, right = shifts[:, n].tolist()
        inverse = np.linalg.inv(forward_map(int(flips[n]), down, right, *moves[:, n].tolist()))
        np.testing.assert_allclose(maps[n].numpy(), inverse[:2], atol=1e-5)
        expected = resampled_slowly(raw[n], inverse)
        assert (found[n].double() - expected).abs().max().item() < 0.51


@pytest.mark.parametrize("shape", SIZES)
def test_resampling_agrees_with_torchvision(shape: tuple[int, int, int]) -> None:
    """A second implementation, by other people; its shear has the other sign."""
    raw = bytes_of(8, shape)
    _, shifts, moves = drawn_moves(8, 3)
    found = augment.resample(raw, augment.sources(None, shifts, *moves))
    for n in range(8):
        down, right = shifts[:, n].tolist()
        angle, size, shear = moves[:, n].tolist()
        theirs = TV.affine(
            raw[n], angle, [right, down], size, [-shear, 0.0], InterpolationMode.BILINEAR
        )
        assert (found[n].int() - theirs.int()).abs().max().item() <= 1


@pytest.mark.parametrize("shape", SIZES)
def test_resampling_agrees_with_pillow(shape: tuple[int, int, int]) -> None:
    raw = smooth_bytes_of(8, shape)
    _, shifts, moves = drawn_moves(8, 1)
    maps = augment.sources(None, shifts, *moves)
    found = augment.resample(raw, maps)
    # Pillow has no black around the picture to mix with: its last half pixel is left out.
    inside = augment.resample(torch.full_like(raw, 255), maps) == 255
    for n in range(8):
        down, right = shifts[:, n].tolist()
        angle, size, shear = moves[:, n].tolist()
        theirs = TV.pil_to_tensor(
            TV.affine(
                TV.to_pil_image(raw[n]), angle, [right, down], size, [-shear, 0.0],
                InterpolationMode.BILINEAR,
            )
        )  # fmt: skip
        difference = (found[n].int() - theirs.int()).abs()
        assert int(inside[n].sum()) > 10
        assert difference[inside[n]].max().item() <= 1


@pytest.mark.parametrize("side", [8, 9, 28])
def test_a_quarter_turn_moves_whole_pixels(side: int) -> None:
    raw = bytes_of(2, (3, side, side))
    still, ones = torch.zeros(2, 2, dtype=torch.int64), torch.ones(2)
    turned = augment.resample(raw, augment.sources(None, still, 90 * ones, ones, 0 * ones))
    assert torch.equal(turned, raw.rot90(-1, (2, 3)))


def test_a_rotation_of_a_long_picture_is_one_in_pixels() -> None:
    """A square in the middle of a long picture turns into itself, not into a rhomboid."""
    raw = torch.zeros(1, 1, 33, 47, dtype=torch.uint8)
    raw[..., 10:23, 17:30] = bytes_of(1, (1, 13, 13))
    still, ones = torch.zeros(2, 1, dtype=torch.int64), torch.ones(1)
    turned = augment.resample(raw, augment.sources(None, still, 90 * ones, ones, 0 * ones))
    assert torch.equal(turned[..., 10:23, 17:30], raw[..., 10:23, 17:30].rot90(-1, (2, 3)))
    assert int(turned.long().sum()) == int(raw.long().sum())


@pytest.mark.parametrize("shape", [*SIZES, (3, 224, 224)])
def test_resampling_by_whole_pixels_is_exact(shape: tuple[int, int, int]) -> None:
    raw = bytes_of(6, shape)
    flips, shifts, _ = drawn_moves(6, 3)
    none = torch.zeros(6)
    found = augment.resample(raw, augment.sources(flips, shifts, none, none + 1, none))
    assert torch.equal(found, augment.move(raw, flips, shifts, reach=3))


def test_angles_sizes_and_shears_are_uniform_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spy(monkeypatch, "sources")
    raw = bytes_of(3000, (1, 2, 2))
    Augmentation(rotate=20.0, zoom=0.1, shear=5.0, shift=1)(raw, seeded())
    ((flips, shifts, angles, sizes, shears),) = calls
    assert flips is None
    assert shifts.unique().tolist() == [-1, 0, 1]
    assert_uniform(angles, -20, 20)
    assert_uniform(sizes, 0.9, 1.1)
    assert_uniform(shears, -5, 5)
    # Draws of one example tell nothing about each other.
    drawn = torch.cat([shifts.float(), torch.stack([angles, sizes, shears])])
    assert (torch.corrcoef(drawn) - torch.eye(5)).abs().max().item() < 0.06


@pytest.mark.parametrize("name", ["rotate", "zoom", "shear"])
def test_what_is_not_asked_for_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spy(monkeypatch, "sources")
    Augmentation(**{name: 0.2})(bytes_of(50, (1, 4, 4)), seeded())  # type: ignore[arg-type]
    ((flips, shifts, angles, sizes, shears),) = calls
    assert flips is None
    assert not shifts.any()
    still = {
        "rotate": not angles.any(),
        "zoom": bool((sizes == 1).all()),
        "shear": not shears.any(),
    }
    assert still == {key: key != name for key in still}


# --- jitter and noise -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", SIZES)
def test_contrast_brightness_and_noise_are_those_of_their_definition(
    shape: tuple[int, int, int],
) -> None:
    raw = bytes_of(3, shape)
    factors = torch.tensor([[0.5, 1.0, 1.7], [1.0, 1.4, 0.6]])
    grain = torch.randn(raw.shape, generator=seeded()) * 0.1
    found = augment.recolour(raw, factors, grain)
    for n in range(3):
        pixels = raw[n].double().flatten().tolist()
        mean = sum(pixels) / len(pixels)
        contrast, brightness = (float(each) for each in factors[:, n])
        for place, pixel in enumerate(pixels):
            wanted = (mean + (pixel - mean) * contrast) * brightness
            wanted += 255 * float(grain[n].flatten()[place])
            shown = int(found[n].flatten()[place])
            assert abs(shown - min(255.0, max(0.0, wanted))) < 0.51


def test_what_jitter_and_noise_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spy(monkeypatch, "recolour")
    raw = bytes_of(4000, (1, 2, 2))
    Augmentation(jitter=0.3, noise=0.2)(raw, seeded())
    ((_, factors, grain),) = calls
    for each in factors:
        assert_uniform(each, 0.7, 1.3)
    assert abs(np.corrcoef(factors.numpy())[0, 1]) < 0.05
    assert float(grain.mean()) == pytest.approx(0, abs=0.01)
    assert float(grain.std()) == pytest.approx(0.2, rel=0.02)
    Augmentation(jitter=0.3)(raw, seeded())
    assert calls[1][2] is None


# --- erase ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SIZES)
def test_erasing_fills_a_rectangle_with_noise(shape: tuple[int, int, int]) -> None:
    _, height, width = shape
    raw, noise = bytes_of(20, shape), bytes_of(1, shape, seed=1)[0]
    boxes = augment.draw_boxes(20, height, width, 0.7, seeded())
    expected = raw.clone()
    for n, (top, bottom, left, right) in enumerate(boxes.T.tolist()):
        for y in range(top, bottom):
            for x in range(left, right):
                expected[n, :, y, x] = noise[:, y, x]
    assert torch.equal(augment.erase(raw, boxes, noise), expected)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (8, 8), (33, 47), (28, 28), (224, 224), (5, 300), (300, 5)]
)
def test_boxes_lie_in_the_picture(height: int, width: int) -> None:
    top, bottom, left, right = augment.draw_boxes(4000, height, width, 1.0, seeded())
    assert top.min().item() == 0
    assert left.min().item() == 0
    assert bottom.max().item() == height
    assert right.max().item() == width
    assert bool((bottom > top).all())
    assert bool((right > left).all())


def test_areas_aspects_and_places_of_boxes() -> None:
    """On many pixels, where rounding to whole ones hides nothing."""
    side = 10_000
    top, bottom, left, right = augment.draw_boxes(4000, side, side, 1.0, seeded()).double()
    rows, columns = bottom - top, right - left
    assert_uniform(rows * columns / side**2, 0.02 - 1e-4, 0.33 + 1e-4)
    # Above 1 / 3.3 of the area the longest shapes do not fit.
    small = rows * columns < side**2 / 3.3
    aspects = (rows / columns)[small].log()
    assert_uniform(aspects, np.log(0.3) - 1e-3, np.log(3.3) + 1e-3)
    assert_uniform(top / (side - rows), 0, 1)
    assert_uniform(left / (side - columns), 0, 1)


@pytest.mark.parametrize("probability", [0.1, 0.5, 1.0])
def test_how_many_examples_are_erased(probability: float) -> None:
    raw = bytes_of(3000, (1, 8, 8))
    found = Augmentation(erase=probability)(raw, seeded())
    erased = (found != raw).flatten(1).any(1).double().mean().item()
    # A box of one or two pixels can be filled with the very bytes it had.
    assert erased == pytest.approx(probability, abs=0.03)


def test_noise_is_new_each_batch_and_takes_every_byte() -> None:
    raw = torch.zeros(40, 3, 32, 32, dtype=torch.uint8)
    drawn = seeded()
    first, second = (Augmentation(erase=1.0)(raw, drawn) for _ in range(2))
    # Shared by the batch, so that where two examples are filled they agree.
    noise = [batch.amax(0) for batch in (first, second)]
    for batch, one in zip((first, second), noise, strict=True):
        filled = batch.bool()
        assert torch.equal(batch[filled], one.expand_as(batch)[filled])
    assert (noise[0] == noise[1]).double().mean().item() < 0.1
    assert len(first.unique()) > 250


# --- Augmentation as a whole ----------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("count", COUNTS)
def test_bytes_in_bytes_out(setting: Augmentation, shape: tuple[int, int, int], count: int) -> None:
    raw = bytes_of(count, shape)
    kept = raw.clone()
    found = setting(raw, seeded(1))
    assert setting.active
    assert found.dtype == torch.uint8
    assert found.shape == raw.shape
    assert found.is_contiguous()
    assert found.data_ptr() != raw.data_ptr()
    assert torch.equal(raw, kept)


@pytest.mark.parametrize("setting", SETTINGS)
def test_memory_of_any_layout(setting: Augmentation) -> None:
    raw = bytes_of(6, (3, 8, 9))
    expected = setting(raw, seeded())
    spread = torch.stack([raw, 255 - raw], 4)[..., 0]
    for same in (raw.contiguous(memory_format=torch.channels_last), spread):
        assert not same.is_contiguous()
        found = setting(same, seeded())
        assert torch.equal(found, expected)
        assert found.is_contiguous()


@pytest.mark.parametrize("setting", SETTINGS)
def test_draws_come_from_the_generator_alone(setting: Augmentation) -> None:
    raw = bytes_of(9, (1, 28, 28))
    before = torch.get_rng_state()
    drawn = seeded(5)
    first, second = setting(raw, drawn), setting(raw, drawn)
    again = seeded(5)
    assert torch.equal(first, setting(raw, again))
    middle = torch.Generator()
    middle.set_state(again.get_state())  # as a resumed run does
    assert torch.equal(second, setting(raw, middle))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("setting", SETTINGS)
def test_how_much_is_drawn_depends_on_no_content(setting: Augmentation) -> None:
    states = []
    for raw in (bytes_of(9, (1, 8, 8)), torch.zeros(9, 1, 8, 8, dtype=torch.uint8)):
        drawn = seeded(5)
        setting(raw, drawn)
        states.append(drawn.get_state())
    assert torch.equal(*states)


def test_each_example_gets_draws_of_its_own() -> None:
    raw = bytes_of(1, (1, 28, 28)).expand(40, 1, 28, 28)
    found = ALL(raw, seeded())
    assert len(found.flatten(1).unique(dim=0)) == 40


def test_the_order_is_flip_affine_recolour_erase(monkeypatch: pytest.MonkeyPatch) -> None:
    mapped, erased = spy(monkeypatch, "sources"), spy(monkeypatch, "erase")
    recoloured = spy(monkeypatch, "recolour")
    raw = bytes_of(12, (3, 9, 14))
    found = ALL(raw, seeded())
    ((flips, shifts, *moves),) = mapped
    ((_, boxes, noise),) = erased
    mirrored = augment.move(raw, flips, torch.zeros_like(shifts), reach=0)
    turned = augment.resample(mirrored, augment.sources(None, shifts, *moves))
    ((_, factors, grain),) = recoloured
    changed = augment.recolour(turned, factors, grain)
    difference = (found.int() - augment.erase(changed, boxes, noise).int()).abs()
    assert difference.max().item() <= 3  # mirrored coordinates round otherwise, before contrast


def test_what_is_inactive_returns_its_input() -> None:
    raw, drawn = bytes_of(3, (1, 8, 8)), seeded()
    before = drawn.get_state()
    assert not Augmentation().active
    assert Augmentation()(raw, drawn) is raw
    assert torch.equal(drawn.get_state(), before)


@pytest.mark.parametrize("setting", [*SETTINGS, Augmentation()])
def test_nothing_is_read_back_from_the_device(setting: Augmentation) -> None:
    """Tensors without values refuse whatever would wait for one."""
    raw = torch.empty(5, 3, 33, 47, dtype=torch.uint8, device="meta")
    found = setting(raw, seeded())
    assert (found.device.type, found.dtype, found.shape) == ("meta", torch.uint8, raw.shape)


# --- Mixing ---------------------------------------------------------------------------------


def shares(mixing: Mixing, draws: int, shape: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
    """The shares that successive batches keep of their examples."""
    raw, labels, drawn = bytes_of(2, shape), torch.tensor([0, 1]), seeded()
    return torch.stack([mixing(raw, labels, drawn)[1][0, 0] for _ in range(draws)])


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_mixup_mixes_bytes_and_targets_alike(
    shape: tuple[int, int, int], count: int, seed: int
) -> None:
    raw, labels = bytes_of(count, shape), labels_of(count)
    mixed, targets = Mixing(mixup=1.0, classes=5)(raw, labels, seeded(seed))
    for n in range(count):
        own, other = raw[n].double(), raw[n - 1].double()
        kept = targets[n, n].item()
        assert targets[n, (n - 1) % count].item() == pytest.approx(1 - kept, abs=1e-6)
        expected = kept * own + (1 - kept) * other
        assert (mixed[n].double() - expected).abs().max().item() < 0.5001


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 4.0])
def test_mixups_share_is_beta_distributed(alpha: float) -> None:
    found = shares(Mixing(mixup=alpha, classes=2), 1500)
    # By bins: most of Beta(0.1, 0.1) lies nearer to 0 and 1 than float32 tells.
    bounds = np.array([0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999, 1])
    counts, _ = np.histogram(found.numpy(), bounds)
    expected = 1500 * np.diff(stats.beta(alpha, alpha).cdf(bounds))
    seen = expected > 4
    assert counts[~seen].sum() < 20
    assert stats.chisquare(counts[seen], expected[seen], sum_check=False).pvalue > 0.01


@given(kept=st.floats(0, 1), height=st.integers(1, 12), width=st.integers(1, 12),
       seed=st.integers(0, 1000))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_cutmix_pastes_a_clipped_box(kept: float, height: int, width: int, seed: int) -> None:
    raw = bytes_of(3, (2, height, width))
    mixed, left_over = augment.cut_and_paste(raw, kept, random.Random(seed))
    lot = random.Random(seed)
    row, column = lot.randrange(height), lot.randrange(width)
    rows, columns = (round(side * (1 - kept) ** 0.5) for side in (height, width))
    expected, count = raw.clone(), 0
    for y in range(row - rows // 2, row - rows // 2 + rows):
        for x in range(column - columns // 2, column - columns // 2 + columns):
            if 0 <= y < height and 0 <= x < width:
                count += 1
                for n in range(3):
                    expected[n, :, y, x] = raw[n - 1, :, y, x]
    assert torch.equal(mixed, expected)
    assert left_over == pytest.approx(1 - count / (height * width))


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("count", [2, 5])
def test_cutmix_weighs_targets_by_the_pixels_kept(shape: tuple[int, int, int], count: int) -> None:
    """Each example is all of one byte, so that its pixels can be counted."""
    labels = labels_of(count)
    raw = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(count, *shape)
    found = set()
    drawn = seeded()
    for _ in range(20):
        mixed, targets = Mixing(cutmix=1.0, classes=5)(raw, labels, drawn)
        for n in range(count):
            for label in range(5):
                pixels = (mixed[n] == label).double().mean().item()
                assert targets[n, label].item() == pytest.approx(pixels, abs=1e-6)
            found.add(round(targets[n, n].item(), 4))
    assert len(found) > 5


def test_cutmix_reaches_every_pixel_and_its_share_is_as_the_paper_draws_it() -> None:
    height, width = 20, 30
    raw = torch.zeros(2, 1, height, width, dtype=torch.uint8)
    raw[1] = 1
    drawn, cut, kept = seeded(), torch.zeros(height, width), []
    for _ in range(1500):
        mixed, targets = Mixing(cutmix=1.0, classes=2)(raw, torch.tensor([0, 1]), drawn)
        cut += mixed[0, 0]
        kept.append(targets[0, 0].item())
    assert cut.min().item() > 150
    # Left and right, top and bottom are alike.
    assert (cut - cut.flip(0)).abs().max().item() < 150
    assert (cut - cut.flip(1)).abs().max().item() < 150
    # By simulation of the paper's algorithm 1, on a continuous picture.
    lots = np.random.default_rng(0)
    share, x, y = lots.random((3, 100_000))
    half = np.sqrt(1 - share) / 2
    expected = 1 - np.prod(
        [np.minimum(at + half, 1) - np.maximum(at - half, 0) for at in (x, y)], axis=0
    )
    assert np.mean(kept) == pytest.approx(expected.mean(), abs=0.02)
    assert np.std(kept) == pytest.approx(expected.std(), abs=0.02)


def test_with_both_each_batch_takes_one_of_them() -> None:
    raw = torch.tensor([0, 200], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 16, 16)
    drawn, pasted = seeded(), []
    for _ in range(600):
        mixed, _ = Mixing(mixup=2.0, cutmix=2.0, classes=2)(raw, torch.tensor([0, 1]), drawn)
        levels = set(mixed.unique().tolist())
        assert levels <= {0, 200} or len(levels) <= 2
        pasted.append(levels <= {0, 200})
    assert np.mean(pasted) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("count", COUNTS)
def test_targets_sum_to_one(mixing: Mixing, shape: tuple[int, int, int], count: int) -> None:
    raw, labels, drawn = bytes_of(count, shape), labels_of(count, 3), seeded()
    kept = raw.clone()
    for _ in range(5):
        mixed, targets = mixing(raw, labels, drawn)
        assert (mixed.dtype, mixed.shape) == (torch.uint8, raw.shape)
        assert mixed.is_contiguous()
        assert mixed.data_ptr() != raw.data_ptr()
        assert (targets.dtype, targets.shape) == (torch.float32, (count, 5))
        assert torch.allclose(targets.sum(1), torch.ones(count), atol=1e-6)
        assert float(targets.min()) >= 0
        assert not targets[:, 3:].any()
    assert torch.equal(raw, kept)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_mixing_takes_memory_of_any_layout(mixing: Mixing) -> None:
    raw, labels = bytes_of(4, (3, 8, 9)), labels_of(4)
    spread = raw.contiguous(memory_format=torch.channels_last)
    for seed in range(4):
        expected, _ = mixing(raw, labels, seeded(seed))
        found, _ = mixing(spread, labels, seeded(seed))
        assert torch.equal(found, expected)
        assert found.is_contiguous()


@pytest.mark.parametrize("mixing", MIXINGS)
def test_a_batch_of_one_mixes_with_itself(mixing: Mixing) -> None:
    raw = bytes_of(1, (3, 8, 8))
    for seed in range(5):
        mixed, targets = mixing(raw, torch.tensor([2]), seeded(seed))
        assert torch.equal(mixed, raw)
        assert targets.tolist() == [[0, 0, 1, 0, 0]]


@pytest.mark.parametrize("mixing", MIXINGS)
def test_examples_of_one_class_keep_it_whole(mixing: Mixing) -> None:
    _, targets = mixing(bytes_of(4, (1, 8, 8)), torch.full((4,), 3), seeded())
    assert targets.tolist() == [[0, 0, 0, 1, 0]] * 4


@pytest.mark.parametrize("mixing", MIXINGS)
def test_mixing_draws_from_the_generator_alone(mixing: Mixing) -> None:
    before, before_python = torch.get_rng_state(), random.getstate()
    raw, labels = bytes_of(4, (1, 8, 8)), labels_of(4)

    def two(first: Tensor) -> tuple[list[Tensor], Tensor]:
        drawn = seeded(4)
        batches = [*mixing(first, labels, drawn), *mixing(raw, labels, drawn)]
        return batches, drawn.get_state()

    one, state = two(raw)
    again, same = two(raw)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    other, after_other = two(torch.zeros_like(raw))
    assert torch.equal(state, same)
    assert torch.equal(state, after_other)
    assert torch.equal(one[2], other[2])
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == before_python


def test_no_mixing_gives_one_hot_targets() -> None:
    raw, drawn = bytes_of(3, (1, 8, 8)), seeded()
    before = drawn.get_state()
    mixing = Mixing(classes=4)
    assert not mixing.active
    found, targets = mixing(raw, torch.tensor([3, 0, 1]), drawn)
    assert found is raw
    assert targets.tolist() == [[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]
    assert targets.dtype == torch.float32
    assert torch.equal(drawn.get_state(), before)
    assert all(one.active for one in MIXINGS)


@pytest.mark.parametrize("mixing", [*MIXINGS, Mixing(classes=5)])
def test_mixing_reads_nothing_back_from_the_device(mixing: Mixing) -> None:
    raw = torch.empty(5, 3, 33, 47, dtype=torch.uint8, device="meta")
    for seed in range(6):
        labels = torch.empty(5, dtype=torch.int64, device="meta")
        mixed, targets = mixing(raw, labels, seeded(seed))
        assert (mixed.device.type, mixed.shape) == ("meta", raw.shape)
        assert (targets.device.type, targets.shape) == ("meta", (5, 5))


@pytest.mark.parametrize("make", [Augmentation, Mixing])
def test_settings_are_named_and_fixed(make: Callable[..., Any]) -> None:
    with pytest.raises(TypeError):
        make(1)
    made = make(classes=3) if make is Mixing else make()
    with pytest.raises(AttributeError):
        made.anything = 1
