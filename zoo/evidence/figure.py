"""Accuracy over the number of labels, one line a method: a picture for a page, light or printed."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

from zoo.evidence.rows import Row

# Okabe and Ito's colours, told apart with every kind of colour blindness; black is for scratch.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINE = "#000000"
MARKERS = "oDs^vP"
NEARLY = 0.95
ODDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
"""Ticks of an axis of odds."""
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.8,
    "svg.hashsalt": "zoo",  # the same bytes from the same figures
    "svg.fonttype": "none",
}


def draw(
    rows: Sequence[Row], title: str, caption: str, baseline: str | None, further: str = ""
) -> dict[str, bytes]:
    """Draw the rows of a bench; returns the bytes of `figure.svg` and `figure.png`.

    A method whose name ends in `further` has the colour of the one without, and a line of its own.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = textwrap.wrap(caption, 126)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 4.6 + 0.16 * len(lines)), dpi=160)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.1, 0.1, 0.87, 0.8))
        room = 0.16 * len(lines) + 0.72  # inches below the axes
        height = figure.get_figheight()
        axes.set_position((0.1, room / height, 0.87, 1 - (room + 0.45) / height))
        _lines(axes, rows, baseline, further)
        figure.text(0.1, 1 - 0.2 / height, title, fontsize=12, fontweight="bold", va="center")
        for number, line in enumerate(lines):
            at = (room - 0.62 - 0.16 * number) / height
            figure.text(0.02, at, line, fontsize=7.5, color="#555555", va="top")
        made = {}
        for kind in ("svg", "png"):
            data = io.BytesIO()
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            figure.savefig(data, format=kind, metadata=metadata)
            made[f"figure.{kind}"] = data.getvalue()
    return made


def _lines(axes: Any, rows: Sequence[Row], baseline: str | None, further: str) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    names = list(dict.fromkeys(row.method for row in rows))
    plain = [name.removesuffix(further) for name in names]
    coloured = [name for name in dict.fromkeys(plain) if name != baseline]
    for number, name in enumerate(names):
        own = [row for row in rows if row.method == name]
        index = coloured.index(plain[number]) if plain[number] in coloured else None
        colour = BASELINE if index is None else COLOURS[index % len(COLOURS)]
        went_on = name != plain[number]
        # Beside each other, so that no bar of a method hides that of another.
        shift = 1.045 ** (number - (len(names) - 1) / 2)
        axes.errorbar(
            [row.examples * shift for row in own],
            [row.accuracy.mean for row in own],
            yerr=[row.accuracy.deviation or 0.0 for row in own],
            label=name,
            color=colour,
            marker="o" if index is None else MARKERS[index % len(MARKERS)],
            markerfacecolor="white" if went_on else colour,
            linestyle=":" if went_on else "--" if index is None else "-",
            linewidth=1.6,
            markersize=5.5,
            elinewidth=1.1,
            capsize=2.5,
        )
    axes.set_xscale("log")
    ticks = {row.examples: "all" if row.labels is None else f"{row.examples:,}" for row in rows}
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([ticks[count] for count in sorted(ticks)])
    if len(ticks) == 1:
        only = next(iter(ticks))
        axes.set_xlim(only / 2, only * 2)
    _accuracies(axes, rows)
    axes.set_xlabel("examples that carry a label")
    axes.set_ylabel("test accuracy, %: mean ± standard deviation")
    axes.legend(frameon=False, loc="lower right")


def _accuracies(axes: Any, rows: Sequence[Row]) -> None:
    """Scale the axis of accuracies: by the log of their odds where some are near 100 %.

    There 99.4 and 98 % lie further apart than 64 and 63 %, as the number of mistakes does.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    means = [row.accuracy.mean for row in rows]
    if NEARLY < max(means) < 1 and min(means) > 0:
        low, high = axes.get_ylim()
        axes.set_yscale("logit", nonpositive="clip")
        axes.yaxis.set_major_locator(FixedLocator(ODDS))
        axes.yaxis.set_minor_locator(NullLocator())
        farthest = 1 - (1 - max(means)) / 1.5
        axes.set_ylim(max(low, min(means) / 2), min(max(high, farthest), farthest))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
