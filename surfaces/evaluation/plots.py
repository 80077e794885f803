"""The plots of an evaluation's page, as SVG to be set into HTML: no outer files, no scripts, the same bytes every time.

Colours are names of the page's style with a fallback, so that they follow light and dark; text is real text in the
page's own font. Every name that comes from outside is drawn letter by letter, never as a formula.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from prompts.errors import ConfigError
from surfaces.evaluation.bootstrap import Interval
from surfaces.evaluation.calibration import Bin, Calibration

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox
    from matplotlib.typing import RcKeyType

WIDTH = 6.4
"""Inches of a plot; a page shows it as wide as it has room."""
LONGEST = 24
"""Letters of a name in a plot; the tables have all of them."""
FLOOR = 1e-4
"""A logarithmic scale of probabilities goes no lower: nobody decides by less."""
FASTEST_MS = 1e-3
"""A logarithmic scale of time goes no lower."""
Z = 1.96

INK, MUTED, GRID, BACK, MODEL = "#010101", "#020202", "#030303", "#040404", "#0072b2"
SERIES = (MODEL, "#d55e00", "#009e73", "#a6518a", "#8a6d00", "#5b6770")
"""After Okabe and Ito, "Color Universal Design" (2008), darkened where they would be pale on white."""
MARKERS = ("o", "s", "^", "D", "v", "P")
COLOURS = {
    INK: "currentColor",
    MUTED: "var(--muted, #595959)",
    GRID: "var(--grid, #d9d9d9)",
    BACK: "var(--back, #ffffff)",
    **{colour: f"var(--s{number}, {colour})" for number, colour in enumerate(SERIES, 1)},
}
"""By the colour that stands for it while drawing, what the page is given."""
STYLE: Mapping[RcKeyType, object] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
}


class Panel(NamedTuple):
    """One small plot among several: figures by method; a `faint` one says too little to be coloured."""

    title: str
    figures: Mapping[str, Interval]
    faint: bool


def check_matplotlib() -> None:
    """Raises ConfigError where plots cannot be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("--html needs the package matplotlib: pip install 'prismrank[evaluate]'") from error


def by_method(figures: Mapping[str, Interval], models: Collection[str]) -> str:
    """Dots with whiskers, the highest first. Raises ConfigError without matplotlib, as every plot does."""
    names = sorted(figures, key=lambda name: figures[name].value)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, name in enumerate(names):
            _dot(axes, figures[name], place, MODEL if name in models else INK, "s" if name in models else "o")
        _names(axes, names)
        axes.set_xlabel("NDCG@10, with 95% interval")
        axes.grid(axis="x")

    return _drawn("methods", "NDCG@10 by method", (WIDTH, 0.7 + 0.26 * len(names)), draw)


def by_cost(figures: Mapping[str, Interval], ms: Mapping[str, float], models: Collection[str]) -> str:
    """Milliseconds a ranking against NDCG@10; a stepped line joins those that nothing cheaper equals."""
    at = {name: (max(ms[name], FASTEST_MS), figures[name].value) for name in figures if name in ms}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        _milliseconds(axes, [x for x, _ in at.values()])
        axes.step(*zip(*frontier(at.values()), strict=True), where="post", color=MUTED, linewidth=0.8, zorder=1)
        for name, (x, y) in at.items():
            colour, marker = (MODEL, "s") if name in models else (INK, "o")
            axes.plot([x], [y], marker, color=colour, markersize=5, zorder=4)
        axes.margins(y=0.15)
        axes.set_ylabel("NDCG@10")
        axes.grid()
        _label_points(figure, axes, at)

    return _drawn("costs", "NDCG@10 against milliseconds a ranking", (WIDTH, 3.6), draw)


def by_segment(panels: Sequence[Panel]) -> str:
    """A panel a segment, all on one scale; a method has its colour and its marker in all of them."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.figures))[::-1]
    rows = math.ceil(len(panels) / 2)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            for name, found in panel.figures.items():
                number = (len(names) - 1 - names.index(name)) % len(SERIES)
                _dot(axes, found, names.index(name), MUTED if panel.faint else SERIES[number], MARKERS[number])
            axes.set_title(_short(panel.title, 44), loc="left", color=MUTED if panel.faint else INK)
            axes.grid(axis="x")
        _names(grid[0], names)
        for axes in grid[len(panels) :]:
            axes.remove()
        for axes in grid[max(len(panels) - 2, 0) : len(panels)]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("NDCG@10")

    return _drawn("segments", "NDCG@10 by segment", (WIDTH, rows * (0.45 + 0.2 * len(names)) + 0.4), draw)


def by_depth(sources: Mapping[str, Mapping[int, Interval]], bold: str) -> str:
    """A line with its band a source, over how many of its first candidates are taken; one of them is bold."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        for number, (name, found) in enumerate(sources.items()):
            depths, values = list(found), list(found.values())
            colour = INK if name == bold else SERIES[number % len(SERIES)]
            marker = MARKERS[number % len(MARKERS)]
            axes.plot(
                depths, [value.value for value in values], marker=marker, markersize=4, color=colour,
                linewidth=2.6 if name == bold else 1.2, linestyle="-" if number < len(SERIES) else "--",
            )  # fmt: skip
            low, high = [value.low for value in values], [value.high for value in values]
            axes.fill_between(depths, low, high, color=colour, alpha=0.08, linewidth=0)
        ticks = sorted({depth for found in sources.values() for depth in found})
        axes.set_xticks(ticks, [str(depth) for depth in ticks])
        axes.minorticks_off()
        axes.margins(x=0.02)
        axes.set_xlabel("candidates that a source brings")
        axes.set_ylabel("share of wanted items among them")
        axes.grid()
        _label_ends(axes, {name: found[max(found)].value for name, found in sources.items() if found}, bold)

    return _drawn("coverage", "Share of wanted items by source and depth", (WIDTH, 3.4), draw)


def reliability(heads: Mapping[str, Calibration]) -> str:
    """A diagram a head: what was said against what happened; on the dashed line both are alike."""
    columns = min(len(heads), 3)
    rows = math.ceil(len(heads) / columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (head, found) in zip(grid, heads.items(), strict=False):
            _diagram(axes, found.bins, rare=is_rare(found))
            axes.set_title(_short(head), loc="left")
            axes.set_xlabel("predicted")
        for axes in grid[::columns]:
            axes.set_ylabel("happened")
        for axes in grid[len(heads) :]:
            axes.remove()

    return _drawn("calibration", "Reliability diagrams", (WIDTH, rows * (3.0 if columns < 3 else 2.4)), draw)


def is_rare(found: Calibration) -> bool:
    """Whether a head's probabilities are so small that only a logarithmic scale shows them."""
    middle = sorted(part.predicted for part in found.bins)[len(found.bins) // 2]
    return found.rate < 0.1 and middle < 0.1


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95% interval of a share of `count` independent answers. Wilson, JASA 22 (1927)."""
    squared = Z * Z / count
    middle = (share + squared / 2) / (1 + squared)
    half = Z / (1 + squared) * math.sqrt(share * (1 - share) / count + squared / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def frontier(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, quality), those that are better than everything that costs as much or less; the cheapest first."""
    found: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not found or y > found[-1][1]:
            found.append((x, y))
    return found


def visible(text: str) -> str:
    """The text without letters that cannot be seen or that turn the writing round: they become U+FFFD."""
    return "".join(one if one.isprintable() else " " if one.isspace() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _drawn(name: str, said: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """The plot as an `<svg>` element; settings of matplotlib that a user has are not taken up."""
    check_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the page's font may have it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**STYLE, "svg.hashsalt": name})
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _inline(file.getvalue(), said)


def _inline(svg: str, said: str) -> str:
    """What may stand in a page beside other plots: no ids but those that are referred to, the page's colours."""
    body = svg[svg.index("<svg ") :]
    body = re.sub(r'<style type="text/css">[^<]*</style>', "", body)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r'style="[^"]*"', lambda found: _coloured(found[0]), body)
    box = re.search(r'viewBox="[^"]*"', body)
    head = f'<svg role="img" aria-label="{escape(said)}" {box[0] if box else ""} xmlns:xlink="http://www.w3.org/1999/xlink">'
    return re.sub(r"<svg [^>]*>", lambda _: head, body, count=1).strip()


def _coloured(style: str) -> str:
    return re.sub(r"(?<=: )#[0-9a-f]{6}", lambda found: COLOURS.get(found[0], found[0]), style)


def _short(name: str, most: int = LONGEST) -> str:
    """The name, its middle left out where it is long: names often differ at their ends."""
    name = visible(name)
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"


def _dot(axes: Axes, found: Interval, place: float, colour: str, marker: str) -> None:
    axes.plot([found.low, found.high], [place, place], color=colour, linewidth=1.4, solid_capstyle="butt")
    axes.plot([found.value], [place], marker, color=colour, markersize=5)


def _names(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)


def _milliseconds(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with room for labels on both sides."""
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 3, max(values) * 6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.set_xlabel("milliseconds a ranking (each line is ten times the one before)")


def _label_points(figure: Figure, axes: Axes, at: Mapping[str, tuple[float, float]]) -> None:
    """Names beside their points, with a line to a point that is not near."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    points = [axes.transData.transform(point) for point in at.values()]
    boxes: list[Bbox] = []
    for name, point in sorted(at.items(), key=lambda pair: -pair[1][1]):
        offset, box = _free_place(axes, name, point, points, boxes)
        boxes.append(box)
        _note(axes, name, point, offset)
        if offset[1]:
            axes.annotate("", point, offset, textcoords="offset points", arrowprops=LEADER, zorder=1)


OFFSETS = [
    (side * 7, way * 10 * step) for step in range(16) for way in ((1, -1) if step else (1,)) for side in (1, -1)
]  # fmt: skip
"""In points, where a label may stand beside its point, the best place first."""
MARK = 3
"""Pixels from the middle of a point to its edge."""
LEADER = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}


def _free_place(
    axes: Axes, name: str, point: tuple[float, float], points: Sequence[npt.NDArray[np.float64]], boxes: Sequence[Bbox]
) -> tuple[tuple[float, float], Bbox]:
    """The nearest offset where a label is inside the axes and covers no other label and no point, and its box."""
    places = []
    for offset in OFFSETS:
        label = _note(axes, name, point, offset)
        box = label.get_window_extent()
        label.remove()
        inside = axes.bbox.count_contains(box.corners()) == 4
        if inside and not box.count_overlaps(boxes) and not box.padded(MARK).count_contains(points):
            return offset, box
        places.append((offset, box))
    return places[0]


def _note(axes: Axes, name: str, point: tuple[float, float], offset: tuple[float, float]) -> Annotation:
    return axes.annotate(
        _short(name), point, offset, textcoords="offset points", va="center", ha="left" if offset[0] > 0 else "right",
        bbox={"facecolor": BACK, "edgecolor": "none", "pad": 0.5},
    )  # fmt: skip


def _label_ends(axes: Axes, ends: Mapping[str, float], bold: str) -> None:
    """Names to the right of where their lines end, pushed apart where they would cover each other."""
    low, high = axes.get_ylim()
    names = sorted(ends, key=lambda name: ends[name])
    for name, place in zip(names, apart([ends[name] for name in names], (high - low) / 18), strict=True):
        axes.annotate(
            _short(name), (1.0, ends[name]), (1.05, place), xycoords=axes.get_yaxis_transform(), va="center",
            textcoords=axes.get_yaxis_transform(), fontweight="bold" if name == bold else "normal",
            arrowprops={**LEADER, "shrinkA": 2}, annotation_clip=False,
        )  # fmt: skip


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places, moved as little as can be (least squares) so that neighbours are `gap` apart or more."""
    from scipy.optimize import isotonic_regression

    steps = [gap * number for number in range(len(places))]
    if not places:
        return []
    moved = isotonic_regression([place - step for place, step in zip(places, steps, strict=True)]).x
    return [float(place) + step for place, step in zip(moved, steps, strict=True)]


def _diagram(axes: Axes, bins: Sequence[Bin], *, rare: bool) -> None:
    """One reliability diagram. On a logarithmic scale a bin where nothing happened is a hollow mark at the foot."""
    spans = [wilson(part.observed, part.count) for part in bins]
    known = [value for part in bins for value in (part.predicted, part.observed) if value > 0]
    foot = max(FLOOR, 10.0 ** math.floor(math.log10(min(known, default=FLOOR)))) if rare else 0.0
    top = 1.0 if rare else min(1.0, 1.05 * max(*(part.predicted for part in bins), *(high for _, high in spans)))
    axes.plot([foot, top], [foot, top], color=MUTED, linewidth=0.8, linestyle="--")
    for part, (low, high) in zip(bins, spans, strict=True):
        x, y = max(part.predicted, foot), max(part.observed, foot)
        axes.plot([x, x], [max(low, foot), max(high, foot)], color=MODEL, linewidth=1.0)
        hollow = "none" if rare and part.observed < foot else MODEL
        axes.plot([x], [y], "o", color=MODEL, markerfacecolor=hollow, markersize=4, clip_on=False)
    if rare:
        axes.set(xscale="log", yscale="log")
    axes.set(xlim=(foot, top), ylim=(foot, top), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.grid()
