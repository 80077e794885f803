"""The requests that a benchmark scores: random tokens, since speed does not depend on what they say."""

from __future__ import annotations

import random
from dataclasses import dataclass

from foundation.engine.base import TokenNode, TokenTree

ANSWERS = (3, 4)


@dataclass(frozen=True, slots=True)
class Workload:
    """A member of `context` tokens and `candidates` of `candidate` tokens. Of a surface: `few` of them, and a stem.

    `event` is what the member's next visit adds to the context.
    """

    context: int = 400
    candidates: int = 100
    candidate: int = 24
    stem: int = 30
    few: int = 20
    event: int = 20

    def tree(self, vocabulary: int, *, likelihood: bool = False, member: int = 0) -> TokenTree:
        """The request as a tree: two answers a leaf, or its likelihood."""
        answers = () if likelihood else ANSWERS
        leaves = (
            TokenNode(_tokens(self.candidate, vocabulary, f"leaf {number}"), 0, None, answers, likelihood=likelihood)
            for number in range(self.candidates)
        )
        return TokenTree((TokenNode(_tokens(self.context, vocabulary, f"member {member}")), *leaves))

    def surface(self, vocabulary: int, number: int, *, grown: bool = False, member: int = 0) -> TokenTree:
        """A member on a surface; `grown`: with one event more."""
        trunk = _tokens(self.context, vocabulary, f"member {member}")
        trunk += _tokens(self.event, vocabulary, "event") if grown else ()
        stem = TokenNode(_tokens(self.stem, vocabulary, f"surface {number}"), 0)
        leaves = (
            TokenNode(_tokens(self.candidate, vocabulary, f"leaf {place}"), 1, None, ANSWERS)
            for place in range(self.few)
        )
        return TokenTree((TokenNode(trunk), stem, *leaves))

    @property
    def bound(self) -> float:
        """How many times fewer tokens the tree computes than whole prompts have."""
        whole = self.candidates * (self.context + self.candidate)
        return whole / (self.context + self.candidates * self.candidate)


def prompt_tokens(tree: TokenTree) -> int:
    """Tokens of the tree's leaves as whole prompts; every leaf hangs at the end of a chain of nodes."""
    total = 0
    for leaf in tree.nodes:
        node = leaf
        while leaf.asked:
            total += len(node.slots)
            if node.parent < 0:
                break
            node = tree.nodes[node.parent]
    return total


def _tokens(count: int, vocabulary: int, seed: str) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(8, vocabulary) for _ in range(count))
