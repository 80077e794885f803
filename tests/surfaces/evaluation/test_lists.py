"""Given lists, from files and from impressions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from prompts.errors import ConfigError, LedgerError
from surfaces.evaluation.lists import Listed, from_impressions, from_lists, read_lists
from surfaces.ledger.store import Ledger
from tests.surfaces.evaluation.shelf import DAY, event, fill, movies, surface
from tests.surfaces.evaluation.test_protocols import learned


def written(folder: Path, **columns: list[object]) -> Path:
    path = folder / "lists.parquet"
    pl.DataFrame(columns).write_parquet(path)
    return path


def test_rows_of_one_member_and_time_are_a_list(tmp_path: Path) -> None:
    path = written(
        tmp_path, member_id=["ann", "bob", "ann", "ann"], item_id=["c", "a", "d", "e"], label=[1.0, 1.0, 0.0, 0.5],
        timestamp=[4.0, 2.0, 4.0, 9.0],
    )  # fmt: skip
    assert read_lists(path) == [
        Listed("ann", 4.0, {"c": 1.0, "d": 0.0}), Listed("bob", 2.0, {"a": 1.0}), Listed("ann", 9.0, {"e": 0.5}),
    ]  # fmt: skip


def test_times_may_be_dates_and_may_be_absent(tmp_path: Path) -> None:
    at = datetime(1970, 1, 2, tzinfo=UTC)
    rows = {"member_id": ["ann"], "item_id": ["a"], "label": [True]}
    assert read_lists(written(tmp_path, **rows, timestamp=[at])) == [Listed("ann", DAY, {"a": 1.0})]
    assert read_lists(written(tmp_path, **rows, timestamp=["1970-01-02"])) == [Listed("ann", DAY, {"a": 1.0})]
    assert read_lists(written(tmp_path, **rows)) == [Listed("ann", None, {"a": 1.0})]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"member_id": ["ann"], "item_id": ["a"]}, "needs the columns member_id, item_id, label; 'label' is missing"),
        ({"member_id": ["ann"], "item_id": ["a"], "label": [-1.0]}, "row 1: label -1 is below 0"),
        ({"member_id": ["ann"], "item_id": ["a"], "label": [float("nan")]}, "row 1: 'label' is empty or no finite"),
        ({"member_id": ["ann", None], "item_id": ["a", "b"], "label": [1, 0]}, "row 2: 'member_id' is empty"),
        ({"member_id": ["ann"] * 2, "item_id": ["a"] * 2, "label": [1, 0]}, "row 2: .*'ann' has item 'a' twice"),
        ({"member_id": ["ann"], "item_id": ["a"], "label": ["much"]}, "conversion"),
        ({"member_id": ["ann"], "item_id": ["a"], "label": [1], "timestamp": ["soon"]}, "row 1: 'timestamp' is empty"),
        ({"member_id": ["ann"], "item_id": ["a"], "label": [1], "timestamp": [True]}, "it must hold times"),
        (
            {"member_id": ["ann"], "item_id": ["a"], "label": [1], "timestamp": [{"at": 1}]},
            "'timestamp' holds Struct.*must hold numbers",
        ),
        ({"member_id": ["ann"], "item_id": ["a"], "label": [{"is": 1.0}]}, "'label' holds Struct.*must hold numbers"),
        ({"member_id": [["ann"]], "item_id": ["a"], "label": [1]}, "'member_id' holds List.*must hold text"),
        ({"member_id": [], "item_id": [], "label": []}, "no rows"),
    ],
)
def test_files_that_are_none(tmp_path: Path, columns: dict[str, list[object]], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_lists(written(tmp_path, **columns))


def test_what_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "lists.csv").write_text("member_id,item_id,label\n")
    for name in ("lists.csv", "absent.parquet"):
        with pytest.raises(ConfigError, match=r"must be a parquet file"):
            read_lists(tmp_path / name)


def test_only_what_came_before_is_read_and_learned(shelf: Ledger) -> None:
    lists = [Listed("ann", 3.5, {"c": 1.0, "d": 0.0}), Listed("ann", 2.5, {"e": 0.0, "b": 2.0})]
    split = from_lists(shelf, movies(), lists)
    late, early = split.cases
    assert [each.item_id for each in late.history] == ["a", "song", "b"]
    assert [each.item_id for each in early.history] == ["a", "song"]
    assert (late.listed, late.wanted, late.acts) == (("c", "d"), ["c"], {"c": "watch"})
    assert learned(split) == {"ann": "a", "bob": "ba", "cy": "a", "dan": "cbc"}, "the first of the lists counts"
    assert split.items(1) == ["e", "b"]


def test_without_a_time_a_list_stands_where_its_wanted_item_comes(shelf: Ledger) -> None:
    split = from_lists(
        shelf, movies(), [Listed("ann", None, {"b": 1.0, "d": 0.0}), Listed("cy", None, {"b": 1.0, "c": 0.0})]
    )
    ann, cy = split.cases
    assert [each.item_id for each in ann.history] == ["a", "song"]
    assert [each.item_id for each in cy.history] == ["a", "e"], "the ledger never heard of it: all is before"
    assert learned(split)["ann"] == "a"


def test_lists_that_say_nothing_are_left_out_and_told(shelf: Ledger) -> None:
    whole = Listed("ann", 9.0, {"c": 1.0, "d": 0.0})
    split = from_lists(shelf, movies(), [whole, Listed("bob", 9.0, {"a": 0.0}), Listed("cy", 9.0, {"a": 1.0})])
    assert len(split.cases) == 1
    assert split.notes == ("2 lists whose labels are all alike were left out",)
    with pytest.raises(LedgerError, match="nothing to rank"):
        from_lists(shelf, movies(), [Listed("bob", 9.0, {"a": 0.0})])


def test_whom_and_what_the_ledger_does_not_know(shelf: Ledger) -> None:
    with pytest.raises(LedgerError, match="name member 'eve', whom the ledger"):
        from_lists(shelf, movies(), [Listed("eve", None, {"a": 1.0, "b": 0.0})])
    with pytest.raises(LedgerError, match="item 'song' and 1 more: no item of the kind 'movie'"):
        from_lists(shelf, movies(), [Listed("ann", None, {"a": 1.0, "song": 0.0, "zebra": 0.0})])


# Impressions

FILMS_LIKED = "heads: [{name: like, type: choice, weight: 1}, {name: hate, type: choice, weight: -1}]"


def shown(member_id: str, time: float, *items: str) -> list[object]:
    return [event(member_id, item, time, "show", "films") for item in items]


def impressions(ledger: Ledger) -> None:
    events = [event("ann", item, float(n), "like", "films") for n, item in enumerate("ab", 1)]
    for n in range(8):
        at = 100.0 * (n + 1)
        events += shown("ann", at, "c", "d", "e")  # type: ignore[arg-type]
        events.append(event("ann", "d", at + 5, "like", "films"))
        events.append(event("ann", "e", at + 6, "hate", "films"))
    events += shown("bob", 950.0, "a", "b")  # type: ignore[arg-type]
    events.append(event("bob", "b", 960.0, "hate", "films"))
    events += shown("cy", 955.0, "a", "b")  # type: ignore[arg-type]
    events.append(event("cy", "a", 960.0, "like", "elsewhere"))
    fill(ledger, events)


def test_slates_are_lists_with_what_came_of_them(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/shown.sqlite") as ledger:
        impressions(ledger)
        split = from_impressions(ledger, surface(FILMS_LIKED), share=0.25)
    assert [case.time for case in split.cases] == [700.0, 800.0], "bob liked nothing, cy liked it elsewhere"
    case = split.cases[0]
    assert case.labels == {"c": 0.0, "d": 1.0, "e": 0.0}
    assert case.acts == {"d": "like", "e": "hate"}
    assert max(each.timestamp for each in case.history) < 700.0
    assert split.cut is not None
    assert learned(split) == {"ann": "ab" + 6 * "d", "cy": ""}, "hates are no choices"


def test_a_ledger_without_slates(shelf: Ledger, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"no impressions \('show'\) on surface 'films' that anything came of"):
        from_impressions(shelf, surface(FILMS_LIKED))
    with Ledger.open(f"sqlite:///{tmp_path}/order.sqlite") as ledger:
        ledger.set_clock("order")
        fill(ledger)
        with pytest.raises(ConfigError, match="impressions need times"):
            from_impressions(ledger, surface(FILMS_LIKED))
