"""Figures for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from serve.services import CurrentServices

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: CurrentServices) -> PlainTextResponse:
    """Counters, gauges and histograms in Prometheus' text format (version 0.0.4); times are in seconds."""
    return PlainTextResponse(services.figures.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
