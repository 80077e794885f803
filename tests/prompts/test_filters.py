"""Filters, comparisons and access are total and capped, whatever they are given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Undefined

from prompts import filters
from prompts.filters import FILTERS, TESTS
from prompts.values import TEXT_CAP, as_text, clean

VALUES = st.recursive(
    st.integers() | st.floats() | st.text(max_size=12) | st.builds(Undefined),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
ORDERS = ["eq", "ne", "lt", "lteq", "gt", "gteq", "in", "notin"]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("join", (["a", 2, 3.0], ", "), "a, 2, 3"),
        ("join", ("word", ", "), "word"),
        ("join", ([], ", "), ""),
        ("default", (Undefined(), "x"), "x"),
        ("default", ("", "x"), "x"),
        ("default", (0, "x"), 0),
        ("lower", ("ÄB",), "äb"),
        ("upper", ("äb",), "ÄB"),
        ("title", ("the GODFATHER part ii",), "The Godfather Part Ii"),
        ("title", ("children's films",), "Children's Films"),
        ("trim", ("  a b ",), "a b"),
        ("truncate", ("one two three", 9), "one two…"),
        ("truncate", ("one two three", 8), "one two…"),
        ("truncate", ("onetwothree", 5), "onet…"),
        ("truncate", ("short", 5), "short"),
        ("truncate", ("short", -3), "…"),
        ("round", (3.14159, 2), 3.14),
        ("round", ("3.7",), 4.0),
        ("round", ("no number",), "no number"),
        ("int", ("1995",), 1995),
        ("int", (7.9,), 7),
        ("int", ("x", 5), 5),
        ("int", ("1e999",), 0),
        ("first", (["a", "b"],), "a"),
        ("first", ([],), ""),
        ("last", ("abc",), "c"),
        ("last", (3,), ""),
        ("length", (["a", "b"],), 2),
        ("length", (3,), 0),
        ("replace", ("sci_fi_film", "_", " "), "sci fi film"),
        ("replace", ("abc", "", "x"), "abc"),
        ("replace", ("abc", "b"), "ac"),
    ],
)
def test_filter(name: str, arguments: tuple[object, ...], expected: object) -> None:
    assert FILTERS[name](*arguments) == expected


@given(st.sampled_from(sorted(FILTERS)), VALUES, VALUES, VALUES)
def test_filters_answer_anything(name: str, value: object, one: object, two: object) -> None:
    arguments = {"replace": (one, two), "join": (one,), "truncate": (one,), "round": (one,), "int": (one,)}
    as_text(FILTERS[name](value, *arguments.get(name, ())))


@pytest.mark.parametrize("name", ["join", "lower", "upper", "title", "trim", "truncate", "replace"])
def test_no_filter_makes_text_longer_than_the_cap(name: str) -> None:
    long = clean("ß" * 10 * TEXT_CAP)
    arguments = {"replace": ("ß", long), "truncate": (10 * TEXT_CAP,), "join": ("-",)}.get(name, ())
    value = [long] * 64 if name == "join" else long
    assert 0 < len(as_text(FILTERS[name](value, *arguments))) <= TEXT_CAP


@pytest.mark.parametrize(
    ("name", "value", "holds"),
    [
        ("defined", 0, True),
        ("defined", Undefined(), False),
        ("undefined", None, True),
        ("none", Undefined(), True),
        ("none", "", False),
        ("string", "", True),
        ("string", 1, False),
        ("number", 1.5, True),
        ("number", "1", False),
    ],
)
def test_tests(name: str, value: object, holds: bool) -> None:
    assert TESTS[name](value) is holds


@pytest.mark.parametrize(
    ("left", "order", "right", "holds"),
    [
        (1995, "gt", 1990, True),
        (1995, "gt", 1995.0, False),
        (1995, "gteq", 1995.0, True),
        ("a", "lt", "b", True),
        ("b", "lteq", "a", False),
        ("1995", "gt", 1990, False),
        (Undefined(), "gt", 1990, False),
        (Undefined(), "lt", Undefined(), False),
        (Undefined(), "eq", None, True),
        (Undefined(), "eq", "", False),
        (Undefined(), "ne", "x", True),
        (["a"], "eq", ["a"], True),
        ("Comedy", "in", ["Drama", "Comedy"], True),
        ("om", "in", "Comedy", True),
        (3, "in", "3", False),
        ("x", "in", 3, False),
        ("x", "notin", Undefined(), True),
        ("a", "in", {"a": 1}, True),
        (["a"], "in", {"a": 1}, False),
        (["a"], "in", [["a"]], False),
    ],
)
def test_comparisons(left: object, order: str, right: object, holds: bool) -> None:
    assert filters.compare(left, order, right) is holds


@given(VALUES, st.sampled_from(ORDERS), VALUES)
def test_comparisons_answer_anything(left: object, order: str, right: object) -> None:
    assert filters.compare(left, order, right) in {True, False}


@given(VALUES, VALUES)
def test_access_answers_anything(value: object, key: object) -> None:
    filters.item(value, key)
    filters.part(value, key, None)
    filters.concat(value, key)


def test_access_reads_entries_and_never_attributes() -> None:
    assert filters.item({"items": 3}, "items") == 3
    assert filters.item(["a", "b"], -1) == "b"
    for value, key in [
        ({}, "items"),
        ("text", "upper"),
        ([], 0),
        (["a"], 1),
        (["a"], "append"),
        ({}, [1]),
        (3, "real"),
    ]:
        assert isinstance(filters.item(value, key), Undefined)


def test_parts_of_lists_and_texts() -> None:
    assert filters.part(["a", "b", "c"], 1, None) == ["b", "c"]
    assert filters.part("abcdef", None, -2) == "abcd"
    assert filters.part("abcdef", "x", Undefined()) == "abcdef"
    assert isinstance(filters.part(3, 0, 1), Undefined)


def test_concat_skips_the_absent() -> None:
    assert filters.concat("a", Undefined(), 2.0, None) == "a2"
    assert len(filters.concat("x" * TEXT_CAP, "y" * TEXT_CAP)) == TEXT_CAP
