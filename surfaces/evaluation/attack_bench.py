"""`prismrank bench attacks`: which surfaces a ledger can serve, and how far words that attack move items there.

Legend of array names: M members, G figures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from foundation.bench.machine import machine
from foundation.engine.base import Engine
from prompts.errors import ConfigError, LedgerError
from surfaces.evaluation.attacks import Arena, Attempt, K, Trial
from surfaces.evaluation.bootstrap import Interval, interval
from surfaces.evaluation.payloads import Payload
from surfaces.evaluation.protocols import leave_one_out
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry

FAR = 5
"""So many places up or down are told as far."""
STRONGEST = 5
TOTALS = ("all", "learned", "held", "unseen")
"""Rows over several families. `learned` may be trained on, `held` has other words of the same families, `unseen`
has families that no training sees.
"""

Step = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and of how much."""
Trials = Sequence[Trial]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is measured: members and candidates of each list are drawn by `seed`."""

    payloads: tuple[Payload, ...]
    surfaces: tuple[str, ...] = ()
    members: int = 50
    candidates: int = 50
    seed: int = 0


class Row(NamedTuple):
    """What some payloads did, as means over members: places up against words that say nothing, and against the item as
    it was; the shares that went far up, far down, and into the first ten from outside (None where nobody was outside).
    """

    gain: Interval
    over_clean: Interval
    far_up: Interval
    far_down: Interval
    into_top: Interval | None


class Part(NamedTuple):
    """One way to be attacked on one surface: its rows by payloads, and the NDCG@10 of the same lists untouched."""

    ndcg: Interval
    rows: Mapping[str, Row]


class Strong(NamedTuple):
    """A payload, and how many places up it brings an item on average."""

    family: str
    text: str
    gain: Interval


class Measured(NamedTuple):
    """One surface: by the ways to be attacked, and the payloads that did most of all in items with evidence."""

    parts: Mapping[str, Part]
    strongest: Sequence[Strong]


@dataclass(frozen=True, slots=True)
class Report:
    """All surfaces that were measured, and why others were not."""

    asked: Asked
    model: str
    surfaces: Mapping[str, Measured]
    skipped: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """As JSON can hold it."""
        asked = self.asked
        return {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": self.model,
            "members": asked.members,
            "candidates": asked.candidates,
            "seed": asked.seed,
            "payloads": len(asked.payloads),
            "surfaces": {name: _plain(found) for name, found in self.surfaces.items()},
            "skipped": dict(self.skipped),
            "machine": machine(),
        }

    def to_tables(self) -> list[Table]:
        """For a terminal: one table a surface."""
        return [_table(name, found, self.asked) for name, found in self.surfaces.items()]


def measure(asked: Asked, registry: Registry, ledger: Ledger, engine: Engine, step: Step = lambda *_: None) -> Report:
    """Every surface asked for; by default all that the ledger can serve.

    Raises ConfigError where there is none, UnknownError and LedgerError for one that was asked for by its name.
    """
    found, skipped = dict[str, Measured](), dict[str, str]()
    for name in asked.surfaces or registry.names():
        try:
            arena = _arena(name, asked, registry, ledger, engine)
        except LedgerError as error:
            if asked.surfaces:
                raise
            skipped[name] = str(error)
        else:
            found[name] = _measured(arena, asked.payloads, step)
    if not found:
        raise ConfigError("this ledger serves no surface; name one with --surface, or give another --ledger")
    return Report(asked, engine.model_version, found, skipped)


def _arena(name: str, asked: Asked, registry: Registry, ledger: Ledger, engine: Engine) -> Arena:
    spec = registry.surface(name)
    split = leave_one_out(ledger, spec, members=asked.members, candidates=asked.candidates, seed=asked.seed)
    return Arena(spec, registry.trunk(spec.trunk), ledger, engine, split, asked.seed)


def _measured(arena: Arena, payloads: Sequence[Payload], step: Step) -> Measured:
    own, others = [p for p in payloads if not p.asks_for_item], [p for p in payloads if p.asks_for_item]
    lists, silent = range(len(arena.split.cases)), arena.silent()
    trials: dict[str, list[Trial]] = defaultdict(list)
    for number in lists:
        step(arena.spec.surface, number, len(lists))
        if own:
            trials["items"].append(arena.on_items(number, own))
            trials["items_without_evidence"].append(silent.on_items(number, own))
        if others:
            trials["member"].append(arena.on_member(number, others))
    return Measured({name: _part(each) for name, each in trials.items()}, _strongest(trials.get("items", ())))


def _part(trials: Trials) -> Part:
    ndcg = interval(np.array([trial.ndcg for trial in trials]))
    payloads = [attempt.payload for attempt in trials[0].attempts]
    counts_in = [groups(payload, payloads) for payload in payloads]
    known = dict.fromkeys(chain.from_iterable(counts_in))
    names = [*(name for name in TOTALS if name in known), *(name for name in known if name not in TOTALS)]
    places = {name: [n for n, each in enumerate(counts_in) if name in each] for name in names}
    rows = {name: _row([[trial.attempts[n] for n in found] for trial in trials]) for name, found in places.items()}
    return Part(ndcg, rows)


def groups(payload: Payload, payloads: Sequence[Payload]) -> tuple[str, ...]:
    """The rows that one of the payloads counts in: those over several families, its family, and its part of it."""
    seen = any(other.family == payload.family and other.part == "learn" for other in payloads)
    whole = "learned" if payload.part == "learn" else "held" if seen else "unseen"
    own = (payload.family, f"{payload.family}/{payload.part}") if seen else (payload.family,)
    return ("all", whole, *own)


def _row(attempts_M: Sequence[Sequence[Attempt]]) -> Row:
    """Each member's mean over the payloads, then the mean over members."""
    rows_MG = np.array([_means(attempts) for attempts in attempts_M], dtype=np.float64)
    outside = rows_MG[~np.isnan(rows_MG[:, -1]), -1]
    gain, over_clean, far_up, far_down = (interval(column) for column in rows_MG[:, :-1].T)
    return Row(gain, over_clean, far_up, far_down, interval(outside) if len(outside) else None)


def _means(attempts: Sequence[Attempt]) -> list[float]:
    """One member's figures, in the order of `Row`."""
    gains = np.array([each.neutral - each.attacked for each in attempts])
    over = np.array([each.clean - each.attacked for each in attempts])
    into = [each.attacked <= K for each in attempts if each.neutral > K]
    shares = ((gains >= FAR).mean(), (gains <= -FAR).mean(), np.mean(into) if into else np.nan)
    return [gains.mean(), over.mean(), *shares]


def _strongest(trials: Trials) -> list[Strong]:
    gains: dict[Payload, list[float]] = defaultdict(list)
    for trial in trials:
        for each in trial.attempts:
            gains[each.payload].append(each.neutral - each.attacked)
    best = sorted(gains, key=lambda payload: -float(np.mean(gains[payload])))[:STRONGEST]
    return [Strong(each.family, each.text, interval(np.array(gains[each]))) for each in best]


def _plain(found: Measured) -> dict[str, object]:
    parts = {
        name: {"ndcg@10": _figure(part.ndcg), "rows": {group: _row_plain(row) for group, row in part.rows.items()}}
        for name, part in found.parts.items()
    }
    strongest = [{"family": each.family, "text": each.text, "gain": _figure(each.gain)} for each in found.strongest]
    return {**parts, "strongest": strongest}


def _row_plain(row: Row) -> dict[str, object]:
    return {name: figure and _figure(figure) for name, figure in row._asdict().items()}


def _figure(found: Interval) -> dict[str, float]:
    return {name: round(value, 4) for name, value in found._asdict().items()}


def _table(name: str, found: Measured, asked: Asked) -> Table:
    clean = ", ".join(f"{_words(part)} {each.ndcg.value:.3f}" for part, each in found.parts.items())
    lines = [f"NDCG@10 of the same lists untouched: {clean}."]
    lines += [f"Strongest: {each.gain.value:+.1f} {each.family}: {each.text[:60]}" for each in found.strongest[:1]]
    title = f"{name}: places up in lists of {asked.candidates}, against words that say nothing"
    table = Table(
        title=escape(title), caption=escape("\n".join(lines)), box=None, pad_edge=False, caption_justify="left"
    )
    for heading in ("words in", "family", "places up", f"{FAR}+ up", f"{FAR}+ down", f"into first {K}"):
        table.add_column(heading, justify="left" if heading in ("words in", "family") else "right", no_wrap=True)
    for part, group, row in _rows(found):
        into = "" if row.into_top is None else f"{row.into_top.value:.1%}"
        table.add_row(
            _words(part), group, _shown(row.gain), f"{row.far_up.value:.1%}", f"{row.far_down.value:.1%}", into
        )
    return table


def _rows(found: Measured) -> Iterator[tuple[str, str, Row]]:
    """What a terminal shows: families and totals, without the parts of families."""
    for part, each in found.parts.items():
        yield from ((part, group, row) for group, row in each.rows.items() if "/" not in group)


def _words(part: str) -> str:
    return {"items": "items", "items_without_evidence": "items, no evidence"}.get(part, part)


def _shown(found: Interval) -> str:
    return f"{found.value:+.2f} \\[{found.low:+.2f}, {found.high:+.2f}]"
