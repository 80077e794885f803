"""The decoder's products at another precision than the weights'. N rows, I inputs, O outputs.

Every row is rounded by itself, so a leaf's score does not depend on who stands beside it. Norms, attention, residuals,
router, compressor, embeddings and LM head stay as they are. Why there is no int8: docs/precision.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional as F

from foundation.attention.registry import Asked
from foundation.decoder import Decoder
from foundation.product import Make, Plain, Product
from prompts.errors import ConfigError

if TYPE_CHECKING:
    from foundation.engine.run import Reader
    from foundation.model import Ranker

Precision = Literal["fp32", "bf16"]
UNITS = ("avx512_bf16", "amx_bf16")
"""A processor with one of these multiplies bf16 faster than fp32; without, it emulates it, several times slower."""


@dataclass(frozen=True, slots=True)
class Bf16:
    """Inputs, weight and product rounded to bf16 (8 bits of precision), sums in fp32; what comes out has x's type."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
        """A `Make`: the weight is held once more, and later changes of it are not seen."""
        return cls(weight.detach().bfloat16(), None if bias is None else bias.detach().bfloat16())

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """See `Product`."""
        return F.linear(x.bfloat16(), self.weight, self.bias).to(x.dtype)

    def add_to(self, target: torch.Tensor, x: torch.Tensor) -> None:
        """See `Product`."""
        target += F.linear(x.bfloat16(), self.weight, self.bias)


def has_bf16(device: torch.device) -> bool:
    """Whether the device has units that multiply bf16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and any(torch.cpu.get_capabilities().get(unit) for unit in UNITS)


def make_for(precision: str, device: torch.device, exact: Make = Plain) -> Make:
    """What multiplies at "fp32" (that is `exact`) or "bf16". Raises ConfigError for any other, or without the units."""
    if precision == "fp32":
        return exact
    if precision != "bf16":
        raise ConfigError(f"precision '{precision}': choose fp32 (exact), or bf16 where the hardware has it")
    if not has_bf16(device):
        wanted = "compute capability 8.0 or newer" if device.type == "cuda" else " or ".join(UNITS)
        raise ConfigError(f"precision bf16: this {device.type} has no units for it ({wanted}); choose fp32")
    return Bf16.of


def reader_at(precision: str, ranker: Ranker, asked: Sequence[Asked], *, known: bool, exact: Make = Plain) -> Reader:
    """Our own forward at a precision where it knows the architecture, else transformers'.

    `asked` is what each layer asks of its attention; `exact` multiplies in fp32. Raises ConfigError as `make_for` does,
    and for bf16 with an architecture that only transformers' forward knows.
    """
    make = make_for(precision, ranker.device, exact)
    if known:
        return Decoder(ranker.lm, asked, make)
    if precision != "fp32":
        raise ConfigError(f"precision {precision}: only transformers' forward knows this architecture; choose fp32")
    return ranker
