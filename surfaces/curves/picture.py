"""The curves as one PNG: a panel an axis, points with their intervals."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prompts.errors import ConfigError
from surfaces.curves.axes import AXES
from surfaces.evaluation.plots import BACK, GRID, INK, MARKERS, MUTED, SERIES, STYLE, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 160
HEIGHT = 2.4
"""Inches of a panel."""
COLOURS = {INK: "#1a1a1a", MUTED: "#595959", GRID: "#d9d9d9", BACK: "#ffffff"}
"""By the colour that stands for it in a page's plots, what a picture has."""


def check_matplotlib() -> None:
    """Raises ConfigError where pictures cannot be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("--png needs the package matplotlib: pip install 'prismrank[evaluate]'") from error


def draw(found: Mapping[str, Any]) -> bytes:
    """What `bench.run` found, as the bytes of a PNG. Raises ConfigError without matplotlib."""
    check_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    axes_found: Mapping[str, Any] = found["axes"]
    rows = math.ceil(len(axes_found) / 2)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({key: COLOURS.get(str(value), value) for key, value in STYLE.items()})
        figure = Figure(figsize=(WIDTH, rows * HEIGHT), layout="constrained")
        grid = figure.subplots(rows, min(2, len(axes_found)), squeeze=False).ravel()
        for axes, (name, axis) in zip(grid, axes_found.items(), strict=False):
            _panel(axes, axis, AXES[name].scale)
        for axes in grid[len(axes_found) :]:
            axes.remove()
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def _panel(axes: Axes, axis: Mapping[str, Any], scale: str) -> None:
    points: Sequence[Mapping[str, Any]] = axis["points"]
    names = list(dict.fromkeys(point.get("series", "") for point in points))
    for number, name in enumerate(names):
        _series(axes, [point for point in points if point.get("series", "") == name], number, name, scale)
    ticks = {point["x"]: point["label"] for point in points}
    if scale == "log":
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(list(ticks), [_short(x) for x in ticks])
    elif scale == "names":
        axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_title(axis["title"], loc="left")
    axes.set_xlabel(axis["unit"])
    axes.set_ylabel("NDCG@10")
    axes.margins(x=0.12, y=0.15)
    axes.grid(axis="y")
    if len(names) > 1:
        axes.legend(frameon=False)


def _series(axes: Axes, points: Sequence[Mapping[str, Any]], number: int, name: str, scale: str) -> None:
    colour, marker = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
    aside = 0.12 * number if scale == "names" else 0.0
    x = [point["x"] + aside for point in points]
    ndcg = [point["ndcg@10"] for point in points]
    for at, each in zip(x, ndcg, strict=True):
        axes.plot([at, at], [each["low"], each["high"]], color=colour, linewidth=1.4, solid_capstyle="butt")
    line = "none" if scale == "names" else "-"
    values = [each["value"] for each in ndcg]
    axes.plot(x, values, marker=marker, markersize=4.5, color=colour, linestyle=line, linewidth=1.0, label=name)


def _short(x: float) -> str:
    """A number with three digits at most: 943, 1.2M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if x >= size:
            return f"{x / size:.3g}{letter}"
    return f"{x:g}"
