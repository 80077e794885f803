"""What the server counts and times, for Prometheus.

Labels are bounded: routes as they are declared, surfaces that are served, reasons and statuses from short lists.
Nothing of a member, an item or a request is in them. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from foundation.engine.base import CacheStats
from serve.schemas import Timing

if TYPE_CHECKING:
    from serve.experiments import Traffic

disable_created_metrics()  # type: ignore[no-untyped-call]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SLOTS = (64, 256, 1_024, 4_096, 8_192, 16_384, 32_768, 65_536)
TREES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PARTS = ("retrieve", "compose", "queue", "score", "total")


class Figures:
    """The figures of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        to, at = self.registry, SECONDS
        asked, ranked = ("route", "method", "status"), ("surface", "part")
        counted = "prismrank_http_requests", "Requests by route and status."
        self._requests = Counter(*counted, asked, registry=to)
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        timed = "prismrank_http_request_seconds", "From a request's arrival to its last byte."
        self._seconds = Histogram(*timed, ("route",), registry=to, buckets=at)
        parts = "prismrank_rank_seconds", "Where the time of a ranking went."
        self._parts = Histogram(*parts, ranked, registry=to, buckets=at)
        degraded = "prismrank_degraded", "Degraded slates by their reason."
        self._degraded = Counter(*degraded, ("surface", "reason"), registry=to)
        self._batch_trees = Histogram("prismrank_batch_trees", "Trees in a forward.", registry=to, buckets=TREES)
        slots = "prismrank_batch_slots", "Slots in a forward: tokens, or vectors."
        self._batch_slots = Histogram(*slots, registry=to, buckets=SLOTS)
        self._forward = Histogram("prismrank_forward_seconds", "What a forward took.", registry=to, buckets=at)
        self._failed = Counter("prismrank_forwards_failed", "Forwards that ended in an error.", registry=to)
        self._broken = Gauge("prismrank_engine_left_alone", "1 while the circuit breaker is open.", registry=to)
        self._waiting = Gauge("prismrank_queue_trees", "Trees that wait for a forward.", registry=to)
        self._queued = Gauge("prismrank_queue_slots", "Slots that wait for a forward.", registry=to)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        asked = route, method, status
        if asked not in self._answered:
            self._answered[asked] = self._requests.labels(route, method, str(status)), self._seconds.labels(route)
        counter, histogram = self._answered[asked]
        counter.inc()
        histogram.observe(seconds)

    def ranked(self, surface: str, timing: Timing, reason: str | None) -> None:
        """A slate was made; with a reason, a degraded one."""
        for part in PARTS:
            self._parts.labels(surface, part).observe(getattr(timing, part) / 1000)
        if reason is not None:
            self._degraded.labels(surface, reason).inc()

    def batched(self, trees: int, slots: int, seconds: float | None, *, broken: bool = False) -> None:
        """A forward ended; `seconds` is None where it failed, and `broken` tells that the engine is left alone."""
        self._broken.set(broken)
        self._batch_trees.observe(trees)
        self._batch_slots.observe(slots)
        if seconds is None:
            self._failed.inc()
        else:
            self._forward.observe(seconds)

    def queued(self, trees: int, slots: int) -> None:
        """What waits changed."""
        self._waiting.set(trees)
        self._queued.set(slots)

    def watch(self, cache: Callable[[], CacheStats], traffic: Traffic) -> None:
        """Reads what the engine's cache and the traffic count themselves, whenever the figures are asked for."""
        self.registry.register(_Counted(cache, traffic))

    def text(self) -> str:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry).decode()


class _Counted(Collector):
    """What others count."""

    def __init__(self, cache: Callable[[], CacheStats], traffic: Traffic) -> None:
        self.cache, self.traffic = cache, traffic

    def describe(self) -> list[Metric]:
        """Nothing: what there is changes with the surfaces."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The cache's figures; rankings by surface and route; exposures of experiments."""
        stats, log = self.cache(), self.traffic.log
        for name, words, value in (
            ("cache_hit_slots", "Slots of trunks and stems found.", stats.hit_slots),
            ("cache_missed_slots", "Slots of them computed.", stats.missed_slots),
            ("cache_evictions", "Runs of slots dropped for room.", stats.evictions),
            ("exposures", "Slates of experiments logged.", log.written),
            ("exposures_dropped", "Slates of experiments not logged.", log.dropped),
        ):
            yield CounterMetricFamily(f"prismrank_{name}", words, value)
        yield GaugeMetricFamily("prismrank_cache_bytes", "Keys and values held.", stats.bytes)
        routed = CounterMetricFamily("prismrank_rankings", "Rankings by their route.", labels=("surface", "route"))
        for key, count in sorted(self.traffic.routed.items()):
            routed.add_metric(key, count)
        yield routed
