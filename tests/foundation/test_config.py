"""Shipped model descriptions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foundation.config import ModelConfig
from foundation.model import build, lm_config
from tests.conftest import tiny_config

SHIPPED = sorted(path.stem for path in Path("configs/model").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_description_is_a_model(name: str) -> None:
    config = ModelConfig.load(name)
    found = lm_config(config)
    assert (found.num_hidden_layers, found.intermediate_size) == (config.layers, config.expert_size)
    with torch.device("meta"):
        assert build(config).hidden_size == config.hidden_size


def test_the_full_size_model() -> None:
    config = ModelConfig.load("mixtral-8x22b")
    assert (config.hidden_size, config.layers, config.heads, config.kv_heads) == (6144, 56, 48, 8)
    assert (config.experts, config.expert_size, config.experts_per_token) == (8, 16_384, 2)
    assert (config.vocab_size, config.max_positions, config.rope_theta) == (32_768, 65_536, 1e6)
    assert not config.tie_word_embeddings


@pytest.mark.parametrize("tied", [True, False])
def test_a_description_says_whether_the_embeddings_are_the_head(tied: bool) -> None:
    lm = build(tiny_config(tie_word_embeddings=tied)).lm
    assert (lm.get_input_embeddings().weight is lm.get_output_embeddings().weight) == tied


def test_they_are_unless_it_says_otherwise() -> None:
    assert "tie_word_embeddings" not in Path("configs/model/nano.yaml").read_text()
    assert ModelConfig.load("nano").tie_word_embeddings
