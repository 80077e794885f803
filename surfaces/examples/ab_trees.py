"""A surface over A/B tests: labelled trees of them, and which text a model picks.

Every click of a test chose one text among those shown, each as often as it was shown: that is the softmax over a list
whose leaves stand for impressions (conditional logit: D. McFadden, "Conditional logit analysis of qualitative choice
behavior", 1974). Pairs of texts are preferences, as sure as the posterior of their rates.
Legend of array names: K texts of a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from foundation.engine.base import Engine
from foundation.training.labels import Graded, LabelledTree, Listwise, Preference
from prompts.errors import ConfigError
from prompts.tree import PromptNode, PromptTree
from prompts.verbalize import Trunk, TrunkForm, profile_piece
from surfaces.compose import compose, stem_pieces
from surfaces.examples.ab_tests import ABTest, Floats, SplitTests
from surfaces.heads.base import NO, YES
from surfaces.heads.reading import read_heads
from surfaces.leaves import leaf_piece
from surfaces.spec import SurfaceSpec

AT_ONCE = 64
"""Tests that are scored together."""


@dataclass(frozen=True)
class ABSurface:
    """One surface of a run, over A/B tests; at most `validating` of them validate."""

    spec: SurfaceSpec
    form: TrunkForm
    tests: SplitTests
    learn: bool
    validating: int

    def texts(self) -> Iterator[str]:
        """What is learned from, as text: what tests are about, and what was shown."""
        yield profile_piece(self.form, {}).text
        for test in self.tests.learned:
            yield from (piece.text for piece in stem_pieces(self.spec, context_of(test)))
            yield from (leaf_piece(self.spec, item_of(text)).text for text in test.texts)

    def validate(self, engine: Engine) -> dict[str, float]:
        """Of the tests that validate: `ndcg@10` as far as it is known which text is best, and `won`, see `won`."""
        tests = self.tests.validating[: self.validating]
        scores = scored(self.spec, self.form, engine, tests)
        pairs = list(zip(tests, scores, strict=True))
        return {
            "ndcg@10": round(float(np.mean([expected_ndcg(*pair) for pair in pairs])), 4),
            "won": round(float(np.mean([won(*pair) for pair in pairs])), 4),
        }


class ABTrees:
    """Labelled trees of A/B tests: each hangs some of them, drawn at random, on one empty trunk."""

    def __init__(self, tested: ABSurface, engine: Engine, *, positions: int) -> None:
        """`positions`: tests of a tree. Raises ConfigError for a surface without a pointwise head."""
        self.spec, self._form, self._engine = tested.spec, tested.form, engine
        self._tests, self._positions = tested.tests.learned, positions
        if not any(head.type == "pointwise" for head in self.spec.heads):
            raise ConfigError(
                f"surface '{self.spec.surface}': A/B tests teach how often a text is clicked; give it a head of type "
                "pointwise"
            )
        self._columns = self.spec.answers.index(YES), self.spec.answers.index(NO)

    @property
    def size(self) -> int:
        """How many tests there are to learn from."""
        return len(self._tests)

    def drawn(self, rng: np.random.Generator) -> LabelledTree:
        """A tree of tests at random."""
        places = rng.choice(self.size, min(self._positions, self.size), replace=False)
        return self.tree([self._tests[int(place)] for place in places])

    def tree(self, tests: Sequence[ABTest]) -> LabelledTree:
        """These tests on one trunk, each behind its own stem."""
        nodes = [PromptNode((profile_piece(self._form, {}),))]
        lists, graded, preferences = list[Listwise](), list[Graded](), list[Preference]()
        first = 0
        for test in tests:
            nodes += self._branch(test, stem=len(nodes))
            leaves = tuple(range(first, first := first + len(test.texts)))
            lists += self._lists(test, leaves)
            graded.append(Graded(leaves, tuple(test.rates_K.tolist()), *self._columns))
            preferences += self._preferences(test, leaves)
        prompt = PromptTree(tuple(nodes))
        tree = self._engine.read(prompt).adapted(self.spec.adapter or "")
        return LabelledTree(tree, tuple(lists), (), tuple(graded), preferences=tuple(preferences), prompt=prompt)

    def _branch(self, test: ABTest, stem: int) -> Iterator[PromptNode]:
        yield PromptNode(stem_pieces(self.spec, context_of(test)), parent=0)
        for text in test.texts:
            yield PromptNode((leaf_piece(self.spec, item_of(text)),), stem, answers=self.spec.answers)

    def _lists(self, test: ABTest, leaves: tuple[int, ...]) -> Iterator[Listwise]:
        """The choices that the clicks were; none where nobody clicked."""
        clicks, shown = sum(test.clicks), sum(test.impressions)
        if clicks:
            stands_for = tuple(len(leaves) * each / shown for each in test.impressions)
            shares = tuple(each / clicks for each in test.clicks)
            yield Listwise(leaves, test.best, *self._columns, stands_for, shares)

    def _preferences(self, test: ABTest, leaves: tuple[int, ...]) -> Iterator[Preference]:
        beats_KK = test.posterior.beats_KK
        for one, other in combinations(range(len(leaves)), 2):
            if beats_KK[one, other] < beats_KK[other, one]:
                one, other = other, one
            yield Preference(leaves[one], leaves[other], *self._columns, float(beats_KK[one, other]))


def context_of(test: ABTest) -> dict[str, object]:
    """What a surface may read of a test beside its texts, as a request's context would say it."""
    return {"about": test.context} if test.context else {}


def item_of(text: str) -> dict[str, object]:
    """A text as a candidate's attributes."""
    return {"text": text}


def scored(spec: SurfaceSpec, form: TrunkForm, engine: Engine, tests: Sequence[ABTest]) -> list[Floats]:
    """[K] of each test: the utility of its texts, from the trees that requests with these candidates become."""
    trunk, adapter = Trunk((profile_piece(form, {}),), 0), spec.adapter or ""
    found: list[Floats] = []
    for start in range(0, len(tests), AT_ONCE):
        trees = [
            engine.read(compose(spec, trunk, list(map(item_of, test.texts)), context_of(test))).adapted(adapter)
            for test in tests[start : start + AT_ONCE]
        ]
        found += [read_heads(spec, said.table(), said.likelihood).utility for said in engine.score(trees)]
    return found


def won(test: ABTest, scores_K: Floats) -> float:
    """Whether the text with the highest click rate has the highest score; its share of them among equal scores."""
    first = scores_K == scores_K.max()
    return float(first[test.best] / first.sum())


def expected_ndcg(test: ABTest, scores_K: Floats) -> float:
    """NDCG of the text with the highest true rate, in expectation over what the counts leave open."""
    places_K = (-scores_K).argsort(kind="stable").argsort()
    return float((test.posterior.best_K / np.log2(places_K + 2)).sum())
