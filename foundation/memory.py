"""What a model needs: parameters, memory for its weights and its cache, and GPUs to hold both.

Nothing is allocated: the model is built on the meta device, where tensors have shapes and no numbers.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from transformers import MixtralForCausalLM, PreTrainedModel

from foundation.config import ModelConfig
from foundation.model import lm_config
from prompts.errors import ConfigError

GIB = 1 << 30
USABLE = 0.9
"""The share of a GPU's memory that weights and cache may fill; the rest is for activations and the runtime."""
STORAGE = {"fp32": (4, 4), "bf16": (2, 2), "int8": (1, 2)}
"""Bytes of a weight and of a number in the cache. The scales of int8, one a row, are not counted: under 0.1%."""


class Parameters(NamedTuple):
    """How many there are, and how many of them work on one token."""

    total: int
    active: int


def parameters(lm: PreTrainedModel) -> Parameters:
    """Counts tied weights once, and of the experts as many as a token is sent to."""
    total = sum(parameter.numel() for parameter in lm.parameters())
    experts = sum(parameter.numel() for name, parameter in lm.named_parameters() if ".experts." in name)
    if not experts:
        return Parameters(total, total)
    config = lm.config
    return Parameters(total, total - experts + experts * config.num_experts_per_tok // config.num_local_experts)


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be held at once: so many cached trunks of so many slots, on GPUs of this size."""

    trunks: int = 100
    slots: int = 4096
    gpu_gib: int = 80

    def gpus(self, size: int) -> int:
        """How many GPUs hold so many bytes."""
        return math.ceil(size / (self.gpu_gib * GIB * USABLE))


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes, and GPUs for the weights alone and with the cache, at one storage type."""

    weight_bytes: int
    slot_bytes: int
    trunk_bytes: int
    cache_bytes: int
    gpus_for_weights: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The needs of one model, by storage type."""

    parameters: Parameters
    load: Load
    needs: dict[str, Need]

    def to_json(self) -> dict[str, object]:
        """The figures, in bytes."""
        total, active = self.parameters
        needs = {storage: asdict(need) for storage, need in self.needs.items()}
        return {"parameters": total, "active": active, **asdict(self.load), "needs": needs}


def plan(config: ModelConfig, load: Load) -> Plan:
    """Raises ConfigError for a trunk that is longer than the model can read."""
    if load.slots > config.max_positions:
        raise ConfigError(
            f"a trunk of {load.slots} slots is longer than the model's max_positions, {config.max_positions}"
        )
    with torch.device("meta"):
        found = parameters(MixtralForCausalLM(lm_config(config)))
    return Plan(found, load, {storage: _need(config, load, found.total, *STORAGE[storage]) for storage in STORAGE})


def _need(config: ModelConfig, load: Load, weights: int, weight_size: int, number_size: int) -> Need:
    """A slot caches one key and one value of every KV head in every layer."""
    head_size = config.hidden_size // config.heads
    slot = 2 * config.layers * config.kv_heads * head_size * number_size
    trunk = slot * load.slots
    held, cache = weights * weight_size, trunk * load.trunks
    return Need(held, slot, trunk, cache, load.gpus(held), load.gpus(held + cache))
