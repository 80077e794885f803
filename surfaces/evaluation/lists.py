"""Given candidate lists: from a file, or from the impressions that the ledger itself has.

A list file is a parquet of `member_id, item_id, label` and, where wanted, `timestamp`: rows of the same member and
timestamp are one list.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from prompts.errors import ConfigError, LedgerError
from surfaces.evaluation.protocols import (
    WINDOW,
    Case,
    Split,
    before,
    check,
    drawn,
    last_share,
    timelines,
    wanted_actions,
)
from surfaces.ledger.records import IMPRESSION, Event, quoted
from surfaces.ledger.store import Ledger
from surfaces.moments import moment
from surfaces.sources.base import Interactions
from surfaces.sources.fit import interactions_of
from surfaces.spec import SurfaceSpec

COLUMNS = {"member_id": pl.String, "item_id": pl.String, "label": pl.Float64}


@dataclass(frozen=True, slots=True)
class Listed:
    """One list: who, when (None: nobody says), and the gain of every candidate, in the order given."""

    member_id: str
    time: float | None
    labels: Mapping[str, float]


def read_columns(path: Path, wanted: Mapping[str, type[pl.DataType]], what: str) -> pl.DataFrame:
    """The columns of a parquet, and `timestamp` where it has one. Raises ConfigError that says what is wrong."""
    try:
        frame = pl.read_parquet(path)
    except (OSError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{path}: {what} must be a parquet file, and this cannot be read as one ({reason})") from None
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise ConfigError(f"{path}: {what} needs the columns {', '.join(wanted)}; '{missing[0]}' is missing")
    types: dict[str, type[pl.DataType]] = dict(wanted)
    if "timestamp" in frame.columns:
        types["timestamp"] = pl.Float64
    try:
        cast = frame.select([_cast(frame[name], kind) for name, kind in types.items()])
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None
    for name in types:
        column = cast[name]
        bad = column.is_null() | (~column.is_finite() if column.dtype == pl.Float64 else False)
        if bad.any():
            row = int(bad.arg_max() or 0)
            raise ConfigError(f"{path}: row {row + 1}: '{name}' is empty or no finite number; every row needs one")
    return cast


def _cast(column: pl.Series, kind: type[pl.DataType]) -> pl.Series:
    if column.dtype.is_temporal() and kind == pl.Float64:
        return column.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
    if column.name == "timestamp" and column.dtype == pl.Boolean:
        raise pl.exceptions.ComputeError("column 'timestamp' holds true and false; it must hold times")
    if column.name == "timestamp" and column.dtype == pl.String:
        return pl.Series("timestamp", [moment(each) for each in column], pl.Float64)
    if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum, pl.Null)):
        must = "numbers" if kind == pl.Float64 else "text"
        raise pl.exceptions.ComputeError(f"column '{column.name}' holds {column.dtype}; it must hold {must}")
    return column.cast(kind)


def read_lists(path: Path) -> list[Listed]:
    """The lists of a file, in its order. Raises ConfigError for what cannot be one."""
    frame = read_columns(path, COLUMNS, "a list file")
    if not frame.height:
        raise ConfigError(f"{path}: the list file has no rows")
    lists: dict[tuple[str, float | None], dict[str, float]] = defaultdict(dict)
    times: Sequence[float | None] = (
        frame["timestamp"].to_list() if "timestamp" in frame.columns else [None] * len(frame)
    )
    for row, (member_id, item_id, label, time) in enumerate(
        zip(frame["member_id"], frame["item_id"], frame["label"], times, strict=True), 1
    ):
        found = lists[member_id, time]
        if item_id in found:
            raise ConfigError(
                f"{path}: row {row}: member {quoted(member_id)} has item {quoted(item_id)} twice in a list"
            )
        if label < 0:
            raise ConfigError(f"{path}: row {row}: label {label:g} is below 0; a gain is 0 or more")
        found[item_id] = label
    return [Listed(member_id, time, labels) for (member_id, time), labels in lists.items()]


def from_lists(
    ledger: Ledger, surface: SurfaceSpec, lists: Sequence[Listed], *, members: int | None = None, seed: int = 0
) -> Split:
    """The split by given lists: of each member only what came before the first of their lists is learned from.

    A list without a time stands where the first of its wanted items appears in the member's timeline, else at its end.
    Lists without a wanted item, or without another one, say nothing and are left out. Raises LedgerError for members
    and items that the ledger does not know, and when no list is left.
    """
    check(members, None, 0)
    data = interactions_of(surface, ledger)
    _check_known(ledger, data, surface, lists)
    by_member: dict[str, list[Listed]] = defaultdict(list)
    for each in lists:
        if 0 < sum(gain > 0 for gain in each.labels.values()) < len(each.labels):
            by_member[each.member_id].append(each)
    said = sum(map(len, by_member.values()))
    notes = (f"{len(lists) - said} lists whose labels are all alike were left out",) if said < len(lists) else ()
    histories = ledger.timelines(by_member)
    cases, kept = list[Case](), dict[str, int]()
    for member_id, own in by_member.items():
        found = [_case(each, histories[member_id]) for each in own]
        cases += found
        kept[member_id] = min(len(data.history(case.history)) for case in found)
    if not cases:
        raise LedgerError("no list has both an item with a label above 0 and one with 0; there is nothing to rank")
    return Split("lists", drawn(cases, members, seed), data.first(kept), seed=seed, notes=notes)


def _case(listed: Listed, timeline: Sequence[Event]) -> Case:
    wanted = {item_id for item_id, gain in listed.labels.items() if gain > 0}
    time = listed.time
    if time is None:
        end = next((n for n, event in enumerate(timeline) if event.item_id in wanted), len(timeline))
        time = timeline[end].timestamp if end < len(timeline) else timeline[-1].timestamp if timeline else 0.0
    else:
        end = sum(event.timestamp < time for event in timeline)
    acts = {event.item_id: event.action for event in timeline[end:] if event.item_id in wanted}
    return Case(listed.member_id, tuple(timeline[:end]), listed.labels, time, acts, tuple(listed.labels))


def _check_known(ledger: Ledger, data: Interactions, surface: SurfaceSpec, lists: Sequence[Listed]) -> None:
    unknown = ledger.unknown_members(each.member_id for each in lists)
    if unknown:
        raise LedgerError(f"the lists name member {quoted(unknown[0])}{_more(unknown)}, whom the ledger does not know")
    absent = sorted({item_id for each in lists for item_id in each.labels if item_id not in data.index})
    if absent:
        what = f"item {quoted(absent[0])}{_more(absent)}"
        raise LedgerError(f"the lists name {what}: no item of the kind '{surface.item_kind}' that the ledger knows")


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def from_impressions(
    ledger: Ledger,
    surface: SurfaceSpec,
    *,
    members: int | None = None,
    seed: int = 0,
    share: float = WINDOW,
) -> Split:
    """The split by what the surface itself showed: its slates of the last `share` of the time, as they were shown.

    Impressions of one member, surface and second are one slate; an item is wanted when the member acts on it before
    their next slate there. Slates without a wanted item are left out. Nobody learns from anything after the first of
    those slates. Raises LedgerError when the ledger has no such slates, ConfigError where its timestamps are no times.
    """
    check(members, None, 0)
    if ledger.clock == "order":
        raise ConfigError("protocol lists: impressions need times, but this ledger's clock is 'order'; give --lists")
    data, label = interactions_of(surface, ledger), wanted_actions(surface, ledger)
    slates = [slate for timeline in timelines(ledger) for slate in _slates(timeline, surface, data, label)]
    if not slates:
        raise LedgerError(
            f"the ledger has no impressions ('{IMPRESSION}') on surface '{surface.surface}' that anything came of; "
            "give --lists"
        )
    cut = last_share(np.array([slate.time for slate in slates]), share)
    cases = [slate.case for slate in slates if slate.time >= cut]
    return Split("lists", drawn(cases, members, seed), before(data, cut), cut=cut, seed=seed)


class _Slate(NamedTuple):
    """What was shown to a member at a time, with the gain and the action of each item."""

    timeline: tuple[Event, ...]
    time: float
    labels: Mapping[str, float]
    acts: Mapping[str, str]

    @property
    def case(self) -> Case:
        """The ranking that it stands for."""
        before = bisect_left(self.timeline, self.time, key=lambda event: event.timestamp)
        member_id, history = self.timeline[0].member_id, self.timeline[:before]
        return Case(member_id, history, self.labels, self.time, self.acts, tuple(self.labels))


def _slates(
    timeline: tuple[Event, ...], surface: SurfaceSpec, data: Interactions, label: frozenset[str]
) -> Iterator[_Slate]:
    """The slates of one member on the surface that have both a wanted item and another."""
    mine = [(n, event) for n, event in enumerate(timeline) if event.surface == surface.surface]
    shown: dict[float, dict[str, int]] = defaultdict(dict)
    for n, event in mine:
        if event.action == IMPRESSION and event.item_id in data.index:
            shown[event.timestamp].setdefault(event.item_id, n)
    times = sorted(shown)
    acts: dict[float, dict[str, str]] = defaultdict(dict)
    for _, event in mine:
        slate = times[int(np.searchsorted(times, event.timestamp, side="right")) - 1] if times else np.inf
        if event.action != IMPRESSION and slate <= event.timestamp and event.item_id in shown[slate]:
            acts[slate].setdefault(event.item_id, event.action)
    for time in times:
        labels = {item_id: float(acts[time].get(item_id) in label) for item_id in sorted(shown[time])}
        if 0 < sum(labels.values()) < len(labels):
            yield _Slate(timeline, time, labels, dict(acts[time]))
