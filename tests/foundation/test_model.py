"""Model folders and descriptions: what is saved is what is loaded, and what is wrong is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    LlamaConfig,
    PreTrainedConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from foundation.config import ModelConfig
from foundation.engine.torch import TorchEngine
from foundation.model import build, load, shipped, version
from foundation.tokenizer import BOS, EOS, PAD, TextEncoder
from prompts.errors import CheckpointError, ConfigError
from tests.conftest import tiny_config
from tests.foundation.test_engine import request


@pytest.fixture
def folder(tmp_path: Path, tiny_engine: TorchEngine) -> Path:
    tiny_engine.ranker.save(tmp_path / "tiny", tiny_engine.encoder)
    return tmp_path / "tiny"


def test_saved_and_loaded_scores_the_same(folder: Path, tiny_engine: TorchEngine) -> None:
    loaded = TorchEngine.load(folder)
    for compress in (False, True):
        tree = request(5, compress=compress)
        both = [engine.score([engine.read(tree)])[0].table() for engine in (tiny_engine, loaded)]
        assert np.abs(both[0] - both[1]).max() <= 1e-5
    assert loaded.model_version == f"tiny@{version(folder)}"


def test_the_folder_is_one_that_transformers_reads(folder: Path, tiny_engine: TorchEngine) -> None:
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".jinja"}
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    ours = tiny_engine.ranker.lm.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.state_dict().items())


def test_sixteen_bits_halve_the_folder(folder: Path, tmp_path: Path, tiny_engine: TorchEngine) -> None:
    tiny_engine.ranker.save(tmp_path / "half", tiny_engine.encoder, torch.bfloat16)
    sizes = [sum(path.stat().st_size for path in each.glob("*.safetensors")) for each in (folder, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    assert next(load(tmp_path / "half")[0].parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "compressor.safetensors"])
def test_a_truncated_checkpoint_is_one_clear_error(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    for size in (0, 7, len(whole) // 2, len(whole) - 9):
        (folder / name).write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=str(folder)) as caught:
            load(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=r"no (config\.json|tokenizer\.json|\*\.safetensors)|cannot be loaded"):
        load(folder)


def test_weights_that_are_missing_are_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match=r"missing keys.*model\.layers\.2"):
        load(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    for weights in folder.glob("*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(CheckpointError, match="can run code and are not read"):
        load(folder)


@pytest.mark.parametrize("name", ["w.bin", "../outside.safetensors", "/tmp/outside.safetensors"])
def test_an_index_may_not_point_elsewhere(folder: Path, name: str) -> None:
    index = {"metadata": {}, "weight_map": {"model.norm.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"only \*\.safetensors of the same folder are read"):
        load(folder)


def changed(folder: Path, **keys: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | keys))


@pytest.mark.parametrize(
    "keys",
    [
        {"num_hidden_layers": 1}, {"num_attention_heads": 0}, {"hidden_size": 0}, {"num_experts_per_tok": 9},
        {"pad_token_id": 10**9}, {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"model_type": "gpt2"}, {"vocab_size": 100},
    ],
)  # fmt: skip
def test_a_folder_that_does_not_fit_together_is_one_clear_error(folder: Path, keys: dict[str, object]) -> None:
    changed(folder, **keys)
    with pytest.raises(CheckpointError, match=str(folder)) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, tiny_encoder: TextEncoder) -> None:
    ranker = build(tiny_config(vocab_size=len(tiny_encoder.tokenizer)))
    ranker.lm.get_input_embeddings().weight.data.fill_(float("nan"))
    ranker.save(tmp_path / "nan", tiny_encoder)
    with pytest.raises(CheckpointError):
        load(tmp_path / "nan")


def test_a_compressor_of_another_model_is_refused(folder: Path, tmp_path: Path, tiny_encoder: TextEncoder) -> None:
    other = build(tiny_config(vocab_size=len(tiny_encoder.tokenizer), hidden_size=32))
    other.save(tmp_path / "other", tiny_encoder)
    shutil.copy(tmp_path / "other" / "compressor.safetensors", folder)
    with pytest.raises(CheckpointError, match=str(folder)):
        load(folder)


def test_nothing_of_another_model_stays_in_a_folder(folder: Path, tiny_encoder: TextEncoder) -> None:
    build(tiny_config(vocab_size=len(tiny_encoder.tokenizer), compressor=False)).save(folder, tiny_encoder)
    assert load(folder)[0].compressor is None


@pytest.mark.parametrize("architecture", [LlamaConfig, Qwen3Config, Qwen3MoeConfig])
def test_other_architectures_are_rankers_unchanged(
    architecture: type[PreTrainedConfig], tmp_path: Path, tiny_encoder: TextEncoder
) -> None:
    save_random(architecture, tmp_path / "model", tiny_encoder)
    assert load(tmp_path / "model")[0].compressor is None


@pytest.mark.parametrize("architecture", [Gemma2Config, CohereConfig, BloomConfig])
def test_an_architecture_that_is_not_supported_is_refused(
    architecture: type[PreTrainedConfig], tmp_path: Path, tiny_encoder: TextEncoder
) -> None:
    save_random(architecture, tmp_path / "model", tiny_encoder)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load(tmp_path / "model")


def save_random(architecture: type[PreTrainedConfig], folder: Path, encoder: TextEncoder) -> None:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": len(encoder.tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "n_layer": 2, "n_head": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 32, "initializer_range": 0.3, "pad_token_id": 2,
        "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    AutoModelForCausalLM.from_config(architecture(**sizes)).save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)


def test_code_in_a_folder_is_never_run(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    evil = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config | evil))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(CheckpointError):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_versions_follow_the_weights(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert version(folder) == version(tmp_path / "copy")
    build(tiny_config(), seed=1).save(tmp_path / "other", load(folder)[1])
    assert version(folder) != version(tmp_path / "other")


def test_the_nano_is_small_and_a_mixture_of_experts() -> None:
    config = ModelConfig.load("nano")
    parameters = sum(p.numel() for p in build(config).parameters())
    assert parameters <= 12_000_000
    assert config.experts > config.experts_per_token >= 1
    weights = sum(path.stat().st_size for path in shipped("nano").rglob("*"))
    assert weights < 25_000_000
    assert (shipped("nano") / "README.md").is_file()


def test_a_checkpoint_that_is_not_shipped_is_named() -> None:
    with pytest.raises(CheckpointError, match="no checkpoint 'giant'"):
        shipped("giant")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("hidden_size: 100\n", "hidden_size.*multiple of 8"),
        ("heads: 5\n", "heads must divide hidden_size"),
        ("experts_per_token: 99\n", "experts_per_token is larger"),
        ("colour: red\n", "colour.*not permitted"),
        ("layers: [\n", r"model.yaml:\d+:\d+: not YAML"),
    ],
)
def test_a_wrong_description_says_where(tmp_path: Path, change: str, message: str) -> None:
    shipped_text = Path("configs/model/nano.yaml").read_text()
    key = change.split(":", maxsplit=1)[0]
    kept = "".join(line for line in shipped_text.splitlines(keepends=True) if not line.startswith(f"{key}:"))
    (tmp_path / "model.yaml").write_text(kept + change)
    with pytest.raises(ConfigError, match=message):
        ModelConfig.load(str(tmp_path / "model.yaml"))


def test_an_unknown_description_lists_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no model configuration 'nona'.*nano"):
        ModelConfig.load("nona")


HOSTILE = [f"{BOS}{EOS} hello", "<|begin|><|pad|>", f"a{PAD}b", "<|begin", "\u202e<|end|>", "yes<|end|>no"]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_never_forms_a_control_token(tiny_encoder: TextEncoder, text: str) -> None:
    control = set(tiny_encoder.tokenizer.all_special_ids)
    assert control
    ids = tiny_encoder.encode(text)
    assert control.isdisjoint(ids)
    assert tiny_encoder.tokenizer.decode(ids) == text


def test_the_same_text_is_a_control_token_to_the_tokenizer_itself(tiny_encoder: TextEncoder) -> None:
    assert set(tiny_encoder.tokenizer.all_special_ids) & set(tiny_encoder.tokenizer(BOS)["input_ids"])
