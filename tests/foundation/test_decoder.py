"""The engine's own forward: it reads the weights that training writes, holds nothing twice, and knows what it knows."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, MixtralConfig

from foundation import decoder as decoders
from foundation.attention.registry import Asked
from foundation.compressor import Compressor
from foundation.decoder import Decoder, Dense, Mixture, Norm
from foundation.engine.base import TokenTree
from foundation.engine.pack import pack
from foundation.engine.torch import SERVING, EngineSettings, TorchEngine
from foundation.model import Ranker, build, load
from foundation.product import Plain, Product, UnknownArchitectureError, joined, packed_where_faster
from foundation.tokenizer import TextEncoder
from tests.conftest import tiny_config
from tests.foundation.reference import References, Served, Trace, compare, random_tree
from tests.foundation.test_architectures import OWN, SIZES, VOCABULARY, made

NAMES = ("mixtral", "llama, tied", "llama, biases", "qwen2", "qwen3-moe", "gemma3, windows of 5")
"""One for each kind of part: experts, tied heads, biases, norms of queries and keys, norms that count from one."""


WIDE: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 1024, "num_hidden_layers": 2}
LARGE = {
    "llama, large": LlamaConfig(**SIZES | WIDE, attention_bias=True, mlp_bias=True),
    "mixtral, large": MixtralConfig(**SIZES | WIDE, num_local_experts=3, num_experts_per_tok=2),
}
"""Whose feed-forwards are large enough to be packed."""


def trees_of(seed: int, number: int = 4) -> list[TokenTree]:
    rng = random.Random(seed)
    return [random_tree(rng, VOCABULARY) for _ in range(number)]


def memory(ranker: Ranker) -> int:
    """Bytes of all weights, those that share theirs counted once."""
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in ranker.parameters()}
    return sum(storages.values())


def off(ranker: Ranker, encoder: TextEncoder, seed: int = 1) -> float:
    """How far a new engine is from each leaf alone."""
    return compare(Served(ranker, encoder), References(ranker), trees_of(seed)).largest


@pytest.mark.parametrize("name", NAMES)
def test_joined_weights_are_the_same_and_held_once(name: str, tiny_encoder: TextEncoder) -> None:
    ranker, untouched = made(OWN[name]), made(OWN[name])
    before = memory(ranker)
    parameters = list(ranker.parameters())
    TorchEngine(ranker, tiny_encoder)
    assert memory(ranker) == before
    assert all(one is other for one, other in zip(ranker.parameters(), parameters, strict=True))
    state, expected = ranker.state_dict(), untouched.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in state.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_second_engine_copies_nothing(name: str, tiny_encoder: TextEncoder) -> None:
    ranker = made(OWN[name])
    TorchEngine(ranker, tiny_encoder)
    places = [parameter.data_ptr() for parameter in ranker.parameters()]
    engine = TorchEngine(ranker, tiny_encoder)
    assert [parameter.data_ptr() for parameter in ranker.parameters()] == places
    reader = engine._runner.reader
    assert isinstance(reader, Decoder)
    held = {parameter.untyped_storage().data_ptr() for parameter in ranker.parameters()}
    for layer in reader._layers:
        assert isinstance(layer.qkv, Plain)
        assert layer.qkv.weight.untyped_storage().data_ptr() in held


@pytest.mark.parametrize("name", NAMES)
def test_saved_after_it_was_read_it_loads_equal(name: str, tmp_path: Path, tiny_encoder: TextEncoder) -> None:
    ranker, trees = made(OWN[name]), trees_of(2)
    before = Served(ranker, tiny_encoder).score(trees)
    ranker.save(tmp_path / "model", tiny_encoder)
    loaded, encoder = load(tmp_path / "model")
    state = ranker.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in loaded.state_dict().items())
    after = Served(loaded, encoder).score(trees)
    assert max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True)) <= 1e-5
    files = sum(path.stat().st_size for path in (tmp_path / "model").glob("*.safetensors"))
    assert files < 1.2 * memory(ranker)


def learn(ranker: Ranker, steps: int = 2) -> None:
    """A few steps that change every parameter that a tree reaches."""
    optimizer = torch.optim.AdamW(ranker.parameters(), lr=0.02)
    for step in range(steps):
        logits_LA = ranker.train()(pack(trees_of(40 + step)))
        loss = -logits_LA.log_softmax(dim=-1)[:, 0].mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    ranker.eval()


def forget(way: Served) -> None:
    """What the weights were when it was remembered."""
    way.engine.forget()
    way.trace = Trace(way.engine.ranker)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_learned_later_is_seen(name: str, tiny_encoder: TextEncoder) -> None:
    """An engine that was made before training, and has forgotten its cache, scores as one that was made after it."""
    ranker, trees = made(OWN[name]), trees_of(3)
    way = Served(ranker, tiny_encoder)
    before = way.score(trees)
    learn(ranker)
    assert off(ranker, tiny_encoder, seed=3) <= 1e-5  # an engine of its own
    forget(way)
    assert compare(way, References(ranker), trees).largest <= 1e-5
    assert max(float((a - b).abs().max()) for a, b in zip(before, way.score(trees), strict=True)) > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_the_same_way_after_it_was_read(name: str, tiny_encoder: TextEncoder) -> None:
    ranker, untouched = made(OWN[name]), made(OWN[name])
    TorchEngine(ranker, tiny_encoder)
    for each in (ranker, untouched):
        learn(each)
    pairs = zip(ranker.parameters(), untouched.parameters(), strict=True)
    assert all((one - other).abs().max() <= 1e-4 for one, other in pairs)
    reached = [parameter.grad is not None for parameter in ranker.parameters()]
    assert reached == [parameter.grad is not None for parameter in untouched.parameters()]
    assert all(p.grad is not None and p.grad.any() for n, p in ranker.named_parameters() if "q_proj.weight" in n)


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_loaded_later_are_seen(name: str, tiny_encoder: TextEncoder) -> None:
    ranker, other = made(OWN[name]), made(OWN[name], seed=1)
    way = Served(ranker, tiny_encoder)
    way.score(trees_of(4))
    ranker.load_state_dict(other.state_dict())
    forget(way)
    assert compare(way, References(other), trees_of(4)).largest <= 1e-5


def test_a_copy_is_a_model_of_its_own(tiny_encoder: TextEncoder) -> None:
    ranker = made(OWN["qwen3-moe"])
    expected = Served(ranker, tiny_encoder).score(trees_of(5))
    other = copy.deepcopy(ranker)
    learn(other)
    again = Served(ranker, tiny_encoder).score(trees_of(5))
    assert all(torch.equal(one, two) for one, two in zip(expected, again, strict=True))
    assert off(other, tiny_encoder) <= 1e-5


def test_a_model_may_be_read_frozen_and_in_double(tiny_encoder: TextEncoder) -> None:
    ranker = made(OWN["llama, biases"]).requires_grad_(False)
    assert off(ranker, tiny_encoder) <= 1e-5
    assert off(ranker.double(), tiny_encoder) <= 1e-5  # transformers' norm rounds to fp32 on the way


@pytest.mark.parametrize("few", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("name", ["mixtral", "gemma3, windows of 5", "mistral, a window of 1"])
def test_the_last_layer_may_do_only_what_is_read(
    few: float, name: str, monkeypatch: pytest.MonkeyPatch, tiny_encoder: TextEncoder
) -> None:
    monkeypatch.setattr(decoders, "FEW", few)
    ranker = made(OWN[name])
    for settings in (EngineSettings(), EngineSettings(0, 3), EngineSettings(chunk_slots=50)):
        way, references = Served(ranker, tiny_encoder, settings), References(ranker)
        for _ in ("cold", "from the cache"):
            assert compare(way, references, trees_of(6, 2)).largest <= 1e-5


@pytest.mark.parametrize("block", [1, 7])
def test_a_feed_forward_may_go_in_blocks(
    block: int, monkeypatch: pytest.MonkeyPatch, tiny_encoder: TextEncoder
) -> None:
    monkeypatch.setattr(decoders, "BLOCK", block)
    assert off(made(OWN["llama, biases"]), tiny_encoder) <= 1e-5


@pytest.mark.parametrize("favourites", [(0, 1), (4,)])
def test_experts_that_nobody_chooses(favourites: tuple[int, ...], tiny_encoder: TextEncoder) -> None:
    ranker = made(OWN["mixtral"])
    for module in ranker.modules():
        if type(module).__name__ == "MixtralTopKRouter":
            weight = module.get_parameter("weight").data
            weight.mul_(0.01)
            weight[list(favourites)] += 1e-6
    assert off(ranker, tiny_encoder) <= 1e-5


def test_a_mixture_equals_its_own_forward() -> None:
    block = made(OWN["mixtral"]).lm.get_submodule("model.layers.0.mlp")
    experts, x = block.get_submodule("experts"), torch.randn(23, 32)
    weights = zip(experts.get_parameter("gate_up_proj"), experts.get_parameter("down_proj"), strict=True)
    products: list[tuple[Product, Product]] = [(Plain(gate_up, None), Plain(down, None)) for gate_up, down in weights]
    mixture = Mixture(block.get_submodule("gate"), products, nn.functional.silu)
    found = torch.ones(23, 32)
    with torch.inference_mode():
        mixture.add_to(found, x)
        mixture.add_to(found[:0], x[:0])
        assert torch.allclose(found - 1, block(x[None])[0], atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_products_that_read_the_same_input_are_one(bias: bool) -> None:
    layers, x = [nn.Linear(6, out, bias=bias) for out in (4, 2, 3)], torch.randn(5, 6)
    with torch.inference_mode():
        expected = torch.cat([layer(x) for layer in layers], dim=1)
        product, again = joined(Plain, *layers), joined(Plain, *layers)
        assert torch.allclose(product(x), expected)
        assert torch.allclose(torch.cat([layer(x) for layer in layers], dim=1), expected)
        assert isinstance(product, Plain)
        assert isinstance(again, Plain)
        assert again.weight.data_ptr() == product.weight.data_ptr()
        target = torch.ones(5, 9)
        product.add_to(target, x)
        assert torch.allclose(target, expected + 1, atol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("order", [(0, 1), (1, 2), (3,), (3, 0), (1, 0), (4, 5), (4,), (6, 7)])
def test_weights_that_lie_otherwise_are_joined_rightly(order: tuple[int, ...]) -> None:
    """In one piece of memory in either order, the same one twice, transposed, every other row, the columns of two."""
    whole, wide = torch.randn(8, 4), torch.randn(4, 8)
    weights = [
        whole[4:], whole[:4], whole[:4], torch.randn(4, 4).T, torch.randn(8, 4)[::2], torch.randn(8, 4)[::2],
        wide[:, :4], wide[:, 4:],
    ]  # fmt: skip
    layers = [nn.Linear(4, 4, bias=False) for _ in order]
    for layer, number in zip(layers, order, strict=True):
        layer.weight.data = weights[number]
    x = torch.randn(3, 4)
    expected = torch.cat([layer(x) for layer in layers], dim=1)
    assert torch.allclose(joined(Plain, *layers)(x), expected, atol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 64, 1025])
@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 1024)])
def test_a_packed_product_is_the_same_product(rows: int, bias: torch.Tensor | None) -> None:
    """For any number of rows, and whoever shares the call."""
    weight, x = torch.randn(1024, 256) / 16, torch.randn(rows, 256)
    packed = packed_where_faster(weight, bias)
    expected = Plain(weight, bias)(x)
    assert torch.allclose(packed(x), expected, atol=1e-5)
    target = torch.ones(rows, 1024)
    packed.add_to(target, x)
    assert torch.allclose(target, expected + 1, atol=1e-5)
    assert all(torch.allclose(packed(x[n : n + 1]), expected[n], atol=1e-5) for n in range(min(rows, 5)))


@pytest.mark.parametrize("name", ["llama, large", "mixtral, large"])
def test_packed_weights_are_exact(name: str, tiny_encoder: TextEncoder) -> None:
    ranker = made(LARGE[name])
    way, references = Served(ranker, tiny_encoder, SERVING), References(ranker)
    for seed in range(3):
        assert compare(way, references, trees_of(seed)).largest <= 1e-5


@pytest.mark.parametrize(
    "module", [nn.LayerNorm(8), nn.Identity(), nn.Linear(8, 8), nn.RMSNorm(8, elementwise_affine=False)]
)
def test_another_norm_is_not_known(module: nn.Module) -> None:
    with pytest.raises(UnknownArchitectureError):
        Norm.of(module)


def test_a_norm_is_that_of_its_module() -> None:
    module, x = nn.RMSNorm(8, eps=1e-3), torch.randn(5, 2, 8)
    nn.init.normal_(module.weight)
    assert torch.allclose(Norm.of(module)(x), module(x), atol=1e-6)
    assert torch.allclose(Norm.of(module)(x * 1e-4), module(x * 1e-4), atol=1e-6)


def test_a_dense_feed_forward_is_gated() -> None:
    gate_up, down, x = (nn.Linear(4, 6, bias=False), nn.Linear(3, 4), torch.randn(5, 4))
    found = torch.zeros(5, 4)
    Dense(joined(Plain, gate_up), joined(Plain, down), nn.functional.gelu).add_to(found, x)
    gate, up = gate_up(x).chunk(2, dim=-1)
    assert torch.allclose(found, down(nn.functional.gelu(gate) * up), atol=1e-6)


def test_what_a_decoder_has_besides_makes_it_unknown(tiny_encoder: TextEncoder) -> None:
    ranker = made(OWN["qwen2"])
    asked = [Asked(None, 1.0)] * ranker.layers
    Decoder(ranker.lm, asked)
    ranker.lm.get_submodule("model.layers.2").add_module("extra", nn.Identity())
    with pytest.raises(UnknownArchitectureError):
        Decoder(ranker.lm, asked)
    assert TorchEngine(ranker, tiny_encoder)._runner.reader is ranker


@pytest.mark.parametrize("error", [RuntimeError, TypeError, IndexError, UnknownArchitectureError, AttributeError])
def test_where_it_fails_transformers_forward_serves(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, tiny_encoder: TextEncoder
) -> None:
    def fail(*_: object) -> None:
        raise error("a part that is shaped otherwise")

    monkeypatch.setattr(Decoder, "hidden", fail)
    ranker = made(OWN["qwen2"])
    assert TorchEngine(ranker, tiny_encoder)._runner.reader is ranker
    assert off(ranker, tiny_encoder) <= 1e-5


def test_where_it_is_wrong_transformers_forward_serves(
    monkeypatch: pytest.MonkeyPatch, tiny_encoder: TextEncoder
) -> None:
    monkeypatch.setattr(decoders, "_turn", lambda *_: None)
    ranker = made(OWN["llama, tied"])
    assert TorchEngine(ranker, tiny_encoder)._runner.reader is ranker


def test_a_compressor_keeps_its_own_norms(tiny_encoder: TextEncoder) -> None:
    ranker = build(tiny_config()).eval()
    assert isinstance(ranker.compressor, Compressor)
    expected = ranker.compress([(5, 6, 7), (8,)])
    TorchEngine(ranker, tiny_encoder)
    assert torch.equal(ranker.compress([(5, 6, 7), (8,)]), expected)
