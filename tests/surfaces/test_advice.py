"""Advice on surface files that are right, and what differs between two of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from surfaces.authoring.advice import Advice, in_order
from surfaces.authoring.diff import MISSING, changes, costs, costs_of_trunk
from surfaces.authoring.survey import survey
from surfaces.authoring.trial import Trial, brought, of_trials, silent
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Materials
from surfaces.sources.fit import fit_sources, interactions_of
from surfaces.spec import SurfaceSpec
from surfaces.spec_file import SpecFile, read_spec
from surfaces.visit import Visit
from tests.surfaces.shelves import SHIPPED, advice_of, fill_songs, surface

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
