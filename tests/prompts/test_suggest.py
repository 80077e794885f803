"""The end of an error message that tells what would be right."""

from __future__ import annotations

from prompts.suggest import LISTED, closest, suggest


def test_the_nearest_word_is_suggested() -> None:
    assert suggest("typ", ["name", "type", "weight"]) == "; did you mean 'type'?"
    assert closest("typ", ["name", "type"]) == "type"


def test_without_a_near_word_all_are_listed_once_and_sorted() -> None:
    assert suggest("zzz", ["b", "a", "b"]) == "; known: a, b"
    assert closest("zzz", ["b", "a"]) is None


def test_many_words_are_counted() -> None:
    words = [f"surface{n:03}" for n in range(LISTED + 5)]
    assert suggest("?", words).endswith("and 5 more")


def test_nothing_known_says_nothing() -> None:
    assert suggest("x", []) == ""


def test_a_very_long_word_costs_little() -> None:
    assert suggest("x" * 10_000_000, ["type"]) == "; known: type"
