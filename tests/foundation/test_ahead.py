"""Trees that are made ahead: the same ones in the same order, wherever they are made."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from foundation.training.ahead import ahead
from foundation.training.labels import LabelledTree
from prompts.errors import ConfigError
from prompts.tree import Piece, PromptNode, PromptTree
from tests.foundation.runs import Uneven, contents, settings, train


class Telling(Uneven):
    """Trees that bring their text, and say by their number of leaves where they were made."""

    def batch(self, step: int) -> list[LabelledTree]:
        if step == 3:
            raise ConfigError("no trees for step 3")
        prompt = PromptTree((PromptNode((Piece("a"),)),))
        return [labelled._replace(prompt=prompt) for labelled in super().batch(step)]


class Where(Uneven):
    """The process that made them."""

    def batch(self, step: int) -> list[LabelledTree]:
        return [super().batch(0)[0]] * os.getpid()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_same_trees_in_order(workers: int) -> None:
    found = list(ahead(Uneven(), 2, 9, workers=workers))
    assert found == [Uneven().batch(step) for step in range(2, 9)]
    assert list(ahead(Uneven(), 4, 4, workers=workers)) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_what_goes_wrong_there_is_told_here(workers: int) -> None:
    trees = ahead(Telling(), 2, 9, workers=workers)
    assert len(next(trees)) == 7
    with pytest.raises(ConfigError, match="no trees for step 3"):
        next(trees)


def test_a_worker_is_another_process_and_ends_with_the_run() -> None:
    (here,), (there,) = ahead(Where(), 0, 1), ahead(Where(), 0, 1, workers=1)
    assert len(here) == os.getpid() != len(there)
    trees = ahead(Uneven(), 0, 1_000, workers=1)
    next(trees)
    trees.close()  # type: ignore[attr-defined] # a generator
    assert not multiprocessing.active_children()


def test_texts_stay_where_the_trees_are_made() -> None:
    assert all(labelled.prompt is None for labelled in next(ahead(Telling(), 0, 1, workers=1)))


def test_a_run_learns_the_same(tmp_path: Path) -> None:
    for workers in (0, 1):
        train(tmp_path / str(workers), settings(6, workers=workers, checkpoint_every=100), Uneven())
    assert contents(tmp_path / "0" / "last") == contents(tmp_path / "1" / "last")
