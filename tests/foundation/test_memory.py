"""What a model needs, against counts made by hand and against models that are really there."""

from __future__ import annotations

import pytest
from transformers import LlamaConfig, Qwen3MoeConfig

from foundation.config import ModelConfig
from foundation.memory import GIB, USABLE, Load, Parameters, parameters, plan
from foundation.model import build
from prompts.errors import ConfigError
from tests.conftest import tiny_config
from tests.foundation.llamas import SMALL, dense

FULL = ModelConfig.load("mixtral-8x22b")


def test_the_full_size_model_has_the_published_size() -> None:
    """Mistral AI: 141 B parameters, 39 B active; 140.6 B by the published weights."""
    found = plan(FULL, Load()).parameters
    assert found.total == pytest.approx(140.6e9, rel=0.001)
    assert found.active == pytest.approx(39e9, rel=0.01)


def by_hand(config: ModelConfig) -> Parameters:
    """The parameters of a Mixtral, added up."""
    hidden, kv = config.hidden_size, config.hidden_size // config.heads * config.kv_heads
    attention = 2 * hidden * hidden + 2 * hidden * kv
    expert = 3 * hidden * config.expert_size
    rest = attention + hidden * config.experts + 2 * hidden
    tables = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    return Parameters(
        tables + hidden + config.layers * (rest + config.experts * expert),
        tables + hidden + config.layers * (rest + config.experts_per_token * expert),
    )


@pytest.mark.parametrize("config", [FULL, ModelConfig.load("nano"), tiny_config(tie_word_embeddings=False)])
def test_parameters_by_hand(config: ModelConfig) -> None:
    assert plan(config, Load(slots=1)).parameters == by_hand(config)


def test_parameters_of_models_that_are_there() -> None:
    lm = build(tiny_config()).lm
    assert parameters(lm) == plan(tiny_config(), Load()).parameters
    llama = dense(LlamaConfig(**SMALL))
    assert parameters(llama).total == parameters(llama).active == llama.num_parameters()
    qwen = dense(Qwen3MoeConfig(**SMALL, moe_intermediate_size=16, num_experts=8, num_experts_per_tok=2))
    assert parameters(qwen).total - parameters(qwen).active == 2 * 6 * 3 * 48 * 16


def test_the_full_size_model_in_memory() -> None:
    needs = plan(FULL, Load(trunks=100, slots=4096, gpu_gib=80)).needs
    weights = {storage: round(need.weight_bytes / GIB, 1) for storage, need in needs.items()}
    assert weights == {"fp32": 523.9, "bf16": 261.9, "int8": 131.0}
    assert needs["bf16"].slot_bytes == 2 * 56 * 8 * 128 * 2
    assert needs["bf16"].trunk_bytes == 896 << 20
    assert needs["bf16"].cache_bytes == 100 * needs["bf16"].trunk_bytes == needs["int8"].cache_bytes
    assert needs["fp32"].slot_bytes == 2 * needs["bf16"].slot_bytes
    assert {storage: (need.gpus_for_weights, need.gpus) for storage, need in needs.items()} == {
        "fp32": (8, 10), "bf16": (4, 5), "int8": (2, 4),
    }  # fmt: skip


def test_a_larger_load_needs_more_and_larger_gpus_fewer() -> None:
    base, more = plan(FULL, Load()).needs["bf16"], plan(FULL, Load(trunks=1000)).needs["bf16"]
    assert (more.weight_bytes, more.gpus_for_weights) == (base.weight_bytes, base.gpus_for_weights)
    assert more.gpus > base.gpus > plan(FULL, Load(gpu_gib=140)).needs["bf16"].gpus
    assert plan(FULL, Load(trunks=0)).needs["bf16"].gpus == base.gpus_for_weights


def test_gpus_are_never_filled_to_the_brim() -> None:
    load = Load(gpu_gib=10)
    full = int(10 * GIB * USABLE)
    assert [load.gpus(size) for size in (1, full, full + 1, 2 * full + 2)] == [1, 1, 2, 3]


def test_a_trunk_longer_than_the_model_reads_is_refused() -> None:
    with pytest.raises(ConfigError, match="a trunk of 65537 slots is longer than the model's max_positions, 65536"):
        plan(FULL, Load(slots=65_537))


def test_the_figures_as_json() -> None:
    figures = plan(FULL, Load(trunks=3)).to_json()
    assert figures["trunks"] == 3
    assert figures["parameters"] == by_hand(FULL).total
    needs = figures["needs"]
    assert isinstance(needs, dict)
    assert set(needs) == {"fp32", "bf16", "int8"}
