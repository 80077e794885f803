"""What was made lately is kept, and what is kept is never told of something else."""

from __future__ import annotations

import threading
from weakref import ref

from surfaces.happenings import attributes_of
from surfaces.lately import ITEM_CAP, Lately
from surfaces.leaves import Leaves, leaf_piece
from surfaces.ledger.kept import Timeline
from surfaces.ledger.records import Item
from surfaces.registry import Registry
from surfaces.sources.merge import Retrieval
from surfaces.sources.popular import Popular
from surfaces.spec import SurfaceSpec
from surfaces.visit import Visit
from tests.surfaces.world import chosen

MOVIES = Registry.shipped().surface("movies")
HEAT = Item("heat", "movie", {"title": "Heat", "genres": ["Action"]})


def test_the_last_so_many_are_kept_and_twice_as_many_at_most() -> None:
    lately = Lately[int, str](10)
    for number in range(100):
        lately.keep(number, str(number))
        assert lately.find(0) == "0"  # asked for each time
        assert all(lately.find(each) for each in range(max(0, number - 3), number))
    assert sum(lately.find(number) is not None for number in range(100)) <= 20
    assert lately.find(1) is None
    lately.forget()
    assert lately.find(99) is None


def test_many_threads_at_once() -> None:
    lately, wrong = Lately[int, int](8), list[tuple[int, int]]()

    def work(seed: int) -> None:
        for number in range(20_000):
            key = (seed * number) % 31
            if (found := lately.find(key)) not in (None, key):
                wrong.append((key, found))
            lately.keep(key, key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 5, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def spoken() -> SurfaceSpec:
    told = MOVIES.model_dump(exclude_unset=True)
    told["prompt"]["locales"] = {"de": {"item": "Film: {{ title }}"}}
    return SurfaceSpec.model_validate(told)


def test_an_item_is_told_once_until_it_or_the_surface_changes() -> None:
    leaves, spec = Leaves(), spoken()
    first = leaves.of(spec, HEAT)
    assert first == leaf_piece(spec, attributes_of(HEAT))
    assert leaves.of(spec, HEAT) is first
    for locale in ("fr", "x" * 10_000, 7, None, ["de"]):
        assert leaves.of(spec, HEAT, locale) is first
    assert leaves.of(spec, HEAT, "de-AT").text == "Film: Heat"
    assert leaves.of(spec, HEAT, "de-AT") is leaves.of(spec, HEAT, "de")
    assert leaves.of(spec, HEAT) is first
    again = HEAT._replace(attributes={"title": "Heat 2"})
    assert leaves.of(spec, again) == leaf_piece(spec, attributes_of(again))
    assert leaves.of(spoken(), again) is not leaves.of(spec, again)
    large = HEAT._replace(attributes={"title": "Heat", "text": "x" * ITEM_CAP})
    assert leaves.of(spec, large) is not leaves.of(spec, large)
    before = leaves.of(spec, again)
    leaves.forget()
    assert leaves.of(spec, again) is not before


def test_a_history_is_told_once_for_a_timeline() -> None:
    names = ("a", "b", "c")
    retrieval = Retrieval(names, {name: place for place, name in enumerate(names)}, (), Popular())
    short, long = Timeline(chosen("ann", "a", "b")), Timeline(chosen("ann", "a", "b", "c"))
    first = retrieval.history(Visit(short, "ann"))
    assert first.tolist() == [0, 1]
    assert retrieval.history(Visit(short, "ann")) is first
    assert retrieval.history(Visit(long, "ann")).tolist() == [0, 1, 2]
    assert retrieval.history(Visit(short, "ann")).tolist() == [0, 1]
    assert retrieval.history(Visit(long, "bob")).tolist() == [0, 1, 2]
    stranger = Visit(list(short))
    assert retrieval.history(stranger) is not retrieval.history(stranger)
    assert retrieval.history(Visit(list(long), "ann")).tolist() == [0, 1, 2]
    last = retrieval.history(Visit(short, "ann"))
    retrieval.forget()
    assert retrieval.history(Visit(short, "ann")) is not last


def test_a_history_keeps_no_timeline() -> None:
    retrieval = Retrieval(("a",), {"a": 0}, (), Popular())
    timeline = Timeline(chosen("ann", "a"))
    retrieval.history(Visit(timeline, "ann"))
    gone = ref(timeline)
    del timeline
    assert gone() is None
