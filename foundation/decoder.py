"""The decoder's own forward for scoring: the weights of a transformers model, fewer passes over memory.

Llama, Mistral, Mixtral, Qwen2, Qwen3, Qwen3-MoE, Gemma and Gemma 3 are the same decoder in different clothes: normed
attention, then a normed dense or mixed feed-forward, each added to the residual stream. What differs (norms at the end
of a branch, norms of queries and keys, biases, windows, the scale) is read off the modules. Against their own forward
it joins products that read the same input, works in place, keeps intermediate results of the feed-forward small enough
for the processor's cache, groups slots by expert, and computes of the last layer only the slots that somebody reads.

Shapes: N slots, D hidden size, H heads, K heads of keys and values, E size of a head, R rows that are read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from foundation.attention.merge import Plan, merged_attention
from foundation.attention.registry import Asked, Hear
from foundation.lowrank import UNADAPTED, Adapted, Target
from foundation.product import Make, Plain, Product, UnknownArchitectureError, joined

BLOCK = 1024
"""Rows of a feed-forward at a time."""
QKV: tuple[Target, ...] = ("q_proj", "k_proj", "v_proj")
OUT: tuple[Target, ...] = ("o_proj",)
FEW = 0.25
"""The last layer is cut down to the rows that are read when they are at most this share."""

Act = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Norm:
    """Root-mean-square norm (Zhang and Sennrich 2019) over the last dimension."""

    weight: torch.Tensor
    eps: float
    counts_from: int = 0

    @classmethod
    def of(cls, module: nn.Module) -> Norm:
        """Gemma's weights count from one."""
        name, weight = type(module).__name__, getattr(module, "weight", None)
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not name.endswith("RMSNorm") or weight is None or eps is None:
            raise UnknownArchitectureError(name)
        return cls(weight.detach(), float(eps), int(name.startswith("Gemma")))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        shrink = length.square_().div_(x.shape[-1]).add_(self.eps).rsqrt_()
        weight = self.weight + self.counts_from if self.counts_from else self.weight
        return (x * weight).mul_(shrink.to(x.dtype))


@dataclass(frozen=True, slots=True)
class Dense:
    """A gated feed-forward (Shazeer 2020)."""

    gate_up: Product
    down: Product
    act: Act

    def add_to(self, target: torch.Tensor, x: torch.Tensor) -> None:
        """Adds its output for `x` to `target`, in place."""
        for at in range(0, len(x), BLOCK):
            rows = slice(at, at + BLOCK)
            self.down.add_to(target[rows], _gated(self.gate_up(x[rows]), self.act))


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture of gated feed-forwards: slots are sorted by expert, and each expert is one product over all its own."""

    router: nn.Module
    experts: Sequence[tuple[Product, Product]]
    act: Act

    def add_to(self, target: torch.Tensor, x: torch.Tensor) -> None:
        """Adds its output for `x` to `target`, in place."""
        _, weights_NT, chosen_NT = self.router(x)
        order = chosen_NT.flatten().argsort(stable=True)
        counts = chosen_NT.flatten().bincount(minlength=len(self.experts)).tolist()
        sorted_x = x.index_select(0, order // chosen_NT.shape[1])
        shares = weights_NT.flatten().index_select(0, order)[:, None].to(x.dtype)
        outputs, at = torch.empty_like(sorted_x), 0
        for (gate_up, down), count in zip(self.experts, counts, strict=True):
            rows = slice(at, at + count)
            if count:
                outputs[rows] = down(_gated(gate_up(sorted_x[rows]), self.act).mul_(shares[rows]))
            at += count
        back_NT = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=order.device))
        for back_N in back_NT.view(chosen_NT.shape).unbind(1):
            target += outputs.index_select(0, back_N)


def _gated(gate_up: torch.Tensor, act: Act) -> torch.Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return act(gate).mul_(up)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer; `heads` are those of queries and of keys, `head` the size of one."""

    number: int
    heads: tuple[int, int]
    head: int
    asked: Asked
    kind: str | None
    norm: Norm
    qkv: Product
    q_norm: Norm | None
    k_norm: Norm | None
    out: Product
    attention_norm: Norm | None
    inner_norm: Norm
    inner: Dense | Mixture
    end_norm: Norm | None

    def split(
        self, x_ND: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], adapted: Adapted
    ) -> list[torch.Tensor]:
        """Queries, keys and values [N, heads, E], turned by their positions."""
        n_heads, n_keys = self.heads
        normed = self.norm(x_ND)
        found = self.qkv(normed)
        adapted.add_to(found, normed, self.number, QKV, [each * self.head for each in (n_heads, n_keys, n_keys)])
        qkv = found.view(len(x_ND), n_heads + 2 * n_keys, self.head)
        if self.q_norm and self.k_norm:
            qkv[:, :n_heads] = self.q_norm(qkv[:, :n_heads])
            qkv[:, n_heads:-n_keys] = self.k_norm(qkv[:, n_heads:-n_keys])
        _turn(qkv[:, :-n_keys], *turn)
        return list(torch.split(qkv, [n_heads, n_keys, n_keys], dim=1))

    def rest(self, x_ND: torch.Tensor, attended: torch.Tensor, adapted: Adapted) -> None:
        """Adds what was attended to, and then the feed-forward, to the residual stream, in place."""
        if self.attention_norm:
            out = self.out(attended)
            adapted.add_to(out, attended, self.number, OUT, out.shape[1:])
            x_ND += self.attention_norm(out)
        else:
            self.out.add_to(x_ND, attended)
            adapted.add_to(x_ND, attended, self.number, OUT, x_ND.shape[1:])
        normed = self.inner_norm(x_ND)
        if self.end_norm:
            found = torch.zeros_like(x_ND)
            self.inner.add_to(found, normed)
            x_ND += self.end_norm(found)
        else:
            self.inner.add_to(x_ND, normed)


def _turn(x_NHE: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """Rotary positions (Su et al. 2021), in place; the halves of a head are the two numbers of each pair."""
    first, second = x_NHE.chunk(2, dim=-1)
    turned = (first * cos).addcmul_(second, sin, value=-1)
    second.mul_(cos).addcmul_(first, sin)
    first.copy_(turned)


class Decoder:
    """Reads a transformers model's weights; what is trained there later is seen here, too."""

    def __init__(self, lm: PreTrainedModel, asked: Sequence[Asked], make: Make = Plain) -> None:
        """`asked` is what each layer asks of its attention, `make` what multiplies. Raises UnknownArchitectureError."""
        base = cast(Any, lm.base_model)
        if {name for name, _ in base.named_children()} != {"embed_tokens", "layers", "norm", "rotary_emb"}:
            raise UnknownArchitectureError(type(base).__name__)
        self._turns = base.rotary_emb
        self._kinds = "layer_type" in inspect.signature(base.rotary_emb.forward).parameters
        layers = enumerate(zip(base.layers, asked, strict=True))
        self._layers = [_layer(number, module, each, make) for number, (module, each) in layers]
        self._norm = Norm.of(base.norm)

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self._layers)

    def hidden(
        self, x_ND: torch.Tensor, positions: torch.Tensor, plan: Plan, rows: torch.Tensor, hear: Hear,
        adapted: Adapted = UNADAPTED,
    ) -> torch.Tensor:  # fmt: skip
        """Last hidden states [R, D] of `rows`, which rise. `x_ND` is overwritten."""
        turns = {kind: self._turn(x_ND, positions, kind) for kind in {layer.kind for layer in self._layers}}
        for layer in self._layers:
            q, k, v = layer.split(x_ND, turns[layer.kind], adapted)
            remembered = hear(layer.number, layer.asked, k, v)
            if layer.number == self.layers - 1 and len(rows) <= FEW * len(x_ND):
                few = rows.cpu().numpy()
                plan, adapted, q, x_ND = plan.only(few), adapted.only(few), q[rows], x_ND[rows]
                rows = torch.arange(len(rows), device=rows.device)
            out, _ = merged_attention(q, k, v, plan.parts(layer.asked.window), layer.asked.scale, remembered)
            layer.rest(x_ND, out.flatten(1), adapted)
        return self._norm(x_ND[rows])

    def _turn(self, x_ND: torch.Tensor, positions: torch.Tensor, kind: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines [N, 1, E / 2]."""
        found = self._turns(x_ND[None], positions[None], *([kind] if self._kinds else []))
        cos, sin = (each[0, :, None, : each.shape[-1] // 2] for each in found)
        if 2 * cos.shape[-1] != self._layers[0].head:
            raise UnknownArchitectureError("positions that turn a part of a head")
        return cos, sin


_KNOWN = {
    "self_attn", "mlp", "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
}  # fmt: skip


def _layer(number: int, module: Any, asked: Asked, make: Make) -> Layer:
    children = dict(module.named_children())
    four = "pre_feedforward_layernorm" in children
    if not children.keys() <= _KNOWN or len(children) != (6 if four else 4):
        raise UnknownArchitectureError(type(module).__name__)
    attention = module.self_attn
    head = int(attention.head_dim)
    sizes = [getattr(attention, name).weight.shape[0] // head for name in ("q_proj", "k_proj")]
    norms = [Norm.of(getattr(attention, name)) if hasattr(attention, name) else None for name in ("q_norm", "k_norm")]
    if any(norm is not None and len(norm.weight) != head for norm in norms):
        raise UnknownArchitectureError("norms over more than a head")
    after = Norm.of(module.post_attention_layernorm)
    return Layer(
        number=number,
        heads=(sizes[0], sizes[1]),
        head=head,
        asked=asked,
        kind=getattr(attention, "layer_type", None),
        norm=Norm.of(module.input_layernorm),
        qkv=joined(make, attention.q_proj, attention.k_proj, attention.v_proj),
        q_norm=norms[0],
        k_norm=norms[1],
        out=joined(make, attention.o_proj),
        attention_norm=after if four else None,
        inner_norm=Norm.of(module.pre_feedforward_layernorm) if four else after,
        inner=_inner(module.mlp, make),
        end_norm=Norm.of(module.post_feedforward_layernorm) if four else None,
    )


def _inner(module: Any, make: Make) -> Dense | Mixture:
    children = dict(module.named_children())
    if children.keys() == {"gate", "experts"}:
        weights = zip(module.experts.gate_up_proj.detach(), module.experts.down_proj.detach(), strict=True)
        experts = [(make(gate_up, None), make(down, None)) for gate_up, down in weights]
        return Mixture(module.gate, experts, _act(module.experts.act_fn))
    if {"gate_proj", "up_proj", "down_proj"} <= children.keys():
        gate_up = joined(make, module.gate_proj, module.up_proj)
        return Dense(gate_up, joined(make, module.down_proj), _act(module.act_fn))
    raise UnknownArchitectureError(type(module).__name__)


def _act(module: Act) -> Act:
    if isinstance(module, nn.SiLU) or type(module).__name__ == "SiLUActivation":
        return lambda x: F.silu(x, inplace=True)
    return module
