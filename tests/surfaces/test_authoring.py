"""Surface files written from ledgers, advice on files that are right, and what differs between two of them."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prompts.errors import SpecError
from surfaces.authoring.advice import Advice, in_order
from surfaces.authoring.advice_file import of_file
from surfaces.authoring.advice_ledger import of_ledger
from surfaces.authoring.columns import facts_of
from surfaces.authoring.diff import MISSING, changes, costs, costs_of_trunk
from surfaces.authoring.draft import Wishes, check_name, describe, draft, plural
from surfaces.authoring.heads import asked_heads, default_heads, draft_heads, sounds_bad
from surfaces.authoring.quoting import quoted, shown, word
from surfaces.authoring.survey import Survey, draw_members, kinds_of, survey
from surfaces.authoring.trial import Trial, brought, of_trials, silent
from surfaces.authoring.wording import item_template
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.sources.base import Materials
from surfaces.sources.fit import fit_sources, interactions_of
from surfaces.spec import SurfaceSpec, check_answers
from surfaces.spec_file import SpecFile, read_spec
from surfaces.visit import Visit
from surfaces.yaml_reader import read_yaml
from tests.surfaces.shelves import HOSTILE, fill_hostile, fill_jobs, fill_songs
from tests.surfaces.world import fill

SHIPPED = Registry.shipped()


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


def surface(text: str) -> SurfaceSpec:
    spec = read_spec(text, "mine.yaml").spec
    assert isinstance(spec, SurfaceSpec)
    return spec


def advice_of(text: str, ledger: Ledger) -> list[str]:
    """What is said of a file beside a ledger, a line each."""
    file, spec = read_spec(text, "mine.yaml"), surface(text)
    form = SHIPPED.trunk(spec.trunk)
    found = survey(ledger, spec.item_kind)
    return [one.line(file) for one in in_order([*of_file(spec), *of_ledger(spec, form, found, kinds_of(ledger))], file)]


@pytest.fixture(scope="module")
def open_new(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Ledger]]:
    """Makes an empty ledger."""
    folder, numbers, made = tmp_path_factory.mktemp("authoring"), count(), list[Ledger]()

    def another() -> Ledger:
        made.append(Ledger.open(f"sqlite:///{folder / f'{next(numbers)}.sqlite'}"))
        return made[-1]

    yield another
    for ledger in made:
        ledger.close()


@pytest.fixture(scope="module")
def jobs(open_new: Callable[[], Ledger]) -> Ledger:
    ledger = open_new()
    fill_jobs(ledger)
    return ledger


@pytest.fixture(scope="module")
def films(open_new: Callable[[], Ledger]) -> Ledger:
    ledger = open_new()
    fill(ledger)
    return ledger


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
    assert spec.evidence == ("popular", "co_visitation", "bm25")
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


# Advice

RIGHT = """\
surface: films
description: Films
item_kind: movie
prompt:
  instruction: Which film?
  item: "{{ title }}"
sources:
  - {type: popular, k: 10}
heads:
  - {name: like, type: choice, weight: 1.0}
  - {name: dislike, type: choice, weight: -1.0}
"""


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("weight: -1.0", "weight: 0", "11:5: note: 'dislike' has weight 0: only reported"),
        ("type: choice, weight: -1.0", "type: pointwise", "warning: 'dislike' has weight 0: only reported, it"),
        ("  item:", "  context: Only good ones.\n  item:", "6:12: warning: this reads nothing of a request"),
        ("heads:", "policies: [{type: diversity, strength: 0}]\nheads:", "9:40: warning: 'diversity' with strength 0"),
        ("heads:", "policies: [{type: explore, rate: 0}]\nheads:", "warning: 'explore' with rate 0 changes nothing"),
        (
            "heads:",
            "  - {type: recent, k: 5}\nfallback: {order: [popular]}\nheads:",
            "10:19: warning: without the model, what only recent brings comes last; add recent to 'order'",
        ),
        ("sources:", "  locales: {pt-br: {instruction: Que}}\nsources:", "7:13: warning: 'pt-br' is not chosen by"),
        ("sources:", "  locales: {de: {}}\nsources:", "7:13: warning: 'de' changes no words"),
        ("sources:", "  locales: {en: {instruction: X}}\nsources:", "warning: the file's own words are 'en' already"),
        ("{{ title }}", "{{ title }} {{ titel }}", "6:25: warning: no movie has 'titel'; did you mean 'title'?"),
        ("item_kind: movie", "item_kind: movies", "3:12: warning: the ledger holds no item of the kind 'movies'"),
        ("name: dislike", "name: dislik", "11:12: warning: no event with items of the kind 'movie' has"),
        ("weight: -1.0", "weight: -1.0, actions: [hate]", "has the action 'hate'; known: dislike, like, watch"),
        ("weight: 1.0}", "weight: 1.0, times: prize}", "so every candidate counts 0"),
        ("weight: 1.0}", "weight: 1.0, times: title}", "warning: 'title' is a text, no number"),
        ("k: 10}", "k: 10, half_life: 400d}", "warning: 400d is longer than the 8.1 hours that the events span"),
        ("k: 10}", "k: 10, segment: agee}", "profile has 'agee', so everyone's events count; did you mean 'age'?"),
        ("k: 10}", "k: 10}\n  - {type: recent, k: 1, by: titel}", "9:30: warning: no movie has 'titel', so no item"),
        ("k: 10}", "k: 10}\n  - {type: recent, k: 1, by: title}", "9:30: warning: 'title' holds no time"),
        ("heads:", "filters: [available]\nheads:", "9:11: warning: no item has 'available', 'available_from'"),
        ("heads:", "filters: [{type: available, flag: titl, stock: year}]\nheads:", "'titl', so nothing is dropped"),
        ("heads:", "filters: [{type: blocked, actions: [like], by: brand}]\nheads:", "so only the blocked items"),
        ("heads:", "filters: [{type: seen, actions: [luke]}]\nheads:", "has the action 'luke'; did you mean 'like'?"),
        ("heads:", "filters: [{type: seen, within: 99d}]\nheads:", "warning: 99d is longer than"),
        ("heads:", "policies: [{type: cap, by: gender, max: 1}]\nheads:", "no movie has 'gender', so no item"),
        ("heads:", "policies: [{type: freshness, half_life: 1d, strength: 1}]\nheads:", "'posted_at', so all are old"),
        (
            "heads:",
            "filters: [{type: where, keep: item.yeer < 3 or member.agge > 1}]\nheads:",
            "9:31: warning: no movie has 'yeer'; did you mean 'year'?",
        ),
        (
            "heads:",
            "policies: [{type: boost, where: item.year < 3 or member.agge > 1, strength: 1}]\nheads:",
            "warning: no member's profile has 'agge'; did you mean 'age'?",
        ),
        ("heads:", "reciprocal: {top: 3}\nheads:", "9:1: warning: no item of the kind 'movie' is a member"),
    ],
)  # fmt: skip
def test_advice_says_where_and_what_to_do(old: str, new: str, line: str, films: Ledger) -> None:
    assert advice_of(RIGHT, films) == []
    told = advice_of(RIGHT.replace(old, new, 1), films)
    assert [one for one in told if line in one], told
    assert len(told) == 1 or "agge" in new, told


def test_advice_beside_an_order_clock_and_no_events(open_new: Callable[[], Ledger]) -> None:
    songs = open_new()
    fill_songs(songs)
    text = RIGHT.replace("movie", "song").replace("like", "play").replace("{{ title }}", "{{ name }}")
    text = text.replace("  - {name: display, type: choice, weight: -1.0}\n", "filters: [{type: seen, within: 3d}]\n")
    text = text.replace("  - {name: display", "#")
    assert [line for line in advice_of(text, songs) if "clock is 'order'" in line]
    empty = open_new()
    empty.put_items([Item("a", "movie", {"title": "A"})])
    assert "3:12: warning: no event with items of the kind 'movie' yet" in "\n".join(advice_of(RIGHT, empty))
    assert "holds no item of the kind 'movie'; import some first" in "\n".join(advice_of(RIGHT, open_new()))


def test_a_trunk_that_tells_nothing_of_the_items_is_told(open_new: Callable[[], Ledger]) -> None:
    ledger = open_new()
    ledger.put_items(Item(f"g{n}", "gadget", {"model": f"Thing {n}"}) for n in range(3))
    ledger.put_members([Member("m", {})])
    ledger.add_events([Event("m", "g0", "s", "like", 1.0), Event("m", "g1", "s", "dislike", 2.0)])
    text = RIGHT.replace("movie", "gadget").replace("{{ title }}", "{{ model }}")
    (line,) = advice_of(text, ledger)
    assert "the trunk 'member' tells of no gadget what it is" in line
    assert line.endswith('write gadget: "{{ action }} {{ model }}"')


def test_advice_is_in_the_order_of_the_file_and_said_once() -> None:
    file = read_spec(RIGHT, "f.yaml")
    found = in_order([Advice(("heads",), "b"), Advice(("surface",), "a"), Advice(("heads",), "b")], file)
    assert [one.line(file) for one in found] == ["f.yaml:1:10: warning: a", "f.yaml:10:3: warning: b"]
    assert Advice(("prompt", "item"), "x", word="nowhere").place(file) == (6, 9)


def trials(text: str, ledger: Ledger, **changes: Any) -> tuple[list[str], SurfaceSpec, list[Trial]]:
    """What is said after real retrieval for three members; `changes` are to what a model would have measured."""
    spec = surface(text)
    retrieval = fit_sources(Materials(spec, interactions_of(spec, ledger), ledger, None))
    found = []
    for name in ("m00", "m01", "m02"):
        visit = Visit(ledger.timeline(name), name, ledger.member(name).profile, now=1e9, lookup=ledger.items)
        candidates = retrieval.gather(visit)
        never = silent(spec, retrieval, visit, candidates)
        slots = [3] * len(candidates)
        made = Trial(visit, candidates, 12, 12, 9, 4, slots, never, 0.01)
        found.append(made._replace(**changes))
    file = read_spec(text, "f.yaml")
    told = of_trials(spec, survey(ledger, spec.item_kind), found)
    return [one.line(file) for one in in_order(told, file)], spec, found


def test_trials_without_a_problem_say_nothing(films: Ledger) -> None:
    told, spec, found = trials(RIGHT, films)
    assert told == []
    assert brought(spec, found) == {"popular": 10.0}
    assert found[0].slots == 9 + 4 + 3 * len(found[0].candidates)
    assert brought(spec, []) == {}


@pytest.mark.parametrize(
    ("old", "new", "changed", "line"),
    [
        ("heads:", "filters: [{type: where, keep: item.year > 3000}]\nheads:", {}, "9:11: warning: 'where' drops"),
        ("k: 10}", "k: 10}\n  - {type: recent, k: 3, by: title}", {}, "9:5: warning: 'recent' brings nothing"),
        ("sources:", "evidence: [recent]\nsources:", {"silent": frozenset({"recent"})}, "'recent' says 'none' of"),
        ("", "", {"told": 5}, "1:1: note: 21 of 36 events do not fit the trunk 'member' (of 3 of 3 members)"),
        ("", "", {"leaves": [3, 65]}, "6:9: warning: the longest leaf takes 65 slots"),
        ("", "", {"seconds": 0.7}, "warning: 500 ms are less than the fastest of 3 rankings took here (700 ms)"),
    ],
)  # fmt: skip
def test_trials_tell_what_has_no_effect(old: str, new: str, changed: dict[str, Any], line: str, films: Ledger) -> None:
    told, _, _ = trials(RIGHT.replace(old, new, 1), films, **changed)
    assert [one for one in told if line in one], told
    assert len(told) == 1


def test_a_filter_that_asks_the_context_is_not_called_closed(films: Ledger) -> None:
    told, _, found = trials(RIGHT + "filters: [{type: where, keep: item.year == context.year}]\n", films)
    assert (told, [len(trial.candidates) for trial in found]) == ([], [0, 0, 0])


def test_evidence_that_says_nothing_is_found(films: Ledger, open_new: Callable[[], Ledger]) -> None:
    text = RIGHT.replace("sources:", "evidence: [popular, co_visitation]\nsources:")
    _, _, found = trials(text, films)
    assert {trial.silent for trial in found} == {frozenset()}
    spec = surface(text)
    empty = open_new()
    empty.put_items([Item("a", "movie", {"title": "A"})])
    retrieval = fit_sources(Materials(spec, interactions_of(spec, empty), empty, None))
    candidates = retrieval.gather(Visit(lookup=empty.items))
    assert silent(spec, retrieval, Visit(), candidates) == {"co_visitation"}


# Differences


def differ(old: str, new: str) -> tuple[dict[str, tuple[object, object]], list[str]]:
    """What changed by key, and the costs."""
    files = [read_spec(text, "x.yaml") for text in (old, new)]
    found = changes(files[0].spec, files[1].spec)
    one, two = (SHIPPED.plus(file).declared(file.name) for file in files)
    return {change.key: (change.old, change.new) for change in found}, costs(one, two, found)


def test_defaults_written_out_are_no_difference() -> None:
    spelled = (
        RIGHT.replace("k: 10}", "k: 10, weight: 1.0, name: popular}") + "trunk: member\npolicies: []\nlocale: en\n"
    )
    spelled += "fallback: {deadline_ms: 500, order: [popular]}\n"
    found, costs_ = differ(RIGHT, spelled.replace(", name: popular", ""))
    assert (found, costs_) == ({}, [])


def test_entries_are_matched_by_name() -> None:
    new = RIGHT.replace(
        "  - {type: popular, k: 10}", "  - {type: recent, k: 3}\n  - {type: popular, k: 12, half_life: 14d}"
    )
    found, lines = differ(RIGHT, new)
    assert found["sources.popular.k"] == (10, 12)
    assert found["sources.popular.half_life"] == (MISSING, "14d")
    assert found["sources.recent"][0] is MISSING
    assert found["fallback.order"] == (["popular"], ["recent", "popular"])
    assert lines == ["other candidates: the sources are fitted again when the file comes online"]


def test_the_same_type_twice_and_another_order() -> None:
    caps = "policies: [{type: cap, by: a, max: 1}, {type: cap, by: b, max: 1}, {type: explore, rate: 0.1}]\n"
    other = "policies: [{type: explore, rate: 0.1}, {type: cap, by: a, max: 1}, {type: cap, by: c, max: 1}]\n"
    found, lines = differ(RIGHT + caps, RIGHT + other)
    assert found["policies.cap #2.by"] == ("b", "c")
    assert found["policies.order"] == (["cap", "cap #2", "explore"], ["explore", "cap", "cap #2"])
    assert lines == ["what the model reads stays the same: nothing cached is lost, and nothing is trained again"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Which film?", "What film?", ["the stem changes: cached stems are computed again"]),
        ("{{ title }}", "{{ title }}.", ["the candidates' texts change"]),
        ("name: dislike", "name: hate", ["the answers change (like, dislike, none -> like, hate, none)"]),
        ("description: Films", "description: Movies", ["what the model reads stays the same"]),
        ("sources:", "  locales: {de: {instruction: Was}}\nsources:", ["the stem changes"]),
        ("sources:", "  locales: {de: {item: Was}}\nsources:", ["the candidates' texts change"]),
        ("  - {type: popular, k: 10}", "  - {type: embedding, k: 10}", ["other candidates", "the items' vectors"]),
        ("k: 10}", "k: 10}\nevidence: [popular]", ["the candidates' texts change"]),
    ],
)
def test_costs(old: str, new: str, words: list[str]) -> None:
    _, lines = differ(RIGHT, RIGHT.replace(old, new, 1))
    assert [any(line.startswith(word) for line in lines) for word in words] == [True] * len(words), lines
    assert len(lines) == len(words)


def test_examples_are_told_in_the_words_of_the_item() -> None:
    with_example = RIGHT.replace("sources:", "  examples: [{member: A, item: {title: B}, answer: like}]\nsources:", 1)
    _, lines = differ(with_example, with_example.replace("{{ title }}", "{{ title }}!"))
    assert [line.partition(" change")[0] for line in lines] == ["the stem", "the candidates' texts"]


def test_another_trunk_costs_the_trunk() -> None:
    trunk = Path("surfaces/plugins/member.yaml").read_text(encoding="utf-8")
    short = read_spec(trunk.replace("trunk: member", "trunk: short").replace("budget: 128", "budget: 64"), "t.yaml")
    registry = SHIPPED.plus(short)
    files: list[SpecFile] = [read_spec(text, "x") for text in (RIGHT, RIGHT + "trunk: short\n")]
    found = changes(files[0].spec, files[1].spec)
    one, two = (registry.plus(file).declared(file.name) for file in files)
    assert costs(one, two, found)[0].startswith("the trunk changes: every member's cached trunk is computed again")
    trunks = changes(SHIPPED._trunk("member"), short.spec)
    assert {change.key for change in trunks} == {"trunk", "timeline.budget"}
    assert costs_of_trunk(trunks)[0].startswith("the trunk changes")
    assert costs_of_trunk(trunks[:1]) == []
