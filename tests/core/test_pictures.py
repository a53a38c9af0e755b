"""Reading pictures of every mode, size and format by the one rule, and refusing the rest."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from zoo.api import ImageInput
from zoo.api import read_picture as read_picture_of_api
from zoo.errors import ZooError
from zoo.pictures import read_picture

Array = np.ndarray[Any, Any]
GREY_8 = ImageInput(channels=1, height=8, width=8)
COLOUR_8 = ImageInput(channels=3, height=8, width=8)


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int, width: int) -> Array:
    """A colour ramp, which lossy formats keep nearly unchanged."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [rows / max(height - 1, 1), columns / max(width - 1, 1), (rows + columns) / 99]
    return (np.stack(channels, 2).clip(0, 1) * 200 + 20).astype(np.uint8)


def exact(channels: int, pixels: Array) -> ImageInput:
    """The input of a picture's own size: nothing is cut or resized."""
    return ImageInput(channels=channels, height=pixels.shape[0], width=pixels.shape[1])


def luma(pixels: Array) -> Array:
    return pixels[..., :3].astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def bilinear(size: int, start: float, stop: float, out: int) -> Array:
    """The out x size matrix of an antialiased triangle filter over the part start..stop."""
    scale = (stop - start) / out
    support = max(scale, 1.0)
    matrix = np.zeros((out, size))
    for row in range(out):
        centre = start + (row + 0.5) * scale
        for column in range(size):
            matrix[row, column] = max(0.0, 1 - abs((column + 0.5 - centre) / support))
    return matrix / matrix.sum(1, keepdims=True)


def oracle(pixels: Array, height: int, width: int) -> Array:
    """The rule's cut and resizing of H x W, written a second time, on floats."""
    tall, wide = pixels.shape
    part = min(wide / width, tall / height)  # pixels of the picture for one of the input
    top, left = (tall - part * height) / 2, (wide - part * width) / 2
    rows = bilinear(tall, top, tall - top, height)
    columns = bilinear(wide, left, wide - left, width)
    return rows @ pixels.astype(np.float64) @ columns.T


def close(found: Array, expected: Array, levels: float = 1.01) -> None:
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    # Pillow rounds after the rows, again after the columns, and after luma.
    assert np.abs(found.astype(np.float64) - expected).max(initial=0) <= levels


# --- size -----------------------------------------------------------------------------------

SIZES = st.integers(1, 40)


@given(size=st.tuples(SIZES, SIZES), target=st.tuples(SIZES, SIZES), seed=st.integers(0, 99))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_size_is_cut_in_the_centre_and_resized(
    size: tuple[int, int], target: tuple[int, int], seed: int, tmp_path: Path
) -> None:
    pixels = noise(*size, seed=seed)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    input = ImageInput(channels=1, height=target[0], width=target[1])
    close(read_picture(path, input)[0], oracle(pixels, *target))


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 5000), (600, 600), (8, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_extreme_sizes(size: tuple[int, int], channels: int, tmp_path: Path) -> None:
    pixels = noise(*size, 3)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    found = read_picture(path, ImageInput(channels=channels, height=9, width=7))
    planes = [luma(pixels)] if channels == 1 else [pixels[..., c] for c in range(3)]
    close(found, np.stack([oracle(plane, 9, 7) for plane in planes]), levels=1.6)
    assert found.flags.c_contiguous


def test_the_cut_keeps_the_aspect_and_the_centre(tmp_path: Path) -> None:
    wide = np.zeros((20, 100), dtype=np.uint8)
    wide[:, 40:60] = 255
    for name, pixels in (("wide", wide), ("tall", wide.T)):
        path = tmp_path / f"{name}.png"
        Image.fromarray(pixels).save(path)
        assert (read_picture(path, GREY_8) > 200).all()


def test_a_disc_stays_round(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:60, 0:200]
    disc = ((rows - 29.5) ** 2 + (columns - 99.5) ** 2 < 20**2).astype(np.uint8) * 255
    path = tmp_path / "disc.png"
    Image.fromarray(disc).save(path)
    found = read_picture(path, ImageInput(channels=1, height=30, width=30))[0]
    assert abs(int((found > 127).any(0).sum()) - int((found > 127).any(1).sum())) <= 1


# --- modes ----------------------------------------------------------------------------------

RGB = noise(9, 7, 3)
ALPHA = noise(9, 7, seed=1)


def on_white(pixels: Array, alpha: Array) -> Array:
    share = alpha[..., None] / 255
    return pixels * share + 255 * (1 - share)


def grey_as_colour(pixels: Array) -> Array:
    return np.repeat(pixels[..., None], 3, 2)


def from_mode(mode: str) -> tuple[Image.Image, Array]:
    """Return a picture of a mode and its colours, 0..255, on white where it is transparent."""
    grey = RGB[..., 0]
    if mode == "1":
        bits = (grey > 127).astype(np.uint8) * 255
        return Image.fromarray(bits).convert("1"), grey_as_colour(bits)
    if mode == "L":
        return Image.fromarray(grey), grey_as_colour(grey)
    if mode == "LA":
        both = np.stack([grey, ALPHA], 2)
        return Image.fromarray(both, mode=None), on_white(grey_as_colour(grey), ALPHA)
    if mode == "RGB":
        return Image.fromarray(RGB), RGB
    if mode == "RGBA":
        return Image.fromarray(np.dstack([RGB, ALPHA])), on_white(RGB, ALPHA)
    if mode == "CMYK":
        inks = noise(9, 7, 4, seed=3)
        inks[..., 3] = 0
        return Image.fromarray(inks, mode="CMYK"), 255 - inks[..., :3].astype(np.int64)
    palette = noise(16, 3, seed=2)
    indices = noise(9, 7, seed=4) % 16
    picture = Image.fromarray(indices).copy()
    picture.putpalette(palette.tobytes())
    return picture, palette[indices]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes(mode: str, channels: int, tmp_path: Path) -> None:
    picture, colours = from_mode(mode)
    assert picture.mode == mode
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    picture.save(path)
    with Image.open(path) as stored:
        assert stored.mode == mode
    found = read_picture(path, exact(channels, colours))
    expected = luma(colours)[None] if channels == 1 else np.moveaxis(colours, 2, 0)
    close(found, expected, levels=1.51)


@pytest.mark.parametrize("suffix", ["png", "gif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_palette_with_a_transparent_colour(suffix: str, channels: int, tmp_path: Path) -> None:
    picture, colours = from_mode("P")
    indices = np.asarray(picture)
    path = tmp_path / f"picture.{suffix}"
    picture.save(path, transparency=5)
    colours = np.where((indices == 5)[..., None], 255, colours)
    assert (indices == 5).any()
    found = read_picture(path, exact(channels, colours))
    expected = luma(colours)[None] if channels == 1 else np.moveaxis(colours, 2, 0)
    close(found, expected)


def test_a_palette_with_degrees_of_transparency(tmp_path: Path) -> None:
    picture, colours = from_mode("P")
    degrees = noise(16, seed=8)
    path = tmp_path / "picture.png"
    picture.save(path, transparency=degrees.tobytes())
    expected = on_white(colours, degrees[np.asarray(picture)])
    close(read_picture(path, exact(3, colours)), np.moveaxis(expected, 2, 0), levels=1.51)


@pytest.mark.parametrize(("mode", "transparent"), [("L", 90), ("RGB", (10, 20, 30))])
def test_one_transparent_colour(mode: str, transparent: Any, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    picture = Image.new(mode, (4, 4), transparent)
    picture.putpixel((0, 0), 200 if mode == "L" else (200, 200, 200))
    picture.save(path, transparency=transparent)
    found = read_picture(path, ImageInput(channels=1, height=4, width=4))[0]
    assert found[0, 0] == 200
    assert (found.flatten()[1:] == 255).all()


def test_what_lies_under_full_transparency_does_not_show(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(path)
    assert (read_picture(path, COLOUR_8) == 255).all()
    assert (read_picture(path, COLOUR_8, invert=True) == 0).all()


# --- more than 8 bits -----------------------------------------------------------------------


def deep(mode: str, values: Array, path: Path) -> None:
    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    Image.fromarray(values.astype(kind)).save(path)
    with Image.open(path) as stored:
        assert stored.mode == mode


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_to_eight(mode: str, channels: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (9, 7))
    values[0, :2] = 0, 65535
    path = tmp_path / "picture.tif"
    deep(mode, values, path)
    found = read_picture(path, exact(channels, values))
    close(found, np.repeat((values * 255 / 65535)[None], channels, 0), levels=0.501)
    assert found[:, 0, 0].tolist() == [0] * channels
    assert found[:, 0, 1].tolist() == [255] * channels


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("largest", [1, 200, 255, 256, 300, 5000])
def test_a_dark_picture_of_sixteen_bits_stays_dark(
    suffix: str, largest: int, tmp_path: Path
) -> None:
    """The depth is the file's; it does not depend on the brightest pixel."""
    values = np.full((8, 8), largest)
    path = tmp_path / f"picture.{suffix}"
    deep("I;16", values, path)
    assert set(read_picture(path, GREY_8).flatten().tolist()) == {round(largest * 255 / 65535)}


def test_floats_on_the_scale_of_bytes_and_beyond_it(tmp_path: Path) -> None:
    values = np.linspace(-50, 255, 64).reshape(8, 8)
    path = tmp_path / "picture.tif"
    deep("F", values, path)
    close(read_picture(path, GREY_8)[0], values.clip(0, 255), levels=0.501)


# --- EXIF, invert, formats ------------------------------------------------------------------

TURNS: dict[int, Callable[[Array], Array]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),  # stored a quarter turn to the left of upright
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_exif_orientation(orientation: int, suffix: str, tmp_path: Path) -> None:
    upright = np.ascontiguousarray(TURNS[orientation](RGB))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"picture.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(RGB).save(path, exif=exif, **options)
    found = read_picture(path, exact(3, upright))
    assert np.array_equal(found, upright.transpose(2, 0, 1))


@pytest.mark.parametrize("exif", [b"Exif\x00\x00garbage", b"Exif\x00\x00MM\x00*\x00\x00\x00\xff"])
def test_broken_exif_does_not_hide_a_good_picture(exif: bytes, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(RGB).save(path, exif=exif)
    assert np.array_equal(read_picture(path, exact(3, RGB)), RGB.transpose(2, 0, 1))


@pytest.mark.parametrize("input", [GREY_8, COLOUR_8])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_invert_is_255_minus_each_value(input: ImageInput, mode: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    from_mode(mode)[0].save(path)
    plain, inverted = read_picture(path, input), read_picture(path, input, invert=True)
    assert inverted.dtype == np.uint8
    assert np.array_equal(inverted, 255 - plain)
    assert np.array_equal(read_picture_of_api(path, input, invert=True), inverted)


@pytest.mark.parametrize(
    ("suffix", "options", "levels"),
    [
        ("png", {}, 0),
        ("bmp", {}, 0),
        ("tif", {}, 0),
        ("tif", {"compression": "tiff_lzw"}, 0),
        ("tif", {"compression": "tiff_deflate"}, 0),
        ("webp", {"lossless": True}, 0),
        ("webp", {"quality": 100}, 6),
        ("jpg", {"quality": 100, "subsampling": 0}, 4),
        ("jpg", {"quality": 95, "progressive": True}, 12),
        ("gif", {}, 40),  # 256 colours
        ("ppm", {}, 0),
    ],
)
def test_formats(suffix: str, options: dict[str, Any], levels: int, tmp_path: Path) -> None:
    pixels = smooth(30, 24)
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(pixels).save(path, **options)
    found = read_picture(path, exact(3, pixels))
    close(found, pixels.transpose(2, 0, 1), levels=levels)


def test_the_format_is_the_contents_not_the_names(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    Image.fromarray(RGB).save(path, "PNG")
    assert np.array_equal(read_picture(path, exact(3, RGB)), RGB.transpose(2, 0, 1))


def test_a_jpeg_in_grey_and_in_cmyk(tmp_path: Path) -> None:
    pixels = smooth(24, 24)
    for mode in ("L", "CMYK"):
        path = tmp_path / f"{mode}.jpg"
        Image.fromarray(pixels).convert(mode).save(path, quality=100)
        found = read_picture(path, exact(1, pixels))
        close(found[0], luma(pixels), levels=8)


def test_of_several_frames_the_first(tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    first, second = Image.new("L", (8, 8), 10), Image.new("L", (8, 8), 250)
    first.save(path, save_all=True, append_images=[second])
    assert set(read_picture(path, GREY_8).flatten().tolist()) == {10}


def test_the_file_is_closed(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(RGB).save(path)
    read_picture(path, GREY_8)
    path.unlink()
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning)]


# --- refused --------------------------------------------------------------------------------


def refusal(path: Path, input: ImageInput = GREY_8) -> str:
    with pytest.raises(ZooError) as caught:
        read_picture(path, input)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert not message.endswith("..")
    return message


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("notes.txt", b"no picture at all"),
        ("empty.png", b""),
        ("zeros.png", bytes(1000)),
        ("page.html", b"<html><img src='x'></html>"),
        ("half.png", b"\x89PNG\r\n\x1a\n"),
    ],
)
def test_no_picture(name: str, contents: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(contents)
    assert refusal(path).startswith(f"'{path}' is no readable picture: ")


def test_a_format_that_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no picture")
    assert refusal(path) == f"'{path}' is no readable picture: it is of no known format."


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "webp"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_truncated_file(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(noise(60, 60, 3)).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert refusal(path).startswith(f"'{path}' is no readable picture: ")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.png"
    assert refusal(path) == f"There is no picture '{path}'."
    assert refusal(tmp_path) == f"'{tmp_path}' is a folder; name the pictures in it."


@pytest.mark.parametrize("limit", [10, 60])  # an error of Pillow's, and a mere warning
def test_a_decompression_bomb(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    Image.new("L", (10, 10)).save(path)
    read_picture(path, GREY_8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    message = refusal(path)
    assert message.startswith(f"'{path}' is no readable picture: ")
    assert "100 pixels" in message


@pytest.mark.parametrize("channels", [2, 4])
def test_an_input_that_no_picture_has(channels: int, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(RGB).save(path)
    message = refusal(path, ImageInput(channels=channels, height=8, width=8))
    assert message == f"Pictures have 1 or 3 channels; the input has {channels}."


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "AVIF"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about odd metadata
def test_damage_is_refused_or_read_never_a_traceback(kind: str, tmp_path: Path) -> None:
    if kind not in {name.upper() for name in Image.registered_extensions().values()}:
        pytest.skip(f"this Pillow has no {kind}")
    buffer = io.BytesIO()
    Image.fromarray(noise(12, 17, 3)).save(buffer, kind)
    whole = buffer.getvalue()
    draw = random.Random(1)
    path = tmp_path / "picture"
    for _ in range(150):
        damaged = bytearray(whole[: draw.choice([len(whole), draw.randrange(len(whole))])])
        for _ in range(draw.randint(1, 3) if damaged else 0):
            # Most of what can go wrong stands in the first bytes.
            damaged[draw.randrange(min(len(damaged), draw.choice([60, 400, 10**6])))] ^= (
                1 << draw.randrange(8)
            )
        path.write_bytes(damaged)
        with contextlib.suppress(ZooError):
            assert read_picture(path, GREY_8).shape == (1, 8, 8)
