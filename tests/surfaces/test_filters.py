"""What each filter drops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from pydantic import ValidationError

from prompts.errors import ConfigError
from surfaces.filters.available import AvailableFilter
from surfaces.filters.blocked import BlockedFilter
from surfaces.filters.seen import SeenFilter
from surfaces.filters.where import WhereFilter
from surfaces.ledger.records import Event, Item
from surfaces.moments import moment
from surfaces.visit import NOBODY, Visit

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z


def item(name: str = "x", /, **attributes: object) -> Item:
    return Item(name, "job", attributes)


def acts(*pairs: tuple[str, str]) -> list[Event]:
    return [Event("m", name, "jobs", action, float(place)) for place, (action, name) in enumerate(pairs)]


# Points in time


@pytest.mark.parametrize(
    ("value", "right"),
    [
        (5, 5.0),
        (-1.5, -1.5),
        ("1767268800", NOON),
        (" 2026-01-01T12:00:00Z ", NOON),
        ("2026-01-01T13:00:00+01:00", NOON),
        ("2026-01-01T12:00", NOON),
        ("2026-01-01", NOON - 43_200),
        ("20260101", 20_260_101.0),
    ],
)
def test_moments(value: object, right: float) -> None:
    assert moment(value) == right


@pytest.mark.parametrize(
    "value",
    [None, True, False, "", "soon", "2026-13-01", float("nan"), "nan", float("inf"), 10**400, "1" * 65, [5], {}],
)
def test_what_is_no_moment(value: object) -> None:
    assert moment(value) is None


# Seen


def test_seen_drops_what_was_acted_on() -> None:
    visit = Visit(acts(("show", "a"), ("like", "b"), ("watch", "c")), now=2.0)
    assert SeenFilter(type="seen").excludes(visit) == {"b", "c"}
    assert SeenFilter(type="seen", actions=("like",)).excludes(visit) == {"b"}
    assert SeenFilter(type="seen", within=0.5).excludes(visit) == {"c"}


# Available


def available(now: float = NOON, settings: Mapping[str, object] | None = None, **attributes: object) -> bool:
    kind = AvailableFilter.model_validate({"type": "available", **(settings or {})})
    return kind.test(Visit(now=now))(item(**attributes))


@pytest.mark.parametrize("value", [False, 0, 0.0, "no", "No ", "FALSE", "false", "0", "off", "n"])
def test_what_is_switched_off(value: object) -> None:
    assert not available(available=value)
    assert available(settings={"flag": "on"}, available=value)
    assert not available(settings={"flag": "on"}, on=value)


@pytest.mark.parametrize("value", [None, True, 1, "yes", "", "soon", [], [0], {"no": 0}, float("nan")])
def test_what_is_not_switched_off(value: object) -> None:
    assert available(available=value)


def test_not_there_yet() -> None:
    assert not available(available_from=NOON + 1)
    assert not available(available_from="2026-01-01T12:00:01Z")
    assert available(available_from=NOON)
    assert available(available_from="2026-01-01T12:00:00Z")
    assert available(available_from="some day")
    assert not available(settings={"from": "opens"}, opens=NOON + 1)


def test_over() -> None:
    assert not available(expires_at=NOON - 1)
    assert not available(expires_at="2025-12-31")
    assert available(expires_at=NOON)
    assert available(expires_at=None)
    assert not available(settings={"until": "closes"}, closes=NOON - 1)


def test_without_a_time_of_the_visit_times_say_nothing() -> None:
    assert available(now=0.0, available_from=NOON, expires_at=1.0)
    assert not available(now=0.0, available=False)


@pytest.mark.parametrize(
    ("left", "right"), [(0, False), (-1, False), ("0", False), ("0.0", False), (1, True), ("3", True), (0.5, True),
                        (None, True), ("many", True), (True, True), ([0], True), (10**400, True)],
)  # fmt: skip
def test_sold_out(left: object, right: bool) -> None:
    assert available(settings={"stock": "left"}, left=left) is right
    assert available(left=left)


def test_the_file_says_from() -> None:
    kind = AvailableFilter.model_validate({"type": "available", "from": "opens"})
    assert kind.start == "opens"
    assert kind.model_dump(mode="json") == {
        "type": "available", "flag": "available", "from": "opens", "until": "expires_at", "stock": None,
    }  # fmt: skip
    with pytest.raises(ValidationError, match="Extra inputs"):
        AvailableFilter.model_validate({"type": "available", "start": "opens"})


# Blocked

POSTS = {
    "a": item("a", author="ann", tags=["red", 5]),
    "b": item("b", author="bob"),
    "c": item("c", author=["cy", "ann"]),
    "d": item("d"),
    "e": item("e", author="", tags=[5]),
}


class Reads:
    """The posts, and how often they were asked for."""

    def __init__(self) -> None:
        self.asked: list[set[str]] = []

    def __call__(self, ids: Iterable[str]) -> Mapping[str, Item]:
        self.asked.append(set(ids))
        return {name: POSTS[name] for name in self.asked[-1] if name in POSTS}


def kept(kind: BlockedFilter, visit: Visit) -> str:
    test = kind.test(visit)
    return "".join(name for name, post in POSTS.items() if test(post))


def test_blocked_items_go_for_ever() -> None:
    visit = Visit(acts(("block", "a"), ("hide", "b"), ("like", "c")), now=1e10)
    kind = BlockedFilter(type="blocked")
    assert kind.excludes(visit) == {"a"}
    assert kept(kind, visit) == "bcde"
    assert BlockedFilter(type="blocked", actions=("block", "hide")).excludes(visit) == {"a", "b"}


def test_others_of_the_same_author_go_too() -> None:
    reads = Reads()
    visit = Visit(acts(("block", "a"), ("block", "gone")), lookup=reads)
    assert kept(BlockedFilter(type="blocked", by="author"), visit) == "bde"
    assert kept(BlockedFilter(type="blocked", by="tags"), visit) == "bcd"
    assert reads.asked == [{"a", "gone"}] * 2, "once for each test that is made"


def test_what_says_nothing_has_nothing_in_common() -> None:
    visit = Visit(acts(("block", "d"), ("block", "e")), lookup=Reads())
    assert kept(BlockedFilter(type="blocked", by="author"), visit) == "abc"


def test_nothing_blocked_reads_nothing() -> None:
    reads = Reads()
    assert kept(BlockedFilter(type="blocked", by="author"), Visit(acts(("like", "a")), lookup=reads)) == "abcde"
    assert not reads.asked


# Where


def where(condition: str, visit: Visit = NOBODY, **attributes: object) -> bool:
    return WhereFilter.model_validate({"type": "where", "keep": condition}).test(visit)(item(**attributes))


def test_where_reads_items_members_and_the_request() -> None:
    rome = Visit(profile={"location": "Rome"}, member_id="m", context={"most": 50})
    near = "item.remote or item.location == member.location"
    assert where(near, rome, location="Rome")
    assert where(near, rome, remote=True)
    assert not where(near, rome, location="Oslo")
    assert not where(near, NOBODY, location="Oslo")
    assert where("item.price <= context.most", rome, price=50)
    assert not where("item.price <= context.most", rome, price=51)
    assert not where("item.price <= context.most", rome, price="cheap")
    assert where("item.item_id == 'x' and item.kind == 'job' and member.member_id == 'm'", rome)


def test_a_wrong_condition_is_told_when_the_file_is_read() -> None:
    with pytest.raises(ValidationError, match="calling a function"):
        where("item.title.upper()")
    with pytest.raises(ValidationError):
        where("person.age > 3")


def test_within_needs_times() -> None:
    lately = SeenFilter(type="seen", within=86_400.0)
    lately.check("time")
    SeenFilter(type="seen").check("order")
    with pytest.raises(ConfigError, match="within needs times, but this ledger's clock is 'order'"):
        lately.check("order")
