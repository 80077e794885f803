"""Training on trees: it learns, resumes as if it had never stopped, and reports what it did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from foundation.bench.naive import NaiveRanker, whole_prompts
from foundation.bench.train import Shape
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.pack import pack
from foundation.model import Ranker, build
from foundation.tokenizer import TextEncoder
from foundation.training import checkpoint
from foundation.training.labels import (
    Graded,
    LabelledTree,
    Listwise,
    Losses,
    Pair,
    contrast_loss,
    graded_loss,
    losses,
)
from foundation.training.progress import figures
from foundation.training.settings import LossWeights, TrainSettings
from foundation.training.trainer import RouterTap, StepReport, Trainer, Watcher, weighted
from prompts.errors import CheckpointError, TrainingError
from tests.conftest import tiny_config
from tests.foundation.runs import Copying, settings


def trainer(encoder: TextEncoder, folder: Path, chosen: TrainSettings) -> Trainer:
    return Trainer(build(tiny_config(vocab_size=len(encoder.tokenizer))), encoder, chosen, folder)


def watcher(reports: list[StepReport], validations: list[tuple[int, float]]) -> Watcher:
    return Watcher(reports.append, lambda step, value: validations.append((step, value)), lambda _: float(len(reports)))


def test_it_learns_what_only_the_trunk_tells(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    reports: list[StepReport] = []
    trainer(tiny_encoder, tmp_path, settings(250)).fit(Copying(), watcher(reports, []))
    early = sum(float(r.losses.accuracy) for r in reports[:3]) / 3
    late = sum(float(r.losses.accuracy) for r in reports[-10:]) / 10
    assert early < 0.5
    assert late > 0.9
    assert reports[-1].losses.choice.item() < 0.1
    assert all(report.leaves == 40 for report in reports)


def test_a_resumed_run_equals_an_unbroken_one(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    whole = trainer(tiny_encoder, tmp_path / "whole", settings(20))
    whole.fit(Copying(), watcher([], []))
    stopped = trainer(tiny_encoder, tmp_path / "broken", settings(20))

    def interrupt(report: StepReport) -> None:
        if report.step == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.fit(Copying(), Watcher(interrupt, lambda *_: None, lambda _: 0.0))
    resumed = Trainer.resume(settings(20), tmp_path / "broken")
    assert resumed.step == 10
    resumed.fit(Copying(), watcher([], []))
    for ours, theirs in zip(resumed.ranker.parameters(), whole.ranker.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_best_is_kept_beside_the_last(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    values = iter([0.3, 0.9, 0.5])
    run = trainer(tiny_encoder, tmp_path, settings(30))
    run.fit(Copying(), Watcher(lambda _: None, lambda *_: None, lambda _: next(values)))
    steps = {name: checkpoint.restore(tmp_path / name)[3]["step"] for name in (checkpoint.BEST, checkpoint.LAST)}
    assert steps == {checkpoint.BEST: 20, checkpoint.LAST: 30}


def test_a_damaged_checkpoint_is_one_clear_error(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    trainer(tiny_encoder, tmp_path, settings(5)).fit(Copying(), watcher([], []))
    state = tmp_path / checkpoint.LAST / checkpoint.OPTIMIZER_FILE
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="not a checkpoint to resume from"):
        Trainer.resume(settings(5), tmp_path)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        Trainer.resume(settings(5), tmp_path / "nowhere")


def test_a_save_that_was_killed_between_its_renames_loses_nothing(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    trainer(tiny_encoder, tmp_path, settings(5)).fit(Copying(), watcher([], []))
    (tmp_path / checkpoint.LAST).rename(tmp_path / f".{checkpoint.LAST}.old")
    assert checkpoint.exists(tmp_path / checkpoint.LAST)
    assert Trainer.resume(settings(5), tmp_path).step == 5


def test_numbers_that_run_away_stop_the_run(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    run = trainer(tiny_encoder, tmp_path, settings(20))

    def spoil(report: StepReport) -> None:
        if report.step == 7:
            next(run.ranker.parameters()).data.fill_(float("nan"))

    with pytest.raises(TrainingError, match="step 8: the loss is no number"):
        run.fit(Copying(), Watcher(spoil, lambda *_: None, lambda _: 0.0))
    assert Trainer.resume(settings(20), tmp_path).step == 5


def test_rates_rise_then_fall_to_nothing() -> None:
    chosen = settings(100, warmup=10)
    rates = [chosen.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(3e-4)
    assert max(rates) == rates[10] == pytest.approx(3e-3)
    assert rates[-1] == pytest.approx(3e-3 / 90)


@pytest.mark.parametrize("vectors", [False, True])
def test_trees_make_the_gradient_of_one_leaf_a_sequence(tiny_encoder: TextEncoder, *, vectors: bool) -> None:
    labelled = Shape("small", trunk=12, positions=3, stem=3, leaves=5, leaf=2, vectors=vectors).tree(200)
    gradients = []
    for naive in (False, True):
        ranker = build(tiny_config(vocab_size=len(tiny_encoder.tokenizer)))
        logits = NaiveRanker(ranker).logits(whole_prompts(labelled.tree)) if naive else ranker(pack([labelled.tree]))
        found = losses(logits, [labelled])
        (found.listwise + found.pointwise + found.choice).backward()
        gradients.append(_gradient(ranker))
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-5 * gradients[1].abs().max() + 1e-6


def _gradient(ranker: Ranker) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in ranker.parameters() if p.grad is not None])


def test_leaves_that_stand_for_many_count_as_many() -> None:
    trees = [_tree_of((1.0, 1.0, 1.0, 1.0)), _tree_of((1.0, 3.0))]
    logits = torch.tensor([[0.7, 0.0], [0.2, 0.0], [0.2, 0.0], [0.2, 0.0]])
    many, few = losses(logits, trees[:1]).listwise, losses(logits[:2], trees[1:]).listwise
    assert float(many) == pytest.approx(float(few), abs=1e-6)


def _tree_of(stands_for: tuple[float, ...]) -> LabelledTree:
    leaves = [TokenNode((9,), 0, None, (3, 4)) for _ in stands_for]
    places = tuple(range(len(leaves)))
    return LabelledTree(TokenTree((TokenNode((8,)), *leaves)), (Listwise(places, 0, 0, 1, stands_for),), ())


def test_lists_of_different_lengths_share_a_batch() -> None:
    trees = [_tree_of((1.0,) * 4), _tree_of((1.0,) * 2)]
    logits = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    odds = logits[:, 0] - logits[:, 1]
    expected = -(odds[:4].log_softmax(0)[0] + odds[4:].log_softmax(0)[0]) / 2
    assert float(losses(logits, trees).listwise) == pytest.approx(float(expected), abs=1e-6)


def test_the_balance_loss_is_least_when_experts_are_used_alike(tiny_encoder: TextEncoder) -> None:
    ranker = build(tiny_config(vocab_size=len(tiny_encoder.tokenizer)))
    tree = TokenTree((TokenNode(tuple(range(10, 60)), answers=(3, 4)),))
    with RouterTap(ranker) as routed:
        ranker(pack([tree]))
    top_k, load_ME = ranker.lm.config.num_experts_per_tok, routed.load()
    assert load_ME.shape == (2, 4)
    assert load_ME.sum(dim=1).tolist() == [tree.size * top_k] * 2
    found = float(routed.balance(load_ME, tree.size).detach())
    assert found >= top_k - 1e-3
    assert found == pytest.approx(float(load_balancing_loss_func(tuple(routed.logits), 4, top_k).detach()), abs=1e-6)


def test_every_setting_and_every_figure_is_explained(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    reports: list[StepReport] = []
    trainer(tiny_encoder, tmp_path, settings(1)).fit(Copying(), watcher(reports, []))
    shown = {name for name in figures(reports[0]) if name not in Losses._fields}
    assert not [name for name in TrainSettings.model_fields.keys() | shown if f"`{name}`" not in page]


def test_more_parts_than_trees_are_refused() -> None:
    with pytest.raises(ValidationError, match="accumulate is larger than trees_per_step"):
        settings(1, trees_per_step=2, accumulate=3)


def test_weights_of_losses_count_each_loss_that_has_one() -> None:
    found = Losses(*(torch.tensor(float(10**place)) for place, _ in enumerate(Losses._fields)))
    chosen = LossWeights(listwise=2.0, pointwise=3.0, choice=4.0)
    others = LossWeights(listwise=0.0, pointwise=0.0, choice=0.0)
    assert float(weighted(found, chosen) - weighted(found, others)) == pytest.approx(
        2.0 * float(found.listwise) + 3.0 * float(found.pointwise) + 4.0 * float(found.choice)
    )


def pair(target: int, *history: int, group: str = "films", share: float = 0.1) -> Pair:
    weights = tuple(1 / len(history) for _ in history)
    return Pair(tuple((each,) for each in history), weights, (target,), math.log(share), group)


def contrasted(*pairs: Pair) -> float:
    """By vectors in the plane: text n points to n tenths of a turn."""

    def compress(texts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        angles = torch.tensor([text[0] / 10 * 2 * math.pi for text in texts])
        return torch.stack([angles.cos(), angles.sin()], dim=1)

    leafless = TokenTree((TokenNode((1,)),))
    return float(contrast_loss([LabelledTree(leafless, (), (), (), pairs)], compress, temperature=1.0))


def test_the_contrast_is_a_softmax_over_the_targets_of_a_group() -> None:
    expected = -math.log(math.exp(math.cos(0.0)) / (math.exp(math.cos(0.0)) + math.exp(math.cos(math.pi))))
    assert contrasted(pair(0, 0), pair(5, 5)) == pytest.approx(expected, abs=1e-6)
    assert contrasted(pair(0, 0), pair(5, 5, group="books")) == pytest.approx(0.0, abs=1e-6)


def test_what_is_drawn_often_counts_less_as_another() -> None:
    rare, often = math.exp(1) / 0.1, math.exp(-1) / 0.4
    both = pair(0, 0, share=0.1), pair(5, 5, share=0.4)
    expected = -math.log(rare / (rare + often)) - math.log(
        (math.exp(1) / 0.4) / (math.exp(1) / 0.4 + math.exp(-1) / 0.1)
    )
    assert contrasted(*both) == pytest.approx(expected / 2, abs=1e-6)


def test_what_a_member_chose_before_is_no_negative_for_them() -> None:
    alone = contrasted(pair(1, 2, 5), pair(5, 5))
    expected_first = 0.0  # the other target is in its history
    logits = torch.tensor([math.cos(0.0), math.cos(0.4 * 2 * math.pi)])
    assert alone == pytest.approx((expected_first - float(logits.log_softmax(0)[0])) / 2, abs=1e-6)


def test_graded_leaves_are_yes_or_no_by_themselves() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    found = graded_loss(logits, [Graded((0, 2), (1.0, 0.5), 0, 1), Graded((1,), (0.0,), 0, 1)])
    expected = (math.log(1 + math.exp(-2)) + math.log(2) + math.log(1 + math.exp(-1))) / 3
    assert float(found) == pytest.approx(expected, abs=1e-6)
    assert float(graded_loss(logits, [])) == 0.0


def test_the_contrast_moves_the_vectors(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    """Texts that are chosen after each other come near; the weight of the loss says how far it counts."""

    class Pairs(Copying):
        def batch(self, step: int) -> list[LabelledTree]:
            even = tuple(pair(target, other) for target, other in ((20, 22), (22, 20), (21, 23), (23, 21)))
            return [each._replace(pairs=even) for each in super().batch(step)]

    def likeness(weight: float) -> float:
        run = trainer(tiny_encoder, tmp_path / str(weight), settings(40, loss={"contrast": weight}))
        run.fit(Pairs(), watcher([], []))
        with torch.no_grad():
            unit = torch.nn.functional.normalize(run.ranker.compress([(20,), (22,), (21,)]), dim=-1)
        return float(unit[0] @ unit[1] - unit[0] @ unit[2])

    assert likeness(1.0) > likeness(0.0) + 0.3
