"""The model as a method: the same trees that a request would become."""

from __future__ import annotations

from collections.abc import Sequence

from foundation.engine.base import Engine
from prompts.verbalize import TrunkForm
from surfaces.compose import Composer
from surfaces.heads import read_heads
from surfaces.ledger.records import Event
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Interactions, Scores
from surfaces.sources.fit import evidence_only
from surfaces.spec import SurfaceSpec


class FoundationMethod:
    """Scores by utility. The evidence in its leaves comes from sources fitted to `train` alone."""

    name = "foundation"

    def __init__(self, spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, engine: Engine, train: Interactions) -> None:
        self._spec, self._engine = spec, engine
        self._composer = Composer(spec, form, evidence_only(spec, train), engine.count)
        self._items = {item.item_id: item for item in ledger.all_items()}
        self._profiles = {member.member_id: member.profile for member in ledger.all_members()}

    def scores(self, history: Sequence[Event], items: Sequence[str]) -> Scores:
        """[items]: the utility that the surface's heads give."""
        tree = self._composer.tree(self._profiles[history[0].member_id], history, self._items, items)
        scored = self._engine.score([self._engine.read(tree)])[0]
        return read_heads(self._spec, scored.table(), scored.likelihood).utility
