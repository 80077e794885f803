"""Queries of a stranger over a real ledger: what they find, and all that they cannot.

SQLite always; PostgreSQL when PRISMRANK_TEST_POSTGRES holds a URL.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text as plain_sql
from sqlglot import exp

from prompts.errors import ConfigError, LedgerError, SpecError
from surfaces.included import Folder
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.sources.base import NOTHING, Interactions, Materials
from surfaces.sources.sql import Sql, SqlSource
from surfaces.sources.sql_run import SECONDS, Running
from surfaces.sources.sql_text import LENGTH_CAP, checked
from surfaces.spec_file import read_spec
from surfaces.visit import NOBODY, Visit
from tests.contracts.test_source_contract import history
from tests.databases import Open
from tests.surfaces.test_sources import surface


@pytest.fixture
def ledger(open_tenant: Open) -> Ledger:
    """Four films of one tenant; another tenant has films, members and events whose ids begin with `secret`."""
    other = open_tenant("other")
    other.write(
        items=[Item(f"secret{place}", "movie", {"city": "Rome"}) for place in range(3)],
        members=[Member("secret", {"city": "Rome"}), Member("ann", {"city": "secret"})],
        events=[Event("ann", "secret1", "movies", "secret", 1.0)],
    )
    ledger = open_tenant("mine")
    ledger.write(
        items=[
            Item("a", "movie", {"city": "Rome", "pay": 10, "open": True, "odd % key": "x", "deep": {"in": "well"}}),
            Item("b", "movie", {"city": "Oslo", "pay": 9.5, "open": False, "title": "100% \\ 'fun'"}),
            Item("c", "movie", {"city": "Rome", "pay": "a lot", "nul": "a\0b \\u0000"}),
            Item("d", "movie", {"pay": -3, "tags": ["x"]}, member_id="bob"),
            Item("song", "song", {"city": "Rome"}),
        ],
        members=[Member("ann", {"city": "Rome", "age": 30}), Member("bob", {"city": "Oslo"})],
        events=[
            Event("ann", "b", "movies", "watch", 1.0),
            Event("bob", "b", "movies", "watch", 2.0),
            Event("bob", "a", "movies", "watch", 3.0, value=5.0),
        ],
    )
    return ledger


ANN = Visit(member_id="ann", profile={"city": "Rome", "age": 30}, context={"query": "100%", "page": 2}, now=100.0)


def source(ledger: Ledger, query: str, k: int = 3) -> Sql:
    spec, data = surface("type: popular, k: 1"), Interactions.of(ledger, "movie")
    built = SqlSource.model_validate({"type": "sql", "k": k, "query": query}).build(Materials(spec, data, ledger))
    built.fit(data)
    return built


def named(ledger: Ledger, query: str, visit: Visit = ANN) -> list[str]:
    return list(source(ledger, query).named(visit))


# What queries find, alike in both databases

FOUND = [
    ("SELECT item_id FROM items ORDER BY item_id DESC", "dcba"),
    ("SELECT item_id FROM items WHERE attributes ->> 'city' = :profile_city ORDER BY item_id", "ac"),
    ("SELECT item_id FROM items WHERE attributes ->> 'open' = 'true'", "a"),
    ("SELECT item_id FROM items WHERE attributes ->> 'pay' = '10' OR attributes ->> 'pay' = '9.5' ORDER BY 1", "ab"),
    ("SELECT item_id FROM items WHERE attributes -> 'deep' ->> 'in' = 'well'", "a"),
    ("SELECT item_id FROM items WHERE attributes ->> 'odd % key' = 'x'", "a"),
    ("SELECT item_id FROM items WHERE attributes ->> 'title' LIKE :context_query || '%'", "b"),
    ("SELECT item_id FROM items WHERE attributes ->> 'city' LIKE 'r%'", ""),
    ("SELECT item_id FROM items WHERE lower(attributes ->> 'city') LIKE 'r%' ORDER BY 1", "ac"),
    ("SELECT item_id FROM items WHERE attributes ->> 'title' LIKE '%''fun''%'", "b"),
    ("SELECT item_id FROM items WHERE attributes ->> 'nul' IS NOT NULL", "c"),
    ("SELECT item_id FROM items WHERE attributes ->> 'nothing' IS NULL ORDER BY item_id LIMIT 2", "ab"),
    ("SELECT item_id FROM items ORDER BY CAST(attributes ->> 'pay' AS REAL) DESC NULLS LAST, item_id", "abdc"),
    ("SELECT item_id FROM items WHERE CAST(attributes ->> 'pay' AS REAL) / 0 > 1", ""),
    ("SELECT item_id FROM items WHERE CAST(attributes ->> 'pay' AS REAL) < CAST(:profile_age AS REAL) / 3", "bd"),
    ("SELECT item_id FROM items WHERE :now - 99 = 1 AND :k = 3 AND :context_page = '2' AND kind = 'movie'", "abcd"),
    ("SELECT item_id FROM items WHERE :profile_nothing IS NULL AND :context_nothing IS NULL ORDER BY 1 LIMIT 1", "a"),
    ("SELECT item_id FROM events WHERE member_id = :member_id", "b"),
    ("SELECT item_id, count(*) AS n FROM events GROUP BY item_id ORDER BY n DESC, item_id", "ba"),
    ("SELECT item_id FROM events GROUP BY item_id HAVING count(DISTINCT member_id) > 1", "b"),
    ("WITH liked AS (SELECT item_id, timestamp FROM events) SELECT i.item_id FROM items i JOIN liked l "
     "ON l.item_id = i.item_id ORDER BY l.timestamp DESC, i.item_id", "ab"),
    ("WITH one AS (SELECT item_id FROM events), two AS (SELECT item_id FROM one) SELECT two.item_id FROM two "
     "WHERE two.item_id <> 'b'", "a"),
    ("SELECT item_id FROM items WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.item_id = items.item_id)", "cd"),
    ("SELECT item_id FROM items WHERE item_id IN (SELECT item_id FROM events) ORDER BY item_id", "ab"),
    ("SELECT item_id FROM events UNION SELECT item_id FROM items WHERE kind = 'movie' ORDER BY item_id DESC", "dcba"),
    ("SELECT i.item_id FROM items i LEFT JOIN members m ON m.member_id = i.member_id "
     "WHERE m.profile ->> 'city' = 'Oslo'", "d"),
    ("SELECT item_id FROM items WHERE CASE WHEN item_id = 'a' THEN 1 ELSE 2 END = 1", "a"),
    ("SELECT item_id FROM (SELECT item_id, kind AS k2 FROM items) AS found WHERE k2 = 'movie' ORDER BY 1", "abcd"),
    ("SELECT item_id FROM items WHERE substr(attributes ->> 'city', 1, 2) || '!' = 'Ro!' ORDER BY item_id", "ac"),
    ("SELECT item_id FROM items WHERE length(trim(' x ')) = 1 AND round(2.4) = 2 AND abs(-1) = 1 AND item_id='a'", "a"),
    ("SELECT item_id FROM items WHERE coalesce(attributes ->> 'city', 'none') = 'none'", "d"),
    ("select ITEM_ID from Items -- a comment; with a ' in it\n where kind in ('movie', 'film') /* -- */ limit :k;", ""),
]  # fmt: skip


@pytest.mark.parametrize(("query", "right"), FOUND, ids=lambda value: str(value)[:50])
def test_what_a_query_finds(ledger: Ledger, query: str, right: str) -> None:
    found = named(ledger, query)
    if "ORDER BY" in query:
        assert found == list(right)
    else:
        assert len(found) == 3 if ":k;" in query else sorted(found) == list(right)


def test_more_rows_are_read_than_the_source_brings(open_tenant: Open) -> None:
    ledger = open_tenant("many")
    ledger.put_items(Item(f"i{place:02}", "movie", {}) for place in range(50))
    assert len(source(ledger, "SELECT item_id FROM items", k=3).named(ANN)) == 12, "filters will drop some"
    assert len(source(ledger, "SELECT item_id FROM items LIMIT 40", k=3).named(ANN)) == 12
    assert len(source(ledger, "SELECT item_id FROM items LIMIT :k", k=3).named(ANN)) == 3


def test_only_items_of_the_surfaces_kind_are_named(ledger: Ledger) -> None:
    built = source(ledger, "SELECT item_id FROM items UNION SELECT 'made up' UNION SELECT member_id FROM members")
    assert sorted(built.named(ANN)) == list("abcd")
    ledger.put_items([Item("new", "movie", {}), Item("ode", "song", {})])
    seen = Visit(lookup=ledger.items)
    assert sorted(built.named(seen)) == [*"abcd", "new"], "newer than the sources' data"
    assert sorted(built.named(ANN)) == list("abcd")


@pytest.mark.parametrize("column", ["attributes", "1", "NULL", "kind", "CAST(1 AS REAL)", "*"])
def test_a_first_column_that_is_no_item_names_nothing(ledger: Ledger, column: str) -> None:
    assert named(ledger, f"SELECT {column} FROM items") in ([], list("abcd"))


def test_scores_are_ranks(ledger: Ledger) -> None:
    built = source(ledger, "SELECT item_id FROM items WHERE item_id <> 'b' ORDER BY item_id DESC")
    assert list(built.scores(history([]), ANN)) == [-3, NOTHING, -2, -1]


def test_the_query_may_stand_in_a_file(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "near.sql").write_text("SELECT item_id\nFROM items\nWHERE item_id = 'b'\n")
    entry = {"type": "sql", "k": 3, "query": {"file": "near.sql"}}
    kind = SqlSource.model_validate(entry, context=Folder(tmp_path))
    built = kind.build(Materials(surface("type: popular, k: 1"), Interactions.of(ledger, "movie"), ledger))
    assert list(built.named(Visit(lookup=ledger.items))) == ["b"]
    assert "near.sql" not in kind.model_dump_json()


@pytest.mark.parametrize(
    "value", ["half \ud800", "nul \0", 10**5000, float("nan"), ["x"], {"x": 1}, None, "x" * 100_000, True, -1, 1e300]
    , ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_any_value_of_a_visit(ledger: Ledger, value: object) -> None:
    visit = Visit(profile={"city": value}, context={"city": value, "k": value, "'; DROP": value})
    query = (
        "SELECT item_id FROM items WHERE :profile_city IS NULL OR :context_city LIKE '%' OR :context_k = '' ORDER BY 1"
    )
    assert named(ledger, query, visit) == list("abcd")


def test_many_threads(ledger: Ledger) -> None:
    built = source(ledger, "SELECT item_id FROM items WHERE attributes ->> 'city' = :profile_city ORDER BY item_id")
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(built.named, [ANN, Visit(profile={"city": "Oslo"})] * 30))
    assert found == [["a", "c"], ["b"]] * 30


# What no query can do

REFUSED = [
    ("SELECT item_id FROM prismrank_items", "no table is called 'prismrank_items'"),
    ('SELECT item_id FROM "prismrank_items"', "no table is called 'prismrank_items'"),
    ("SELECT item_id FROM items UNION SELECT item_id FROM prismrank_items", "no table is called"),
    ("SELECT item_id FROM items WHERE item_id IN (SELECT item_id FROM prismrank_items)", "no table is called"),
    ("SELECT (SELECT item_id FROM prismrank_items LIMIT 1) FROM items", "no table is called"),
    ("SELECT item_id FROM items -- \n UNION SELECT item_id FROM prismrank_events", "no table is called"),
    ("SELECT item_id FROM main.prismrank_items", "a schema before a name is not allowed"),
    ("SELECT item_id FROM public.items", "a schema before a name is not allowed"),
    ("SELECT relname FROM pg_catalog.pg_class", "a schema before a name is not allowed"),
    ("SELECT kind FROM sqlite_master", "no table is called 'sqlite_master'"),
    ("SELECT kind FROM pg_class", "no table is called 'pg_class'"),
    ("SELECT kind FROM information_schema.tables", "a schema before a name is not allowed"),
    ("SELECT tenant FROM items", "no column is called 'tenant'"),
    ("SELECT items.tenant FROM items", "no column is called 'tenant'"),
    ("SELECT rowid FROM items", "no column is called 'rowid'"),
    ("SELECT ctid FROM items", "no column is called 'ctid'"),
    ("SELECT x.item_id FROM items", "no table here is called 'x'"),
    ("SELECT :tenant FROM items", "the parameter 'tenant' is not known"),
    ("SELECT ? FROM items", "a parameter without a name is not allowed"),
    ("SELECT $1 FROM items", "'parameter' is not allowed"),
    ("SELECT %s FROM items", "is not known"),
    ("SELECT %(tenant)s FROM items", "is not known|not allowed|no SQL"),
    ("WITH items AS (SELECT 1) SELECT item_id FROM items", "WITH items: this name is taken"),
    ("WITH Items AS (SELECT 1) SELECT item_id FROM items", "WITH items: this name is taken"),
    ("WITH prismrank_items AS (SELECT 1) SELECT item_id FROM items", "the name 'prismrank_items' is not allowed"),
    ("WITH a AS (SELECT item_id FROM b), b AS (SELECT item_id FROM items) SELECT item_id FROM a", "called 'b'"),
    ("SELECT * FROM (WITH x AS (SELECT item_id FROM items) SELECT * FROM x) AS y, x", "no table is called 'x'"),
    ("SELECT * FROM (WITH x AS (SELECT item_id FROM items) SELECT * FROM items) AS y", "at the beginning"),
    ("WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT 1 FROM r) SELECT * FROM r", "WITH RECURSIVE is not allowed"),
    ("WITH a AS (DELETE FROM items RETURNING *) SELECT * FROM a", "'delete' is not allowed"),
    ("SELECT item_id FROM items; DROP TABLE prismrank_items", "nothing behind it"),
    ("SELECT item_id FROM items; SELECT 1", "nothing behind it"),
    ("DELETE FROM items", "begins with SELECT"),
    ("PRAGMA table_info(items)", "begins with SELECT"),
    ("ATTACH 'x' AS y", "begins with SELECT"),
    ("COPY items TO PROGRAM 'x'", "begins with SELECT"),
    ("EXPLAIN SELECT 1", "begins with SELECT"),
    ("", "begins with SELECT"),
    ("SELECT", "names no column"),
    ("SELECT FROM items", "names no column"),
    ("SELECT item_id INTO x FROM items", "INTO is not allowed"),
    ("SELECT item_id FROM items FOR UPDATE", "FOR UPDATE is not allowed"),
    ("SELECT * FROM generate_series(1, 100000000)", "not allowed|is no table"),
    ("SELECT pg_sleep(100)", "the function 'pg_sleep' is not allowed"),
    ("SELECT load_extension('x')", "the function 'load_extension' is not allowed"),
    ("SELECT readfile('/etc/passwd')", "the function 'readfile' is not allowed"),
    ("SELECT pg_read_file('/etc/passwd')", "the function 'pg_read_file' is not allowed"),
    ("SELECT pg_catalog.pg_sleep(9)", "not allowed"),
    ("SELECT repeat('x', 1000000000)", "the function 'repeat' is not allowed"),
    ("SELECT random()", "the function 'rand' is not allowed"),
    ("SELECT current_user", "the function 'current_user' is not allowed"),
    ("SELECT item_id FROM items WHERE item_id ~ '(a+)+'", "the function 'regexp_like' is not allowed"),
    ("SELECT row_number() OVER () FROM items", "'window' is not allowed"),
    ("SELECT item_id FROM items, LATERAL (SELECT 1) AS x", "'lateral' is not allowed"),
    ("SELECT item_id FROM items NATURAL JOIN events", "NATURAL JOIN is not allowed"),
    ("SELECT i.item_id FROM items i FULL JOIN events USING (item_id)", "a FULL JOIN is not allowed"),
    ("SELECT item_id FROM items INTERSECT SELECT item_id FROM events", "'intersect' is not allowed"),
    ("SELECT item_id FROM items LIMIT 1 UNION SELECT item_id FROM items", "no SQL|plain SELECT"),
    ("SELECT CAST('x' AS regclass)", "CAST gives TEXT or REAL|not allowed"),
    ("SELECT CAST(1 AS INTEGER)", "CAST gives TEXT or REAL"),
    ("SELECT E'\\x41'", "'bytestring' is not allowed"),
    ("SELECT $$a$$", "'rawstring' is not allowed"),
    ("SELECT 'a\\' OR 1'", "no SQL|no backslash"),
    ("SELECT 'a\\b'", "no backslash"),
    ('SELECT item_id AS "a""; DROP" FROM items', "is not allowed; write small letters"),
    ('SELECT item_id AS "%(tenant)s" FROM items', "is not allowed; write small letters"),
    ("SELECT attributes -> 'a' FROM items", "use ->> for the last name"),
    ("SELECT attributes ->> 'a\"b' FROM items", "one attribute's name in quotes"),
    ("SELECT attributes ->> :k FROM items", "one attribute's name in quotes"),
    ("SELECT item_id FROM items LIMIT 100000", "LIMIT and OFFSET take :k or a number up to 4000"),
    ("SELECT item_id FROM items LIMIT (SELECT 1)", "LIMIT and OFFSET take"),
    ("SELECT 1e400", "the number 1e400 is not allowed"),
    ("SELECT itm_id FROM items", "did you mean 'item_id'"),
    ("SELECT item_id :k FROM items", "stands where a name should be"),
    ("SELECT item_id AS :k FROM items", "stands where a name should be|no SQL"),
    ("SELECT i.:k FROM items i", "should be|no SQL"),
    ("SELECT item_id FROM items :k", "no SQL|should be"),
    ("SELECT item_id FROM :k", "is no table"),
    ("SELECT item_id FROM FROM items", "stands where a table should be"),
    ("SELECT item_id FROM itms", "did you mean 'items'"),
    ("SELECT 'a", "no SQL that can be read"),
    ("SELECT item_id FROM items WHERE", "no SQL that can be read"),
    ("SELECT " + "(" * 40 + "1" + ")" * 40, "brackets within one another"),
    ("SELECT " + "not " * 900 + "true", "nested too deeply"),
    ("SELECT item_id FROM items WHERE kind = '" + "x" * LENGTH_CAP + "'", "at most 4000 are allowed"),
    ("SELECT items.item_id FROM items" + ", items a" * 9, "at most 8 are allowed"),
    (" UNION ".join(["SELECT 'a'"] * 20), "that is too many"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "why"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_is_refused_when_the_file_is_read(query: str, why: str) -> None:
    started = time.monotonic()
    with pytest.raises(SpecError, match=why):
        checked(query)
    assert time.monotonic() - started < 2.0


def test_the_file_and_line_are_told() -> None:
    text = """surface: films
description: Films
item_kind: movie
prompt: {instruction: Which film?, item: "{{ title }}"}
sources: [{type: sql, k: 3, query: "SELECT item_id FROM prismrank_items"}]
heads: [{name: watch, type: pointwise, weight: 1}]
"""
    with pytest.raises(SpecError, match=r"films.yaml:5:\d+: sources\[0\].query: no table is called 'prismrank_items'"):
        read_spec(text, "films.yaml")
    with pytest.raises(SpecError, match=r"sources\[0\].query: should be a query; write SELECT item_id"):
        read_spec(text.replace('"SELECT item_id FROM prismrank_items"', "5"), "films.yaml")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT item_id FROM items",
        "SELECT * FROM events",
        "SELECT member_id FROM members",
        "SELECT profile ->> 'city' FROM members",
        "SELECT action FROM events",
        "SELECT item_id FROM items UNION ALL SELECT item_id FROM events UNION ALL SELECT member_id FROM members",
        "SELECT i.item_id FROM items i JOIN events e ON true LEFT JOIN members m ON true",
        "SELECT item_id FROM items WHERE true OR kind = 'x'",
        "SELECT item_id FROM items WHERE item_id IN (SELECT item_id FROM events) OR 1 = 1",
        "WITH x AS (SELECT item_id FROM items) SELECT item_id FROM x",
        "SELECT tenant FROM (SELECT item_id AS tenant FROM items) AS own",
        "SELECT own.tenant FROM (SELECT :profile_tenant AS tenant) AS own, items WHERE own.tenant = tenant",
        "SELECT item_id FROM items AS events",
        'SELECT "item_id" FROM "ITEMS" WHERE \'x\' = \'x\' OR \'--\' = \'%(tenant)s\'',
        "SELECT max(item_id) FROM items",
        "SELECT max(item_id) AS item_id FROM events GROUP BY kind_is, action".replace("kind_is", "surface"),
    ],
)  # fmt: skip
def test_other_tenants_are_never_seen(ledger: Ledger, query: str) -> None:
    running = Running(ledger.engine, checked(query).written(ledger.engine.dialect.name, 4_000))
    other = ledger.tenant.removesuffix("mine") + "other"
    values = {"profile_tenant": other, "tenant": ledger.tenant}
    rows = running.rows(values)
    assert "secret" not in repr(rows)
    theirs = running.rows({**values, "tenant": other})
    assert repr(rows) != repr(theirs) or "profile_tenant" in query, "the same query would find what is theirs"
    assert not running.rows({**values, "tenant": "nobody"}) or "max(item_id) FROM" in query


def test_nothing_can_be_written(ledger: Ledger) -> None:
    """Were the check of the text to let a statement through, the transaction would not."""
    for statement in (
        "DELETE FROM prismrank_events", "UPDATE prismrank_items SET kind = 'x'", "DROP TABLE prismrank_events",
        "CREATE TABLE x (y INTEGER)", "SELECT kind FROM items_that_are_not",
    ):  # fmt: skip
        with pytest.raises(LedgerError):
            Running(ledger.engine, statement).rows({})
    assert ledger.counts() == (5, 2, 3)


@pytest.mark.parametrize("open_tenant", ["sqlite"], indirect=True)  # its authorizer is a check of its own
def test_sqlite_reads_only_what_the_query_may(ledger: Ledger) -> None:
    for statement in (
        "SELECT name FROM sqlite_master", "SELECT value FROM prismrank_settings", "PRAGMA query_only=OFF",
        "ATTACH ':memory:' AS x", "SELECT load_extension('x')", "SELECT randomblob(9)",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r) SELECT n FROM r",
    ):  # fmt: skip
        with pytest.raises(LedgerError):
            Running(ledger.engine, statement).rows({})


def test_a_connection_is_as_it_was_afterwards(ledger: Ledger) -> None:
    built = source(ledger, "SELECT item_id FROM items ORDER BY item_id")
    for _ in range(8):
        built.named(ANN)
        ledger.put_items([Item("a", "movie", {})])
    with ledger.engine.connect() as connection:
        assert connection.execute(plain_sql("SELECT 1")).scalar_one() == 1


# Time, and errors at run time

HEAVY = (
    "SELECT a.item_id FROM items a, items b, items c, items d, items e, items f, items g, items h "
    "WHERE length(a.item_id || b.item_id || c.item_id || d.item_id || e.item_id || f.item_id || g.item_id) < 0 "
    "ORDER BY 1"
)


def test_a_query_that_takes_long_brings_nothing(open_tenant: Open, caplog: pytest.LogCaptureFixture) -> None:
    ledger = open_tenant("big")
    ledger.put_items(Item(f"i{place}", "movie", {}) for place in range(200))
    built = source(ledger, HEAVY)
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "surfaces.sources.sql"):
        assert built.named(ANN) == []
    assert SECONDS / 2 < time.monotonic() - started < SECONDS * 6
    assert len(caplog.records) == 1
    assert "the source 'sql' brings nothing" in caplog.text
    assert (built.scores(history([]), ANN) == NOTHING).all()


def test_text_cannot_grow_without_limit(ledger: Ledger) -> None:
    inner = "SELECT item_id, 'xxxxxxxxxx' AS a FROM items"
    for _ in range(8):
        inner = f"SELECT item_id, {' || '.join('a' * 12)} AS a FROM ({inner}) AS t"
    query = f"SELECT item_id FROM ({inner}) AS t WHERE length(a) <= 10000 ORDER BY item_id"
    assert named(ledger, query) in (list("abcd"), [])


def test_what_the_database_refuses_is_told_when_the_surface_comes_online(ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match=r"surface 'films': the source 'sql': .*ambiguous"):
        source(ledger, "SELECT item_id FROM items, events")


@pytest.mark.parametrize("open_tenant", ["sqlite"], indirect=True)  # the other database is shared with other tests
def test_an_error_at_run_time_brings_nothing(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    built = source(ledger, "SELECT item_id FROM items")
    with ledger.engine.begin() as connection:
        connection.execute(plain_sql("ALTER TABLE prismrank_items RENAME TO gone"))
    assert built.named(ANN) == []
    assert "no such table" in caplog.text


# Whatever is written

WORDS = (
    "SELECT item_id FROM items WITH AS ( ) , . * 'x' \"y\" WHERE UNION ALL events members prismrank_items "
    "sqlite_master pg_class ; ? -- /* */ attributes ->> -> :k :tenant $1 %s count max pg_sleep CAST TEXT REAL JOIN "
    "ON LEFT ORDER BY LIMIT 1 = OR AND NOT IN EXISTS CASE WHEN THEN ELSE END || :: IS NULL tenant main public t a "
    "GROUP HAVING DISTINCT"
)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS.split()), max_size=25).map(" ".join) | st.text(max_size=60))
def test_any_text_is_refused_or_reads_one_tenant(text: str) -> None:
    try:
        query = checked(f"SELECT item_id {text}")
    except SpecError:
        return
    for dialect in ("sqlite", "postgresql"):
        written = query.written(dialect, 5)
        tree: exp.Expr = exp.maybe_parse(written.replace("%(", ":").replace(")s", ""), dialect="sqlite")
        for table in tree.find_all(exp.Table):
            if table.name.startswith("own_"):
                continue
            assert table.name in {"prismrank_items", "prismrank_members", "prismrank_events"}
            around = table.find_ancestor(exp.Select)
            assert around is not None
            assert around.args["where"].sql("sqlite") == 'WHERE "tenant" = :tenant'


def test_nobody_is_a_visit_too(ledger: Ledger) -> None:
    assert named(ledger, "SELECT item_id FROM items WHERE :member_id IS NULL AND :now = 0 ORDER BY 1", NOBODY) == list(
        "abcd"
    )
