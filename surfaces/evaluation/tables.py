"""A report as tables for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from surfaces.evaluation.bootstrap import Interval
from surfaces.evaluation.metrics import SHOWN
from surfaces.evaluation.report import Report


def tables(report: Report) -> Iterator[Table]:
    """The methods; what sources bring; the segments with what is recommended for them, where there is a model."""
    yield methods(report)
    if report.coverage is not None:
        yield _coverage(report)
    if report.models:
        yield _segments(report)


def methods(report: Report) -> Table:
    """A row a method, a column a metric."""
    split, members = report.split, int(report.members.max()) + 1
    among = "given lists" if split.protocol == "lists" else f"{split.candidates or 'the full catalogue of'} candidates"
    asked = "" if len(split.cases) == members else f"{len(split.cases):,} rankings of "
    table = _table(f"{report.surface}: {split.protocol}, {asked}{members:,} members, {among}", "method", *SHOWN)
    table.add_column(f"{escape(report.subject)}\nabove by", justify="right", no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    for method, seconds in report.seconds.items():
        first, *rest = (report.figure(method, metric) for metric in SHOWN)
        above = "" if method == report.subject else _shown(report.difference(method, SHOWN[0]), "+")
        figures = [_shown(first), *(_short(found.value) for found in rest)]
        table.add_row(escape(method), *figures, above, f"{1000 * seconds:.1f}")
    return table


def _coverage(report: Report) -> Table:
    figures = report.coverage.figures() if report.coverage else {}
    depths = list(next(iter(figures.values()))) if figures else []
    table = _table("share of the wanted items that sources bring", "source", *depths)
    for name, by_depth in figures.items():
        table.add_row(escape(name), *(_short(found.value) for found in by_depth.values()))
    return table


def _segments(report: Report) -> Table:
    others = [name for name in (*report.models, report.classical) if name and name != "zero_shot"]
    table = _table(
        "ndcg@10 by segment of n members, and the way that is worth its cost", "segment", "n", *others, "way"
    )
    for segment in report.segments:
        members = report.by_member(report.results[others[0]].values_MF, segment.inside_M)
        values = [report.mean(name, SHOWN[0], segment.inside_M) for name in others]
        way = report.advices[segment.name].route or "too few"
        table.add_row(segment.name, f"{len(members):,}", *map(_short, values), way)
    return table


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=escape(title), box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(escape(column), justify="right", no_wrap=True)
    return table


def _shown(found: Interval, sign: str = "") -> str:
    return f"{_short(found.value, sign)} \\[{_short(found.low, sign)}, {_short(found.high, sign)}]"


def _short(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}".replace("0.", ".", 1)
