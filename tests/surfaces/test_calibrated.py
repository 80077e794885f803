"""Calibrations: what the maps do, what a file of them may say, and when they are used."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation import model as models
from foundation.engine.torch import TorchEngine
from prompts.errors import CheckpointError
from surfaces.calibrated import (
    FILE,
    KNOTS,
    SIZE_CAP,
    CalibratedSurface,
    Calibrations,
    HeadFigures,
    Line,
    Map,
    Shares,
    Steps,
)
from surfaces.heads.reading import read_heads
from surfaces.registry import Registry
from surfaces.spec import SurfaceSpec

MOVIES = Registry.shipped().surface("movies")
"""Answers: like, dislike, none, yes, no. `watch` is pointwise and ranks."""
VERSION, MODEL = "0123456789ab", "ba9876543210"
STEPS = Steps(log_odds=(-30.0, -1.0, 0.0, 2.0, 30.0), probabilities=(0.001, 0.01, 0.2, 0.6, 0.61))
HALF = Line(slope=0.5, intercept=-1.0)

Floats = npt.NDArray[np.float64]


def figures(found: Map | None = None) -> HeadFigures:
    return HeadFigures(map=found, rate=0.1, ece_before=0.2, ece_after=0.01)


def fitted(choices: Shares | None = None, **maps: Map | None) -> CalibratedSurface:
    heads = {name: figures(found) for name, found in maps.items()}
    return CalibratedSurface(
        version=VERSION, fitted_on="rankings", members=9, rankings=10, answers=100, choices=choices, heads=heads
    )


def with_heads(*heads: dict[str, object]) -> SurfaceSpec:
    return SurfaceSpec.model_validate({**MOVIES.model_dump(mode="json"), "heads": list(heads)})


def logp(*rows: list[float]) -> Floats:
    table: Floats = np.log(np.asarray(rows) / np.asarray(rows).sum(axis=1, keepdims=True))
    return table


# Maps


def test_a_line_by_hand() -> None:
    odds = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(HALF(1 / (1 + np.exp(-odds))), 1 / (1 + np.exp(1 - odds / 2)))
    assert Line()(np.array([0.3, 0.9])) == pytest.approx([0.3, 0.9])
    assert np.isfinite(Line(slope=1_000.0, intercept=-1_000.0)(np.array([0.0, 1.0]))).all()


def test_steps_by_hand() -> None:
    p = 1 / (1 + np.exp(-np.array([-1.0, -0.5, 1.0, 2.0])))
    np.testing.assert_allclose(STEPS(p), [0.01, 0.105, 0.4, 0.6])
    assert 0.001 < STEPS(np.array([0.0]))[0] < 0.01
    assert 0.6 < STEPS(np.array([1.0]))[0] <= 0.61


@pytest.mark.parametrize("mapped", [HALF, STEPS, Line(slope=0.01)], ids=lambda mapped: mapped.form)
@given(p=st.lists(st.integers(1, 999_999), min_size=2, max_size=20, unique=True))
def test_maps_keep_the_order(mapped: Map, p: list[int]) -> None:
    """Probabilities that differ by a millionth stay apart."""
    said = np.array(p) / 1e6
    assert np.argsort(mapped(said)).tolist() == np.argsort(said).tolist()
    assert len(np.unique(mapped(said))) == len(p)
    assert ((mapped(said) > 0) & (mapped(said) < 1)).all()


# Reading heads


def test_a_pointwise_head_and_the_utility_are_calibrated() -> None:
    table = logp([3, 1, 4, 6, 2], [1, 1, 2, 1, 9])
    raw, found = read_heads(MOVIES, table), read_heads(MOVIES, table, calibration=fitted(watch=HALF))
    np.testing.assert_allclose(found.values["watch"], HALF(raw.values["watch"]))
    np.testing.assert_allclose(found.utility, HALF(raw.values["watch"]))
    for name in ("like", "dislike"):
        np.testing.assert_array_equal(found.values[name], raw.values[name])


def test_choices_stay_shares_of_one() -> None:
    shares = Shares(slope=0.5, bias={"like": -2.0, "dislike": 1.0})
    found = read_heads(MOVIES, logp([4, 1, 9, 6, 2]), calibration=fitted(shares, like=None, dislike=None)).values
    weights = np.array([2 * np.exp(-2), 1 * np.exp(1), 3])
    assert found["like"] == pytest.approx([weights[0] / weights.sum()])
    assert found["dislike"] == pytest.approx([weights[1] / weights.sum()])
    assert found["watch"] == pytest.approx([0.75])


def test_the_line_of_the_surface_file_has_precedence() -> None:
    own = {"name": "watch", "type": "pointwise", "weight": 1.0, "calibration": {"slope": 1.0, "intercept": 3.0}}
    table = logp([3, 1])
    raw, found = (read_heads(with_heads(own), table, calibration=each) for each in (None, fitted(watch=HALF)))
    np.testing.assert_array_equal(found.values["watch"], raw.values["watch"])


@pytest.mark.parametrize("mapped", [HALF, STEPS, None], ids=["line", "steps", "shares"])
def test_a_surface_with_one_head_keeps_its_order(mapped: Map | None) -> None:
    kind = "pointwise" if mapped else "choice"
    spec = with_heads({"name": "watch", "type": kind, "weight": 1.0})
    found = fitted(None if mapped else Shares(slope=0.3, bias={"watch": -4.0}), watch=mapped)
    p = np.random.default_rng(0).beta(0.3, 5, 500)
    table = np.log(np.column_stack([p, 1 - p]))
    raw, calibrated = (read_heads(spec, table, calibration=each).utility for each in (None, found))
    assert np.argsort(calibrated).tolist() == np.argsort(raw).tolist()
    assert not np.allclose(raw, calibrated)


def test_no_candidates_at_all() -> None:
    assert read_heads(MOVIES, np.zeros((0, 5)), calibration=fitted(watch=HALF)).values["watch"].shape == (0,)


# Files

WHOLE = Calibrations(model=MODEL).plus(
    "movies", fitted(Shares(slope=0.5, bias={"like": -2.0, "dislike": 1.0}), watch=STEPS, like=None, dislike=None)
)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = WHOLE.save(tmp_path / "deep" / "model")
    assert Calibrations.load(path.parent, MODEL) == WHOLE
    first = path.read_bytes()
    other = WHOLE.plus("feed", fitted(engage=HALF))
    assert other.save(path.parent).read_bytes() != first
    assert Calibrations.load(path.parent, MODEL).surfaces.keys() == {"feed", "movies"}
    assert WHOLE.save(path.parent).read_bytes() == first, "the same content, the same bytes"
    assert [each.name for each in path.parent.iterdir()] == [FILE]


def test_without_a_file_nothing_is_calibrated(tmp_path: Path) -> None:
    found = Calibrations.load(tmp_path)
    assert not found.surfaces
    assert found.of(MOVIES, VERSION) is None


def test_it_belongs_to_the_weights_in_the_folder(
    tiny_engine: TorchEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_engine.ranker.save(tmp_path / "tiny", tiny_engine.encoder)
    version = models.version(tmp_path / "tiny")
    WHOLE.model_copy(update={"model": version}).save(tmp_path / "tiny")
    assert Calibrations.load(tmp_path / "tiny").surfaces == WHOLE.surfaces
    WHOLE.save(tmp_path / "tiny")
    assert "other weights" not in caplog.text
    found = Calibrations.load(tmp_path / "tiny")
    assert (found.model, found.surfaces) == (version, {})
    assert "was fitted to other weights" in caplog.text


def test_a_changed_surface_is_uncalibrated_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert WHOLE.of(MOVIES, VERSION) is WHOLE.surfaces["movies"]
        assert not caplog.records
        assert WHOLE.of(MOVIES, "cccccccccccc") is None
    (record,) = caplog.records
    assert "'movies' is uncalibrated" in record.getMessage()
    assert f"from version {VERSION} to cccccccccccc" in record.getMessage()


@pytest.mark.parametrize(
    "found",
    [
        fitted(other=HALF),
        fitted(Shares(bias={"like": 1.0})),
        fitted(Shares(bias={"like": 1.0, "none": 1.0})),
        fitted(like=HALF),
    ],
    ids=["unknown", "too few choices", "none among the choices", "a choice's own map"],
)
def test_heads_that_the_surface_does_not_have(found: CalibratedSurface) -> None:
    with pytest.raises(CheckpointError, match=r"calibration.json: surfaces.movies: not the heads of that surface"):
        Calibrations(model=MODEL).plus("movies", found).of(MOVIES, VERSION)


def test_a_head_that_is_no_probability() -> None:
    spec = with_heads({"name": "fits", "type": "likelihood", "weight": 1.0})
    with pytest.raises(CheckpointError, match="not the heads"):
        Calibrations(model=MODEL).plus("movies", fitted(fits=HALF)).of(spec, VERSION)


def at(found: dict[str, Any], path: str, value: object) -> None:
    *folders, last = path.split(".")
    for name in folders:
        found = found[name]
    found[last] = value


KNOTS_AT = "surfaces.movies.heads.watch.map"


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("surfaces.movies.choices.slope", float("nan"), "surfaces.movies.choices.slope: .*finite number"),
        ("surfaces.movies.choices.slope", float("-inf"), "surfaces.movies.choices.slope: .*finite number"),
        ("surfaces.movies.choices.slope", 10**400, "surfaces.movies.choices.slope: .*finite number"),
        ("surfaces.movies.choices.slope", 0.0, "surfaces.movies.choices.slope: .*greater than 0"),
        ("surfaces.movies.choices.slope", "1", "surfaces.movies.choices.slope: .*valid number"),
        ("surfaces.movies.choices.bias.like", 1e9, "surfaces.movies.choices.bias.like: .*1000"),
        ("surfaces.movies.choices.bias", {}, "surfaces.movies.choices.bias: .*at least 1"),
        ("surfaces.movies.heads.watch.rate", 1.5, "surfaces.movies.heads.watch.rate: "),
        ("surfaces.movies.heads.watch.more", 1, "surfaces.movies.heads.watch.more: Extra inputs"),
        ("surfaces.movies.rankings", -1, "surfaces.movies.rankings: "),
        ("surfaces.movies.version", "1", "surfaces.movies.version: "),
        ("surfaces.movies", [], "surfaces.movies: "),
        ("date", "today", "date: Extra inputs"),
        ("model", None, "model: "),
        (f"{KNOTS_AT}.form", "spline", "watch.map: .*'line', 'steps'"),
        (f"{KNOTS_AT}.log_odds", [-30, -1, -1, 2, 30], "log_odds.2: -1 comes after -1; every number must be above"),
        (f"{KNOTS_AT}.probabilities", [0, 0.5, 0.4, 0.6, 1], "probabilities.2: 0.4 comes after 0.5"),
        (f"{KNOTS_AT}.probabilities", [0, 0.5, float("nan"), 0.6, 1], "probabilities.2: .*finite number"),
        (f"{KNOTS_AT}.probabilities", [-0.1, 0.3, 0.4, 0.6, 1], "map.steps.probabilities: must be from 0 to 1"),
        (f"{KNOTS_AT}.probabilities", [0, 0.3, 0.4, 0.6, 1.1], "map.steps.probabilities: must be from 0 to 1"),
        (f"{KNOTS_AT}.probabilities", [0, 1], "5 log-odds and 2 probabilities"),
        (f"{KNOTS_AT}.log_odds", list(range(KNOTS + 1)), "log_odds: .*at most 512"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, path: str, value: object, told: str) -> None:
    found = json.loads(WHOLE.save(tmp_path).read_text())
    at(found, path, value)
    (tmp_path / FILE).write_text(json.dumps(found))
    with pytest.raises(CheckpointError, match=rf"^{tmp_path / FILE}: .*{told}.*; delete the file and fit it anew$"):
        Calibrations.load(tmp_path, MODEL)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "Invalid JSON"),
        (b"{", "Invalid JSON"),
        (b"\xff\xfe{}", "Invalid JSON"),
        (b"[" * 100_000, "recursion limit"),
        (b"[]", "object"),
        (b" " * (SIZE_CAP + 1), "more than 4,194,304 bytes"),
    ],
    ids=["empty", "cut", "no text", "deep", "a list", "large"],
)
def test_a_file_that_is_none(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=told):
        Calibrations.load(tmp_path, MODEL)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")], ids=["folder", "dangling link"])
def test_what_is_no_plain_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / FILE)
    with pytest.raises(CheckpointError, match="no plain file"):
        Calibrations.load(tmp_path, MODEL)
