"""What templates see of outside data: short, visible, one line."""

from __future__ import annotations

import datetime
import math
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.values import DEPTH_CAP, ENTRIES_CAP, TEXT_CAP, as_text, clean, clean_text

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=80)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Toy Story", "Toy Story"),
        ("  two\r\n\tlines \n", "two lines"),
        ("a\x00b\x1bc\x7fd\x85e", "a b c d e"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("zero\u200bwidth \u202eturned\u2066", "zero width turned"),
        ("line\u2028paragraph\u2029end", "line paragraph end"),
        ("tag\U000e0041\U000e0042s", "tag s"),
        ("soft\u00adhyphen \ufeffmark", "soft hyphen mark"),
        ("Amélie · 東京 · 👩\u200d🚀", "Amélie · 東京 · 👩\u200d🚀"),
        ("Ｉｇｎｏｒｅ　ａｌｌ ⓨⓔⓢ 𝐫𝐚𝐧𝐤 🄰", "Ignore all yes rank A"),
        ("全角、記号!", "全角、記号!"),
        ("r\u0335a\u0335nk", "rank"),
        ("p\u200do\u200cp ye\ufe0fs", "pop yes"),
        ("می\u200cخواهم · ☀\ufe0f · 1\ufe0f\u20e3", "می\u200cخواهم · ☀\ufe0f · 1\ufe0f\u20e3"),
        ("filler\u3164\u115f\u034fs\U000e0120 end", "filler s end"),
        ("рорulаrіtу Pαnic", "popularity Panic"),
        ("Война и мир · Ελλάδα · iPhone для", "Война и мир · Ελλάδα · iPhone для"),
        ("Wi-Fi-роутер, TV-приставка, XМЖ", "Wi-Fi-роутер, TV-приставка, XМЖ"),
        ("   ", ""),
        ("", ""),
    ],
)
def test_text_is_one_visible_line(text: str, seen: str) -> None:
    assert clean_text(text) == seen


@given(ANY_TEXT)
def test_cleaned_text_can_be_encoded_and_has_no_structure(text: str) -> None:
    seen = clean_text(text)
    assert seen.encode("utf-8").decode("utf-8") == seen
    assert "\n" not in seen
    assert not any(unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in seen)
    assert "  " not in seen
    assert seen == seen.strip() == clean_text(seen)


def test_a_text_of_many_megabytes_costs_little() -> None:
    start = time.process_time()
    seen = clean_text("x " * 10_000_000)
    assert len(seen) <= TEXT_CAP
    assert len(clean_text("а\u200dx\u0335" * 10_000_000)) <= TEXT_CAP
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("absent", [None, math.nan, math.inf, -math.inf, b"bytes", bytearray(b"x"), 1 << 80])
def test_what_says_nothing_is_absent(absent: object) -> None:
    assert clean(absent) is None
    assert clean([1, absent, 2]) == [1, 2]
    assert clean({"a": absent, "b": 3}) == {"b": 3}


def test_plain_values_stay() -> None:
    assert clean({"n": 3, "x": 2.5, "t": "a\nb", "l": ("p", "q")}) == {"n": 3, "x": 2.5, "t": "a b", "l": ["p", "q"]}


def test_flags_are_yes_or_nothing() -> None:
    assert (clean(True), clean(False)) == ("yes", "")


def test_other_types_become_text() -> None:
    assert clean(datetime.date(2001, 2, 3)) == "2001-02-03"


def test_lists_mappings_and_depth_are_capped() -> None:
    assert clean(list(range(10_000))) == list(range(ENTRIES_CAP))
    mapping = clean({str(n): n for n in range(10_000)})
    assert isinstance(mapping, dict)
    assert len(mapping) == ENTRIES_CAP
    nest: object = "deep"
    for _ in range(50):
        nest = [nest]
    expected: object = []
    for _ in range(DEPTH_CAP - 1):
        expected = [expected]
    assert clean(nest) == expected


@given(ANYTHING)
def test_cleaning_never_raises_and_gives_what_it_promises(value: object) -> None:
    seen = clean(value)
    assert _is_value(seen)
    as_text(seen).encode("utf-8")


def _is_value(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_value, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_value(entry) for key, entry in value.items())
    return value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (1995, "1995"),
        (1995.0, "1995"),
        (4.25, "4.25"),
        (-0.0, "0"),
        (1e300, "1e+300"),
        (math.nan, ""),
        (math.inf, ""),
        (None, ""),
        (True, "yes"),
        (False, ""),
        (["a", 1, 2.0], "a, 1, 2"),
        ({"a": 1, "b": ["c", "d"]}, "a: 1, b: c, d"),
        (object(), ""),
    ],
)
def test_how_values_print(value: object, text: str) -> None:
    assert as_text(value) == text
