"""What stands behind the routes: ledger, surfaces, fitted sources, engine, and the threads and the queue between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request

from foundation.engine.base import Engine
from prompts.errors import SpecError, UnknownError
from prompts.suggest import suggest
from prompts.tree import Piece, PromptNode, PromptTree
from serve.batcher import Batcher, Limits
from serve.health import Health
from serve.served import ServedSurface
from serve.workers import Workers
from surfaces.ledger.records import quoted
from surfaces.ledger.store import Ledger
from surfaces.policies import build_policies
from surfaces.registry import Registry
from surfaces.sources.base import Interactions
from surfaces.sources.fit import fit_sources
from surfaces.spec import SurfaceSpec, check_answers

Progress = Callable[[str], None]
"""Called with the name of each step as it begins."""


class Services:
    """Everything that a request needs, made once. Use it inside `async with services.running():`."""

    def __init__(self, ledger: Ledger, engine: Engine, registry: Registry, limits: Limits | None = None) -> None:
        self.ledger, self.engine, self.registry = ledger, engine, registry
        self.batcher = Batcher(engine, limits or Limits())
        self.health = Health(self.batcher, engine)
        self.retrieval = Workers("retrieval", threads=4, room=256)
        self.composing = Workers("composing", threads=1, room=256)
        self._served: dict[str, ServedSurface] = {}

    @classmethod
    def open(cls, ledger: Ledger, engine: Engine, registry: Registry, progress: Progress | None = None) -> Services:
        """Services whose every surface is ready. Raises SpecError for answers that the model cannot tell apart."""
        services = cls(ledger, engine, registry)
        for name in registry.names():
            if progress:
                progress(f"fitting the sources of '{name}'")
            services.prepare(name)
        return services

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Takes requests until it is left."""
        async with self.batcher.running():
            try:
                yield
            finally:
                self.retrieval.close()
                self.composing.close()

    def surface_names(self) -> list[str]:
        """The surfaces that are ready, by name."""
        return sorted(self._served)

    def surface(self, name: str) -> ServedSurface:
        """A surface that is ready. Raises UnknownError that names what there is."""
        if name in self._served:
            return self._served[name]
        raise UnknownError(f"no surface is called {quoted(name)}{suggest(name, self._served)}")

    def add(self, text: str, where: str) -> ServedSurface:
        """Takes in a surface file given as text, and makes it ready. Raises SpecError."""
        spec = self.registry.add(text, where)
        if not isinstance(spec, SurfaceSpec):
            raise SpecError(f"{where}:1:1: this declares a trunk; a surface file begins with 'surface: NAME'")
        return self.prepare(spec.surface)

    def prepare(self, name: str) -> ServedSurface:
        """Fits the sources of a registered surface to the ledger as it is now."""
        spec = self.registry.surface(name)
        check_answers(spec, self._first_token)
        interactions = Interactions.of(self.ledger, spec.item_kind)
        retrieval = fit_sources(spec, interactions, self.ledger, self.engine)
        form = self.registry.trunk(spec.trunk)
        self._served[name] = ServedSurface(spec, form, retrieval, build_policies(spec.policies))
        return self._served[name]

    def _first_token(self, word: str) -> tuple[int, ...]:
        """Where the engine reads the answer `word`."""
        leaf = PromptNode((Piece(word),), answers=(word,))
        return self.engine.read(PromptTree((leaf,))).nodes[0].answers


def _current(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


CurrentServices = Annotated[Services, Depends(_current)]
"""A route's parameter of this type is given the application's services."""
