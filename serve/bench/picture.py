"""The curve as one PNG: rates, times, degraded slates, and batches against the offered load."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from prompts.errors import ConfigError
from surfaces.curves.picture import COLOURS, DPI, HEIGHT
from surfaces.evaluation.plots import MARKERS, SERIES, STYLE, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Panel(NamedTuple):
    """Figures that share a scale, with their names."""

    unit: str
    figures: Mapping[str, str]
    logarithmic: bool = False


PANELS = (
    Panel("rankings a second", {"offered_per_s": "offered", "replies_per_s": "replies", "goodput_per_s": "goodput"}),
    Panel("milliseconds", {"p50_ms": "p50", "p90_ms": "p90", "p99_ms": "p99"}, logarithmic=True),
    Panel(
        "share of slates that are degraded",
        {"degraded_deadline": "deadline", "degraded_capacity": "capacity", "degraded_engine": "engine"},
    ),
    Panel("rankings in a batch", {"batch_trees": "mean"}),
)


def check(names: Sequence[str]) -> None:
    """Raises ConfigError where there would be no curve to draw, or nothing to draw it with."""
    if "curve" not in names:
        raise ConfigError("--plot draws the scenario 'curve': add it to --only")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("--plot needs the package matplotlib: pip install 'prismrank[evaluate]'") from error


def draw(rows: Sequence[Mapping[str, float | None]]) -> bytes:
    """The rows of a curve, as the bytes of a PNG; where a figure is None, its line has a gap."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({key: COLOURS.get(str(value), value) for key, value in STYLE.items()})
        figure = Figure(figsize=(WIDTH, 2 * HEIGHT), layout="constrained")
        for axes, panel in zip(figure.subplots(2, 2, squeeze=False).ravel(), PANELS, strict=True):
            _draw(axes, panel, rows)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def _draw(axes: Axes, panel: Panel, rows: Sequence[Mapping[str, float | None]]) -> None:
    loads = [row["load"] or math.nan for row in rows]
    for number, (figure, name) in enumerate(panel.figures.items()):
        values = [math.nan if (value := row[figure]) is None else value for row in rows]
        axes.plot(loads, values, marker=MARKERS[number], markersize=4, color=SERIES[number], linewidth=1.0, label=name)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(loads, [f"{load:g}" for load in loads])
    if panel.logarithmic and any(row[figure] for row in rows for figure in panel.figures):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("offered, in multiples of the capacity")
    axes.set_ylabel(panel.unit)
    axes.grid(axis="y")
    axes.legend(frameon=False)
