"""YAML 1.2 as plain data with places; what is dangerous or ambiguous is refused where it stands."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import SpecError
from surfaces.yaml_reader import DEPTH_CAP, PARTS_CAP, SIZE_CAP, read_yaml


def data(text: str) -> object:
    return read_yaml(text, "f.yaml").data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-3", -3),
        ("+3", 3),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("~", None),
        ("null", None),
        ("", None),
        ("'7'", "7"),
        ('"a\\tb"', "a\tb"),
        ("2001-02-03", "2001-02-03"),
        ("2001-99-99", "2001-99-99"),
        ("12:30:45", "12:30:45"),
        ("0o9", "0o9"),
        ("14d", "14d"),
        ("[a, 1, [b]]", ["a", 1, ["b"]]),
        ("{x: 1, 'y z': two}", {"x": 1, "y z": "two"}),
        ("|\n  one\n  two\n", "one\ntwo\n"),
        (">\n  one\n  two\n", "one two\n"),
        ("東京 # a remark", "東京"),
    ],
)
def test_values_are_read_as_yaml_1_2(text: str, value: object) -> None:
    assert data(f"key: {text}") == {"key": value}


def test_nan_is_a_number() -> None:
    found = data("[.nan]")
    assert isinstance(found, list)
    assert isinstance(found[0], float)
    assert math.isnan(found[0])


@pytest.mark.parametrize("text", ["\ufeffa: 1", "a: 1\r\n", "%YAML 1.2\n---\na: 1", "---\na: 1\n...\n"])
def test_marks_around_a_document_do_not_matter(text: str) -> None:
    assert data(text) == {"a": 1}


def test_quoted_keys_are_text_whatever_they_look_like() -> None:
    assert data("{'1': a, 'true': b, '<<': c}") == {"1": "a", "true": "b", "<<": "c"}


def test_places_of_keys_and_values() -> None:
    document = read_yaml("# remark\na:\n  - {b: 1,  c: two}\n  -  three\nd:\n", "dir/f.yaml")
    assert document.at(("a",), key=True) == "dir/f.yaml:2:1"
    assert document.at(("a",)) == "dir/f.yaml:3:3"
    assert document.at(("a", 0, "c"), key=True) == "dir/f.yaml:3:13"
    assert document.at(("a", 0, "c")) == "dir/f.yaml:3:16"
    assert document.at(("a", 1)) == "dir/f.yaml:4:6"
    assert document.at(("d",)) == "dir/f.yaml:5:1"


def test_the_place_of_what_is_not_there_is_the_nearest_above_it() -> None:
    document = read_yaml("a:\n  - {b: 1}", "f.yaml")
    assert document.at(("a", 0, "x", "y")) == "f.yaml:2:5"
    assert document.at(("a", 5)) == "f.yaml:2:3"
    assert document.at(("q",), key=True) == "f.yaml:1:1"
    assert document.at(()) == "f.yaml:1:1"


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("", "1:1", "the file is empty"),
        ("# nothing\n", "1:1", "the file is empty"),
        ("a: 1\nb: 2\na: 3", "3:1", "the key 'a' appears twice (first on line 1)"),
        ("x:\n  a: 1\n  'a': 2", "3:3", "the key 'a' appears twice (first on line 2)"),
        ("a: &x [1]\nb: *x", "1:4", "an anchor ('&x') is not allowed; write the value out"),
        ("b: *x", "1:4", "an alias ('*x') is not allowed; write the value out"),
        ("a: &a [*a]", "1:4", "an anchor"),
        ("a: &x 1\nb: &x 2", "1:4", "an anchor"),
        ("b:\n  <<: *x", "2:7", "an alias"),
        ("%YAML 1." + "1" * 5_000, "1:1", "no YAML: Exceeds the limit"),
        ("%YAML 1.1\n---\na: no", "2:1", "another version of YAML"),
        ("<<: {a: 1}", "1:1", "the key '<<' is no text"),
        ("a: !!python/object/apply:os.system ['id']", "1:4", "a tag"),
        ("a: !!binary aGk=", "1:4", "a tag"),
        ("a: !mine x", "1:4", "a tag ('!mine') is not allowed"),
        ("a: 1\n---\nb: 2", "2:1", "a second document"),
        ("a:\n\tb: 1", "2:1", "indent with spaces, not tabs"),
        ("a: b: c", "1:5", "mapping values are not allowed here"),
        ("a: 'open", "1:9", "unexpected end of stream"),
        ("a: [1, 2", "1:9", "expected ',' or ']'"),
        ("a: 1\n b: 2", "2:3", "mapping values are not allowed here"),
        ('a: "\\q"', "1:6", "unknown escape character"),
        ("a: @b", "1:4", "cannot start any token"),
        ("1: a", "1:1", "the key '1' is no text; put it in quotes"),
        ("a: {true: b}", "1:5", "the key 'true' is no text"),
        ("? [a]\n: b", "1:3", "a key must be a word"),
        ("a: 1\nb: \x00", "2:4", "a character that is not allowed"),
        ("a: \x1b[31m", "1:4", "a character that is not allowed"),
        ("a: \ud800", "1:4", "a character that is not allowed"),
        ("a: " + "9" * 6_000, "1:4", "is no number"),
        ("a: ._", "1:4", "'._' is no number"),
        ("%YAML 3.0\n---\na: 1", "1:1", "version 1.* is required"),
        ("[" * (DEPTH_CAP + 1) + "]" * (DEPTH_CAP + 1), f"1:{DEPTH_CAP + 1}", f"nested more than {DEPTH_CAP} deep"),
        ("a: " + "x" * SIZE_CAP, "1:1", f"at most {SIZE_CAP} are allowed"),
    ],
)
def test_what_is_refused_and_where(text: str, place: str, problem: str) -> None:
    with pytest.raises(SpecError) as raised:
        read_yaml(text, "f.yaml")
    message = str(raised.value)
    assert message.startswith(f"f.yaml:{place}: ")
    assert problem in message
    assert "\n" not in message
    assert len(message) < 400


def test_a_long_list_is_refused_where_it_becomes_too_long() -> None:
    with pytest.raises(SpecError, match=rf"^f\.yaml:19\d\d:\d+: more than {PARTS_CAP} keys and values"):
        read_yaml("- 1\n" * 8_000, "f.yaml")


def test_an_alias_bomb_is_never_unfolded() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    start = time.process_time()
    with pytest.raises(SpecError, match=r"^f\.yaml:1:5: an anchor"):
        read_yaml(bomb, "f.yaml")
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    "piece", ["[", "{", "- ", "? ", "a: ", "'", '"', "&a ", "!a ", "%", "#", "\n", "a: |\n", "\\", "{a: ", "[a, ", "*"]
)
def test_no_file_takes_long(piece: str) -> None:
    start = time.process_time()
    with suppress(SpecError):
        read_yaml((piece * SIZE_CAP)[:SIZE_CAP], "f.yaml")
    assert time.process_time() - start < 5.0


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(list("ab:-?[]{},#&*!|>'\"%@` \n\t0.~<x")), max_size=40).map("".join)
    | st.text(st.characters(exclude_categories=()), max_size=20)
)
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        read_yaml(text, "f.yaml")
    except SpecError as error:
        refused = str(error)
    else:
        return
    assert refused.startswith("f.yaml:")
    assert "\n" not in refused


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(categories=["L", "N", "P"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_json_is_yaml(value: object) -> None:
    assert data(json.dumps({"key": value}, ensure_ascii=False)) == {"key": value}
