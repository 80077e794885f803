"""SASRec learns the order of choices, sees nothing later, and gives no score to what it never met."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from prompts.errors import ConfigError, TrainingError
from surfaces.ledger.store import Ledger
from surfaces.sources import kept, sasrec
from surfaces.sources.base import NOTHING, Indices, Interactions, Materials, Source
from surfaces.sources.sasrec import (
    HELD,
    Encoder,
    SasRec,
    SasRecSource,
    batches,
    full_cross_entropy,
    held_out,
    padded,
    windows,
)
from tests.contracts.test_source_contract import interactions, surface

LETTERS = 6
"""Items of the cycle a, b, c, ... that the members walk along."""

SMALL: dict[str, Any] = {"dim": 16, "layers": 1, "heads": 2, "dropout": 0.1, "learning_rate": 1e-2, "max_length": 8}


def cycle(members: int = 48, length: int = 9, items: int = 8) -> Interactions:
    """Members who start somewhere and take the next letter every time; items 6 and 7 are never chosen."""
    return interactions([[(start + step) % LETTERS for step in range(length)] for start in range(members)], items)


def fitted(data: Interactions, **settings: Any) -> SasRec:
    source = SasRec(**{**SMALL, "epochs": 30, "patience": None, "batch": 8, **settings})
    source.fit(data)
    return source


@pytest.fixture(scope="module")
def walker() -> SasRec:
    """What has learned the cycle."""
    return fitted(cycle())


def sequences(*lengths: int, seed: int = 0) -> list[Indices]:
    rng = np.random.default_rng(seed)
    return [rng.integers(10, size=length) for length in lengths]


@pytest.fixture
def encoder() -> Encoder:
    """Fresh weights for ten items, with no dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        return Encoder(10, 12, dim=16, layers=2, heads=2, dropout=0.5).eval()


@pytest.mark.parametrize("length", [1, 2, 5])
def test_learns_the_cycle(walker: SasRec, length: int) -> None:
    for start in range(LETTERS):
        history = (start + np.arange(length)) % LETTERS
        assert int(walker.scores(history).argmax()) == (start + length) % LETTERS


def test_minds_the_order(walker: SasRec) -> None:
    forwards, backwards = walker.scores(np.array([0, 1, 2])), walker.scores(np.array([2, 1, 0]))
    assert forwards.argmax() == 3
    assert backwards.argmax() == 1


def test_looks_further_back_than_the_last_item() -> None:
    """After item 2 comes what came before it: the last item alone does not tell."""
    source = fitted(interactions([[0, 2, 0], [1, 2, 1]] * 32, 3), dropout=0.0)
    for item in (0, 1):
        assert int(source.scores(np.array([item, 2])).argmax()) == item


def test_items_that_nobody_chose_have_no_score(walker: SasRec) -> None:
    scores_I = walker.scores(np.array([0, 1]))
    assert scores_I.dtype == np.float64
    assert np.isfinite(scores_I[:LETTERS]).all()
    assert (scores_I[LETTERS:] == NOTHING).all()


def test_histories_without_a_known_item(walker: SasRec) -> None:
    for history in ([], [6], [7, 6]):
        scores_I = walker.scores(np.array(history, dtype=np.int64))
        assert scores_I.shape == (8,)
        assert (scores_I == NOTHING).all()
    with_unknown, without = walker.scores(np.array([0, 6, 1, 7])), walker.scores(np.array([0, 1]))
    assert np.array_equal(with_unknown, without)


@pytest.mark.parametrize("timelines", [[], [[]], [[3], [2]]])
def test_nothing_to_learn_from(timelines: Sequence[Sequence[int]]) -> None:
    source = fitted(interactions(timelines, 5))
    assert (source.scores(np.array([3])) == NOTHING).all()
    assert source.settings_after_fit() == {}


def test_a_new_fit_forgets_the_old_one(walker: SasRec) -> None:
    source = fitted(cycle(), epochs=1)
    source.fit(interactions([], 3))
    assert (source.scores(np.array([0])) == NOTHING).all()
    source.fit(cycle())
    assert source.best_epochs == 1


def test_reads_the_last_items_of_a_long_history(walker: SasRec) -> None:
    history = np.random.default_rng(0).integers(LETTERS, size=30)
    assert np.array_equal(walker.scores(history), walker.scores(history[-8:]))
    assert not np.array_equal(walker.scores(history), walker.scores(history[-7:]))


def test_same_seed_same_scores() -> None:
    history, data = np.array([0, 1]), cycle()
    first, again, other = (fitted(data, epochs=2, seed=seed).scores(history) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_leaves_the_random_state_of_torch_alone() -> None:
    before = torch.random.get_rng_state()
    fitted(cycle(), epochs=1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_later_items_change_nothing_earlier(encoder: Encoder) -> None:
    items_BL = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 9, 0]])
    with torch.inference_mode():
        hidden_BLD = encoder(items_BL, torch.tensor([5, 5]))
    torch.testing.assert_close(hidden_BLD[0, :3], hidden_BLD[1, :3], rtol=0, atol=1e-6)
    assert not torch.allclose(hidden_BLD[0, 3], hidden_BLD[1, 3], atol=1e-2)


def test_a_sequence_in_a_batch_is_as_it_is_alone(encoder: Encoder) -> None:
    histories = sequences(1, 12, 3, 7)
    together_BK = encoder.next_items(histories)
    alone_BK = np.concatenate([encoder.next_items([history]) for history in histories])
    np.testing.assert_allclose(together_BK, alone_BK, rtol=0, atol=1e-5)


def test_positions_count_from_the_end(encoder: Encoder) -> None:
    """Only the last position's vector reaches a history of one item."""
    before_1K = encoder.next_items([np.array([3])])
    with torch.no_grad():
        encoder.positions.weight[1:] += 1.0
    assert np.array_equal(before_1K, encoder.next_items([np.array([3])]))
    with torch.no_grad():
        encoder.positions.weight[0, 0] += 1.0
    assert not np.allclose(before_1K, encoder.next_items([np.array([3])]))


@pytest.mark.parametrize("at_once", [1, 70, 1 << 21])
def test_loss_and_gradients_are_those_of_torch(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(sasrec, "LOGITS_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    hidden_PD, items_KD = (torch.randn(size, 5, generator=generator, requires_grad=True) for size in (23, 9))
    targets_P = torch.randint(9, (23,), generator=generator)
    ours = full_cross_entropy(hidden_PD, items_KD, targets_P)
    theirs = torch.nn.functional.cross_entropy(hidden_PD @ items_KD.T, targets_P)
    torch.testing.assert_close(ours, theirs)
    for mine, reference in zip(
        torch.autograd.grad(3 * ours, (hidden_PD, items_KD)),
        torch.autograd.grad(3 * theirs, (hidden_PD, items_KD)),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference)


def test_windows_hold_every_transition_once() -> None:
    timelines = [np.arange(100 * member, 100 * member + length) for member, length in enumerate((0, 1, 2, 5, 6, 23))]
    for seed in range(20):
        pieces = windows(timelines, 5, np.random.default_rng(seed))
        assert max(len(piece) for piece in pieces) == 6
        found = sorted((a, b) for piece in pieces for a, b in pairwise(piece))
        assert found == [(a, a + 1) for timeline in timelines for a in timeline[:-1]]


def test_windows_are_cut_elsewhere_in_another_epoch() -> None:
    timelines, rng = sequences(60), np.random.default_rng(0)
    lengths = {tuple(len(piece) for piece in windows(timelines, 10, rng)) for _ in range(20)}
    assert len(lengths) > 5


def test_batches_hold_every_piece_once_and_little_padding() -> None:
    pieces = sequences(*range(2, 32))
    found = list(batches(pieces, 4, np.random.default_rng(0)))
    assert sorted(len(piece) for batch in found for piece in batch) == list(range(2, 32))
    assert all(max(map(len, batch)) - min(map(len, batch)) < 4 for batch in found)


def test_padding_is_to_the_right() -> None:
    items_BL, lengths_B = padded([np.array([5]), np.array([6, 7, 8])])
    assert items_BL.tolist() == [[5, 0, 0], [6, 7, 8]]
    assert lengths_B.tolist() == [1, 3]


def test_what_is_held_out_is_not_learned_from() -> None:
    timelines = [np.array([1, 2, 3]), np.array([4, 5]), np.array([6, 7, 8, 9])]
    held = held_out(timelines, np.random.default_rng(0))
    assert held is not None
    assert list(held.targets) == [3, 9]
    assert [history.tolist() for history in held.histories] == [[1, 2], [6, 7, 8]]
    assert [rest.tolist() for rest in held.rest] == [[1, 2], [4, 5], [6, 7, 8]]
    assert held_out([np.array([1, 2])], np.random.default_rng(0)) is None


def test_no_more_members_are_held_out_than_needed() -> None:
    held = held_out(sequences(*[4] * (HELD + 50)), np.random.default_rng(0))
    assert held is not None
    assert len(held.targets) == HELD
    assert sum(len(rest) for rest in held.rest) == 4 * (HELD + 50) - HELD


def test_ndcg_of_what_is_held_out(encoder: Encoder) -> None:
    """Ranks by hand: the history's items do not count as above the target."""
    history = np.array([2, 5])
    logits_K = encoder.next_items([history])[0]
    order = [item for item in np.argsort(-logits_K) if item not in history]
    for rank, target in enumerate(order):
        held = sasrec.Held([history], [int(target)], [])
        assert held.ndcg(encoder, 12) == pytest.approx(1 / np.log2(rank + 2))


def test_stops_when_it_gets_no_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random walks cannot be learned: it stops long before the end, and remembers its best weights."""
    monkeypatch.setattr(sasrec, "STEPS_BETWEEN_CHECKS", 1)
    told: list[tuple[int, int]] = []
    data = interactions([walk.tolist() for walk in sequences(*[6] * 40)], 10)
    source = fitted(data, epochs=400, patience=3, progress=lambda done, total: told.append((done, total)))
    assert source.best_epochs == len(told) - 3 < 397
    assert told == [(epoch, 400) for epoch in range(1, len(told) + 1)]
    settings = source.settings_after_fit()
    assert settings == {"epochs": source.best_epochs, "patience": None}
    again = fitted(data, epochs=source.best_epochs, patience=3)
    assert np.array_equal(source.scores(np.array([1, 2])), again.scores(np.array([1, 2])))
    assert fitted(data, **settings).settings_after_fit() == settings


def test_patience_without_anybody_to_hold_out() -> None:
    source = fitted(interactions([[0, 1]] * 8, 3), epochs=3, patience=1)
    assert source.settings_after_fit() == {"epochs": 3, "patience": None}
    assert np.isfinite(source.scores(np.array([0]))[:2]).all()


def test_early_stopping_learns_the_cycle_too() -> None:
    source = fitted(cycle(), epochs=30, patience=10)
    assert int(source.scores(np.array([1, 2, 3])).argmax()) == 4


def test_reads_only_the_sequences() -> None:
    """Times and names play no part."""
    data = cycle()
    later = replace(data, times=tuple(time * 7 + 5 for time in data.times), member_ids=data.member_ids[::-1])
    history = np.array([0, 1])
    assert np.array_equal(fitted(data, epochs=1).scores(history), fitted(later, epochs=1).scores(history))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"dim": 30, "heads": 4}, "dim 30 must be a multiple of heads 4"),
        ({"layers": 0}, "layers 0; it must be 1 or more"),
        ({"heads": 0}, "heads 0"),
        ({"patience": 0}, "patience 0"),
        ({"batch": -1}, "batch -1"),
        ({"dropout": 1.0}, "dropout 1.0 must be at least 0 and below 1"),
        ({"learning_rate": 0.0}, "learning_rate 0.0 above 0"),
        ({"learning_rate": float("nan")}, "learning_rate nan"),
        ({"weight_decay": -1.0}, "weight_decay -1.0"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        SasRec(**settings)


def test_a_training_that_breaks_says_so() -> None:
    with pytest.raises(TrainingError, match="lower the learning_rate"):
        fitted(cycle(), learning_rate=1e30)


def test_a_score_takes_little_time() -> None:
    """A music shelf's 17,000 items and 100 events: about a millisecond. The bound leaves room for a busy machine."""
    timelines = [range(100), *([item] for item in range(100, 17_000))]
    source = SasRec(epochs=1, patience=None)
    source.fit(interactions(timelines, 17_000))
    history = np.arange(100)
    taken = []
    for _ in range(20):
        start = time.process_time()
        source.scores(history)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.01


# As a source of a surface file


def entry(**settings: Any) -> SasRecSource:
    small = {"dim": 16, "layers": 1, "max_length": 8, "epochs": 5, "fewest": 2}
    return SasRecSource.model_validate({"type": "sasrec", "k": 3, **small, **settings})


def built(data: Interactions, **settings: Any) -> Source:
    ledger = cast("Ledger", None)  # it learns from the choices alone
    return entry(**settings).build(Materials(surface(), data, ledger))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sasrec, "cache_folder", lambda: tmp_path)
    return tmp_path / "sasrec"


def scores(data: Interactions, **settings: Any) -> list[float]:
    source = built(data, **settings)
    source.fit(data)
    found: list[float] = source.scores(np.array([0, 1])).tolist()
    return found


def test_what_was_learned_is_kept_until_events_come(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned, longer = cycle(), cycle(length=10)
    first = scores(learned)
    with monkeypatch.context() as patch:
        patch.setattr(sasrec.SasRec, "_trained", lambda *_: pytest.fail("learned again"))
        assert scores(learned) == first
    assert len(list(cache.iterdir())) == 1
    for other in (scores(longer), scores(learned, dropout=0.2)):
        assert other != first
    assert len(list(cache.iterdir())) == 3


def test_what_cannot_be_read_is_learned_again(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = scores(cycle())
    (file,) = cache.iterdir()
    for content in (b"", file.read_bytes()[:-100], b"no weights at all"):
        file.write_bytes(content)
        caplog.clear()
        assert scores(cycle()) == first
        assert "learned again" in caplog.text


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sasrec, "cache_folder", lambda: tmp_path / "file")
    assert np.isfinite(scores(cycle())[0])
    assert "not kept" in caplog.text


def test_few_files_are_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "NEWEST", 2)
    for length in (4, 5, 6):
        scores(cycle(length=length), epochs=1)
    assert len(list(cache.iterdir())) == 2


def test_too_few_choices_to_learn_from(cache: Path) -> None:
    data = cycle(members=10, length=9)
    assert set(scores(data, fewest=91)) == {NOTHING}
    assert np.isfinite(scores(data, fewest=90)[0])


def test_too_many_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sasrec, "LARGEST", LETTERS)
    built(cycle())
    monkeypatch.setattr(sasrec, "LARGEST", LETTERS - 1)
    with pytest.raises(ConfigError, match=r"sasrec: 6 items with events; it takes up to 5: use itemknn"):
        built(cycle())
