"""Tiny dense decoders with random weights, as model folders and as GGUF files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel

from foundation.tokenizer import TextEncoder

SMALL = {
    "vocab_size": 512, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.15, "bos_token_id": 0,
    "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip


def dense(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A model with random weights, its norms and biases too."""
    torch.manual_seed(seed)
    lm: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if "norm" in name or name.endswith(".bias"):
                parameter.add_(torch.rand_like(parameter) - 0.5)
    return lm


def dense_folder(folder: Path, config: PreTrainedConfig, encoder: TextEncoder) -> Path:
    """The same as a Hugging Face folder."""
    dense(config).save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return folder


NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def gguf_tensors(lm: PreTrainedModel) -> dict[str, np.ndarray]:
    """A Llama's tensors by llama.cpp's names, with rows in llama.cpp's order."""
    tied = lm.config.tie_word_embeddings
    tensors = {}
    for name, tensor in lm.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        module, layer = name.removesuffix(".weight"), ""
        if module.startswith("model.layers."):
            _, _, number, module = module.split(".", 3)
            layer = f"blk.{number}."
        values = tensor.numpy()
        if module in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = lm.config.num_attention_heads if "q_proj" in module else lm.config.num_key_value_heads
            values = permuted(values, heads)
        tensors[f"{layer}{NAMES[module]}.weight"] = values
    return tensors


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's convert_hf_to_gguf.py does it."""
    return rows.reshape(heads, 2, len(rows) // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def write_gguf(
    path: Path,
    config: LlamaConfig,
    tensors: dict[str, np.ndarray],
    encoder: TextEncoder,
    *,
    architecture: str = "llama",
    pre: str = "smollm",
    form: GGMLQuantizationType = GGMLQuantizationType.F32,
) -> Path:
    """A GGUF file of these tensors; matrices are kept in `form`."""
    writer = GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_tokenizer(writer, encoder, pre)
    for name, values in tensors.items():
        kept = form if values.ndim > 1 else GGMLQuantizationType.F32
        writer.add_tensor(name, quantize(np.ascontiguousarray(values), kept), raw_dtype=kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: GGUFWriter, encoder: TextEncoder, pre: str) -> None:
    tokenizer = encoder.tokenizer
    control = set(tokenizer.all_special_ids)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))
    writer.add_token_types([TokenType.CONTROL if n in control else TokenType.NORMAL for n in range(len(tokenizer))])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}")


def tiny_llama(encoder: TextEncoder, **changes: object) -> LlamaForCausalLM:
    """A Llama for a tokenizer, with dimensions that every quantization can cut into blocks."""
    fitting = {"hidden_size": 64, "vocab_size": len(encoder.tokenizer), "tie_word_embeddings": True}
    lm = dense(LlamaConfig(**{**SMALL, **fitting, **changes}))
    assert isinstance(lm, LlamaForCausalLM)
    return lm
