"""Figures for Prometheus: what the cache of trunks and stems does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from foundation.engine.base import CacheStats
from serve.services import CurrentServices

router = APIRouter(tags=["health"])


class Metric(NamedTuple):
    """A figure by its Prometheus name; its type says whether it only grows (a counter) or not (a gauge)."""

    name: str
    help: str
    type: str
    value: float


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: CurrentServices) -> str:
    """Counters and gauges in Prometheus' text format (version 0.0.4)."""
    lines = [line for metric in cache_metrics(services.engine.cache_stats) for line in _lines(metric)]
    return "\n".join([*lines, ""])


def cache_metrics(stats: CacheStats) -> list[Metric]:
    """What the cache did so far; a slot is a token, or a vector in its place."""
    return [
        Metric("prismrank_cache_hit_slots_total", "Slots of trunks and stems found", "counter", stats.hit_slots),
        Metric("prismrank_cache_missed_slots_total", "Slots of them computed", "counter", stats.missed_slots),
        Metric("prismrank_cache_evictions_total", "Runs of slots dropped for room", "counter", stats.evictions),
        Metric("prismrank_cache_bytes", "Keys and values held", "gauge", stats.bytes),
    ]


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}."
    yield f"# TYPE {metric.name} {metric.type}"
    yield f"{metric.name} {metric.value}"
