"""llama.cpp as a peer, through the C functions that llama-cpp-python binds.

The context is computed once, in sequence 0, and copied to one sequence a candidate; all candidates then go through one
`llama_decode`, and only their last tokens ask for logits. The checkpoint, a Llama in a Hugging Face folder in fp32, is
written as a GGUF file without a tokenizer, in the precision asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

AT_ONCE = 128
"""Candidates of one `llama_decode`: more are not faster, and their keys and values take 23 MB each in SmolLM2-135M."""
PRECISIONS = {
    "fp32": ("LLAMA_FTYPE_ALL_F32", "GGML_TYPE_F32"),
    "fp32_kv16": ("LLAMA_FTYPE_ALL_F32", "GGML_TYPE_F16"),
    "fp16": ("LLAMA_FTYPE_MOSTLY_F16", "GGML_TYPE_F16"),
    "q4_1": ("LLAMA_FTYPE_MOSTLY_Q4_1", "GGML_TYPE_F16"),
}
"""Of the weights, and of the keys and values."""
Floats = npt.NDArray[np.float32]


class Room(NamedTuple):
    """What a llama.cpp context has room for."""

    context: int
    sequences: int
    candidate: int


class Row(NamedTuple):
    """A token of a batch, and whether its logits are wanted."""

    token: int
    position: int
    sequence: int
    read: bool = False


class LlamaCpp:
    """llama.cpp with one model. Its context is made anew when a request needs another room."""

    def __init__(self, model: str, threads: int, precision: str) -> None:
        self._lib: Any = import_module("llama_cpp")
        self._lib.llama_backend_init()
        self._model = _open(self._lib, Path(model), precision)
        self._vocabulary = int(self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model)))
        self._threads, self._precision = threads, precision
        self._room = Room(0, 0, 0)
        self._context: Any = None
        self.about: dict[str, object] = {
            "llama-cpp-python": self._lib.__version__, "precision": precision, "sequences_at_once": AT_ONCE,
            "kv_unified": False, "flash_attention": False, "system": self._lib.llama_print_system_info().decode(),
        }  # fmt: skip

    def warm(self, context: list[int], candidates: list[list[int]]) -> None:
        """Compute the context and copy it to every sequence."""
        room = Room(len(context), min(AT_ONCE, len(candidates)), max(map(len, candidates)))
        if room != self._room:
            self._make(room)
        self._lib.llama_memory_clear(self._memory, True)
        self._decode([Row(token, place, 0) for place, token in enumerate(context)])
        for sequence in range(1, room.sequences + 1):
            self._lib.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)
        self._decode(
            [Row(context[0], len(context), 0)]
        )  # it is the next decode that copies, and that must not be timed
        self._lib.llama_memory_seq_rm(self._memory, 0, len(context), -1)

    def score(self, context: list[int], candidates: list[list[int]], answers: list[int]) -> list[list[float]]:
        """As many candidates at a time as there are sequences."""
        parts = [candidates[at : at + AT_ONCE] for at in range(0, len(candidates), AT_ONCE)]
        return [logp for part in parts for logp in self._part(len(context), part, answers)]

    def _part(self, start: int, candidates: list[list[int]], answers: list[int]) -> list[list[float]]:
        self._decode([row for at, candidate in enumerate(candidates, 1) for row in _rows(candidate, start, at)])
        last = np.cumsum([len(candidate) for candidate in candidates]) - 1
        for sequence in range(1, len(candidates) + 1):
            self._lib.llama_memory_seq_rm(self._memory, sequence, start, -1)
        return [self._log_softmax(int(row))[answers].tolist() for row in last]

    def _decode(self, rows: list[Row]) -> None:
        batch = self._lib.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for place, row in enumerate(rows):
            batch.token[place], batch.pos[place], batch.logits[place] = row.token, row.position, row.read
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, row.sequence
        status = self._lib.llama_decode(self._context, batch)
        self._lib.llama_batch_free(batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status} for {len(rows)} tokens with {self._room}")

    def _log_softmax(self, row: int) -> Floats:
        pointer = self._lib.llama_get_logits_ith(self._context, row)
        logits: Floats = np.ctypeslib.as_array(pointer, (self._vocabulary,))
        shifted: Floats = logits - logits.max()
        shifted -= np.log(np.exp(shifted).sum())
        return shifted

    def _make(self, room: Room) -> None:
        """A context whose sequences have cells of their own, each with room for the shared context and a candidate."""
        lib, sequences = self._lib, room.sequences + 1
        wanted = lib.llama_context_default_params()
        wanted.n_seq_max, wanted.n_ctx = sequences, sequences * (room.context + room.candidate)
        wanted.n_batch = wanted.n_ubatch = max(room.context, room.sequences * room.candidate)
        wanted.n_outputs_max = sequences
        wanted.n_threads = wanted.n_threads_batch = self._threads
        wanted.kv_unified, wanted.flash_attn_type = False, lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        wanted.type_k = wanted.type_v = getattr(lib, PRECISIONS[self._precision][1])
        if self._context is not None:
            lib.llama_free(self._context)
        self._context, self._room = lib.llama_init_from_model(self._model, wanted), room
        if not self._context:
            raise RuntimeError(f"llama.cpp makes no context with {room}")
        self._memory = lib.llama_get_memory(self._context)


def load(model: str, threads: int, precision: str) -> LlamaCpp:
    """Writes the weights once more, as GGUF, which takes seconds."""
    if precision not in PRECISIONS:
        raise ValueError(f"llama.cpp is compared in {', '.join(PRECISIONS)}, not in {precision}")
    return LlamaCpp(model, threads, precision)


def _rows(candidate: list[int], start: int, sequence: int) -> Iterator[Row]:
    last = len(candidate) - 1
    return (Row(token, start + place, sequence, place == last) for place, token in enumerate(candidate))


def _open(lib: Any, folder: Path, precision: str) -> Any:
    """The model, mapped from a file that is gone when this returns."""
    with TemporaryDirectory() as made:
        plain, path = Path(made) / "fp32.gguf", Path(made) / "model.gguf"
        write_gguf(folder, plain)
        wanted = lib.llama_model_quantize_default_params()
        wanted.ftype = getattr(lib, PRECISIONS[precision][0])
        if lib.llama_model_quantize(str(plain).encode(), str(path).encode(), wanted):
            raise RuntimeError(f"llama.cpp does not write {precision}")
        plain.unlink()
        model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
    if not model:
        raise RuntimeError(f"llama.cpp does not read what was made of {folder}")
    return model


def write_gguf(folder: Path, path: Path) -> None:
    """A Llama's weights, under llama.cpp's names. Raises ValueError for another architecture."""
    gguf: Any = import_module("gguf")
    tensors = import_module("safetensors.numpy").load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "llama":
        raise ValueError(f"llama.cpp is compared on Llamas alone, and {folder.name} is a {config['model_type']}")
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, values in tensors.items():
        writer.add_tensor(names.get_name(name, (".weight",)), _turned(name, values, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: Any, config: dict[str, Any]) -> None:
    """A model without a tokenizer: the bench speaks in token ids."""
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _turned(name: str, values: Floats, config: dict[str, Any]) -> Floats:
    """Queries and keys in llama.cpp's order: it rotates neighbours, transformers the two halves of a head."""
    for kind, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
        if kind in name:
            halves = values.reshape(config[heads], 2, -1, values.shape[1])
            return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
    return values
