"""The likelihood head: how much more likely a leaf's tokens are behind its trunk, against each sequence alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foundation.attention.registry import IMPLEMENTATION
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.torch import EngineSettings, TorchEngine
from foundation.model import Ranker
from prompts.errors import TreeError
from prompts.tree import Piece, PromptNode, PromptTree

TRUNK, STEM = TokenNode((0, 40, 41, 42, 43, 44, 45)), TokenNode((50, 51, 52), 0)
LEAVES = [(60, 61, 62), (70,), (60, 61, 62, 63, 64), (80, 81)]


def leaf(tokens: tuple[int, ...], parent: int, after: int | None = None, answers: tuple[int, ...] = ()) -> TokenNode:
    return TokenNode(tokens, parent, after, answers, likelihood=True)


def tree(**kinds: str) -> TokenTree:
    return TokenTree((TRUNK, STEM, *(leaf(tokens, 1) for tokens in LEAVES)), **kinds)


@torch.inference_mode()
def logp(ranker: Ranker, before: tuple[int, ...], tokens: tuple[int, ...]) -> float:
    """Mean log-probability of tokens behind others, by transformers alone."""
    ranker.lm.set_attn_implementation("eager")
    try:
        found = ranker.lm(torch.tensor([before + tokens])).logits[0].log_softmax(dim=-1)
    finally:
        ranker.lm.set_attn_implementation(IMPLEMENTATION)
    return float(np.mean([float(found[len(before) + n - 1, token]) for n, token in enumerate(tokens)]))


def gain(engine: TorchEngine, trunk: tuple[int, ...], stem: tuple[int, ...], tokens: tuple[int, ...]) -> float:
    begin = engine.encoder.begin
    return logp(engine.ranker, trunk + stem, tokens) - logp(engine.ranker, begin + stem, tokens)


@pytest.fixture(scope="module")
def expected(tiny_engine: TorchEngine) -> list[float]:
    return [gain(tiny_engine, TRUNK.slots, STEM.slots, tokens) for tokens in LEAVES]


@pytest.mark.parametrize("chunk_slots", [3, 8, 4096])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 24])
def test_it_equals_each_sequence_alone(
    tiny_engine: TorchEngine, expected: list[float], chunk_slots: int, cache_bytes: int
) -> None:
    settings = EngineSettings(cache_bytes=cache_bytes, chunk_slots=chunk_slots)
    engine = TorchEngine(tiny_engine.ranker, tiny_engine.encoder, settings=settings)
    for _ in range(2):
        assert engine.score([tree()])[0].likelihood == pytest.approx(expected, abs=1e-5)


def test_leaves_that_hang_from_the_trunk_itself_or_from_its_middle(tiny_engine: TorchEngine) -> None:
    nodes = (TRUNK, leaf(LEAVES[0], 0), leaf(LEAVES[0], 0, 3), STEM, leaf(LEAVES[0], 3, 2))
    found = tiny_engine.score([TokenTree(nodes)])[0].likelihood
    cases = [(TRUNK.slots, ()), (TRUNK.slots[:3], ()), (TRUNK.slots, STEM.slots[:2])]
    assert found == pytest.approx([gain(tiny_engine, *case, LEAVES[0]) for case in cases], abs=1e-5)


def test_beside_answers_and_other_trees(tiny_engine: TorchEngine, expected: list[float]) -> None:
    both = TokenTree((TRUNK, STEM, *(leaf(tokens, 1, answers=(3, 4)) for tokens in LEAVES)))
    plain = TokenTree((TRUNK, STEM, *(TokenNode(tokens, 1, None, (3, 4)) for tokens in LEAVES)))
    mixed = TokenTree((TRUNK, STEM, leaf(LEAVES[0], 1), TokenNode(LEAVES[1], 1, None, (3, 4))))
    first, second, third = tiny_engine.score([both, plain, mixed])
    assert first.likelihood == pytest.approx(expected, abs=1e-5)
    assert np.abs(first.table() - second.table()).max() <= 1e-5
    assert np.isnan(second.likelihood).all()
    assert third.likelihood[0] == pytest.approx(expected[0], abs=1e-5)
    assert [len(each) for each in third.logp] == [0, 2]


def test_without_a_trunk_it_is_computed_once(tiny_engine: TorchEngine) -> None:
    engine = TorchEngine(tiny_engine.ranker, tiny_engine.encoder, settings=EngineSettings(cache_bytes=0))
    computed = []
    forward = engine._runner.reader.hidden

    def counted(x_ND: torch.Tensor, *rest: object) -> torch.Tensor:
        computed.append(len(x_ND))
        return forward(x_ND, *rest)

    engine._runner.reader = type("Counted", (), {"hidden": staticmethod(counted), "layers": 2})()
    other = TokenTree((TokenNode((0, 90, 91)), STEM, *(leaf(tokens, 1) for tokens in LEAVES)))
    for each in (tree(), tree(), other, tree(salt="another tenant")):
        engine.score([each])
    leaves = sum(map(len, LEAVES))
    alone = len(engine.encoder.begin) + 3 + leaves
    assert computed == [10 + leaves + alone, 10 + leaves, 6 + leaves, 10 + leaves + alone]


def test_text_is_read_as_text_where_likelihood_is_asked(tiny_engine: TorchEngine) -> None:
    nodes = [PromptNode((Piece("Toy Story (1995)", compress=True),), 0, likelihood=flag) for flag in (True, False)]
    read = tiny_engine.read(PromptTree((PromptNode((Piece("Member"),)), *nodes)))
    assert [bool(node.vectors) for node in read.nodes[1:]] == [False, True]
    assert [node.likelihood for node in read.nodes] == [False, True, False]


def test_vectors_among_the_tokens_are_conditions_only(tiny_engine: TorchEngine) -> None:
    mixed = TokenNode((60, -1, 61), 0, None, (), ((30, 31),), likelihood=True)
    assert np.isfinite(tiny_engine.score([TokenTree((TRUNK, mixed))])[0].likelihood).all()


def test_a_root_has_no_trunk(tiny_engine: TorchEngine) -> None:
    with pytest.raises(TreeError, match="hangs from a trunk"):
        tiny_engine.score([TokenTree((TokenNode((3, 4), likelihood=True),))])
