"""The embedded engine: text to slots, answers only, vectors, packing, and what it refuses."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from foundation import heads
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.pack import pack
from foundation.engine.torch import EngineSettings, TorchEngine
from foundation.model import build
from foundation.tokenizer import TextEncoder
from prompts.errors import CheckpointError, ConfigError, TreeError
from prompts.tree import Piece, PromptNode, PromptTree
from tests.conftest import tiny_config


def request(leaves: int, *, compress: bool = False, text: str = "liked Toy Story (1995)\n") -> PromptTree:
    trunk = PromptNode((Piece("Member. 24 M technician\n"), Piece(text, compress), Piece(text, compress)))
    stem = PromptNode((Piece("Films. Which one?\n"),), 0)
    nodes = (
        PromptNode((Piece(f"Film {n}", compress),), 1, answers=("like", "none", "yes", "no")) for n in range(leaves)
    )
    return PromptTree((trunk, stem, *nodes))


def test_every_piece_is_encoded_alone(tiny_engine: TorchEngine) -> None:
    whole = PromptTree((PromptNode((Piece("Toy"), Piece(" Story"), Piece(" Story"))),))
    ids = [tiny_engine.encoder.encode(text) for text in ("Toy", " Story", " Story")]
    assert tiny_engine.read(whole).nodes[0].slots == (*tiny_engine.encoder.begin, *ids[0], *ids[1], *ids[2])


def test_a_compressed_piece_is_one_slot(tiny_engine: TorchEngine) -> None:
    piece = Piece("liked Toy Story (1995)\n", compress=True)
    assert tiny_engine.count(piece) == 1
    assert tiny_engine.count(piece._replace(compress=False)) == len(tiny_engine.encoder.encode(piece.text)) > 1
    tree = tiny_engine.read(request(3, compress=True))
    assert [len(node.slots) for node in tree.nodes[2:]] == [1, 1, 1]
    assert tree.nodes[0].vectors == (tiny_engine.encoder.encode(piece.text),) * 2


def test_a_model_without_compressor_reads_the_text(tiny_encoder: TextEncoder) -> None:
    plain = TorchEngine(build(tiny_config(compressor=False)), tiny_encoder, settings=EngineSettings(cache_bytes=0))
    compressed, text = (plain.score([plain.read(request(3, compress=flag))])[0].table() for flag in (True, False))
    assert np.array_equal(compressed, text)
    with pytest.raises(CheckpointError, match="no compressor"):
        plain.ranker.compress([(1, 2)])


def test_where_a_child_hangs_counts_pieces_as_slots(tiny_engine: TorchEngine) -> None:
    trunk = PromptNode((Piece("Member\n"), Piece("liked Toy Story", compress=True), Piece("watched", compress=True)))
    leaves = [PromptNode((Piece("Film"),), 0, after, ("yes", "no")) for after in (1, 2, 3)]
    tree = tiny_engine.read(PromptTree((trunk, *leaves)))
    first = len(tiny_engine.encoder.begin) + len(tiny_engine.encoder.encode("Member\n"))
    assert [node.after for node in tree.nodes[1:]] == [first, first + 1, first + 2]


def test_answers_are_normalised_over_the_leafs_own(tiny_engine: TorchEngine) -> None:
    trunk = TokenNode((10, 11))
    one, two = (TokenNode((12,), 0, None, answers) for answers in ((3, 4), (3, 4, 5, 6)))
    scores = tiny_engine.score([TokenTree((trunk, one, two))])[0]
    assert [len(logp) for logp in scores.logp] == [2, 4]
    assert [float(np.exp(logp).sum()) for logp in scores.logp] == pytest.approx([1.0, 1.0])
    assert scores.logp[0][0] - scores.logp[0][1] == pytest.approx(scores.logp[1][0] - scores.logp[1][1], abs=1e-5)


def test_only_answer_rows_of_the_head_are_computed(tiny_engine: TorchEngine) -> None:
    head = tiny_engine.ranker.lm.get_output_embeddings()
    calls: list[object] = []
    hook = head.register_forward_hook(lambda *call: calls.append(call))
    try:
        tiny_engine.score([tiny_engine.read(request(4))])
    finally:
        hook.remove()
    assert calls == []


def test_given_vectors_stand_for_ids(tiny_engine: TorchEngine) -> None:
    table = tiny_engine.ranker.lm.get_input_embeddings().weight.detach()
    ids = TokenTree((TokenNode((10, 11)), TokenNode((12, 13), 0, None, (3, 4))))
    vectors = (table[11].clone(),)
    mixed = TokenTree((TokenNode((10, -1), vectors=vectors), TokenNode((12, 13), 0, None, (3, 4))))
    both = [tiny_engine.score([tree])[0].table() for tree in (ids, mixed)]
    assert np.abs(both[0] - both[1]).max() <= 1e-6


def test_trees_without_leaves_have_no_scores(tiny_engine: TorchEngine) -> None:
    bare = TokenTree((TokenNode((10, 11)),))
    full = TokenTree((TokenNode((10,)), TokenNode((12,), 0, None, (3, 4))))
    assert [len(scores.logp) for scores in tiny_engine.score([bare, full, bare])] == [0, 1, 0]
    assert [len(scores.logp) for scores in tiny_engine.score([bare])] == [0]


def test_threads_may_score_at_once(tiny_engine: TorchEngine) -> None:
    trees = [tiny_engine.read(request(n, compress=True)) for n in range(1, 9)]
    expected = [tiny_engine.score([tree])[0].table() for tree in trees]
    found: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.__setitem__(n, tiny_engine.score([trees[n]])[0].table()))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.abs(found[n] - expected[n]).max() <= 1e-5 for n in range(8))


def test_embeddings_have_length_one(tiny_engine: TorchEngine, tiny_encoder: TextEncoder) -> None:
    plain = TorchEngine(build(tiny_config(compressor=False)), tiny_encoder)
    for engine in (tiny_engine, plain):
        rows = engine.embed(["Toy Story (1995)", "GoldenEye (1995)", "", "Toy Story (1995)"])
        assert rows.shape == (4, 48)
        assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
        assert np.abs(rows[0] - rows[3]).max() <= 1e-6
        assert engine.embed([]).shape == (0, 48)


def test_a_vector_is_kept_for_its_own_tenant(tiny_encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that one tenant has had read is read anew for another, with the same result; `forget` drops it."""
    ranker = build(tiny_config(vocab_size=len(tiny_encoder.tokenizer)))
    engine, made = TorchEngine(ranker, tiny_encoder), list[int]()
    compress = ranker.compress
    monkeypatch.setattr(ranker, "compress", lambda texts: (made.append(len(texts)), compress(texts))[1])
    texts = tuple(tuple(tiny_encoder.encode(text)) for text in ("Toy Story", "GoldenEye", "Toy Story"))
    leaf = TokenNode((5,), 0, None, (3, 4))
    a, b = (TokenTree((TokenNode((-1, -2, -3), vectors=texts), leaf), salt) for salt in ("a", "b"))
    first = engine.score([a])[0].table()
    engine.score([a])
    assert made == [2], "each different text once"
    assert np.abs(engine.score([b])[0].table() - first).max() <= 1e-6
    assert made == [2, 2]
    engine.embed(["Toy Story"], "a")
    engine.embed(["Toy Story"])
    assert made == [2, 2, 1]
    engine.forget()
    both = engine.score([a, b])
    assert max(np.abs(scores.table() - first).max() for scores in both) <= 1e-6
    engine.forget()
    engine.score([a])
    assert made[-1] == 2


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((TokenNode(()),), "no slots"),
        ((TokenNode((3,)), TokenNode((4,), 0, 2)), "hangs after slot 2 of a parent with 1"),
        ((TokenNode((3,)), TokenNode((4,), 0, 0)), "hangs after slot 0"),
        ((TokenNode((3,)), TokenNode((4,), -1)), "node 0 alone is the root"),
        ((TokenNode((3,)), TokenNode((4,), 9)), "its parent must be an earlier node"),
        ((TokenNode((3,)), TokenNode((4,), 1)), "its parent must be an earlier node"),
        ((TokenNode((3, -2), vectors=((5,),)),), "slot -2, but it has 1 vectors"),
        ((), "at least one node"),
    ],
)
def test_a_tree_that_does_not_hold_together_is_refused(nodes: tuple[TokenNode, ...], message: str) -> None:
    with pytest.raises(TreeError, match=message):
        pack([TokenTree(nodes)])


def test_no_trees_no_scores(tiny_engine: TorchEngine) -> None:
    assert tiny_engine.score([]) == []
    with pytest.raises(TreeError, match="at least one tree"):
        pack([])


def test_positions_restart_at_each_child() -> None:
    tree = TokenTree((TokenNode((9,) * 5), TokenNode((8, 8), 0, 3), TokenNode((7, 7), 0), TokenNode((6,), 1, 1)))
    packed = pack([tree])
    assert packed.slots.tolist() == [9] * 5 + [8, 8, 6, 7, 7]
    assert packed.positions.tolist() == [0, 1, 2, 3, 4, 3, 4, 4, 5, 6]


def test_all_but_the_trunk_goes_under_an_adapter() -> None:
    tree = TokenTree((TokenNode((9,) * 5), TokenNode((8, 8), 0, 3), TokenNode((6,), 1, 1, (3, 4), (), True)), "tenant")
    under = tree.adapted("jobs")
    assert [node.adapter for node in under.nodes] == ["", "jobs", "jobs"]
    assert under.adapted("") == tree
    assert pack([under]).adapted["jobs"].tolist() == [5, 6, 7]
    assert pack([tree]).adapted == {}


def test_rows_of_adapters_are_told_apart_wherever_their_nodes_lie() -> None:
    leaves = [TokenNode((7,) * (n + 1), 0, None, (3, 4), adapter=name) for n, name in enumerate(("a", "", "b", "a"))]
    rows = pack([TokenTree((TokenNode((9, 9)), *leaves)), TokenTree((TokenNode((9,)), leaves[0]))]).adapted
    assert {name: each.tolist() for name, each in rows.items()} == {"a": [2, 8, 9, 10, 11, 13], "b": [5, 6, 7]}


def test_answers_that_begin_alike_are_refused(tiny_engine: TorchEngine) -> None:
    with pytest.raises(ConfigError, match="begins with the same token"):
        tiny_engine.encoder.words(("like", "like"))


def test_heads_renormalise_over_their_own_answers() -> None:
    logp = torch.randn(6, 5).log_softmax(dim=-1).numpy()
    assert heads.choice(logp[:, :3]).sum(axis=1) == pytest.approx(np.ones(6))
    odds = logp[:, 3] - logp[:, 4]
    assert heads.pointwise(logp[:, 3:]) == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-6)
