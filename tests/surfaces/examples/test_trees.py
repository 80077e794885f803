"""Labelled trees from a ledger: they show only the past, say what serving says, and never tell the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foundation.engine.base import TokenTree
from foundation.engine.torch import TorchEngine
from prompts.errors import ConfigError
from prompts.verbalize import TrunkForm, verbalize
from surfaces.compose import compose
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.method import Visits
from surfaces.evaluation.protocols import leave_one_out
from surfaces.examples.mix import Mix
from surfaces.examples.settings import ExampleSettings
from surfaces.examples.trees import FOLDS, Examples, Shelf
from surfaces.happenings import attributes_of, happenings
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.sources.base import Interactions, Materials
from surfaces.sources.fit import advisers
from surfaces.sources.merge import Adviser
from surfaces.sources.overall import Case, Overall, learned
from surfaces.spec import SurfaceSpec
from tests.surfaces.world import EVENTS, MEMBERS, fill


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as opened:
        fill(opened)
        yield opened


@pytest.fixture(scope="module")
def spec() -> SurfaceSpec:
    return Registry.shipped().surface("movies")


@pytest.fixture(scope="module")
def form() -> TrunkForm:
    return Registry.shipped().trunk("member")


def examples(spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, engine: TorchEngine, **changes: object) -> Examples:
    settings = ExampleSettings.model_validate({"positions": 4, "likely": 3, "others": 2} | changes)
    return Examples(spec, Shelf.of(ledger, form, engine, settings), seed=0)


def mix(data: Examples) -> Mix:
    return Mix([data], trees_per_step=6, seed=0)


def flat(tree: TokenTree) -> list[tuple[object, ...]]:
    return [(node.slots, node.parent, node.after, node.answers, node.vectors) for node in tree.nodes]


def test_a_step_gives_the_same_trees_again(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine
) -> None:
    one, other = (mix(examples(spec, form, ledger, tiny_engine)) for _ in range(2))
    assert [flat(tree.tree) for tree in one.batch(3)] == [flat(tree.tree) for tree in other.batch(3)]
    assert [flat(tree.tree) for tree in one.batch(3)] != [flat(tree.tree) for tree in one.batch(4)]


def test_every_member_is_drawn(spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine) -> None:
    data = mix(examples(spec, form, ledger, tiny_engine))
    trunks = [labelled.prompt.nodes[0] for step in range(40) for labelled in data.batch(step) if labelled.prompt]
    profiles = {trunk.pieces[0].text for trunk in trunks}
    assert len(profiles) == MEMBERS, "of 240 draws; each member's profile tells their age"


def test_every_position_has_its_chosen_leaf_first(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine
) -> None:
    data = examples(spec, form, ledger, tiny_engine)
    for labelled in mix(data).batch(0):
        answering = [node for node in labelled.tree.nodes if node.answers]
        assert sum(len(one.leaves) for one in labelled.lists) == len(answering)
        assert len(labelled.lists) == len(labelled.choices) == 4
        for one, choice in zip(labelled.lists, labelled.choices, strict=True):
            assert one.chosen == 0
            assert choice.leaf == one.leaves[0]
            assert one.stands_for[0] == 1.0
            assert sum(one.stands_for) == pytest.approx(40 - (EVENTS - 2) + 1)


def test_what_is_held_out_is_never_chosen_nor_in_the_trunk(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine
) -> None:
    data = examples(spec, form, ledger, tiny_engine, positions=20)
    encode = tiny_engine.encoder.encode
    plain = data.styles[0]
    for course in data.courses:
        hidden = [
            (data.items[item], act.action) for item, act in zip(course.items_C, course.timeline.acts, strict=True)
        ]
        hidden_items = {encode(plain.leaf(item).text) for item, _ in hidden[-2:]}
        hidden_events = {encode(plain.event(item, action, 0, EVENTS).text) for item, action in hidden[-2:]}
        for seed in range(5):
            labelled = data.tree(course, np.random.default_rng(seed))
            answering = [node for node in labelled.tree.nodes if node.answers]
            chosen = {answering[one.leaves[one.chosen]].vectors[0] for one in labelled.lists}
            assert not chosen & hidden_items
            assert not set(labelled.tree.nodes[0].vectors) & hidden_events


def test_what_is_held_out_is_shown_like_anything_else_that_was_not_chosen(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine
) -> None:
    """Left out of what is shown, it would be given away: the only films never chosen and never shown."""
    data = examples(spec, form, ledger, tiny_engine, likely=40, others=40)
    encode = tiny_engine.encoder.encode
    for course in data.courses[:5]:
        labelled = data.tree(course, np.random.default_rng(0))
        shown = {node.vectors[0] for node in labelled.tree.nodes if node.answers}
        assert {encode(data.styles[0].leaf(data.items[item]).text) for item in course.items_C[-2:]} <= shown


def test_leaves_hang_behind_what_came_before_them(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine
) -> None:
    data = examples(spec, form, ledger, tiny_engine, positions=20)
    labelled = data.tree(data.courses[0], np.random.default_rng(1))
    root = labelled.tree.nodes[0]
    before = len(root.slots) - len(root.vectors)
    stems = [node for node in labelled.tree.nodes if node.parent == 0]
    assert [node.after for node in stems] == list(range(before, before + len(stems))), (
        "the first knows the profile alone"
    )


def test_training_and_serving_say_the_same(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine
) -> None:
    """The trunk of a training tree, cut where a leaf hangs, is the trunk that serving makes of that past."""
    data = examples(spec, form, ledger, tiny_engine)
    timeline = data.courses[3].timeline
    labelled = data.tree(data.courses[3], np.random.default_rng(2))
    events = ledger.timeline(timeline.member_id)
    items = ledger.items(event.item_id for event in events)
    root = labelled.tree.nodes[0]
    for stem in (node for node in labelled.tree.nodes if node.parent == 0):
        assert stem.after is not None
        past = events[: stem.after - (len(root.slots) - len(root.vectors))]
        trunk = verbalize(form, ledger.member(timeline.member_id).profile, happenings(past, items), tiny_engine.count)
        served = tiny_engine.read(compose(spec, trunk, [attributes_of(items[events[0].item_id])]))
        assert served.nodes[0].slots == root.slots[: stem.after]
        assert served.nodes[0].vectors == root.vectors[: len(past)]
        assert served.nodes[1].slots == stem.slots


def test_evidence_comes_from_other_members_and_never_from_what_is_held_out(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[Interactions] = []

    def listening(materials: Materials) -> tuple[Adviser, ...]:
        learned.append(materials.data)
        return advisers(materials)

    monkeypatch.setattr("surfaces.examples.trees.advisers", listening)
    data = examples(spec, form, ledger, tiny_engine)
    assert len(learned) == FOLDS
    for course in data.courses:
        own = course.timeline.fold
        assert course.timeline.member_id not in learned[own].member_ids
        for fold in set(range(FOLDS)) - {own}:
            place = learned[fold].member_ids.index(course.timeline.member_id)
            assert learned[fold].sequences[place].tolist() == course.items_C[:-2].tolist()


def test_evidence_at_a_position_knows_only_what_came_before(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine
) -> None:
    data = examples(spec, form, ledger, tiny_engine)
    course = data.courses[0]
    later = course.items_C.copy()
    later[5:] = course.items_C[5:][::-1]
    assert later[5] != course.items_C[5]
    other = replace(course, items_C=later)
    assert data._scores(course, 5, 5).tolist() == data._scores(other, 5, 5).tolist()
    assert data._scores(course, 5, 5).tolist() != data._scores(course, 3, 3).tolist()


def test_a_share_of_leaves_carries_words_that_attack_whatever_their_label(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine
) -> None:
    data = examples(spec, form, ledger, tiny_engine, positions=8, attacked=0.3)
    own = {data.styles[0].leaf(item).text for item in data.items}
    rng = np.random.default_rng(0)
    trees = [data.tree(course, rng) for course in data.courses for _ in range(3)]
    attacked: dict[bool, list[bool]] = {True: [], False: []}
    for labelled in trees:
        leaves = [node.pieces[0].text for node in labelled.prompt.nodes if node.answers] if labelled.prompt else []
        chosen = {one.leaves[one.chosen] for one in labelled.lists}
        for place, text in enumerate(leaves):
            attacked[place in chosen].append(text not in own)
            assert any(each.partition(" (")[0] in text for each in own), text
    assert np.mean(attacked[True]) == pytest.approx(0.3, abs=0.05)
    assert np.mean(attacked[False]) == pytest.approx(0.3, abs=0.05)


def test_without_attacks_trees_are_what_they_were(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine
) -> None:
    plain, none = (examples(spec, form, ledger, tiny_engine, **asked) for asked in ({}, {"attacked": 0.0}))
    assert [flat(tree.tree) for tree in mix(plain).batch(1)] == [flat(tree.tree) for tree in mix(none).batch(1)]


def test_some_items_are_judged_as_if_they_were_new(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine
) -> None:
    def told(**changes: object) -> list[str]:
        data = examples(spec, form, ledger, tiny_engine, positions=8, **changes)
        trees = [data.tree(course, np.random.default_rng(3)) for course in data.courses[:8]]
        prompts = [labelled.prompt for labelled in trees if labelled.prompt]
        return [node.pieces[-1].text for prompt in prompts for node in prompt.nodes if node.answers]

    def silent(texts: list[str]) -> list[str]:
        words = ("chosen together none", "similar to chosen none", "fits chosen none", "comes next none")
        return [text for text in texts if all(word in text for word in words)]

    every, some = told(new_items=0.0), told(new_items=0.5)
    new, before = silent(some), silent(every)
    assert 0.4 < (len(new) - len(before)) / (len(every) - len(before)) < 0.6
    assert all("popularity none" not in text and "overall none" not in text for text in new), "as low as one can be"
    assert len({text.split("text match")[1].split(",")[0] for text in new}) > 3, "its text speaks as before"


def test_the_overall_opinion_is_learned_from_what_is_learned(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Case] = []

    def listening(names: Sequence[str], cases: Iterable[Case]) -> Overall:
        seen.extend(cases)
        return learned(names, seen)

    monkeypatch.setattr("surfaces.examples.trees.learned", listening)
    data = examples(spec, form, ledger, tiny_engine)
    assert sorted((len(case.seen_H), case.target) for case in seen) == sorted(
        (course.learned - 1, int(course.items_C[course.learned - 1])) for course in data.courses
    )
    assert data._labels[-1] == "overall"
    silent = spec.model_copy(update={"evidence": ("popular",)})
    assert examples(silent, form, ledger, tiny_engine)._labels == ["popularity"]


def test_a_focus_names_what_the_chosen_item_has(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine
) -> None:
    data = examples(spec, form, ledger, tiny_engine, focus="genres", focus_share=1.0)
    rng = np.random.default_rng(0)
    named = data._stem(data._voice(rng), [int(data.courses[1].items_C[0])], rng)[-1].text
    assert named == "Only Action.\n"  # odd members watch action only


def test_events_may_be_left_out_of_trunks(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine
) -> None:
    data = examples(spec, form, ledger, tiny_engine, event_dropout=0.9)
    sizes = [len(labelled.tree.nodes[0].vectors) for step in range(5) for labelled in mix(data).batch(step)]
    assert sum(sizes) / len(sizes) < 3


def test_a_ledger_without_events_is_refused(
    tmp_path: Path, spec: SurfaceSpec, form: TrunkForm, tiny_engine: TorchEngine
) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'empty.sqlite'}") as empty:
        fill(empty, events=2)
        with pytest.raises(ConfigError, match="no member has more than 2 choices to learn from"):
            examples(spec, form, empty, tiny_engine)


def test_the_model_as_a_method_scores_every_item(
    spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, tiny_engine: TorchEngine
) -> None:
    split, visits = leave_one_out(ledger, spec, members=3), Visits(ledger)
    method = FoundationMethod(spec, form, ledger, tiny_engine, split.train)
    ids = [item.item_id for item in ledger.all_items("movie")]
    for case in split.cases:
        together = method.judge(visits.of(case), ids).scores
        alone = [method.judge(visits.of(case), [item_id]).scores[0] for item_id in ids]
        assert together == pytest.approx(np.array(alone), abs=1e-5)
