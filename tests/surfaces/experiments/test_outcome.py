"""From a ledger's exposures and events to an estimate."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from prompts.errors import LedgerError
from surfaces.experiments.assign import assign
from surfaces.experiments.interleave import team_draft
from surfaces.experiments.outcome import outcome
from surfaces.experiments.sequential import SequentialTest
from surfaces.ledger.exposures import Exposure, Placement
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger

ITEMS = [f"i{number}" for number in range(8)]
REWARDS = {"like": 1.0, "share": 2.0}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite") as opened:
        opened.put_items([Item(name, "post", {}) for name in ITEMS])
        opened.put_members([Member(f"m{number}", {}) for number in range(60)])
        yield opened


def exposure(
    number: int, member: int, slate: Sequence[Placement], *, arm: str | None = None, at: float = 0.0, bad: bool = False
) -> Exposure:
    kind = "ab" if arm else "interleave"
    return Exposure(f"e{number}", f"m{member}", "feed", "test", kind, arm, bad, at, list(slate))


def act(member: int, item_id: str, at: float, action: str = "like", surface: str = "feed") -> Event:
    return Event(f"m{member}", item_id, surface, action, at)


def test_an_action_counts_for_the_last_slate_that_showed_the_item(ledger: Ledger) -> None:
    one = [Placement("i0", 0, "a"), Placement("i1", 1, "b")]
    two = [Placement("i1", 0, "a"), Placement("i2", 1, "b")]
    ledger.add_exposures([exposure(1, 1, one), exposure(2, 1, two, at=100.0), exposure(3, 2, one, at=50.0)])
    ledger.add_events([
        act(1, "i1", 99.0),
        act(1, "i1", 100.0, "share"),
        act(1, "i2", 300.0),  # too late
        act(1, "i0", 60.0, "hide"),
        act(1, "i0", 60.0, surface="jobs"),
        act(2, "i0", 49.0),  # before it was shown
        act(2, "i1", 60.0), act(2, "i1", 61.0, "share"),
        act(3, "i0", 60.0),  # nothing was shown to them
    ])  # fmt: skip
    found = outcome(ledger, "test", REWARDS, within=150.0)
    assert found.arms == ("a", "b")
    assert found.member_S.tolist() == ["m1", "m2", "m1"]
    assert found.rewards_SA.tolist() == [[0, 1], [0, 3], [2, 0]]
    assert found.shown_SA.tolist() == [[1, 1], [1, 1], [1, 1]]
    won = found.won("a", "b")
    assert (won.wins, won.losses, won.ties, won.rate.n) == (1, 2, 0, 2)
    assert found.won("b", "a").rate.value == pytest.approx(1 - won.rate.value)
    assert found.gaps("a", "b").tolist() == [1.0, -3.0]
    later = found._replace(member_S=np.array(["m2", "m1", "m2"]))
    assert later.gaps("b", "a").tolist() == [-1.0, 3.0]


def test_degraded_slates(ledger: Ledger) -> None:
    plain = [Placement("i0", 0)]
    ledger.add_exposures([
        exposure(1, 1, plain, arm="a", bad=True), exposure(2, 2, plain, arm="b"), exposure(3, 3, plain, bad=True),
    ])  # fmt: skip
    assert outcome(ledger, "test", REWARDS).member_S.tolist() == ["m1", "m2"]


def test_the_lift_of_an_ab_test_is_per_slate(ledger: Ledger) -> None:
    plain = [Placement("i0", 0), Placement("i1", 1)]
    shown = [(1, "a"), (1, "a"), (2, "a"), (3, "b"), (4, "b")]
    ledger.add_exposures(exposure(n, member, plain, arm=arm, at=10.0 * n) for n, (member, arm) in enumerate(shown))
    ledger.add_events([act(1, "i0", 1.0), act(2, "i1", 21.0), act(3, "i0", 31.0, "share"), act(4, "i1", 41.0)])
    found = outcome(ledger, "test", REWARDS)
    assert found.lift("a", "b").value == pytest.approx(3 / 2 - 2 / 3)
    assert found.lift("a", "b").n == 4
    with pytest.raises(LedgerError, match="arm 'c' was never shown; a, b was"):
        found.lift("a", "c")


def test_an_experiment_that_nobody_saw(ledger: Ledger) -> None:
    found = outcome(ledger, "test", REWARDS)
    assert found.member_S.shape == (0,)
    with pytest.raises(LedgerError, match="nothing was"):
        found.won("a", "b")


@pytest.mark.parametrize("kind", ["ab", "interleave"])
def test_the_better_arm_is_found(ledger: Ledger, kind: str) -> None:
    """The whole way: assigned or drafted, shown, acted on, read back. Members like the items i0 to i3."""
    rng, now = np.random.default_rng(4), 0.0
    rankings = {"good": ITEMS, "bad": ITEMS[::-1]}
    for number in range(300):
        member, now = number % 60, now + 1e6
        arm = assign("test", f"m{member}", {"good": 1, "bad": 1}) if kind == "ab" else None
        if arm:
            slate = [Placement(item_id, place) for place, item_id in enumerate(rankings[arm][:4])]
        else:
            slate = [Placement(*pick) for pick in _placed(team_draft(rankings, 4, rng))]
        ledger.add_exposures([exposure(number, member, slate, arm=arm, at=now)])
        liked = [one.item_id for one in slate if one.item_id < "i4" and rng.random() < 0.3]
        ledger.add_events([act(member, item_id, now + 5) for item_id in liked])
    found = outcome(ledger, "test", REWARDS)
    if kind == "ab":
        assert found.lift("bad", "good").low < 4 * 0.3 < found.lift("bad", "good").high
    else:
        assert found.won("good", "bad").rate.low > 0.6
        assert found.won("good", "bad").sign_p < 1e-6
        assert SequentialTest(60).update(found.gaps("good", "bad")).stop


def test_the_page_on_experiments_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python, over a ledger with the two experiments that it tells of; its links, too."""
    page = Path(__file__).parents[3] / "docs" / "experiments.md"
    text = page.read_text(encoding="utf-8")
    arms, rng = ("foundation", "classical"), np.random.default_rng(0)
    with Ledger.open(f"sqlite:///{tmp_path}/network.sqlite") as ledger:
        for number in range(120):
            arm, at = arms[number % 2], 10.0 * number
            slate = [Placement("i0", 0), Placement("i1", 1)]
            teams = [place._replace(team=arms[rng.permutation(2)[place.position]]) for place in slate]
            drafted = exposure(number, number, teams, at=at)._replace(experiment="model_or_sources")
            ledger.add_exposures([drafted, exposure(1000 + number, number, slate, arm=arm, at=at)])
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block.replace("model_or_sources_ab", "test"), {})
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link


def _placed(slate: Sequence[tuple[str, str]]) -> Iterator[tuple[str, int, str]]:
    return ((item_id, place, team) for place, (item_id, team) in enumerate(slate))


def test_slates_of_two_kinds_say_no_one_thing(ledger: Ledger) -> None:
    """As when a file changes an experiment's kind and keeps its name."""
    teams = [Placement("i0", 0, "a"), Placement("i1", 1, "b")]
    ledger.add_exposures([exposure(1, 1, teams), exposure(2, 2, [Placement("i0", 0)], arm="a")])
    with pytest.raises(LedgerError, match="experiment 'test' has slates of two kinds, ab and interleave"):
        outcome(ledger, "test", REWARDS)


def test_an_experiment_is_read_as_what_it_is(ledger: Ledger) -> None:
    teams = [Placement("i0", 0, "a"), Placement("i1", 1, "b")]
    ledger.add_exposures([exposure(number, number, teams) for number in range(4)])
    with pytest.raises(LedgerError, match="is of the kind 'interleave'; this reads one of the kind 'ab'"):
        outcome(ledger, "test", REWARDS).lift("a", "b")
