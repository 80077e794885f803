"""Vectors that are sums of texts' vectors: what each part says stays apart, and is computed once."""

from __future__ import annotations

import pytest
import torch

from foundation.engine.base import Summed
from foundation.engine.forest import elements
from foundation.engine.torch import TorchEngine
from foundation.model import gather_vectors
from prompts.tree import Piece, PromptNode, PromptTree

FILM, LOUD, QUIET = " Heat (1995)", " popularity top 5", " chosen together none"


def tree(*pieces: Piece, likelihood: bool = False) -> PromptTree:
    leaf = PromptNode(pieces, 0, answers=() if likelihood else ("yes", "no"), likelihood=likelihood)
    return PromptTree((PromptNode((Piece("Member.\n"),)), leaf))


def both(*parts: str) -> Piece:
    return Piece(f" ({', '.join(part.strip() for part in parts)})", compress=True, parts=parts)


def test_a_sum_is_the_sum_of_its_parts(tiny_engine: TorchEngine) -> None:
    one, other = tiny_engine.encoder.encode(LOUD), tiny_engine.encoder.encode(QUIET)
    given = torch.ones(tiny_engine.ranker.hidden_size)
    with torch.no_grad():
        alone = tiny_engine.ranker.compress([one, other])
        found = gather_vectors(
            [Summed((one, other)), given, one, Summed((other,)), Summed((one, one))], tiny_engine.ranker.compress
        )
    expected = torch.stack([alone[0] + alone[1], given, alone[0], alone[1], 2 * alone[0]])
    assert torch.allclose(found, expected, atol=1e-6)


def test_each_part_is_compressed_once(tiny_engine: TorchEngine) -> None:
    asked: list[int] = []

    def compress(texts: list[tuple[int, ...]]) -> torch.Tensor:
        asked.append(len(texts))
        return torch.zeros(len(texts), 4)

    gather_vectors([Summed(((1,), (2,))), (2,), Summed(((2,), (1,))), Summed(((3,), (1,)))], compress)  # type: ignore[arg-type]
    assert asked == [3]


def test_a_sum_takes_one_slot_and_the_order_of_parts_says_nothing(tiny_engine: TorchEngine) -> None:
    read = tiny_engine.read(tree(Piece(FILM, compress=True), both(LOUD, QUIET)))
    assert len(read.nodes[1].slots) == 2
    turned = tiny_engine.read(tree(Piece(FILM, compress=True), both(QUIET, LOUD)))
    other = tiny_engine.read(tree(Piece(FILM, compress=True), both(LOUD, LOUD)))
    scores = [tiny_engine.score([each])[0].logp[0] for each in (read, turned, other)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert abs(scores[0] - scores[2]).max() > 1e-6


def test_where_nothing_is_compressed_the_text_is_read(tiny_engine: TorchEngine) -> None:
    said = both(LOUD, QUIET)
    as_text = tiny_engine.read(tree(said._replace(compress=False)))
    assert as_text.nodes[1].slots == tiny_engine.encoder.encode(said.text)
    asked = tiny_engine.read(tree(said, likelihood=True))
    assert asked.nodes[1].slots == as_text.nodes[1].slots, "a vector has no tokens to be likely"


def test_sums_of_other_texts_are_other_slots() -> None:
    one, other = Summed(((1,), (2,))), Summed(((1,), (3,)))
    assert elements((-1,), (one,)) == elements((-1,), (Summed(((1,), (2,))),))
    assert elements((-1,), (one,)) != elements((-1,), (other,))


def test_gradients_reach_every_part(tiny_engine: TorchEngine) -> None:
    table = torch.nn.Parameter(torch.randn(3, 4))
    found = gather_vectors([Summed(((0,), (1,))), (2,)], lambda texts: table[[text[0] for text in texts]])
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert table.grad is not None
    assert table.grad.tolist() == [[1.0] * 4] * 3
