"""Linear maps as the decoder's own forward computes them. N rows, I inputs, O outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import nn
from torch.nn import functional as F


class UnknownArchitectureError(Exception):
    """A decoder that our own forward does not know; transformers' does it."""


class Product(Protocol):
    """x [N, I] to [N, O]."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

    def add_to(self, target: torch.Tensor, x: torch.Tensor) -> None:
        """Adds the product to `target` [N, O], in place."""
        ...


PACKED_FOR = 1024
"""Rows that a packed weight's layout is chosen for; any number may be multiplied."""
Make = Callable[[torch.Tensor, torch.Tensor | None], Product]
"""Of a weight [O, I] and a bias [O]."""


@dataclass(frozen=True, slots=True)
class Plain:
    """The weight as it is; what is trained there is seen here."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """See `Product`."""
        return F.linear(x, self.weight, self.bias)

    def add_to(self, target: torch.Tensor, x: torch.Tensor) -> None:
        """See `Product`."""
        target.addmm_(x, self.weight.T)
        if self.bias is not None:
            target += self.bias


LARGE = 1 << 18
"""Weights from this size on are packed; smaller ones gain nothing."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The weight once more, in the layout that oneDNN multiplies fastest; later changes of the weight are not seen."""

    packed: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """See `Product`."""
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return found

    def add_to(self, target: torch.Tensor, x: torch.Tensor) -> None:
        """See `Product`."""
        target += self(x)


def packed_where_faster(weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
    """Packed for large fp32 weights on a CPU with oneDNN, else plain."""
    there = weight.device.type == "cpu" and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    if weight.numel() < LARGE or weight.dtype != torch.float32 or not there:
        return Plain(weight, bias)
    return Packed(torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR), bias)


def joined(make: Make, *layers: nn.Module) -> Product:
    """Layers that read the same input as one product, their outputs side by side.

    The layers' own weights become views of the joined one: nothing is held twice.
    """
    if not all(isinstance(layer, nn.Linear) for layer in layers):
        raise UnknownArchitectureError("a projection that is not linear")
    linear = cast(Sequence[nn.Linear], layers)
    weight = _joined([layer.weight for layer in linear])
    biases: list[torch.Tensor | None] = [layer.bias for layer in linear]
    given = [bias for bias in biases if bias is not None]
    if len(given) not in (0, len(linear)):
        raise UnknownArchitectureError("biases on some of the projections that read one input")
    return make(weight, _joined(given) if given else None)


def _joined(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Weights [O, I] or biases [O] below each other in one tensor, of which they become views."""
    first, step = weights[0], weights[0].element_size()
    at = first.data_ptr()
    for weight in weights:
        together = weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if weight.data_ptr() != at or not together or not weight.is_contiguous():
            break
        at += weight.numel() * step
    else:
        rows = sum(len(weight) for weight in weights)
        return first.detach().as_strided((rows, *first.shape[1:]), first.stride())
    with torch.inference_mode(mode=False):  # else the weights could not be trained any more
        whole = torch.cat([weight.detach() for weight in weights])
    for weight, part in zip(weights, torch.split(whole, [len(weight) for weight in weights]), strict=True):
        weight.data = part
    return whole
