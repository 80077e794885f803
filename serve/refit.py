"""Sources that learn again while the server runs, so that they know what came into the ledger since it started."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve.services import Services

logger = logging.getLogger(__name__)


@asynccontextmanager
async def refitting(services: Services, every_s: float) -> AsyncIterator[None]:
    """Fits every surface again, one after the other, each `every_s` seconds, while inside; never where that is 0."""
    stop = threading.Event()
    thread = threading.Thread(target=_work, args=(services, every_s, stop), name="refit", daemon=True)
    if every_s:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread.is_alive():
            await asyncio.to_thread(thread.join, 1.0)  # a fit that is under way is not waited for


def _work(services: Services, every_s: float, stop: threading.Event) -> None:
    while not stop.wait(every_s):
        for name in services.surface_names():
            if stop.is_set():
                return
            _refit(services, name)


def _refit(services: Services, name: str) -> None:
    began = time.monotonic()
    try:
        services.prepare(name)
    except Exception:  # what was fitted before goes on
        logger.exception("the sources of '%s' could not be fitted again", name)
    else:
        logger.info("the sources of '%s' were fitted again in %.1f s", name, time.monotonic() - began)
