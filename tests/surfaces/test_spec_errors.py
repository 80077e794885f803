"""A wrong file gets one clear line a problem: file, line, column, what is wrong, what would be right."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import SpecError
from surfaces.spec_file import SHOWN, read_spec

SURFACE = """\
surface: films
description: Films for a member
item_kind: movie
prompt:
  instruction: Films.
  item: "{{ title }}"
sources:
  - {type: popular, k: 20, half_life: 14d}
  - {type: embedding, k: 20}
heads:
  - {name: watch, type: pointwise, weight: 1.0}
  - {name: like, type: choice}
policies:
  - {type: seen}
fallback: {deadline_ms: 500, order: [embedding, popular]}
"""
TRUNK = """\
trunk: member
description: A member
profile: "{{ headline }}"
timeline:
  detail: vector
  budget: 128
  step: 32
  events:
    default: "{{ action }}"
actions:
  like: liked
"""


def problems(text: str, where: str = "films.yaml") -> list[str]:
    with pytest.raises(SpecError) as raised:
        read_spec(text, where)
    return str(raised.value).split("\n")


def test_the_files_of_this_test_are_right() -> None:
    read_spec(SURFACE, "films.yaml")
    read_spec(TRUNK, "member.yaml")


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        # keys
        ("item_kind:", "item_knd:", "3:1: item_knd: unknown key; did you mean 'item_kind'?"),
        ("  item:", "  itm:", "6:3: prompt.itm: unknown key; did you mean 'item'?"),
        ("k: 20, half", "kk: 20, half", "8:21: sources[0].kk: unknown key; did you mean 'k'?"),
        ("half_life", "halflife", "8:28: sources[0].halflife: unknown key; did you mean 'half_life'?"),
        (
            "embedding, k: 20",
            "embedding, k: 20, half_life: 1d",
            "9:30: sources[1].half_life: unknown key; known: k, name, type, weight",
        ),
        ("name: watch, type", "name: watch, typ", "11:19: heads[0].typ: unknown key; did you mean 'type'?"),
        ("deadline_ms", "deadline", "15:12: fallback.deadline: unknown key; did you mean 'deadline_ms'?"),
        ("{type: seen}", "{type: seen, by: x}", "14:18: policies[0].by: unknown key; known: type"),
        ("description: Films for a member\n", "", "1:1: description: this key is missing"),
        ("name: watch, ", "", "11:5: heads[0].name: this key is missing"),
        ("type: popular, ", "", "8:5: sources[0].type: this key is missing"),
        ("type: seen", "", "14:5: policies[0].type: this key is missing"),
        # values of the wrong kind
        ("k: 20, half", "k: '20', half", "8:24: sources[0].k: should be a whole number, not '20'"),
        ("k: 20, half", "k: 2.5, half", "8:24: sources[0].k: should be a whole number, not 2.5"),
        ("k: 20, half", "k: true, half", "8:24: sources[0].k: should be a whole number, not True"),
        ("weight: 1.0", "weight: '1'", "11:44: heads[0].weight: should be a number, not '1'"),
        ("weight: 1.0", "weight: .nan", "11:44: heads[0].weight: should be a finite number, not nan"),
        ("weight: 1.0", "weight: 1e999", "11:44: heads[0].weight: should be a finite number, not inf"),
        ("instruction: Films.", "instruction: 3", "5:16: prompt.instruction: should be text; put it in quotes, not 3"),
        (
            "instruction: Films.",
            "instruction:",
            "5:3: prompt.instruction: should be text; put it in quotes, not nothing",
        ),
        ("instruction: Films.", "instruction: ' '", "5:16: prompt.instruction: is empty; write a few words"),
        ('item: "{{ title }}"', "item: {{ title }}", "6:10: a key must be a word"),
        ('item: "{{ title }}"', "item: [a]", "6:9: prompt.item: should be text; put it in quotes"),
        ("- {type: seen}", "- seen", None),
        ("- {type: seen}", "- 7", "14:5: policies[0]: should be a mapping (key: value), not 7"),
        ("- {type: embedding, k: 20}", "- embedding", "9:5: sources[1].k: this key is missing"),
        ("- {type: embedding, k: 20}", "- embeding", "9:5: sources[1].type: unknown value 'embeding'; did you mean"),
        (
            "{deadline_ms: 500, order: [embedding, popular]}",
            "500",
            "15:11: fallback: should be a mapping (key: value), not 500",
        ),
        ("[embedding, popular]", "popular", "15:37: fallback.order: should be a list, not 'popular'"),
        # values out of bounds
        ("k: 20, half", "k: 0, half", "8:24: sources[0].k: should be greater than or equal to 1, not 0"),
        ("k: 20, half", "k: 1001, half", "8:24: sources[0].k: should be less than or equal to 1000, not 1001"),
        ("500", "0", "15:25: fallback.deadline_ms: should be greater than or equal to 1, not 0"),
        ("500", "60001", "15:25: fallback.deadline_ms: should be less than or equal to 60000, not 60001"),
        ("Films.", "F" * 2_001, "5:16: prompt.instruction: has 2001 characters; at most 2000 are allowed"),
        ("surface: films", "surface: Films", "1:10: surface: should be a name"),
        ("surface: films", "surface: ../etc", "1:10: surface: should be a name"),
        ("surface: films", f"surface: {'x' * 65}", "1:10: surface: should be a name"),
        ("name: watch", "name: 'wa tch'", "11:12: heads[0].name: should be a name"),
        # values from a list
        ("popular, k", "populr, k", "8:12: sources[0].type: unknown value 'populr'; did you mean 'popular'?"),
        ("popular, k", "bm25, k", "8:25: sources[0].half_life: unknown key; known: from, k, name, type, weight"),
        ("popular, k", "xyz, k", "8:12: sources[0].type: unknown value 'xyz'; known: als, bm25, co_visitation, ease, "),
        ("type: choice", "type: chioce", "12:24: heads[1].type: unknown value 'chioce'; did you mean 'choice'?"),
        ("type: seen", "type: 3", "14:12: policies[0].type: unknown value '3'; known: boost, cap, "),
        (
            "[embedding, popular]",
            "[popular, embeding]",
            "15:47: fallback.order[1]: 'embeding' is no source of this surface; did",
        ),
        ("[embedding, popular]", "[popular, popular]", "15:47: fallback.order[1]: 'popular' is listed twice"),
        ("heads:", "evidence: [populr]\nheads:", "10:12: evidence[0]: unknown value 'populr'; did you mean 'popular'?"),
        ("heads:", "evidence: [popular, popular]\nheads:", "10:21: evidence[1]: 'popular' is listed twice"),
        ("heads:", "evidence: popular\nheads:", "10:11: evidence: should be a list, not 'popular'"),
        # keys and values deeper down
        ("heads:", "reciprocal: {tpo: 3}\nheads:", "10:14: reciprocal.tpo: unknown key; did you mean 'top'?"),
        (
            "weight: 1.0",
            "calibration: {slop: 2}",
            "11:50: heads[0].calibration.slop: unknown key; did you mean 'slope'?",
        ),
        (
            "  item:",
            "  locales: {de: {instrction: x}}\n  item:",
            "6:18: prompt.locales.de.instrction: unknown key; did you mean 'instruction'?",
        ),
        (
            "  item:",
            "  examples: [{membr: x, item: {}, answer: like}]\n  item:",
            "6:15: prompt.examples[0].membr: unknown key; did you mean 'member'?",
        ),
        ("type: seen", "tpe: cap, by: x, max: 1", "14:6: policies[0].tpe: unknown key; did you mean 'type'?"),
        # examples
        (
            "  item:",
            "  examples: [{member: x, item: {}, answer: lke}]\n  item:",
            "6:44: prompt.examples[0].answer: 'lke' is no answer of this surface; did you mean 'like'?",
        ),
        # durations
        ("14d", "14", None),
        (
            "14d",
            "14 days",
            "8:39: sources[0].half_life: should be a whole number and one of s, m, h, d, w, like 14d or 6h",
        ),
        ("14d", "0d", "8:39: sources[0].half_life: should be a whole number"),
        ("14d", "-3", "8:39: sources[0].half_life: should be a whole number"),
        ("14d", "true", "8:39: sources[0].half_life: should be a whole number"),
        ("14d", ".inf", "8:39: sources[0].half_life: should be a"),
        # what belongs together
        ("weight: 1.0", "weight: 0", "11:3: heads: every weight is 0; give the head that ranks a weight, like 1.0"),
        (
            "name: like, type: choice",
            "name: like, type: pointwise",
            "12:24: heads[1].type: is the second pointwise head",
        ),
        ("name: like", "name: watch", "12:12: heads[1].name: 'watch' is the name of two heads; rename one"),
        ("name: like", "name: none", "12:12: heads[1].name: is an answer of its own; give the head another name"),
        ("name: like", "name: 'yes'", "12:12: heads[1].name: is an answer of its own"),
        (
            "type: embedding, k",
            "type: popular, k",
            "9:12: sources[1].type: 'popular' is listed twice; give one of the two ",
        ),
        ("  - {type: seen}", "  - {type: seen}\n  - {type: seen}", "15:12: policies[1].type: 'seen' is listed twice"),
        # templates
        ("{{ title }}", "{{ title * 9 }}", "6:9: prompt.item: arithmetic ('*') is not allowed"),
        ("{{ title }}", "{{ title | uper }}", "6:9: prompt.item: unknown filter 'uper'; did you mean 'upper'?"),
        ("{{ title }}", "{{ title", "6:9: prompt.item: unexpected end of template"),
        ("  item:", "  context: '{% if x %}'\n  item:", "6:12: prompt.context: Unexpected end of template"),
        # YAML itself
        (
            "item_kind: movie",
            "item_kind: movie\nitem_kind: book",
            "4:1: the key 'item_kind' appears twice (first on line 3)",
        ),
        ("item_kind: movie", "item_kind: *movie", "3:12: an alias"),
        ("  item:", "\titem:", "6:1: no YAML: found character '\\t'"),
        ("item_kind: movie", "item_kind: no: movie", "3:14: no YAML: mapping values are not allowed here"),
    ],
)
def test_a_wrong_surface_file(right: str, wrong: str, problem: str | None) -> None:
    assert right in SURFACE
    text = SURFACE.replace(right, wrong, 1)
    if problem is None:
        read_spec(text, "films.yaml")
        return
    (line,) = problems(text)
    assert line.startswith(f"films.yaml:{problem}")


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        (
            "budget: 128",
            "budget: 63",
            "6:11: timeline.budget: holds less than two steps of 32; raise it, or lower the step",
        ),
        ("budget: 128", "budget: 3", "6:11: timeline.budget: should be greater than or equal to 16, not 3"),
        ("  step: 32\n", "", None),
        ("step: 32", "step: 0", "7:9: timeline.step: should be greater than or equal to 1, not 0"),
        ("detail: vector", "detail: vectors", "5:11: timeline.detail: unknown value 'vectors'; did you mean 'vector'?"),
        ("default:", "movie:", "9:5: timeline.events: a template for 'default' is missing"),
        ("default:", "default: x\n    Movie:", "10:5: timeline.events.Movie: should be a name"),
        ('"{{ action }}"', "'{{ f() }}'", "9:14: timeline.events.default: calling a function is not allowed"),
        ("like: liked", "like: 3", "11:9: actions.like: should be text; put it in quotes, not 3"),
        ("like: liked", "Like it: liked", "11:3: actions.Like it: should be a name"),
        ("timeline:\n", "timline:\n", "4:1: timline: unknown key; did you mean 'timeline'?"),
        ("actions:", "surface: x\nactions:", "10:1: 'surface' must be the first key of a surface file"),
        ("trunk: member", "trunk: Member", "1:8: trunk: should be a name"),
    ],
)
def test_a_wrong_trunk_file(right: str, wrong: str, problem: str | None) -> None:
    assert right in TRUNK
    text = TRUNK.replace(right, wrong, 1)
    if problem is None:
        read_spec(text, "member.yaml")
        return
    (line,) = problems(text, "member.yaml")
    assert line.startswith(f"member.yaml:{problem}")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("- a\n- b", "1:1"),
        ("just words", "1:1"),
        ("3", "1:1"),
        ("{}", "1:1"),
        ("\n\nsurfce: films", "3:1"),
        ("heads: []", "1:1"),
    ],
)
def test_a_file_that_is_neither_says_how_files_begin(text: str, place: str) -> None:
    (line,) = problems(text)
    assert line == f"films.yaml:{place}: a surface file begins with 'surface: NAME', a trunk file with 'trunk: NAME'"


def test_every_problem_of_a_file_is_told_at_once() -> None:
    text = (
        SURFACE.replace("item_kind: movie", "item_kind: 3")
        .replace("k: 20}", "k: 0}")
        .replace("{{ title }}", "{{ f() }}")
    )
    lines = problems(text)
    assert [line.split(": ")[1] for line in lines] == ["item_kind", "prompt.item", "sources[1].k"]


def test_a_misspelt_key_is_told_once() -> None:
    assert len(problems(SURFACE.replace("heads:", "head:"))) == 1


def test_two_keys_of_which_one_is_misspelt_and_one_missing() -> None:
    lines = problems(SURFACE.replace("heads:", "head:").replace("item_kind: movie\n", ""))
    assert [line.split(": ", 1)[1] for line in lines] == [
        "item_kind: this key is missing",
        "head: unknown key; did you mean 'heads'?",
    ]


def test_a_hundred_problems_are_counted() -> None:
    lines = problems(SURFACE + "".join(f"zz{n}: 1\n" for n in range(100)))
    assert len(lines) == SHOWN + 1
    assert lines[-1] == f"and {100 - SHOWN} more"


def test_the_second_name_may_be_a_trunk() -> None:
    read_spec(SURFACE + "trunk: viewer\n", "films.yaml")
    (line,) = problems("trunk: viewer\n" + SURFACE)
    assert line == "films.yaml:2:1: 'surface' must be the first key of a surface file"


LINE = re.compile(r"films\.yaml:\d+:\d+: .+|and \d+ more")
SCALARS = st.sampled_from(
    ["3", "-1", "1e999", "''", "x", "[]", "{}", "[x]", "{type: popular}", "{a: {b: c}}", "true", "~", "'{{'"]
)


@given(st.integers(0, 14), SCALARS)
def test_any_value_anywhere_is_accepted_or_told_with_its_place(row: int, value: str) -> None:
    lines = SURFACE.splitlines()
    lines[row] = re.sub(r": .*|:$", lambda _: f": {value}", lines[row], count=1)
    try:
        read_spec("\n".join(lines), "films.yaml")
    except SpecError as error:
        told = str(error).split("\n")
    else:
        told = []
    assert all(LINE.fullmatch(line) for line in told)


@given(st.lists(st.sampled_from(SURFACE.splitlines()), max_size=16).map("\n".join))
def test_any_shuffle_of_lines_is_accepted_or_told_with_its_place(text: str) -> None:
    try:
        read_spec(text, "films.yaml")
    except SpecError as error:
        told = str(error).split("\n")
    else:
        told = []
    assert all(LINE.fullmatch(line) for line in told)


def test_a_head_may_not_be_called_as_the_other_sides_answer() -> None:
    heads = "heads: [{name: meet, type: pointwise, weight: 1}, {name: meet_back, type: choice, weight: 0}]"
    text = (
        "surface: people\ndescription: x\nitem_kind: person\nprompt: {instruction: x, item: x}\n"
        f"sources: [{{type: popular, k: 1}}]\n{heads}\n"
    )
    read_spec(text, "f.yaml")
    with pytest.raises(SpecError, match=r"^f\.yaml:6:58: heads\[1\]\.name: is what the other side's answer is called"):
        read_spec(text + "reciprocal: {}\n", "f.yaml")
