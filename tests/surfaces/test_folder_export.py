"""What a ledger writes as a folder comes back as the same ledger."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prompts.errors import LedgerError
from surfaces.ledger.folder import export_folder, import_folder
from surfaces.ledger.records import Counts, Event, Item, Member
from surfaces.ledger.store import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite") as opened:
        yield opened


def state(ledger: Ledger) -> tuple[object, ...]:
    return ledger.all_items(), ledger.all_members(), list(ledger.all_events()), ledger.clock


def fill(ledger: Ledger, clock: str = "time") -> None:
    draw = random.Random(0)
    ledger.write(
        clock="order" if clock == "order" else "time",
        members=[Member(f"m{place}", {"name": f"Ünï {place} \u2028 \x85", "n": place}) for place in range(5)],
        items=[
            Item("a", "movie", {"title": "A\nB\r\nC", "year": 1995, "tags": ["x", None], "deep": {"k": [1.5]}}),
            Item("b", "movie", {"year": "unknown", "seen": True}),
            Item("c", "person", {}, "m0"),
        ],
        events=[
            Event(f"m{draw.randrange(5)}", draw.choice("abc"), "s", "act", float(draw.randrange(4)), draw.random())
            for _ in range(100)
        ],
    )


@pytest.mark.parametrize("clock", ["time", "order"])
def test_what_is_exported_comes_back(tmp_path: Path, ledger: Ledger, clock: str) -> None:
    fill(ledger, clock)
    assert export_folder(ledger, tmp_path / "new" / "folder") == Counts(3, 5, 100)
    names = ["events.parquet", "items.jsonl", "ledger.yaml", "members.jsonl"]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == names
    with Ledger.open(f"sqlite:///{tmp_path}/other.sqlite") as other:
        import_folder(tmp_path / "new" / "folder", other)
        items, members, events, told = state(other)
        assert (items, members, told) == (ledger.all_items(), ledger.all_members(), clock)
        assert isinstance(events, list)
        assert sorted(events) == sorted(ledger.all_events())
        export_folder(other, tmp_path / "third")
        with Ledger.open(f"sqlite:///{tmp_path}/third.sqlite") as third:
            import_folder(tmp_path / "third", third)
            assert state(third) == state(other), "from here on, ties keep their order too"


def test_an_empty_ledger_goes_out_and_in(tmp_path: Path, ledger: Ledger) -> None:
    assert export_folder(ledger, tmp_path / "out") == Counts(0, 0, 0)
    assert import_folder(tmp_path / "out", ledger) == Counts(0, 0, 0)


def test_exporting_again_replaces(tmp_path: Path, ledger: Ledger) -> None:
    fill(ledger)
    export_folder(ledger, tmp_path / "out")
    ledger.put_members([Member("late", {})])
    export_folder(ledger, tmp_path / "out")
    with Ledger.open(f"sqlite:///{tmp_path}/other.sqlite") as other:
        import_folder(tmp_path / "out", other)
        assert other.member_ids() == ledger.member_ids()


def test_a_folder_that_cannot_be_written(tmp_path: Path, ledger: Ledger) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(LedgerError, match=r"cannot write the ledger folder .*file"):
        export_folder(ledger, tmp_path / "file")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ATTRIBUTES = st.dictionaries(
    st.text("abcxyz_ é", min_size=1, max_size=6),
    TEXT
    | st.integers()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.lists(TEXT, max_size=3),
    max_size=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(rows=st.lists(ATTRIBUTES, max_size=5))
def test_any_attributes_go_out_and_in(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]) -> None:
    folder = tmp_path_factory.mktemp("any")
    with Ledger.open(f"sqlite:///{folder}/a.sqlite") as one, Ledger.open(f"sqlite:///{folder}/b.sqlite") as other:
        one.write(
            items=[Item(str(place), "thing", row) for place, row in enumerate(rows)],
            members=[Member(str(place), row) for place, row in enumerate(rows)],
        )
        export_folder(one, folder / "out")
        import_folder(folder / "out", other)
        assert state(one) == state(other)
