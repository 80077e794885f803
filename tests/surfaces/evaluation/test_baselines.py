"""What the classical baselines compute, against formulas written out, and the settings that they are tuned over."""

from __future__ import annotations

import builtins
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from prompts.errors import ConfigError
from surfaces.evaluation.baselines.blend import Blend
from surfaces.evaluation.baselines.factors import Bpr
from surfaces.evaluation.baselines.text import TextEmbedding, text_vectors
from surfaces.sources import ease
from surfaces.sources.als import Als
from surfaces.sources.base import NOTHING, Interactions
from surfaces.sources.ease import Ease
from surfaces.sources.embedding import Embedding
from surfaces.sources.itemknn import ItemKnn
from surfaces.sources.matrix import choices, levelled, weighed
from surfaces.sources.popular import Popular
from surfaces.visit import Visit
from tests.contracts.test_baseline_contract import two_camps, vectors
from tests.contracts.test_source_contract import drawn, history, interactions

Floats = npt.NDArray[np.float64]


def dense(data: Interactions) -> Floats:
    """[members, items] of 0 and 1, without sparse matrices."""
    chosen_MI = np.zeros((len(data.member_ids), len(data.item_ids)))
    for member, sequence in enumerate(data.sequences):
        chosen_MI[member, sequence] = 1.0
    return chosen_MI


# The matrix


def test_choices_are_binary() -> None:
    data = interactions([[3, 1, 3], [], [0, 3]], items=5)
    assert choices(data).toarray().tolist() == [[0, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 0, 0, 1, 0]]
    assert np.array_equal(choices(drawn(0)).toarray(), dense(drawn(0)))


def test_what_only_rounding_tells_apart_is_level() -> None:
    scores = levelled(np.array([2.0, 2.0 + 2e-7, 1.9999, 0.0, -1.0], dtype=np.float32))
    assert scores[0] == scores[1] > scores[2] > scores[3] == 0 > scores[4]
    assert scores == pytest.approx([2.0, 2.0, 1.9999, 0.0, -1.0], abs=1e-5)
    assert levelled(np.zeros(3, dtype=np.float32)).tolist() == [0.0, 0.0, 0.0]
    assert len(levelled(np.zeros(0, dtype=np.float32))) == 0


def test_an_item_weighs_by_its_last_place() -> None:
    items, weights = weighed(history([4, 2, 4, 9, 2]), 0.5)
    assert items.tolist() == [4, 9, 2]
    assert weights.tolist() == [0.25, 0.5, 1.0]
    assert weighed(history([4, 2, 4]), 1.0)[1].tolist() == [1.0, 1.0]
    assert len(weighed(history([]), 0.5)[0]) == 0


# ItemKNN


def test_itemknn_sums_cosines() -> None:
    data = drawn(4)
    source = ItemKnn(decay=1.0, shrink=0.0)
    source.fit(data)
    cosine_II = cosine_similarity(dense(data).T)
    expected_I = cosine_II[3] + cosine_II[1]
    expected_I[3] -= cosine_II[3, 3]  # an item is no neighbour of itself
    expected_I[1] -= cosine_II[1, 1]
    assert settled(source.scores(history([3, 1, 3]))) == pytest.approx(expected_I, abs=1e-6)


def test_itemknn_counts_the_newest_most() -> None:
    data = drawn(4)
    source, plain = ItemKnn(shrink=0.0, decay=0.5), ItemKnn(shrink=0.0, decay=1.0)
    for each in (source, plain):
        each.fit(data)
    alone = [settled(plain.scores(history([item]))) for item in (3, 1)]
    assert settled(source.scores(history([3, 1]))) == pytest.approx(0.5 * alone[0] + alone[1], abs=1e-6)


def test_itemknn_shrinks_what_few_members_say() -> None:
    data = interactions([[0, 1], [2, 3], [2, 3], [2, 3]], items=4)
    source = ItemKnn(shrink=2.0)
    source.fit(data)
    assert source.scores(history([0]))[1] == pytest.approx(1 / (1 + 2))
    assert source.scores(history([2]))[3] == pytest.approx(3 / (3 + 2))


def test_itemknn_keeps_the_nearest() -> None:
    data = drawn(6)
    everyone, nearest = ItemKnn(), ItemKnn(neighbours=4)
    everyone.fit(data)
    nearest.fit(data)
    for item in range(20):
        kept_I = nearest.scores(history([item]))
        all_I = settled(everyone.scores(history([item])))
        known = np.flatnonzero(kept_I > NOTHING)
        assert len(known) <= 4
        assert kept_I[known] == pytest.approx(all_I[known])
        assert sorted(all_I[known]) == pytest.approx(sorted(all_I)[len(all_I) - len(known) :])


def test_itemknn_by_tf_idf() -> None:
    """The third member chose everything and says little: 0 and 1 are nearer than by plain cosine."""
    data = interactions([[0, 1], [2], [0, 1, 2, 3]], items=4)
    source = ItemKnn(shrink=0.0, weighting="tf-idf")
    source.fit(data)
    weights_M = np.log(5 / np.array([2, 1, 4]))
    assert source.scores(history([0])) == pytest.approx(
        settled_to_nothing(cosine_similarity((dense(data) * weights_M[:, None]).T)[0], own=0), abs=1e-6
    )


def settled(scores_I: Floats) -> Floats:
    return np.where(scores_I > NOTHING, scores_I, 0.0)


def settled_to_nothing(scores_I: Floats, own: int) -> Floats:
    scores_I = scores_I.copy()
    scores_I[own] = NOTHING
    return np.where(scores_I > 0, scores_I, NOTHING)


@pytest.mark.parametrize("items", [255, 256, 257, 600])
def test_itemknn_and_ease_in_blocks(items: int) -> None:
    rng = np.random.default_rng(items)
    data = interactions([list(rng.choice(items, size=12, replace=False)) for _ in range(150)], items=items)
    nearest, shallow = ItemKnn(shrink=0.0), Ease(l2=3.0, decay=1.0)
    nearest.fit(data)
    shallow.fit(data)
    cosine_II = cosine_similarity(dense(data).T)
    weights_II = steck(dense(data), 3.0)
    for item in (int(data.sequences[0][0]), int(data.sequences[1][0]), int(data.sequences[2].max())):
        expected_I = np.where(np.arange(items) == item, 0.0, cosine_II[item])
        assert settled(nearest.scores(history([item]))) == pytest.approx(expected_I, abs=1e-5)
        chosen = dense(data).any(0)
        assert shallow.scores(history([item]))[chosen] == pytest.approx(weights_II[item][chosen], abs=1e-4)


# EASE


def steck(chosen_MI: Floats, l2: float) -> Floats:
    """Algorithm 1 of Steck (2019), in float64."""
    inverse_II = np.linalg.inv(chosen_MI.T @ chosen_MI + l2 * np.eye(chosen_MI.shape[1]))
    weights_II = inverse_II / -np.diag(inverse_II)
    np.fill_diagonal(weights_II, 0.0)
    return np.asarray(weights_II, dtype=np.float64)


def test_ease_is_the_papers() -> None:
    data = two_camps()
    source = Ease(l2=7.0, decay=1.0)
    source.fit(data)
    expected_I = steck(dense(data), 7.0)[[2, 5, 11]].sum(axis=0)
    assert source.scores(history([5, 2, 11, 5])) == pytest.approx(expected_I, abs=1e-5)


def test_ease_minimizes_its_loss() -> None:
    """Half of the squared error with the ridge, with no weight from an item to itself: its slope is 0 elsewhere."""
    data = drawn(8)
    chosen_MI = dense(data)
    chosen_MI = chosen_MI[:, chosen_MI.any(0)]
    source = Ease(l2=2.0)
    source.fit(data)
    weights_JJ = source._weights_JJ.astype(np.float64)
    slope_JJ = chosen_MI.T @ (chosen_MI @ weights_JJ - chosen_MI) + 2.0 * weights_JJ
    np.fill_diagonal(slope_JJ, 0.0)
    assert np.abs(slope_JJ).max() < 1e-3
    assert (np.diag(weights_JJ) == 0).all()


def test_ease_decays_the_history() -> None:
    data = two_camps()
    source = Ease(l2=7.0, decay=0.5)
    source.fit(data)
    expected_I = np.array([0.25, 0.5, 1.0]) @ steck(dense(data), 7.0)[[2, 11, 5]]
    assert source.scores(history([5, 2, 11, 5])) == pytest.approx(expected_I, abs=1e-5)


def test_ease_says_nothing_of_items_without_events() -> None:
    data = interactions([[0, 1], [1, 4], [0, 4, 1]], items=6)
    source = Ease(l2=1.0)
    source.fit(data)
    assert (source.scores(history([1])) > NOTHING).tolist() == [True, True, False, False, True, False]
    assert (source.scores(history([2, 5])) == NOTHING).all()


def test_ease_refuses_what_kills_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only items with events count."""
    monkeypatch.setattr(ease, "LARGEST", 10)
    Ease().fit(interactions([list(range(10))], items=1_000))
    with pytest.raises(
        ConfigError,
        match=r"ease: 11 items with events need a matrix of 0.0 GB; it takes up to 10 items: use itemknn here",
    ):
        Ease().fit(interactions([list(range(11))], items=1_000))


def test_ease_takes_so_many_items() -> None:
    """It refuses before it takes any memory for them."""
    with pytest.raises(ConfigError, match=r"ease: 20,001 items .* of 1.6 GB; it takes up to 20,000 items: use itemknn"):
        Ease().fit(interactions([list(range(20_001))], items=20_001))


def test_ease_inverts_in_place() -> None:
    """A second matrix of that size is what a machine may not have."""
    given = np.asarray(dense(two_camps()).T @ dense(two_camps()) + 3 * np.eye(20), dtype=np.float32)
    expected = np.linalg.inv(given)
    found = ease._inverse(given)
    assert np.shares_memory(found, given)
    assert found == pytest.approx(expected, abs=1e-6)


def test_ease_that_cannot_be_inverted() -> None:
    source = Ease(l2=1e-12)
    with pytest.raises(ConfigError, match="raise l2"):
        source.fit(interactions([[0, 1]] * 1_000, items=2))


# Factors


def test_als_solves_a_visitor_as_the_paper_does() -> None:
    """Equation 4 of Hu, Koren and Volinsky (2008), written with the whole diagonal of confidences."""
    source = Als(factors=3, iterations=5, regularization=2.0, alpha=6.0, decay=1.0)
    source.fit(two_camps())
    items_IF = source._items_IF
    confidence_I = np.ones(20)
    confidence_I[[4, 7]] = 6.0
    wanted_I = (confidence_I > 1).astype(float)
    left_FF = items_IF.T @ (confidence_I[:, None] * items_IF) + 2.0 * np.eye(3)
    vector_F = np.linalg.solve(left_FF, items_IF.T @ (confidence_I * wanted_I))
    assert source.scores(history([7, 4, 7])) == pytest.approx(items_IF @ vector_F)


def test_als_solves_as_implicit_does() -> None:
    """A member of the training is scored as the package's own `recalculate_user` scores."""
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy import sparse
    from threadpoolctl import threadpool_limits

    data = two_camps()
    source = Als(factors=4, iterations=5, regularization=2.0, alpha=6.0, decay=1.0)
    source.fit(data)
    with threadpool_limits(1, "blas"):
        other = AlternatingLeastSquares(4, regularization=2.0, alpha=6.0, iterations=5, num_threads=1, random_state=0)
        other.fit(sparse.csr_matrix(dense(data)), show_progress=False)
        vector_F = other.recalculate_user(0, sparse.csr_matrix(dense(data)[:1]))
    assert source.scores(data.sequences[0]) == pytest.approx(other.item_factors @ vector_F, abs=1e-4)


def test_als_forgets_what_was_long_ago() -> None:
    source = Als(factors=3, decay=0.3)
    source.fit(two_camps())
    first, later = history([0, 1, 2]), history([10, 11, 12])
    scores_I = source.scores(np.concatenate([first, later]))
    assert scores_I[13:].min() > scores_I[3:10].max()
    scores_I = source.scores(np.concatenate([later, first]))
    assert scores_I[3:10].min() > scores_I[13:].max()


@pytest.mark.parametrize("kind", [Als, Bpr])
def test_a_seed_is_all_that_is_random(kind: type[Als | Bpr]) -> None:
    made = [kind(factors=4, iterations=10, seed=seed) for seed in (1, 1, 2)]
    for source in made:
        source.fit(two_camps())
    one, same, other = (source.scores(history([1, 12])) for source in made)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_bpr_knows_its_members() -> None:
    """A member who was there is scored by their own vector, whatever the history; a stranger by the history alone."""
    source = Bpr(factors=4)
    data = two_camps()
    source.fit(data)
    for member, own in enumerate(data.member_ids[:6]):
        camp = member % 2
        scores_I = source.scores(history([]), Visit(member_id=own))
        assert scores_I[10 * camp : 10 * camp + 10].min() > scores_I[10 - 10 * camp : 20 - 10 * camp].max()
        assert np.array_equal(source.scores(history([19, 1]), Visit(member_id=own)), scores_I)
    strange = source.scores(history([1, 2]), Visit(member_id="stranger"))
    assert np.array_equal(strange, source.scores(history([1, 2])))
    assert (source.scores(history([]), Visit(member_id="stranger")) == NOTHING).all()


def test_bpr_has_no_vector_for_a_member_without_events() -> None:
    data = replace(two_camps(), sequences=(history([]), *two_camps().sequences[1:]))
    source = Bpr(factors=4, iterations=5)
    source.fit(data)
    assert (source.scores(history([]), Visit(member_id="member 0")) == NOTHING).all()


@pytest.mark.parametrize("name", ["als", "bpr"])
def test_without_implicit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def lacking(module: str, *more: Any, **named: Any) -> Any:
        if module.split(".")[0] == "implicit":
            raise ModuleNotFoundError("No module named 'implicit'", name="implicit")
        return real(module, *more, **named)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(ConfigError) as caught:
        {"als": Als(), "bpr": Bpr()}[name].fit(two_camps())
    assert str(caught.value) == f"{name} needs the package implicit: pip install 'prismrank[evaluate]'"


# Texts


def test_text_embedding_weighs_by_recency() -> None:
    some = vectors(20)
    source = TextEmbedding(some, recent=3, half_life=2.0)
    source.fit(interactions([], items=20))
    weights = np.array([0.5, 0.5**0.5, 1.0])
    mean_D = weights / weights.sum() @ some.rows_ID[[4, 8, 2]]
    assert source.scores(history([9, 9, 4, 8, 2])) == pytest.approx(some.rows_ID @ mean_D, abs=1e-6)


def test_text_embedding_by_default_is_the_source_of_a_surface() -> None:
    some, past = vectors(40), history(list(range(30)) * 3)
    assert np.array_equal(TextEmbedding(some).scores(past), Embedding(some).scores(past))


def test_text_embedding_needs_a_vector_an_item() -> None:
    with pytest.raises(ConfigError, match="text_embedding: 3 vectors for 20 items"):
        TextEmbedding(vectors(3)).fit(interactions([], items=20))


def test_text_vectors_tell_meanings() -> None:
    texts = ["A crime film", "A film about gangsters", "Printer ink", "A crime film"]
    some = text_vectors(texts)
    assert np.array_equal(some.rows_ID[0], some.rows_ID[3])
    assert some.rows_ID[0] @ some.rows_ID[1] > some.rows_ID[0] @ some.rows_ID[2] + 0.3
    assert some.nearest.ntotal == 4


# Popular within a window


def test_popular_in_a_window() -> None:
    """The events are an hour apart; the latest is at 4 h."""
    data = interactions([[0, 0, 0, 1, 2], [1]], items=4)
    for window, counts in ((None, [3, 2, 1, 0]), (3_600.0, [0, 1, 1, 0]), (0.0, [0, 0, 1, 0]), (7_200.0, [1, 1, 1, 0])):
        source = Popular(window=window)
        source.fit(data)
        assert source.scores(history([])).tolist() == counts


def test_popular_in_a_window_with_a_half_life() -> None:
    source = Popular(half_life=3_600.0, window=7_200.0)
    source.fit(interactions([[0, 0, 0, 1, 2]], items=3))
    assert source.scores(history([])).tolist() == [0.25, 0.5, 1.0]


def test_popular_in_a_window_needs_times() -> None:
    data = replace(interactions([[0, 1]], items=2), clock="order")
    with pytest.raises(ConfigError, match="popular: window needs times, but this ledger's clock is 'order'; leave win"):
        Popular(window=60.0).fit(data)


# Settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ItemKnn(neighbours=0), "neighbours 0 must be 1 or more"),
        (lambda: ItemKnn(shrink=-1.0), r"shrink -1.0 0 or more"),
        (lambda: Ease(l2=0.0), r"l2 0.0 must be above 0"),
        (lambda: Ease(decay=1.5), r"decay 1.5 above 0 and at most 1"),
        (lambda: Blend([Ease()], [1.1]), r"blend: a weight in \[0, 1\] for each of the 1 sources, not \[1.1\]"),
        (lambda: Als(factors=0), "als: factors 0: settings are above 0"),
        (lambda: Als(decay=1.01), "als: decay 1.01: .* at most 1"),
        (lambda: Bpr(learning_rate=-1.0, iterations=0), r"bpr: learning_rate -1.0, iterations 0"),
        (lambda: TextEmbedding(vectors(2), recent=0), "recent 0 must be 1 or more"),
        (lambda: TextEmbedding(vectors(2), half_life=0.0), r"half_life 0.0 above 0"),
    ],
)
def test_settings_that_make_no_sense(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


# Blend


def test_a_blend_is_a_weighted_sum_of_standard_scores() -> None:
    """Among what is not in the history; at its ends it ranks as one of the two."""
    data, past = two_camps(), history([3, 1])
    parts = [Ease(), ItemKnn()]
    for part in parts:
        part.fit(data)
    open_I = np.ones(20, dtype=bool)
    open_I[past] = False
    rows = [part.scores(past)[open_I] for part in parts]
    lowest = [np.where(np.isfinite(row), row, row[np.isfinite(row)].min()) for row in rows]
    ease_I, itemknn_I = ((row - row.mean()) / row.std() for row in lowest)
    for share in (0.0, 0.3, 1.0):
        blend = Blend([Ease(), ItemKnn()], [share, 1 - share])
        blend.fit(data)
        scores_I = blend.scores(past)
        assert (scores_I[past] == NOTHING).all()
        assert scores_I[open_I] == pytest.approx(share * ease_I + (1 - share) * itemknn_I, abs=1e-4)


def test_of_what_nobody_knows_a_blend_says_nothing() -> None:
    """What one of them knows, it ranks; the other says its lowest there."""
    data = interactions([[0, 1], [1, 2]], items=5)
    blend = Blend([Ease(), Popular()], [0.5, 0.5])
    blend.fit(data)
    told = blend.scores(history([])) > NOTHING
    assert np.array_equal(told, blend.sources[1].scores(history([])) > NOTHING)
    assert told[:3].all()
