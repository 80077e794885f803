"""Spans of requests, for OpenTelemetry: where the time of each went, under the trace of whoever called.

A span tells the route as it is declared, a surface, a status and a reason: nothing of a member, an item or a body, nor
the path. FastAPI's own spans are off, since they tell the path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.propagate import extract
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode, TracerProvider
from starlette.datastructures import Headers

from prompts.errors import ConfigError


class Traces:
    """Makes spans; without a provider, none."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = provider.get_tracer("prismrank") if provider else None

    @contextmanager
    def request(self, method: str, route: str, headers: Headers) -> Iterator[Span]:
        """The span of a request, while it is answered: a child of what `traceparent` names."""
        if self._tracer is None:
            yield INVALID_SPAN
            return
        parent = extract({name: headers[name] for name in ("traceparent", "tracestate") if name in headers})
        told = {"http.request.method": method, "http.route": route}
        with self._tracer.start_as_current_span(
            f"{method} {route}", parent, SpanKind.SERVER, told, record_exception=False, set_status_on_exception=False
        ) as span:
            yield span

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part of the request that is under way."""
        if self._tracer is None:
            yield
            return
        with self._tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False):
            yield


def ended(span: Span, status: int) -> None:
    """Notes with which status the request was answered."""
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))


def exporting(url: str) -> TracerProvider:
    """A provider that sends spans to a collector, by OTLP over HTTP, from a thread of its own.

    Raises ConfigError without the extra `telemetry`, and for what is no URL.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigError("traces need the extra `telemetry`: pip install 'prismrank[telemetry]'") from None
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url}: a collector's address is a URL, such as http://localhost:4318/v1/traces")
    provider = Provider(resource=Resource.create({SERVICE_NAME: "prismrank"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return provider
