"""Answers of the model become probabilities of heads and one utility."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surfaces.heads.reading import read_heads
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
