"""A mixture of experts out of a dense checkpoint: equal to it at the start, and no more arithmetic to run.

Every feed-forward network is cut along its intermediate dimension into S shards, and the shards are copied C times:
they are the E = C·S experts. The S experts of one copy get the same router row, so a token gives them equal logits and
its top S are one whole copy: the dense network, cut in pieces. The router normalises its S equal weights to exactly 1/S
(S is a power of two), so the down projections are multiplied by S. This is the "virtual group" initialization of He et
al. 2024, "Upcycling Large Language Models into Mixture of Experts" (arXiv 2410.07524, section 3).

Rows of different copies are drawn at random, so that copies get different tokens and drift apart in training; before
it, which of them a token takes makes no difference. Only two copies whose logits are equal to the last bit could be
mixed into something that is no copy. The rows are long enough for logits to spread by about one, which makes that a
coincidence of one in ten million.

Shapes: E experts, C copies, S shards, I the dense intermediate size, J = I / S, D hidden size; N slots, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from transformers import MixtralConfig, PreTrainedConfig, PreTrainedModel, Qwen3MoeConfig

from foundation.fresh import assemble, fresh_folder
from foundation.memory import Parameters, parameters
from foundation.model import Ranker, load
from foundation.wheels import Progress
from prompts.errors import CheckpointError, ConfigError

State = dict[str, torch.Tensor]
TOLERANCE = 1e-4
"""Largest difference of a logit from the dense model's, against the largest logit: rounding stays well below."""
_PROBE_TOKENS = 64
_CARRIED = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps", "rope_parameters",
    "attention_dropout", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Split:
    """How the feed-forward networks are cut and copied. Raises ConfigError where it cannot be."""

    experts: int = 8
    shards: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.shards < 1 or self.shards & (self.shards - 1):
            raise ConfigError(f"{self.shards} shards: a power of two keeps the weights exact, such as 4")
        if self.experts % self.shards or self.experts < 2 * self.shards:
            raise ConfigError(f"{self.experts} experts are no two or more whole copies of {self.shards} shards")

    @property
    def copies(self) -> int:
        return self.experts // self.shards

    def shard_size(self, intermediate: int) -> int:
        """J. Raises ConfigError where shards would differ in size."""
        if intermediate % self.shards:
            raise ConfigError(f"an intermediate size of {intermediate} does not divide into {self.shards} shards")
        return intermediate // self.shards


class Upcycled(NamedTuple):
    """What came of it: the largest difference from a logit of the dense model, and the largest logit."""

    parameters: Parameters
    difference: float
    largest: float


def upcycle(source: Path, out: Path, split: Split, progress: Progress) -> Upcycled:
    """Makes `out` a mixture of experts of the dense model in `source`, after comparing the two.

    Raises CheckpointError for a source that cannot be loaded or has no mixture to become, and where they differ.
    """
    with fresh_folder(out) as fresh:
        progress(f"loading {source}")
        dense, encoder = load(source)
        config = mixture_config(dense.lm.config, split)
        logits_NV = _probe(dense.lm)
        state = expand(dense.lm.state_dict(), dense.lm.config.num_hidden_layers, split, progress)
        progress("writing the folder")
        Ranker(assemble(config, state), dense.compressor).save(fresh, encoder, _stored_type(source))
        del dense, state
        progress("comparing")
        return _compare(load(fresh)[0].lm, logits_NV)


def mixture_config(dense: PreTrainedConfig, split: Split) -> PreTrainedConfig:
    """The architecture to become. Raises CheckpointError for one that has none, ConfigError for an uneven split."""
    make = _MIXTURES.get(dense.model_type)
    if make is None:
        raise CheckpointError(f"a {dense.model_type} cannot be upcycled: {', '.join(_MIXTURES)} can")
    carried = {name: getattr(dense, name, None) for name in _CARRIED}
    return make(dense, carried, split)


def _mixtral(dense: PreTrainedConfig, carried: dict[str, Any], split: Split) -> PreTrainedConfig:
    for name in ("attention_bias", "mlp_bias"):
        if getattr(dense, name, False):
            raise CheckpointError(f"this {dense.model_type} has biases ({name}), and a Mixtral has none")
    return MixtralConfig(
        **carried,
        intermediate_size=split.shard_size(dense.intermediate_size),
        num_local_experts=split.experts,
        num_experts_per_tok=split.shards,
        sliding_window=getattr(dense, "sliding_window", None),
    )


def _qwen3_moe(dense: PreTrainedConfig, carried: dict[str, Any], split: Split) -> PreTrainedConfig:
    if "sliding_attention" in dense.layer_types:
        raise CheckpointError("this qwen3 has a sliding window in some layers, and a Qwen3-MoE in all or none")
    return Qwen3MoeConfig(
        **carried,
        attention_bias=dense.attention_bias,
        intermediate_size=dense.intermediate_size,
        moe_intermediate_size=split.shard_size(dense.intermediate_size),
        num_experts=split.experts,
        num_experts_per_tok=split.shards,
        norm_topk_prob=True,
    )


_Make = Callable[[PreTrainedConfig, dict[str, Any], Split], PreTrainedConfig]
_MIXTURES: dict[str, _Make] = {"llama": _mixtral, "mistral": _mixtral, "qwen3": _qwen3_moe}


def expand(dense: State, layers: int, split: Split, progress: Progress) -> State:
    """The mixture's tensors, by transformers' names; what is no feed-forward network is the dense model's own."""
    state = {name: tensor for name, tensor in dense.items() if ".mlp." not in name}
    generator = torch.Generator().manual_seed(split.seed)
    for layer in range(layers):
        progress(f"splitting layer {layer + 1} of {layers}")
        prefix = f"model.layers.{layer}"
        gate_ID, up_ID, down_DI = (dense[f"{prefix}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
        state[f"{prefix}.mlp.experts.gate_up_proj"] = _cut_rows(gate_ID, up_ID, split)
        state[f"{prefix}.mlp.experts.down_proj"] = _cut_columns(down_DI, split)
        norm_D = dense[f"{prefix}.post_attention_layernorm.weight"]
        state[f"{prefix}.mlp.gate.weight"] = _router(norm_D, split, generator)
    return state


def _cut_rows(gate_ID: torch.Tensor, up_ID: torch.Tensor, split: Split) -> torch.Tensor:
    """[E, 2J, D]: the gate's rows of a shard, then the up projection's; all shards of a copy, then the next copy's."""
    gate_SJD, up_SJD = (x_ID.reshape(split.shards, -1, x_ID.shape[1]) for x_ID in (gate_ID, up_ID))
    return torch.cat([gate_SJD, up_SJD], dim=1).repeat(split.copies, 1, 1)


def _cut_columns(down_DI: torch.Tensor, split: Split) -> torch.Tensor:
    """[E, D, J], times the number of shards."""
    down_SDJ = down_DI.reshape(len(down_DI), split.shards, -1).transpose(0, 1)
    down_EDJ: torch.Tensor = (down_SDJ * split.shards).repeat(split.copies, 1, 1)
    return down_EDJ


def _router(norm_D: torch.Tensor, split: Split, generator: torch.Generator) -> torch.Tensor:
    """[E, D]: a random row per copy. What enters is about as long as the norm's weight, so logits spread by one."""
    rows_CD: torch.Tensor = torch.randn(split.copies, len(norm_D), generator=generator) / norm_D.norm()
    return rows_CD.repeat_interleave(split.shards, dim=0)


def _stored_type(folder: Path) -> torch.dtype:
    """In which numbers a folder's weights are kept."""
    with safe_open(min(folder.glob("model*.safetensors")), "pt") as file:
        dtype: torch.dtype = file.get_tensor(next(iter(file.keys()))).dtype
    return dtype


@torch.inference_mode()
def _probe(lm: PreTrainedModel) -> torch.Tensor:
    """Logits [N, V] of a fixed text of random tokens, by the model's own attention, at which it is left."""
    ids = torch.randint(lm.config.vocab_size, (1, _PROBE_TOKENS), generator=torch.Generator().manual_seed(0))
    lm.set_attn_implementation("eager")
    logits: torch.Tensor = lm(ids).logits[0]
    return logits


def _compare(lm: PreTrainedModel, dense_NV: torch.Tensor) -> Upcycled:
    difference, largest = float((_probe(lm) - dense_NV).abs().max()), float(dense_NV.abs().max())
    if not difference <= TOLERANCE * largest:
        raise CheckpointError(f"the mixture differs from the dense model, by {difference:.1e} in a logit")
    return Upcycled(parameters(lm), difference, largest)
