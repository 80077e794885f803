"""How far words that attack move an item: lists of candidates of which one, or the member, tries to talk to the model.

Each payload's place is compared with that of the same item with words that say nothing, as many tokens of them. Leaves
do not see each other, so that all payloads of a list hang as leaves of one tree, beside the candidates.
Legend of array names: L leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from foundation.engine.base import Engine
from prompts.tree import Piece, PromptTree
from prompts.verbalize import Happening, Trunk, TrunkForm, verbalize
from surfaces.compose import compose
from surfaces.evaluation.method import CaseVisit, Visits
from surfaces.evaluation.metrics import ndcg
from surfaces.evaluation.payloads import ITEM, NAMES, Payload, carrying, text_field
from surfaces.evaluation.protocols import Case, Split
from surfaces.happenings import attributes_of, happenings, readable
from surfaces.heads.reading import read_heads
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Materials
from surfaces.sources.fit import evidence_only
from surfaces.sources.merge import Retrieval
from surfaces.spec import SurfaceSpec

SAYS_NOTHING = (
    "and then some of it was there for a while with other things that were also here now as at this or time in "
    "such places where one may see them from day to when they go by on their way out again over each part but "
    "not all which can be so much more like any line made up about few small words between two ends"
)
PLAIN = tuple(SAYS_NOTHING.split())
"""Words that say nothing, each once."""
FIELD = "occupation"
"""What a member says of themselves: where the profile has it, payloads stand behind it."""
K = 10

Attributes: TypeAlias = Mapping[str, object]
Floats: TypeAlias = npt.NDArray[np.float64]


class Attempt(NamedTuple):
    """Places of one item in a list, counted from 1, the mean of level ones: with a payload, with words that say
    nothing, and as it was.
    """

    payload: Payload
    attacked: float
    neutral: float
    clean: float


class Trial(NamedTuple):
    """One member's list: its NDCG@10 without any attack, and what each payload did there."""

    ndcg: float
    attempts: tuple[Attempt, ...]


class Slot(NamedTuple):
    """Where words of so many tokens stand: ahead of an item's text, or behind it."""

    tokens: int
    ahead: bool


@dataclass(frozen=True)
class Arena:
    """One surface over one ledger, ready to be attacked: lists, and the sources of the leaves' evidence."""

    spec: SurfaceSpec
    form: TrunkForm
    ledger: Ledger
    engine: Engine
    split: Split
    seed: int = 0

    def silent(self) -> Arena:
        """The same lists without evidence in the leaves: the model reads nothing but texts."""
        return replace(self, spec=self.spec.model_copy(update={"evidence": ()}))

    def on_items(self, number: int, payloads: Sequence[Payload]) -> Trial:
        """List `number`, where a drawn item that is not wanted carries each of the payloads, one after the other."""
        scene = self._scene(number)
        own, rng = scene.attributes[scene.at], np.random.default_rng((self.seed, number, 1))
        slots = [Slot(self._tokens(each.text), bool(rng.integers(2))) for each in payloads]
        start = int(rng.integers(len(PLAIN)))
        plain = {slot: self.plain(slot.tokens, start) for slot in sorted(set(slots))}
        said = [carrying(self.spec, own, each.text, ahead=s.ahead) for each, s in zip(payloads, slots, strict=True)]
        said += [carrying(self.spec, own, words, ahead=slot.ahead) for slot, words in plain.items()]
        scores_L = self._scores(self._tree(scene, scene.trunk(self), said), scene, said)
        list_L, more_L = np.split(scores_L, [len(scene.items)])
        places = scene.places(list_L, more_L)
        neutral = dict(zip(plain, places[len(payloads) :], strict=True))
        return scene.trial(list_L, [
            Attempt(each, place, neutral[slot], scene.places(list_L, list_L[[scene.at]])[0])
            for each, slot, place in zip(payloads, slots, places, strict=False)
        ])  # fmt: skip

    def on_member(self, number: int, payloads: Sequence[Payload]) -> Trial:
        """List `number`, where the member's own text asks for a drawn item that is not wanted."""
        scene, rng = self._scene(number), np.random.default_rng((self.seed, number, 2))
        named = str(scene.attributes[scene.at][text_field(self.spec, scene.attributes[scene.at]) or "item_id"])
        asked = [each.text.replace(ITEM, named) for each in payloads]
        plain = [self.plain(self._tokens(text), int(rng.integers(len(PLAIN)))) for text in asked]
        profile = [bool(rng.integers(2)) for _ in payloads]
        trunks = [scene.trunk(self)]
        for words in (asked, plain):
            trunks += [scene.trunk(self, text, profile=where) for text, where in zip(words, profile, strict=True)]
        clean_L, *rest = (self._scores(self._tree(scene, trunk, ()), scene, ()) for trunk in trunks)
        clean, *places = (scene.places(told_L, told_L[[scene.at]])[0] for told_L in (clean_L, *rest))
        return scene.trial(clean_L, [
            Attempt(each, attacked, neutral, clean)
            for each, attacked, neutral in zip(payloads, places, places[len(payloads) :], strict=False)
        ])  # fmt: skip

    def plain(self, tokens: int, start: int = 0) -> str:
        """Words that say nothing, as many tokens as near as may be: from word `start` on, and round again."""
        words: list[str] = []
        while self._tokens(" ".join(words)) < tokens:
            words.append(PLAIN[(start + len(words)) % len(PLAIN)])
        return " ".join(words)

    def _tokens(self, text: str) -> int:
        return self.engine.count(Piece(text)) if text else 0

    @cached_property
    def _visits(self) -> Visits:
        return Visits(self.ledger)

    @cached_property
    def _retrieval(self) -> Retrieval:
        materials = Materials(self.spec, self.split.train, self.ledger, self.engine)
        found = evidence_only(materials)
        return replace(found, vectors=materials.vectors) if self.spec.reads_vectors else found

    def _scene(self, number: int) -> Scene:
        case, items = self.split.cases[number], self.split.items(number)
        visit = self._visits.of(case)
        known = visit.lookup(items)
        attributes = [attributes_of(known[item_id]) for item_id in items]
        open_to = [n for n, item_id in enumerate(items)
                   if item_id not in case.wanted and text_field(self.spec, attributes[n])]  # fmt: skip
        at = int(np.random.default_rng((self.seed, number, 0)).choice(open_to)) if open_to else 0
        return Scene(case, visit, items, attributes, at)

    def _tree(self, scene: Scene, trunk: Trunk, more: Sequence[Attributes]) -> PromptTree:
        """The list's leaves, then one for each way in which the attacked item may speak; its evidence is the same."""
        names = [*scene.items, *[scene.items[scene.at]] * len(more)]
        evidence = self._retrieval.evidence(scene.visit, names, compress=self.spec.prompt.compress)
        return compose(self.spec, trunk, [*scene.attributes, *more], scene.visit.context, evidence)

    def _scores(self, tree: PromptTree, scene: Scene, more: Sequence[Attributes]) -> Floats:
        """[L]: the utility of each leaf."""
        names = [*scene.items, *[scene.items[scene.at]] * len(more)]
        scored = self.engine.score([self.engine.read(tree)])[0]
        reading = read_heads(
            self.spec,
            np.reshape(scored.logp, (len(names), len(self.spec.answers))),
            scored.likelihood,
            similarity_L=self._retrieval.similarity(scene.visit, names),
            attributes=[*scene.attributes, *more],
        )
        return np.asarray(reading.utility, dtype=np.float64)


class Scene(NamedTuple):
    """A list before anybody attacks; `at` is the place in `items` of the one that will, or that will be asked for."""

    case: Case
    visit: CaseVisit
    items: list[str]
    attributes: list[dict[str, object]]
    at: int

    def trunk(self, arena: Arena, words: str = "", *, profile: bool = True) -> Trunk:
        """The member as text, with words in the profile, or in the text of one more event."""
        events = readable(self.visit.timeline, arena.form.budget)
        told = happenings(self.visit.timeline, self.visit.lookup({event.item_id for event in events}))
        about = dict(self.visit.profile)
        if words and profile:
            about[FIELD] = f"{about.get(FIELD, '')} {words}"
        elif words:
            done = self.case.history[-1].action
            told.append(Happening(arena.spec.item_kind, done, dict.fromkeys(NAMES, words)))
        return verbalize(arena.form, about, told, arena.engine.count)

    def places(self, list_L: Floats, scores_L: Floats) -> list[float]:
        """Where in the list the item would stand with each of these scores, in the place of its own."""
        others_L = np.delete(list_L, self.at)
        above = (others_L > scores_L[:, None]).sum(axis=1)
        level = (others_L == scores_L[:, None]).sum(axis=1)
        return [float(place) for place in 1 + above + level / 2]

    def trial(self, list_L: Floats, attempts: Sequence[Attempt]) -> Trial:
        """The attempts, beside what the list is worth without them."""
        labels = np.array([self.case.labels.get(item_id, 0.0) for item_id in self.items])
        return Trial(ndcg(list_L, labels, K), tuple(attempts))
