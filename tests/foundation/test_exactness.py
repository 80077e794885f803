"""Packed equals single: shuffled, beside others, hung anywhere, cut into chunks, remembered, evicted and built again.

Every leaf is held against one plain causal sequence (see `reference`), by way of transformers' forward over whole trees
and by way of the engine, which merges trees, remembers trunks and stems, and has a forward of its own. Architectures
other than the nano's are in `test_architectures`.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from foundation.engine.base import TokenNode, TokenTree, Vector
from foundation.engine.torch import EngineSettings, TorchEngine
from foundation.model import Ranker, build, load, shipped
from foundation.tokenizer import TextEncoder
from tests.conftest import tiny_config
from tests.foundation.reference import (
    Comparison,
    Packed,
    References,
    Served,
    Way,
    compare,
    leaves_of,
    random_node,
    random_tree,
    routers_of,
    widen,
)
from tests.foundation.visits import Visits, drawn_settings, leaves_moved

VOCABULARY = 300
SLOT = 2 * 2 * 2 * 12
"""Numbers that the tiny model remembers of a slot: layers, keys and values, heads, size of a head."""


def run(seed: int, ranker: Ranker, encoder: TextEncoder, vocabulary: int, trees: int) -> Comparison:
    """The same calls scored every way: whole trees by transformers' forward, and engines of several settings."""
    rng = random.Random(seed)
    numbers = next(ranker.parameters()).element_size()
    ways: list[Way] = [Served(ranker, encoder, each) for each in drawn_settings(rng, SLOT * numbers)]
    visits, references = Visits(rng, vocabulary, ranker.hidden_size), References(ranker)
    found = Comparison()
    while visits.trees < trees:
        call = visits.call()
        for way in (Packed(ranker), *ways):
            found |= compare(way, references, call)
    return found


def meets(found: Comparison, bound: float) -> None:
    assert found.leaves > 1500
    assert found.rerouted <= found.leaves / 1000
    assert found.largest <= bound


def test_packed_equals_single_in_fp32(tiny_engine: TorchEngine) -> None:
    meets(run(1, tiny_engine.ranker, tiny_engine.encoder, VOCABULARY, trees=110), 1e-5)


def test_packed_equals_single_with_the_shipped_nano() -> None:
    ranker, encoder = load(shipped("nano"))
    meets(run(2, ranker, encoder, len(encoder.tokenizer), trees=70), 1e-5)


def test_packed_equals_single_in_fp64(tiny_encoder: TextEncoder) -> None:
    ranker = widen(build(tiny_config()).eval())
    meets(run(3, ranker, tiny_encoder, VOCABULARY, trees=80), 1e-9)


@pytest.mark.parametrize("chunk_slots", [1, 2, 3])
def test_chunks_of_a_few_slots(chunk_slots: int, tiny_engine: TorchEngine) -> None:
    rng, references = random.Random(chunk_slots), References(tiny_engine.ranker)
    way = Served(tiny_engine.ranker, tiny_engine.encoder, EngineSettings(1 << 20, chunk_slots))
    for _ in range(4):
        trees = [random_tree(rng, VOCABULARY, 48) for _ in range(2)]
        for _ in range(2):
            assert compare(way, references, trees).largest <= 1e-5


def test_experts_chosen_otherwise_at_a_tie_meet_the_bound_once_forced(tiny_encoder: TextEncoder) -> None:
    """Two experts whose scores differ by about what rounding does: their order depends on who shares the product."""
    ranker = build(tiny_config()).eval()
    for router in routers_of(ranker):
        weight = router.get_parameter("weight").data
        weight[1] = weight[0] * (1 + 1e-6 * torch.randn(weight.shape[1]))
    rng, references = random.Random(9), References(ranker)
    for way in (Packed(ranker), Served(ranker, tiny_encoder), Served(ranker, tiny_encoder, EngineSettings(0, 40))):
        found = Comparison()
        for _ in range(3):
            found |= compare(way, references, [random_tree(rng, VOCABULARY, 48) for _ in range(2)])
        assert found.rerouted > 0
        assert found.largest <= 1e-5


def test_experts_chosen_otherwise_beyond_a_tie_are_an_error(tiny_encoder: TextEncoder) -> None:
    ranker, tree = build(tiny_config()).eval(), random_tree(random.Random(10), VOCABULARY)
    references = References(ranker)
    expected = references.of(tree, leaves_of([tree])[0].node)
    for router in routers_of(ranker):
        router.get_parameter("weight").data.neg_()
    with pytest.raises(AssertionError, match="although the router's margin is"):
        compare(Served(ranker, tiny_encoder), references, [tree])
    assert expected.routing.chosen


def scored(engine: TorchEngine, *trees: TokenTree) -> list[list[np.ndarray]]:
    return [scores.logp for scores in engine.score(trees)]


def difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return max(float(abs(a - b).max()) for a, b in zip(one, other, strict=True))


@pytest.fixture
def engine(tiny_engine: TorchEngine) -> TorchEngine:
    """An engine over the tiny model that remembers nothing yet."""
    return TorchEngine(tiny_engine.ranker, tiny_engine.encoder)


def test_the_order_of_leaves_of_trees_and_of_calls_does_not_matter(engine: TorchEngine) -> None:
    rng = random.Random(4)
    trees = [random_tree(rng, VOCABULARY, 48) for _ in range(12)]
    expected = [scored(TorchEngine(engine.ranker, engine.encoder), tree)[0] for tree in trees]
    for _ in range(3):
        order = rng.sample(range(12), 12)
        moved = [leaves_moved(trees[number], rng) for number in order]
        size = rng.randint(1, 12)
        found = [each for at in range(0, 12, size) for each in scored(engine, *(t for t, _ in moved[at : at + size]))]
        for number, (tree, places), logp in zip(order, moved, found, strict=True):
            before = [leaf.node for leaf in leaves_of([trees[number]])]
            after = [leaf.node for leaf in leaves_of([tree])]
            back = [logp[after.index(places[node])] for node in before]
            assert difference(back, expected[number]) <= 1e-5


@pytest.mark.parametrize(
    "settings", [EngineSettings(), EngineSettings(0), EngineSettings(0, 13), EngineSettings(9_000)]
)
def test_changing_one_leaf_changes_no_other(settings: EngineSettings, tiny_engine: TorchEngine) -> None:
    engine, rng = TorchEngine(tiny_engine.ranker, tiny_engine.encoder, settings=settings), random.Random(5)
    for _ in range(10):
        tree = random_tree(rng, VOCABULARY, 48)
        below = {node.parent for node in tree.nodes}
        leaves = [leaf.node for leaf in leaves_of([tree])]
        chosen = rng.choice([node for node in leaves if node not in below])
        nodes = [*tree.nodes]
        nodes[chosen] = replace(random_node(rng, VOCABULARY, 48, *place_of(nodes[chosen])), answers=(3, 4))
        nodes[chosen] = replace(nodes[chosen], slots=(11, *nodes[chosen].slots))
        before, after = scored(engine, tree)[0], scored(engine, TokenTree(tuple(nodes)))[0]
        others = [number for number, node in enumerate(leaves) if node != chosen]
        assert difference([before[n] for n in others], [after[n] for n in others]) <= 1e-5
        assert abs(before[leaves.index(chosen)][:2] - after[leaves.index(chosen)]).max() > 1e-3


def place_of(node: TokenNode) -> tuple[int, int | None]:
    return node.parent, node.after


def test_candidates_in_one_request_do_not_collapse(engine: TorchEngine) -> None:
    trunk = random_node(random.Random(6), VOCABULARY)
    leaves = [TokenNode((number,), 0, None, (3, 4)) for number in range(10, 60)]
    for _ in ("cold", "from the cache"):
        table = engine.score([TokenTree((trunk, *leaves))])[0].table()
        assert len({round(float(p), 6) for p in table[:, 0]}) > 45


@pytest.mark.parametrize("size", [1, 2, 333])
def test_many_equal_leaves_score_the_same(size: int, engine: TorchEngine) -> None:
    leaf = TokenNode((20, 21, 22), 0, None, (3, 4))
    table = engine.score([TokenTree((TokenNode((7, 8, 9)), *[leaf] * size))])[0].table()
    assert table.shape == (size, 2)
    assert (abs(table - table[0]) <= 1e-6).all()


def test_thousands_of_leaves_score_as_each_alone(engine: TorchEngine) -> None:
    """Along one timeline, as training has them, and on two stems, as a large request has them."""
    rng, references = random.Random(7), References(engine.ranker)
    said = tuple(rng.randrange(3, VOCABULARY) for _ in range(400))
    stems = [TokenNode(said), TokenNode((8, 9, 10), 0, 1), TokenNode((8, 9, 10), 0)]
    leaves = []
    for _ in range(2000):
        parent = rng.randrange(3)
        slots = (rng.randrange(3, VOCABULARY),) * rng.randint(1, 4)
        leaves.append(TokenNode(slots, parent, None if parent else rng.randint(1, 400), (3, 4)))
    tree = TokenTree((*stems, *leaves))
    found = scored(engine, tree)[0]
    for number in rng.sample(range(2000), 40):
        expected = references.of(tree, number + 3).logp.numpy()
        assert abs(found[number] - expected).max() <= 1e-5


def test_a_cached_trunk_shifts_no_positions(engine: TorchEngine) -> None:
    """The same stem and leaves behind a trunk of any length, met short, long, and short again."""
    rng, references = random.Random(8), References(engine.ranker)
    said = tuple(rng.randrange(3, VOCABULARY) for _ in range(60))
    for size in (20, 60, 20, 1, 41, 60):
        leaves = [TokenNode((number, 9), 1, None, (3, 4)) for number in range(10, 15)]
        tree = TokenTree((TokenNode(said[:size]), TokenNode((7, 8), 0), *leaves))
        for leaf, found in zip(range(2, 7), scored(engine, tree)[0], strict=True):
            assert abs(found - references.of(tree, leaf).logp.numpy()).max() <= 1e-5


def test_equal_texts_and_other_tensors_are_not_taken_for_each_other(engine: TorchEngine) -> None:
    """Slots are alike, what stands behind them is not: given vectors, a text to compress, the same text as ids."""
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(48, generator=generator) for _ in range(2))
    vectors: list[Vector] = [one, two, (20, 21), (20, 22)]
    trees = [
        TokenTree((TokenNode((9, -1), vectors=(vector,)), TokenNode((10, -1), 0, None, (3, 4), (other,))))
        for vector in vectors
        for other in vectors
    ]
    trees.append(TokenTree((TokenNode((9, 20, 21)), TokenNode((10, 20, 21), 0, None, (3, 4)))))
    references = References(engine.ranker)
    for _ in ("cold", "from the cache"):
        found = [logp[0] for logp in scored(engine, *trees)]
        assert difference(found, [references.of(tree, 1).logp.numpy() for tree in trees]) <= 1e-5
        assert len({round(float(logp[0]), 4) for logp in found}) == len(trees)


def test_a_root_may_be_all_there_is(engine: TorchEngine) -> None:
    trees = [TokenTree((TokenNode(slots, answers=(3, 4)),)) for slots in ((5,), (5, 6), (7,) * 50)]
    references = References(engine.ranker)
    for _ in ("cold", "again"):
        for tree, logp in zip(trees, scored(engine, *trees), strict=True):
            assert abs(logp[0] - references.of(tree, 0).logp.numpy()).max() <= 1e-5


def test_one_answer_is_certain(engine: TorchEngine) -> None:
    tree = TokenTree((TokenNode((5,)), TokenNode((6,), 0, None, (3,)), TokenNode((6,), 0, None, (3, 4))))
    found = scored(engine, tree)[0]
    assert [len(logp) for logp in found] == [1, 2]
    assert found[0][0] == 0


def test_a_chain_of_many_nodes(engine: TorchEngine) -> None:
    """Every node behind the last, each of one slot, each answering: a sequence, told in pieces."""
    nodes = [TokenNode((10 + n,), n - 1, None, (3, 4)) for n in range(60)]
    whole = TokenTree(tuple(nodes))
    references = References(engine.ranker)
    for settings in (EngineSettings(), EngineSettings(0, 7)):
        way = Served(engine.ranker, engine.encoder, settings)
        assert max(compare(way, references, [whole]).largest for _ in range(2)) <= 1e-5
