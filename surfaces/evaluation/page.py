"""An evaluation as one HTML page for the person who decides: is the model worth its cost, and where?

The page needs no network, no script and no other file. Everything that comes from outside (names of surfaces, methods
and sources, notes) is text in it, never markup.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import jinja2
import yaml
from markupsafe import Markup, escape
from pydantic import BaseModel, ConfigDict, Field

from surfaces.evaluation import plots
from surfaces.evaluation.bootstrap import Interval
from surfaces.evaluation.calibration import Calibration
from surfaces.evaluation.coverage import MERGED
from surfaces.evaluation.metrics import METRICS, SHOWN
from surfaces.evaluation.recommend import FEWEST
from surfaces.evaluation.report import MODELS

NDCG = "ndcg@10"
BEST = 3
"""So many methods of a segment are named."""
COMPARED = 4
"""So many methods are drawn segment by segment."""
SIMULATED = "simulated"
"""How the note of a made-up ledger begins."""

Figures = Mapping[str, Interval]
Mark = Literal["above", "below", "even"]


class _Part(BaseModel):
    """A piece of a report's JSON; what it does not name is passed over."""

    model_config = ConfigDict(frozen=True)


class AdviceTold(_Part):
    """`Report.advice`."""

    route: str | None
    method: str
    reason: str


class SplitTold(_Part):
    """What was held out, so that it can be had again."""

    digest: str
    seed: int
    cut: float | None = None
    notes: tuple[str, ...] = ()


class Cost(_Part):
    """What a ranking takes."""

    ms: float
    tokens: float


class TunedTold(_Part):
    """How a method's settings were found."""

    settings: Mapping[str, object]
    value: float = Field(alias="validation_ndcg@10")
    tries: int
    seconds: float


class LeakTold(_Part):
    """How much of one place was searched."""

    checked: int
    found: int


class SegmentTold(_Part):
    """Some of the rankings."""

    members: int
    rankings: int
    methods: Mapping[str, Figures]
    advice: AdviceTold

    @property
    def best(self) -> list[str]:
        """The methods with the highest NDCG@10."""
        return by_quality(self.methods)[:BEST]

    @property
    def few(self) -> bool:
        """Whether these are too few members to tell anything."""
        return self.members < FEWEST


class Told(_Part):
    """What `Report.told` holds. Whatever an evaluation can do without may be absent."""

    surface: str
    protocol: str
    candidates: int | None = None
    members: int
    rankings: int
    split: SplitTold
    methods: Mapping[str, Figures]
    differences: Mapping[str, Figures] = {}
    subject: str
    classical: str | None = None
    segments: Mapping[str, SegmentTold] = {}
    advice: AdviceTold
    routing: Mapping[str, object] | None = None
    costs: Mapping[str, Cost] = {}
    breadth: Mapping[str, Mapping[str, float]] = {}
    calibration: Mapping[str, Mapping[str, Calibration]] = {}
    coverage: Mapping[str, Figures] = {}
    tuning: Mapping[str, TunedTold] = {}
    fused_weights: Mapping[str, float] = {}
    leaks: Mapping[str, LeakTold] = {}
    notes: tuple[str, ...] = ()
    date: str | None = None
    model: str | None = None
    surface_version: str | None = None
    budget: int | None = None
    machine: Mapping[str, object] = {}

    @property
    def models(self) -> list[str]:
        """The methods that ask the model."""
        return [name for name in self.methods if name in MODELS]

    @property
    def calibrated(self) -> tuple[str, Mapping[str, Calibration]] | None:
        """The first method that gives probabilities, and its heads."""
        return next(((name, heads) for name, heads in self.calibration.items() if heads), None)

    @property
    def all_notes(self) -> list[str]:
        """What a reader must know first, each once."""
        return list(dict.fromkeys([*self.notes, *self.split.notes]))

    @property
    def compared(self) -> list[str]:
        """The methods that segments are drawn by: those that decide, then the best of the others."""
        first = [self.subject, "fused", self.classical or self.subject, "popular"]
        rest = [name for name in by_quality(self.methods) if name != "random"]
        return list(dict.fromkeys(name for name in [*first, *rest] if name in self.methods))[:COMPARED]


def page(report_json: Mapping[str, object]) -> str:
    """The page of a report (`Report.told`), the same for the same report.

    Raises ConfigError where the package matplotlib is missing.
    """
    plots.check_matplotlib()
    told = Told.model_validate(report_json)
    template = _environment().get_template("page.html.j2")
    return template.render(
        told=told,
        drawn=_drawn(told),
        ranked=by_quality(told.methods),
        depths=_depths(told.coverage),
        routing=routing_text(told.routing),
        facts=_facts(told),
    )


def by_quality(methods: Mapping[str, Figures]) -> list[str]:
    """The methods' names, the highest NDCG@10 first."""
    return sorted(methods, key=lambda name: -methods[name][NDCG].value)


def mark(difference: Interval) -> Mark:
    """Where a difference is, beyond what chance can make of none: its whole interval is on one side of 0."""
    return "above" if difference.low > 0 else "below" if difference.high < 0 else "even"


def routing_text(routing: Mapping[str, object] | None) -> Markup | None:
    """The lines that a surface file may take up; letters beyond ASCII are written as YAML's escapes."""
    if routing is None:
        return None
    return escape(yaml.safe_dump({"routing": dict(routing)}, sort_keys=False, width=100))


def short(value: float) -> str:
    """Three digits that count: 0.122, 35.4, 1,204."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(short=short, mark=mark, settings=_settings)
    found.globals.update(
        METRICS=METRICS, SHOWN=SHOWN, NDCG=NDCG, MERGED=MERGED, FEWEST=FEWEST, SIMULATED=SIMULATED, FLOOR=plots.FLOOR
    )
    return found


def _shown(value: object) -> object:
    """Text from outside without letters that cannot be seen; markup of our own as it is."""
    return plots.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _settings(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in settings.items()) or "none to choose"


def _drawn(told: Told) -> dict[str, Markup]:
    """The plots that there are figures for, by name."""
    quality = {name: found[NDCG] for name, found in told.methods.items()}
    ms = {name: cost.ms for name, cost in told.costs.items() if name in quality}
    found = {"methods": plots.by_method(quality, told.models)}
    if ms:
        found["costs"] = plots.by_cost(quality, ms, told.models)
    if told.segments:
        found["segments"] = plots.by_segment([_panel(name, told) for name in told.segments])
    sources = {name: _by_depth(figures) for name, figures in told.coverage.items() if figures}
    if sources:
        found["coverage"] = plots.by_depth(sources, MERGED)
    if told.calibrated:
        found["calibration"] = plots.reliability(told.calibrated[1])
    return {name: Markup(svg) for name, svg in found.items()}  # noqa: S704  # made here, names in it are escaped


def _panel(name: str, told: Told) -> plots.Panel:
    segment = told.segments[name]
    figures = {method: segment.methods[method][NDCG] for method in told.compared if method in segment.methods}
    return plots.Panel(f"{name} ({segment.members:,})", figures, segment.few)


def _by_depth(figures: Figures) -> dict[int, Interval]:
    return {int(key.rpartition("@")[2]): value for key, value in figures.items()}


def _depths(coverage: Mapping[str, Figures]) -> list[str]:
    return list(dict.fromkeys(key for figures in coverage.values() for key in figures))


def _facts(told: Told) -> list[tuple[str, str]]:
    """What was measured, on what and when, as pairs of a word and what it is."""
    if told.protocol == "lists":
        among = "as the lists give them"
    elif told.candidates is None:
        among = "the full catalogue"
    else:
        among = f"{told.candidates:,} for each ranking, drawn at random, the wanted item among them"
    facts = [
        ("Protocol", told.protocol),
        ("Members", f"{told.members:,}"),
        ("Rankings", f"{told.rankings:,}"),
        ("Candidates", among),
        ("Date", told.date),
        ("Model", told.model),
        ("Surface version", told.surface_version),
        ("Machine", ", ".join(f"{name} {value}" for name, value in told.machine.items())),
        ("Split", f"{told.split.digest}, seed {told.split.seed}"),
        ("Nothing learned from", None if told.split.cut is None else f"{_moment(told.split.cut)} or later"),
    ]
    return [(name, value) for name, value in facts if value]


def _moment(timestamp: float) -> str:
    """A ledger's time in words; one that is no date stays a number."""
    try:
        return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, OSError, ValueError):
        return f"{timestamp:g}"
