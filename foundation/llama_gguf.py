"""A Llama out of a GGUF file: its configuration, its tokenizer, and its weights, dequantized to fp32.

llama.cpp's rotary embedding turns pairs of neighbours, transformers' the two halves of a head, so the rows of the query
and key projections stand in another order in the file (`permute` in llama.cpp's convert_hf_to_gguf.py); here they are
put back. This module needs the package gguf, which the extra `pull` installs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGUFReader, ReaderTensor, TokenType, dequantize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from foundation.wheels import Progress
from prompts.errors import CheckpointError

_NAME = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.weight")
_MODULES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SPECIAL = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
_KNOWN = {"general.architecture": "llama", "tokenizer.ggml.pre": "smollm"}
"""smollm is llama.cpp's word for every digit by itself, then GPT-2's byte-level words."""


class LlamaFile:
    """An open file. Raises CheckpointError where it is no Llama, or one with a tokenizer that is not known here."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader = GGUFReader(path)
        except (ValueError, IndexError) as error:
            raise CheckpointError(f"{path}: not a GGUF file: {error}") from None
        for key, known in _KNOWN.items():
            if (found := self._value(key)) != known:
                raise CheckpointError(f"{path}: {key} is {found!r}; only {known!r} can be read")

    def config(self) -> LlamaConfig:
        """The architecture."""
        return LlamaConfig(
            vocab_size=len(self._value("tokenizer.ggml.tokens")),
            hidden_size=self._value("llama.embedding_length"),
            intermediate_size=self._value("llama.feed_forward_length"),
            num_hidden_layers=self._value("llama.block_count"),
            num_attention_heads=self._value("llama.attention.head_count"),
            num_key_value_heads=self._value("llama.attention.head_count_kv"),
            head_dim=self._value("llama.rope.dimension_count"),
            max_position_embeddings=self._value("llama.context_length"),
            rms_norm_eps=self._value("llama.attention.layer_norm_rms_epsilon"),
            rope_parameters={"rope_type": "default", "rope_theta": self._value("llama.rope.freq_base")},
            tie_word_embeddings=all(tensor.name != "output.weight" for tensor in self._reader.tensors),
            **{f"{word}_token_id": number for word, number in self._special_ids().items()},
        )

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The byte-level BPE, its control tokens and its chat template."""
        tokens, merges = self._value("tokenizer.ggml.tokens"), self._value("tokenizer.ggml.merges")
        pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
        backend = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, pairs))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        backend.decoder = decoders.ByteLevel()
        kinds = zip(tokens, self._value("tokenizer.ggml.token_type"), strict=True)
        backend.add_special_tokens([token for token, kind in kinds if kind == TokenType.CONTROL])
        return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=backend,
            chat_template=self._value("tokenizer.chat_template"),
            **{f"{word}_token": tokens[number] for word, number in self._special_ids().items()},
        )

    def weights(self, progress: Progress) -> dict[str, torch.Tensor]:
        """Every tensor in fp32, by transformers' names. Raises CheckpointError for one that no Llama has."""
        state, tensors = {}, self._reader.tensors
        for number, tensor in enumerate(tensors, 1):
            progress(f"dequantizing tensor {number} of {len(tensors)}")
            found = _NAME.fullmatch(tensor.name)
            if not found or found[2] not in _MODULES:
                raise CheckpointError(f"the tensor {tensor.name} is none of a Llama's")
            layer = f"model.layers.{found[1]}." if found[1] else ""
            state[f"{layer}{_MODULES[found[2]]}.weight"] = self._weight(tensor, found[2])
        return state

    def _weight(self, tensor: ReaderTensor, module: str) -> torch.Tensor:
        values = dequantize(tensor.data, tensor.tensor_type)
        if module == "attn_q":
            values = _in_halves(values, self._value("llama.attention.head_count"))
        elif module == "attn_k":
            values = _in_halves(values, self._value("llama.attention.head_count_kv"))
        return torch.from_numpy(np.array(values, np.float32))

    def _special_ids(self) -> dict[str, Any]:
        ids = {word: self._value(f"tokenizer.ggml.{key}_token_id") for word, key in _SPECIAL.items()}
        return {word: number for word, number in ids.items() if number is not None}

    def _value(self, key: str) -> Any:
        field = self._reader.get_field(key)
        return None if field is None else field.contents()


def _in_halves(rows: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """The rows of each head, from pairs of neighbours to the first of every pair and then the second."""
    pairs = rows.reshape(heads, -1, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
