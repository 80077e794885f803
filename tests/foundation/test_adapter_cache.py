"""What the cache holds under an adapter goes with the adapter, and nothing else does."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.engine.cache import PrefixCache
from foundation.engine.forest import Elements, Under
from tests.foundation.test_cache import SLOT, rows

SLOTS = st.builds(Under, st.sampled_from(["a", "b"]), st.integers(0, 1)) | st.integers(0, 1)
PATHS = st.lists(st.tuples(st.sampled_from(["", "x"]), st.lists(SLOTS, min_size=1, max_size=7).map(tuple)), max_size=12)


@settings(max_examples=250)
@given(PATHS)
def test_a_forgotten_adapter_takes_all_below_it_and_nothing_else(paths: list[tuple[str, Elements]]) -> None:
    cache, left = PrefixCache(1000 * SLOT), set()
    for salt, path in paths:
        cache.insert(salt, path, lambda known, salt=salt, path=path: rows(salt, path, known))  # type: ignore[misc]
    cache.forget("a")
    for salt, path in paths:
        kept = next((n for n, said in enumerate(path) if isinstance(said, Under) and said.adapter == "a"), len(path))
        steps = cache.find(salt, path)
        assert sum(step.slots for step in steps) == kept
        assert not steps or torch.equal(cache.read(steps), rows(salt, path[:kept]))
        left |= {(salt, path[: end + 1]) for end in range(kept)}
    assert cache.stats.bytes == len(left) * SLOT
    assert {entry[2] for entry in cache._oldest} <= cache._edges  # nothing else is kept alive


def test_adapters_go_however_long_the_chain_of_visits_is() -> None:
    cache = PrefixCache(10_000 * SLOT)
    path = tuple(Under("a", said) for said in range(1100))
    for end in range(1, len(path) + 1):
        cache.insert("", path[:end], lambda _: torch.zeros(2, 2, 1, 1, 3))
    assert len(cache) == 1100
    cache.forget("a")
    assert (len(cache), cache.stats.bytes) == (0, 0)
