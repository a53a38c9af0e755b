"""Reading pictures of every mode, size and format by the one rule, and refusing the rest."""

from __future__ import annotations

import contextlib
import io
import os
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from zoo import pictures
from zoo.api import ImageInput
from zoo.api import read_picture as read_picture_of_api
from zoo.errors import ZooError
from zoo.pictures import FORMATS, MOST_PIXELS, NO_FORMAT, read_picture
from zoo_folder.listing import NOT_READ

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


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_to_eight(suffix: str, channels: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (9, 7), dtype=np.uint16)
    values[0, :2] = 0, 65535
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(values).save(path)
    found = read_picture(path, exact(channels, values))
    close(found, np.repeat((values / 257)[None], channels, 0), levels=0.501)
    assert found[:, 0, 0].tolist() == [0] * channels
    assert found[:, 0, 1].tolist() == [255] * channels


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
@pytest.mark.parametrize("largest", [1, 200, 255, 256, 300, 5000])
def test_a_dark_picture_of_sixteen_bits_stays_dark(
    suffix: str, largest: int, tmp_path: Path
) -> None:
    """The depth is the file's; it does not depend on the brightest pixel."""
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(np.full((8, 8), largest, np.uint16)).save(path)
    assert set(read_picture(path, GREY_8).flatten().tolist()) == {round(largest * 255 / 65535)}


@pytest.mark.parametrize("kind", ["P2", "P5", "P3", "P6"])
@pytest.mark.parametrize("most", [1, 7, 255, 300, 1000, 4095, 65535])
def test_pgm_and_ppm_are_scaled_from_their_largest_value(
    kind: str, most: int, tmp_path: Path
) -> None:
    bands = 1 if kind in ("P2", "P5") else 3
    values = np.random.default_rng(most).integers(0, most + 1, (8, 8, bands))
    data = f"{kind}\n# a comment\n8 8 {most}\n".encode()
    if kind in ("P2", "P3"):
        data += " ".join(map(str, values.flatten().tolist())).encode()
    else:
        data += values.astype(">u2" if most > 255 else np.uint8).tobytes()
    path = tmp_path / "picture.pnm"
    path.write_bytes(data)
    wanted = np.broadcast_to(values * 255 / most, (8, 8, 3)).transpose(2, 0, 1)
    close(read_picture(path, COLOUR_8), wanted, levels=0.502)
    if kind in ("P5", "P6"):
        path.write_bytes(data[:-1])
        assert "truncated" in refusal(path)


def tiff(path: Path, data: bytes, **tags: Any) -> None:
    """Write an 8 x 8 TIFF of one band, its numbers as they are."""
    entries = {256: 8, 257: 8, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: len(data)}
    entries |= {int(tag.lstrip("t")): value for tag, value in tags.items()}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries))
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    path.write_bytes(head + data + struct.pack("<H", len(entries)) + directory + bytes(4))


def test_white_is_zero_in_a_tiff_of_sixteen_bits(tmp_path: Path) -> None:
    path = tmp_path / "picture.tif"
    tiff(path, struct.pack("<64H", *[200] * 64), t262=0)
    assert set(read_picture(path, GREY_8).flatten().tolist()) == {254}


def test_a_tiff_of_twelve_bits_is_scaled_from_4095(tmp_path: Path) -> None:
    path = tmp_path / "picture.tif"
    tiff(path, b"\xff\xff\xff" * 32, t258=12)
    assert set(read_picture(path, GREY_8).flatten().tolist()) == {255}
    tiff(path, b"\x80\x08\x00" * 32, t258=12)
    assert set(read_picture(path, GREY_8).flatten().tolist()) == {128}


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("f4", "tif"), ("i4", "tif"), ("f4", "pfm"), ("i4", "im"), ("f4", "im"), ("f4", "spider")],
)
@pytest.mark.parametrize("value", [0.5, 200, np.nan])
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_numbers_of_no_stated_range_are_refused(
    kind: str, suffix: str, value: float, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / f"picture.{suffix}"
    with np.errstate(invalid="ignore"):
        values = np.full((16, 16), value).astype(kind)
    Image.fromarray(values).save(path, {"spider": "SPIDER", "pfm": "PPM"}.get(suffix))
    recwarn.clear()
    assert "save it with 8 or 16 bits a channel" in refusal(path)
    assert not list(recwarn)


def test_a_grey_sgi_of_sixteen_bits_is_refused_and_one_in_colour_keeps_its_high_bytes(
    tmp_path: Path,
) -> None:
    """Pillow gives the high bytes; grey is to be rounded."""
    path = tmp_path / "picture.sgi"
    for bands in (1, 3):
        head = struct.pack(">HBBHHHH", 474, 0, 2, 2 + (bands > 1), 8, 8, bands)
        path.write_bytes(head.ljust(512, b"\0") + struct.pack(">64H", *[511] * 64) * bands)
        if bands == 1:
            assert "its 16 bits come out as 8" in refusal(path)
        else:
            assert set(read_picture(path, GREY_8).flatten().tolist()) == {1}


@pytest.mark.parametrize(("bits", "kind"), [(8, "<64b"), (16, "<64h")])
def test_signed_numbers_are_refused(bits: int, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.tif"
    tiff(path, struct.pack(kind, *[-3] * 64), t258=bits, t339=2)
    assert "signed" in refusal(path)


def png(path: Path, depth: int, colour: int, row: bytes, *key: int, last: bytes = b"") -> None:
    """Write an 8 x 8 PNG of equal rows, but for the last, with a transparent colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        sealed = kind + body
        return struct.pack(">I", len(body)) + sealed + struct.pack(">I", zlib.crc32(sealed))

    rows = (b"\0" + row) * 7 + b"\0" + (last or row)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, depth, colour, 0, 0, 0))]
    parts += [(b"tRNS", struct.pack(f">{len(key)}H", *key))] if key else []
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_grey_is_compared_at_its_own_depth(
    depth: int, channels: int, tmp_path: Path
) -> None:
    """Of 16 bits also one that has the same high byte, or the same low one, is another."""
    path = tmp_path / "picture.png"
    most = 2**depth - 1
    keys = range(most + 1) if depth < 8 else [0, 1, 90, 0x1234 & most, most]
    for key in keys:
        for other in {key ^ 1, most - key, key ^ (1 << depth - 1)} - {key}:
            bits = [f"{value:0{depth}b}" * 8 for value in (key, other)]
            rows = [int(row, 2).to_bytes(depth, "big") for row in bits]
            png(path, depth, 0, rows[0], key, last=rows[1])
            found = read_picture(path, ImageInput(channels=channels, height=8, width=8))
            assert set(found[:, :7].flatten().tolist()) == {255}, (key, other)
            assert set(found[:, 7].flatten().tolist()) == {round(other * 255 / most)}, (key, other)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_compared_at_its_own_depth(depth: int, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    most = 2**depth - 1
    key = tuple(value & most for value in (0x1234, 0x2345, 0x3456))
    for place in range(3):
        for change in (1, 1 << depth - 1):
            other = tuple(value ^ (change if i == place else 0) for i, value in enumerate(key))
            kind = ">3H" if depth == 16 else ">3B"
            rows = [struct.pack(kind, *values) * 8 for values in (key, other)]
            png(path, depth, 2, rows[0], *key, last=rows[1])
            found = read_picture(path, COLOUR_8)
            assert (found[:, :7] == 255).all()
            assert found[:, 7, 0].tolist() == [value >> depth - 8 for value in other]


def test_a_large_picture_of_sixteen_bits_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("I;16", (3000, 3000), 40000).save(path, compress_level=1)
    tracemalloc.start()
    read_picture(path, GREY_8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 3000 * 5  # two copies of 2 bytes and one of 1; floats take 16


# --- other colours --------------------------------------------------------------------------


def lab(size: tuple[int, int], colour: tuple[int, int, int]) -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    into = ImageCms.buildTransformFromOpenProfiles(*profiles, "RGB", "LAB")
    made = ImageCms.applyTransform(Image.new("RGB", size, colour), into)
    assert made is not None
    return made


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["LAB", "YCbCr", "CMYK", "PA", "La"])
def test_other_colour_spaces_go_through_rgb(mode: str, channels: int, tmp_path: Path) -> None:
    path = tmp_path / "picture.tif"
    colour = (200, 30, 60)
    if mode == "LAB":
        lab((8, 8), colour).save(path)
    elif mode == "PA":
        picture = Image.new("RGB", (8, 8), colour).quantize(2)
        picture.convert("PA").save(path)
    elif mode == "La":  # grey 45 of 255 on an alpha of 128 is 90, half seen on white
        colour = (172, 172, 172)
        Image.new("LA", (8, 8), (45, 128)).save(path)
        extra = struct.pack("<HHII", 338, 3, 1, 2)
        assert extra in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(extra, struct.pack("<HHII", 338, 3, 1, 1)))
    else:
        Image.new("RGB", (8, 8), colour).convert(mode).save(path)
    with Image.open(path) as stored:
        assert stored.mode == mode
    found = read_picture(path, ImageInput(channels=channels, height=8, width=8))[:, 0, 0]
    wanted = colour if channels == 3 else [luma(np.array(colour))]
    assert np.abs(found - np.array(wanted)).max() <= 3


def test_inks_are_inverted_where_a_jpeg_says_so(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path, quality=100)
    found = read_picture(path, COLOUR_8)[:, 0, 0].tolist()
    assert found[0] > 250 > 5 > max(found[1:])
    data = path.read_bytes()
    at = data.index(b"\xff\xee")  # Adobe's marker
    path.write_bytes(data[:at] + data[at + 16 :])
    assert refusal(path).endswith("whether its inks are inverted; save it as RGB.")


@pytest.mark.parametrize("what", ["conversion", "resizing"])
def test_what_a_conversion_raises_names_the_picture(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(path)

    def fail(*args: Any, **options: Any) -> Any:
        raise ValueError("conversion from A to B not supported")

    owner, name = (Image.Image, "convert") if what == "conversion" else (ImageOps, "fit")
    monkeypatch.setattr(owner, name, fail)
    said = f"'{path}' is no readable picture: conversion from A to B not supported."
    assert refusal(path) == said


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


@pytest.mark.parametrize(
    ("magic", "kind", "turned"), [(42, 3, True), (43, 3, False), (42, 11, False), (42, 5, False)]
)
def test_a_rotation_is_a_whole_number_of_a_sound_block(
    magic: int, kind: int, turned: bool, tmp_path: Path
) -> None:
    """What else Pillow makes of a damaged block, no other reader does."""
    number = struct.pack(">f", 6.0) if kind == 11 else b"\0\6\0\0"
    entry = struct.pack(">HHI", 0x0112, kind, 1) + number
    exif = b"Exif\0\0MM" + struct.pack(">HIH", magic, 8, 1) + entry + bytes(4)
    path = tmp_path / "picture.webp"
    Image.fromarray(RGB).save(path, lossless=True, exif=exif)
    upright = np.rot90(RGB, -1) if turned else RGB
    found = read_picture(path, exact(3, upright))
    assert np.array_equal(found, upright.transpose(2, 0, 1))


def test_the_rotation_is_that_of_exif_alone(tmp_path: Path) -> None:
    """Pillow takes it from XMP too, which neither the rule names nor any other reader does."""
    path = tmp_path / "picture.png"
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    Image.fromarray(RGB).save(path, pnginfo=info)
    assert np.array_equal(read_picture(path, exact(3, RGB)), RGB.transpose(2, 0, 1))


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
    assert refusal(path) == f"'{path}' is no readable picture: {NO_FORMAT}."


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


def test_decoders_write_nothing_to_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Libtiff does, of what is damaged, and Pillow's log where nobody listens."""
    path = tmp_path / "picture.tif"
    bits = Image.fromarray(noise(60, 60)).convert("1")
    for mode, how in (("L", "tiff_adobe_deflate"), ("L", "tiff_lzw"), ("1", "group4")):
        bits.convert(mode).save(path, compression=how)
        whole = path.read_bytes()
        for place in range(300, len(whole) - 200, 40):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
            with contextlib.suppress(ZooError):
                read_picture(path, GREY_8)
    assert capfd.readouterr().err == ""


# --- formats that are not read ---------------------------------------------------------------


def test_nothing_starts_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the file is called, and where it is within another."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("gs", "gswin32c", "gswin64c"):
        (tools / name).write_text(f"#!/bin/sh\necho started >> {tmp_path}/log\n")
        (tools / name).chmod(0o755)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    inside = b"\x1c\x03\x3c\0\2\0\1" + b"\x1c\x03\x78\0\1\5" + b"\x1c\x08\x0a\0\0" + eps
    program = """if True:
        import sys
        from pathlib import Path
        from zoo.api import ImageInput, ZooError, read_picture
        for name in sys.argv[1:]:
            try:
                read_picture(Path(name), ImageInput(channels=1, height=8, width=8))
            except ZooError as error:
                print(error)
    """
    names = []
    for name, data in (("picture.jpg", eps), ("picture.eps", eps), ("picture.png", inside)):
        (tmp_path / name).write_bytes(data)
        names.append(str(tmp_path / name))
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", program, *names], env=env, capture_output=True, text=True
    )
    said = [f"'{name}' is no readable picture: {NO_FORMAT}." for name in names]
    assert done.stdout.splitlines() == said
    assert done.stderr == ""
    assert not (tmp_path / "log").exists()


def test_every_format_of_pillow_is_read_or_left_out_on_purpose() -> None:
    Image.init()
    assert set(FORMATS) | NOT_READ >= set(Image.OPEN) - {"FPX", "MIC"}
    assert not set(FORMATS) & NOT_READ


# --- what is no file, or too large ------------------------------------------------------------


def test_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "picture.png")
    for path in (tmp_path / "picture.png", Path("/dev/zero")):
        said = "it is a pipe or a device, not a file"
        assert refusal(path) == f"'{path}' is no readable picture: {said}."


def test_a_file_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(RGB).save(path)
    os.truncate(path, 2**30 + 1)  # takes no room: it has a hole
    assert refusal(path).endswith("it is larger than 1,073,741,824 bytes.")


def bomb(path: Path, width: int, height: int) -> None:
    """Write a PNG, a GIF or a BMP that says so of itself and holds next to nothing."""
    Image.new("L", (10, 10)).save(path)
    data = bytearray(path.read_bytes())
    kind, at = {".png": (">II", 16), ".gif": ("<HH", 6), ".bmp": ("<ii", 18)}[path.suffix]
    data[at : at + struct.calcsize(kind)] = struct.pack(kind, width, height)
    if path.suffix == ".png":
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
@pytest.mark.parametrize("side", [9460, 20000])
def test_a_picture_of_too_many_pixels(suffix: str, side: int, tmp_path: Path) -> None:
    path = tmp_path / f"bomb.{suffix}"
    bomb(path, side, side)
    tracemalloc.start()
    message = refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert message == (
        f"'{path}' is no readable picture: it has {side * side:,} pixels, and 89,478,485 are read"
        f" at most (of a baseline JPEG four times as many); make it smaller, or set"
        f" ZOO_MAX_PIXELS={side * side}."
    )


def test_the_limit_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    Image.new("L", (10, 10), 7).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # an error of Pillow's, where it holds
    for limit in ("100", "1000"):
        monkeypatch.setenv("ZOO_MAX_PIXELS", limit)
        assert set(read_picture(path, GREY_8).flatten().tolist()) == {7}
    monkeypatch.setenv("ZOO_MAX_PIXELS", "99")
    assert "it has 100 pixels, and 99 are read at most" in refusal(path)
    for wrong in ("0", "-5", "many", "1e9", "9" * 30):
        monkeypatch.setenv("ZOO_MAX_PIXELS", wrong)
        said = f"ZOO_MAX_PIXELS is '{wrong}'; it takes a whole number from 1, as in"
        assert refusal(path) == f"{said} ZOO_MAX_PIXELS=200000000."


def test_a_picture_within_another_is_within_the_limit_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.ico"
    Image.new("L", (40, 40)).save(path, sizes=[(40, 40)])
    read_picture(path, GREY_8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # a mere warning of Pillow's
    assert "1,600 pixels" in refusal(path)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a JPEG of 120 x 80 where a picture is large from 5,000 pixels."""
    monkeypatch.setattr(pictures, "MOST_PIXELS", 5_000)

    def write(**options: Any) -> Path:
        path = tmp_path / "picture.jpg"
        Image.fromarray(smooth(80, 120)).save(path, quality=95, **options)
        return path

    return write


def test_a_large_jpeg_is_read_at_half_its_size(large: Callable[..., Path]) -> None:
    path = large()
    found = read_picture(path, ImageInput(channels=3, height=40, width=60))
    with Image.open(path) as whole:
        whole.draft("RGB", (60, 40))
        assert np.array_equal(found, np.asarray(whole).transpose(2, 0, 1))
    means = smooth(80, 120).reshape(40, 2, 60, 2, 3).mean((1, 3))
    close(found, means.transpose(2, 0, 1), levels=6)


def test_a_jpeg_that_is_not_large_is_read_whole(large: Callable[..., Path]) -> None:
    path = large()
    with Image.open(path) as whole:
        wanted = np.asarray(whole).transpose(2, 0, 1)
    pictures.MOST_PIXELS = 9_600
    found = read_picture(path, ImageInput(channels=3, height=80, width=120))
    assert np.array_equal(found, wanted)


def test_a_large_jpeg_is_turned_after_it_was_halved(large: Callable[..., Path]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = large(exif=exif)
    found = read_picture(path, ImageInput(channels=3, height=60, width=40))
    plain = read_picture(large(), ImageInput(channels=3, height=40, width=60))
    assert np.array_equal(found, np.rot90(plain, -1, (1, 2)))


def test_a_jpeg_too_large_even_for_its_half_is_refused(large: Callable[..., Path]) -> None:
    path = large()
    pictures.MOST_PIXELS = 2_300  # a half has 2,400
    assert "it has 9,600 pixels, and 2,300 are read at most" in refusal(path)


def test_a_progressive_jpeg_is_held_whole_and_counts_so(
    large: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = large(progressive=True)
    assert "it has 9,600 pixels, and 5,000 are read at most" in refusal(path)
    monkeypatch.setenv("ZOO_MAX_PIXELS", "9600")
    found = read_picture(path, ImageInput(channels=3, height=40, width=60))
    close(found, smooth(80, 120)[::2, ::2].transpose(2, 0, 1).astype(np.float64), levels=6)


def test_a_photograph_of_a_telephone_is_read(tmp_path: Path) -> None:
    """108 megapixels, a baseline JPEG: by the limits as they are."""
    assert MOST_PIXELS == 89_478_485
    path = tmp_path / "picture.jpg"
    Image.new("L", (12000, 9000), 128).save(path)
    assert set(read_picture(path, GREY_8).flatten().tolist()) == {128}


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
