"""What stands behind the routes: ledger, surfaces, fitted sources, engine, and the threads and the queue between."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock, RLock
from typing import Annotated, NamedTuple, Protocol, runtime_checkable

from fastapi import Depends, Request

from foundation.engine.base import Engine
from prompts import disarm, render
from prompts.errors import ConfigError, LedgerError, PrismrankError, SpecError, UnknownError
from prompts.suggest import suggest
from prompts.tree import Piece, PromptNode, PromptTree
from serve.admission import Admission, Ticket
from serve.batcher import Batcher, Limits
from serve.experiments import Traffic
from serve.figures import Figures
from serve.health import Health
from serve.lag import Lag
from serve.lane import Lane
from serve.models import Opened, ServedModel
from serve.rest import Rest
from serve.served import ServedSurface, make_ready
from serve.settings import Settings
from serve.traces import Traces
from serve.workers import Workers
from surfaces.adapters import Adapters
from surfaces.calibrated import Calibrations
from surfaces.ledger.records import Erased, quoted
from surfaces.ledger.store import Ledger
from surfaces.registry import Declared, Registry, shipped_folder
from surfaces.spec import SurfaceSpec, check_answers
from surfaces.spec_file import read_spec

logger = logging.getLogger(__name__)

FIRST_S = 1_000.0
"""What is begun is ended first: else all that waits ends late together."""

Progress = Callable[[str], None]
"""Called with the name of each step as it begins."""
Refuse = Callable[[str, PrismrankError], None]
"""Called with the name of a surface that cannot be made ready, and why."""


@runtime_checkable
class Forgetful(Protocol):
    """An engine that can drop what it remembers of members."""

    def forget(self) -> None:
        """Forgets every trunk."""
        ...


@runtime_checkable
class Placed(Protocol):
    """An engine that tells where it computes."""

    @property
    def elsewhere(self) -> bool:
        """Whether that is in another process, or not on this machine's processor."""
        ...


class Former(NamedTuple):
    """The model before the one that serves, and the surfaces as they were ready for it."""

    model: ServedModel
    served: Mapping[str, ServedSurface]

    def without(self, names: Sequence[str]) -> Former:
        """The same without surfaces that would have to be made ready anew."""
        return self._replace(served={name: each for name, each in self.served.items() if name not in names})


class Services:
    """Everything that a request needs, made once. Use it inside `async with services.running():`."""

    def __init__(
        self,
        ledger: Ledger,
        engine: Engine,
        registry: Registry,
        settings: Settings | None = None,
        calibrations: Calibrations | None = None,
        adapters: Path | None = None,
    ) -> None:
        """`calibrations` are those of the engine's weights; `adapters` is the folder of those that surfaces name.

        Raises ConfigError where there is no such folder.
        """
        self.ledger, self.registry = ledger, registry
        self.figures, self.traces = Figures(), Traces()
        self.settings = settings = settings or Settings()
        self.adapter_folder = adapters
        self.lane, self.lag, self.rest = Lane(), Lag(), Rest()
        self.model = self.model_of(engine.model_version.partition("@")[0], Opened(engine, calibrations))
        self.former: Former | None = None
        self.leaving = False
        room = settings.retrieval_room
        threads, local = settings.retrieval_threads, ledger.engine.dialect.name == "sqlite"
        self.retrieval = Workers("retrieval", threads=threads, room=room, lane=self.lane if local else None)
        self.composing = Workers("composing", threads=1, room=room, lane=self.lane, patience_s=-FIRST_S)
        self.judging = Workers("judging", threads=1, room=room, lane=self.lane, patience_s=-2 * FIRST_S)
        self.admission = Admission(self.retrieval, self.lag, settings.fallback_share)
        self.ingestion = Workers("ingestion", threads=2, room=settings.ingestion_room)
        self.embedding = Workers("embedding", threads=1, room=settings.embedding_room)
        self.writing = Lock()
        self.traffic = Traffic(ledger)
        self.figures.watch(lambda: self.engine.cache_stats, self.traffic)
        self._served: Mapping[str, ServedSurface] = {}
        self._changing = RLock()

    @classmethod
    def open(
        cls,
        ledger: Ledger,
        engine: Engine,
        registry: Registry,
        progress: Progress | None = None,
        calibrations: Calibrations | None = None,
        adapters: Path | None = None,
        settings: Settings | None = None,
    ) -> Services:
        """Services whose every surface is ready.

        A surface that comes with the package is left out, with a warning, where this model or ledger cannot serve it.
        Raises SpecError for another one's answers that the model cannot tell apart or its adapter that is not there,
        ConfigError for what cannot be had, CheckpointError for a calibration that speaks of other heads.
        """
        services = cls(ledger, engine, registry, settings, calibrations, adapters)
        shipped = str(shipped_folder())

        def refuse(name: str, error: PrismrankError) -> None:
            if not registry.declared(name).where.startswith(shipped):
                raise error
            logger.warning("the shipped surface '%s' is left out: %s", name, error)

        services.become(registry, progress, refuse)
        return services

    @property
    def engine(self) -> Engine:
        """The engine that serves now. A request asks the one of its surface."""
        return self.model.engine

    @property
    def batcher(self) -> Batcher:
        """The queue before it."""
        return self.model.batcher

    @property
    def health(self) -> Health:
        """Whether it answers."""
        return self.model.health

    @property
    def adapters(self) -> Adapters:
        """Its adapters."""
        return self.model.adapters

    def model_of(self, name: str, opened: Opened) -> ServedModel:
        """A model with what belongs to it, that takes no work yet. Raises ConfigError for no folder of adapters."""
        engine, settings = opened.engine, self.settings
        limits = Limits(settings.batch_slots, settings.queue_slots, settings.gather_ms / 1000)
        elsewhere = isinstance(engine, Placed) and engine.elsewhere
        batcher = Batcher(engine, limits, figures=self.figures, lane=None if elsewhere else self.lane)
        adapters = Adapters(engine, self.adapter_folder)
        return ServedModel(name, engine, batcher, adapters, opened.calibrations)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Takes requests until it is left."""
        async with self.traffic.running(), self.lag.running():
            await self.model.start()
            try:
                yield
            finally:
                for model in (self.model, *([self.former.model] if self.former else [])):
                    await model.stop(wait_s=0.0)
                for workers in (self.retrieval, self.composing, self.judging, self.ingestion, self.embedding):
                    workers.close()
                self.lane.close()

    def let_in(self, name: str) -> Ticket | None:
        """Lets in a request for a surface, whose deadline it keeps. Raises CapacityError where it would wait in vain.

        None for a surface that is not there.
        """
        served = self._served.get(name)
        return self.admission.let_in(name, served.deadline_s, model=served.asks_model) if served else None

    def surface_names(self) -> list[str]:
        """The surfaces that are ready, by name."""
        return sorted(self._served)

    def surfaces(self) -> list[ServedSurface]:
        """The surfaces that are ready, by name: all of one moment."""
        return [ready for _, ready in sorted(self._served.items())]

    def surface(self, name: str) -> ServedSurface:
        """A surface that is ready. Raises UnknownError that names what there is."""
        served = self._served  # one look: it may be exchanged beside
        if name in served:
            return served[name]
        raise UnknownError(f"no surface is called {quoted(name)}{suggest(name, served)}")

    def add(self, text: str, where: str) -> ServedSurface:
        """Takes in a surface file given as text, and makes it ready. Raises SpecError, ConfigError."""
        file = read_spec(text, where)
        if not isinstance(file.spec, SurfaceSpec):
            raise SpecError(f"{where}:1:1: this declares a trunk; a surface file begins with 'surface: NAME'")
        registry = self.registry.plus(file)
        self.adapters.load(registry.declared(file.name))
        self.become(registry)
        return self.surface(file.spec.surface)

    def become(self, registry: Registry, progress: Progress | None = None, refuse: Refuse | None = None) -> list[str]:
        """Serves what the registry declares, and returns the names of the surfaces that are new or changed.

        Those are made ready first and exchanged at once, so that a request sees the old or the new surface, whole.
        Raises for a surface that cannot be made ready, and then everything stays as it was; with `refuse`, it is told
        there, and what was served under its name, if anything, goes on.
        """
        with self._changing:
            served, changed = dict[str, ServedSurface](), list[str]()
            for name in registry.names():
                before, declared = self._served.get(name), registry.declared(name)
                if before is not None and before.version == declared.version:
                    served[name] = before if before.text == declared.text else replace(before, text=declared.text)
                    self._adapt(declared, refuse)
                    continue
                if progress:
                    progress(f"fitting the sources of '{name}'")
                try:
                    served[name] = self.ready(declared, self.model)
                    changed.append(name)
                except PrismrankError as error:
                    if refuse is None:
                        raise
                    refuse(name, error)
                    registry = self._as_before(name, registry, served)
            self.registry, self._served = registry, served
            return changed

    def exchange(self, model: ServedModel) -> Former | None:
        """Serves every surface with another model, from one request to the next; returns the model that is let go.

        Raises PrismrankError for a model that cannot rank one of the surfaces, and then everything stays as it was.
        """
        with self._changing:
            served = {name: self._with(model, name, each) for name, each in self._served.items()}
            let_go, self.former = self.former, Former(self.model, self._served)
            self.model, self._served = model, served
        return let_go

    def go_back(self) -> None:
        """Serves with the former model again; it and the one that served change places. Raises ConfigError for none."""
        with self._changing:
            if self.former is None:
                raise ConfigError("there is no former model to go back to: the server has not changed it yet")
            model, kept = self.former
            for name in self._served:
                model.adapters.load(self.registry.declared(name))
            served = {
                name: kept[name] if self._stands(kept.get(name), each) else self._with(model, name, each)
                for name, each in self._served.items()
            }
            self.former = Former(self.model, self._served)
            self.model, self._served = model, served

    def _stands(self, kept: ServedSurface | None, now: ServedSurface) -> bool:
        return kept is not None and kept.version == now.version

    def _with(self, model: ServedModel, name: str, before: ServedSurface) -> ServedSurface:
        """A surface that is served, ready for another model."""
        return self.ready(self.registry.declared(name), model, before)

    def _adapt(self, declared: Declared, refuse: Refuse | None) -> None:
        """Takes in the adapter of a surface that goes on, where it changed; a wrong one leaves what was loaded."""
        try:
            self.adapters.load(declared)
        except SpecError as error:
            if refuse is not None:
                refuse(declared.spec.surface, error)

    def _as_before(self, name: str, registry: Registry, served: dict[str, ServedSurface]) -> Registry:
        """The registry with what is served under a name now, or without the name."""
        if name not in self._served:
            return registry.without(registry.file(name), Registry())
        served[name] = self._served[name]
        return registry.plus(self.registry.file(name))

    def erase(self, member_id: str) -> Erased:
        """Erases a member from the ledger, and from what was computed of them. Raises UnknownError.

        Surfaces on which the member is an item are fitted again. The cache is emptied whole: what it holds is not
        known by whose it is.
        """
        self.traffic.log.forget(member_id)
        with self.writing:
            erased = self.ledger.erase(member_id)
        render.forget()
        disarm.forget()
        former = [self.former.model] if self.former else []
        for model in (self.model, *former):
            model.trunks.forget()
            model.leaves.forget()
            if isinstance(model.engine, Forgetful):
                model.engine.forget()
        if self.former:
            for each in self.former.served.values():
                each.retrieval.forget()
            self.former = self.former.without([n for n, each in self.former.served.items() if each.knows(member_id)])
        for name, served in list(self._served.items()):
            served.retrieval.forget()
            if served.knows(member_id):
                self.prepare(name)
        return erased

    def ledger_works(self) -> bool:
        """Whether the ledger can be read at all."""
        try:
            self.ledger.counts()
        except LedgerError:
            return False
        return True

    def prepare(self, name: str) -> ServedSurface:
        """Fits the sources of a registered surface to the ledger as it is now, beside the requests."""
        while True:
            declared, model = self.registry.declared(name), self.model
            ready = self.ready(declared, model)
            with self._changing:
                if model is self.model and declared == self.registry.declared(name):
                    self._served = {**self._served, name: ready}
                    self.former = self.former.without([name]) if self.former else None
                    return ready

    def ready(self, declared: Declared, model: ServedModel, before: ServedSurface | None = None) -> ServedSurface:
        """A surface with its sources fitted to the ledger and its adapter loaded, not yet served.

        `before` is the same surface, ready for another model.
        """
        model.adapters.load(declared)
        check_answers(declared.spec, partial(_first_token, model.engine))
        return make_ready(declared, self.ledger, model, before)


def _first_token(engine: Engine, word: str) -> tuple[int, ...]:
    """Where the engine reads the answer `word`."""
    leaf = PromptNode((Piece(word),), answers=(word,))
    return engine.read(PromptTree((leaf,))).nodes[0].answers


async def _current(request: Request) -> Services:  # a plain function would be run in a thread
    services: Services = request.app.state.services
    return services


CurrentServices = Annotated[Services, Depends(_current)]
"""A route's parameter of this type is given the application's services."""
