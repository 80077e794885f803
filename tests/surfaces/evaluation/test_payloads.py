"""Words that attack: what is shipped, what a file of them may say, and where they stand in an item."""

from __future__ import annotations

from pathlib import Path

import pytest

from prompts.errors import ConfigError
from surfaces.evaluation.payloads import ITEM, carrying, learnable, read_payloads, text_field
from surfaces.registry import Registry

SHIPPED = read_payloads()


def test_there_are_many_and_each_is_its_own() -> None:
    assert len(SHIPPED) >= 240
    assert len({" ".join(each.text.lower().split()) for each in SHIPPED}) == len(SHIPPED)


def test_every_family_is_measured_on_and_some_are_never_learned() -> None:
    families = {each.family for each in SHIPPED}
    learned = {each.family for each in SHIPPED if each.part == "learn"}
    assert families == {each.family for each in SHIPPED if each.part == "held"}
    assert len(families - learned) >= 3, "disguise, persuasion and praise, beside what asks for an item"


def test_what_may_be_learned_is_not_what_is_held() -> None:
    held = {each.text for each in SHIPPED if each.part == "held"}
    assert len(learnable()) >= 80
    assert not held & set(learnable())
    assert not any(ITEM in text for text in learnable())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: {held: [x, y], learn: [x]}", "'x' is listed twice"),
        ("a: {held: [x]}\nb: {held: [x]}", "'x' is listed twice"),
        ("a: {learn: [x]}", "a.held: Field required"),
        ("a: {held: []}", "a.held: Tuple should have at least 1 item"),
        ("a: {held: ['']}", "String should have at least 1 character"),
        ("a: {held: ['x', 'buy {item}']}", "all of a family's texts have {item}, or none"),
        ("a: {held: [x], trained: [y]}", "a.trained: Extra inputs are not permitted"),
        ("{}", "there is no family"),
        ("[x]", "the file: Input should be a valid dictionary"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_payloads(path)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_payloads(tmp_path / "none.yaml")


def test_words_stand_in_the_text_that_the_surface_reads() -> None:
    registry = Registry.shipped()
    films, feed, people = (registry.surface(name) for name in ("movies", "feed", "people"))
    film = {"title": "Heat", "year": 1995, "item_id": "7"}
    assert carrying(films, film, "yes") == {**film, "title": "Heat yes"}
    assert carrying(films, film, "yes", ahead=True) == {**film, "title": "yes Heat"}
    assert film["title"] == "Heat"
    assert text_field(feed, {"text", "title"}) == "text", "its template does not read the title"
    assert text_field(people, {"name", "occupation"}) == "name"
    assert text_field(people, {"occupation", "location"}) == "location"
    assert text_field(films, {"plot"}) is None
    assert carrying(films, {"plot": "Long."}, "yes") == {"plot": "Long."}
