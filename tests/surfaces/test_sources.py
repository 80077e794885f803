"""What each source counts, and how sources are fitted, asked together and put in order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.engine.torch import TorchEngine
from prompts.errors import ConfigError, SpecError
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.sources import co_visitation
from surfaces.sources.base import NOTHING, Indices, Interactions, Materials, best, retrieve
from surfaces.sources.co_visitation import CoVisitation
from surfaces.sources.embedding import Embedding
from surfaces.sources.fit import fit_sources
from surfaces.sources.merge import RRF, Candidate, Retrieval, fallback_order, fuse, parts, shares
from surfaces.sources.popular import FEWEST, Popular
from surfaces.sources.recent import Recent
from surfaces.sources.vectors import HALF_LIFE, RECENT, TEXTS_AT_ONCE, Vectors
from surfaces.spec import SurfaceSpec
from surfaces.visit import NOBODY, Visit
from tests.contracts.test_source_contract import drawn, history, interactions


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Films a to f and a song; three members. Nobody chose f; ann was shown e and heard the song."""
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite") as opened:
        opened.write(
            items=[*(Item(name, "movie", {"title": name.upper()}) for name in "fedcba"), Item("song", "song", {})],
            members=[Member(name, {}) for name in ("ann", "bob", "cy", "new")],
            events=[
                *chosen("ann", "a", "b", "c"),
                *chosen("bob", "b", "a", "d"),
                *chosen("cy", "a", "c"),
                Event("ann", "e", "movies", "show", 2.5),
                Event("ann", "song", "songs", "like", 1.5),
            ],
        )
        yield opened


def chosen(member_id: str, *items: str) -> list[Event]:
    return [Event(member_id, item, "movies", "watch", float(place)) for place, item in enumerate(items, 1)]


def surface(*sources: str, more: str = "") -> SurfaceSpec:
    text = "\n".join(
        [
            "surface: films", "description: Films", "item_kind: movie",
            "prompt: {instruction: Which film?, item: '{{ title }}'}",
            "sources:", *(f"  - {{{source}}}" for source in sources),
            "heads: [{name: watch, type: pointwise, weight: 1}]", more,
        ]
    )  # fmt: skip
    spec = Registry.shipped().add(text, "films.yaml")
    assert isinstance(spec, SurfaceSpec)
    return spec


# Interactions


def test_interactions_of_a_ledger(ledger: Ledger) -> None:
    data = Interactions.of(ledger, "movie")
    assert data.item_ids == ("a", "b", "c", "d", "e", "f")
    assert data.index == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5}
    assert data.member_ids == ("ann", "bob", "cy")
    assert [list(sequence) for sequence in data.sequences] == [[0, 1, 2], [1, 0, 3], [0, 2]]
    assert [list(times) for times in data.times] == [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0]]
    assert data.clock == "time"


def test_interactions_before_a_time(ledger: Ledger) -> None:
    data = Interactions.of(ledger, "movie", before=2.0)
    assert [list(sequence) for sequence in data.sequences] == [[0], [1], [0]]
    assert data.item_ids == Interactions.of(ledger, "movie").item_ids


def test_a_ledger_without_times_has_no_before(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/order.sqlite") as ordered:
        ordered.set_clock("order")
        assert Interactions.of(ordered, "movie").clock == "order"
        with pytest.raises(ConfigError, match="this ledger's clock is 'order'"):
            Interactions.of(ordered, "movie", before=2.0)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_interactions_without_the_last(ledger: Ledger, count: int) -> None:
    whole = Interactions.of(ledger, "movie")
    data = whole.without_last(count)
    assert [list(sequence) for sequence in data.sequences] == [
        list(sequence)[: max(0, len(sequence) - count)] for sequence in whole.sequences
    ]
    assert [len(times) for times in data.times] == [len(sequence) for sequence in data.sequences]
    assert (data.item_ids, data.member_ids) == (whole.item_ids, whole.member_ids)


def test_a_timeline_as_history(ledger: Ledger) -> None:
    data = Interactions.of(ledger, "movie")
    assert list(data.history(ledger.timeline("ann"))) == [0, 1, 2]
    assert data.history([]).dtype == np.int64


# The best of scores


@given(
    scores=st.lists(st.sampled_from([NOTHING, -1.5, 0.0, 1.0, 2.0]) | st.floats(-5, 5), max_size=30),
    k=st.integers(1, 40),
)
def test_best_is_what_sorting_gives(scores: list[float], k: int) -> None:
    scores_I = np.array(scores, dtype=np.float64)
    order = sorted(range(len(scores)), key=lambda item: (-scores[item], item))
    assert list(best(scores_I, k)) == [item for item in order if scores[item] > NOTHING][:k]


# Popular


def test_popular_counts_events(ledger: Ledger) -> None:
    source = Popular()
    source.fit(Interactions.of(ledger, "movie"))
    assert list(source.scores(history([]))) == [3, 2, 2, 1, 0, 0]
    assert retrieve(source, history([]), 3, {0}) == [(1, 2.0), (2, 2.0), (3, 1.0)]


def test_a_half_life(ledger: Ledger) -> None:
    source = Popular(half_life=1.0)
    source.fit(Interactions.of(ledger, "movie"))
    assert list(source.scores(history([]))) == pytest.approx([0.25 + 0.5 + 0.25, 0.5 + 0.25, 1.0 + 0.5, 1.0, 0, 0])


def test_a_long_half_life_is_none_at_all() -> None:
    plain, decayed = Popular(), Popular(half_life=1e15)
    plain.fit(drawn(0))
    decayed.fit(drawn(0))
    assert decayed.scores(history([])) == pytest.approx(plain.scores(history([])))


def test_a_half_life_needs_times(ledger: Ledger, tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/order.sqlite") as ordered:
        ordered.write(clock="order", items=[Item("a", "movie", {})])
        data = Interactions.of(ordered, "movie")
        Popular().fit(data)
        with pytest.raises(ConfigError, match="popular: half_life needs times, but this ledger's clock is 'order'"):
            Popular(half_life=60.0).fit(data)
        with pytest.raises(ConfigError, match="half_life"):
            fit_sources(Materials(surface("type: popular, k: 3, half_life: 14d"), data, ordered, None))


# Co-visitation


def test_co_visitation_by_hand(ledger: Ledger) -> None:
    """a was chosen by 3, b and c by 2, d by 1; a-b: 2 together, a-c: 2, b-c: 1, a-d: 1, b-d: 1."""
    source = CoVisitation(decay=0.5)
    source.fit(Interactions.of(ledger, "movie"))
    of_a = [NOTHING, 2 / math.sqrt(6), 2 / math.sqrt(6), 1 / math.sqrt(3), NOTHING, NOTHING]
    assert list(source.scores(history([0]))) == pytest.approx(of_a)
    of_b = [2 / math.sqrt(6), 0, 1 / 2, 1 / math.sqrt(2)]
    both = [0.5 * max(a, 0) + b for a, b in zip(of_a, of_b, strict=False)]
    assert list(source.scores(history([0, 1]))[:4]) == pytest.approx(both)
    assert list(source.scores(history([4, 5]))) == [NOTHING] * 6
    assert list(source.scores(history([]))) == [NOTHING] * 6


def dense(data: Interactions, neighbours: int) -> npt.NDArray[np.float64]:
    """[items, items]: the same cosines, the plain way."""
    size = len(data.item_ids)
    chosen_MI = np.zeros((len(data.sequences), size))
    for member, sequence in enumerate(data.sequences):
        chosen_MI[member, sequence] = 1
    counts_II = chosen_MI.T @ chosen_MI
    choices_I = np.maximum(np.diag(counts_II), 1)
    cosine_II: npt.NDArray[np.float64] = counts_II / np.sqrt(np.outer(choices_I, choices_I))
    np.fill_diagonal(cosine_II, 0)
    for row in cosine_II:
        row[np.argsort(-row, kind="stable")[neighbours:]] = 0
    return cosine_II


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("neighbours", [2, 5, 100])
@pytest.mark.parametrize("pairs", [1, 500, 10**7])
def test_co_visitation_equals_the_plain_way(
    seed: int, neighbours: int, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(co_visitation, "PAIRS_AT_ONCE", pairs)
    data = drawn(seed)
    source = CoVisitation(neighbours=neighbours, recent=4, decay=0.9)
    source.fit(data)
    cosine_II = dense(data, neighbours)
    for items in ([3], [0, 1, 2], [5, 5, 2, 1, 0, 7]):
        recent = items[-4:]
        right_I = sum(0.9 ** (len(recent) - 1 - place) * cosine_II[item] for place, item in enumerate(recent))
        found_I = source.scores(history(items))
        assert np.where(found_I == NOTHING, 0, found_I) == pytest.approx(right_I, abs=1e-6)


def test_of_a_long_timeline_the_end_is_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(co_visitation, "LONGEST", 3)
    source = CoVisitation()
    source.fit(interactions([list(range(10))]))
    assert list(np.flatnonzero(source.scores(history([9])) > NOTHING)) == [7, 8]
    assert not (source.scores(history([0])) > NOTHING).any()


def test_many_items_take_little_time_and_room() -> None:
    rng = np.random.default_rng(0)
    data = interactions([list(rng.integers(0, 20_000, size=20)) for _ in range(4_000)], items=20_000)
    source = CoVisitation()
    source.fit(data)
    assert len(retrieve(source, data.sequences[0], 50, set(data.sequences[0].tolist()))) == 50


# Embedding


class Recorder:
    """Counts calls; text 'n m' is the direction of the point (n, m)."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.calls += 1
        points = np.array([[float(part) for part in text.split()] for text in texts], dtype=np.float32)
        lengths: npt.NDArray[np.float32] = np.linalg.norm(points, axis=1, keepdims=True)
        return np.divide(points, lengths)


def of_points(*points: str) -> Embedding:
    return Embedding(Vectors.of(points, Recorder()))


def test_embedding_is_the_recency_weighted_mean() -> None:
    vectors = Vectors.of(["1 0", "0 1", "1 1", "-1 0"], Recorder())
    source = Embedding(vectors)
    source.fit(interactions([], items=4))
    assert list(source.scores(history([0]))) == pytest.approx([1, 0, math.sqrt(0.5), -1], abs=1e-6)
    assert source.scores(history([]))[0] == NOTHING
    older = 0.5 ** (1 / HALF_LIFE)
    mean = np.array([older, 1]) / (1 + older)
    assert vectors.of_member(history([0, 1])) == pytest.approx(mean, abs=1e-6)
    assert vectors.of_member(history([])) is None
    first, second = source.search(history([0]), 2)
    assert (first[0], second[0]) == (0, 2)
    assert (first[1], second[1]) == pytest.approx((1, math.sqrt(0.5)))


def test_only_recent_items_make_the_member() -> None:
    vector_D = Vectors.of(["1 0", "0 1"], Recorder()).of_member(history([0] * 10 + [1] * RECENT))
    assert vector_D == pytest.approx([0, 1], abs=1e-6)


def test_the_model_is_not_called_at_request_time() -> None:
    embed = Recorder()
    source = Embedding(Vectors.of([f"{place + 1} 1" for place in range(600)], embed))
    source.fit(interactions([], items=600))
    calls = embed.calls
    assert calls == math.ceil(600 / TEXTS_AT_ONCE)
    retrieve(source, history([1, 2, 3]), 10, {1, 2, 3})
    source.scores(history([1, 2, 3]))
    assert embed.calls == calls


def test_vectors_and_items_must_match() -> None:
    with pytest.raises(ConfigError, match="embedding: 1 vectors for 2 items"):
        of_points("1 0").fit(interactions([], items=2))


# Recent


def test_recent_goes_by_first_events(ledger: Ledger) -> None:
    source = Recent()
    source.fit(Interactions.of(ledger, "movie"))
    assert list(source.scores(history([]))) == [1, 1, 2, 3, NOTHING, NOTHING]
    assert list(source.scores(history([]), Visit(now=2.0))) == [1, 1, 2, NOTHING, NOTHING, NOTHING]


def test_recent_by_an_attribute(tmp_path: Path) -> None:
    made = {"a": 50, "b": "1970-01-01T00:01:40Z", "c": "soon", "d": None, "e": "75", "f": 1e9}
    with Ledger.open(f"sqlite:///{tmp_path}/made.sqlite") as opened:
        opened.put_items(Item(name, "movie", {"made": time}) for name, time in made.items())
        opened.set_clock("order")
        found = retrieval(opened, "type: recent, k: 9, by: made")
        assert names(found.gather(visit_of(opened))) == ["f", "b", "e", "a"]
        assert names(found.gather(visit_of(opened, now=1e6))) == ["b", "e", "a"]


def test_first_events_need_times(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/order.sqlite") as ordered:
        ordered.write(clock="order", items=[Item("a", "movie", {})])
        with pytest.raises(ConfigError, match="recent: this ledger's clock is 'order'; name an attribute"):
            retrieval(ordered, "type: recent, k: 3")


# Popular among those who are alike


def test_popular_in_a_segment() -> None:
    data = interactions([[0] * FEWEST, [1] * (FEWEST + 1), [2] * (FEWEST - 1), [3] * 30], items=4)
    towns: dict[str, dict[str, object]] = {
        "member 0": {"town": "Rome"},
        "member 1": {"town": 7},
        "member 2": {"town": "Oslo"},
        "member 3": {},
    }
    source = Popular(segment="town", profiles=towns)
    source.fit(data)
    everyone = [FEWEST, FEWEST + 1, FEWEST - 1, 30]
    assert list(source.scores(history([]), Visit(profile={"town": "Rome"}))) == [FEWEST, 0, 0, 0]
    assert list(source.scores(history([]), Visit(profile={"town": 7}))) == [0, FEWEST + 1, 0, 0]
    for profile in ({"town": "Oslo"}, {"town": "Bonn"}, {}, {"town": None}, {"town": ["Rome"]}):
        assert list(source.scores(history([]), Visit(profile=profile))) == everyone


def test_a_segment_reads_the_profiles_of_the_ledger(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/towns.sqlite") as opened:
        opened.write(
            items=[Item(name, "movie", {}) for name in "ab"],
            members=[Member("r", {"town": "Rome"}), Member("o", {"town": "Oslo"})],
            events=[
                *(Event("r", "a", "movies", "watch", float(time)) for time in range(FEWEST)),
                *(Event("o", "b", "movies", "watch", float(time)) for time in range(FEWEST + 5)),
            ],
        )
        found = retrieval(opened, "type: popular, k: 1, segment: town")
        assert names(found.gather(visit_of(opened, profile={"town": "Rome"}))) == ["a"]
        assert names(found.gather(visit_of(opened, profile={"town": "Oslo"}))) == ["b"]
        assert names(found.gather(visit_of(opened))) == ["b"]


# Lists as one: reciprocal-rank fusion


def test_fusion_is_the_sum_of_reciprocal_ranks() -> None:
    lists = {"one": ["a", "b", "c"], "two": ["c", "d"]}
    found = fuse(lists, {"one": 1.0, "two": 1.0})
    right = {"a": 1 / 61, "b": 1 / 62, "c": 1 / 63 + 1 / 61, "d": 1 / 62}
    assert names(found) == ["c", "a", "b", "d"], "b and d are level: in the order of sources"
    assert {one.item_id: sum(parts(one, {}).values()) for one in found} == pytest.approx(right)
    assert found[0] == Candidate("c", {"one": 3, "two": 1})
    assert RRF == 60


def test_weights_of_sources_count() -> None:
    lists = {"one": ["a", "b"], "two": ["c", "d"]}
    assert names(fuse(lists, {"one": 1.0, "two": 2.0})) == ["c", "d", "a", "b"]
    assert names(fuse(lists, {"one": 1.0, "two": 61 / 62 - 1e-9})) == ["a", "b", "c", "d"]
    assert names(fuse(lists, {"one": 1.0, "two": 1.0})) == ["a", "c", "b", "d"]
    assert fuse({}, {}) == fuse({"one": []}, {}) == []


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True, max_size=6), max_size=4), st.floats(0.1, 10))
def test_any_lists_fuse(found: list[list[str]], weight: float) -> None:
    lists = {f"s{number}": item_ids for number, item_ids in enumerate(found)}
    weights = dict.fromkeys(lists, 1.0) | {"s0": weight}
    merged = fuse(lists, weights)
    assert sorted(names(merged)) == sorted({item for item_ids in found for item in item_ids})
    sums = [sum(weights[name] / (60 + rank) for name, rank in one.sources.items()) for one in merged]
    assert sums == sorted(sums, reverse=True)
    assert sum(shares(merged, weights).values()) == pytest.approx(1.0 if merged else 0.0)


def test_shares_tell_what_each_source_brought() -> None:
    weights = {"one": 2.0, "two": 1.0, "three": 1.0}
    found = shares([Candidate("a", {"one": 1}), Candidate("b", {"two": 1})], weights)
    assert found == pytest.approx({"one": 2 / 3, "two": 1 / 3, "three": 0.0})
    assert shares([], weights) == {"one": 0.0, "two": 0.0, "three": 0.0}


# A surface's sources together


def retrieval(ledger: Ledger, *sources: str, more: str = "") -> Retrieval:
    return fit_sources(Materials(surface(*sources, more=more), Interactions.of(ledger, "movie"), ledger, None))


def visit_of(ledger: Ledger, timeline: Sequence[Event] = (), **more: Any) -> Visit:
    return Visit(timeline, lookup=ledger.items, **more)


BOTH = ("type: co_visitation, k: 2", "type: popular, k: 3")
SEEN = "filters: [seen]"


def test_sources_are_fused(ledger: Ledger) -> None:
    found = retrieval(ledger, *BOTH).gather(Visit(chosen("x", "d")))
    assert found == [
        Candidate("b", {"co_visitation": 1, "popular": 2}),
        Candidate("a", {"co_visitation": 2, "popular": 1}),
        Candidate("c", {"popular": 3}),
    ]


def test_the_order_of_sources_decides_between_level_ones(ledger: Ledger) -> None:
    assert names(retrieval(ledger, *BOTH[::-1]).gather(Visit(chosen("x", "d")))) == ["a", "b", "c"]


def test_a_weight_in_the_file_decides(ledger: Ledger) -> None:
    found = retrieval(ledger, "type: co_visitation, k: 2, weight: 5", "type: popular, k: 3")
    assert names(found.gather(Visit(chosen("x", "d")))) == ["b", "a", "c"]
    found = retrieval(ledger, "type: co_visitation, k: 2", "type: popular, k: 3, weight: 5")
    assert names(found.gather(Visit(chosen("x", "d")))) == ["a", "b", "c"]


def test_two_sources_of_one_type_have_names(ledger: Ledger) -> None:
    lately = "type: popular, name: lately, k: 2, half_life: 1s"
    found = retrieval(ledger, lately, "type: popular, k: 1").gather(NOBODY)
    assert found == [Candidate("a", {"lately": 2, "popular": 1}), Candidate("c", {"lately": 1})]
    with pytest.raises(SpecError, match="'popular' is listed twice; give one of the two another 'name'"):
        surface("type: popular, k: 2", "type: popular, k: 1")


def test_what_was_seen_gives_its_place_to_others(ledger: Ledger) -> None:
    acted = [*chosen("x", "d"), Event("x", "a", "movies", "dismiss", 5.0), Event("x", "gone", "movies", "watch", 6.0)]
    found = retrieval(ledger, *BOTH, more=SEEN).gather(visit_of(ledger, acted))
    assert names(found) == ["b", "c", "e"]
    everything = [Event("x", name, "movies", "watch", 1.0) for name in "abcdef"]
    assert retrieval(ledger, *BOTH, more=SEEN).gather(visit_of(ledger, everything)) == []


@pytest.mark.parametrize(
    "timeline", [[], chosen("x", "f"), chosen("x", "unknown"), [Event("x", "a", "m", "show", 1.0)]]
)
def test_nobody_leaves_empty_handed(ledger: Ledger, timeline: list[Event]) -> None:
    found = retrieval(ledger, "type: co_visitation, k: 2").gather(Visit(timeline))
    assert found == [Candidate("a", {"popular": 1}), Candidate("b", {"popular": 2})]


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Ledger]:
    """200 films; the first 150, in the order of popularity, are sold out."""
    with Ledger.open(f"sqlite:///{tmp_path}/many.sqlite") as opened:
        films = [f"film {place:03}" for place in range(200)]
        opened.write(
            items=[Item(name, "movie", {"left": int(place >= 150)}) for place, name in enumerate(films)],
            members=[Member("m", {})],
            events=[
                Event("m", name, "movies", "watch", float(time))
                for place, name in enumerate(films)
                for time in range(1 + (200 - place) // 50)
            ],
        )
        yield opened


SOLD_OUT = "filters: [{type: available, stock: left}]"


@pytest.mark.parametrize("k", [1, 10, 30, 50])
def test_a_source_whose_best_are_filtered_out_still_brings_k(many: Ledger, k: int) -> None:
    found = retrieval(many, f"type: popular, k: {k}", more=SOLD_OUT).gather(visit_of(many))
    assert names(found) == [f"film {place}" for place in range(150, 150 + k)]
    assert [one.sources["popular"] for one in found] == list(range(1, k + 1))


def test_a_source_brings_no_more_than_pass(many: Ledger) -> None:
    assert len(retrieval(many, "type: popular, k: 100", more=SOLD_OUT).gather(visit_of(many))) == 50


def test_items_that_policies_bring_come_last(many: Ledger) -> None:
    found = retrieval(many, "type: popular, k: 2", more=SOLD_OUT)
    brought = ["film 199", "film 000", "film 151", "unknown"]
    assert found.gather(visit_of(many), brought) == [
        Candidate("film 150", {"popular": 1}),
        Candidate("film 151", {"popular": 2}),
        Candidate("film 199", {}),
    ]


def test_candidates_of_the_request_join_the_others(many: Ledger) -> None:
    found = retrieval(many, "type: request, k: 3", "type: popular, k: 2", more=SOLD_OUT)
    given = ["film 160", "film 000", "film 150", "film 160", "unknown", "film 161", "film 162"]
    assert found.gather(visit_of(many, given=given)) == [
        Candidate("film 150", {"request": 2, "popular": 1}),
        Candidate("film 160", {"request": 1}),
        Candidate("film 151", {"popular": 2}),
        Candidate("film 161", {"request": 3}),
    ]
    assert names(found.gather(visit_of(many))) == ["film 150", "film 151"]
    placed = found.place(visit_of(many, given=["film 003", "film 001"]), ["film 001", "film 003"])
    assert [one.sources.get("request") for one in placed] == [2, 1]


def test_a_policy_that_drops_what_was_seen_leaves_it_out_early(ledger: Ledger) -> None:
    found = retrieval(ledger, "type: popular, k: 2", more="policies: [{type: seen}]")
    assert names(found.gather(visit_of(ledger, chosen("x", "a")))) == ["b", "c"]


def test_placing_given_items(ledger: Ledger) -> None:
    found, visit = retrieval(ledger, *BOTH), Visit(chosen("x", "d"))
    placed = found.place(visit, ["f", "c", "unknown", "a", "b"])
    assert placed == [
        Candidate("f", {"popular": 4}),
        Candidate("c", {"popular": 2}),
        Candidate("unknown", {}),
        Candidate("a", {"co_visitation": 2, "popular": 1}),
        Candidate("b", {"co_visitation": 1, "popular": 3}),
    ]
    assert names(fallback_order(placed, ["popular"])) == ["a", "c", "b", "f", "unknown"], "c and b tie: as given"
    assert found.place(NOBODY, []) == []


def test_the_order_of_the_fallback() -> None:
    candidates = [
        Candidate("p2", {"popular": 2}),
        Candidate("c1", {"co_visitation": 1}),
        Candidate("both", {"popular": 1, "co_visitation": 2}),
        Candidate("e1", {"embedding": 1}),
        Candidate("p1", {"popular": 1}),
    ]
    assert names(fallback_order(candidates, ["co_visitation", "popular"])) == ["c1", "both", "p1", "p2", "e1"]
    assert names(fallback_order(candidates, ["popular", "embedding"])) == ["both", "p1", "p2", "e1", "c1"]
    assert names(fallback_order(candidates, [])) == names(candidates)


def names(candidates: Sequence[Candidate]) -> list[str]:
    return [candidate.item_id for candidate in candidates]


# Evidence


def test_evidence_is_what_the_sources_say(ledger: Ledger) -> None:
    found = retrieval(ledger, "type: popular, k: 2", more="evidence: [co_visitation, popular, recent]")
    pieces = found.evidence(Visit(chosen("x", "d")), ["a", "f", "unknown"], compress=True)
    assert [piece.text for piece in pieces] == [
        " (chosen together top 2, popularity top 1, newness top 2)",
        " (chosen together none, popularity top 4, newness none)",
        " (chosen together none, popularity none, newness none)",
    ]
    assert all(piece.compress for piece in pieces)
    assert retrieval(ledger, "type: popular, k: 2").evidence(NOBODY, ["a"], compress=False) == []


# With a model


def test_embedding_needs_a_model(ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match="surface 'films': the items' vectors need a model; name one"):
        retrieval(ledger, "type: embedding, k: 3")


def test_embedding_with_a_real_model(ledger: Ledger, tiny_engine: TorchEngine) -> None:
    data = Interactions.of(ledger, "movie")
    fitted = fit_sources(Materials(surface("type: embedding, k: 3", more=SEEN), data, ledger, tiny_engine))
    found = fitted.gather(visit_of(ledger, chosen("x", "c")))
    assert len(found) == 3
    vectors = tiny_engine.embed([name.upper() for name in "abcdef"])
    near: Indices = np.argsort(-(vectors @ vectors[2]), kind="stable")
    assert names(found) == ["abcdef"[place] for place in near if place != 2][:3]
    assert names(fitted.gather(visit_of(ledger))) == ["a", "b", "c"], "without a history, the last resort"


def test_the_shipped_surface_on_movielens(movielens: Ledger) -> None:
    spec = Registry.shipped().surface("movies")
    spec = spec.model_copy(update={"sources": spec.sources[:2]})
    fitted = fit_sources(Materials(spec, Interactions.of(movielens, "movie"), movielens, None))
    timeline = movielens.timeline("196")
    found = fitted.gather(visit_of(movielens, timeline))
    assert len(found) >= 100
    assert not {event.item_id for event in timeline} & set(names(found))
    assert {source for candidate in found for source in candidate.sources} == {"popular", "co_visitation"}
