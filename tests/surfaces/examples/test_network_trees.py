"""Labelled trees over a ledger with impressions and several surfaces, and several surfaces as one run's data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foundation.engine.torch import TorchEngine
from foundation.training.labels import LabelledTree
from surfaces.examples.mix import Mix
from surfaces.examples.settings import ExampleSettings
from surfaces.examples.timelines import Course
from surfaces.examples.trees import Examples, Shelf
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry

MEMBERS = 12


def show(member: str, second: float, *posts: str) -> list[Event]:
    return [Event(member, post, "feed", "show", second, position=place) for place, post in enumerate(posts)]


def act(member: str, item: str, surface: str, action: str, second: float) -> Event:
    return Event(member, item, surface, action, second)


def one(member: str, turn: int) -> list[Event]:
    """Four slates of posts, and a job after each of the first three."""
    posts = [f"p{(turn + n) % 12}" for n in range(12)]
    return [
        *show(member, 100.0, *posts[:4]),
        act(member, posts[1], "feed", "like", 101.0),
        act(member, posts[2], "feed", "hide", 102.0),
        act(member, "j0", "jobs", "apply", 150.0),
        *show(member, 200.0, *posts[4:8]),
        act(member, "j1", "jobs", "save", 250.0),
        *show(member, 300.0, *posts[8:10]),
        act(member, posts[8], "feed", "comment", 301.0),
        act(member, "j2", "jobs", "apply", 350.0),
        *show(member, 400.0, *posts[10:12]),
        act(member, posts[10], "feed", "share", 401.0),
        act(member, posts[11], "feed", "like", 402.0),
    ]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    posts = [Item(f"p{n}", "post", {"text": f"Post number {n}", "author": f"Author {n}"}) for n in range(20)]
    jobs = [Item(f"j{n}", "job", {"title": f"Job {n}", "company": "Firm"}) for n in range(6)]
    ledger.write(
        items=[*posts, *jobs],
        members=[Member(f"m{n}", {"occupation": "writer"}) for n in range(MEMBERS)],
        events=[event for n in range(MEMBERS) for event in one(f"m{n}", n)],
    )
    return ledger


def made(ledger: Ledger, engine: TorchEngine, *names: str, **changes: object) -> list[Examples]:
    registry = Registry.shipped()
    settings = ExampleSettings.model_validate({"positions": 8, "likely": 4, "others": 4, "holdout": 1} | changes)
    shelf = Shelf.of(ledger, registry.trunk("member"), engine, settings, pairs=True)
    return [Examples(registry.surface(name), shelf) for name in names]


def course_of(examples: Examples, member_id: str) -> Course:
    return next(each for each in examples.courses if each.timeline.member_id == member_id)


def tree(examples: Examples, member_id: str = "m0", seed: int = 0) -> LabelledTree:
    return examples.tree(course_of(examples, member_id), np.random.default_rng(seed))


def test_what_came_of_a_slate_is_known(ledger: Ledger, tiny_engine: TorchEngine) -> None:
    (feed,) = made(ledger, tiny_engine, "feed")
    course = course_of(feed, "m0")
    told = [(slate.time, [feed.items[n].item_id for n in slate.items], slate.actions) for slate in course.slates]
    assert told == [
        (100.0, ["p0", "p1", "p2", "p3"], (None, "like", "hide", None)),
        (200.0, ["p4", "p5", "p6", "p7"], (None, None, None, None)),
        (300.0, ["p8", "p9"], ("comment", None)),
    ], "of the last slate something is held out"
    assert [slate.place for slate in course.slates] == [0, 3, 4]


def test_a_hidden_post_is_no_choice_but_is_told(ledger: Ledger, tiny_engine: TorchEngine) -> None:
    (feed,) = made(ledger, tiny_engine, "feed")
    course = course_of(feed, "m0")
    assert [feed.items[n].item_id for n in course.items_C] == ["p1", "p8", "p10", "p11"]
    assert course.history(3).tolist() == [feed.index["p1"]]
    assert course.held == [7], "the last choice"


def test_leaves_of_a_slate_carry_what_was_done(ledger: Ledger, tiny_engine: TorchEngine) -> None:
    """All that was shown is graded, and only that; a softmax stands over it and what was not shown."""
    (feed,) = made(ledger, tiny_engine, "feed", slates=1.0, positions=1)
    spec = feed.spec
    words = [*(head.name for head in spec.choices), "none"]
    for seed in range(5):
        labelled = tree(feed, seed=seed)
        done = [words[one.chosen] for one in labelled.choices]
        came = [came for one in labelled.graded for came in one.came]
        assert len(done) == len(came)
        assert {(word, yes) for word, yes in zip(done, came, strict=True)} <= {
            ("like", 1.0), ("comment", 1.0), ("share", 1.0), ("hide", 0.0), ("none", 0.0),
        }  # fmt: skip
        for one in labelled.lists:
            assert one.stands_for[0] == 1.0
            assert len(one.leaves) > 2, "others that were not shown stand beside"


def test_an_item_stands_for_those_that_were_not_drawn(ledger: Ledger, tiny_engine: TorchEngine) -> None:
    (feed,) = made(ledger, tiny_engine, "feed", slates=1.0, others=8)
    chosen = len(course_of(feed, "m0").items_C[:-1])
    for one in tree(feed).lists:
        unseen = len(feed.items) - chosen
        assert sum(one.stands_for) <= unseen + 1 + 4
        assert sum(one.stands_for) >= unseen - 4


def test_a_trunk_tells_of_all_surfaces_and_never_of_what_is_held_out(ledger: Ledger, tiny_engine: TorchEngine) -> None:
    feed, jobs = made(ledger, tiny_engine, "feed", "jobs")
    encode = tiny_engine.encoder.encode
    plain = feed.styles[0]
    held = {encode(plain.event(feed.shelf.items[name], action, 0, 1).text)
            for name, action in (("p11", "like"), ("j2", "apply"))}  # fmt: skip
    told = set()
    for examples in (feed, jobs):
        for seed in range(10):
            trunk = set(tree(examples, seed=seed).tree.nodes[0].vectors)
            assert not trunk & held
            told |= trunk
    for name, action in (("p1", "like"), ("p2", "hide"), ("j0", "apply"), ("j1", "save"), ("p8", "comment")):
        assert encode(plain.event(feed.shelf.items[name], action, 0, 1).text) in told


def test_leaves_see_what_came_before_them_on_every_surface(ledger: Ledger, tiny_engine: TorchEngine) -> None:
    (jobs,) = made(ledger, tiny_engine, "jobs")
    labelled = tree(jobs, seed=3)
    root = labelled.tree.nodes[0]
    before = len(root.slots) - len(root.vectors)
    places = [node.after - before for node in labelled.tree.nodes if node.parent == 0 and node.after is not None]
    assert set(places) <= {2, 3}, "j0 comes after two posts, j1 after j0"


def test_sources_that_are_not_heard_say_nothing(ledger: Ledger, tiny_engine: TorchEngine) -> None:
    def spoken(**changes: object) -> set[int]:
        (feed,) = made(ledger, tiny_engine, "feed", **changes)
        found = set()
        for seed in range(12):
            labelled = tree(feed, seed=seed)
            found |= {len(node.vectors) for node in labelled.tree.nodes if node.answers}
        return found

    assert spoken() == {2}
    assert spoken(without_evidence=1.0) == {1}
    assert spoken(without_evidence=0.5) == {1, 2}


def test_heard_sources_are_named_alone(ledger: Ledger, tiny_engine: TorchEngine) -> None:
    (feed,) = made(ledger, tiny_engine, "feed", evidence_dropout=0.5)
    heard = {feed._voice(np.random.default_rng(seed)).heard for seed in range(2000)}
    assert len(heard) == 2 ** len(feed.spec.evidence), "any subset"
    assert feed._phrase((1,), (0,)).text == " (chosen together top 1)"


def test_styles_say_the_same_otherwise(ledger: Ledger, tiny_engine: TorchEngine) -> None:
    other = {"instructions": {"feed": ["Which post?"]}, "words": {"like": ["enjoyed"]}}
    feed, again = (
        each for _ in range(2) for each in made(ledger, tiny_engine, "feed", styles=12, field_dropout=0.5, **other)
    )
    assert [style.unsaid for style in again.styles] == [style.unsaid for style in feed.styles]
    plain, others = feed.styles[0], feed.styles[1:]
    post = feed.items[feed.index["p3"]]
    assert plain.leaf(post).text == "Post number 3, by Author 3"
    assert {style.leaf(post).text for style in others} == {"Post number 3, by Author 3", "Post number 3"}
    asked = {style.stem()[0].text for style in others}
    assert asked == {f"{feed.spec.prompt.instruction}\n", f"{feed.spec.description}.\n", "Which post?\n"}
    assert {style.event(post, "like", 0, 1).text.split()[0] for style in others} == {"liked", "enjoyed"}


def test_trunks_may_be_short(ledger: Ledger, tiny_engine: TorchEngine) -> None:
    (feed,) = made(ledger, tiny_engine, "feed", short_trunks=1.0)
    budgets = {feed._voice(np.random.default_rng(seed)).budget for seed in range(50)}
    assert min(budgets) >= 8
    assert max(budgets) <= 128
    assert len(budgets) > 20


def test_pairs_are_what_the_embedding_source_will_see(ledger: Ledger, tiny_engine: TorchEngine) -> None:
    (jobs,) = made(ledger, tiny_engine, "jobs")
    pairs = [pair for seed in range(5) for pair in tree(jobs, seed=seed).pairs]
    encode, leaf = tiny_engine.encoder.encode, jobs.styles[0].leaf
    texts = {name: encode(leaf(jobs.items[jobs.index[name]]).text) for name in ("j0", "j1")}
    assert {pair.history for pair in pairs} == {(texts["j0"],)}
    assert {pair.target for pair in pairs} == {texts["j1"]}
    assert {pair.weights for pair in pairs} == {(1.0,)}
    assert pairs[0].log_share == pytest.approx(np.log((MEMBERS + 1) / (2 * MEMBERS + 6)))


def test_a_mix_draws_by_share_and_the_same_for_the_same_step(ledger: Ledger, tiny_engine: TorchEngine) -> None:
    parts = made(ledger, tiny_engine, "feed", "jobs")
    mix = Mix(parts, trees_per_step=40, seed=1)
    sizes = [part.size for part in parts]
    assert mix.shares.tolist() == pytest.approx([size / sum(sizes) for size in sizes])
    stems = [labelled.tree.nodes[1].slots for labelled in mix.batch(0)]
    assert stems == [labelled.tree.nodes[1].slots for labelled in mix.batch(0)]
    share = stems.count(parts[0].drawn(np.random.default_rng(0)).tree.nodes[1].slots) / len(stems)
    assert share == pytest.approx(mix.shares[0], abs=0.2)
    level = Mix(parts, trees_per_step=4, seed=1, temperature=1e6)
    assert level.shares.tolist() == pytest.approx([0.5, 0.5], abs=1e-4)
    alone = Mix(parts, trees_per_step=4, seed=1, weights={"jobs": 0.0})
    assert alone.shares.tolist() == [1.0, 0.0]
