"""What a stem reads of a request: its context, and the time in words that stay the same for a while."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surfaces.context import PARTS_OF_DAY, clock, moment, told
from surfaces.ledger.records import EARLIEST, LATEST

NOW = datetime(2026, 3, 6, 18, 5, tzinfo=UTC).timestamp()


def test_a_time_in_words() -> None:
    assert clock(NOW) == {
        "part": "evening", "weekday": "Friday", "month": "March", "date": "2026-03-06", "hour": 18, "time": "18:05",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("hour", "part"),
    [(0, "night"), (4, "night"), (5, "morning"), (11, "morning"), (12, "afternoon"), (17, "afternoon"), (18, "evening"),
     (23, "evening")],
)  # fmt: skip
def test_the_parts_of_a_day(hour: int, part: str) -> None:
    assert clock(datetime(2026, 3, 6, hour, 59, tzinfo=UTC).timestamp())["part"] == part
    assert [end for end, _ in PARTS_OF_DAY] == sorted(end for end, _ in PARTS_OF_DAY)


def test_what_a_request_says_stays_and_the_time_is_added() -> None:
    context: dict[str, object] = {"query": "tea", "page": 3}
    seen = told(context, NOW)
    assert seen == {"query": "tea", "page": 3, "now": clock(NOW)}
    assert context == {"query": "tea", "page": 3}


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (NOW + 60, NOW + 60),
        (int(NOW), float(int(NOW))),
        (0, 0.0),
        ("2026-03-06T18:05:00Z", NOW),
        ("2026-03-06T18:05:00", NOW),
        ("2026-03-06T20:05:00+02:00", NOW),
        ("2026-03-06", datetime(2026, 3, 6, tzinfo=UTC).timestamp()),
    ],
)
def test_a_request_may_bring_its_own_time(said: object, seconds: float) -> None:
    assert moment({"now": said}, 1.0) == seconds
    assert told({"now": said}, 1.0)["now"] == clock(seconds)


@pytest.mark.parametrize(
    "said",
    [
        None, True, False, "", "soon", "2026-13-45", "9" * 5_000, [], {"hour": 3}, float("nan"), float("inf"), 1e300,
        10**400, -(10**400), "\ud800", b"2026-03-06",
    ],
)  # fmt: skip
def test_a_time_that_tells_none_is_the_time_of_the_request(said: object) -> None:
    assert moment({"now": said}, NOW) == NOW


@given(st.floats(allow_nan=False) | st.integers(-(10**20), 10**20))
def test_any_time_has_words(seconds: float) -> None:
    words = clock(seconds)
    assert set(words) == {"part", "weekday", "month", "date", "hour", "time"}
    assert words["part"] in {part for _, part in PARTS_OF_DAY}


@pytest.mark.parametrize("seconds", [EARLIEST, EARLIEST - 1, LATEST, LATEST + 1, 0.0])
def test_the_first_and_the_last_moment_have_words(seconds: float) -> None:
    assert clock(seconds)["hour"] in range(24)


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(["now", "locale", "query", "page"]), JUNK))
def test_any_context_is_read(context: dict[str, object]) -> None:
    seen = told(context, NOW)
    assert set(seen) == {*context, "now"}
    assert isinstance(seen["now"], dict)
    assert EARLIEST <= moment(context, NOW) <= LATEST or isinstance(context["now"], str)


def test_within_an_hour_the_coarse_words_stay() -> None:
    one, other = clock(NOW), clock(NOW + 3_000)
    assert one["time"] != other["time"]
    assert {key: one[key] for key in ("part", "weekday", "month", "date")} == {
        key: other[key] for key in ("part", "weekday", "month", "date")
    }
