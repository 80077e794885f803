"""Figures for Prometheus: what the cache of trunks and stems does, which way requests went, what experiments showed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from foundation.engine.base import CacheStats
from serve.experiments import Traffic
from serve.services import CurrentServices

router = APIRouter(tags=["health"])


class Metric(NamedTuple):
    """A figure by its Prometheus name; its type says whether it only grows (a counter) or not (a gauge).

    `labels` tell apart figures of the same name, as Prometheus writes them.
    """

    name: str
    help: str
    type: str
    value: float
    labels: str = ""


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: CurrentServices) -> str:
    """Counters and gauges in Prometheus' text format (version 0.0.4)."""
    return "".join(
        f"{line}\n"
        for line in _lines([*cache_metrics(services.engine.cache_stats), *traffic_metrics(services.traffic)])
    )


def cache_metrics(stats: CacheStats) -> list[Metric]:
    """What the cache did so far; a slot is a token, or a vector in its place."""
    return [
        Metric("prismrank_cache_hit_slots_total", "Slots of trunks and stems found", "counter", stats.hit_slots),
        Metric("prismrank_cache_missed_slots_total", "Slots of them computed", "counter", stats.missed_slots),
        Metric("prismrank_cache_evictions_total", "Runs of slots dropped for room", "counter", stats.evictions),
        Metric("prismrank_cache_bytes", "Keys and values held", "gauge", stats.bytes),
    ]


def traffic_metrics(traffic: Traffic) -> list[Metric]:
    """Rankings by surface and route, and what became of the slates of experiments."""
    log = traffic.log
    routed = [
        Metric(
            "prismrank_rankings_total", "Rankings by their route", "counter", count, f'surface="{name}",route="{route}"'
        )
        for (name, route), count in sorted(traffic.routed.items())
    ]
    return [
        *routed,
        Metric("prismrank_exposures_total", "Slates of experiments logged", "counter", log.written),
        Metric("prismrank_exposures_dropped_total", "Slates of experiments not logged", "counter", log.dropped),
    ]


def _lines(figures: Sequence[Metric]) -> Iterator[str]:
    for name, group in groupby(figures, key=lambda figure: figure.name):
        same = list(group)
        yield f"# HELP {name} {same[0].help}."
        yield f"# TYPE {name} {same[0].type}"
        for figure in same:
            yield f"{name}{{{figure.labels}}} {figure.value}" if figure.labels else f"{name} {figure.value}"
