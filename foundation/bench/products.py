"""The floor: the model's own matrix products, run bare."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch

from foundation.model import Ranker
from foundation.product import Make


class Product(NamedTuple):
    """`rows` × `n_in` times `n_in` × `n_out`, `times` times."""

    rows: int
    n_in: int
    n_out: int
    times: int

    @property
    def flops(self) -> int:
        """A multiplication and an addition each."""
        return 2 * self.rows * self.n_in * self.n_out * self.times


def products(ranker: Ranker, slots: int, read: int | None = None) -> list[Product]:
    """The products of a forward over `slots`, embeddings, router and LM head aside, experts loaded evenly.

    `read`: only so many slots go through the last layer behind its keys and values; None: all of them.
    """
    layers = list(cast(Any, ranker.lm.base_model).layers)
    return [
        product
        for number, layer in enumerate(layers)
        for product in _layer(layer, ranker, slots, read if read is not None and number == len(layers) - 1 else slots)
    ]


def _layer(layer: Any, ranker: Ranker, slots: int, read: int) -> list[Product]:
    attention = layer.self_attn
    qkv = sum(getattr(attention, name).weight.shape[0] for name in ("q_proj", "k_proj", "v_proj"))
    n_out, n_in = attention.o_proj.weight.shape
    found = [Product(slots, attention.q_proj.weight.shape[1], qkv, 1), Product(read, n_in, n_out, 1)]
    if not hasattr(layer.mlp, "experts"):
        up, down = layer.mlp.up_proj.weight, layer.mlp.down_proj.weight
        return [*found, Product(read, up.shape[1], 2 * up.shape[0], 1), Product(read, down.shape[1], down.shape[0], 1)]
    gate_up, down = layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj
    rows = read * int(ranker.lm.config.num_experts_per_tok) // len(gate_up)
    pairs = [(gate_up.shape[2], gate_up.shape[1]), (down.shape[2], down.shape[1])]
    return [*found, *(Product(rows, *shape, len(gate_up)) for shape in pairs)]


def flops(found: list[Product]) -> int:
    """Of all of them."""
    return sum(product.flops for product in found)


class Bare:
    """Each different product of a forward once, by nothing but `make`: how fast this machine multiplies."""

    def __init__(self, found: list[Product], make: Make) -> None:
        different = sorted(set(found))
        self.flops = flops(different)
        self._given = [
            (torch.randn(one.rows, one.n_in), make(torch.randn(one.n_out, one.n_in), None), one.times)
            for one in different
        ]

    def __call__(self) -> None:
        for x, product, times in self._given:
            for _ in range(times):
                product(x)
