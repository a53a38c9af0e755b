"""Arrays as pictures within a page: data URIs."""

from __future__ import annotations

import base64
import dataclasses
import io
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SMALL = 64
"""Pixels a side up to which a picture is kept exactly, and shown in blocks."""
LARGEST = 160
"""Pixels of the longer side of what is shown; larger ones are scaled down."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture within the page; `crisp` where single pixels are meant to be seen."""

    uri: str
    width: int
    height: int
    crisp: bool


def picture(pixels: Array, *, exact: bool = False) -> Picture:
    """Encode pixels, uint8 C x H x W with 1 or 3 channels.

    PNG up to 64 pixels a side, or `exact`; larger ones, which would fill the page with megabytes,
    as JPEG of up to 160.
    """
    from PIL import Image

    channels, height, width = pixels.shape
    array = pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(array))
    crisp = exact or max(height, width) <= SMALL
    if not crisp:
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.BILINEAR, reducing_gap=None)
    written = io.BytesIO()
    if crisp:
        image.save(written, "PNG", optimize=True)
    else:
        image.save(written, "JPEG", quality=85)
    kind = "png" if crisp else "jpeg"
    data = base64.b64encode(written.getvalue()).decode()
    return Picture(
        uri=f"data:image/{kind};base64,{data}", width=image.width, height=image.height, crisp=crisp
    )


def heat(values: Array) -> Picture:
    """Encode a map that is not negative, H x W, in colours from black to light yellow.

    The brightest hundredth of it is cut, for one glaring pixel would leave all others black.
    """
    from matplotlib import colormaps

    values = np.nan_to_num(np.asarray(values, np.float64))
    top = float(np.quantile(values, 0.99)) or float(values.max()) or 1.0
    shades = colormaps["inferno"](np.clip(values / top, 0, 1))[..., :3]
    return picture((shades * 255).round().astype(np.uint8).transpose(2, 0, 1))
