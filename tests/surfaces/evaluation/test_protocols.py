"""What is held out, and that nobody learns from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from prompts.errors import ConfigError, LedgerError
from surfaces.evaluation.protocols import Case, Split, candidate_items, global_time, leave_one_out, validation_of
from surfaces.ledger.store import Ledger
from tests.surfaces.evaluation.shelf import ANN, BOB, DAN, DAY, FILMS, event, fill, movies, surface


def learned(split: Split) -> dict[str, str]:
    """Of every member the items that may be learned from."""
    data = split.train
    return {
        name: "".join(data.item_ids[item] for item in sequence)
        for name, sequence in zip(data.member_ids, data.sequences, strict=True)
    }


def test_the_last_event_is_the_target(shelf: Ledger) -> None:
    split = leave_one_out(shelf, movies())
    assert split.cases == (Case.of(ANN[:3], ANN[3]), Case.of(BOB[:1], BOB[1]), Case.of(DAN[:2], DAN[2]))
    assert learned(split) == {"ann": "ab", "bob": "b", "cy": "", "dan": "cb"}
    assert (split.cases[0].wanted, split.cases[0].time, split.cases[0].acts) == (["c"], 4.0, {"c": "watch"})


def test_validation_is_the_one_before(shelf: Ledger) -> None:
    whole = leave_one_out(shelf, movies())
    split = validation_of(whole, shelf, movies())
    assert split.cases == (Case.of(ANN[:2], ANN[2]), Case.of(DAN[:1], DAN[1]))
    assert learned(split) == {"ann": "a", "bob": "", "cy": "", "dan": "c"}


def test_a_longer_history_may_be_asked_for(shelf: Ledger) -> None:
    assert [case.member_id for case in leave_one_out(shelf, movies(), history=2).cases] == ["ann", "dan"]
    with pytest.raises(LedgerError, match="no member has 4 events with items of kind 'movie'"):
        leave_one_out(shelf, movies(), history=3)


@pytest.mark.parametrize(
    ("heads", "target"),
    [
        ("heads: [{name: watch, type: pointwise, weight: 1}]", "c"),
        ("heads: [{name: like, type: pointwise, weight: 1}, {name: watch, type: choice}]", "b"),
        ("heads: [{name: fit, type: likelihood, weight: 1}]", "d"),
        ("heads: [{name: like, type: choice, weight: 1}, {name: hate, type: choice, weight: -1}]", "b"),
    ],
)
def test_the_surface_says_which_action_counts(tmp_path: Path, heads: str, target: str) -> None:
    """Heads with a weight name it; where the ledger has none of theirs, every choice counts."""
    acts = [("a", "like"), ("b", "like"), ("c", "watch"), ("d", "hate")]
    with Ledger.open(f"sqlite:///{tmp_path}/acts.sqlite") as ledger:
        fill(ledger, [event("ann", item, at, act) for at, (item, act) in enumerate(acts, 1)])
        split = leave_one_out(ledger, surface(heads))
    assert split.cases[0].wanted == [target]
    assert learned(split)["ann"] == "abcd"[: "abcd".index(target)], "what comes after the target is not there"


def test_what_a_later_event_says_changes_nothing(tmp_path: Path) -> None:
    """Other targets, for all members: what is learned and all histories are the same."""
    splits = []
    for number, target in enumerate("cj"):
        with Ledger.open(f"sqlite:///{tmp_path}/{number}.sqlite") as ledger:
            fill(ledger, [*ANN, *BOB, *DAN, *(event(name, target, 90.0) for name in ("ann", "bob", "dan"))])
            splits.append(leave_one_out(ledger, movies()))
    one, other = splits
    assert [case.wanted for case in one.cases] != [case.wanted for case in other.cases]
    assert [case.history for case in one.cases] == [case.history for case in other.cases]
    assert learned(one) == learned(other)


def test_members_are_drawn_by_seed(movielens: Ledger) -> None:
    whole = leave_one_out(movielens, movies())
    assert len(whole.cases) == 943
    drawn, again, other = (leave_one_out(movielens, movies(), members=50, seed=seed) for seed in (1, 1, 2))
    assert drawn.cases == again.cases != other.cases
    assert len({case.member_id for case in drawn.cases}) == 50
    assert set(map(id, drawn.cases)) != set(map(id, whole.cases))
    assert sum(map(len, drawn.train.sequences)) == 100_000 - 943, "everyone teaches, whoever is drawn"
    assert drawn.digest == again.digest != other.digest
    assert leave_one_out(movielens, movies(), members=5_000).cases == whole.cases


@pytest.mark.parametrize(
    ("members", "candidates", "history"), [(0, None, 0), (-3, None, 0), (None, 1, 0), (None, None, -1)]
)
def test_numbers_that_make_no_sense(shelf: Ledger, members: int | None, candidates: int | None, history: int) -> None:
    with pytest.raises(ConfigError, match=r"draw 1 or more|needs 2 or more|0 or more"):
        leave_one_out(shelf, movies(), members=members, candidates=candidates, history=history)


# Global time


def by_time(shelf: Path) -> Ledger:
    ledger = Ledger.open(f"sqlite:///{shelf}/time.sqlite")
    old = [event("ann", item, DAY * n) for n, item in enumerate("abcdefgh", 1)]
    new = [event("ann", "i", 100 * DAY), event("ann", "j", 101 * DAY), event("bob", "a", 102 * DAY)]
    cy = [event("cy", item, DAY * n) for n, item in enumerate("hgfedcba", 1)]
    fill(ledger, [*old, *new, *cy])
    return ledger


def test_nothing_after_the_moment_is_learned_from(tmp_path: Path) -> None:
    with by_time(tmp_path) as ledger:
        split = global_time(ledger, movies(), share=0.16)
        assert split.cut == 100 * DAY
        assert learned(split) == {"ann": "abcdefgh", "bob": "", "cy": "hgfedcba"}
        ann, bob = split.cases
        assert (ann.wanted, [e.item_id for e in ann.history]) == (["j"], list("abcdefghi")), "on the day, i was known"
        assert (bob.wanted, bob.history) == (["a"], ())
        assert [case.member_id for case in global_time(ledger, movies(), share=0.16, history=1).cases] == ["ann"]
        assert learned(validation_of(split, ledger, movies())) == {"ann": "abcdefg", "bob": "", "cy": "hgfedcb"}


def test_a_split_by_time_needs_times(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/order.sqlite") as ledger:
        ledger.set_clock("order")
        fill(ledger)
        with pytest.raises(ConfigError, match="global-time: it needs times, but this ledger's clock is 'order'"):
            global_time(ledger, movies())
    with Ledger.open(f"sqlite:///{tmp_path}/same.sqlite") as ledger:
        fill(ledger, [event("ann", item, 5.0) for item in FILMS])
        with pytest.raises(LedgerError, match="too much alike"):
            global_time(ledger, movies())


# Candidates

CASE = Case.of((event("ann", "a", 1.0), event("ann", "b", 2.0, "show"), event("ann", "c", 2.5)), event("ann", "d", 3.0))


def test_seen_items_are_left_out() -> None:
    assert candidate_items(CASE, FILMS, None, 0) == list("bdefghij")


def test_the_target_stays_even_if_it_was_seen() -> None:
    again = Case.of(CASE.history, event("ann", "c", 3.0))
    assert candidate_items(again, FILMS, None, 0) == list("bcdefghij")


@pytest.mark.parametrize("count", [2, 5, 8, 9, 1_000])
def test_drawn_candidates(count: int) -> None:
    found = candidate_items(CASE, FILMS, count, 7)
    assert len(found) == len(set(found)) == min(count, 8)
    assert "d" in found
    assert not {"a", "c"} & set(found)
    assert found == sorted(found) == candidate_items(CASE, FILMS, count, 7)


def test_draws_are_uniform() -> None:
    draws = [item for seed in range(700) for item in candidate_items(CASE, FILMS, 2, seed) if item != "d"]
    assert all(70 <= draws.count(item) <= 130 for item in "befghij")


# The digest


def test_the_digest_knows_every_history(shelf: Ledger) -> None:
    """Also of a member with several cases, of which one goes on where another ended."""
    split = leave_one_out(shelf, movies())
    early, late = replace(split.cases[0], history=tuple(ANN[:1])), replace(split.cases[0], history=tuple(ANN[:3]))
    other = replace(late, history=(ANN[0], ANN[2], ANN[1]))
    digests = {replace(split, cases=cases).digest for cases in ((early, late), (early, other), (late, late))}
    assert len(digests) == 3
    assert replace(split, cases=(early, late)).digest == replace(split, cases=(early, replace(late))).digest


def test_the_digest_tells_splits_apart(shelf: Ledger) -> None:
    split = leave_one_out(shelf, movies())
    others = [
        replace(split, cases=split.cases[:2]),
        replace(split, cases=(replace(split.cases[0], labels={"d": 1.0}), *split.cases[1:])),
        replace(split, candidates=5),
        replace(split, candidates=5, seed=1),
        replace(split, train=split.train.first({"ann": 1})),
        validation_of(split, shelf, movies()),
    ]
    assert len({split.digest, *(other.digest for other in others)}) == 7
    assert leave_one_out(shelf, movies()).digest == split.digest
