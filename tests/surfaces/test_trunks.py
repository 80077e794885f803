"""A member is put into words once, until something of them changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from prompts.verbalize import Detail, Trunk, verbalize
from surfaces.happenings import happenings
from surfaces.lately import ITEM_CAP
from surfaces.ledger.records import Event, Item
from surfaces.registry import Registry
from surfaces.trunks import KEPT, KEPT_CAP, Trunks
from surfaces.visit import Visit
from tests.surfaces.world import chosen

FORM = Registry.shipped().trunk("member")
ITEMS = {name: Item(name, "movie", {"title": name.upper()}) for name in "abcd"}


def one(_: object) -> int:
    return 1


def visit(*names: str, member_id: str = "ann", age: float = 24) -> Visit:
    return Visit(chosen(member_id, *names), member_id, {"age": age})


def asked(trunks: Trunks, who: Visit, items: Mapping[str, Item] = ITEMS, surface: str = "movies") -> Trunk:
    """The kept trunk, which must be the one that is made anew."""
    found = trunks.of(surface, FORM, who, items, one)
    assert found == verbalize(FORM, who.profile, happenings(who.timeline, items), one)
    return found


def test_a_trunk_is_kept_until_something_changes() -> None:
    trunks = Trunks()
    first = asked(trunks, visit("a", "b"))
    assert asked(trunks, visit("a", "b")) is first
    assert asked(trunks, visit("a", "b", "c")) is not first
    assert asked(trunks, visit("b", "a")) != first
    assert asked(trunks, visit("a", "b", age=25)) != first
    assert asked(trunks, visit("a", "b"), {**ITEMS, "a": Item("a", "movie", {"title": "Another"})}) != first
    act = Event("ann", "b", "movies", "dislike", 1.0)
    assert asked(trunks, replace(visit("a", "b"), timeline=[*chosen("ann", "a"), act])) != first


def test_what_is_equal_but_reads_differently_is_told_anew() -> None:
    """1 and True are equal."""
    trunks = Trunks()
    assert asked(trunks, visit("a", age=1)) != asked(trunks, visit("a", age=True))
    for year in (1, True, 1.0):
        asked(trunks, visit("a"), {"a": Item("a", "movie", {"title": "A", "year": year})})


def test_each_surface_and_each_form_has_its_own() -> None:
    trunks = Trunks()
    first = asked(trunks, visit("a"))
    assert asked(trunks, visit("a"), surface="feed") is not first
    narrow = replace(FORM, budget=FORM.budget // 2)
    assert trunks.of("movies", narrow, visit("a"), ITEMS, one) is not first


def test_an_old_event_is_not_told_though_its_item_is_at_hand() -> None:
    trunks, form = Trunks(), replace(FORM, budget=2, step=1)

    def of(items: Mapping[str, Item]) -> Trunk:
        return trunks.of("movies", form, visit("a", "b", "c"), items, one)

    assert of({"b": ITEMS["b"], "c": ITEMS["c"]}) is of(ITEMS)


def test_nothing_is_kept_of_a_stranger_or_of_a_very_long_trunk() -> None:
    trunks, long = Trunks(), visit(*["a"] * (KEPT_CAP + 1))
    assert asked(trunks, visit("a", member_id="")) is not asked(trunks, visit("a", member_id=""))
    assert asked(trunks, long) is asked(trunks, long)
    wide = replace(FORM, budget=KEPT_CAP + 1)
    assert trunks.of("movies", wide, long, ITEMS, one) is not trunks.of("movies", wide, long, ITEMS, one)


def test_old_events_count() -> None:
    """The window moves by steps, so that one old event more may be another trunk."""
    trunks = Trunks()
    many = FORM.budget + FORM.step
    for number in range(many, many + 2 * FORM.step):
        asked(trunks, visit(*["a"] * number))


def test_who_has_not_come_for_longest_is_dropped_first() -> None:
    trunks = Trunks()
    first, second = asked(trunks, visit("a", member_id="0")), asked(trunks, visit("a", member_id="1"))
    for number in range(2, KEPT):
        asked(trunks, visit("a", member_id=str(number)))
    assert asked(trunks, visit("a", member_id="0")) is first
    asked(trunks, visit("a", member_id="one more"))
    assert asked(trunks, visit("a", member_id="0")) is first
    assert asked(trunks, visit("a", member_id="1")) is not second


def test_all_are_forgotten() -> None:
    trunks = Trunks()
    first = asked(trunks, visit("a"))
    trunks.forget()
    assert asked(trunks, visit("a")) is not first


def test_an_event_is_told_once_for_all_who_did_the_same() -> None:
    trunks = Trunks()
    first = asked(trunks, visit("a", "b"))
    assert asked(trunks, visit("b", "c", member_id="bob")).pieces[1] is first.pieces[2]
    other = Event("cy", "b", "movies", "dislike", 1.0)
    assert asked(trunks, Visit([other], "cy")).pieces[1] != first.pieces[2]
    changed = {**ITEMS, "b": Item("b", "movie", {"title": "Another"})}
    assert asked(trunks, visit("b", member_id="dan"), changed).pieces[1] != first.pieces[2]
    assert asked(trunks, visit("b", member_id="eve"), {}).pieces[1] != first.pieces[2]
    large = {"a": Item("a", "movie", {"title": "A", "text": "x" * ITEM_CAP})}
    both = [asked(trunks, visit("a", member_id=name), large).pieces[1] for name in ("fay", "guy")]
    assert both[0] is not both[1]
    trunks.forget()
    assert asked(trunks, visit("b", member_id="hal")).pieces[1] is not first.pieces[2]


@pytest.mark.parametrize("detail", ["text", "vector", "mixed"])
def test_whatever_form_the_trunk_has(detail: Detail) -> None:
    trunks, form = Trunks(), replace(FORM, detail=detail, budget=10, step=3)
    for size in range(30):
        who = visit(*("abcd"[number % 4] for number in range(size)))
        found = trunks.of("movies", form, who, ITEMS, one)
        assert found == verbalize(form, who.profile, happenings(who.timeline, ITEMS), one)
