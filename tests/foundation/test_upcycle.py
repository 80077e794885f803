"""Upcycling: the mixture answers as the dense model does, in a folder that anyone can load; all else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from foundation import upcycle as upcycling
from foundation.compressor import Compressor
from foundation.engine.torch import TorchEngine
from foundation.model import Ranker, load, version
from foundation.tokenizer import TextEncoder
from foundation.upcycle import Split, mixture_config, upcycle
from prompts.errors import CheckpointError, ConfigError
from tests.foundation.llamas import SMALL, dense, dense_folder
from tests.foundation.test_engine import request

LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
SOURCES = {
    "llama": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "llama, untied": LlamaConfig(**SMALL, tie_word_embeddings=False),
    "llama, wide heads": LlamaConfig(**SMALL, head_dim=16, rms_norm_eps=1e-3),
    "llama, scaled positions": LlamaConfig(**SMALL, rope_parameters=LLAMA3_ROPE),
    "llama, gelu": LlamaConfig(**SMALL, hidden_act="gelu"),
    "mistral": MistralConfig(**SMALL, sliding_window=None),
    "qwen3": Qwen3Config(**SMALL, head_dim=16, tie_word_embeddings=True),
    "qwen3, biases": Qwen3Config(**SMALL, head_dim=16, attention_bias=True),
}


def silent(_: str) -> None:
    """Nobody watches."""


def logits(folder: Path, length: int = 40) -> torch.Tensor:
    """What plain transformers makes of a folder."""
    lm = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.randint(512, (2, length), generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        found: torch.Tensor = lm(ids).logits
    return found


@pytest.fixture
def llama(tmp_path: Path, tiny_encoder: TextEncoder) -> Path:
    return dense_folder(tmp_path / "llama", SOURCES["llama"], tiny_encoder)


@pytest.mark.parametrize("name", SOURCES)
def test_the_mixture_answers_as_the_dense_model(name: str, tmp_path: Path, tiny_encoder: TextEncoder) -> None:
    source = dense_folder(tmp_path / "dense", SOURCES[name], tiny_encoder)
    made = upcycle(source, tmp_path / "mixture", Split(), silent)
    expected = logits(source)
    assert (logits(tmp_path / "mixture") - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert made.difference <= 1e-5 * made.largest


def test_it_scores_trees_as_the_dense_model(llama: Path, tmp_path: Path) -> None:
    upcycle(llama, tmp_path / "mixture", Split(), silent)
    engines = [TorchEngine.load(folder) for folder in (llama, tmp_path / "mixture")]
    tables = [engine.score([engine.read(request(5, compress=False))])[0].table() for engine in engines]
    assert abs(tables[0] - tables[1]).max() <= 1e-5


@pytest.mark.parametrize("split", [Split(8, 4), Split(4, 2), Split(2, 1), Split(12, 4), Split(32, 16)], ids=str)
def test_every_split_is_equal(split: Split, llama: Path, tmp_path: Path) -> None:
    upcycle(llama, tmp_path / "mixture", split, silent)
    expected = logits(llama)
    assert (logits(tmp_path / "mixture") - expected).abs().max() <= 1e-5 * expected.abs().max()
    config = load(tmp_path / "mixture")[0].lm.config
    assert (config.num_local_experts, config.num_experts_per_tok) == (split.experts, split.shards)
    assert config.intermediate_size * split.shards == SMALL["intermediate_size"]


def test_more_weights_and_no_more_of_them_active(llama: Path, tmp_path: Path) -> None:
    made = upcycle(llama, tmp_path / "mixture", Split(8, 4), silent)
    before = sum(parameter.numel() for parameter in load(llama)[0].lm.parameters())
    layers, hidden, inner = 2, 48, 64
    router = layers * 8 * hidden
    assert made.parameters == (before + layers * 3 * hidden * inner + router, before + router)


def routed(lm: PreTrainedModel) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The weights and the experts that each layer gives to some tokens."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for layer in lm.base_model.layers:
        layer.mlp.gate.register_forward_hook(lambda _, __, out: seen.append((out[1], out[2])))
    lm.set_attn_implementation("eager")
    with torch.inference_mode():
        lm(torch.randint(512, (1, 200), generator=torch.Generator().manual_seed(3)))
    return seen


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_token_takes_one_whole_copy_at_exactly_equal_weights(
    name: str, tmp_path: Path, tiny_encoder: TextEncoder
) -> None:
    source = dense_folder(tmp_path / "dense", SOURCES[name], tiny_encoder)
    upcycle(source, tmp_path / "mixture", Split(8, 4), silent)
    taken = set()
    for weights, experts in routed(load(tmp_path / "mixture")[0].lm):
        assert (weights == 0.25).all()
        copies = experts.sort().values
        assert all(row in ([0, 1, 2, 3], [4, 5, 6, 7]) for row in copies.tolist())
        taken |= set(copies[:, 0].tolist())
    assert taken == {0, 4}


def test_rows_are_those_of_copies(llama: Path, tmp_path: Path) -> None:
    upcycle(llama, tmp_path / "mixture", Split(12, 4), silent)
    for layer in load(tmp_path / "mixture")[0].lm.base_model.layers:
        rows = layer.mlp.gate.weight.unflatten(0, (3, 4))
        assert (rows == rows[:, :1]).all()
        assert len({tuple(row.tolist()) for row in rows[:, 0]}) == 3


def test_the_seed_draws_the_router_and_nothing_else(llama: Path, tmp_path: Path) -> None:
    for name, seed in {"a": 0, "again": 0, "b": 1}.items():
        upcycle(llama, tmp_path / name, Split(seed=seed), silent)
    assert version(tmp_path / "a") == version(tmp_path / "again") != version(tmp_path / "b")
    assert (logits(tmp_path / "a") - logits(tmp_path / "b")).abs().max() <= 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_stay_sixteen_bits_and_exact(
    dtype: torch.dtype, tmp_path: Path, tiny_encoder: TextEncoder
) -> None:
    Ranker(dense(SOURCES["llama"])).save(tmp_path / "dense", tiny_encoder, dtype)
    made = upcycle(tmp_path / "dense", tmp_path / "mixture", Split(), silent)
    assert made.difference <= 1e-5 * made.largest
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("dense", "mixture")]
    assert sizes[1] < 1.7 * sizes[0]


def test_tokenizer_and_compressor_come_along(tmp_path: Path, tiny_encoder: TextEncoder) -> None:
    Ranker(dense(SOURCES["llama"]), Compressor(48)).save(tmp_path / "dense", tiny_encoder)
    upcycle(tmp_path / "dense", tmp_path / "mixture", Split(), silent)
    (ranker, _), (mixture, encoder) = load(tmp_path / "dense"), load(tmp_path / "mixture")
    assert torch.equal(ranker.compress([(5, 6, 7)]), mixture.compress([(5, 6, 7)]))
    assert encoder.encode("Toy Story (1995)") == tiny_encoder.encode("Toy Story (1995)")
    assert encoder.begin == tiny_encoder.begin


def test_it_says_how_far_it_is(llama: Path, tmp_path: Path) -> None:
    told: list[str] = []
    upcycle(llama, tmp_path / "mixture", Split(), told.append)
    assert told[0] == f"loading {llama}"
    assert "splitting layer 2 of 2" in told


REFUSED = {
    "no sibling": (Qwen2Config(**SMALL), "a qwen2 cannot be upcycled: llama, mistral, qwen3 can"),
    "a mixture already": (MixtralConfig(**SMALL), "a mixtral cannot be upcycled"),
    "attention biases": (LlamaConfig(**SMALL, attention_bias=True), r"this llama has biases \(attention_bias\)"),
    "other biases": (LlamaConfig(**SMALL, mlp_bias=True), r"this llama has biases \(mlp_bias\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_mixture_is_refused_and_leaves_nothing(
    name: str, tmp_path: Path, tiny_encoder: TextEncoder
) -> None:
    config, message = REFUSED[name]
    source = dense_folder(tmp_path / "dense", config, tiny_encoder)
    with pytest.raises(CheckpointError, match=message):
        upcycle(source, tmp_path / "mixture", Split(), silent)
    assert list(tmp_path.iterdir()) == [source]


WINDOW = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}


def test_a_window_is_carried_where_the_mixture_has_one() -> None:
    config: PreTrainedConfig = MistralConfig(**SMALL, sliding_window=64)
    assert mixture_config(config, Split()).sliding_window == 64
    with pytest.raises(CheckpointError, match="sliding window in some layers"):
        mixture_config(Qwen3Config(**SMALL, **WINDOW), Split())


@pytest.mark.parametrize(
    ("experts", "shards", "message"),
    [
        (9, 3, "3 shards: a power of two"),
        (8, 0, "0 shards"),
        (4, 4, "4 experts are no two or more whole copies of 4 shards"),
        (10, 4, "10 experts"),
    ],
)
def test_a_wrong_split_is_refused(experts: int, shards: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Split(experts, shards)


def test_an_uneven_cut_is_refused() -> None:
    with pytest.raises(ConfigError, match="an intermediate size of 64 does not divide into 128 shards"):
        mixture_config(SOURCES["llama"], Split(256, 128))


def test_an_existing_folder_is_never_written_over(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "mixture").mkdir()
    with pytest.raises(CheckpointError, match="is there already"):
        upcycle(llama, tmp_path / "mixture", Split(), silent)
    assert list((tmp_path / "mixture").iterdir()) == []


def test_a_mixture_that_differs_is_not_kept(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = upcycling._cut_columns
    monkeypatch.setattr(upcycling, "_cut_columns", lambda down_DI, split: right(down_DI, split) / split.shards)
    with pytest.raises(CheckpointError, match="differs from the dense model, by"):
        upcycle(llama, tmp_path / "mixture", Split(), silent)
    assert list(tmp_path.iterdir()) == [llama]
