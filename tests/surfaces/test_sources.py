"""What each source counts."""

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

from prompts.errors import ConfigError
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.sources import co_visitation
from surfaces.sources.base import NOTHING, Interactions, Materials, best, retrieve
from surfaces.sources.co_visitation import CoVisitation
from surfaces.sources.embedding import Embedding
from surfaces.sources.fit import fit_sources
from surfaces.sources.merge import Candidate, Retrieval
from surfaces.sources.popular import FEWEST, Popular
from surfaces.sources.recent import Recent
from surfaces.sources.vectors import HALF_LIFE, RECENT, TEXTS_AT_ONCE, Vectors
from surfaces.spec import SurfaceSpec
from surfaces.visit import Visit
from tests.contracts.test_source_contract import drawn, history, interactions
from tests.surfaces.world import fill_few


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A few films and members."""
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite") as opened:
        fill_few(opened)
        yield opened


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


def retrieval(ledger: Ledger, *sources: str, more: str = "") -> Retrieval:
    return fit_sources(Materials(surface(*sources, more=more), Interactions.of(ledger, "movie"), ledger, None))


def visit_of(ledger: Ledger, timeline: Sequence[Event] = (), **more: Any) -> Visit:
    return Visit(timeline, lookup=ledger.items, **more)


def names(candidates: Sequence[Candidate]) -> list[str]:
    return [candidate.item_id for candidate in candidates]


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
