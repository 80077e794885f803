"""vLLM's CPU build as a peer: prefix caching, its model compiled, the two answers asked for as `logprob_token_ids`.

In one process, so that this process's clock sees all of its work.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

BLOCK = 32
"""Tokens of a cached block: the smallest that the CPU's attention takes. Only whole blocks of a context are shared."""
AT_ONCE = 128
TOKENS_AT_ONCE = 1024
"""512 and 2048 are within 1% of it, with 100 candidates of 24 tokens."""
LONGEST = 4096
"""Tokens of a context and a candidate together."""
CACHE_BYTES = 2 << 30
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class Vllm:
    """vLLM with one model."""

    def __init__(self, model: str, threads: int, precision: str) -> None:
        _set_up(threads)
        self._vllm = import_module("vllm")
        knobs: dict[str, object] = {
            "dtype": PRECISIONS[precision], "block_size": BLOCK, "max_num_seqs": AT_ONCE,
            "max_num_batched_tokens": TOKENS_AT_ONCE,
        }  # fmt: skip
        self._llm = self._vllm.LLM(
            model, **knobs, enable_prefix_caching=True, max_model_len=LONGEST, kv_cache_memory_bytes=CACHE_BYTES,
            skip_tokenizer_init=True, seed=0,
        )  # fmt: skip
        self.about: dict[str, object] = {"vllm": self._vllm.__version__, "precision": precision, **knobs}

    def warm(self, context: list[int], candidates: list[list[int]]) -> None:  # noqa: ARG002 - its cache has room
        """Forget everything, and compute the context."""
        self._llm.reset_prefix_cache()
        self._ask([context], [0])

    def score(self, context: list[int], candidates: list[list[int]], answers: list[int]) -> list[list[float]]:
        """Every candidate as a whole prompt: finding what they share is vLLM's own work."""
        replies = self._ask([context + candidate for candidate in candidates], answers)
        found = [reply.outputs[0].logprobs[0] for reply in replies]
        return [[position[answer].logprob for answer in answers] for position in found]

    def _ask(self, prompts: list[list[int]], answers: list[int]) -> list[Any]:
        asked = self._vllm.SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=answers, detokenize=False)
        replies: list[Any] = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts], asked, use_tqdm=False
        )
        return replies


def load(model: str, threads: int, precision: str) -> Vllm:
    """Compiles, which takes minutes the first time."""
    if precision not in PRECISIONS:
        raise ValueError(f"vLLM computes in {', '.join(PRECISIONS)}, not in {precision}")
    return Vllm(model, threads, precision)


def _set_up(threads: int) -> None:
    """What vLLM and its OpenMP read when they are imported. What it compiles is kept within its environment."""
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CACHE_ROOT=f"{sys.prefix}/cache", VLLM_NO_USAGE_STATS="1",
        HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(threads),
        VLLM_USE_AOT_COMPILE="0",  # it fails to read what it saved, and would compile at every start
    )  # fmt: skip
