"""A forest in chunks: every slot once, no chunk too large, and each slot sees exactly what it should."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from unittest.mock import patch

import numpy as np
import pytest

from foundation.engine import run as running
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.forest import Elements, Forest
from foundation.engine.pack import Layout, Memory, Run, Work, lay_out
from foundation.engine.torch import EngineSettings, TorchEngine
from prompts.errors import ConfigError
from tests.foundation.reference import References, Served, compare, random_node, random_tree
from tests.foundation.visits import Visits

Slot = tuple[int, int]
"""A node and one of its slots."""
Said = tuple[str, Elements]
"""Who a slot is: its salt, and all that it sees and itself say. Nodes that begin alike may share remembered rows."""


@dataclass
class Chunk:
    """One forward: its forest, its works, how it was laid out, and whose the remembered rows were."""

    forest: Forest
    works: list[Work]
    laid: Layout
    remembered: dict[int, Slot]

    @property
    def rows(self) -> list[Slot]:
        """Whose the new rows are."""
        return [(work.node, slot) for work in self.works for slot in range(work.start, work.stop)]

    def seen(self) -> list[Counter[Said]]:
        """By row, how often each slot is among its keys."""
        rows = [said(self.forest, slot) for slot in self.rows]
        remembered = {row: said(self.forest, slot) for row, slot in self.remembered.items()}
        found: list[Counter[Said]] = [Counter() for _ in rows]
        for one in self.laid.geometry.own:
            for place in range(one.q_size):
                end = one.k_start + one.k_size - one.q_size + place + 1
                found[one.q_start + place].update(rows[one.k_start : end])
        for one in self.laid.geometry.above:
            keys = [remembered[n] if one.remembered else rows[n] for n in range(one.k_start, one.k_start + one.k_size)]
            for place in range(one.q_start, one.q_start + one.q_size):
                found[place].update(keys)
        return found


def said(forest: Forest, slot: Slot) -> Said:
    return forest.nodes[slot[0]].salt, forest.path(slot[0])[: depth(forest, slot) + 1]


def depth(forest: Forest, slot: Slot) -> int:
    return forest.nodes[slot[0]].depth + slot[1]


def visible(forest: Forest, slot: Slot) -> Counter[Said]:
    """What a slot sees, from the definition alone: everything on its path, once."""
    salt, path = said(forest, slot)
    return Counter((salt, path[: end + 1]) for end in range(len(path)))


@contextmanager
def watched() -> Iterator[list[Chunk]]:
    """Every chunk that is laid out."""
    chunks: list[Chunk] = []

    def lay(forest: Forest, works: Sequence[Work], memory: Memory) -> Layout:
        rows = {
            run.start + n: (node, slot)
            for node, runs in memory.runs.items()
            for run, first in zip(runs, np.cumsum([0, *(run.size for run in runs)]).tolist(), strict=False)
            for n, slot in enumerate(range(first, first + run.size))
        }
        chunks.append(Chunk(forest, [*works], lay_out(forest, works, memory), rows))
        return chunks[-1].laid

    with patch.object(running, "lay_out", lay):
        yield chunks


@pytest.mark.parametrize("chunk_slots", [1, 2, 7, 25, 150, 4096])
@pytest.mark.parametrize("cache_bytes", [0, 15_000, 1 << 20])
def test_every_slot_sees_what_it_should_exactly_once(
    chunk_slots: int, cache_bytes: int, tiny_engine: TorchEngine
) -> None:
    settings = EngineSettings(cache_bytes, chunk_slots)
    engine = TorchEngine(tiny_engine.ranker, tiny_engine.encoder, settings=settings)
    visits = Visits(random.Random(chunk_slots), 300, 48)
    while visits.trees < (6 if chunk_slots < 5 else 15):
        with watched() as chunks:
            engine.score(visits.call())
        assert set(Counter(slot for chunk in chunks for slot in chunk.rows).values()) == {1}
        for chunk in chunks:
            assert 1 <= len(chunk.rows) <= chunk_slots
            assert chunk.seen() == [visible(chunk.forest, slot) for slot in chunk.rows]
            stands_where_it_should(chunk)
            stays = (chunk.forest.nodes[node] for node, _ in chunk.remembered.values())
            assert all(node.children or node.size > chunk_slots for node in stays)


def stands_where_it_should(chunk: Chunk) -> None:
    geometry = chunk.laid.geometry
    assert [depth(chunk.forest, slot) for slot in chunk.rows] == geometry.q_positions.tolist()
    assert chunk.laid.positions.tolist() == geometry.k_positions.tolist() == geometry.q_positions.tolist()
    remembered = geometry.remembered_positions.tolist()
    assert all(remembered[row] == depth(chunk.forest, slot) for row, slot in chunk.remembered.items())


@pytest.mark.parametrize("chunk_slots", [1, 5, 40, 4096])
def test_without_a_cache_every_slot_is_computed_once_a_call(chunk_slots: int, tiny_engine: TorchEngine) -> None:
    engine = TorchEngine(tiny_engine.ranker, tiny_engine.encoder, settings=EngineSettings(0, chunk_slots))
    rng = random.Random(chunk_slots)
    trees = [random_tree(rng, 300) for _ in range(3)]
    with watched() as chunks:
        engine.score(trees)
    forest = chunks[0].forest
    everything = {(n, slot) for n, node in enumerate(forest.nodes) for slot in range(node.size)}
    assert Counter(slot for chunk in chunks for slot in chunk.rows) == Counter(everything)


def test_only_long_candidates_are_cut(tiny_engine: TorchEngine) -> None:
    engine = TorchEngine(tiny_engine.ranker, tiny_engine.encoder, settings=EngineSettings(0, 10))
    sizes = (4, 3, 5, 9, 10, 11, 25)
    leaves = [TokenNode(tuple(range(20, 20 + size)), 0, None, (3, 4)) for size in sizes]
    with watched() as chunks:
        engine.score([TokenTree((TokenNode(tuple(range(5, 18))), *leaves))])
    pieces = Counter(work.node for chunk in chunks for work in chunk.works)
    assert [pieces[node] for node in range(8)] == [2, 1, 1, 1, 1, 1, 2, 3]
    assert sum(len(chunk.rows) for chunk in chunks) == 13 + sum(sizes)
    assert [work.node for chunk in chunks[:2] for work in chunk.works][:2] == [0, 0]


def test_trunks_and_stems_come_before_candidates(tiny_engine: TorchEngine) -> None:
    engine = TorchEngine(tiny_engine.ranker, tiny_engine.encoder, settings=EngineSettings(0, 6))
    rng = random.Random(2)
    with watched() as chunks:
        engine.score([random_tree(rng, 300) for _ in range(3)])
    works = [(chunk.forest, work) for chunk in chunks for work in chunk.works]
    numbers = [n for n, chunk in enumerate(chunks) for _ in chunk.works]
    inner = [n for n, (forest, work) in zip(numbers, works, strict=True) if forest.nodes[work.node].children]
    leaves = [n for n, (forest, work) in zip(numbers, works, strict=True) if not forest.nodes[work.node].children]
    assert max(inner) <= min(leaves)


@pytest.mark.parametrize("chunk_slots", [0, -1])
def test_a_chunk_of_no_slots_is_refused(chunk_slots: int) -> None:
    with pytest.raises(ConfigError, match="chunk_slots"):
        EngineSettings(chunk_slots=chunk_slots)


def grown(size: int, *works: tuple[Work, int]) -> Memory:
    """A memory of works of nodes at depths, added one after another."""
    memory = Memory()
    for work, deep in works:
        memory.add(work, len(memory.positions), deep)
    assert len(memory.positions) == size
    return memory


def test_memory_joins_runs_that_follow_each_other() -> None:
    memory = grown(9, (Work(0, 0, 3), 0), (Work(0, 3, 5), 0), (Work(1, 0, 2), 4), (Work(0, 5, 7), 0))
    assert memory.runs == {0: [Run(0, 5), Run(7, 2)], 1: [Run(5, 2)]}
    assert memory.positions.tolist() == [0, 1, 2, 3, 4, 4, 5, 5, 6]
    assert (memory.known(0), memory.known(1), memory.known(2)) == (7, 2, 0)


@pytest.mark.parametrize(
    ("slots", "runs"),
    [(0, []), (1, [Run(0, 1)]), (5, [Run(0, 5)]), (6, [Run(0, 5), Run(7, 1)]), (99, [Run(0, 5), Run(7, 2)])],
)
def test_memory_gives_the_rows_of_a_nodes_beginning(slots: int, runs: list[Run]) -> None:
    memory = grown(9, (Work(0, 0, 5), 0), (Work(1, 0, 2), 5), (Work(0, 5, 7), 0))
    assert list(memory.upto(0, slots)) == runs


def nodes_of(*trees: TokenTree, merge: bool = True) -> list[tuple[tuple[int, ...], int]]:
    return [(node.slots, node.depth) for node in Forest.of(trees, merge=merge).nodes]


TRUNK = TokenNode((10, 11, 12))
ONE = TokenTree((TRUNK, TokenNode((20,), 0), TokenNode((30,), 1, None, (3, 4)), TokenNode((31,), 1, None, (3, 4))))
TWO = TokenTree((TRUNK, TokenNode((21,), 0), TokenNode((30,), 1, None, (3, 4))))


def test_equal_nodes_behind_the_same_are_one() -> None:
    assert nodes_of(ONE, ONE) == nodes_of(ONE)
    assert nodes_of(ONE, TWO) == [*nodes_of(ONE), ((21,), 3), ((30,), 4)]
    assert len(nodes_of(ONE, TWO, merge=False)) == 7


def test_nodes_of_different_salts_are_never_one() -> None:
    assert len(nodes_of(ONE, replace(ONE, salt="a"))) == 8
    assert len(nodes_of(replace(ONE, salt="a"), replace(ONE, salt="a"))) == 4


def test_what_hangs_elsewhere_is_another_node() -> None:
    middle = TokenTree((TRUNK, TokenNode((20,), 0, 2)))
    assert nodes_of(ONE, middle) == [*nodes_of(ONE), ((20,), 2)]
    assert nodes_of(ONE, TokenTree((TRUNK, TokenNode((20,), 0, 3)))) == nodes_of(ONE)


def test_equal_nodes_are_computed_once_and_score_all_their_leaves(tiny_engine: TorchEngine) -> None:
    trees = [ONE, TWO, ONE, replace(ONE, salt="a"), TokenTree((TRUNK, TokenNode((30,), 0, None, (5, 6))))]
    engine = TorchEngine(tiny_engine.ranker, tiny_engine.encoder, settings=EngineSettings(0))
    with watched() as chunks:
        found = [scores.logp for scores in engine.score(trees)]
    assert sum(len(chunk.rows) for chunk in chunks) == 6 + 2 + 6 + 1
    references = References(engine.ranker)
    for tree, logp in zip(trees, found, strict=True):
        leaves = [n for n, node in enumerate(tree.nodes) if node.answers]
        for leaf, each in zip(leaves, logp, strict=True):
            assert abs(each - references.of(tree, leaf).logp.numpy()).max() <= 1e-5


def test_one_node_may_be_asked_for_different_answers(tiny_engine: TorchEngine) -> None:
    leaves = [TokenNode((30, 31), 0, None, answers) for answers in ((3, 4), (5, 6, 7), (4, 3), (9,))]
    tree = TokenTree((TRUNK, *leaves))
    way = Served(tiny_engine.ranker, tiny_engine.encoder)
    assert compare(way, References(tiny_engine.ranker), [tree]).largest <= 1e-5
    with watched() as chunks:
        found = way.engine.score([tree])[0].logp
    assert sum(len(chunk.rows) for chunk in chunks) == 2
    assert [len(logp) for logp in found] == [2, 3, 2, 1]


def test_a_leaf_here_is_a_stem_there(tiny_engine: TorchEngine) -> None:
    """The same node answers in one tree, has children in another, and both in a third."""
    leaf = TokenTree((TRUNK, TokenNode((20, 21), 0, None, (3, 4))))
    stem = TokenTree((TRUNK, TokenNode((20, 21), 0), TokenNode((30,), 1, 1, (3, 4))))
    both = TokenTree((TRUNK, TokenNode((20, 21), 0, None, (5, 6)), TokenNode((31,), 1, None, (3, 4))))
    for settings in (EngineSettings(), EngineSettings(0), EngineSettings(chunk_slots=2)):
        way, references = Served(tiny_engine.ranker, tiny_engine.encoder, settings), References(tiny_engine.ranker)
        for trees in ([leaf], [leaf, stem, both], [stem, leaf], [both], [leaf]):
            assert compare(way, references, trees).largest <= 1e-5


def test_trees_that_ask_for_nothing_are_in_nobodys_way(tiny_engine: TorchEngine) -> None:
    rng = random.Random(3)
    bare = [TokenTree((random_node(rng, 300), random_node(rng, 300, parent=0))) for _ in range(3)]
    tree = random_tree(rng, 300)
    way, references = (
        Served(tiny_engine.ranker, tiny_engine.encoder, EngineSettings(chunk_slots=9)),
        References(tiny_engine.ranker),
    )
    for trees in ([bare[0], tree], [tree, *bare], [*bare, tree]):
        assert compare(way, references, trees).largest <= 1e-5
    assert [len(scores.logp) for scores in way.engine.score([*bare, tree])][:3] == [0, 0, 0]
