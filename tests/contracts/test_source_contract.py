"""What every source does, whatever it knows.

A package that brings its own kind runs the same checks: `check_source(bench)`, where the bench builds the source.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.engine.torch import TorchEngine
from surfaces.kinds import kinds
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.sources.base import NOTHING, Indices, Interactions, Materials, Source, SourceKind, retrieve
from surfaces.sources.co_visitation import CoVisitation
from surfaces.sources.merge import Naming
from surfaces.spec import SurfaceSpec
from surfaces.visit import NOBODY, Visit

ITEMS, MEMBERS = 40, 25

EXAMPLES: Mapping[str, Sequence[Mapping[str, object]]] = {
    "popular": [{}, {"half_life": "2h"}, {"segment": "town"}],
    "co_visitation": [{}],
    "itemknn": [{}, {"neighbours": 3, "shrink": 0, "weighting": "tf-idf", "decay": 1}],
    "ease": [{}, {"l2": 5, "decay": 0.5}],
    "als": [{"factors": 3, "iterations": 5}, {"factors": 4, "regularization": 2.0, "alpha": 6, "decay": 1.0}],
    "slist": [{}, {"l2": 5, "decay": 0.5}],
    "sasrec": [{}, {"dim": 4, "layers": 1, "max_length": 4, "dropout": 0, "epochs": 3, "fewest": 2}],
    "embedding": [{}],
    "bm25": [{}, {"from": "timeline"}, {"from": "query"}],
    "recent": [{}, {"by": "made"}],
    "sql": [
        {"query": "SELECT item_id FROM items WHERE attributes ->> 'town' = :profile_town ORDER BY item_id DESC"},
        {"query": "SELECT item_id FROM items WHERE CAST(attributes ->> 'made' AS REAL) < :now ORDER BY 1 LIMIT :k"},
    ],
    "request": [{}],
}
"""Settings of every kind, to be run through the checks; `type` and `k` are added."""


def interactions(sequences: Sequence[Sequence[int]], items: int = ITEMS) -> Interactions:
    item_ids = tuple(name(place) for place in range(items))
    return Interactions(
        item_ids=item_ids,
        index={item_id: place for place, item_id in enumerate(item_ids)},
        member_ids=tuple(f"member {place}" for place in range(len(sequences))),
        sequences=tuple(np.array(sequence, dtype=np.int64) for sequence in sequences),
        times=tuple(np.arange(len(sequence), dtype=np.float64) * 3_600 for sequence in sequences),
    )


def name(place: int) -> str:
    return f"item {place:03}"


def drawn(seed: int, items: int = ITEMS) -> Interactions:
    """Members who choose from the first three quarters of the items, the early ones more often."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, 3 * items // 4 + 1)
    return interactions(
        [list(rng.choice(len(weights), size=rng.integers(0, 30), p=weights / weights.sum())) for _ in range(MEMBERS)],
        items,
    )


def history(items: Sequence[int]) -> Indices:
    return np.array(items, dtype=np.int64)


@dataclass(frozen=True)
class Bench:
    """`source` makes the source, not yet fitted, over that many items; `visits` are some that it must answer."""

    source: Callable[[int], Source]
    visits: Sequence[Visit] = (NOBODY,)

    def fitted(self) -> Source:
        source = self.source(ITEMS)
        source.fit(drawn(0))
        return source


# The checks

HISTORIES = [[], [0], [3, 1, 4, 1, 5], [39], list(range(40)), [2] * 500, list(range(40)) * 50]


def check_scores(bench: Bench) -> None:
    source = bench.fitted()
    for visit in bench.visits:
        for items in HISTORIES:
            history_H = history(items)
            scores_I = source.scores(history_H, visit).copy()
            assert scores_I.shape == (ITEMS,)
            assert scores_I.dtype == np.float64
            assert not np.isnan(scores_I).any()
            assert not np.isposinf(scores_I).any()
            assert np.array_equal(history_H, history(items)), "the history is only read"
            assert np.array_equal(source.scores(history_H, visit), scores_I)


def check_what_is_retrieved_is_the_best_of_the_scores(bench: Bench) -> None:
    source = bench.fitted()
    for visit in bench.visits:
        for items in HISTORIES:
            for k in (1, 3, 10, ITEMS, 1_000):
                check_best(source, history(items), visit, k, set(items[:5]) | {0, 7})


def check_best(source: Source, history_H: Indices, visit: Visit, k: int, exclude: Collection[int]) -> None:
    found = retrieve(source, history_H, k, exclude, visit)
    scores_I = source.scores(history_H, visit)
    open_items = [item for item in range(ITEMS) if item not in exclude and scores_I[item] > NOTHING]
    right = sorted(open_items, key=lambda item: (-scores_I[item], item))[:k]
    assert len(found) == len(right)
    assert len({item for item, _ in found}) == len(found)
    assert not set(exclude) & {item for item, _ in found}
    assert [score for _, score in found] == pytest.approx([scores_I[item] for item in right], abs=1e-6)
    assert [score for _, score in found] == pytest.approx([scores_I[item] for item, _ in found], abs=1e-6)


def check_retrieving_changes_nothing(bench: Bench) -> None:
    source = bench.fitted()
    for visit in bench.visits:
        before = source.scores(history([1, 2]), visit).copy()
        retrieve(source, history([1, 2]), 5, {3, 4, 5}, visit)
        assert np.array_equal(source.scores(history([1, 2]), visit), before)
        assert retrieve(source, history([1, 2]), 5, range(ITEMS), visit) == []


def check_the_same_data_gives_the_same_source(bench: Bench) -> None:
    one, other = bench.source(ITEMS), bench.source(ITEMS)
    one.fit(drawn(1))
    other.fit(drawn(1))
    for visit in bench.visits:
        assert np.array_equal(one.scores(history([5, 6]), visit), other.scores(history([5, 6]), visit))


def check_fitting_again_forgets(bench: Bench) -> None:
    source, fresh = bench.source(ITEMS), bench.source(ITEMS)
    source.fit(drawn(1))
    source.fit(drawn(2))
    fresh.fit(drawn(2))
    for visit in bench.visits:
        assert np.array_equal(source.scores(history([5, 6]), visit), fresh.scores(history([5, 6]), visit))


def check_fitting_only_reads_the_data(bench: Bench) -> None:
    data, same = drawn(3), drawn(3)
    bench.source(ITEMS).fit(data)
    assert all(np.array_equal(one, other) for one, other in zip(data.sequences, same.sequences, strict=True))
    assert all(np.array_equal(one, other) for one, other in zip(data.times, same.times, strict=True))


def check_no_events_at_all(bench: Bench) -> None:
    for members in (0, 1, 3):
        source = bench.source(ITEMS)
        source.fit(interactions([[] for _ in range(members)]))
        for visit in bench.visits:
            scores_I = source.scores(history([]), visit)
            assert scores_I.shape == (ITEMS,)
            assert not np.isnan(scores_I).any()
            assert len(retrieve(source, history([1]), 5, (), visit)) <= 5


def check_no_items_at_all(bench: Bench) -> None:
    source = bench.source(0)
    source.fit(interactions([[], []], items=0))
    for visit in bench.visits:
        assert source.scores(history([]), visit).shape == (0,)
        assert retrieve(source, history([]), 5, (), visit) == []


def check_a_single_item(bench: Bench) -> None:
    source = bench.source(1)
    source.fit(interactions([[0, 0], [0]], items=1))
    for visit in bench.visits:
        assert source.scores(history([0]), visit).shape == (1,)
        assert retrieve(source, history([0]), 3, {0}, visit) == []


def check_many_threads_at_once(bench: Bench) -> None:
    source = bench.fitted()
    for visit in bench.visits:
        histories = [history([place % ITEMS, (place * 7) % ITEMS]) for place in range(60)]
        ask = partial(source.scores, visit=visit)
        alone = [ask(history_H).copy() for history_H in histories]
        with ThreadPoolExecutor(6) as threads:
            together = list(threads.map(ask, histories))
        assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def check_any_data(bench: Bench) -> None:
    source = bench.source(12)

    @settings(max_examples=25)
    @given(
        sequences=st.lists(st.lists(st.integers(0, 11), max_size=8), max_size=6),
        items=st.lists(st.integers(0, 11), max_size=6),
        k=st.integers(1, 15),
        visit=st.sampled_from(bench.visits),
    )
    def check(sequences: list[list[int]], items: list[int], k: int, visit: Visit) -> None:
        source.fit(interactions(sequences, items=12))
        found = retrieve(source, history(items), k, set(items), visit)
        assert len(found) <= min(k, 12 - len(set(items)))
        scores = [score for _, score in found]
        assert scores == sorted(scores, reverse=True)
        assert np.isfinite(scores).all()

    check()


def check_names_are_ids_each_once(bench: Bench) -> None:
    source = bench.fitted()
    if not isinstance(source, Naming):
        return
    for visit in bench.visits:
        named = list(source.named(visit))
        assert all(isinstance(item_id, str) for item_id in named)
        assert len(set(named)) == len(named)
        assert list(source.named(visit)) == named


CHECKS = [
    check_scores,
    check_what_is_retrieved_is_the_best_of_the_scores,
    check_retrieving_changes_nothing,
    check_the_same_data_gives_the_same_source,
    check_fitting_again_forgets,
    check_fitting_only_reads_the_data,
    check_no_events_at_all,
    check_no_items_at_all,
    check_a_single_item,
    check_many_threads_at_once,
    check_any_data,
    check_names_are_ids_each_once,
]


def check_source(bench: Bench) -> None:
    """Everything that a source must do."""
    for check in CHECKS:
        check(bench)


# What the sources are made of


@dataclass(frozen=True)
class Workshop:
    """A folder of ledgers with so many items each, a model, and a surface of things."""

    folder: Path
    engine: TorchEngine
    opened: dict[int, Ledger]

    def ledger(self, items: int) -> Ledger:
        if items not in self.opened:
            self.opened[items] = Ledger.open(f"sqlite:///{self.folder}/{items}.sqlite")
            self.opened[items].write(
                items=[thing(place) for place in range(items)],
                members=[Member(f"member {place}", {"town": towns(place)}) for place in range(MEMBERS)],
            )
        return self.opened[items]

    def build(self, entry: Mapping[str, object], items: int) -> Source:
        """The source that an entry of a surface file gives, over so many items."""
        kind = cast("type[SourceKind]", kinds("sources")[str(entry["type"])])
        data = interactions([], items)
        return kind.model_validate(entry).build(Materials(surface(), data, self.ledger(items), self.engine))


def thing(place: int) -> Item:
    made: object = 3_600.0 * place if place % 2 else f"1970-01-0{1 + place % 7}T12:00:00Z"
    words = f"a film {place % 7} of {place % 5} and {place}"
    return Item(name(place), "thing", {"title": words, "town": towns(place), **({"made": made} if place % 9 else {})})


def towns(place: int) -> str:
    return ("Rome", "Oslo", "Köln")[place % 3]


@cache
def surface() -> SurfaceSpec:
    text = """
surface: things
description: Things
item_kind: thing
prompt: {instruction: Which thing?, item: "{{ title }}"}
sources: [{type: popular, k: 3}]
heads: [{name: watch, type: pointwise, weight: 1}]
"""
    spec = Registry.shipped().add(text, "things.yaml")
    assert isinstance(spec, SurfaceSpec)
    return spec


def visits(ledger: Ledger) -> list[Visit]:
    """One of nobody, and one that tells everything."""
    told = Visit(
        timeline=[Event("member 1", name(place), "things", "watch", 10.0 + place) for place in (3, 1, 4)],
        member_id="member 1",
        profile={"town": "Oslo", "age": 30},
        context={"query": "film 3, of 4 & 17?", "page": 2},
        now=3_600.0 * 20,
        lookup=ledger.items,
        given=[name(7), "nothing", name(3), name(7), name(39)],
    )
    return [NOBODY, told]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, tiny_engine: TorchEngine) -> Iterator[Workshop]:
    made = Workshop(tmp_path_factory.mktemp("ledgers"), tiny_engine, {})
    yield made
    for ledger in made.opened.values():
        ledger.close()


def test_every_kind_is_here() -> None:
    assert set(EXAMPLES) == set(kinds("sources")), "give each kind of source an example, so that it is checked"


ENTRIES = [{"type": kind, "k": 5, **example} for kind, examples in EXAMPLES.items() for example in examples]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: " ".join(map(str, entry.values()))[:40])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_source(check: Callable[[Bench], None], entry: Mapping[str, object], workshop: Workshop) -> None:
    check(Bench(partial(workshop.build, entry), visits(workshop.ledger(ITEMS))))


def test_a_narrow_source() -> None:
    check_source(Bench(lambda _: CoVisitation(neighbours=3, recent=2, decay=0.5)))


@pytest.mark.parametrize("kind", sorted(kinds("sources")))
def test_what_a_file_may_say_of_a_kind(kind: str) -> None:
    """Every key has a description in the published schema, and an entry says the same when it is written again."""
    model = kinds("sources")[kind]
    keys = model.model_json_schema()["properties"]
    assert all("description" in keys[key] or "anyOf" in keys[key] for key in keys if key != "type")
    for example in EXAMPLES[kind]:
        entry = model.model_validate({"type": kind, "k": 5, **example})
        written = entry.model_dump(mode="json")
        assert set(written) == set(keys)
        assert model.model_validate(written) == entry
