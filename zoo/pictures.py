"""A picture file → the input's bytes, by one written rule."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import re
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from zoo.api import ImageInput
from zoo.errors import ZooError
from zoo.untrusted import read_file

RULE = (
    "PGM, PPM and 16-bit grey scaled to 8 bits from the largest value that the format has; other"
    " 16-bit colour by its high byte; floats, signed and 32-bit numbers refused; other colour"
    " spaces converted to RGB as Pillow does; a JPEG of more than 89,478,485 pixels read at half"
    " its width and height; EXIF rotation applied; transparency on white, a single transparent"
    " colour compared at the file's own depth; grey by ITU-R BT.601 luma or RGB; the largest"
    " centred part with the input's aspect ratio; resized with Pillow's antialiased bilinear"
    " filter; with invert, 255 minus each value"
)

FORMATS = (
    "AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FLI", "FTEX", "GBR", "GIF", "ICNS", "ICO",
    "IM", "IMT", "JPEG", "JPEG2000", "MCIDAS", "MSP", "PCD", "PCX", "PIXAR", "PNG", "PPM", "PSD",
    "QOI", "SGI", "SPIDER", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM", "XVTHUMB",
)  # fmt: skip
"""What is read, whatever a file is called.

Left out of Pillow's are EPS and WMF, which other programs draw; BUFR, GRIB, HDF5 and MPEG, which it
knows by name alone; IPTC, which may hold any of these; and FITS, which may decompress without end.
"""

NO_FORMAT = "it is of no known format; save it as PNG or JPEG"
MOST_PIXELS = 89_478_485
"""Pixels of a picture that are decoded at most; a larger JPEG is decoded at half its size."""
MOST_BYTES = 2**30

ORIENTATION = 0x0112
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF


def read_picture(
    path: Path, input: ImageInput, *, invert: bool = False
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read a picture file of any size and mode as uint8 C x H x W, by `RULE`.

    `invert` is for dark strokes on a light ground where the data set has light on dark.
    Raises `ZooError` where the file is no readable picture.
    """
    from PIL import Image, UnidentifiedImageError

    if input.channels not in (1, 3):
        raise ZooError(f"Pictures have 1 or 3 channels; the input has {input.channels}.")
    most = _most_pixels()
    _quieten()
    try:
        with warnings.catch_warnings():
            # A picture too large to be one is an error; a damaged EXIF block is nobody's concern.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            pixels = _fit(_decode(read_file(path, MOST_BYTES), most), input)
    except FileNotFoundError:
        raise ZooError(f"There is no picture '{path}'.") from None
    except IsADirectoryError:
        raise ZooError(f"'{path}' is a folder; name the pictures in it.") from None
    except UnidentifiedImageError:
        raise ZooError(f"'{path}' is no readable picture: {NO_FORMAT}.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        count = re.search("([0-9]+) pixels", str(error))
        reason = _too_large(int(count[1]) if count else most + 1, most)
        raise ZooError(f"'{path}' is no readable picture: {reason}.") from None
    except Exception as error:  # decoders of damaged files raise whatever they like
        told = getattr(error, "strerror", None) or error
        reason = " ".join(str(told).split()).rstrip(".") or type(error).__name__
        raise ZooError(f"'{path}' is no readable picture: {reason}.") from None
    return np.ascontiguousarray(255 - pixels if invert else pixels)


@functools.cache
def _quieten() -> None:
    """Keep stderr clean of what is told in one line: Pillow has a log, and libtiff writes there."""
    from PIL import _imaging

    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with contextlib.suppress(OSError, AttributeError):  # where libtiff is within Pillow itself
        library = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


def _most_pixels() -> int:
    """Return how many pixels of a picture are decoded at most, as the environment has it."""
    from PIL import Image

    text = os.environ.get("ZOO_MAX_PIXELS")
    if not text:
        return MOST_PIXELS
    if not re.fullmatch("[1-9][0-9]{0,17}", text):
        raise ZooError(
            f"ZOO_MAX_PIXELS is '{text}'; it takes a whole number from 1, as in"
            " ZOO_MAX_PIXELS=200000000."
        )
    # Pillow's own limit is the process's, and would be in the way.
    if Image.MAX_IMAGE_PIXELS is not None and int(text) > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = int(text)
    return int(text)


def _too_large(count: int, most: int) -> str:
    """Say that a picture is too large, and what helps."""
    return (
        f"it has {count:,} pixels, and {most:,} are read at most (of a baseline JPEG four times as"
        f" many); make it smaller, or set ZOO_MAX_PIXELS={count}"
    )


def _fit(picture: Any, input: ImageInput) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Turn an upright picture of mode L or RGB into C x H x W."""
    from PIL import Image, ImageOps

    flat = picture.convert("L" if input.channels == 1 else "RGB")
    size = (input.width, input.height)
    fitted = ImageOps.fit(flat, size, method=Image.Resampling.BILINEAR, centering=(0.5, 0.5))
    pixels = np.asarray(fitted, dtype=np.uint8)
    return pixels[None] if input.channels == 1 else pixels.transpose(2, 0, 1)


def _decode(data: bytes, most: int) -> Any:
    """Decode a file of at most `most` pixels: upright, without transparency, of mode L or RGB."""
    from PIL import Image
    from PIL.JpegImagePlugin import JpegImageFile

    jpeg = data.startswith(b"\xff\xd8\xff")
    # Not by `Image.open`, which would refuse a large JPEG before it can be halved.
    with JpegImageFile(BytesIO(data)) if jpeg else _open_picture(data, FORMATS) as picture:
        count = decoded = picture.width * picture.height
        if jpeg and count > MOST_PIXELS:
            picture.draft(None, (picture.width // 2, picture.height // 2))
            decoded = count if _held_whole(picture, data) else count // 4
        if decoded > most:
            raise ValueError(_too_large(count, most))
        flat = _netpbm(picture, data)
        if flat is None:
            picture.load()
            flat = _flatten(picture, data)
        turn = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_270,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90,
        }.get(_orientation(picture))
        return flat if turn is None else flat.transpose(turn)


def _held_whole(picture: Any, data: bytes) -> bool:
    """Say whether the decoder must hold a whole JPEG: one that is told in several scans."""
    scan = data.rfind(b"\xff\xda", 0, picture.fp.tell())
    return "progressive" in picture.info or data[scan + 4] < picture.layers


def _open_picture(data: bytes, formats: tuple[str, ...]) -> Any:
    """Open a file that is of one of the formats, as far as this Pillow has them."""
    from PIL import Image

    Image.init()
    return Image.open(BytesIO(data), formats=[name for name in formats if name in Image.OPEN])


def _orientation(picture: Any) -> Any:
    """Return the rotation, 1 to 8, that EXIF states; where it cannot be read there is none."""
    from PIL import Image

    try:
        if picture.format == "TIFF":
            turn = picture.tag_v2.get(ORIENTATION)  # gone where Pillow has applied it
        else:
            block = picture.info.get("exif") or b""
            if not re.match(rb"(Exif\0\0)?(II\*\0|MM\0\*)", block):
                return None
            exif = Image.Exif()
            exif.load(block)
            turn = exif.get(ORIENTATION)
    except Exception:
        return None
    return turn if isinstance(turn, int) else None  # 6.0 is no number of a rotation


def _flatten(picture: Any, data: bytes) -> Any:
    """Return a decoded picture without transparency, of mode L or RGB."""
    from PIL import Image

    if picture.format == "TIFF" and set(picture.tag_v2.get(SAMPLE_FORMAT, (1,))) != {1}:
        raise ValueError("its numbers are signed or floats; save it with 8 or 16 bits a channel")
    if picture.format == "SGI" and picture.mode == "L" and data[3] == 2:
        raise ValueError("its 16 bits come out as 8 that are not rounded; save it as PNG")
    if picture.format == "JPEG" and picture.mode == "CMYK" and "adobe" not in picture.info:
        raise ValueError("it does not say whether its inks are inverted; save it as RGB")
    clear = _clear_pixels(picture, data)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        flat = Image.fromarray(_scaled(np.asarray(picture), *_range_of(picture)))
    elif clear is not None:
        flat = picture.convert("RGB") if picture.mode == "RGB" else picture.convert("L")
    elif picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        above = picture.convert("LA") if picture.mode == "La" else picture
        ground = Image.new("RGBA", picture.size, "white")
        flat = Image.alpha_composite(ground, above.convert("RGBA")).convert("RGB")
    else:
        flat = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
    if clear is not None:
        flat.paste("white", mask=Image.fromarray(clear))
    return flat


def _range_of(picture: Any) -> tuple[int, bool]:
    """Return the largest value of a deep grey picture, and whether it is black."""
    bits = picture.tag_v2.get(BITS, (1,))[0] if picture.format == "TIFF" else 16
    # "I" is a PNG's before Pillow 11, and a PGM's; elsewhere nothing says of what range it is.
    deep = ("ICNS", "ICO", "IM", "JPEG2000", "PNG", "TIFF")
    stated = ("PNG", "PPM", "TIFF") if picture.mode == "I" else deep
    if picture.mode != "F" and picture.format in stated and bits <= 16:
        inverted = picture.format == "TIFF" and picture.tag_v2.get(PHOTOMETRIC) == 0
        return 2**bits - 1, inverted
    raise ValueError(
        "it does not say which of its values is white; save it with 8 or 16 bits a channel"
    )


def _scaled(
    values: np.ndarray[Any, Any], most: int, inverted: bool = False
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Scale whole numbers, 0 to `most`, to bytes."""
    levels = np.rint(np.arange(most + 1) * 255 / most).astype(np.uint8)
    levels = levels[::-1] if inverted else levels
    out = np.empty(values.shape, np.uint8)
    for row in range(len(values)):  # a whole picture's indices would be eight times its size
        np.take(levels, values[row], mode="clip", out=out[row])
    return out


def _clear_pixels(picture: Any, data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    """Return 255 where a PNG has its one transparent colour, else 0; None where it has none.

    Pillow compares what it has scaled, or the low bytes, of the one and of the other.
    """
    if picture.format != "PNG" or picture.mode not in ("1", "L", "I", "I;16", "RGB"):
        return None
    key = picture.info.pop("transparency", None)
    if key is None:
        return None
    depth = data[data.index(b"IHDR") + 12]
    values = np.asarray(picture)
    if picture.mode == "1":
        return np.where(values == bool(key & 1), 255, 0).astype(np.uint8)
    if picture.mode != "RGB":
        level = key % 2**depth
        level = level * 255 // (2**depth - 1) if depth < 8 else level  # as Pillow scaled it
        return np.where(values == level, 255, 0).astype(np.uint8)
    same = (values == [level >> 8 if depth == 16 else level & 255 for level in key]).all(2)
    if depth == 16:
        low = np.asarray(_low_bytes(data))
        same &= (low == [level & 255 for level in key]).all(2)
    return np.where(same, 255, 0).astype(np.uint8)


def _low_bytes(data: bytes) -> Any:
    """Decode the low bytes of a PNG of 3 x 16 bits, of which Pillow gives the high ones."""
    picture = _open_picture(data, ("PNG",))
    tile = picture.tile[0]
    picture.tile = [(*tile[:3], "RGB;16L")]  # as if they stood in the other order
    picture.load()
    return picture


def _netpbm(picture: Any, data: bytes) -> Any:
    """Decode a binary PGM or PPM of an odd largest value; None for any other picture.

    Pillow takes seconds for each million of its pixels.
    """
    from PIL import Image

    if picture.format != "PPM" or picture.tile[0][0] != "ppm":
        return None
    _, _, offset, (_, most) = picture.tile[0]
    shape = (picture.height, picture.width) + ((3,) if picture.mode == "RGB" else ())
    kind = np.dtype(np.uint8 if most < 256 else ">u2")
    count = int(np.prod(shape))
    if len(data) - offset < count * kind.itemsize:
        raise ValueError("image file is truncated")
    values = np.frombuffer(data, kind, count, offset).reshape(shape)
    return Image.fromarray(_scaled(values, most))
