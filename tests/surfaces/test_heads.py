"""Answers of the model become probabilities of heads and one utility."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from surfaces.heads.reading import HeadReading, read_heads
from surfaces.registry import Registry
from surfaces.spec import SurfaceSpec

MOVIES = Registry.shipped().surface("movies")
"""Answers: like, dislike, none, yes, no. `watch` is pointwise and ranks."""


def with_heads(*heads: dict[str, object]) -> SurfaceSpec:
    return SurfaceSpec.model_validate({**MOVIES.model_dump(mode="json"), "heads": list(heads)})


def logp(*rows: list[float]) -> npt.NDArray[np.float64]:
    shares = np.asarray(rows, dtype=np.float64)
    table: npt.NDArray[np.float64] = np.log(shares / shares.sum(axis=1, keepdims=True))
    return table


def test_heads_by_hand() -> None:
    reading = read_heads(MOVIES, logp([3, 1, 4, 6, 2], [1, 1, 2, 1, 9]))
    np.testing.assert_allclose(reading.values["like"], [3 / 8, 1 / 4])
    np.testing.assert_allclose(reading.values["dislike"], [1 / 8, 1 / 4])
    np.testing.assert_allclose(reading.values["watch"], [6 / 8, 1 / 10])
    np.testing.assert_allclose(reading.utility, [0.75, 0.1])
    assert list(reading.values) == ["watch", "like", "dislike"]


def test_utility_is_the_weighted_sum() -> None:
    spec = with_heads(
        {"name": "apply", "type": "choice", "weight": 1.0},
        {"name": "dismiss", "type": "choice", "weight": -0.5},
        {"name": "open", "type": "pointwise", "weight": 0.25},
    )
    assert spec.answers == ("apply", "dismiss", "none", "yes", "no")
    reading = read_heads(spec, logp([2, 1, 1, 3, 1]))
    np.testing.assert_allclose(reading.utility, [0.5 - 0.5 * 0.25 + 0.25 * 0.75])


def test_a_surface_of_choices_alone() -> None:
    spec = with_heads({"name": "apply", "type": "choice", "weight": 2.0})
    reading = read_heads(spec, logp([1, 3]))
    np.testing.assert_allclose(reading.utility, [0.5])
    assert list(reading.values) == ["apply"]


def test_a_likelihood_head_beside_others_and_alone() -> None:
    likely = {"name": "fits", "type": "likelihood", "weight": 0.5}
    both = with_heads({"name": "apply", "type": "pointwise", "weight": 1.0}, likely)
    assert both.answers == ("yes", "no")
    assert both.likelihood
    reading = read_heads(both, logp([1, 3], [1, 1]), [2.0, -1.0])
    np.testing.assert_allclose(reading.values["fits"], [2.0, -1.0])
    np.testing.assert_allclose(reading.utility, [0.25 + 1.0, 0.5 - 0.5])
    alone = with_heads(likely)
    assert alone.answers == ()
    np.testing.assert_allclose(read_heads(alone, np.zeros((2, 0)), [2.0, -1.0]).utility, [1.0, -0.5])


@pytest.mark.parametrize("likelihood", [(), [1.0], [[1.0, 2.0]]])
def test_likelihoods_of_another_number_are_refused(likelihood: list[float]) -> None:
    spec = with_heads({"name": "fits", "type": "likelihood", "weight": 0.5})
    with pytest.raises(ValueError, match=r"likelihoods.*\[2\] is expected"):
        read_heads(spec, np.zeros((2, 0)), likelihood)


def test_a_surface_of_one_pointwise_head() -> None:
    spec = with_heads({"name": "apply", "type": "pointwise", "weight": 1.0})
    np.testing.assert_allclose(read_heads(spec, logp([1, 3], [1, 1])).utility, [0.25, 0.5])


@pytest.mark.parametrize("shape", [(3, 4), (3, 6), (5,), (0,), (2, 5, 1)])
def test_columns_must_be_the_answers(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[leaves, 5\] is expected"):
        read_heads(MOVIES, np.zeros(shape))


def test_no_leaves() -> None:
    reading = read_heads(MOVIES, np.zeros((0, 5)))
    assert reading.utility.shape == (0,)
    assert all(values.shape == (0,) for values in reading.values.values())


ROWS = st.lists(st.lists(st.floats(-60, 60), min_size=5, max_size=5), min_size=1, max_size=6)


@given(ROWS)
def test_probabilities_are_probabilities(rows: list[list[float]]) -> None:
    reading = read_heads(MOVIES, np.asarray(rows))
    for values in reading.values.values():
        assert values.shape == (len(rows),)
        assert np.all((values >= 0) & (values <= 1))
    assert np.all(reading.values["like"] + reading.values["dislike"] <= 1 + 1e-12)


@given(ROWS, st.floats(-30, 30), st.floats(-30, 30))
def test_a_head_sees_only_differences_among_its_own_answers(rows: list[list[float]], one: float, two: float) -> None:
    table = np.asarray(rows)
    shifted = table + np.asarray([one, one, one, two, two])
    before, after = read_heads(MOVIES, table), read_heads(MOVIES, shifted)
    for name, values in before.values.items():
        np.testing.assert_allclose(after.values[name], values, atol=1e-9)


@given(ROWS, st.permutations(range(6)))
def test_a_leaf_is_read_alone(rows: list[list[float]], order: list[int]) -> None:
    chosen = [place for place in order if place < len(rows)]
    whole = read_heads(MOVIES, np.asarray(rows))
    part = read_heads(MOVIES, np.asarray(rows)[chosen])
    np.testing.assert_array_equal(part.utility, whole.utility[chosen])


def test_single_precision_is_read_in_double() -> None:
    reading = read_heads(MOVIES, logp([3, 1, 4, 6, 2]).astype(np.float32))
    assert reading.utility.dtype == np.float64
    np.testing.assert_allclose(reading.utility, [0.75], atol=1e-6)


def read(*heads: dict[str, object], answers: npt.ArrayLike, **more: Any) -> HeadReading:
    return read_heads(with_heads(*heads), answers, **more)


STARS = {"name": "stars", "type": "value", "weight": 2.0, "answers": {"bad": 1, "fair": 3, "good": 5}}


def test_a_value_head_is_the_expected_number() -> None:
    spec = with_heads(STARS)
    assert spec.answers == ("bad", "fair", "good")
    reading = read_heads(spec, logp([1, 1, 2], [1, 0.5, 0.5], [1, 1, 1]))
    np.testing.assert_allclose(reading.values["stars"], [14 / 4, (1 + 1.5 + 2.5) / 2, 3.0])
    np.testing.assert_allclose(reading.utility, 2 * reading.values["stars"])


def test_a_value_head_sees_only_its_own_answers() -> None:
    both = with_heads(STARS, {"name": "like", "type": "choice"}, {"name": "open", "type": "pointwise"})
    assert both.answers == ("like", "none", "bad", "fair", "good", "yes", "no")
    rows = [[0.1, 0.2, 1, 1, 2, 0.3, 0.1], [5, 0.2, 1, 1, 2, 9, 0.1]]
    np.testing.assert_allclose(read_heads(both, np.log(rows)).values["stars"], [3.5, 3.5])


@pytest.mark.parametrize("word", ["none", "yes", "no"])
def test_a_value_head_takes_no_other_heads_answer(word: str) -> None:
    with pytest.raises(ValidationError, match=f"'{word}' is an answer of its own; take another word"):
        with_heads({**STARS, "answers": {"bad": 1, word: 2}})


def test_a_head_may_not_be_called_as_an_answer_of_another() -> None:
    with pytest.raises(ValidationError, match="is an answer of its own; give the head another name"):
        with_heads(STARS, {"name": "good", "type": "choice"})


def test_an_embedding_head_passes_the_cosine_on() -> None:
    near = {"name": "near", "type": "embedding", "weight": 0.5}
    reading = read(near, answers=np.zeros((3, 0)), similarity_L=[0.8, -1.0, np.nan])
    np.testing.assert_array_equal(reading.values["near"], [0.8, -1.0, 0.0])
    np.testing.assert_array_equal(reading.utility, [0.4, -0.5, 0.0])
    np.testing.assert_array_equal(read(near, answers=np.zeros((2, 0))).values["near"], [0.0, 0.0])


def test_calibration_of_a_probability_is_a_line_through_its_log_odds() -> None:
    """Platt: p' = 1 / (1 + exp(-(slope x logit(p) + intercept)))."""
    head = {"name": "apply", "type": "pointwise", "weight": 1.0, "calibration": {"slope": 2.0, "intercept": -1.0}}
    reading = read(head, answers=logp([1, 1], [3, 1], [1, 9]))
    odds = 2 * np.log([1.0, 3.0, 1 / 9]) - 1
    np.testing.assert_allclose(reading.values["apply"], 1 / (1 + np.exp(-odds)), rtol=1e-12)
    np.testing.assert_allclose(reading.utility, reading.values["apply"])


def test_calibration_of_a_number_is_a_line_through_it() -> None:
    line = {"slope": 0.5, "intercept": 1.0}
    stars = read({**STARS, "calibration": line}, answers=logp([1, 1, 2]))
    np.testing.assert_allclose(stars.values["stars"], [0.5 * 3.5 + 1])
    likely = {"name": "fits", "type": "likelihood", "weight": 1.0, "calibration": line}
    np.testing.assert_allclose(read(likely, answers=np.zeros((1, 0)), likelihood_L=[-4.0]).values["fits"], [-1.0])


def test_calibration_by_default_changes_nothing_and_certainty_stays_finite() -> None:
    plain = {"name": "apply", "type": "pointwise", "weight": 1.0}
    table = np.array([[0.0, -800.0], [-800.0, 0.0], [-0.3, -1.3]])
    untouched, level = read(plain, answers=table), read({**plain, "calibration": {}}, answers=table)
    np.testing.assert_allclose(level.values["apply"], untouched.values["apply"], atol=1e-11)
    steep = read({**plain, "calibration": {"slope": 1_000, "intercept": 1_000}}, answers=table)
    assert np.isfinite(steep.values["apply"]).all()


def test_times_multiplies_by_the_candidates_own_number() -> None:
    click = {"name": "click", "type": "pointwise", "weight": 2.0, "times": "bid"}
    table = np.log([[0.25, 0.75]] * 3)
    reading = read(click, answers=table, attributes=[{"bid": 4}, {"bid": 0.5}, {"bid": -1.0}])
    np.testing.assert_allclose(reading.utility, [2.0, 0.25, -0.5])
    np.testing.assert_allclose(reading.values["click"], [0.25] * 3)


@pytest.mark.parametrize(
    "attributes",
    [{}, {"bid": None}, {"bid": "4"}, {"bid": True}, {"bid": [4]}, {"bid": float("nan")}, {"bid": float("inf")},
     {"bid": 10**400}, {"bids": 4}],
)  # fmt: skip
def test_what_has_no_number_is_worth_nothing(attributes: dict[str, object]) -> None:
    click = {"name": "click", "type": "pointwise", "weight": 2.0, "times": "bid"}
    other = {"name": "like", "type": "choice", "weight": 1.0}
    reading = read(click, other, answers=np.log([[0.5, 0.5, 0.25, 0.75]]), attributes=[attributes])
    np.testing.assert_allclose(reading.utility, [0.5], err_msg="the other head counts as ever")
    np.testing.assert_allclose(read(click, answers=np.log([[0.25, 0.75]])).utility, [0.0])
