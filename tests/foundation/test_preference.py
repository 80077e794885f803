"""Preference training: the loss of Rafailov et al., its reference, and what a model learns of pairs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.pack import pack
from foundation.model import build
from foundation.tokenizer import TextEncoder
from foundation.training import distributed
from foundation.training.labels import LabelledTree, Listwise, Preference, losses
from foundation.training.preference import WithReference, margins_of, preference_loss
from foundation.training.trainer import StepReport, Trainer, Watcher
from tests.conftest import tiny_config
from tests.foundation.runs import Copying, settings

LEAVES = [TokenNode((9,), 0, None, (3, 4)) for _ in range(3)]
TREE = TokenTree((TokenNode((8,)), *LEAVES))
LOGITS = torch.tensor([[0.7, 0.0], [0.2, -0.1], [-1.0, 0.4]], dtype=torch.float64)


def tree(*pairs: Preference) -> LabelledTree:
    return LabelledTree(TREE, (), (), preferences=pairs)


def test_it_is_the_loss_of_the_paper() -> None:
    """Equation 7, with log-odds: -log sigmoid(beta (policy's margin - reference's margin))."""
    pair = Preference(0, 2, 0, 1, reference=0.5)
    margin = (0.7 - 0.0) - (-1.0 - 0.4)
    expected = math.log1p(math.exp(-0.3 * (margin - 0.5)))
    assert float(preference_loss(LOGITS, [tree(pair)], 0.3)) == pytest.approx(expected, abs=1e-12)


def test_an_unsure_pair_counts_both_ways() -> None:
    pair, turned = Preference(0, 2, 0, 1, 1.0, 0.5), Preference(2, 0, 0, 1, 1.0, -0.5)
    one, other = (float(preference_loss(LOGITS, [tree(each)], 0.3)) for each in (pair, turned))
    unsure = float(preference_loss(LOGITS, [tree(pair._replace(sure=0.8))], 0.3))
    assert unsure == pytest.approx(0.8 * one + 0.2 * other, abs=1e-12)


def test_a_pair_is_satisfied_where_the_margin_says_how_sure_it_is() -> None:
    """The least loss is at a margin of logit(sure) / beta over the reference's: uncertain pairs move little."""
    margin = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    for shift, sign in ((0.0, -1), (math.log(0.8 / 0.2) / 0.5, 0)):
        logits = torch.stack([torch.stack([margin + shift, margin * 0]), torch.zeros(2, dtype=torch.float64)])
        loss = preference_loss(logits, [tree(Preference(0, 1, 0, 1, sure=0.8))], 0.5)
        (slope,) = torch.autograd.grad(loss, margin)
        assert float(slope) < -0.01 if sign else abs(float(slope)) < 1e-12


def test_pairs_of_many_trees_find_their_leaves() -> None:
    trees = [tree(Preference(0, 1, 0, 1)), tree(), tree(Preference(2, 1, 0, 1), Preference(0, 2, 0, 1))]
    logits = torch.cat([LOGITS, LOGITS * 2, LOGITS * 3])
    alone = [preference_loss(LOGITS * (n + 1), [tree(pair)], 1.0) for n, each in enumerate(trees)
             for pair in each.preferences]  # fmt: skip
    assert float(preference_loss(logits, trees, 1.0)) == pytest.approx(float(torch.stack(alone).mean()), abs=1e-12)
    assert float(preference_loss(LOGITS, [tree()], 1.0)) == 0.0


def test_shares_of_a_step_add_up_to_the_step() -> None:
    trees = [tree(Preference(0, 1, 0, 1)), tree(), tree(Preference(2, 1, 0, 1), Preference(0, 2, 0, 1))]

    def share(places: list[int]) -> torch.Tensor:
        rows, part = torch.cat([LOGITS * (n + 1) for n in places]), [trees[n] for n in places]
        every = losses(rows, part)._replace(preference=preference_loss(rows, part, 1.0))
        return distributed.shared(every, part, trees).preference

    assert float(share([0, 1]) + share([2])) == pytest.approx(float(share([0, 1, 2])), abs=1e-12)


def test_at_the_start_the_model_is_its_reference(tiny_encoder: TextEncoder) -> None:
    ranker = build(tiny_config(vocab_size=len(tiny_encoder.tokenizer))).eval()
    trees = WithReference(Copying(), ranker).batch(0)
    logits = ranker(pack([labelled.tree for labelled in trees]))
    assert float(preference_loss(logits, trees, 0.1).detach()) == pytest.approx(math.log(2), abs=1e-6)
    assert any(abs(pair.reference) > 1e-3 for labelled in trees for pair in labelled.preferences)


def test_lists_become_pairs_where_a_tree_brings_none(tiny_encoder: TextEncoder) -> None:
    ranker = build(tiny_config(vocab_size=len(tiny_encoder.tokenizer)))

    class Both(Copying):
        def batch(self, step: int) -> list[LabelledTree]:
            first, second, *_ = super().batch(step)
            return [first, second._replace(preferences=(Preference(0, 1, 0, 1, sure=0.6),))]

    first, second = WithReference(Both(), ranker).batch(0)
    assert [(pair.preferred, pair.other) for pair in first.preferences] == [(2, 0), (2, 1), (2, 3), (2, 4)]
    assert [(pair.preferred, pair.other, pair.sure) for pair in second.preferences] == [(0, 1, 0.6)]


def test_a_reference_has_not_the_adapter_that_is_learned(tiny_encoder: TextEncoder) -> None:
    ranker = build(tiny_config(vocab_size=len(tiny_encoder.tokenizer)))

    class Adapted(Copying):
        def batch(self, step: int) -> list[LabelledTree]:
            return [each._replace(tree=each.tree.adapted("new")) for each in super().batch(step)]

    ours, plain = (WithReference(data, ranker).batch(0) for data in (Adapted(), Copying()))
    assert [each.preferences for each in ours] == [each.preferences for each in plain]
    assert ours[0].tree.nodes[1].adapter == "new"


def test_pairs_are_learned_and_a_larger_beta_stays_nearer(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    moved = {}
    for beta in (0.1, 3.0):
        reports: list[StepReport] = []
        ranker, reference = (build(tiny_config(vocab_size=len(tiny_encoder.tokenizer))) for _ in range(2))
        loss = {"listwise": 0.0, "pointwise": 0.0, "choice": 0.0, "preference": 1.0, "preference_beta": beta}
        chosen = settings(120, loss=loss, validate_every=120, checkpoint_every=120)
        data = WithReference(Copying(), reference)
        Trainer(ranker, tiny_encoder, chosen, tmp_path / str(beta)).fit(
            data, Watcher(reports.append, lambda *_: None, lambda _: 0.0)
        )
        assert reports[0].losses.preference == pytest.approx(math.log(2), abs=1e-5)
        assert float(sum(each.losses.accuracy for each in reports[-10:])) / 10 > 0.8
        batch = data.batch(999)
        logits = ranker.eval()(pack([labelled.tree for labelled in batch])).detach()
        gaps = [margins_of(rows, labelled.preferences) - torch.tensor([p.reference for p in labelled.preferences])
                for rows, labelled in zip(logits.split(5), batch, strict=True)]  # fmt: skip
        moved[beta] = float(torch.cat(gaps).median())
    assert moved[0.1] > moved[3.0] > 0


def test_choices_that_shares_count_are_a_list_each() -> None:
    """A list whose shares are 3/4 and 1/4 is the mean of three lists of one leaf and one of another."""
    one = Listwise((0, 1, 2), 0, 0, 1, (2.0, 1.0, 1.0))
    many = [one._replace(chosen=chosen) for chosen in (0, 0, 0, 2)]
    shared = one._replace(shares=(0.75, 0.0, 0.25))
    found, expected = (
        float(losses(LOGITS, [LabelledTree(TREE, tuple(lists), ())]).listwise) for lists in ([shared], many)
    )
    assert found == pytest.approx(expected, abs=1e-12)
    mixed = LabelledTree(TREE, (shared, Listwise((0, 1), 1, 0, 1, (1.0, 1.0))), ())
    alone = [float(losses(LOGITS, [mixed._replace(lists=(each,))]).listwise) for each in mixed.lists]
    assert float(losses(LOGITS, [mixed]).listwise) == pytest.approx(sum(alone) / 2, abs=1e-12)
