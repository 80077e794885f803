"""SLIST's transitions: the closed form, the order of choices, and a catalogue that is too large."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from prompts.errors import ConfigError
from surfaces.sources import matrix, slist
from surfaces.sources.base import NOTHING
from surfaces.sources.slist import Slist
from tests.contracts.test_source_contract import drawn, interactions


def fitted(timelines: Sequence[Sequence[int]], items: int, **settings: float) -> Slist:
    source = Slist(**settings)
    source.fit(interactions(timelines, items))
    return source


def test_the_weights_solve_the_regression_of_the_next_item_on_those_before() -> None:
    """Against rows that are written out one by one."""
    data = drawn(0)
    rows, targets = [], []
    for sequence in data.sequences:
        for place in range(1, len(sequence)):
            row, target = np.zeros(len(data.item_ids)), np.zeros(len(data.item_ids))
            for age, item in enumerate(sequence[:place][::-1][: slist.LAST]):
                row[item] += 0.8**age
            target[sequence[place]] = 1
            rows.append(row)
            targets.append(target)
    before_RI, came_RI = np.array(rows), np.array(targets)
    gram_II = before_RI.T @ before_RI + 3 * np.eye(len(data.item_ids))
    weights_II = np.linalg.solve(gram_II, before_RI.T @ came_RI)
    source = Slist(l2=3.0, decay=0.8)
    source.fit(data)
    known = np.bincount(np.concatenate(data.sequences), minlength=len(data.item_ids)) > 0
    for history in ([4], [1, 2, 2], [5, 0, 7, 9]):
        weight_H = 0.8 ** np.arange(len(history) - 1, -1, -1.0)
        expected_I = weight_H @ weights_II[history]
        assert source.scores(np.array(history))[known] == pytest.approx(expected_I[known], abs=1e-5)


def test_the_same_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, history = Slist(l2=3.0), np.array([1, 4])
    whole.fit(drawn(0))
    monkeypatch.setattr(slist, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(matrix, "ROWS_AT_ONCE", 3)
    pieces = Slist(l2=3.0)
    pieces.fit(drawn(0))
    known = whole.scores(history) > NOTHING
    assert pieces.scores(history)[known] == pytest.approx(whole.scores(history)[known], abs=1e-5)


def test_it_minds_the_order() -> None:
    source = fitted([[0, 1, 2, 3]] * 20, 4, l2=1.0)
    for last in (0, 1, 2):
        assert int(source.scores(np.arange(last + 1)).argmax()) == last + 1


def test_the_last_item_counts_most() -> None:
    source = fitted([[0, 2]] * 20 + [[1, 3]] * 20, 4, l2=1.0)
    for history, comes in (([0, 1], 3), ([1, 0], 2)):
        scores_I = source.scores(np.array(history))
        assert int(scores_I[2:].argmax()) + 2 == comes


def test_of_too_large_a_catalogue_it_says_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    timelines = [[0, 1, 2], [1, 2, 3], [2, 1]]
    monkeypatch.setattr(slist, "LARGEST", 4)
    assert (fitted(timelines, 5).scores(np.array([1])) > NOTHING).tolist() == [True, True, True, True, False]
    monkeypatch.setattr(slist, "LARGEST", 3)
    assert (fitted(timelines, 5).scores(np.array([1])) == NOTHING).all()
    assert "slist says nothing of 4 items" in caplog.text


@pytest.mark.parametrize("settings", [{"l2": 0.0}, {"decay": 0.0}, {"decay": 1.5}])
def test_settings_that_make_no_sense(settings: dict[str, float]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ConfigError, match=f"slist: {name} {value}"):
        Slist(**settings)
