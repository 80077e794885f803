"""One run by several processes, as torchrun starts them: each learns from its share of every part of a step.

Losses are means over the whole step, so a share's losses count by what it holds of what they are means over, and
gradients are summed: the step is the one that a single process would make, whatever the number of processes. With
`ddp` each process holds the whole model. With `fsdp` (torch's `fully_shard`) it holds its share of each layer, and
gathers a layer while it computes it; what is not the decoder's is small, not used by every tree, and stays whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import AutoModelForCausalLM
from transformers.initialization import no_init_weights
from transformers.modeling_layers import GradientCheckpointingLayer

from foundation.model import Ranker
from foundation.training.distillation import spots
from foundation.training.labels import LabelledTree, Losses
from prompts.errors import TrainingError

PATIENCE = timedelta(hours=6)
"""How long processes wait for the one that validates."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process (`rank` of `number`) among those of a run."""

    rank: int = 0
    number: int = 1

    @classmethod
    def here(cls) -> Processes:
        """Those that `joined` brought together; this one alone where torchrun started no others."""
        if dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        if _started() > 1:
            raise TrainingError(f"torchrun started {_started()} processes that do not know each other: join them first")
        return cls()

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, writes and shows."""
        return self.rank == 0

    def total(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of every process's `x`, in its place."""
        if self.number > 1:
            dist.all_reduce(x)
        return x

    def told(self, value: float) -> float:
        """What the first process says; the others' `value` is not heard."""
        said = torch.tensor(value, dtype=torch.float64)
        if self.number > 1:
            dist.broadcast(said, 0)
        return float(said)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process runs the block before the others do: what it makes, they find."""
        if not self.first:
            dist.barrier()
        yield
        if self.first and self.number > 1:
            dist.barrier()


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun started, a group as long as the block lasts; one alone without torchrun."""
    if _started() == 1:
        yield Processes()
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Processes.here()
    finally:
        dist.destroy_process_group()


def _started() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def cut(batch: Sequence[LabelledTree], parts: int, processes: Processes) -> list[Sequence[LabelledTree]]:
    """This process's share of each part of a step. Raises TrainingError where some share would be empty."""
    least = parts * processes.number
    if len(batch) < least:
        raise TrainingError(
            f"{len(batch)} trees a step are too few for {processes.number} processes and {parts} parts: "
            f"set trees_per_step to {least} or more"
        )
    return [batch[part::parts][processes.rank :: processes.number] for part in range(parts)]


def shared(found: Losses, part: Sequence[LabelledTree], whole: Sequence[LabelledTree]) -> Losses:
    """A part's losses as they count in the means over `whole`: by what each is a mean over.

    Negatives of the contrast are those of the part alone.
    """
    counts = zip(found, _counts(part), _counts(whole), strict=True)
    return Losses(*(loss * (held / of if of else 0.0) for loss, held, of in counts))


def _counts(trees: Sequence[LabelledTree]) -> list[int]:
    lists = sum(len(labelled.lists) for labelled in trees)
    leaves = sum(len(one.leaves) for labelled in trees for one in labelled.graded)
    choices = sum(len(labelled.choices) for labelled in trees)
    pairs = sum(len(labelled.pairs) for labelled in trees)
    taught = sum(len(spots(labelled)) for labelled in trees)
    preferences = sum(len(labelled.preferences) for labelled in trees)
    known = {
        "listwise": lists, "accuracy": lists, "pointwise": leaves, "choice": choices, "contrast": pairs,
        "distill": taught, "preference": preferences,
    }  # fmt: skip
    return [known[name] for name in Losses._fields]


def spread(ranker: Ranker, strategy: str, processes: Processes) -> None:
    """Gives every process the first one's weights; with `fsdp` each keeps its share of every layer."""
    if processes.number == 1:
        return
    for parameter in ranker.parameters():
        dist.broadcast(parameter.data, 0)
    if strategy == "fsdp":
        mesh = init_device_mesh(ranker.device.type, (processes.number,))
        for module in ranker.lm.modules():
            if isinstance(module, GradientCheckpointingLayer):
                fully_shard(module, mesh=mesh)
        fully_shard(ranker, mesh=mesh, ignored_params=set(ranker.parameters()) - set(ranker.lm.parameters()))


def sum_gradients(ranker: Ranker, processes: Processes) -> None:
    """Every gradient becomes the sum over processes; a parameter that none of them used stays without one."""
    if processes.number == 1:
        return
    whole = [parameter for parameter in ranker.parameters() if not isinstance(parameter, DTensor)]
    used = processes.total(torch.tensor([parameter.grad is not None for parameter in whole], dtype=torch.int32))
    for parameter, users in zip(whole, used.tolist(), strict=True):
        if users:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            processes.total(parameter.grad)
    for parameter in ranker.parameters():
        if isinstance(parameter, DTensor) and parameter.grad is not None:
            parameter.grad.mul_(processes.number)  # fully_shard has made means


def clip(ranker: Ranker, largest: float) -> torch.Tensor:
    """Scales the gradient to a norm of at most `largest`; returns the norm it had."""
    kinds = [each for each in _by_kind(p for p in ranker.parameters() if p.grad is not None) if each]
    norms = [nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in kinds]
    norm = torch.stack([_full(each) for each in norms]).square().sum().sqrt()
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, largest, norm)
    return norm


def groups(ranker: Ranker, weight_decay: float) -> list[dict[str, object]]:
    """An optimizer's groups: only matrices decay; whole parameters and shares are never in one group."""
    matrices = [p for p in ranker.parameters() if p.ndim >= 2]
    others = [p for p in ranker.parameters() if p.ndim < 2]
    return [
        {"params": kind, "weight_decay": decay}
        for parameters, decay in ((matrices, weight_decay), (others, 0.0))
        for kind in _by_kind(parameters)
        if kind
    ]


def _by_kind(parameters: Iterable[nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    every = list(parameters)
    return [p for p in every if not isinstance(p, DTensor)], [p for p in every if isinstance(p, DTensor)]


def _full(x: torch.Tensor) -> torch.Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def collected(named: Iterable[tuple[str, torch.Tensor]], processes: Processes) -> dict[str, torch.Tensor]:
    """Tensors made whole, one after another, for the first process; the others take part and get none."""
    found = {}
    for name, tensor in named:
        whole = _full(tensor.detach())
        if processes.first:
            found[name] = whole
    return found


def share_like(whole: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    """This process's share of a tensor that belongs to `parameter`."""
    if not isinstance(parameter, DTensor) or whole.shape != parameter.shape:
        return whole
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements)


def gathered(ranker: Ranker, processes: Processes) -> Ranker | None:
    """The ranker in one piece for the first process, None for the others; every process takes part."""
    if not any(isinstance(parameter, DTensor) for parameter in ranker.parameters()):
        return ranker if processes.first else None
    state = collected(ranker.lm.state_dict().items(), processes)
    return _around(state, ranker) if processes.first else None


def _around(state: dict[str, torch.Tensor], ranker: Ranker) -> Ranker:
    """A decoder of these tensors, with what else the ranker has."""
    with no_init_weights():
        lm = AutoModelForCausalLM.from_config(ranker.lm.config)  # type: ignore[no-untyped-call]
    lm.load_state_dict(state, assign=True)
    lm.tie_weights()
    found = Ranker(lm)
    for name, module in ranker.named_children():
        if name != "lm":
            setattr(found, name, module)
    return found
