"""A tree holds together, or says at once why it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import PrismrankError, TreeError
from prompts.tree import Piece, PromptNode, PromptTree

A, B = Piece("a"), Piece("b", compress=True)


def node(parent: int = -1, after: int | None = None, answers: tuple[str, ...] = (), pieces: int = 2) -> PromptNode:
    return PromptNode((A, B)[:pieces], parent, after, answers)


def test_leaves_and_ancestors() -> None:
    tree = PromptTree((node(), node(0), node(1, answers=("yes",)), node(0, after=1), node(3, answers=("yes", "no"))))
    assert tree.leaves == (2, 4)
    assert list(tree.ancestors(4)) == [3, 0]
    assert list(tree.ancestors(0)) == []


def test_a_tree_of_one_node() -> None:
    assert PromptTree((node(answers=("yes",)),)).leaves == (0,)


@pytest.mark.parametrize(
    ("nodes", "problem"),
    [
        ((), "at least one node"),
        ((node(0),), "node 0: its parent must be an earlier node"),
        ((node(), node(-1)), "node 1: its parent must be an earlier node; node 0 alone is the root"),
        ((node(), node(1)), "node 1: its parent must be an earlier node"),
        ((node(), node(2), node(0)), "node 1: its parent"),
        ((node(pieces=0),), "node 0: it has no pieces"),
        ((node(), node(0, pieces=0)), "node 1: it has no pieces"),
        ((node(), node(0, after=0)), "node 1: after=0, but its parent has 2 pieces"),
        ((node(), node(0, after=3)), "node 1: after=3, but its parent has 2 pieces"),
        ((node(), node(0, after=-1)), "after=-1"),
    ],
)
def test_what_does_not_hold_together(nodes: tuple[PromptNode, ...], problem: str) -> None:
    with pytest.raises(TreeError, match=problem) as raised:
        PromptTree(nodes)
    assert isinstance(raised.value, PrismrankError)


@given(st.lists(st.integers(0, 9), max_size=10))
def test_parents_come_first_and_the_root_is_above_all(parents: list[int]) -> None:
    nodes = [node(), *(node(parent % (index + 1)) for index, parent in enumerate(parents))]
    tree = PromptTree(tuple(nodes))
    for index in range(1, len(nodes)):
        above = list(tree.ancestors(index))
        assert above[-1] == 0
        assert above == sorted(above, reverse=True)


def test_trees_of_the_same_content_are_equal() -> None:
    assert PromptTree((node(), node(0))) == PromptTree((node(), node(0)))
    assert hash(PromptTree((node(),))) == hash(PromptTree((node(),)))
    assert PromptTree((node(),)) != PromptTree((node(answers=("yes",)),))
