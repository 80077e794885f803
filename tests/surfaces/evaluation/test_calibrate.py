"""Fitting probabilities that hold: known errors are mended, order is kept, and nothing of the test is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.engine.torch import TorchEngine
from foundation.heads import choice
from prompts.errors import ConfigError, LedgerError
from surfaces.calibrated import KNOTS, CalibratedSurface, Calibrations, Line, Shares, Steps, log_odds
from surfaces.evaluation.answered import Answered, ask, retrieved, shown, slates, unsettled
from surfaces.evaluation.calibrate import (
    FOLDS,
    Apply,
    best,
    calibrate,
    crossed,
    fitted,
    folds,
    line,
    log_loss,
    softmax,
    steps,
)
from surfaces.evaluation.calibration import ece
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.lists import from_impressions
from surfaces.evaluation.protocols import global_time, leave_one_out
from surfaces.evaluation.run import rank
from surfaces.heads.base import Answers
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.sources.fit import interactions_of
from tests.surfaces.evaluation.shelf import event, movies, surface

Floats = npt.NDArray[np.float64]
MEMBERS, EACH = 600, 60
POINTWISE = surface("heads: [{name: watch, type: pointwise, weight: 1.0}]")
CHOICES = surface("heads: [{name: like, type: choice, weight: 1.0}, {name: skip, type: choice, weight: -1.0}]")


def sigmoid(odds: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-odds))
    return found


def drawn(seed: int, mean: float = -3.0) -> tuple[Floats, Floats]:
    """Log-odds and outcomes of every member's answers."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(mean, 1.5, MEMBERS * EACH)
    return odds, (rng.random(len(odds)) < sigmoid(odds)).astype(np.float64)


def answered(said: Mapping[str, Floats], came: Mapping[str, Floats]) -> Answered:
    members = np.repeat([f"m{n}" for n in range(MEMBERS)], EACH)
    return Answered(members, said, came)


def half(found: Answered, *, second: bool) -> Answered:
    """Every other member."""
    kept = (np.arange(len(found.members_N)) // EACH) % 2 == second
    parts = ({name: array[kept] for name, array in each.items()} for each in (found.said, found.came))
    return Answered(found.members_N[kept], *parts)


def reading(found: Shares | None, said: Mapping[str, Floats]) -> dict[str, Floats]:
    """Shares of a softmax as the map has them."""
    assert found is not None
    names = (*said, "none")
    p = np.column_stack([*said.values(), 1 - sum(said.values())])
    empty = np.zeros(0)
    told = found(Answers(dict(zip(names, np.log(p).T, strict=True)), names, empty, empty)).logp
    return dict(zip(names, choice(np.stack([told[name] for name in names], axis=1)).T, strict=True))


# Known errors


def overconfident(odds: Floats) -> Floats:
    return sigmoid(3 * odds + 2)


def bent(odds: Floats) -> Floats:
    """No line through the log-odds makes this right."""
    return sigmoid(np.where(odds < -3, odds * 4 + 10, odds / 4))


def right(odds: Floats) -> Floats:
    return sigmoid(odds)


@pytest.mark.parametrize(("wrongly", "form"), [(overconfident, Line), (bent, Steps)])
@pytest.mark.parametrize("mean", [-3.0, 0.5])
def test_a_known_error_is_mended_for_members_that_nothing_was_fitted_to(
    wrongly: Callable[[Floats], Floats], form: type[Line | Steps], mean: float
) -> None:
    odds, came = drawn(1, mean)
    every = answered({"watch": wrongly(odds)}, {"watch": came})
    train, test = half(every, second=False), half(every, second=True)
    shares, figures = fitted(POINTWISE, POINTWISE.heads, train)
    found = figures["watch"]
    assert shares is None
    assert isinstance(found.map, form)
    before, after = test.said["watch"], found.map(test.said["watch"])
    assert ece(before, test.came["watch"]) > 0.04
    assert ece(after, test.came["watch"]) <= 0.02
    assert found.ece_before > 0.04
    assert found.ece_after <= 0.02
    assert found.rate == train.came["watch"].mean()


def test_the_true_line_is_found() -> None:
    odds, came = drawn(2)
    found = line(overconfident(odds), came)
    assert (found.slope, found.intercept) == pytest.approx((1 / 3, -2 / 3), abs=0.03)


def test_what_is_right_is_hardly_changed() -> None:
    odds, came = drawn(3)
    _, figures = fitted(POINTWISE, POINTWISE.heads, answered({"watch": right(odds)}, {"watch": came}))
    found = figures["watch"]
    assert found.map is None or isinstance(found.map, Line)
    if found.map:
        assert np.abs(found.map(right(odds)) - right(odds)).max() < 0.02


def choices(seed: int) -> tuple[Floats, Floats]:
    """[N, 3] true logits of like, skip and none, and what came, one of the three."""
    rng = np.random.default_rng(seed)
    logits = rng.normal([-2.0, -1.0, 1.0], 1.0, (MEMBERS * EACH, 3))
    edges = choice(logits).cumsum(axis=1)
    return logits, np.eye(3)[(rng.random((len(logits), 1)) > edges[:, :2]).sum(axis=1)]


def test_shares_of_a_softmax_are_mended_together() -> None:
    logits, came = choices(4)
    said = choice(2.5 * logits + np.array([1.0, -2.0, 0.0]))
    names = ("like", "skip")
    every = answered(dict(zip(names, said.T, strict=False)), dict(zip(names, came.T, strict=False)))
    train, test = half(every, second=False), half(every, second=True)
    shares, figures = fitted(CHOICES, CHOICES.heads, train)
    told = reading(shares, test.said)
    np.testing.assert_allclose(sum(told.values()), 1.0)
    for name in names:
        assert figures[name].map is None
        assert ece(test.said[name], test.came[name]) > 0.03
        assert ece(told[name], test.came[name]) <= 0.02
        assert figures[name].ece_after <= 0.02
    assert shares is not None
    assert shares.slope == pytest.approx(0.4, abs=0.02)
    assert [shares.bias[name] for name in names] == pytest.approx([-0.4, 0.8], abs=0.08)


def test_the_softmax_of_the_lowest_loss() -> None:
    """No step away from it is better."""
    logits, came = choices(5)
    logits, came = logits[:3000], came[:3000]
    slope, bias_C = softmax(2 * logits, came)
    least = log_loss(choice(slope * 2 * logits + bias_C), came)
    assert bias_C[-1] == 0.0
    for away in np.vstack([np.eye(4), -np.eye(4)]) * 0.01:
        moved = choice((slope + away[0]) * 2 * logits + bias_C + away[1:])
        assert log_loss(moved, came) >= least or not away[:3].any()


def test_what_hardly_ever_came_stays_as_it_is() -> None:
    odds, came = drawn(6)
    rare = np.zeros_like(came)
    rare[:9] = 1.0
    spec = surface("heads: [{name: watch, type: pointwise, weight: 1.0}, {name: skip, type: choice}]")
    said = {"watch": right(odds), "skip": right(odds)}
    shares, figures = fitted(spec, spec.heads, answered(said, {"watch": came, "skip": rare}))
    assert shares is None
    assert (figures["skip"].map, figures["skip"].rate) == (None, rare.mean())
    assert figures["skip"].ece_before == figures["skip"].ece_after


@pytest.mark.parametrize("members", [1, 2])
def test_too_little_to_fit_on(members: int) -> None:
    names, p = np.repeat([f"m{n}" for n in range(members)], 30), np.full(30 * members, 0.5)
    came = np.zeros_like(p)
    came[: 20 if members == 1 else 5] = 1
    with pytest.raises(LedgerError, match=rf"of {30 * members} answers, said of {members} members"):
        fitted(POINTWISE, POINTWISE.heads, Answered(names, {"watch": p}, {"watch": came}))


# Forms


@given(seed=st.integers(0, 10_000), size=st.integers(2, 400), levels=st.sampled_from([2, 10, 10**9]))
def test_steps_always_rise(seed: int, size: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.round(rng.beta(0.3, 3.0, size) * levels) / levels
    found = steps(p, (rng.random(size) < p**0.5).astype(np.float64))
    fine = np.linspace(-27.6, 27.6, 500)
    assert (np.diff(found(sigmoid(fine))[:250]) > 0).all()
    assert 2 <= len(found.log_odds) <= KNOTS
    assert Steps.model_validate_json(found.model_dump_json()) == found
    told = found(p)
    assert ((told > 0) & (told < 1)).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(told[order])[np.diff(log_odds(p)[order]) > 1e-9] > 0).all()


def test_many_steps_are_thinned() -> None:
    p = np.repeat(np.linspace(0.001, 0.999, 1_000), 200)
    found = steps(p, p)
    assert KNOTS / 2 < len(found.log_odds) <= KNOTS
    assert found(p) == pytest.approx(p, abs=0.02)


def test_steps_stay_off_0_and_1() -> None:
    p = np.repeat([0.2, 0.8], 100)
    found = steps(p, (p > 0.5).astype(np.float64))(np.array([0.2, 0.8]))
    assert found == pytest.approx([2.5 / 105, 102.5 / 105])


@pytest.mark.parametrize("came", [np.zeros(50), np.ones(50)])
def test_a_fit_is_finite_where_all_is_alike_or_apart(came: Floats) -> None:
    p = np.linspace(0.1, 0.9, 50)
    assert np.isfinite(line(p, came)(p)).all()
    assert np.isfinite(line(p, (p > 0.5).astype(np.float64))(p)).all()
    assert np.isfinite(steps(p, came)(p)).all()


def test_all_answers_of_a_member_are_in_one_fold() -> None:
    members = np.array([f"m{n % 40}" for n in range(200)])
    found = folds(members)
    assert len({(member, fold) for member, fold in zip(members, found.tolist(), strict=True)}) == 40
    assert set(found.tolist()) == set(range(FOLDS))
    assert (folds(members[::-1])[::-1] == found).all(), "it depends on the member alone"


def test_no_member_is_judged_by_what_was_fitted_to_them() -> None:
    """What is fitted here is the mean of what was seen: of each answer, that of all other folds."""
    members = np.repeat([f"m{n}" for n in range(30)], 4)
    folds_N, told = folds(members), np.arange(120.0)

    def fit(inside_N: npt.NDArray[np.bool_]) -> Apply:
        assert not set(members[inside_N]) & set(members[~inside_N])
        return lambda outside: np.full(len(outside), told[inside_N].mean())

    found = crossed(told, fit, folds_N)
    assert found == pytest.approx([told[folds_N != fold].mean() for fold in folds_N])


def test_the_form_with_the_lowest_loss_is_taken() -> None:
    came = np.array([0.0, 0.0, 1.0, 1.0])
    said = {"line": came * 0.6 + 0.2, "steps": came * 0.8 + 0.1}
    assert best(said, np.full(4, 0.5), came).form == "steps"
    assert best(said, came * 0.98 + 0.01, came).form == "", "nothing at all is better than either"


# What it is fitted on


def test_slates_are_told_with_what_came_of_them_and_without(shelf: Ledger) -> None:
    """Every slate before the moment counts; an act belongs to the latest one that has the item."""
    timeline = [
        event("ann", "a", 1.0), event("ann", "b", 2.0, "show"), event("ann", "a", 2.0, "show"),
        event("ann", "b", 3.0, "like"), event("ann", "b", 3.5, "dislike"), event("ann", "c", 4.0, "show"),
        event("ann", "a", 4.5, "like"), event("ann", "song", 5.0, "show"), event("ann", "d", 6.0, "show"),
        event("ann", "d", 7.0, "like"), event("ann", "e", 8.0, "show"), event("ann", "e", 5.0, "show", "elsewhere"),
    ]  # fmt: skip
    told = sorted(timeline, key=lambda each: each.timestamp)
    cases = list(slates(told, movies(), interactions_of(movies(), shelf), cut=7.0))
    assert [(case.time, case.listed, dict(case.acts)) for case in cases] == [
        (2.0, ("a", "b"), {"b": "like"}),
        (4.0, ("c",), {}),
        (6.0, ("d",), {}),
    ]
    assert [len(case.history) for case in cases] == [1, 5, 9]
    assert all(each.timestamp < case.time for case in cases for each in case.history)


@pytest.mark.parametrize("name", ["jobs", "feed"])
def test_slates_lie_before_every_test_and_sources_learn_from_what_is_before_them(network: Ledger, name: str) -> None:
    spec = Registry.shipped().surface(name)
    split = shown(network, spec)
    assert split is not None
    tests = [from_impressions(network, spec).cut, global_time(network, spec).cut]
    assert split.cut is not None
    assert all(split.cut <= case.time < min(cut for cut in tests if cut is not None) for case in split.cases)
    assert all(times[-1] < split.cut for times in split.train.times if len(times))
    quiet = sum(not case.acts for case in split.cases)
    assert quiet > len(split.cases) / 10, "slates that nothing came of are there, too"
    few = shown(network, spec, members=5)
    assert few is not None
    assert len({case.member_id for case in few.cases}) == 5
    with pytest.raises(ConfigError, match="members: 0"):
        shown(network, spec, members=0)


def test_without_impressions_there_are_no_slates(shelf: Ledger) -> None:
    assert shown(shelf, movies()) is None


def test_elsewhere_it_is_what_the_sources_bring_before_the_last_choice_but_one(
    films: Ledger, tiny_engine: TorchEngine
) -> None:
    split, test = retrieved(films, movies(), tiny_engine), leave_one_out(films, movies())
    targets = {case.member_id: case for case in test.cases}
    assert len(split.cases) == len(targets)
    for case in split.cases:
        assert case.listed is not None
        assert len(set(case.listed)) == len(case.listed) > 10
        assert not {each.item_id for each in case.history} & set(case.listed), "the filter of what was seen holds"
        assert case.time < targets[case.member_id].time
        assert len(case.history) == len(targets[case.member_id].history) - 1
    brought = Counter(case.wanted[0] in (case.listed or ()) for case in split.cases)
    assert brought[True] > 0
    assert retrieved(films, movies(), tiny_engine).cases == split.cases


def test_sources_that_bring_nothing(shelf: Ledger, tiny_engine: TorchEngine) -> None:
    spec = movies().model_copy(update={"sources": ()})
    with pytest.raises(LedgerError, match="bring nothing that its heads could be asked about"):
        retrieved(shelf, spec, tiny_engine)


def test_a_head_is_asked_what_came_true_of_it(films: Ledger, tiny_engine: TorchEngine) -> None:
    split = retrieved(films, movies(), tiny_engine)
    method = FoundationMethod(movies(), Registry.shipped().trunk("member"), films, tiny_engine, split.train)
    done: list[tuple[int, int]] = []
    found = ask(method, split, unsettled(movies()), films, lambda *counts: done.append(counts))
    assert done[-1] == (len(split.cases), len(split.cases))
    assert len(found.members_N) == sum(len(case.listed or ()) for case in split.cases)
    assert set(found.said) == set(found.came) == {"watch", "like", "dislike"}
    brought = [case.acts[case.wanted[0]] for case in split.cases if case.wanted[0] in (case.listed or ())]
    assert found.came["watch"].sum() == len(brought)
    assert found.came["like"].sum() == brought.count("like")


@pytest.mark.parametrize(
    ("heads", "names"),
    [
        ("{name: a, type: pointwise, weight: 1.0}, {name: b, type: choice}", ["a", "b"]),
        ("{name: a, type: pointwise, weight: 1.0, calibration: {slope: 2.0}}, {name: b, type: choice}", ["b"]),
        ("{name: a, type: choice, weight: 1.0, calibration: {slope: 2.0}}, {name: b, type: choice}", []),
        ("{name: a, type: likelihood, weight: 1.0}", []),
    ],
)
def test_what_the_file_calibrates_itself_is_settled(heads: str, names: Sequence[str]) -> None:
    assert [head.name for head in unsettled(surface(f"heads: [{heads}]"))] == names


# The whole of it


def whole(ledger: Ledger, engine: TorchEngine, name: str) -> CalibratedSurface:
    engine.forget()
    return calibrate(Registry.shipped().declared(name), ledger, engine)


def test_a_surface_of_a_network_holds_afterwards(network: Ledger, tiny_engine: TorchEngine) -> None:
    found = whole(network, tiny_engine, "feed")
    assert found == whole(network, tiny_engine, "feed")
    assert found.fitted_on == "impressions"
    assert found.version == Registry.shipped().declared("feed").version
    assert found.rankings > found.members > 10
    assert set(found.heads) == {"engage", "like", "comment", "share", "hide"}
    assert found.choices is not None
    for head in found.heads.values():
        assert head.ece_after < head.ece_before / 2


def test_an_evaluation_applies_it(films: Ledger, tiny_engine: TorchEngine, tmp_path: Path) -> None:
    """The same order of one head, other probabilities: those of the file; the method without evidence has none."""
    declared = Registry.shipped().declared("movies")
    Calibrations(model="0" * 12).plus("movies", whole(films, tiny_engine, "movies")).save(tmp_path)
    found = Calibrations.load(tmp_path, "0" * 12).of(declared.spec, declared.version)
    assert found is not None
    assert found.fitted_on == "rankings"
    split = leave_one_out(films, declared.spec, members=8)
    common = (declared.spec, declared.form, films, tiny_engine, split.train)
    raw, told = FoundationMethod(*common), FoundationMethod(*common, calibration=found)
    actions = {head.name: frozenset(head.actions) for head in declared.spec.heads}
    before = rank(split, [raw], films, actions=actions)["foundation"]
    after = rank(split, [told], films, actions=actions)["foundation"]
    mapped = found.heads["watch"].map
    assert mapped is not None
    np.testing.assert_allclose(
        after.answered("watch")[0], mapped(before.answered("watch")[0].astype(np.float64)), rtol=1e-4
    )
    np.testing.assert_array_equal(after.tops_MK, before.tops_MK)
    p, y = after.answered("watch")
    assert ece(p.astype(np.float64), y.astype(np.float64)) < 0.05
    bare, also = (FoundationMethod(*common, evidence=False, calibration=each) for each in (None, found))
    bare_is = rank(split, [bare], films, actions=actions)["zero_shot"].answered("watch")[0]
    np.testing.assert_array_equal(
        rank(split, [also], films, actions=actions)["zero_shot"].answered("watch")[0], bare_is
    )


def test_a_surface_without_a_probability(films: Ledger, tiny_engine: TorchEngine) -> None:
    spec = surface("heads: [{name: fits, type: likelihood, weight: 1.0}]")
    declared = Registry.shipped().declared("movies")._replace(spec=spec)
    with pytest.raises(LedgerError, match="'films' has no head with a probability"):
        calibrate(declared, films, tiny_engine)
