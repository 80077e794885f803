"""Adapters served: many in one forward over one trunk, each exact; added and removed while others score."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Gemma3TextConfig, Olmo2Config, PreTrainedConfig, Qwen3Config

from foundation.decoder import Decoder
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.pack import pack
from foundation.engine.torch import SERVING, EngineSettings, TorchEngine
from foundation.model import Ranker, build
from foundation.tokenizer import TextEncoder
from prompts.errors import ConfigError, TreeError
from tests.conftest import tiny_config
from tests.foundation.adapted import BASE, VOCABULARY, ByPeft, engine_with, mixed, scored, visit
from tests.foundation.llamas import SMALL, dense
from tests.foundation.reference import random_node, random_tree, widen


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return build(tiny_config()).eval()


@pytest.fixture(scope="module")
def by_peft(ranker: Ranker) -> ByPeft:
    return ByPeft(ranker)


@pytest.fixture(scope="module")
def folder(by_peft: ByPeft, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return by_peft.save(tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def engine(ranker: Ranker, tiny_encoder: TextEncoder, folder: Path) -> TorchEngine:
    """With the three adapters, remembering nothing yet."""
    return engine_with(ranker, tiny_encoder, folder)


SETTINGS = [EngineSettings(), SERVING, EngineSettings(chunk_slots=9), EngineSettings(0, 40), EngineSettings(20_000, 60)]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("settings", SETTINGS)
def test_many_adapters_over_one_trunk_are_each_exact(
    settings: EngineSettings, own: bool, by_peft: ByPeft, folder: Path, tiny_encoder: TextEncoder
) -> None:
    """By our own forward and by transformers', cold and from the cache, together and one by one."""
    engine, rng = engine_with(by_peft.ranker, tiny_encoder, folder, settings), random.Random(1)
    if own:
        assert isinstance(engine._runner.reader, Decoder)
    else:
        engine._runner.reader = by_peft.ranker
    for _ in range(2):
        trunk = random_node(rng, VOCABULARY, 48)
        trees = [mixed(rng, trunk) for _ in range(3)]
        trees += [trees[0].adapted(name) for name in ("", "a", "b", "c")]
        for _ in ("cold", "from the cache"):
            assert by_peft.off(trees, scored(engine, trees)) <= 1e-5
        for tree in trees:
            assert by_peft.off([tree], scored(engine, [tree])) <= 1e-5


def test_in_double_precision_they_are_exact_to_a_billionth(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    ranker, rng = widen(build(tiny_config()).eval()), random.Random(2)
    by_peft = ByPeft(ranker)
    by_peft.model.double()
    engine = engine_with(ranker, tiny_encoder, by_peft.save(tmp_path))
    trees = [mixed(rng, random_node(rng, VOCABULARY), hidden=0) for _ in range(4)]
    for _ in ("cold", "from the cache"):
        assert by_peft.off(trees, scored(engine, trees)) <= 1e-9


@pytest.mark.parametrize(
    ("config", "own"),
    [
        (
            Gemma3TextConfig(
                **SMALL, head_dim=8, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
            ),
            True,
        ),
        (Qwen3Config(**SMALL, head_dim=16), True),
        (Olmo2Config(**SMALL), False),
    ],
)
def test_other_decoders_have_them_too(
    config: PreTrainedConfig, own: bool, tiny_encoder: TextEncoder, tmp_path: Path
) -> None:
    """Norms behind the projection, of queries and keys; and one that only transformers' forward knows."""
    ranker, rng = Ranker(dense(config)).eval(), random.Random(3)
    by_peft = ByPeft(ranker)
    engine = engine_with(ranker, tiny_encoder, by_peft.save(tmp_path))
    assert isinstance(engine._runner.reader, Decoder) == own
    trunk = random_node(rng, VOCABULARY)
    trees = [mixed(rng, trunk, hidden=0) for _ in range(4)]
    for _ in ("cold", "from the cache"):
        assert by_peft.off(trees, scored(engine, trees)) <= 1e-5


def test_an_adapter_changes_what_it_should(engine: TorchEngine) -> None:
    """None of the comparisons above would tell, were all of them without effect."""
    found = [torch.stack(scored(engine, [visit(name)])) for name in ("", "a", "b", "c")]
    apart = [float((one - other).abs().max()) for n, one in enumerate(found) for other in found[:n]]
    assert min(apart) > 1e-2


def test_the_base_scores_to_the_bit_as_without_adapters(engine: TorchEngine, tiny_encoder: TextEncoder) -> None:
    plain, rng = TorchEngine(engine.ranker, tiny_encoder, BASE), random.Random(4)
    scored(engine, [visit("a"), visit("b")])
    engine.forget()
    trees = [random_tree(rng, VOCABULARY, 48) for _ in range(6)]
    for _ in ("cold", "from the cache"):
        assert all(map(torch.equal, scored(engine, trees), scored(plain, trees)))


def test_one_trunk_is_computed_once_for_all(engine: TorchEngine) -> None:
    stats, trees = engine.cache_stats, [visit(), visit("a"), visit("b")]
    engine.score(trees)
    assert (stats.missed_slots, stats.hit_slots) == (30 + 3 * 3, 0)
    engine.score([visit("c")])
    assert (stats.missed_slots, stats.hit_slots) == (39 + 3, 30)
    engine.score([*trees, visit("c")])
    assert (stats.missed_slots, stats.hit_slots) == (42, 30 + 30 + 4 * 3)


def test_leaves_that_say_the_same_under_two_adapters_are_two(engine: TorchEngine, by_peft: ByPeft) -> None:
    leaf = TokenNode((9, 8), 0, None, (3, 4))
    tree = TokenTree((TokenNode((5, 6)), *(replace(leaf, adapter=name) for name in ("", "a", "b", "a", ""))))
    found = scored(engine, [tree])
    assert by_peft.off([tree], found) <= 1e-5
    assert len({round(float(logp[0]), 5) for logp in found}) == 3


def test_a_base_node_below_an_adapter_is_another_than_below_none(engine: TorchEngine, by_peft: ByPeft) -> None:
    """A node under no adapter sees what its ancestors are: its keys and values are theirs too."""
    chain = [TokenNode((5, 6)), TokenNode((7, 8), 0), TokenNode((9, 9), 1), TokenNode((4,), 2, None, (3, 4))]
    trees = [TokenTree((chain[0], replace(chain[1], adapter=name), *chain[2:])) for name in ("", "a", "b")]
    for _ in ("cold", "from the cache"):
        for tree in trees:
            assert by_peft.off([tree], scored(engine, [tree])) <= 1e-5


def test_salts_bound_what_adapters_share(engine: TorchEngine) -> None:
    engine.score([visit("a", salt="x")])
    missed = engine.cache_stats.missed_slots
    engine.score([visit("a", salt="y")])
    assert engine.cache_stats.missed_slots == 2 * missed


def test_a_likelihood_is_that_of_the_adapter(engine: TorchEngine, by_peft: ByPeft, folder: Path) -> None:
    trunk, stem = TokenNode((5, 6, 7)), TokenNode((8, 9), 0)
    leaves = [TokenNode((20 + n, 30, 31), 1, likelihood=True) for n in range(3)]
    trees = [TokenTree((trunk, stem, *leaves)).adapted(name) for name in ("", "a", "b")]
    begin = TokenTree((TokenNode(engine.encoder.begin), stem, *leaves))
    expected = []
    with torch.inference_mode():
        for tree, alone in [(tree, begin.adapted(tree.nodes[1].adapter)) for tree in trees]:
            means = [[mean_logp(by_peft, each, leaf) for each in (tree, alone)] for leaf in (2, 3, 4)]
            expected.append([behind - without for behind, without in means])
    for _ in ("cold", "from the cache"):
        found = [scores.likelihood for scores in engine.score(trees)]
        assert np.abs(np.array(found) - np.array(expected)).max() <= 1e-5
    engine.add_adapter("a", folder / "b")
    assert np.abs(engine.score([trees[1]])[0].likelihood - np.array(expected[2])).max() <= 1e-5


def mean_logp(by_peft: ByPeft, tree: TokenTree, leaf: int) -> float:
    slots = tree.nodes[leaf].slots
    logp = by_peft.states(tree, leaf)[-len(slots) - 1 : -1].log_softmax(dim=-1)
    return float(logp.gather(1, torch.tensor(slots)[:, None]).mean())


def test_a_tree_that_names_an_unknown_adapter_is_refused_before_anything_is_done(engine: TorchEngine) -> None:
    with pytest.raises(TreeError, match=r"the adapter 'z', which is not loaded \(loaded: a, b, c\)"):
        engine.score([visit("a"), visit("z")])
    assert engine.cache_stats.missed_slots == 0
    with pytest.raises(TreeError, match=r"loaded: none"):
        engine.ranker(pack([visit("a")]))


def test_a_trunk_has_no_adapter(engine: TorchEngine) -> None:
    tree = visit("a")
    with pytest.raises(TreeError, match="node 0: a trunk has no adapter, not 'a'"):
        engine.score([replace(tree, nodes=(replace(tree.nodes[0], adapter="a"), *tree.nodes[1:]))])


def test_removed_it_is_gone_and_so_is_what_was_computed_under_it(engine: TorchEngine) -> None:
    engine.score([visit(), visit("b")])
    before = engine.cache_stats.bytes
    engine.score([visit("a"), visit("a", (70, 71, 72, 73))])
    assert engine.cache_stats.bytes == before * 43 // 36
    engine.remove_adapter("a")
    assert engine.cache_stats.bytes == before
    assert engine.adapters == ("b", "c")
    with pytest.raises(TreeError, match="'a', which is not loaded"):
        engine.score([visit("a")])
    with pytest.raises(ConfigError, match=r"no adapter 'a' is loaded \(loaded: b, c\)"):
        engine.remove_adapter("a")
    missed = engine.cache_stats.missed_slots
    engine.score([visit(), visit("b")])
    assert engine.cache_stats.missed_slots == missed


def test_one_that_is_replaced_serves_with_its_new_weights_at_once(engine: TorchEngine, folder: Path) -> None:
    expected = {name: torch.stack(scored(engine, [visit(name)])) for name in ("a", "b")}
    engine.add_adapter("a", folder / "b")
    assert (torch.stack(scored(engine, [visit("a")])) - expected["b"]).abs().max() <= 1e-5
    engine.remove_adapter("a")
    engine.add_adapter("a", folder / "a")
    assert (torch.stack(scored(engine, [visit("a")])) - expected["a"]).abs().max() <= 1e-5


def test_an_adapter_needs_a_name(engine: TorchEngine, folder: Path) -> None:
    with pytest.raises(ConfigError, match="needs a name"):
        engine.add_adapter("", folder / "a")


def run_all(*deeds: Callable[[], None]) -> None:
    """At once, each in a thread of its own; raises what one of them raised."""
    errors: list[BaseException] = []

    def guarded(deed: Callable[[], None]) -> None:
        try:
            deed()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(deed,)) for deed in deeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_adapters_come_and_go_while_others_score(engine: TorchEngine, folder: Path) -> None:
    """Whoever scores gets one adapter or the other or is told that it is gone; the base never notices."""
    expected = {name: torch.stack(scored(engine, [visit(name)])) for name in ("", "a", "b", "c")}
    met, done = {"a": 0, "b": 0, "gone": 0}, threading.Event()

    def change() -> None:
        for number in range(40):
            engine.add_adapter("a", folder / ("b" if number % 2 else "a"))
            if number % 3 == 0:
                engine.remove_adapter("a")
        engine.add_adapter("a", folder / "a")
        done.set()

    def score() -> None:
        while not done.is_set():
            try:
                found = torch.stack(scored(engine, [visit(), visit("c"), visit("a")]))
            except TreeError:
                met["gone"] += 1
                continue
            assert (found[:5] - expected[""]).abs().max() <= 1e-5
            assert (found[5:10] - expected["c"]).abs().max() <= 1e-5
            near = [name for name in ("a", "b") if (found[10:] - expected[name]).abs().max() <= 1e-5]
            assert near, "the scores are neither adapter's"
            met[near[0]] += 1

    run_all(change, score, score)
    assert met["a"] + met["b"] > 0


def test_two_engines_may_read_one_model_at_once(ranker: Ranker, tiny_encoder: TextEncoder, folder: Path) -> None:
    """By transformers' forward, whose projections are told what to add while they run."""
    engines = [engine_with(ranker, tiny_encoder, folder, EngineSettings(0)) for _ in range(2)]
    for engine in engines:
        engine._runner.reader = ranker
    names = ("a", "b")
    expected = [torch.stack(scored(engine, [visit(name)])) for engine, name in zip(engines, names, strict=True)]

    def score(number: int) -> None:
        for _ in range(30):
            found = torch.stack(scored(engines[number], [visit(names[number])]))
            assert (found - expected[number]).abs().max() <= 1e-5

    run_all(partial(score, 0), partial(score, 1))
