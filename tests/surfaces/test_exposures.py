"""What experiments showed, as the ledger keeps it; in SQLite always, in PostgreSQL where there is one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from prompts.errors import LedgerError
from surfaces.ledger import store
from surfaces.ledger.exposures import Exposure, Placement, Shown
from surfaces.ledger.store import Ledger
from tests.databases import Open

FIRST = Exposure(
    "e1", "ann", "films", "one", "ab", "fused", False, 5.5, [Placement("heat", 0), Placement("ode", 1, None, 0.25)]
)
DRAWN = Exposure(
    "e2", "bob", "feed", "two", "interleave", None, False, 1.0,
    [Placement("x", 0, "classical"), Placement("héat 🎬", 1, "fused")],
)  # fmt: skip


@pytest.fixture
def ledger(open_tenant: Open) -> Ledger:
    return open_tenant("default")


def test_what_was_shown_is_read_by_experiment(ledger: Ledger) -> None:
    assert ledger.add_exposures([FIRST, DRAWN]) == 2
    assert list(ledger.exposures("one")) == [
        Shown("e1", "ann", "films", "ab", False, 5.5, "heat", 0, "fused", 1.0),
        Shown("e1", "ann", "films", "ab", False, 5.5, "ode", 1, "fused", 0.25),
    ]
    assert list(ledger.exposures("two")) == [
        Shown("e2", "bob", "feed", "interleave", False, 1.0, "x", 0, "classical", 1.0),
        Shown("e2", "bob", "feed", "interleave", False, 1.0, "héat 🎬", 1, "fused", 1.0),
    ]
    assert list(ledger.exposures("three")) == []
    assert type(next(ledger.exposures("one")).degraded) is bool


def test_a_degraded_slate_keeps_the_members_arm_and_has_no_team(ledger: Ledger) -> None:
    plain = [Placement("x", 0)]
    ledger.add_exposures([FIRST._replace(degraded=True, slate=plain), DRAWN._replace(degraded=True, slate=plain)])
    assert [(row.degraded, row.arm) for row in ledger.exposures("one")] == [(True, "fused")]
    assert [(row.degraded, row.arm) for row in ledger.exposures("two")] == [(True, None)]


@pytest.mark.parametrize("page", [1, 2, 3, 100])
def test_rows_come_by_time_and_place_whatever_the_page(
    ledger: Ledger, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PAGE", page)
    ledger.add_exposures(FIRST._replace(exposure_id=f"{97 * n % 31}", timestamp=float(n % 3)) for n in range(31))
    rows = list(ledger.exposures("one"))
    assert len(rows) == 62
    assert [(row.timestamp, row.exposure_id, row.position) for row in rows] == sorted(
        (float(n % 3), f"{97 * n % 31}", position) for n in range(31) for position in (0, 1)
    )


def test_tenants_do_not_see_each_others(open_tenant: Open) -> None:
    one, other = open_tenant("one"), open_tenant("other")
    one.add_exposures([FIRST])
    other.add_exposures([FIRST._replace(member_id="eve")])
    assert {row.member_id for row in one.exposures("one")} == {"ann"}
    assert {row.member_id for row in other.exposures("one")} == {"eve"}


def test_an_exposure_comes_once(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.add_exposures([FIRST])
    assert len(list(ledger.exposures("one"))) == 2


def test_neither_timelines_nor_counts_know_of_them(ledger: Ledger) -> None:
    before = ledger.counts()
    ledger.add_exposures([FIRST])
    assert ledger.counts() == before
    assert list(ledger.all_events()) == []


BAD = [
    FIRST._replace(exposure_id=""),
    FIRST._replace(member_id="x" * 257),
    FIRST._replace(experiment="a\nb"),
    FIRST._replace(arm=""),
    FIRST._replace(timestamp=float("nan")),
    FIRST._replace(slate=[Placement("", 0)]),
    FIRST._replace(slate=[Placement("x", -1)]),
    FIRST._replace(slate=[Placement("x", 0, "")]),
    FIRST._replace(slate=[Placement("x", 0, None, 0.0)]),
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_bad_one_leaves_everything_as_it_was(ledger: Ledger, bad: Exposure) -> None:
    with pytest.raises(LedgerError):
        ledger.add_exposures([DRAWN, bad])
    assert list(ledger.exposures("two")) == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger from before there were exposures."""
    path = tmp_path / "old.sqlite"
    Ledger.open(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE prismrank_exposures")
    connection.close()
    return path


def test_an_older_ledger_takes_them_and_keeps_them(path: Path) -> None:
    with Ledger.open(f"sqlite:///{path}", create=False) as ledger:
        ledger.add_exposures([FIRST])
    with Ledger.open(f"sqlite:///{path}", create=False) as ledger:
        assert [row.item_id for row in ledger.exposures("one")] == ["heat", "ode"]
