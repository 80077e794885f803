"""The cache of trunks and stems: by itself against a plain list of runs, and what the engine computes with it."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from typing import Any, NamedTuple
from zlib import crc32

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.attention.merge import Plan
from foundation.attention.registry import Hear
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.cache import Edge, PrefixCache
from foundation.engine.forest import Elements
from foundation.engine.run import Reader
from foundation.engine.torch import EngineSettings, TorchEngine
from foundation.lowrank import UNADAPTED, Adapted
from prompts.errors import ConfigError
from tests.foundation.reference import References

Said = tuple[int, ...]
SLOT = 2 * 2 * 1 * 3 * 4
"""Bytes of a slot of `rows`."""


def rows(salt: str, path: Elements, start: int = 0) -> torch.Tensor:
    """[2 layers, 2, slots, 1 head, 3]: of each slot, numbers that follow from all that it sees."""
    numbers = [float(crc32(repr((salt, path[: end + 1])).encode()) % 999_983) for end in range(start, len(path))]
    return torch.tensor(numbers)[None, None, :, None, None].expand(2, 2, -1, 1, 3).clone()


@dataclass
class Run:
    """Slots `start …` of a path, held as one."""

    salt: str
    path: Said
    start: int
    used: int


@dataclass
class Plain:
    """What the cache should do, said as simply as can be: a list of runs, searched from end to end."""

    limit: int
    runs: list[Run] = field(default_factory=list)
    evictions: int = 0
    clock: Any = field(default_factory=lambda: count(1))

    def find(self, salt: str, path: Said) -> int:
        """How many slots are held."""
        now, known = next(self.clock), 0
        for run in self.runs:
            alike = common(run.path, path) if run.salt == salt else 0
            if alike > run.start:
                run.used, known = now, max(known, alike)
        return known

    def insert(self, salt: str, path: Said) -> None:
        """See `PrefixCache.insert`."""
        known = self.find(salt, path)
        if known == len(path) or len(path) - known > self.limit:
            return
        for run in [one for one in self.runs if one.salt == salt]:
            if run.start < known < len(run.path) and run.path[:known] == path[:known]:
                self.runs.append(Run(salt, run.path, known, run.used))
                run.path = run.path[:known]
        self.runs.append(Run(salt, path, known, next(self.clock)))
        while self.slots > self.limit:
            self.runs.remove(min(filter(self._ends, self.runs), key=lambda run: run.used))
            self.evictions += 1

    def _ends(self, run: Run) -> bool:
        size = len(run.path)
        return not any(one.salt == run.salt and one.start == size and one.path[:size] == run.path for one in self.runs)

    @property
    def slots(self) -> int:
        return sum(len(run.path) - run.start for run in self.runs)


def common(one: Said, other: Said) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class Deed(NamedTuple):
    """Something done to a cache."""

    what: str
    salt: str
    path: Said


DEEDS = st.builds(
    Deed,
    st.sampled_from(["insert", "insert", "insert", "find", "find", "clear"]),
    st.sampled_from(["", "a"]),
    st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple),
)


@settings(max_examples=250)
@given(st.lists(DEEDS, min_size=1, max_size=40), st.integers(0, 25))
def test_it_does_what_a_plain_list_of_runs_does(deeds: list[Deed], limit: int) -> None:
    cache, plain = PrefixCache(limit * SLOT), Plain(limit)
    for what, salt, path in deeds:
        if what == "clear":
            cache.clear()
            plain.runs.clear()
        elif what == "insert":
            cache.insert(salt, path, lambda known, salt=salt, path=path: rows(salt, path, known))  # type: ignore[misc]
            plain.insert(salt, path)
        steps = cache.find(salt, path)
        known = plain.find(salt, path)
        assert sum(step.slots for step in steps) == known
        assert not steps or torch.equal(cache.read(steps), rows(salt, path[:known]))
        assert (len(cache), cache.stats.bytes) == (len(plain.runs), plain.slots * SLOT)
        assert cache.stats.bytes <= cache.limit_bytes
        assert cache.stats.evictions == plain.evictions


def held(cache: PrefixCache, said: str, salt: str = "") -> str:
    """How much of a text is held; every character is a slot."""
    return said[: sum(step.slots for step in cache.find(salt, tuple(said)))]


def hold(cache: PrefixCache, *texts: str, salt: str = "") -> None:
    for said in texts:
        path = tuple(map(ord, said))
        cache.insert(salt, tuple(said), lambda known, path=path: rows(salt, path, known))  # type: ignore[misc]


def test_what_is_new_alone_is_asked_for() -> None:
    cache, asked = PrefixCache(100 * SLOT), []

    def rest(known: int) -> torch.Tensor:
        asked.append(known)
        return rows("", (1, 2, 3, 4, 5), known)

    cache.insert("", (1, 2, 3), lambda known: rows("", (1, 2, 3), known))
    cache.insert("", (1, 2, 3, 4, 5), rest)
    cache.insert("", (1, 2, 3, 4), rest)
    cache.insert("", (1, 2, 3, 4, 5), rest)
    assert asked == [3]


def test_salts_have_nothing_in_common() -> None:
    cache = PrefixCache(100 * SLOT)
    hold(cache, "member", salt="a")
    assert held(cache, "member", salt="a") == "member"
    assert [held(cache, "member", salt=salt) for salt in ("", "b", "aa", "A")] == [""] * 4


def test_what_was_not_found_for_longest_goes_first() -> None:
    cache = PrefixCache(9 * SLOT)
    hold(cache, "abc", "def", "ghi")
    assert held(cache, "abc") == "abc"
    hold(cache, "jkl")
    assert [held(cache, said) for said in ("def", "abc", "ghi", "jkl")] == ["", "abc", "ghi", "jkl"]
    hold(cache, "mnopqr")
    assert [held(cache, said) for said in ("abc", "ghi", "jkl", "mnopqr")] == ["", "", "jkl", "mnopqr"]
    assert cache.stats.evictions == 3


def test_stems_go_before_the_trunk_that_they_hang_from() -> None:
    cache = PrefixCache(6 * SLOT)
    hold(cache, "abcd", "abcdX")
    hold(cache, "abcdY")
    assert held(cache, "abcdX") == "abcdX"
    hold(cache, "Z")
    assert [held(cache, said) for said in ("abcdX", "abcdY", "Z")] == ["abcdX", "abcd", "Z"]


def test_more_than_fits_is_not_held_and_drops_nothing() -> None:
    cache = PrefixCache(5 * SLOT)
    hold(cache, "abc", "defghi")
    assert [held(cache, said) for said in ("abc", "defghi")] == ["abc", ""]
    assert cache.stats.evictions == 0
    hold(cache, "abcdefgh")
    assert held(cache, "abcdefgh") in ("", "abc")
    assert cache.stats.bytes <= cache.limit_bytes


def test_no_room_nothing_held() -> None:
    cache = PrefixCache(0)
    hold(cache, "a", "ab")
    assert (len(cache), cache.stats.bytes, held(cache, "ab")) == (0, 0, "")


def test_more_memory_than_there_is_is_told() -> None:
    cache = PrefixCache(1 << 60)
    with pytest.raises(ConfigError, match="1,099,511,627,776 MB, but there is not so much memory: give it less"):
        hold(cache, "abc")
    assert (len(cache), held(cache, "abc")) == (0, "")


def test_cleared_is_empty_and_the_counters_go_on() -> None:
    cache = PrefixCache(3 * SLOT)
    hold(cache, "abc", "de")
    assert cache.stats.evictions == 1
    cache.clear()
    assert (len(cache), cache.stats.bytes, cache.stats.evictions, held(cache, "de")) == (0, 0, 1, "")
    hold(cache, "abc")
    assert held(cache, "abc") == "abc"


def up(edge: Edge | None) -> list[Edge]:
    """An edge and those above it, the root last."""
    return [] if edge is None else [edge, *up(edge.parent)]


def test_no_edge_keeps_more_memory_alive_than_its_own() -> None:
    cache = PrefixCache(1000 * SLOT)
    hold(cache, "abcdefgh", "abcdXY", "abZ", "abcdXYZ", "Q")
    for said in ("abcdefgh", "abcdXYZ", "abZ", "Q"):
        for edge in up(cache.find("", tuple(said))[-1].edge):
            assert edge.held.base is None


def edges_alive() -> int:
    gc.collect()
    return sum(type(each) is Edge for each in gc.get_objects())


def test_a_tenant_that_went_leaves_nothing() -> None:
    cache, before = PrefixCache(4 * SLOT), edges_alive()
    for number in range(100):
        hold(cache, "abcd", salt=str(number))
    assert len(cache) == 1
    assert edges_alive() <= before + 2


def test_being_found_often_costs_no_memory() -> None:
    cache = PrefixCache(100 * SLOT)
    hold(cache, "abc", "abd", "xyz")
    for _ in range(3000):
        assert held(cache, "abc") == "abc"
    assert len(cache._oldest) <= 64 + 4 * len(cache)
    hold(cache, "m" * 93, "n" * 3)
    assert [held(cache, said) for said in ("xyz", "abd", "abc")] == ["", "ab", "abc"]


class Counted:
    """A reader that counts what it computes."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.slots = reader, 0

    @property
    def layers(self) -> int:
        """See `Reader`."""
        return self.reader.layers

    def hidden(
        self, x_ND: torch.Tensor, positions: torch.Tensor, plan: Plan, rows: torch.Tensor, hear: Hear,
        adapted: Adapted = UNADAPTED,
    ) -> torch.Tensor:  # fmt: skip
        """See `Reader`."""
        self.slots += len(x_ND)
        return self.reader.hidden(x_ND, positions, plan, rows, hear, adapted)


class Counting(TorchEngine):
    """An engine that says what a call computed and found."""

    def __init__(self, engine: TorchEngine, settings: EngineSettings | None = None) -> None:
        super().__init__(engine.ranker, engine.encoder, settings=settings)
        self.counted = self._runner.reader = Counted(self._runner.reader)

    def cost(self, *trees: TokenTree) -> Cost:
        """Of one call."""
        stats, before = (
            self.cache_stats,
            (self.counted.slots, self.cache_stats.missed_slots, self.cache_stats.hit_slots),
        )
        self.score(trees)
        return Cost(
            *(
                now - then
                for now, then in zip((self.counted.slots, stats.missed_slots, stats.hit_slots), before, strict=True)
            )
        )


class Cost(NamedTuple):
    """Slots computed; of those the ones of trunks and stems; slots of trunks and stems that were found."""

    computed: int
    missed: int
    hit: int


@pytest.fixture
def engine(tiny_engine: TorchEngine) -> Counting:
    """An engine over the tiny model that remembers nothing yet."""
    return Counting(tiny_engine)


TIMELINE = tuple(range(10, 50))
"""A trunk's slots; a visit has the first so many of them."""
FILMS, JOBS = (60, 61, 62), (60, 71)
"""Stems that begin alike."""


def visit(
    events: int = 30, stem: Said = FILMS, candidates: int = 5, salt: str = "", after: int | None = None
) -> TokenTree:
    """One member, one surface, candidates of two slots."""
    leaves = [TokenNode((100 + number, 99), 1, None, (3, 4)) for number in range(candidates)]
    return TokenTree((TokenNode(TIMELINE[:events]), TokenNode(stem, 0, after), *leaves), salt)


def test_the_same_again_computes_the_candidates_alone(engine: Counting) -> None:
    assert engine.cost(visit()) == Cost(30 + 3 + 10, 33, 0)
    assert engine.cost(visit()) == Cost(10, 0, 33)
    assert engine.cost(visit(candidates=2)) == Cost(4, 0, 33)


def test_a_next_visit_pays_for_the_new_events_and_the_stem(engine: Counting) -> None:
    engine.cost(visit())
    assert engine.cost(visit(events=34)) == Cost(4 + 3 + 10, 7, 30)
    assert engine.cost(visit(events=34)) == Cost(10, 0, 37)


def test_an_earlier_visit_is_found_within_a_later_one(engine: Counting) -> None:
    engine.cost(visit(events=34))
    assert engine.cost(visit(events=20)) == Cost(3 + 10, 3, 20)
    assert engine.cost(visit(events=34)) == Cost(10, 0, 37)


def test_a_second_surface_computes_its_stem_alone(engine: Counting) -> None:
    engine.cost(visit())
    assert engine.cost(visit(stem=(80, 81, 82, 83))) == Cost(4 + 10, 4, 30)
    assert engine.cost(visit(stem=JOBS)) == Cost(1 + 10, 1, 31)  # it begins like the films
    assert engine.cost(visit()) == Cost(10, 0, 33)


def test_a_stem_that_hangs_in_the_middle_is_found_there(engine: Counting) -> None:
    engine.cost(visit(after=12))
    assert engine.cost(visit()) == Cost(3 + 10, 3, 30)
    assert engine.cost(visit(after=12)) == Cost(10, 0, 33)


def test_the_trees_of_one_call_share_what_they_have_in_common(engine: Counting) -> None:
    assert engine.cost(visit(), visit(stem=(80,)), visit(candidates=7)) == Cost(30 + 3 + 14 + 1 + 10, 34, 0)
    assert engine.cost(visit(events=31), visit(events=30)) == Cost(1 + 3 + 10 + 10, 4, 63)


def test_salts_share_nothing(engine: Counting) -> None:
    engine.cost(visit(salt="a"))
    assert engine.cost(visit(salt="b")) == Cost(43, 33, 0)
    assert engine.cost(visit()) == Cost(43, 33, 0)
    assert engine.cost(visit(salt="a"), visit(salt="b"), visit(salt="c")) == Cost(10 + 10 + 43, 33, 66)


def test_candidates_never_enter_it(engine: Counting) -> None:
    slot = 2 * 2 * 2 * 12 * 4
    engine.cost(visit(candidates=50))
    assert engine.cache_stats.bytes == 33 * slot
    leaf = TokenTree((TokenNode(TIMELINE[:30] + FILMS + (100, 99)), TokenNode((7,), 0, None, (3, 4))))
    assert engine.cost(leaf) == Cost(2 + 1, 2, 33)


def test_a_candidate_longer_than_a_chunk_does_not_enter_it_either(tiny_engine: TorchEngine) -> None:
    engine = Counting(tiny_engine, EngineSettings(chunk_slots=7))
    tree = TokenTree((TokenNode((5, 6)), TokenNode(tuple(range(10, 40)), 0, None, (3, 4))))
    assert engine.cost(tree) == Cost(32, 2, 0)
    assert engine.cost(tree) == Cost(30, 0, 2)
    assert engine.cache_stats.bytes == 2 * 2 * 2 * 2 * 12 * 4


def test_a_slot_that_answers_is_computed_again(engine: Counting) -> None:
    """Only keys and values are held: what is read at the last slot of a trunk or stem needs its state."""
    tree = TokenTree(
        (TokenNode(TIMELINE, answers=(3, 4)), TokenNode(FILMS, 0, 9, (3, 4)), TokenNode((7,), 1, None, (3, 4)))
    )
    expected = [References(engine.ranker).of(tree, leaf).logp.numpy() for leaf in range(3)]
    assert engine.cost(tree) == Cost(44, 43, 0)
    for _ in range(2):
        assert engine.cost(tree) == Cost(1 + 1 + 1, 2, 41)
        found = engine.score([tree])[0].logp
        assert max(float(abs(a - b).max()) for a, b in zip(found, expected, strict=True)) <= 1e-5


def test_one_run_of_slots_is_found_however_it_is_cut_into_nodes(tiny_engine: TorchEngine) -> None:
    said, leaf = TIMELINE[:30] + FILMS, TokenNode((9,), 0, None, (3, 4))
    cuts = [(33,), (30, 33), (4, 30, 33), (1, 2, 33), (20, 33)]
    told = [
        TokenTree(
            (
                *(TokenNode(said[a:b], n - 1) for n, (a, b) in enumerate(pairwise((0, *cut)))),
                replace(leaf, parent=len(cut) - 1),
            )
        )
        for cut in cuts
    ]
    expected = References(tiny_engine.ranker).of(told[0], 1).logp.numpy()
    for first in told:
        engine = Counting(tiny_engine)
        assert engine.cost(first) == Cost(34, 33, 0)
        for other in told:
            assert engine.cost(other) == Cost(1, 0, 33)
            assert abs(engine.score([other])[0].logp[0] - expected).max() <= 1e-5


def test_nothing_is_kept_without_room(tiny_engine: TorchEngine) -> None:
    engine = Counting(tiny_engine, EngineSettings(cache_bytes=0))
    assert engine.cost(visit()) == engine.cost(visit()) == Cost(43, 33, 0)
    assert engine.cache_stats.bytes == 0


def test_what_was_forgotten_is_computed_again(engine: Counting) -> None:
    engine.cost(visit())
    engine.forget()
    assert engine.cache_stats.bytes == 0
    assert engine.cost(visit()) == Cost(43, 33, 0)


def test_an_evicted_trunk_is_built_again(tiny_engine: TorchEngine) -> None:
    slot = 2 * 2 * 2 * 12 * 4
    engine = Counting(tiny_engine, EngineSettings(40 * slot))
    first, second = visit(), TokenTree((TokenNode(tuple(range(200, 230))), *visit().nodes[1:]))
    for _ in range(3):
        assert engine.cost(first) == Cost(43, 33, 0)
        assert engine.cost(second) == Cost(43, 33, 0)
        assert engine.cost(second) == Cost(10, 0, 33)
        assert engine.cache_stats.bytes <= 40 * slot


def test_a_cache_smaller_than_every_trunk_holds_none(tiny_engine: TorchEngine) -> None:
    engine = Counting(tiny_engine, EngineSettings(1000))
    assert engine.cost(visit()) == engine.cost(visit()) == Cost(43, 33, 0)


def test_texts_to_compress_and_vectors_are_known_by_what_they_say(engine: Counting) -> None:
    def told(*vectors: tuple[int, ...] | torch.Tensor) -> TokenTree:
        slots = tuple(-1 - number for number in range(len(vectors)))
        return TokenTree((TokenNode((9, *slots), vectors=vectors), TokenNode((7,), 0, None, (3, 4))))

    vector = torch.linspace(-1, 1, 48)
    engine.cost(told((20, 21), vector))
    assert engine.cost(told((20, 21), vector.clone())) == Cost(1, 0, 3)
    assert engine.cost(told((20, 21), vector, (5,))) == Cost(2, 1, 3)
    assert engine.cost(told((20, 21), vector + 1)) == Cost(2, 1, 2)
    assert engine.cost(told((20, 22), vector)) == Cost(3, 2, 1)
    assert engine.cost(told(vector, (20, 21))) == Cost(3, 2, 1)


def test_vectors_of_two_formats_with_the_same_bits_are_not_the_same(engine: Counting) -> None:
    bits = torch.arange(48, dtype=torch.int16) + 15_000
    trees = [
        TokenTree((TokenNode((9, -1), vectors=(bits.view(kind),)), TokenNode((7,), 0, None, (3, 4))))
        for kind in (torch.float16, torch.bfloat16)
    ]
    alone = [TorchEngine(engine.ranker, engine.encoder).score([tree])[0].logp[0] for tree in trees]
    assert abs(alone[0] - alone[1]).max() > 1e-3
    for _ in ("cold", "from the cache"):
        together = [scores.logp[0] for scores in engine.score(trees)]
        assert max(float(abs(a - b).max()) for a, b in zip(alone, together, strict=True)) <= 1e-5
