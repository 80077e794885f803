"""From events to happenings: what the prompts are told, and what is left out."""

from __future__ import annotations

from surfaces.happenings import BEFORE, attributes_of, happenings, readable
from surfaces.ledger.records import Event, Item

ITEMS = {name: Item(name, "movie", {"title": name.upper()}) for name in "abcde"}


def event(item_id: str, action: str = "like") -> Event:
    return Event("m", item_id, "movies", action, 0.0)


def test_each_event_becomes_a_happening_in_order() -> None:
    told = happenings([event("a"), event("b", "dislike")], ITEMS)
    assert [(one.kind, one.action, one.attributes["title"]) for one in told] == [
        ("movie", "like", "A"),
        ("movie", "dislike", "B"),
    ]


def test_impressions_are_left_out() -> None:
    timeline = [event("a"), event("b", "show"), event("c")]
    assert [one.attributes["item_id"] for one in happenings(timeline, ITEMS)] == ["a", "c"]
    assert [one.item_id for one in readable(timeline, 10)] == ["a", "c"]


def test_readable_are_the_newest_that_a_budget_may_hold() -> None:
    timeline = [event(name) for name in "abcde"]
    assert [one.item_id for one in readable(timeline, 2)] == ["d", "e"]
    assert readable(timeline, 100) == timeline
    assert readable([], 2) == []


def test_events_without_an_item_only_count() -> None:
    timeline = [event(name) for name in "abcde"]
    told = happenings(timeline, {"d": ITEMS["d"], "e": ITEMS["e"]})
    assert told[:3] == [BEFORE] * 3
    assert [one.attributes["title"] for one in told[3:]] == ["D", "E"]


def test_the_item_id_is_an_attribute_that_no_attribute_can_take_over() -> None:
    assert attributes_of(Item("a", "movie", {"item_id": "z", "title": "T"})) == {"item_id": "a", "title": "T"}
