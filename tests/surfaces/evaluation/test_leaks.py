"""Planted leaks are caught, and honest evaluations pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from foundation.engine.torch import TorchEngine
from prompts.tree import PromptTree
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.leaks import LeakError, check, refuse
from surfaces.evaluation.lists import Listed, from_lists
from surfaces.evaluation.method import FromSource, Method, Remembered, Visits
from surfaces.evaluation.protocols import Split, global_time, leave_one_out, validation_of
from surfaces.evaluation.run import rank
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.sources.base import Interactions
from surfaces.sources.fit import interactions_of
from surfaces.sources.popular import Popular
from surfaces.visit import Visit
from tests.surfaces.evaluation.shelf import DAN, event, fill, movies


def foundation(split: Split, ledger: Ledger, engine: TorchEngine) -> FoundationMethod:
    registry = Registry.shipped()
    return FoundationMethod(movies(), registry.trunk("member"), ledger, engine, split.train)


def popular(split: Split) -> Method:
    return FromSource("popular", Popular(), split.train)


def test_an_honest_evaluation_passes(shelf: Ledger, tiny_engine: TorchEngine) -> None:
    whole = leave_one_out(shelf, movies())
    for split in (
        whole,
        validation_of(whole, shelf, movies()),
        from_lists(
            shelf, movies(), [Listed("ann", 3.5, {"c": 1.0, "d": 0.0}), Listed("ann", 2.5, {"b": 1.0, "d": 0.0})]
        ),
        global_time(shelf, movies(), share=0.2),
    ):
        places = check(split, [foundation(split, shelf, tiny_engine), popular(split)], shelf)
        refuse(places)
        assert {name: len(place.found) for name, place in places.items()} == {
            "timelines": 0,
            "prompts": 0,
            "indexes": 0,
        }
        assert (places["timelines"].checked, places["prompts"].checked) == (len(split.cases), len(split.cases))
        assert places["indexes"].checked >= 1


def planted(split: Split, number: int, **changes: object) -> Split:
    cases = list(split.cases)
    cases[number] = replace(cases[number], **changes)  # type: ignore[arg-type]
    return replace(split, cases=tuple(cases))


def test_a_future_event_in_a_timeline_is_caught(shelf: Ledger) -> None:
    split = leave_one_out(shelf, movies())
    later = planted(split, 1, history=(*split.cases[1].history, event("bob", "song", 4.0)))
    with pytest.raises(LeakError, match="timelines: member 'bob': the event with 'song' is later than the ranking"):
        refuse(check(later, [popular(split)], shelf))


def test_the_target_in_a_timeline_is_caught(shelf: Ledger) -> None:
    split = leave_one_out(shelf, movies())
    told = planted(split, 2, history=tuple(DAN))
    with pytest.raises(LeakError, match="timelines: member 'dan': the event with 'c' is what is asked for"):
        refuse(check(told, [popular(split)], shelf))


def test_an_earlier_choice_of_the_same_item_is_no_leak(tmp_path: Path, tiny_engine: TorchEngine) -> None:
    """The same film again, even in the same second."""
    with Ledger.open(f"sqlite:///{tmp_path}/again.sqlite") as ledger:
        twins = [event("ann", "a", 1.0), event("ann", "b", 2.0), event("ann", "b", 2.0)._replace(event_id="again")]
        fill(ledger, [*twins, event("bob", "a", 1.0), event("bob", "a", 2.0)])
        split = leave_one_out(ledger, movies())
        refuse(check(split, [foundation(split, ledger, tiny_engine), popular(split)], ledger))


def test_another_action_with_the_item_in_the_same_second_is_no_leak(tmp_path: Path, tiny_engine: TorchEngine) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/second.sqlite") as ledger:
        fill(ledger, [event("ann", "a", 1.0), event("ann", "b", 2.0, "open"), event("ann", "b", 2.0, "like")])
        split = leave_one_out(ledger, movies())
        assert (split.cases[0].acts, len(split.cases[0].history)) == ({"b": "like"}, 2)
        refuse(check(split, [foundation(split, ledger, tiny_engine), popular(split)], ledger))


def test_two_actions_that_read_the_same_are_no_leak(tmp_path: Path, tiny_engine: TorchEngine) -> None:
    """Actions without words of their own are told alike."""
    with Ledger.open(f"sqlite:///{tmp_path}/alike.sqlite") as ledger:
        fill(ledger, [event("ann", "a", 1.0, "w_1"), event("ann", "a", 2.0, "w 1"), event("ann", "a", 3.0, "w_1")])
        split = leave_one_out(ledger, movies())
        method = foundation(split, ledger, tiny_engine)
        lines = [piece.text for piece in method.tree(Visits(ledger).of(split.cases[0]), ["a"]).nodes[0].pieces]
        assert len(lines) - len(set(lines)) == 1
        refuse(check(split, [method, popular(split)], ledger))


@dataclass
class Telling:
    """A method whose prompt is made from a longer timeline than it was given."""

    inner: FoundationMethod
    whole: Callable[[str], Sequence[object]]
    name: str = "telling"

    def __post_init__(self) -> None:
        self.form, self.learned, self.judge = self.inner.form, self.inner.learned, self.inner.judge

    def tree(self, visit: Visit, items: Sequence[str]) -> PromptTree:
        return self.inner.tree(replace(visit, timeline=self.whole(visit.member_id)), items)  # type: ignore[arg-type]


def test_a_target_in_a_prompt_is_caught(shelf: Ledger, tiny_engine: TorchEngine) -> None:
    split = leave_one_out(shelf, movies())
    method = Telling(foundation(split, shelf, tiny_engine), shelf.timeline)
    places = check(split, [method, popular(split)], shelf)
    assert len(places["prompts"].found) == len(split.cases)
    assert not places["timelines"].found, "what the split gives is as it should be"
    with pytest.raises(LeakError, match="prompts: member 'ann': method telling: the trunk tells of 'c'"):
        refuse(places)
    hidden = check(split, [Remembered(method)], shelf)
    assert len(hidden["prompts"].found) == len(split.cases), "a method that remembers is looked into"


def test_a_test_item_in_an_index_is_caught(shelf: Ledger) -> None:
    split = leave_one_out(shelf, movies())
    whole = FromSource("popular", Popular(), interactions_of(movies(), shelf))
    places = check(split, [whole], shelf)
    assert len(places["indexes"].found) == len(split.cases)
    with pytest.raises(LeakError, match=r"indexes: member 'ann': .*learned from"):
        refuse(places)


def test_one_event_too_many_in_an_index_is_caught(shelf: Ledger) -> None:
    """Of one member alone, and not later than the ranking: it is the target itself."""
    split = leave_one_out(shelf, movies())
    data = interactions_of(movies(), shelf).first({"ann": 2, "bob": 1, "dan": 3})
    places = check(split, [FromSource("popular", Popular(), data)], shelf)
    assert places["indexes"].found == ["member 'dan': what is asked for was learned from"]


@pytest.mark.parametrize("turned", [False, True])
def test_the_first_of_a_members_lists_says_what_may_be_learned(shelf: Ledger, *, turned: bool) -> None:
    lists = [Listed("dan", 2.5, {"c": 1.0, "a": 0.0}), Listed("dan", 2.0, {"b": 1.0, "a": 0.0})]
    split = from_lists(shelf, movies(), lists[::-1] if turned else lists)
    data = interactions_of(movies(), shelf).first({"dan": 2})
    places = check(split, [FromSource("popular", Popular(), data)], shelf)
    assert places["indexes"].found == ["member 'dan': what is asked for was learned from"]


def test_an_event_after_the_moment_is_caught(shelf: Ledger) -> None:
    split = global_time(shelf, movies(), share=0.2)
    assert split.cut is not None
    data: Interactions = interactions_of(movies(), shelf)
    assert max(float(times[-1]) for times in data.times if len(times)) >= split.cut
    with pytest.raises(LeakError, match="and the cut is at"):
        refuse(check(split, [FromSource("popular", Popular(), data)], shelf))


def test_many_leaks_are_counted(shelf: Ledger) -> None:
    split = leave_one_out(shelf, movies())
    late = replace(split, cases=tuple(replace(case, time=0.0) for case in split.cases))
    with pytest.raises(LeakError, match=r"and \d+ more"):
        refuse(check(late, [popular(split)], shelf))


def test_rankings_of_a_leaking_source_would_look_good(shelf: Ledger) -> None:
    """Why it matters: the same source, fitted to everything, foretells what it has seen."""
    split = leave_one_out(shelf, movies())
    honest, leaking = popular(split), FromSource("leaking", Popular(), interactions_of(movies(), shelf))
    found = rank(split, [honest, leaking], shelf)
    assert np.mean(found["leaking"].values("auc")) >= np.mean(found["popular"].values("auc"))
