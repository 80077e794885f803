"""The parts of tree attention against a dense mask: outputs, log-sum-exps and gradients."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from foundation.attention.cpu import CpuPart, chosen
from foundation.attention.geometry import Geometry, Rectangle, without_shared_queries
from foundation.attention.merge import Plan, differentiable_attention, merged_attention
from foundation.engine.base import TokenTree
from foundation.engine.pack import pack
from foundation.engine.torch import TorchEngine
from foundation.training.labels import Losses, losses
from tests.foundation.reference import alone, random_tree, slot_places


def visible(trees: list[TokenTree]) -> torch.Tensor:
    """[N, N]: which slot sees which, from the definition alone."""
    places = slot_places(trees)
    total = sum(tree.size for tree in trees)
    mask = torch.zeros(total, total, dtype=torch.bool)
    for tree, place in zip(trees, places, strict=True):
        for index, node in enumerate(tree.nodes):
            for slot in range(len(node.slots)):
                row = place[index, slot]
                for own in range(slot + 1):
                    mask[row, place[index, own]] = True
                below, above = index, node.parent
                while above >= 0:
                    after = tree.nodes[below].after
                    for seen in range(len(tree.nodes[above].slots) if after is None else after):
                        mask[row, place[above, seen]] = True
                    below, above = above, tree.nodes[above].parent
    return mask


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~mask, float("-inf")).softmax(dim=-1), v)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_outputs_and_gradients_equal_a_dense_mask(dtype: torch.dtype, bound: float) -> None:
    rng = random.Random(7)
    for round_number in range(25):
        trees = [random_tree(rng, 300) for _ in range(3)]
        mask, plan = visible(trees), pack(trees).plan
        generator = torch.Generator().manual_seed(round_number)
        q, k, v, grad = (torch.randn(len(mask), 2, 8, dtype=dtype, generator=generator) for _ in range(4))
        ours = [x.clone().requires_grad_() for x in (q, k, v)]
        theirs = [x.clone().requires_grad_() for x in (q, k, v)]
        out = differentiable_attention(*ours, plan.parts(), 0.3)
        expected = dense(*theirs, mask, 0.3)
        assert (out - expected).abs().max() <= bound
        out.backward(grad)
        expected.backward(grad)
        for one, other in zip(ours, theirs, strict=True):
            assert one.grad is not None
            assert other.grad is not None
            assert (one.grad - other.grad).abs().max() <= bound


def test_gradients_pass_gradcheck() -> None:
    trees = [random_tree(random.Random(8), 300, depth=3)]
    while trees[0].size > 40:
        trees = [random_tree(random.Random(trees[0].size), 300, depth=3)]
    plan, size = pack(trees).plan, trees[0].size
    q, k, v = (torch.randn(size, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(
        lambda *x: differentiable_attention(*x, plan.parts(), 0.5), (q, k, v), fast_mode=True
    )


def test_log_sum_exp_counts_every_visible_key() -> None:
    trees = [random_tree(random.Random(9), 300)]
    zeros, values = torch.zeros(trees[0].size, 1, 4), torch.randn(trees[0].size, 1, 4)
    _, lse = merged_attention(zeros, zeros, values, pack(trees).plan.parts(), 1.0)
    assert torch.allclose(lse[:, 0].exp().round().long(), visible(trees).sum(dim=1))


def planned(nodes: list[tuple[int, int]], above: list[Rectangle]) -> Plan:
    """Nodes by (start, size), and rectangles of descendants over ancestors; no window, so no positions."""
    none = np.zeros(0, dtype=np.int64)
    return Plan(Geometry([Rectangle(start, size, start, size) for start, size in nodes], above, none, none, none))


def cpu_parts(plan: Plan) -> list[CpuPart]:
    return list(chosen(plan.parts()))


def test_rectangles_of_one_shape_share_a_call() -> None:
    leaves = [(100 + 10 * n, 10) for n in range(5)]
    parts = cpu_parts(planned([(0, 100), *leaves], [Rectangle(100, 50, 0, 100)]))
    assert [(part.queries.number, part.causal) for part in parts] == [(1, True), (5, True), (1, False)]
    assert all(part.queries.index is None for part in parts)


def test_short_nodes_of_about_one_size_share_a_call() -> None:
    sizes = [3, 8, 5, 1, 9, 16, 12, 70, 71]
    starts = np.cumsum([0, *sizes]).tolist()
    parts = cpu_parts(planned(list(zip(starts, sizes, strict=False)), []))
    assert sorted(part.queries.number for part in parts) == [1, 1, 3, 4]


@pytest.mark.parametrize("largest", [0, 400, 1 << 20])
def test_branches_along_one_ancestor_share_a_call_or_not(monkeypatch: pytest.MonkeyPatch, largest: int) -> None:
    monkeypatch.setattr("foundation.attention.cpu.LARGEST_STAIRS", largest)
    ancestors = [Rectangle(20 + 5 * n, 5, 0, 4 + n) for n in range(12)]
    plan = planned([(0, 20), *((20 + 5 * n, 5) for n in range(12))], ancestors)
    q, k, v = (torch.randn(80, 2, 8, generator=torch.Generator().manual_seed(n)) for n in range(3))
    mask = torch.zeros(80, 80, dtype=torch.bool)
    mask[:20, :20] = torch.ones(20, 20).tril().bool()
    for one in ancestors:
        own = slice(one.q_start, one.q_start + 5)
        mask[own, own] = torch.ones(5, 5).tril().bool()
        mask[own, : one.k_size] = True
    assert (merged_attention(q, k, v, plan.parts(), 0.3)[0] - dense(q, k, v, mask, 0.3)).abs().max() <= 1e-5
    assert len(plan.parts()) - 2 == {0: 12, 400: 2, 1 << 20: 1}[largest]


def test_a_slot_with_two_ancestors_of_one_shape_is_a_query_once_a_part() -> None:
    group = [Rectangle(8, 4, 0, 4), Rectangle(8, 4, 4, 4), Rectangle(4, 4, 0, 4)]
    levels = without_shared_queries(group)
    assert sorted(one for level in levels for one in level) == sorted(group)
    assert [len({one.q_start for one in level}) for level in levels] == [2, 1]


@pytest.mark.parametrize("window", [1, 2, 5, 16, 40, 1000])
def test_a_sliding_window_equals_a_dense_mask(window: int) -> None:
    rng = random.Random(window)
    for _ in range(10):
        trees = [random_tree(rng, 300) for _ in range(2)]
        packed = pack(trees)
        position = torch.from_numpy(packed.positions)
        mask = visible(trees) & (position[:, None] - position < window)
        q, k, v, grad = (torch.randn(len(mask), 2, 8, dtype=torch.float64) for _ in range(4))
        ours, theirs = ([x.clone().requires_grad_() for x in (q, k, v)] for _ in range(2))
        out = differentiable_attention(*ours, packed.plan.parts(window), 0.3)
        expected = dense(*theirs, mask, 0.3)
        out.backward(grad)
        expected.backward(grad)
        assert (out - expected).abs().max() <= 1e-12
        assert all((a.grad - b.grad).abs().max() <= 1e-12 for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("window", [None, 6])
def test_only_some_rows_equal_those_of_all(window: int | None) -> None:
    rng = random.Random(12)
    for _ in range(10):
        packed = pack([random_tree(rng, 300) for _ in range(2)])
        size = len(packed.slots)
        q, k, v = (torch.randn(size, heads, 8) for heads in (4, 2, 2))
        rows = np.array(sorted(rng.sample(range(size), max(1, size // 5))))
        whole = merged_attention(q, k, v, packed.plan.parts(window), 0.3)[0][rows]
        some = merged_attention(q[rows], k, v, packed.plan.only(rows).parts(window), 0.3)[0]
        assert (whole - some).abs().max() <= 1e-5


def test_training_sees_the_same_logits_as_serving(tiny_engine: TorchEngine) -> None:
    tree = random_tree(random.Random(10), 300, 48)
    leaf = max(index for index, node in enumerate(tree.nodes) if node.answers)
    tiny_engine.ranker.train()
    try:
        logits = tiny_engine.ranker(pack([tree]))
        assert logits.requires_grad
    finally:
        tiny_engine.ranker.eval()
    expected = alone(tiny_engine.ranker, tree, leaf)[0]
    assert (logits.log_softmax(dim=-1)[-1, : len(expected)] - expected).abs().max() <= 1e-5


def test_no_labels_no_loss() -> None:
    assert [float(x) for x in losses(torch.zeros(0, 1), [])] == [0.0] * len(Losses._fields)
