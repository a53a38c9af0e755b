"""Pictures of every format, mode and depth, with what the picture rule makes of each.

What a file shows is known from the numbers it was made of, not from a decoder: the rule is read
here a second time, on floats.
"""

from __future__ import annotations

import dataclasses
import io
import random
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageCms

Array = np.ndarray[Any, Any]

WIDE, TALL = 33, 26
EXACT, LOSSY = 2.0, 14.0
"""Levels of 255 that a reading may be off: every one of four steps rounds; or the format loses."""
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]  # fmt: skip # noqa: E501


@dataclasses.dataclass(frozen=True)
class Case:
    """A file, and what it shows: H x W x 3 on white, upright, 0 to 255.

    `shows` is None where it is to be refused, or was damaged (`damaged`).
    """

    name: str
    format: str
    data: bytes
    shows: Array | None = None
    off: float = EXACT
    damaged: bool = False


# --- the rule, once more ---------------------------------------------------------------------


def by_rule(shows: Array, channels: int, height: int, width: int) -> Array:
    """Return the input's values as floats, C x H x W."""
    planes = shows.transpose(2, 0, 1)
    if channels == 1:
        planes = (shows @ np.array([0.299, 0.587, 0.114]))[None]
    tall, wide = shows.shape[:2]
    part = min(wide / width, tall / height)
    top, left = (tall - part * height) / 2, (wide - part * width) / 2
    rows = _bilinear(tall, top, tall - top, height)
    columns = _bilinear(wide, left, wide - left, width)
    return np.stack([rows @ plane @ columns.T for plane in planes])


def _bilinear(size: int, start: float, stop: float, out: int) -> Array:
    scale = (stop - start) / out
    centres = start + (np.arange(out)[:, None] + 0.5) * scale
    places = np.arange(size)[None] + 0.5
    weights = np.clip(1 - np.abs(places - centres) / max(scale, 1.0), 0, None)
    return weights / weights.sum(1, keepdims=True)


def on_white(colours: Array, alpha: Array) -> Array:
    """Composite 0 to 255."""
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


def thrice(grey: Array) -> Array:
    return np.repeat(np.asarray(grey, dtype=np.float64)[..., None], 3, 2)


# --- pictures of every mode -------------------------------------------------------------------


def ramp(height: int = TALL, width: int = WIDE) -> Array:
    """Soft colours, which formats that lose keep nearly as they are; H x W x 3 of 0 to 255."""
    rows, columns = np.mgrid[0:height, 0:width]
    parts = [rows / height, columns / width, (rows + columns) / (height + width)]
    return (np.stack(parts, 2) * 215 + 20).astype(np.uint8)


def mode_of(mode: str, height: int = TALL, width: int = WIDE) -> tuple[Image.Image, Array]:
    """Return a picture of a mode, and what it shows."""
    colours = ramp(height, width)
    grey, alpha = colours[..., 0], colours[::-1, :, 1].copy()
    deep = grey.astype(np.uint16) * 256 + 77
    if mode == "1":
        bits = (colours.sum(2) // 40 % 2).astype(np.uint8) * 255
        return Image.fromarray(bits).convert("1"), thrice(bits)
    if mode in ("I", "I;16", "I;16B"):
        kind = {"I": np.int32, "I;16": "<u2", "I;16B": ">u2"}[mode]
        return Image.fromarray(deep.astype(kind)), thrice(np.rint(deep / 257))
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32)), thrice(grey)
    if mode == "L":
        return Image.fromarray(grey), thrice(grey)
    if mode == "LA":
        return Image.fromarray(np.dstack([grey, alpha])), on_white(thrice(grey), alpha)
    if mode in ("P", "PA"):
        palette = np.random.default_rng(0).integers(0, 256, (16, 3), dtype=np.uint8)
        indices = (grey // 14 % 16).astype(np.uint8)
        picture = Image.fromarray(indices).copy()
        picture.putpalette(palette.tobytes())
        return picture.convert(mode), palette[indices].astype(np.float64)
    picture = Image.fromarray(colours)
    shows = colours.astype(np.float64)
    if mode == "RGBA":
        picture.putalpha(Image.fromarray(alpha))
        return picture, on_white(shows, alpha)
    if mode == "CMYK":
        inks = np.dstack([255 - colours, colours[::-1, ::-1, 0] // 3])
        shows = (255.0 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
        return Image.fromarray(inks, mode="CMYK"), shows
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        into = ImageCms.buildTransformFromOpenProfiles(*profiles, "RGB", "LAB")
        return ImageCms.applyTransform(picture, into), shows  # type: ignore[return-value]
    return picture.convert(mode), shows


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "I;16B", "F"]  # fmt: skip # noqa: E501
NO_PICTURES = {"EPS", "PDF", "PALM", "WMF", "BUFR", "GRIB", "HDF5", "SPIDER"}
"""What Pillow writes and zoo reads not: other programs', Palm's, and SPIDER, which is of floats."""
LOSES = {"JPEG", "WEBP", "AVIF", "MPO", "ICNS"}
NO_ALPHA = {"PPM", "PCX", "BMP", "DIB"}
"""What Pillow writes without it, or where the format has it for something else."""
CLIPS = {"AVIF", "GIF", "WEBP"}
"""Of 8 bits: Pillow writes of deeper numbers what is above 255 as 255."""


def from_pillow() -> Iterator[Case]:
    """Save every mode in every format, as far as Pillow does."""
    Image.init()
    for kind in sorted(Image.SAVE):
        for mode in MODES:
            picture, shows = mode_of(mode, 32, 32) if kind == "ICNS" else mode_of(mode)
            options: dict[str, Any] = {"sizes": [picture.size]} if kind == "ICO" else {}
            buffer = io.BytesIO()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # of formats
                    picture.save(buffer, kind, **options)
            except Exception:
                continue  # Pillow writes no such file
            name = f"{kind}-{mode.replace(';', '')}"
            off = LOSSY if kind in LOSES else EXACT
            if kind in CLIPS and (mode == "F" or mode.startswith("I")):
                clipped = ramp()[..., 0] if mode == "F" else np.full((TALL, WIDE), 255)
                yield Case(name, kind, buffer.getvalue(), thrice(clipped), off)
                continue
            if kind in NO_PICTURES or mode == "F" or (mode == "I" and kind in ("TIFF", "IM")):
                yield Case(name, kind, buffer.getvalue())
                continue
            if mode == "RGBA" and kind in NO_ALPHA:
                shows = ramp().astype(np.float64)
            if mode in ("YCbCr", "LAB", "HSV"):
                off = max(off, 10.0)  # of eight bits in another space
            if kind == "GIF" and mode not in ("1", "L", "P", "PA"):
                # 256 colours of thousands; which of them are clear, Pillow decides.
                off = 255.0 if mode in ("LA", "RGBA") else 26.0
            if kind in ("AVIF", "WEBP") and mode in ("P", "PA"):
                off = 60.0  # random colours beside each other, of which each four share one
            if (kind, mode) == ("JPEG2000", "I;16B"):  # written with its bytes the wrong way round
                deep = ramp()[..., 0].astype(np.uint16) * 256 + 77
                shows = thrice(np.rint(deep.byteswap() / 257))
            yield Case(name, kind, buffer.getvalue(), shows, off)


VARIANTS: list[tuple[str, str, dict[str, Any], float]] = [
    *(("TIFF", "RGB", {"compression": c}, EXACT)
      for c in ("tiff_lzw", "tiff_adobe_deflate", "packbits")),
    *(("TIFF", "1", {"compression": c}, EXACT) for c in ("group3", "group4", "tiff_ccitt")),
    ("TIFF", "RGB", {"compression": "jpeg", "quality": 95}, LOSSY),
    ("TIFF", "RGB", {"big_tiff": True}, EXACT),
    ("TIFF", "I;16", {"compression": "tiff_lzw"}, EXACT),
    ("TIFF", "I;16", {"compression": "tiff_adobe_deflate"}, EXACT),
    *(("WEBP", m, {"lossless": True, "exact": True}, EXACT) for m in ("L", "RGB", "RGBA", "P")),
    *(("WEBP", "RGB", {"quality": q}, LOSSY) for q in (60, 100)),
    *(("AVIF", m, {"quality": 95}, LOSSY) for m in ("L", "RGB", "RGBA")),
    *(("AVIF", "RGB", {"quality": 95, "subsampling": s}, LOSSY) for s in ("4:4:4", "4:2:2")),
    *(("JPEG", m, {"quality": 95, "progressive": True}, LOSSY) for m in ("L", "RGB", "CMYK")),
    *(("JPEG", "RGB", {"quality": 95, "subsampling": s}, LOSSY) for s in (0, 1, 2)),
    *(("JPEG2000", m, {"irreversible": True}, LOSSY) for m in ("L", "RGB")),
    *(("JPEG2000", m, {"no_jp2": True}, EXACT) for m in ("L", "LA", "RGB", "RGBA", "I;16")),
    ("PNG", "RGBA", {"compress_level": 0}, EXACT),
    ("TGA", "RGB", {"compression": "tga_rle"}, EXACT),
    ("GIF", "L", {"interlace": 1}, EXACT),
    *(("SGI", mode, {"bpc": 2}, EXACT) for mode in ("L", "RGB")),
]  # fmt: skip


def variants() -> Iterator[Case]:
    """Save with the options that change what is in a file; rotated; with a clear colour."""
    for number, (kind, mode, options, off) in enumerate(VARIANTS):
        picture, shows = mode_of(mode)
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        name = f"{kind}-{mode.replace(';', '')}-{number}"
        # Of its 16 bits Pillow gives 8, and grey is to be rounded.
        refused = (kind, mode) == ("SGI", "L")
        yield Case(name, kind, buffer.getvalue(), None if refused else shows, off)
    colours = ramp()
    turned = [
        colours, colours[:, ::-1], colours[::-1, ::-1], colours[::-1], colours.transpose(1, 0, 2),
        np.rot90(colours, -1), colours[::-1, ::-1].transpose(1, 0, 2), np.rot90(colours),
    ]  # fmt: skip
    for turn, upright in enumerate(turned, start=1):
        exif = Image.Exif()
        exif[0x0112] = turn
        for kind, options, off in (
            ("PNG", {}, EXACT),
            ("JPEG", {"quality": 95}, LOSSY),
            ("WEBP", {"lossless": True}, EXACT),
            ("TIFF", {}, EXACT),
            ("AVIF", {"quality": 95}, LOSSY),
        ):
            buffer = io.BytesIO()
            Image.fromarray(colours).save(buffer, kind, exif=exif, **options)
            shows = upright.astype(np.float64)
            yield Case(f"{kind}-turned{turn}", kind, buffer.getvalue(), shows, off)
    picture, shows = mode_of("P")
    indices = np.asarray(picture)
    for kind in ("PNG", "GIF"):
        buffer = io.BytesIO()
        picture.save(buffer, kind, transparency=5)
        clear = np.where((indices == 5)[..., None], 255.0, shows)
        yield Case(f"{kind}-P-clear", kind, buffer.getvalue(), clear)
    yield Case("GIF-small-frame", "GIF", *small_frame())
    degrees = np.random.default_rng(1).integers(0, 256, 16, dtype=np.uint8)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=degrees.tobytes())
    yield Case("PNG-P-degrees", "PNG", buffer.getvalue(), on_white(shows, degrees[indices]))


def small_frame() -> tuple[bytes, Array]:
    """Return a GIF whose only frame covers a part of its canvas: the rest is of the background."""
    palette = np.array([[200, 30, 60], [90, 90, 90]], np.uint8)
    indices = np.ones((8, 10), np.uint8)
    indices[0, 0] = 0
    picture = Image.fromarray(indices).copy()
    picture.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "GIF", interlace=0, optimize=False)
    data = bytearray(buffer.getvalue())
    data[6:10] = struct.pack("<HH", 20, 16)
    at = 13 + 3 * 2 ** (1 + (data[10] & 7))
    assert data[at] == 0x2C
    data[at + 1 : at + 5] = struct.pack("<HH", 4, 3)
    whole = np.zeros((16, 20), int)
    whole[3:11, 4:14] = indices
    return bytes(data), palette[whole].astype(np.float64)


# --- what Pillow does not write ---------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(values: Array, depth: int, colour: int, *, interlaced: bool, before: bytes = b"") -> bytes:
    """Write H x W x samples of `depth` bits."""
    raw = b""
    for x, y, dx, dy in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        part = values[y::dy, x::dx]
        if part.size:
            bits = np.unpackbits(part.astype(">u2")[..., None].view(np.uint8), axis=-1)
            rows = np.packbits(bits[..., -depth:].reshape(len(part), -1), axis=1)
            raw += b"".join(b"\0" + row.tobytes() for row in rows)
    height, width = values.shape[:2]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    body = chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + before + body


DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def pngs() -> Iterator[Case]:
    """Write every colour type and depth, interlaced or not, with and without a clear colour."""
    rng = np.random.default_rng(2)
    for colour, depths in DEPTHS.items():
        for depth in depths:
            for interlaced in (False, True):
                for clear in (False, True) if colour in (0, 2, 3) else (False,):
                    yield _png(rng, colour, depth, interlaced=interlaced, clear=clear)


def _png(rng: Any, colour: int, depth: int, *, interlaced: bool, clear: bool) -> Case:
    most = 2**depth - 1
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    values = rng.integers(0, most + 1, (19, 23, samples))
    key = values[3, 4].copy()
    values[::2, ::3] = key
    if depth == 16 and clear:  # what differs in one byte alone is another colour
        values[1::4, ::3] = key ^ 1
        values[3::4, ::3] = key ^ 256
    eight = np.rint(values / 257) if colour == 0 and depth == 16 else values >> max(depth - 8, 0)
    eight = np.rint(values * 255 / most) if colour == 0 and depth < 8 else eight
    before = b""
    if colour == 3:
        palette = rng.integers(0, 256, (most + 1, 3), dtype=np.uint8)
        degrees = rng.integers(0, 256, most + 1, dtype=np.uint8)
        before = chunk(b"PLTE", palette.tobytes())
        shows = palette[values[..., 0]].astype(np.float64)
        if clear:
            before += chunk(b"tRNS", degrees.tobytes())
            shows = on_white(shows, degrees[values[..., 0]])
    else:
        shows = eight[..., :3] if samples > 2 else thrice(eight[..., 0])
        if samples in (2, 4):
            shows = on_white(shows, eight[..., -1])
        elif clear:
            before = chunk(b"tRNS", key.astype(">u2").tobytes())
            shows = np.where((values == key).all(2)[..., None], 255.0, shows)
    data = png(values, depth, colour, interlaced=interlaced, before=before)
    name = f"PNG-colour{colour}-{depth}bit{'-interlaced' * interlaced}{'-clear' * clear}"
    return Case(name, "PNG", data, shows.astype(np.float64))


def netpbm() -> Iterator[Case]:
    """Write every kind of PBM, PGM and PPM, of seven largest values."""
    rng = np.random.default_rng(3)
    for kind in ("P2", "P3", "P5", "P6"):
        for most in (1, 7, 255, 300, 1000, 4095, 65535):
            bands = 1 if kind in ("P2", "P5") else 3
            values = rng.integers(0, most + 1, (19, 23, bands))
            data = f"{kind}\n# made here\n23 19 {most}\n".encode()
            if kind in ("P2", "P3"):
                data += " ".join(map(str, values.flatten().tolist())).encode()
            else:
                data += values.astype(">u2" if most > 255 else np.uint8).tobytes()
            shows = np.broadcast_to(values * 255 / most, (19, 23, 3))
            yield Case(f"PPM-{kind}-{most}", "PPM", data, shows)
    bits = rng.integers(0, 2, (19, 23))
    shows = thrice(255 - bits * 255)
    packed = np.packbits(bits.astype(np.uint8), axis=1).tobytes()
    yield Case("PPM-P4", "PPM", b"P4 23 19\n" + packed, shows)
    plain = " ".join(map(str, bits.flatten().tolist())).encode()
    yield Case("PPM-P1", "PPM", b"P1 23 19\n" + plain, shows)


def tiff(data: bytes, **tags: Any) -> bytes:
    """Write a TIFF of one strip, 16 x 16, little end first; tags are given as `t258=16`."""
    entries = {256: 16, 257: 16, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: 16, 279: len(data)}
    entries |= {int(tag[1:]): value for tag, value in tags.items()}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries))
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    return head + data + struct.pack("<H", len(entries)) + directory + bytes(4)


def tiffs() -> Iterator[Case]:
    """Write the numbers that a TIFF may hold: of 12 and 16 bits, white at zero, signed, floats."""
    rng = np.random.default_rng(4)
    deep = rng.integers(0, 65536, (16, 16))
    shows = thrice(np.rint(deep / 257))
    yield Case("TIFF-16bit-white0", "TIFF", tiff(deep.astype("<u2").tobytes(), t262=0), 255 - shows)
    bits = np.unpackbits((deep >> 4).astype(">u2")[..., None].view(np.uint8), axis=-1)[..., -12:]
    packed = np.packbits(bits.reshape(16, -1), axis=1).tobytes()
    yield Case("TIFF-12bit", "TIFF", tiff(packed, t258=12), thrice((deep >> 4) * 255 / 4095))
    eight = (deep >> 8).astype(np.uint8)
    yield Case(
        "TIFF-8bit-white0", "TIFF", tiff(eight.tobytes(), t258=8, t262=0), thrice(255 - eight)
    )
    yield Case("TIFF-8bit-signed", "TIFF", tiff(eight.tobytes(), t258=8, t339=2))
    yield Case("TIFF-16bit-signed", "TIFF", tiff(deep.astype("<u2").tobytes(), t339=2))
    yield Case("TIFF-32bit", "TIFF", tiff(deep.astype("<u4").tobytes(), t258=32))
    for name, value in (("half", 0.5), ("nan", np.nan)):
        floats = np.full((16, 16), value, "<f4")
        yield Case(f"TIFF-float-{name}", "TIFF", tiff(floats.tobytes(), t258=32, t339=3))


def others() -> Iterator[Case]:
    """Write what is to be refused, or to be read as if something were not there."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    yield Case("EPS-as-jpg", "EPS", eps)
    yield Case("SVG", "SVG", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    yield Case("text", "", b"no picture at all")
    yield Case("empty", "", b"")
    buffer = io.BytesIO()
    mode_of("CMYK")[0].save(buffer, "JPEG", quality=95)
    data = buffer.getvalue()
    at = data.index(b"\xff\xee")
    yield Case("JPEG-CMYK-unsaid", "JPEG", data[:at] + data[at + 16 :])
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    colours = ramp()
    data = png(colours, 8, 2, interlaced=False, before=chunk(b"iTXt", xmp))
    yield Case("PNG-turned-by-XMP", "PNG", data, colours.astype(np.float64))
    huge = {"PNG": (">II", 16), "GIF": ("<HH", 6), "BMP": ("<ii", 18)}
    for kind, (form, at) in huge.items():
        buffer = io.BytesIO()
        Image.new("L", (10, 10)).save(buffer, kind)
        sides = (30_000, 30_000)
        bomb = bytearray(buffer.getvalue())
        bomb[at : at + struct.calcsize(form)] = struct.pack(form, *sides)
        if kind == "PNG":
            bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
        yield Case(f"{kind}-huge", kind, bytes(bomb))
    buffer = io.BytesIO()
    Image.new("L", (12_000, 9_000), 77).save(buffer, "JPEG")
    data = buffer.getvalue()
    yield Case("JPEG-telephone", "JPEG", data, np.full((9, 12, 3), 77.0))
    at = data.index(b"\xff\xc0")
    sides = struct.pack(">HH", 60_000, 60_000)
    yield Case("JPEG-huge", "JPEG", data[: at + 5] + sides + data[at + 9 :])
    # Eight rows are what is wanted of a hundred million bytes.
    grey = np.full((8, 8, 1), 9)
    data = png(grey, 8, 0, interlaced=False)
    rows = chunk(b"IDAT", zlib.compress((b"\0" + b"\x09" * 8) * 8 + bytes(10**8), 9))
    data = data[: data.index(b"IDAT") - 4] + rows + chunk(b"IEND", b"")
    yield Case("PNG-more-than-it-says", "PNG", data, thrice(grey[..., 0]))


def whole() -> list[Case]:
    """Return all but the damaged."""
    cases = [*from_pillow(), *variants(), *pngs(), *netpbm(), *tiffs(), *others()]
    assert len({case.name for case in cases}) == len(cases)
    return cases


def damaged(cases: list[Case], count: int, seed: int = 0) -> list[Case]:
    """Cut or change so many of the cases, by turns of their formats."""
    draw = random.Random(seed)
    formats = sorted({case.format for case in cases if case.shows is not None})
    found = []
    for number in range(count):
        kind = formats[number % len(formats)]
        case = draw.choice([c for c in cases if c.format == kind and c.shows is not None])
        data = bytearray(case.data)
        if number % 2:
            del data[draw.randrange(len(data) // 4, len(data)) :]
        else:
            for _ in range(draw.randint(1, 3)):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        name = f"damaged-{number}-{case.name}"
        found.append(Case(name, kind, bytes(data), None, case.off, damaged=True))
    return found
