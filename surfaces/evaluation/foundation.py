"""The model as a method: the same trees that a request would become."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foundation.engine.base import Engine
from prompts.verbalize import TrunkForm
from surfaces.compose import Composer
from surfaces.happenings import attributes_of
from surfaces.heads.reading import read_heads
from surfaces.ledger.records import Event
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Interactions, Materials, Scores
from surfaces.sources.fit import evidence_only
from surfaces.spec import SurfaceSpec
from surfaces.visit import Visit


class FoundationMethod:
    """Scores by utility. The evidence in its leaves comes from sources fitted to `train` alone."""

    name = "foundation"

    def __init__(self, spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, engine: Engine, train: Interactions) -> None:
        self._spec, self._engine = spec, engine
        self._composer = Composer(spec, form, evidence_only(Materials(spec, train, ledger, engine)), engine.count)
        self._items = {item.item_id: item for item in ledger.all_items()}
        self._profiles = {member.member_id: member.profile for member in ledger.all_members()}

    def scores(self, history: Sequence[Event], items: Sequence[str]) -> Scores:
        """[items]: the utility that the surface's heads give."""
        member_id = history[0].member_id
        visit = Visit(history, member_id, self._profiles[member_id])
        tree = self._composer.tree(visit, self._items, items)
        scored = self._engine.score([self._engine.read(tree)])[0]
        answers = np.reshape(scored.logp, (len(items), len(self._spec.answers)))
        attributes = [attributes_of(self._items[item_id]) for item_id in items]
        similarity = self._composer.retrieval.similarity(visit, items)
        return read_heads(
            self._spec, answers, scored.likelihood, similarity_L=similarity, attributes=attributes
        ).utility
