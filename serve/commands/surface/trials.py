"""Surfaces tried out: for a few members of a ledger, by the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from serve.preview import DryRun, dry_run, slots_of
from serve.schemas import RankRequest
from serve.served import ServedSurface
from serve.services import Services
from surfaces.authoring.advice import Advice, in_order
from surfaces.authoring.advice_file import of_file
from surfaces.authoring.advice_ledger import of_ledger
from surfaces.authoring.survey import draw_members, kinds_of, survey
from surfaces.authoring.trial import Trial, brought, of_trials, silent
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.spec import SurfaceSpec
from surfaces.spec_file import SpecFile

if TYPE_CHECKING:
    from foundation.engine.base import Engine

COLUMNS = ("member", "events", "candidates", "trunk", "stem", "leaf", "longest", "slots", "ms")


class Tried(NamedTuple):
    """What to say of a file, and the rankings that it is said of."""

    advice: Sequence[Advice]
    trials: Sequence[Trial] = ()


@dataclass(frozen=True)
class Bench:
    """Where surfaces are tried out: a ledger, and a model where there is one.

    `members` are tried; without any, `draw` of them are drawn by `seed` for each surface.
    """

    ledger: Ledger
    registry: Registry
    engine: Engine | None
    members: Sequence[str] = ()
    draw: int = 5
    seed: int = 0
    adapters: Path | None = None

    def tried(self, file: SpecFile, spec: SurfaceSpec) -> Tried:
        """The surface beside the ledger. Raises ConfigError for what is not to be had there."""
        found = survey(self.ledger, spec.item_kind)
        form, kinds = self.registry.trunk(spec.trunk), kinds_of(self.ledger)
        trials = list(self._trials(spec)) if self.engine and found.items else []
        advice = [*of_file(spec), *of_ledger(spec, form, found, kinds), *of_trials(spec, found, trials)]
        return Tried(in_order(advice, file), trials)

    def _trials(self, spec: SurfaceSpec) -> Iterator[Trial]:
        if self.engine is None:
            return
        services = Services(self.ledger, self.engine, self.registry, adapters=self.adapters)
        surface = services.prepare(spec.surface)
        for member in self.members or draw_members(self.ledger, spec.item_kind, self.draw, self.seed):
            yield _trial(dry_run(RankRequest(member_id=member), surface, services), surface)


def _trial(run: DryRun, surface: ServedSurface) -> Trial:
    visit, candidates, view = run.shortlist.visit, run.shortlist.candidates, run.preview
    return Trial(
        visit=visit,
        candidates=candidates,
        acts=view.events,
        told=view.events_told,
        trunk=slots_of(view.trunk),
        stem=slots_of(view.stem),
        leaves=[slots_of(leaf.pieces) for leaf in view.leaves],
        silent=silent(surface.spec, surface.retrieval, visit, candidates),
        seconds=run.seconds,
    )


def summary(spec: SurfaceSpec, trials: Sequence[Trial]) -> RenderableType:
    """The rankings as a table, and what each source brought."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 1))
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "member" else "right", no_wrap=True)
    for trial in trials:
        table.add_row(*_row(trial))
    counts = ", ".join(f"{name} {count:.0f}" for name, count in brought(spec, trials).items())
    return Group(
        table, Text(f"candidates by source, in the mean: {counts}", style="dim", no_wrap=True, overflow="ignore")
    )


def _row(trial: Trial) -> list[str]:
    told = f"{trial.told}/{trial.acts}" if trial.told < trial.acts else str(trial.acts)
    mean = sum(trial.leaves) / len(trial.leaves) if trial.leaves else 0.0
    longest = max(trial.leaves, default=0)
    sizes = (str(len(trial.candidates)), str(trial.trunk), str(trial.stem), f"{mean:.1f}", str(longest))
    return [trial.visit.member_id, told, *sizes, f"{trial.slots:,}", f"{trial.seconds * 1000:.0f}"]
