"""The charts of a report as SVG that takes its colours and its font from the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.report.statistics import Calibration
from zoo.showing import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray[Any, Any]

# Colours that stand for variables of the page's style, so that a chart is legible in its dark too.
INK, SOFT, LINE, FIRST, SECOND = (f"#00000{number}" for number in range(1, 6))
VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", FIRST: "first", SECOND: "second"}  # fmt: skip
TEN = ("#4477d6", "#e0742b", "#2f9e5b", "#d1495b", "#8a63d2", "#a0703c", "#d864ae", "#7c8794",
       "#a3a021", "#1d9fb3")  # fmt: skip
"""Colours of up to ten classes; middling ones, seen on white and on black."""
NAMED = 20
"""Classes up to which each has its name on the map."""
SIZE = (3.9, 2.5)

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.parse_math": False,  # a class may be called $x$
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "path.simplify": True,
}


class Chart:
    """One drawing: `with drawing("name") as chart: chart.axes.plot(…)`, then `chart.svg`."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.svg = ""


@contextmanager
def drawing(name: str, size: tuple[float, float] = SIZE, *, bare: bool = False) -> Iterator[Chart]:
    """Yield axes to draw on, without a title; `name` keeps the ids of charts on a page apart.

    `bare` leaves no room for numbers and words beside the axes.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that matplotlib's font lacks: it is not used
        figure = Figure(figsize=size)
        width, height = size  # margins in inches: to measure the words would take twice the time
        left, bottom = (0.05, 0.05) if bare else (0.62, 0.5)
        area = (
            left / width,
            bottom / height,
            1 - (left + 0.12) / width,
            1 - (bottom + 0.1) / height,
        )
        chart = Chart(figure.add_axes(area))
        yield chart
        written = io.BytesIO()
        silent = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(written, format="svg", transparent=True, metadata=silent)
        chart.svg = _embedded(written.getvalue().decode(), name)


def _embedded(svg: str, name: str) -> str:
    """Make a file's SVG a part of a page: its ids its own, its colours and font the page's."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r' id="([^"]*)"', rf' id="{name}-\1"', svg)
    svg = re.sub(r'xlink:href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return re.sub(r"\n\s*", "\n", svg).strip()


def curves(name: str, epochs: Sequence[int], lines: Mapping[str, Sequence[float | None]]) -> str:
    """Draw up to two figures by epoch, the first solid, the second dashed."""
    with drawing(name) as chart:
        axes = chart.axes
        strokes = ((FIRST, "-"), (SECOND, (0, (4, 1.5))))
        for (label, values), (colour, dash) in zip(lines.items(), strokes, strict=False):
            given = [np.nan if value is None else value for value in values]
            dots = "o" if len(epochs) <= 30 else None
            axes.plot(epochs, given, color=colour, linestyle=dash, marker=dots, markersize=3,
                      label=label)  # fmt: skip
        _whole_epochs(axes)
        axes.set_xlabel("epoch")
        if len(lines) > 1:
            axes.legend()
    return chart.svg


def _whole_epochs(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def reliability(found: Calibration) -> str:
    """Draw the accuracy of each bin of confidence beside what was claimed."""
    with drawing("reliability", (3.9, 3.1)) as chart:
        axes = chart.axes
        edges = np.linspace(0, 1, len(found.counts) + 1)[:-1]
        width = 1 / len(found.counts)
        heights = [0.0 if value is None else value for value in found.accuracy]
        axes.bar(edges, heights, width * 0.92, align="edge", color=FIRST, alpha=0.85)
        axes.plot([0, 1], [0, 1], color=SECOND, linestyle=(0, (4, 1.5)))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("probability of the predicted class")
        axes.set_ylabel("share that is right")
    return chart.svg


def scatter(points: Array, labels: Array | None, names: Sequence[str]) -> str:
    """Draw a map, N x 2; up to twenty classes are named where most of their examples lie."""
    with drawing("map", (6.4, 5.2), bare=True) as chart:
        axes = chart.axes
        colours = class_colours(len(names))
        tints = SOFT if labels is None else [colours[label] for label in labels]
        size = min(26, max(7, 5000 / len(points)))
        axes.scatter(points[:, 0], points[:, 1], s=size, c=tints, linewidths=0, alpha=0.8)
        axes.grid(False)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        for label, name in enumerate(names if labels is not None and len(names) <= NAMED else ()):
            own = points[labels == label]
            if len(own):
                x, y = np.median(own, axis=0)
                axes.text(x, y, shortened(name), color=INK, weight="bold", ha="center", va="center")
    return chart.svg


def class_colours(count: int) -> list[str]:
    """Return a colour for each class; beyond ten they go round the wheel, neighbours apart."""
    from matplotlib.colors import hsv_to_rgb, to_hex

    if count <= len(TEN):
        return list(TEN[:count])
    shades = [((i * 0.618034) % 1, 0.62, 0.78 if i % 2 else 0.9) for i in range(count)]
    return [to_hex(tuple(hsv_to_rgb(shade))) for shade in shades]


def shortened(name: str, most: int = 18) -> str:
    """Return a name on one line, cut where it is long."""
    line = shown(" ".join(name.split()))
    return line if len(line) <= most else line[: most - 1] + "…"
