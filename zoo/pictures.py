"""A picture file → the input's bytes, by one written rule."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from zoo.api import ImageInput
from zoo.errors import ZooError

RULE = (
    "EXIF rotation applied; transparency on white; 16-bit scaled to 8; grey by ITU-R BT.601 luma"
    " or RGB; the largest centred part with the input's aspect ratio; resized with Pillow's"
    " antialiased bilinear filter; with invert, 255 minus each value"
)


def read_picture(
    path: Path, input: ImageInput, *, invert: bool = False
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read a picture file of any size and mode as uint8 C x H x W, by `RULE`.

    `invert` is for dark strokes on a light ground where the data set has light on dark.
    Raises `ZooError` where the file is no readable picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if input.channels not in (1, 3):
        raise ZooError(f"Pictures have 1 or 3 channels; the input has {input.channels}.")
    try:
        with warnings.catch_warnings():
            # A picture too large to be one is an error; a damaged EXIF block is nobody's concern.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                opened.load()
                picture = _upright(opened)
    except FileNotFoundError:
        raise ZooError(f"There is no picture '{path}'.") from None
    except IsADirectoryError:
        raise ZooError(f"'{path}' is a folder; name the pictures in it.") from None
    except UnidentifiedImageError:
        raise ZooError(f"'{path}' is no readable picture: it is of no known format.") from None
    except Exception as error:  # decoders of damaged files raise whatever they like
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ZooError(f"'{path}' is no readable picture: {reason}.") from None
    flat = _flatten(picture).convert("L" if input.channels == 1 else "RGB")
    size = (input.width, input.height)
    fitted = ImageOps.fit(flat, size, method=Image.Resampling.BILINEAR, centering=(0.5, 0.5))
    pixels = np.asarray(fitted, dtype=np.uint8)
    pixels = pixels[None] if input.channels == 1 else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(255 - pixels if invert else pixels)


def _upright(picture: Any) -> Any:
    """Apply the EXIF rotation; a picture whose EXIF block cannot be read has none."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture.copy()


def _flatten(picture: Any) -> Any:
    """Return a picture without transparency, 8 bits a channel."""
    from PIL import Image

    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        # Pillow's own conversion clips 16-bit grey at 255 instead of scaling it.
        values = np.asarray(picture, dtype=np.float64)
        # "I" and "F" do not say how deep they are; their values do.
        deep = picture.mode.startswith("I;") or values.max(initial=0) > 255
        scale = 255 / 65535 if deep else 1.0
        return Image.fromarray(np.clip(values * scale, 0, 255).round().astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        above = picture.convert("RGBA")
        ground = Image.new("RGBA", above.size, "white")
        return Image.alpha_composite(ground, above).convert("RGB")
    return picture
