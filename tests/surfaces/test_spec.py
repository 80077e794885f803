"""What surface and trunk files mean: defaults, answers, versions."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from prompts.errors import SpecError
from prompts.render import compile_template
from prompts.verbalize import TrunkForm
from surfaces.fields import as_duration
from surfaces.heads.choice import ChoiceHead
from surfaces.policies.seen import SeenPolicy
from surfaces.sources.popular import PopularSource
from surfaces.spec import PromptSpec, SurfaceSpec, TrunkSpec, check_answers
from surfaces.spec_file import as_yaml, read_spec

SHORTEST = """
surface: jobs
description: Job postings
item_kind: job
prompt: {instruction: Jobs., item: "{{ title }}"}
sources: [{type: popular, k: 20}]
heads: [{name: apply, type: pointwise, weight: 1}]
"""

TRUNK = """
trunk: member
description: A member
profile: "{{ headline }}"
timeline:
  events: {default: "{{ action }} {{ title }}"}
"""


def surface(text: str = SHORTEST) -> SurfaceSpec:
    spec = read_spec(text, "jobs.yaml").spec
    assert isinstance(spec, SurfaceSpec)
    return spec


def trunk(text: str = TRUNK) -> TrunkSpec:
    spec = read_spec(text, "member.yaml").spec
    assert isinstance(spec, TrunkSpec)
    return spec


def with_heads(*heads: str) -> SurfaceSpec:
    lines = SHORTEST.splitlines()[:-1]
    return surface("\n".join([*lines, "heads:", *(f"  - {{{head}}}" for head in heads)]))


def test_what_a_short_file_leaves_out() -> None:
    spec = surface()
    assert spec.trunk == "member"
    assert spec.prompt.detail == "vector"
    assert spec.prompt.context is None
    assert spec.policies == ()
    assert spec.evidence == ()
    assert spec.fallback.deadline_ms == 500
    assert spec.fallback.order == ("popular",)
    assert spec.heads[0].actions == ("apply",)


def test_everything_a_file_may_say() -> None:
    spec = surface(
        """
        surface: films-tonight
        description: |
          Two
          lines
        item_kind: movie
        trunk: viewer
        prompt: {instruction: " For  tonight. ", context: "Mood: {{ mood }}", item: "{{ title }}", detail: text}
        sources:
          - {type: embedding, k: 1}
          - {type: popular, k: 1000, half_life: 14d}
          - {type: co_visitation, k: 3}
        heads:
          - {name: watch, type: choice, weight: -0.5, actions: [watch, like]}
        evidence: [co_visitation, popular]
        policies: [{type: seen}]
        fallback: {deadline_ms: 60000, order: [popular]}
        """
    )
    assert (spec.surface, spec.trunk, spec.description) == ("films-tonight", "viewer", "Two lines")
    assert spec.prompt.instruction == "For tonight."
    assert spec.prompt.context is not None
    assert spec.prompt.context.render({"mood": "calm"}) == "Mood: calm"
    assert [source.type for source in spec.sources] == ["embedding", "popular", "co_visitation"]
    assert spec.sources[1] == PopularSource(type="popular", k=1000, half_life=14 * 86_400.0)
    assert spec.heads == (ChoiceHead(name="watch", type="choice", weight=-0.5, actions=("watch", "like")),)
    assert spec.policies == (SeenPolicy(type="seen"),)
    assert spec.evidence == ("co_visitation", "popular")
    assert spec.fallback.order == ("popular",)


def test_without_an_order_the_fallback_follows_the_sources() -> None:
    text = SHORTEST.replace("[{type: popular, k: 20}]", "[{type: embedding, k: 9}, {type: popular, k: 20}]")
    assert surface(text).fallback.order == ("embedding", "popular")
    assert surface(text + "fallback: {deadline_ms: 7}").fallback.order == ("embedding", "popular")
    assert surface(text + "fallback: {order: []}").fallback.order == ("embedding", "popular")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90.0), ("30m", 1_800.0), ("6h", 21_600.0), ("14d", 1_209_600.0), ("2w", 1_209_600.0), ("3600", 3_600.0)],
)
def test_durations_are_seconds(written: str, seconds: float) -> None:
    source = surface(SHORTEST.replace("k: 20", f"k: 20, half_life: {written}")).sources[0]
    assert isinstance(source, PopularSource)
    assert source.half_life == seconds


@pytest.mark.parametrize(
    ("heads", "answers"),
    [
        (["name: a, type: pointwise, weight: 1"], ("yes", "no")),
        (["name: a, type: choice, weight: 1"], ("a", "none")),
        (["name: b, type: choice, weight: 1", "name: a, type: choice"], ("b", "a", "none")),
        (
            ["name: watch, type: pointwise, weight: 1", "name: like, type: choice", "name: dislike, type: choice"],
            ("like", "dislike", "none", "yes", "no"),
        ),
    ],
)
def test_answers_in_a_stable_order(heads: list[str], answers: tuple[str, ...]) -> None:
    assert with_heads(*heads).answers == answers


def test_answers_that_begin_alike_are_refused() -> None:
    spec = with_heads("name: like, type: choice, weight: 1", "name: like_not, type: choice")
    by_letter = {word: [ord(letter) for letter in word] for word in spec.answers}
    with pytest.raises(SpecError, match="surface 'jobs': the answers 'like' and 'like_not' begin with the same token"):
        check_answers(spec, by_letter.__getitem__)
    check_answers(spec, lambda word: [hash(word)])


def test_an_answer_without_tokens_is_refused() -> None:
    with pytest.raises(SpecError, match="the answer 'yes' has no tokens"):
        check_answers(surface(), lambda _: [])


def test_the_version_follows_the_content_alone() -> None:
    plain = surface().version
    assert len(plain) == 12
    assert int(plain, 16) >= 0
    assert surface("# a remark\n" + SHORTEST).version == plain
    assert surface(SHORTEST + "trunk: member\npolicies: []").version == plain
    assert surface(SHORTEST.replace("weight: 1", "weight: 1.0")).version == plain
    assert surface(SHORTEST.replace("k: 20", "k: 21")).version != plain
    assert surface(SHORTEST.replace("title", "name")).version != plain
    assert trunk().version != trunk(TRUNK.replace("title", "name")).version


def test_equal_files_give_equal_specs() -> None:
    assert surface() == surface()
    assert surface().answers == surface().answers
    assert surface() != surface(SHORTEST.replace("k: 20", "k: 21"))


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        surface().surface = "other"  # type: ignore[misc]  # this is what must fail


def test_a_spec_can_be_made_in_code() -> None:
    content = json.loads(surface().model_dump_json())
    assert SurfaceSpec.model_validate(content) == surface()
    item = compile_template("{{ title }}", where="code")
    prompt = PromptSpec(instruction="Jobs.", item=item)
    assert SurfaceSpec.model_validate({**content, "prompt": prompt}) == surface()


def test_a_trunk_file_is_a_form() -> None:
    form = trunk().form
    assert isinstance(form, TrunkForm)
    assert (form.detail, form.budget, form.step) == ("vector", 128, 32)
    assert form.profile.render({"headline": "Engineer"}) == "Engineer"
    assert form.events["default"].names == {"action", "title"}
    assert form.actions == {}
    text = TRUNK.replace("timeline:", "actions: {like: liked}\ntimeline:\n  detail: mixed\n  budget: 64\n  step: 8")
    told = trunk(text).form
    assert (told.detail, told.budget, told.step, told.actions) == ("mixed", 64, 8, {"like": "liked"})


def test_a_word_alone_is_its_type() -> None:
    text = SHORTEST.replace("[{type: popular, k: 20}]", "[{type: popular, k: 20}, {type: request, k: 9}]")
    short, long = (surface(text + f"filters: [{entry}, {{type: available}}]") for entry in ("seen", "{type: seen}"))
    assert short == long
    assert short.version == long.version
    assert [entry.type for entry in short.filters] == ["seen", "available"]


@pytest.mark.parametrize(
    ("seconds", "written"), [(1.0, "1s"), (5_400.0, "90m"), (21_600.0, "6h"), (1_209_600.0, "14d")]
)
def test_a_duration_is_written_as_files_have_it(seconds: float, written: str) -> None:
    assert as_duration(seconds) == written
    spec = surface(SHORTEST.replace("k: 20", f"k: 20, half_life: {seconds}"))
    assert f"half_life: {written}" in as_yaml(spec)
    assert surface(as_yaml(spec)) == spec


@pytest.mark.parametrize("seconds", [0.25, 1.5, 1e300, 86_400e6])
def test_a_duration_that_no_unit_fits_stays_a_number(seconds: float) -> None:
    assert as_duration(seconds) == seconds
    spec = surface(SHORTEST.replace("k: 20", f"k: 20, half_life: {seconds!r}"))
    assert surface(as_yaml(spec)) == spec
