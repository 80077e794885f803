"""MovieLens-100K: 943 members' ratings of 1,682 films, with times, from the University of Minnesota's GroupLens.

It is taken at run time from a package that carries it, and is never part of this project: GroupLens allows research
use and no redistribution. https://grouplens.org/datasets/movielens/100k/
"""

from __future__ import annotations

import csv
import re
import zipfile
from pathlib import Path

from foundation.wheels import Wheel
from surfaces.ledger.tables import Progress, Row, Table, Tables

WHEEL = Wheel(
    package="recbole==1.2.1",
    file="recbole-1.2.1-py3-none-any.whl",
    sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    content="MovieLens-100K",
)
SURFACE, KIND = "movies", "movie"

_FILES = "recbole/dataset_example/ml-100k/ml-100k"
_ARTICLE = re.compile(r"(.+), (The|A|An|La|Le|Les|Il|O|Der|Die|Das|Det|L')")
_YEAR = re.compile(r" \((\d{4})\)$")


def load_movielens(cache: Path | None = None, progress: Progress | None = None) -> Tables:
    """The films, members and ratings, ready for `import_tables`.

    A rating of 4 or 5 is the action `like`, 3 is `watch`, less is `dislike`; the rating itself is the event's value.
    Raises DownloadError when the package is neither in the cache nor to be had.
    """
    with zipfile.ZipFile(WHEEL.fetch(cache, progress)) as archive:
        parts = {part: _read(archive, part) for part in ("item", "user", "inter")}
    items = [_item(row) for row in parts["item"]]
    members = [_member(row) for row in parts["user"]]
    events = [_event(row) for row in parts["inter"]]
    return Tables(_table("items", items), _table("members", members), _table("events", events))


def _read(archive: zipfile.ZipFile, part: str) -> list[dict[str, str]]:
    """Rows of one tab-separated file, by column name without RecBole's type suffix."""
    lines = archive.read(f"{_FILES}.{part}").decode("utf-8").splitlines()
    rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    header = [name.partition(":")[0] for name in next(rows)]
    return [dict(zip(header, row, strict=True)) for row in rows]


def _table(name: str, rows: list[Row]) -> Table:
    return Table(f"MovieLens {name}", tuple(rows[0]), rows)


def _item(row: dict[str, str]) -> Row:
    title, year = row["movie_title"], row["release_year"]
    inside = _YEAR.search(title)
    if inside and not year.isdigit():  # one title was cut at the wrong bracket
        title, year = title[: inside.start()], inside[1]
    return {
        "item_id": row["item_id"],
        "kind": KIND,
        "title": natural_title(title),
        "year": int(year) if year.isdigit() else None,
        "genres": [genre for genre in row["class"].split() if genre != "unknown"],
    }


def natural_title(title: str) -> str:
    """'Godfather, The' as 'The Godfather', in a bracketed second title too."""
    outer, bracket, inner = title.partition(" (")
    if bracket and inner.endswith(")"):
        return f"{_forward(outer)} ({_forward(inner[:-1])})"
    return _forward(title)


def _forward(title: str) -> str:
    found = _ARTICLE.fullmatch(title)
    if not found:
        return title
    space = "" if found[2].endswith("'") else " "
    return f"{found[2]}{space}{found[1]}"


def _member(row: dict[str, str]) -> Row:
    return {
        "member_id": row["user_id"],
        "age": int(row["age"]),
        "gender": row["gender"],
        "occupation": row["occupation"],
    }


def _event(row: dict[str, str]) -> Row:
    rating = float(row["rating"])
    return {
        "member_id": row["user_id"],
        "item_id": row["item_id"],
        "surface": SURFACE,
        "action": "like" if rating >= 4 else "watch" if rating == 3 else "dislike",
        "timestamp": float(row["timestamp"]),
        "value": rating,
    }
