"""Surface files written from ledgers."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prompts.errors import SpecError
from surfaces.authoring.columns import facts_of
from surfaces.authoring.draft import Wishes, check_name, describe, draft, plural
from surfaces.authoring.heads import asked_heads, default_heads, draft_heads, sounds_bad
from surfaces.authoring.quoting import quoted, shown, word
from surfaces.authoring.survey import Survey, draw_members, kinds_of, survey
from surfaces.authoring.wording import item_template
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Materials
from surfaces.sources.fit import fit_sources, interactions_of
from surfaces.spec import check_answers
from surfaces.visit import Visit
from surfaces.yaml_reader import read_yaml
from tests.surfaces.shelves import HOSTILE, advice_of, fill_hostile, fill_jobs, fill_songs, surface
from tests.surfaces.world import fill


def letters(text: str) -> list[int]:
    """A tokenizer that every two words with the same first letter confuse."""
    return [ord(letter) for letter in text]


def triples(text: str) -> list[int]:
    """A tokenizer that every two words with the same first three letters confuse."""
    return [int.from_bytes(text[:3].encode())]


def drafted(ledger: Ledger, kind: str, name: str = "mine") -> tuple[str, Survey]:
    """The text of a draft, as the command would write it without being asked for anything."""
    found = survey(ledger, kind)
    weights = default_heads(found.actions)
    return draft(Wishes(name, describe(kind, weights), weights), found, triples), found


# The survey


def test_the_survey_tells_columns_actions_and_times(jobs: Ledger) -> None:
    found = survey(jobs, "job")
    assert (found.count, len(found.items), found.people, found.clock) == (60, 60, 0, "time")
    assert set(found.actions) == {"apply", "save", "dismiss"}
    assert found.shown == 20 * 12 - found.acts
    assert 20 * 86_400 < found.span < 60 * 86_400
    types = {name: facts.type for name, facts in found.columns.items()}
    assert types["title"] == "text"
    assert types["posted_at"] == "time"
    assert types["remote"] == "flag"
    assert found.columns["url"].reference
    assert found.columns["company"].repeated
    assert set(found.profile) == {"age", "location"}


def test_the_survey_of_an_unknown_kind_is_empty(films: Ledger) -> None:
    found = survey(films, "book")
    assert (found.count, found.acts, found.acting, found.columns) == (0, 0, 0, {})


def test_a_large_ledger_is_looked_at_in_part(open_new: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_new()
    fill(ledger)
    monkeypatch.setattr("surfaces.authoring.survey.ITEMS", 10)
    monkeypatch.setattr("surfaces.authoring.survey.EVENTS", 100)
    found = survey(ledger, "movie")
    assert (found.count, len(found.items), found.acts) == (40, 10, 100)
    assert "10 items looked at" in drafted(ledger, "movie")[0]


def test_members_are_drawn_by_seed_and_those_who_acted_first(films: Ledger) -> None:
    films.put_members([Member("idle", {})])
    drawn = draw_members(films, "movie", 5, 7)
    assert drawn == draw_members(films, "movie", 5, 7) != draw_members(films, "movie", 5, 8)
    assert "idle" not in drawn
    assert len(draw_members(films, "movie", 100, 0)) == 31


def test_tenants_do_not_see_each_other(open_new: Callable[[], Ledger]) -> None:
    ledger = open_new()
    fill(ledger)
    other = Ledger(ledger.engine, "other")
    assert kinds_of(other) == {}
    assert survey(other, "movie").acts == 0
    assert draw_members(other, "movie", 3, 0) == []


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("released", "2024-02-01", "time"), ("released", "2024-13-01", "text"), ("year", "1995", "text"),
        ("created_at", 1.7e9, "time"), ("price", 1.7e9, "number"), ("created_at", 5, "number"), ("a", True, "flag"),
        ("a", ["x"], "list"), ("a", {"x": 1}, "mapping"), ("a", 10**400, "number"),
    ],
)  # fmt: skip
def test_types_of_columns(name: str, value: object, kind: str) -> None:
    assert facts_of([{name: value}])[name].type == kind


# Words


def test_item_templates_say_the_best_first(jobs: Ledger) -> None:
    template = item_template(survey(jobs, "job").columns)
    assert template.startswith("{{ title }}{{ ', ' ~ company if company }}{{ ', ' ~ location if location }}")
    assert "description | truncate(100)" in template
    assert "url" not in template
    assert "posted_at" not in template


@pytest.mark.parametrize(
    ("things", "template"),
    [
        ([{}], "{{ item_id }}"),
        ([{"price": 3}], "{{ 'price ' ~ price if price }}"),
        ([{"text": "word " * 60}], "{{ text | truncate(200) }}"),
        ([{"title": "a"}, {"name": "b"}], "{{ title or name }}"),
        ([{"name": "a", "birth_year": 1990}], "{{ name }}{{ ' (' ~ birth_year ~ ')' if birth_year }}"),
        ([{"name": "a", "tags": list("abcdefgh")}], "{{ name }}{{ ', ' ~ tags[:5] | join(', ') if tags }}"),
        ([{"name": "a", "for": "b", "x y": "c", "item_url": "d"}], "{{ name }}"),
        ([{"product_name": "a", "slogan": "b"}], "{{ product_name }}{{ ', ' ~ slogan if slogan }}"),
    ],
)
def test_item_templates(things: list[dict[str, object]], template: str) -> None:
    assert item_template(facts_of(things)) == template


def test_names_and_their_plurals() -> None:
    assert [plural(kind) for kind in ("movie", "person", "story", "box", "news", "day", "y")] == [
        "movies", "people", "stories", "boxes", "news", "days", "ies",
    ]  # fmt: skip
    assert check_name("jobs-2_x") == "jobs-2_x"
    with pytest.raises(SpecError, match="'my_films' would be right"):
        check_name("My Films!")
    with pytest.raises(SpecError, match=r"letters, digits, _ and -$"):
        check_name("123")


@given(st.text())
def test_any_text_comes_back_from_its_quotes(text: str) -> None:
    plain = text.replace("\0", "")
    kept = "".join(letter for letter in plain if not 0xD800 <= ord(letter) <= 0xDFFF)
    document = read_yaml(f"a: {quoted(kept)}\nb: {{c: {word(kept)}}}\n# {shown(text, 30)}\n", "x")
    assert document.data == {"a": kept, "b": {"c": kept}}
    assert len(shown(text, 30)) <= 30


# Heads


def test_heads_come_from_actions() -> None:
    assert default_heads({"like": 5, "hide": 2, "Add To Cart": 9}) == {"like": 1.0, "hide": -0.5}
    assert default_heads({"Add": 1}) == default_heads({}) == {"click": 1.0}
    assert len(default_heads({f"a{n}": 1 for n in range(20)})) == 6


@pytest.mark.parametrize(
    ("action", "bad"),
    [
        ("hide", True), ("dismissed", True), ("dislike", True), ("thumb_skip", True), ("skipped", True),
        ("not_interested", True), ("like", False), ("share", False), ("notify", False), ("unblock_me", False),
    ],
)  # fmt: skip
def test_what_sounds_bad(action: str, bad: bool) -> None:
    assert sounds_bad(action) is bad


def test_asked_heads() -> None:
    assert asked_heads("apply, save,-dismiss", {}) == {"apply": 1.0, "save": 1.0, "dismiss": -0.5}
    with pytest.raises(SpecError, match="did you mean 'apply'"):
        asked_heads("aply", {"apply": 1})
    with pytest.raises(SpecError, match="cannot be an action"):
        asked_heads("Apply Now", {})
    with pytest.raises(SpecError, match="no action is named"):
        asked_heads(" , ", {})


def test_answers_begin_differently_for_the_model() -> None:
    ranker, *choices = draft_heads(
        {"save": 1.0, "share": 1.0, "none": 1.0, "hide": -0.5}, {"save": 3, "none": 2}, triples
    )
    assert (ranker.entry, ranker.events) == (
        "{name: engage, type: pointwise, weight: 1.0, actions: [save, share, none]}",
        5,
    )
    assert choices[0].entry == "{name: save, type: choice, weight: 0}"
    assert choices[-1].entry == "{name: hide, type: choice, weight: -0.01}"
    assert len({name[:3] for name in [*(head.name for head in choices), "none", "yes", "no"]}) == len(choices) + 3
    assert draft_heads({"save": 1.0, "share": 1.0}, {}, letters) == [
        ranker._replace(actions=("save", "share"), events=0)
    ]
    against = draft_heads({"hide": -0.5, "skip": -0.5}, {}, triples)
    assert [head.weight for head in against] == [-0.5, -0.5]
    (single,) = draft_heads({"yes": 1.0}, {}, letters)
    assert (single.type, single.entry) == ("pointwise", "{name: do_yes, type: pointwise, weight: 1.0, actions: [yes]}")


def test_a_model_that_reads_every_word_alike_gets_no_draft(films: Ledger) -> None:
    with pytest.raises(SpecError, match="no head can be named"):
        draft(Wishes("mine", "d", {"like": 1.0, "hide": -0.5}), survey(films, "movie"), lambda _: [7])


# Drafts


def test_a_draft_over_jobs_uses_what_is_there(jobs: Ledger) -> None:
    text, found = drafted(jobs, "job", "jobs")
    spec = surface(text)
    assert text.startswith("# yaml-language-server: $schema=surface.schema.json\n")
    assert [source.type for source in spec.sources] == ["co_visitation", "bm25", "popular", "recent"]
    assert {head.name: head.weight for head in spec.heads} == {"engage": 1.0, "apply": 0, "save": 0, "dismiss": -0.01}
    assert [head.type for head in spec.heads] == ["pointwise", "choice", "choice", "choice"]
    assert spec.heads[0].actions == ("apply", "save")
    assert spec.unwanted == {"dismiss"}
    assert [each.type for each in spec.filters] == ["seen", "available"]
    assert [each.type for each in spec.policies] == ["cap"]
    assert spec.evidence == ("popular", "co_visitation", "itemknn", "slist", "bm25", "overall")
    assert spec.fallback.order == ("co_visitation", "bm25", "popular", "recent")
    assert getattr(spec.sources[2], "half_life", None) is not None
    assert "posted_at" in text
    assert found.count == 60
    assert [line for line in advice_of(text, jobs) if "note:" not in line] == []


def test_a_draft_where_timestamps_are_no_times(open_new: Callable[[], Ledger]) -> None:
    ledger = open_new()
    fill_songs(ledger)
    text, _ = drafted(ledger, "song")
    spec = surface(text)
    assert [(head.name, head.type) for head in spec.heads] == [("play", "pointwise")]
    assert "Does the member play the song?" in spec.prompt.instruction
    assert "half_life" not in "".join(re.findall(r"^  - .*popular.*$", text, re.M))
    assert [policy.type for policy in spec.policies] == ["cap"]
    assert advice_of(text, ledger) == []


def test_a_draft_leaves_out_what_is_over(open_new: Callable[[], Ledger]) -> None:
    ledger = open_new()
    ledger.put_items(Item(f"i{n}", "ad", {"title": f"Ad {n}", "expires_at": "2001-01-01"}) for n in range(4))
    text, _ = drafted(ledger, "ad")
    assert [each.type for each in surface(text).filters] == ["seen"]
    assert "by now, that is none of the items" in text


def test_a_draft_over_people_offers_to_ask_both_sides(open_new: Callable[[], Ledger]) -> None:
    ledger = open_new()
    ledger.put_members(Member(f"m{n}", {}) for n in range(4))
    ledger.put_items(Item(f"p{n}", "person", {"name": f"P {n}"}, f"m{n}") for n in range(4))
    text, _ = drafted(ledger, "person")
    assert "# reciprocal: {top: 30, mean: harmonic}" in text
    assert surface(text).reciprocal is None


def test_hostile_texts_do_not_break_the_file(open_new: Callable[[], Ledger]) -> None:
    ledger = open_new()
    fill_hostile(ledger)
    found = survey(ledger, "thing")
    weights = default_heads(found.actions)
    for said in HOSTILE:
        spec = surface(draft(Wishes("mine", said, weights), found, triples))
        assert spec.surface == "mine"
        assert set(spec.prompt.item.names) <= {"title", "naïve"}
    text, _ = drafted(ledger, "thing")
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "stolen" not in read_yaml(text, "x").data  # type: ignore[operator]
    assert "the action 'Add To Cart' cannot be a head" in text.replace("The", "the")
    check_answers(surface(text), triples)


@pytest.mark.parametrize("shape", [fill, fill_jobs, fill_songs])
def test_every_offer_in_a_comment_is_right_when_it_is_switched_on(
    shape: Callable[[Ledger], None], open_new: Callable[[], Ledger]
) -> None:
    ledger = open_new()
    shape(ledger)
    ((kind, _),) = kinds_of(ledger).items()
    text, _ = drafted(ledger, kind)
    offers = re.findall(r"^ *# (?:- \{|detail: |locales: |reciprocal: |trunk: ).*$", text, re.M)
    assert len(offers) >= 8
    key = re.search(r"^# policies:.*$", text, re.M)
    for line in offers:
        changed = text.replace(line, line.replace("# ", "", 1))
        if key and text.index(line) > key.start():
            changed = changed.replace(key[0], "policies:")
        spec = surface(changed)
        sources = [source for source in spec.sources if source.type != "embedding"]
        fit_sources(
            Materials(
                spec.model_copy(update={"sources": tuple(sources), "policies": ()}),
                interactions_of(spec, ledger),
                ledger,
                None,
            )
        )


def test_a_kind_that_no_file_can_name_is_refused(open_new: Callable[[], Ledger]) -> None:
    ledger = open_new()
    ledger.put_items([Item("a", "My Kind", {})])
    with pytest.raises(SpecError, match="cannot be the name of a kind of items"):
        drafted(ledger, "My Kind")


names = st.one_of(
    st.sampled_from(["title", "name", "text", "brand", "company_id", "expires_at", "available", "stock", "posted_at"]),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12),
).filter(lambda name: name not in {"item_id", "kind", "member_id"})
values: st.SearchStrategy[Any] = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300), st.integers(-(10**12), 10**12), st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False), st.lists(st.text(string.printable, max_size=20), max_size=8),
    st.sampled_from(["2026-01-31", "2031-05-06T10:00:00", "https://x.org/y", 1.7e9, {"a": 1}]),
)  # fmt: skip
kinds = st.from_regex(r"[a-z][a-z0-9_-]{0,12}", fullmatch=True)
actions = st.one_of(
    st.sampled_from(["like", "hide", "none", "yes", "show", "Add To Cart", "buy", "save", "share"]),
    st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=kinds,
    things=st.lists(st.dictionaries(names, values, max_size=6), min_size=1, max_size=6),
    did=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), actions, st.floats(0, 2e9)), max_size=80),
    clock=st.sampled_from(["time", "order"]),
)
def test_whatever_the_ledger_holds_the_draft_is_right_and_its_sources_fit(
    open_new: Callable[[], Ledger], kind: str, things: list[dict[str, object]], did: list[Any], clock: Any
) -> None:
    with open_new() as ledger:
        ledger.set_clock(clock)
        ledger.put_items(Item(f"i{n}", kind, thing) for n, thing in enumerate(things))
        ledger.put_members(Member(f"m{n}", {}) for n in range(4))
        ledger.add_events(
            Event(f"m{who}", f"i{item % len(things)}", "s", action, when) for who, item, action, when in did
        )
        text, _ = drafted(ledger, kind)
        spec = surface(text)
        check_answers(spec, triples)
        told = advice_of(text, ledger)
        assert not [line for line in told if re.search(r"has '|clock|no time|longer than", line)], told
        retrieval = fit_sources(Materials(spec, interactions_of(spec, ledger), ledger, None))
        assert retrieval.gather(Visit(lookup=ledger.items)) is not None
        assert all(isinstance(spec.prompt.wording().leaf({**thing, "item_id": "i"}), str) for thing in things)
