"""The HTTP application: routes, strict bodies, problems, and the life of what stands behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI

from serve import document, problems
from serve.doors import Doors
from serve.keys import Keys
from serve.live import Live
from serve.routes import health, ledger, metrics, rank, surfaces
from serve.services import Services
from serve.watch import Watch

DESCRIPTION = """\
One mixture-of-experts decoder ranks candidates for every surface that a YAML file declares.

Every ranking comes back in time: past the deadline, over the model's capacity or without the model it is the retrieval
order, marked `degraded` with the reason. Every error is a problem (RFC 9457, `application/problem+json`).
"""


def create_app(services: Services, folder: Path | None = None, keys: Keys | None = None) -> FastAPI:
    """The application over `services`. Its engine warms up in the background; `/readyz` says when it has.

    With a `folder`, from which the services' surfaces came, the server follows what changes there. With `keys`, only
    those who have one come in.
    """
    live = Live(services, folder)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        async with services.running(), live.running():
            warming = asyncio.create_task(services.health.warm_up(), name="warm-up")
            try:
                yield
            finally:
                warming.cancel()
                with suppress(asyncio.CancelledError):
                    await warming

    app = FastAPI(title="prismrank", version="1", description=DESCRIPTION, lifespan=life, redirect_slashes=False)
    keys = keys or Keys()
    app.state.services, app.state.live, app.state.keys = services, live, keys
    problems.install(app)
    for router in (rank.router, surfaces.router, ledger.router, health.router, metrics.router):
        app.include_router(router)
    document.install(app, services.settings)
    app.add_middleware(Doors, keys=keys)
    app.add_middleware(Watch, figures=services.figures)
    return app
