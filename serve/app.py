"""The HTTP application: routes, strict bodies, problems, and the life of what stands behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from serve import document, problems
from serve.doors import Doorkeeper, Doors
from serve.keys import Keys
from serve.live import Live
from serve.models import Shelf
from serve.refit import refitting
from serve.routes import embeddings, health, ledger, metrics, model, rank, rerank, surfaces
from serve.services import Services
from serve.switch import Switch
from serve.watch import Watch

DESCRIPTION = """\
One mixture-of-experts decoder ranks candidates for every surface that a YAML file declares.

Every ranking comes back in time: past the deadline, over the model's capacity or without the model it is the retrieval
order, marked `degraded` with the reason. Every error is a problem (RFC 9457, `application/problem+json`).
"""

SILENT: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own spans tell the path, which may name a member; `serve.traces` has ours."""


def create_app(
    services: Services, folder: Path | None = None, keys: Keys | None = None, shelf: Shelf | None = None
) -> FastAPI:
    """The application over `services`. Its engine warms up in the background; `/readyz` says when it has.

    With a `folder`, from which the services' surfaces came, the server follows what changes there. With `keys`, only
    those who have one come in. With a `shelf`, the model may be changed for one of it.
    """
    live, switch = Live(services, folder), Switch(services, shelf)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        async with services.running(), live.running(), refitting(services, 60 * services.settings.refit_minutes):
            warming = asyncio.create_task(services.health.warm_up(), name="warm-up")
            try:
                yield
            finally:
                warming.cancel()
                with suppress(asyncio.CancelledError):
                    await warming
                await switch.close()

    app = FastAPI(
        title="prismrank", version="1", description=DESCRIPTION, lifespan=life, redirect_slashes=False, telemetry=SILENT
    )
    keys = keys or Keys()
    app.state.services, app.state.live, app.state.switch, app.state.keys = services, live, switch, keys
    problems.install(app)
    for part in (rank, surfaces, rerank, embeddings, model, ledger, health, metrics):
        app.include_router(part.router)
    document.install(app, services.settings)
    app.state.keeper = Doorkeeper(keys, services.let_in)
    app.add_middleware(Doors, keeper=app.state.keeper)
    app.add_middleware(Watch, services=services)
    return app
