"""Other architectures: each is exact, by the engine's own forward or by transformers', or refused when it is loaded."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    DiffLlamaConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MellumConfig,
    Ministral3Config,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Olmo3Config,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from foundation.decoder import Decoder
from foundation.engine.torch import TorchEngine
from foundation.model import Ranker, load
from foundation.tokenizer import TextEncoder
from prompts.errors import CheckpointError
from tests.foundation.reference import Comparison, Packed, References, Served, Way, compare, widen
from tests.foundation.visits import Visits, drawn_settings

VOCABULARY = 600
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 2,
    "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8}
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]


def scaled(kind: str, factor: float = 4.0, **parameters: object) -> dict[str, Any]:
    """Rotary positions of a kind that stretches them."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0, "factor": factor, **parameters}}


SHORT: dict[str, Any] = {"original_max_position_embeddings": 16}
OWN: Mapping[str, PreTrainedConfig] = {
    "mixtral": MixtralConfig(**SIZES, num_local_experts=5, num_experts_per_tok=2),
    "mixtral, a window of 7": MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=1, sliding_window=7),
    "llama, tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama, biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "llama, one key head, wide heads": LlamaConfig(**SIZES | {"num_key_value_heads": 1, "head_dim": 16}),
    "llama, linear": LlamaConfig(**SIZES, **scaled("linear")),
    "llama, yarn": LlamaConfig(**SIZES, **scaled("yarn", 16.0, **SHORT)),
    "llama, llama3": LlamaConfig(**SIZES, **scaled("llama3", **SHORT, low_freq_factor=1.0, high_freq_factor=4.0)),
    "mistral, a window of 5": MistralConfig(**SIZES, sliding_window=5),
    "mistral, a window of 1": MistralConfig(**SIZES, sliding_window=1),
    "qwen2": Qwen2Config(**SIZES),
    "qwen2, some windows of 6": Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=6, layer_types=SLIDING),
    "qwen3, as many key heads": Qwen3Config(**SIZES | {"num_key_value_heads": 4, "head_dim": 8}),
    "qwen3-moe": Qwen3MoeConfig(**SIZES, **EXPERTS, norm_topk_prob=True),
    "qwen3-moe, shares as they are": Qwen3MoeConfig(**SIZES, **EXPERTS, norm_topk_prob=False),
    "qwen3-moe, dense in between": Qwen3MoeConfig(**SIZES, **EXPERTS, mlp_only_layers=[1]),
    "gemma": GemmaConfig(**SIZES, head_dim=8),
    "gemma3, windows of 5": Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=5, layer_types=SLIDING),
}
"""What the engine's own forward knows."""
THEIRS: Mapping[str, PreTrainedConfig] = {
    "olmo2": Olmo2Config(**SIZES),
    "olmo3, windows of 6": Olmo3Config(**SIZES, sliding_window=6, layer_types=SLIDING),
    "phi3, a window of 9": Phi3Config(**SIZES, sliding_window=9),
    "granite": GraniteConfig(**SIZES, residual_multiplier=0.5, embedding_multiplier=3.0, attention_multiplier=0.4),
    "gpt2, positions in a table": GPT2Config(**SIZES),
    "smollm3, no positions in between": SmolLM3Config(**SIZES, no_rope_layers=[1, 0, 1]),
}
"""What transformers' forward does."""
REFUSED: Mapping[str, tuple[PreTrainedConfig, str]] = {
    "attention with a soft cap": (Gemma2Config(**SIZES, head_dim=8), "the model's attention has softcap"),
    "logits that are scaled": (GraniteConfig(**SIZES, logits_scaling=3.0), "differ from its own"),
    "other logits, other norms": (CohereConfig(**SIZES), "differ from its own"),
}
"""What is not done, and how that is said."""
TRICKY: Mapping[str, PreTrainedConfig] = {
    "two attentions in a layer": DiffLlamaConfig(**SIZES),
    "positions by kind of layer, which layers do not name": MellumConfig(**SIZES, **EXPERTS),
    "positions that depend on the longest": LlamaConfig(**SIZES | {"max_position_embeddings": 32}, **scaled("dynamic")),
    "positions that change at a length": Phi3Config(
        **SIZES, **SHORT, **scaled("longrope", short_factor=[1.0] * 4, long_factor=[1.0, 2.0, 4.0, 8.0])
    ),
    "scores that grow with the position": Ministral3Config(
        **SIZES, **scaled("yarn", 16.0, **SHORT, llama_4_scaling_beta=0.5, beta_fast=32.0, beta_slow=1.0)
    ),
    "windows that only the mask knows": Qwen2MoeConfig(
        **SIZES, **EXPERTS, shared_expert_intermediate_size=24, use_sliding_window=True, sliding_window=12,
        max_window_layers=1,
    ),
}  # fmt: skip
"""Parts that show only in longer texts, in memory, or in no argument: exact or refused, never wrong without a word."""


def made(config: PreTrainedConfig, seed: int = 0) -> Ranker:
    """A decoder whose every part counts: norms, biases and routers are drawn, too."""
    lm = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    generator = torch.Generator().manual_seed(seed)
    for parameter in lm.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        wide = parameter.ndim > 1
        parameter.data = noise * 1.2 / parameter.shape[-1] ** 0.5 if wide else parameter.data + 0.3 * noise
    lm.tie_weights()
    return Ranker(lm).eval()


def slot_bytes(ranker: Ranker) -> int:
    """Bytes that are remembered of a slot; more or less, it sets how small a small cache is."""
    config = ranker.lm.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * size * 4)


def run(ranker: Ranker, encoder: TextEncoder, seed: int, trees: int) -> Comparison:
    """The same calls by transformers' forward over whole trees, and by two engines."""
    rng = random.Random(seed)
    settings = rng.sample(drawn_settings(rng, slot_bytes(ranker)), 2)
    ways: list[Way] = [Packed(ranker), *(Served(ranker, encoder, each) for each in settings)]
    visits, references, found = Visits(rng, VOCABULARY), References(ranker), Comparison()
    while visits.trees < trees:
        call = visits.call()
        for way in ways:
            found |= compare(way, references, call)
    return found


def forward_of(ranker: Ranker, encoder: TextEncoder) -> str:
    return type(TorchEngine(ranker, encoder)._runner.reader).__name__


@pytest.mark.parametrize("name", OWN)
def test_the_engines_own_forward_is_exact(name: str, tiny_encoder: TextEncoder) -> None:
    ranker = made(OWN[name])
    assert forward_of(ranker, tiny_encoder) == Decoder.__name__
    found = run(ranker, tiny_encoder, seed=11, trees=12)
    assert found.rerouted <= found.leaves / 1000
    assert found.largest <= 1e-5
    wide = run(widen(made(OWN[name])), tiny_encoder, seed=12, trees=12)
    assert wide.largest <= 1e-9


@pytest.mark.parametrize("name", THEIRS)
def test_what_it_does_not_know_is_exact_by_transformers(name: str, tiny_encoder: TextEncoder) -> None:
    ranker = made(THEIRS[name])
    assert forward_of(ranker, tiny_encoder) == Ranker.__name__
    found = run(ranker, tiny_encoder, seed=13, trees=12)
    assert found.largest <= 1e-5


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exact_is_refused(name: str, tmp_path: Path, tiny_encoder: TextEncoder) -> None:
    config, message = REFUSED[name]
    made(config).lm.save_pretrained(tmp_path)
    tiny_encoder.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("name", TRICKY)
def test_what_hides_is_exact_or_refused(name: str, tmp_path: Path, tiny_encoder: TextEncoder) -> None:
    made(TRICKY[name]).lm.save_pretrained(tmp_path)
    tiny_encoder.tokenizer.save_pretrained(tmp_path)
    try:
        ranker, encoder = load(tmp_path)
    except CheckpointError:
        return
    assert run(ranker, encoder, seed=14, trees=12).largest <= 1e-4
