"""The model as a method: the same trees that a request would become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from foundation.engine.base import Engine
from prompts.tree import PromptTree
from prompts.verbalize import TrunkForm
from surfaces.calibrated import CalibratedSurface
from surfaces.compose import Composer
from surfaces.evaluation.method import Judged
from surfaces.happenings import attributes_of, readable
from surfaces.heads.reading import read_heads
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Interactions, Materials
from surfaces.sources.fit import evidence_only
from surfaces.spec import SurfaceSpec
from surfaces.visit import Visit


class FoundationMethod:
    """Scores by utility, under the surface's adapter. The evidence comes from sources fitted to `train` alone.

    Without `evidence` it is the method `zero_shot`: the model reads the texts, and nothing that other members did. The
    `calibration` was fitted to leaves with evidence, so that method leaves it aside.
    """

    def __init__(
        self,
        spec: SurfaceSpec,
        form: TrunkForm,
        ledger: Ledger,
        engine: Engine,
        train: Interactions,
        *,
        evidence: bool = True,
        calibration: CalibratedSurface | None = None,
    ) -> None:
        self.name, self.learned = ("foundation" if evidence else "zero_shot"), (train,)
        self.spec = spec if evidence else spec.model_copy(update={"evidence": ()})
        self.form, self._engine = form, engine
        self._calibration = calibration if evidence else None
        materials = Materials(self.spec, train, ledger, engine)
        retrieval = evidence_only(materials)
        if spec.reads_vectors:
            retrieval = replace(retrieval, vectors=materials.vectors)
        self._composer = Composer(self.spec, form, retrieval, engine.count)

    def tree(self, visit: Visit, items: Sequence[str]) -> PromptTree:
        """What the model reads."""
        events = readable(visit.timeline, self.form.budget)
        known = visit.lookup(dict.fromkeys([*(event.item_id for event in events), *items]))
        return self._composer.tree(visit, known, items)

    def judge(self, visit: Visit, items: Sequence[str]) -> Judged:
        """The utility that the surface's heads give, and the heads' own values."""
        tree = self._engine.read(self.tree(visit, items)).adapted(self.spec.adapter or "")
        scored = self._engine.score([tree])[0]
        known = visit.lookup(items)
        reading = read_heads(
            self.spec,
            np.reshape(scored.logp, (len(items), len(self.spec.answers))),
            scored.likelihood,
            similarity_L=self._composer.retrieval.similarity(visit, items),
            attributes=[attributes_of(known[item_id]) for item_id in items],
            calibration=self._calibration,
        )
        heads = {head.name: reading.values[head.name] for head in self.spec.heads if head.probability}
        return Judged(reading.utility, heads, tree.size)
