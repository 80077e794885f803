"""Who gets which arm."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prompts.errors import ConfigError
from surfaces.experiments.assign import assign, bucket

MEMBERS = [f"m{number}" for number in range(20_000)]


def test_a_bucket_is_the_same_everywhere() -> None:
    """Golden numbers: a machine that gave others would show members another arm."""
    assert bucket("feed-model", "m1") == 0.10216204965597364
    assert bucket("feed-model", "m1", "again") == 0.846138571309654


def test_buckets_are_spread_evenly() -> None:
    drawn = np.array([bucket("one", member) for member in MEMBERS])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    chi2 = float(((counts - len(MEMBERS) / 20) ** 2).sum() / (len(MEMBERS) / 20))
    assert chi2 < 43.8  # the 99.9% quantile with 19 degrees of freedom


@pytest.mark.parametrize("other", [("two", ""), ("one", "salt")])
def test_experiments_and_salts_are_independent(other: tuple[str, str]) -> None:
    name, salt = other
    one = np.array([bucket("one", member) for member in MEMBERS])
    two = np.array([bucket(name, member, salt) for member in MEMBERS])
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / math.sqrt(len(MEMBERS))


def test_names_that_read_alike_are_different() -> None:
    triples = [
        ("ab", "c", ""),
        ("a", "bc", ""),
        ("a", "b", "c"),
        ("", "abc", ""),
        ('a", "b', "c", ""),
        ("a|b", "c", ""),
    ]
    assert len({bucket(*triple) for triple in triples}) == len(triples)
    assert 0 <= bucket("é\ud800", "名前") < 1


def test_arms_get_their_shares() -> None:
    arms = {"new": 1.0, "control": 3.0, "bold": 1.0}
    given = [assign("one", member, arms) for member in MEMBERS]
    for name, share in (("new", 0.2), ("control", 0.6), ("bold", 0.2)):
        assert given.count(name) / len(given) == pytest.approx(share, abs=0.012)
    assert given == [assign("one", member, dict(reversed(arms.items()))) for member in MEMBERS]


def test_a_larger_share_moves_only_whom_it_must() -> None:
    small, large = {"control": 0.9, "new": 0.1}, {"control": 0.5, "new": 0.5}
    before = [assign("one", member, small) for member in MEMBERS]
    after = [assign("one", member, large) for member in MEMBERS]
    moves = {pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]}
    assert moves == {("control", "new")}


def test_one_arm_gets_all() -> None:
    assert {assign("one", member, {"only": 0.1}) for member in MEMBERS[:1000]} == {"only"}


@pytest.mark.parametrize("share", [0.0, -1.0, math.nan, math.inf])
def test_a_share_must_be_a_number_above_0(share: float) -> None:
    with pytest.raises(ConfigError, match="arm 'b': share"):
        assign("one", "m1", {"a": 1.0, "b": share})


def test_without_arms() -> None:
    with pytest.raises(ConfigError, match="no arms"):
        assign("one", "m1", {})
