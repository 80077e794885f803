"""Packed equals single: shuffled, beside others, hung anywhere, a mixture of experts or dense, ids or vectors."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch

from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.torch import TorchEngine
from foundation.model import Ranker, build, load, shipped
from tests.conftest import tiny_config
from tests.foundation.reference import Comparison, compare, random_tree, widen

VOCABULARY = 300
TREES = 240
BATCH = 6


def batches(seed: int, vocabulary: int, hidden: int, trees: int = TREES) -> list[list[TokenTree]]:
    rng = random.Random(seed)
    return [[random_tree(rng, vocabulary, hidden) for _ in range(BATCH)] for _ in range(trees // BATCH)]


def compared(ranker: Ranker, groups: Sequence[Sequence[TokenTree]]) -> Comparison:
    found = [compare(ranker, group) for group in groups]
    leaves = sum(each.leaves for each in found)
    return Comparison(leaves, max(each.largest for each in found), sum(each.rerouted for each in found))


def meets(found: Comparison, bound: float) -> None:
    assert found.leaves > 400
    assert found.rerouted <= found.leaves / 1000
    assert found.largest <= bound


def test_packed_equals_single_in_fp32(tiny_engine: TorchEngine) -> None:
    ranker = tiny_engine.ranker
    meets(compared(ranker, batches(1, VOCABULARY, ranker.hidden_size)), 1e-5)


def test_packed_equals_single_with_the_shipped_nano() -> None:
    ranker, encoder = load(shipped("nano"))
    meets(compared(ranker, batches(2, len(encoder.tokenizer), ranker.hidden_size, trees=120)), 1e-5)


def test_packed_equals_single_in_fp64() -> None:
    torch.manual_seed(0)
    ranker = widen(build(tiny_config()).eval())
    groups = [[without_given_vectors(tree) for tree in group] for group in batches(3, VOCABULARY, 48, trees=120)]
    meets(compared(ranker, groups), 1e-9)


def without_given_vectors(tree: TokenTree) -> TokenTree:
    """Given vectors are fp32; widened, they are the same numbers on both sides."""
    nodes = []
    for node in tree.nodes:
        vectors = tuple(v if isinstance(v, tuple) else v.double() for v in node.vectors)
        nodes.append(TokenNode(node.slots, node.parent, node.after, node.answers, vectors))
    return TokenTree(tuple(nodes))


def test_the_order_of_leaves_and_of_trees_does_not_matter(tiny_engine: TorchEngine) -> None:
    rng = random.Random(4)
    trees = [random_tree(rng, VOCABULARY, 48) for _ in range(12)]
    expected = [scores.logp for scores in tiny_engine.score(trees)]
    order = rng.sample(range(12), 12)
    shuffled = [leaves_moved(trees[number], rng) for number in order]
    for number, (tree, places), scores in zip(
        order, shuffled, tiny_engine.score([t for t, _ in shuffled]), strict=True
    ):
        before = [index for index, node in enumerate(trees[number].nodes) if node.answers]
        after = [index for index, node in enumerate(tree.nodes) if node.answers]
        for index, logp in zip(after, scores.logp, strict=True):
            assert abs(logp - expected[number][before.index(places.index(index))]).max() <= 1e-5


def leaves_moved(tree: TokenTree, rng: random.Random) -> tuple[TokenTree, list[int]]:
    """The tree with its nodes in another order that still has parents first; where each node went."""
    waiting, placed, places = set(range(1, len(tree.nodes))), [0], [0] * len(tree.nodes)
    while waiting:
        ready = sorted(index for index in waiting if tree.nodes[index].parent in placed)
        index = rng.choice(ready)
        waiting.remove(index)
        places[index] = len(placed)
        placed.append(index)
    nodes = [
        TokenNode(n.slots, places[n.parent] if n.parent >= 0 else -1, n.after, n.answers, n.vectors)
        for n in (tree.nodes[index] for index in placed)
    ]
    return TokenTree(tuple(nodes)), places


def test_changing_one_leaf_changes_no_other(tiny_engine: TorchEngine) -> None:
    rng = random.Random(5)
    trunk = TokenNode(tuple(rng.randrange(3, VOCABULARY) for _ in range(50)))
    leaves = [TokenNode(tuple(rng.randrange(3, VOCABULARY) for _ in range(9)), 0, None, (3, 4)) for _ in range(20)]
    other = TokenNode(tuple(rng.randrange(3, VOCABULARY) for _ in range(31)), 0, None, (3, 4))
    before = tiny_engine.score([TokenTree((trunk, *leaves))])[0].table()
    after = tiny_engine.score([TokenTree((trunk, *leaves[:7], other, *leaves[8:]))])[0].table()
    others = [number for number in range(20) if number != 7]
    assert abs(before[others] - after[others]).max() <= 1e-5
    assert abs(before[7] - after[7]).max() > 1e-3


def test_candidates_in_one_request_do_not_collapse(tiny_engine: TorchEngine) -> None:
    rng = random.Random(6)
    trunk = TokenNode(tuple(rng.randrange(3, VOCABULARY) for _ in range(50)))
    leaves = [TokenNode((number,), 0, None, (3, 4)) for number in range(10, 60)]
    table = tiny_engine.score([TokenTree((trunk, *leaves))])[0].table()
    assert len({round(float(p), 6) for p in table[:, 0]}) > 45


@pytest.mark.parametrize("size", [1, 2, 333])
def test_many_equal_leaves_score_the_same(tiny_engine: TorchEngine, size: int) -> None:
    leaf = TokenNode((20, 21, 22), 0, None, (3, 4))
    table = tiny_engine.score([TokenTree((TokenNode((7, 8, 9)), *[leaf] * size))])[0].table()
    assert table.shape == (size, 2)
    assert (abs(table - table[0]) <= 1e-6).all()
