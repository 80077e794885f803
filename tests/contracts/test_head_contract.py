"""What every head keeps to, whatever the model answers. A package that brings a kind can run `check_head` on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from surfaces.heads.base import NONE, Answers, Calibration, HeadKind
from surfaces.kinds import kinds

EXAMPLES: dict[str, list[dict[str, object]]] = {
    "choice": [{}, {"weight": -0.5, "times": "bid", "actions": ["look", "click"]}],
    "pointwise": [{}, {"weight": 1.0, "calibration": {"slope": 0.5, "intercept": -1.0}}],
    "likelihood": [{}, {"calibration": {"slope": 2.0}}],
    "value": [{"answers": {"one": 1, "two": 2.5}}, {"answers": {"a": -1e9, "b": 0, "c": 1e9}}],
    "embedding": [{}, {"weight": 1.0, "calibration": {"intercept": 3.0}}],
}
"""Settings of every kind that is shipped."""

OTHER_CHOICES = ("other", "another")
LINES = st.builds(Calibration, slope=st.floats(0.01, 1_000), intercept=st.floats(-1_000, 1_000))


@st.composite
def answered(draw: st.DrawFn, kind: HeadKind) -> Answers:
    """Answers of up to five leaves, as wide apart as a model may have them."""
    leaves, logp = draw(st.integers(0, 5)), st.floats(-700, 0) | st.sampled_from([0.0, -1e4, -1e-300])

    def numbers(one: st.SearchStrategy[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array(draw(st.lists(one, min_size=leaves, max_size=leaves)), dtype=np.float64)

    choices = (kind.name, *OTHER_CHOICES, NONE)
    words = dict.fromkeys([*choices, *kind.words])
    table = {word: numbers(logp) for word in words}
    return Answers(table, choices, numbers(st.floats(-50, 50)), numbers(st.floats(-1, 1) | st.just(float("nan"))))


def some(answers: Answers, places: list[int]) -> Answers:
    """The answers of those leaves, in that order."""
    table = {word: values_L[places] for word, values_L in answers.logp.items()}
    return Answers(table, answers.choices, answers.likelihood[places], answers.similarity[places])


def check_head(kind: HeadKind) -> None:
    """Everything that a head must do."""
    check_settings(kind)
    check_values(kind)
    check_calibration(kind)


def check_settings(kind: HeadKind) -> None:
    """The settings are the same when they are written and read again, and the schema says what each is for."""
    assert type(kind).model_validate(kind.model_dump()) == kind
    assert type(kind).model_validate(kind.model_dump(mode="json")) == kind
    assert type(kind).model_validate_json(kind.model_dump_json()) == kind
    fields = type(kind).model_json_schema()["properties"]
    assert [name for name, field in fields.items() if name != "type" and not field.get("description")] == []
    assert type(kind).__doc__
    with pytest.raises(ValidationError, match="no_such_key"):
        type(kind).model_validate({**kind.model_dump(), "no_such_key": 1})


def check_values(kind: HeadKind) -> None:
    """One finite number a leaf, which depends on that leaf alone; the answers are only read."""

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        answers = data.draw(answered(kind))
        leaves = len(answers.likelihood)
        before = {word: values_L.copy() for word, values_L in answers.logp.items()}
        values_L = kind.value(answers)
        assert values_L.shape == (leaves,)
        assert values_L.dtype == np.float64
        assert np.isfinite(values_L).all()
        if kind.probability:
            assert ((values_L >= 0) & (values_L <= 1)).all()
        order = data.draw(st.permutations(range(leaves)))
        np.testing.assert_array_equal(kind.value(some(answers, order)), values_L[order])
        for place in range(leaves):
            np.testing.assert_allclose(kind.value(some(answers, [place])), values_L[[place]], rtol=1e-12)
        for word, told_L in before.items():
            np.testing.assert_array_equal(answers.logp[word], told_L)

    check()


def check_calibration(kind: HeadKind) -> None:
    """A calibrated head orders leaves as the plain one does."""

    @settings(deadline=None, max_examples=60)
    @given(st.data(), LINES)
    def check(data: st.DataObject, line: Calibration) -> None:
        answers = data.draw(answered(kind))
        raw_L = kind.model_copy(update={"calibration": None}).value(answers)
        told_L = kind.model_copy(update={"calibration": line}).value(answers)
        assert np.isfinite(told_L).all()
        assert (np.diff(told_L[np.argsort(raw_L)]) >= -1e-12 * np.abs(told_L).max(initial=1.0)).all()

    check()


def check_shares(name: str) -> None:
    """The choice heads of a surface and `none` share one softmax: together they are certain."""
    words = (name, *OTHER_CHOICES, NONE)
    heads = [make({"type": "choice", "name": word}) for word in words[:-1]]

    @settings(deadline=None, max_examples=60)
    @given(answered(heads[0]))
    def check(answers: Answers) -> None:
        none_L = np.exp(answers.logp[NONE] - np.logaddexp.reduce([answers.logp[word] for word in words], axis=0))
        total_L = np.sum([head.value(answers) for head in heads], axis=0) + none_L
        np.testing.assert_allclose(total_L, np.ones(len(none_L)), atol=1e-9)

    check()


def make(entry: Mapping[str, object]) -> HeadKind:
    """The head that an entry of a surface file gives."""
    kind = cast("type[HeadKind]", kinds("heads")[str(entry["type"])])
    return kind.model_validate({"name": "look", **entry})


ENTRIES = [{"type": kind, **example} for kind, examples in EXAMPLES.items() for example in examples]


def test_every_kind_is_here() -> None:
    assert set(EXAMPLES) == set(kinds("heads")), "give each kind of head an example, so that it is checked"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: " ".join(map(str, entry.values()))[:40])
def test_head(entry: Mapping[str, object]) -> None:
    check_head(make(entry))


def test_choices_and_none_are_certain_together() -> None:
    check_shares("look")
