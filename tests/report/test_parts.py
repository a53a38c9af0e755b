"""Samples, maps, pictures and charts: each by itself."""

from __future__ import annotations

import base64
import io
import itertools
import re
from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.api import ImageInput, Preprocessing
from zoo.models import Preprocess
from zoo.report import charts, curves, pictures
from zoo.report.embedding import embed
from zoo.report.generation import draw_codes, to_bytes


def test_codes_are_drawn_with_the_mean_and_covariance_of_given_ones() -> None:
    torch.manual_seed(0)
    mixing = torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 0.3], [0.0, 0.0, 0.1]])
    codes = torch.randn(500, 3) @ mixing + torch.tensor([5.0, -2.0, 0.0])
    drawn = draw_codes(codes, 40_000)
    torch.testing.assert_close(drawn.mean(0), codes.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), codes.T.cov(), atol=0.12, rtol=0.05)
    assert torch.equal(draw_codes(codes, 7), draw_codes(codes, 7))
    few = draw_codes(codes[:1], 3)  # one code has no spread
    torch.testing.assert_close(few, codes[:1].expand(3, 3))


def test_bytes_come_back_from_what_the_encoder_takes() -> None:
    size = ImageInput(channels=3, height=4, width=5)
    wanted = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    preprocess = Preprocess(size, size, wanted)
    raw = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    assert torch.equal(to_bytes(preprocess, preprocess(raw)), raw)
    wild = torch.tensor([float("nan"), 1e9, -1e9]).view(1, 3, 1, 1).expand(1, 3, 4, 5)
    assert set(to_bytes(preprocess, wild).unique().tolist()) <= {0, 255}


def test_a_map_keeps_groups_together_and_is_the_same_each_time() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = random.normal(size=(60, 10)) + 30 * np.eye(3, 10)[labels]
    found = embed(features)
    assert np.array_equal(found.points, embed(features).points)
    assert found.method.startswith("t-SNE")
    apart = np.linalg.norm(found.points[:, None] - found.points[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (labels[apart.argmin(1)] == labels).all()


@pytest.mark.parametrize(
    ("features", "method"),
    [
        (np.random.default_rng(0).normal(size=(5, 3)), "PCA"),
        (np.random.default_rng(0).normal(size=(40, 1)), "t-SNE"),
        (np.random.default_rng(0).normal(size=(2, 1)), "PCA"),
        (np.ones((30, 4)), "all features are equal"),
        (np.ones((1, 4)), "all features are equal"),
        (np.where(np.eye(30) > 0, np.nan, np.eye(30, k=1)), "t-SNE"),
    ],
)
def test_few_and_degenerate_features_have_a_map_too(features: np.ndarray, method: str) -> None:
    found = embed(features)
    assert found.points.shape == (len(features), 2)
    assert np.isfinite(found.points).all()
    assert found.method.startswith(method)


def decoded(picture: pictures.Picture) -> Image.Image:
    kind, _, data = picture.uri.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 48), (1, 64, 1)])
def test_small_pictures_are_kept_exactly(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    picture = pictures.picture(pixels)
    array = np.asarray(decoded(picture))
    assert np.array_equal(array[None] if shape[0] == 1 else array.transpose(2, 0, 1), pixels)
    assert picture.crisp


def test_large_pictures_are_scaled_down() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 300, 600), dtype=np.uint8)
    picture = pictures.picture(pixels)
    assert decoded(picture).size == (picture.width, picture.height) == (160, 80)
    assert not picture.crisp
    assert len(picture.uri) < 20_000


def test_a_map_of_nothing_is_black_and_the_largest_value_is_brightest() -> None:
    assert not np.asarray(decoded(pictures.heat(np.zeros((5, 5))))).max() > 10
    values = np.zeros((4, 4))
    values[1, 2] = 3.0
    shown = np.asarray(decoded(pictures.heat(values))).astype(int).sum(2)
    assert shown.argmax() == 6


def line(epoch: int, **train: float) -> dict[str, object]:
    return {"epoch": epoch, "lr": 0.1 / epoch, "seconds": 1.0, "train": train, "validation": None}


def test_every_part_of_the_loss_has_a_curve_and_the_rate_has_one() -> None:
    metrics = [line(1, kl=3.0, total=2.0), line(2, kl=1.0, total=1.5)]
    metrics[1]["validation"] = {"total": 1.75}
    found = curves.charts_of(metrics, "x-")
    assert [chart.title for chart in found] == ["Loss", "Kl", "Learning rate"]
    assert found[0].alt == "Loss over 2 epochs: train from 2 to 1.5; validation 1.75."
    ids = [name for chart in found for name in re.findall(r' id="([^"]*)"', chart.svg)]
    assert len(ids) == len(set(ids))
    assert curves.charts_of([]) == []
    assert curves.charts_of([{"epoch": "1"}]) == []


def test_one_epoch_is_told_in_words_and_drawn_as_no_curve() -> None:
    metrics = [line(1, total=2.0, kl=3.0)]
    metrics[0]["validation"] = {"total": 1.75}
    assert curves.charts_of(metrics) == []
    said = "One epoch: loss 2 in training, kl 3 in training, loss 1.75 in validation."
    assert curves.sentence_of(metrics) == said
    for others in ([], [*metrics, line(2, total=1.0)], [{"epoch": "1"}], [line(1)]):
        assert curves.sentence_of(others) == ""


def test_charts_take_their_colours_from_the_page_and_name_nothing_outside() -> None:
    svg = charts.curves("loss", [1, 2], {"train": [1.0, None], "validation": [2.0, 1.0]})
    assert "var(--first)" in svg
    assert "http" not in svg
    assert not re.search(r"#0000\d\d", svg)
    assert "font-family" not in svg
    used = set(re.findall(r'href="#([^"]*)"', svg)) | set(re.findall(r"url\(#([^)]*)\)", svg))
    assert used
    assert used <= set(re.findall(r' id="([^"]*)"', svg))


def test_names_on_the_map_are_text_whatever_they_say() -> None:
    names = ["<script>", "$x^$", "a\nb", "字", "w" * 300]
    points, labels = np.random.default_rng(0).normal(size=(50, 2)), np.arange(50) % 5
    svg = charts.scatter(points, labels, names)
    assert "<script>" not in svg
    assert "&lt;script&gt;" in svg
    assert ">$x^$<" in svg
    assert "w" * 17 + "…" in svg
    assert "w" * 18 not in svg


@pytest.mark.parametrize("count", [1, 10, 11, 120])
def test_every_class_has_a_colour_of_its_own(count: int) -> None:
    assert len(set(charts.class_colours(count))) == count


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours by WCAG 2.2, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_and_lines_stand_out_from_their_ground(scheme: int) -> None:
    css = (resources.files("zoo.report") / "page" / "page.css").read_text(encoding="utf-8")
    block = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)[scheme]
    colours = dict(re.findall(r"--(\w+): (#\w{6});", block))
    for ground in ("paper", "card"):
        for word in ("ink", "soft", "good", "bad", "second"):
            assert contrast(colours[word], colours[ground]) >= 4.5, (word, ground)
        assert contrast(colours["first"], colours[ground]) >= 3
    for tint, ground in itertools.product(charts.TEN, ("card",)):
        assert contrast(tint, colours[ground]) >= 2.4, tint
