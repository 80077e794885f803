"""Another model for a server that runs: read, tried and made ready beside the one that serves, then exchanged."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Request

from prompts.errors import UnknownError
from serve.models import Opened, ServedModel, Shelf
from serve.services import Former, Services


class Switch:
    """Changes the model, one change at a time. Whatever is wrong with the new one, the old one serves on."""

    def __init__(self, services: Services, shelf: Shelf | None = None) -> None:
        self.services, self.shelf = services, shelf
        self._changing = asyncio.Lock()
        self._leaving = set[asyncio.Task[None]]()

    def names(self) -> list[str]:
        """The models that there are."""
        return self.shelf.names() if self.shelf else []

    async def change(self, name: str) -> None:
        """Serves with the model of that name.

        Raises UnknownError for a name that there is not, and PrismrankError for a model that is damaged, does not
        answer, or cannot rank a surface that is served.
        """
        if self.shelf is None:
            raise UnknownError("this server has no models to change to; `prismrank serve` has")
        async with self._changing:
            opened: Opened = await asyncio.to_thread(self.shelf.take, name)
            model = self.services.model_of(name, opened)
            await model.start()
            try:
                await model.warm_up()
                let_go = await asyncio.to_thread(self.services.exchange, model)
            except BaseException:
                await model.stop(wait_s=0.0)
                raise
            self._let_go(let_go)

    async def back(self) -> None:
        """Serves with the former model again. Raises ConfigError where there is none."""
        async with self._changing:
            await asyncio.to_thread(self.services.go_back)

    def _let_go(self, former: Former | None) -> None:
        """Ends a model beside the requests, when its last one has its reply."""
        if former is not None:
            task = asyncio.create_task(_end(former.model), name="a model leaves")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Waits for no model any longer."""
        for task in list(self._leaving):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _end(model: ServedModel) -> None:
    try:
        await model.stop()
    except asyncio.CancelledError:
        await model.stop(wait_s=0.0)
        raise


async def _current(request: Request) -> Switch:  # a plain function would be run in a thread
    switch: Switch = request.app.state.switch
    return switch


CurrentSwitch = Annotated[Switch, Depends(_current)]
"""A route's parameter of this type is given the application's switch."""
