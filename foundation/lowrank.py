"""Low-rank updates of a decoder's projections, for some rows of a forward.

Many are served at once over one base: in one forward each adapter's update is added to its own rows (as Sheng et al.
2023, "S-LoRA", and Chen et al. 2023, "Punica", batch them), and the others are as they are without.
Shapes: N slots, I inputs, O outputs, R the rank, or the ranks of updates that read the same input, together.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from prompts.errors import TreeError

if TYPE_CHECKING:
    from foundation.adapters import Settings

Integers = npt.NDArray[np.int64]
Target = Literal["q_proj", "k_proj", "v_proj", "o_proj"]
TARGETS: tuple[Target, ...] = get_args(Target)


class LowRank(nn.Module):
    """The update of the projection at `path`: scale * up(down(x)) (Hu et al. 2021, equation 3)."""

    def __init__(self, path: str, down_RI: torch.Tensor, up_OR: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.path, self.scale = path, scale
        self.down_RI, self.up_OR = nn.Parameter(down_RI), nn.Parameter(up_OR)

    def forward(self, x_NI: torch.Tensor) -> torch.Tensor:
        """[N, O]."""
        return F.linear(F.linear(x_NI, self.down_RI), self.up_OR) * self.scale


class Joined(NamedTuple):
    """The updates of projections that read the same input: their downs as one, and for each its up, with the scale.

    A single product by a block-diagonal up would multiply the zeros, too: up to 1.7 times as long for nano, rank 32.
    """

    down_IR: torch.Tensor
    ups_RO: tuple[torch.Tensor, ...]
    columns: tuple[slice, ...]

    @classmethod
    def of(cls, updates: Sequence[LowRank | None], widths: Sequence[int]) -> Joined | None:
        """Their outputs stand side by side, each as wide as `widths` says; None: there are no updates."""
        ends = list(accumulate(widths))
        given = [(each, slice(end - n, end)) for each, n, end in zip(updates, widths, ends, strict=True) if each]
        if not given:
            return None
        down_IR = torch.cat([each.down_RI for each, _ in given]).T.contiguous()
        ups_RO = tuple((each.up_OR.T * each.scale).contiguous() for each, _ in given)
        return cls(down_IR, ups_RO, tuple(columns for _, columns in given))

    def add_to(self, target_NO: torch.Tensor, x_NI: torch.Tensor, rows: Rows) -> None:
        """Adds the update of these rows to them, in place."""
        picked = rows.of(target_NO)
        low = torch.split(rows.of(x_NI) @ self.down_IR, [len(up_RO) for up_RO in self.ups_RO], dim=1)
        for part, up_RO, columns in zip(low, self.ups_RO, self.columns, strict=True):
            picked[:, columns].addmm_(part, up_RO)
        if rows.together is None:
            target_NO.index_copy_(0, rows.at, picked)


class Adapter(nn.Module):
    """For each layer of a decoder, the updates of its projections; `settings` are as peft writes them."""

    def __init__(self, name: str, settings: Settings, layers: Iterable[Mapping[Target, LowRank]]) -> None:
        super().__init__()
        self.name, self.settings = name, settings
        self.layers = nn.ModuleList(nn.ModuleDict(cast(Any, layer)) for layer in layers)
        self._joined: dict[tuple[int, tuple[Target, ...]], Joined | None] = {}

    @property
    def updates(self) -> Iterator[LowRank]:
        """All of them."""
        return (module for module in self.modules() if isinstance(module, LowRank))

    def joined(self, layer: int, targets: tuple[Target, ...], widths: Sequence[int]) -> Joined | None:
        """Of projections that read the same input: made once, but anew each time for an adapter that is trained."""
        given = dict(cast(nn.ModuleDict, self.layers[layer]).items())
        updates = [cast(LowRank | None, given.get(target)) for target in targets]
        if any(each.down_RI.requires_grad for each in updates if each):
            return Joined.of(updates, widths)
        if (layer, targets) not in self._joined:
            self._joined[layer, targets] = Joined.of(updates, widths)
        return self._joined[layer, targets]


class Rows(NamedTuple):
    """Rows of a forward, rising; `together`: the same where each follows the last."""

    at: torch.Tensor
    together: slice | None

    @classmethod
    def on(cls, device: torch.device, rows: Integers) -> Rows:
        """At least one."""
        first, end = int(rows[0]), int(rows[-1]) + 1
        return cls(torch.from_numpy(rows).to(device), slice(first, end) if end - first == len(rows) else None)

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """These of `x`; a view where they are together."""
        return x.index_select(0, self.at) if self.together is None else x[self.together]


@dataclass(frozen=True, slots=True)
class Adapted:
    """Whose update the rows of a forward get; a row that nobody names is computed by the base alone."""

    groups: tuple[tuple[Adapter, Rows], ...] = ()

    @classmethod
    def of(cls, rows: Mapping[str, Integers], known: Mapping[str, Adapter], device: torch.device) -> Adapted:
        """Of rows by adapter. Raises TreeError for one that is not `known`."""
        check_known(rows, known)
        return cls(tuple((known[name], Rows.on(device, own)) for name, own in rows.items()))

    def only(self, rows: Integers) -> Adapted:
        """For a forward that goes on with these rows alone."""
        left = [(a, np.flatnonzero(np.isin(rows, own.at.cpu().numpy())), own.at.device) for a, own in self.groups]
        return Adapted(tuple((adapter, Rows.on(device, own)) for adapter, own, device in left if len(own)))

    def add_to(
        self, out_NO: torch.Tensor, x_NI: torch.Tensor, layer: int, targets: tuple[Target, ...], widths: Sequence[int]
    ) -> None:
        """Adds the updates to what the base made of `x_NI`: the targets' outputs, each so wide, side by side."""
        for adapter, rows in self.groups:
            if joined := adapter.joined(layer, targets, widths):
                joined.add_to(out_NO, x_NI, rows)

    @contextmanager
    def inside(self, lm: nn.Module) -> Iterator[None]:
        """While it lasts, the projections of `lm` add the updates where this thread runs them; differentiable."""
        by_path: dict[str, list[tuple[LowRank, Rows]]] = {}
        for adapter, rows in self.groups:
            for update in adapter.updates:
                by_path.setdefault(update.path, []).append((update, rows))
        with ExitStack() as hooks:
            for path, updates in by_path.items():
                hook = partial(_add, threading.get_ident(), updates)
                hooks.callback(lm.get_submodule(path).register_forward_hook(hook).remove)
            yield


UNADAPTED = Adapted()


def _add(
    thread: int, updates: Sequence[tuple[LowRank, Rows]], _: nn.Module, inputs: tuple[torch.Tensor, ...],
    out_1NO: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """A forward hook; other threads may run the same model meanwhile."""
    for update, rows in updates if threading.get_ident() == thread else ():
        out_1NO = out_1NO.index_add(1, rows.at, update(inputs[0].index_select(1, rows.at)))
    return out_1NO


def check_known(names: Iterable[str], known: Mapping[str, Adapter]) -> None:
    """Raises TreeError for the first adapter that is not there."""
    for name in names:
        if name not in known:
            loaded = ", ".join(sorted(known)) or "none"
            raise TreeError(f"a tree asks for the adapter '{name}', which is not loaded (loaded: {loaded})")
