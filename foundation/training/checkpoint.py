"""Checkpoints of a run: the model as a Hugging Face folder, the optimizer as safetensors, the state as JSON.

Adapters lie in it as peft's folders, `adapters/NAME`, bound to the weights of that very checkpoint. A checkpoint is
written beside its place, brought to the disk and moved there whole, so one that exists is complete, wherever a run was
killed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from foundation import adapters
from foundation.model import Ranker, load, version
from foundation.tokenizer import TextEncoder
from foundation.training.distributed import share_like
from prompts.errors import CheckpointError

LAST, BEST = "last", "best"
OPTIMIZER_FILE = "optimizer.state"
"""Safetensors under a name that model loaders do not take for weights."""

ADAPTERS = "adapters"

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
State = dict[str, float | int | str | None]
Moments = dict[str, torch.Tensor]


def save(folder: Path, ranker: Ranker, encoder: TextEncoder, moments: Moments, state: State) -> None:
    """Replaces `folder` by the run's state at this moment.

    Raises CheckpointError for an adapter whose name is no file name, before anything is written.
    """
    names = _file_names(ranker)
    _recover(folder)
    fresh, old = _beside(folder, "new"), _beside(folder, "old")
    ranker.save(fresh, encoder)
    save_file({name: moment.contiguous() for name, moment in moments.items()}, fresh / OPTIMIZER_FILE)
    _save_adapters(ranker, fresh, folder.name)
    (fresh / "run.json").write_text(json.dumps({**state, ADAPTERS: names}, indent=1), encoding="utf-8")
    _to_disk(*fresh.rglob("*"), fresh)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    _to_disk(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path) -> tuple[Ranker, TextEncoder, Moments, State]:
    """What `save` wrote; where a save was killed between two renames, what was there before. Raises CheckpointError."""
    _recover(folder)
    ranker, encoder = load(folder)
    try:
        state: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        names = [str(name) for name in state.pop(ADAPTERS, [])]
        moments = load_file(folder / OPTIMIZER_FILE)
        if not {"step", "best", "seconds"} <= state.keys():
            raise ValueError("run.json lacks its keys")
    except (OSError, ValueError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: not a checkpoint to resume from: {error}") from None
    _load_adapters(ranker, folder, names)
    return ranker, encoder, moments, state


def _file_names(ranker: Ranker) -> list[str]:
    """The names of its adapters, in their order, which is that of the optimizer's moments."""
    names = list(ranker.attached)
    if odd := [name for name in names if os.sep in name or name in {".", ".."}]:
        raise CheckpointError(f"the adapter {odd[0]!r} cannot be saved: its name should be one that a file may have")
    return names


def _save_adapters(ranker: Ranker, fresh: Path, name: str) -> None:
    for adapter in ranker.attached.values():
        to = fresh / ADAPTERS / adapter.name
        adapters.save(adapter, to, f"{name}@{version(fresh)}")
        config = to / adapters.CONFIG_FILE
        told = json.loads(config.read_text(encoding="utf-8"))
        # peft writes a set: in another order the optimizer's sums would differ in their last bits
        told["target_modules"] = adapter.settings.target_modules
        config.write_text(json.dumps(told, indent=2, sort_keys=True), encoding="utf-8")


def _load_adapters(ranker: Ranker, folder: Path, names: list[str]) -> None:
    """Puts them on the ranker, to be trained on; the ranker's own weights are frozen then. Raises CheckpointError."""
    if not names:
        return
    ranker.requires_grad_(requires_grad=False)
    base = f"{folder.name}@{version(folder)}"
    for name in names:
        adapter = adapters.load(folder / ADAPTERS / name, name, ranker, base)
        ranker.adapters.append(adapter.requires_grad_(requires_grad=True))


def exists(folder: Path) -> bool:
    """Whether there is something to resume from."""
    return folder.is_dir() or _beside(folder, "old").is_dir()


def moments_of(ranker: Ranker, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    """An optimizer's moments by their parameters' names."""
    for name, parameter in ranker.named_parameters():
        found = optimizer.state.get(parameter, {})
        yield from ((f"{name}:{key}", torch.as_tensor(found[key])) for key in _MOMENTS if key in found)


def load_moments(ranker: Ranker, optimizer: torch.optim.Optimizer, moments: Moments) -> None:
    """Puts saved moments into a new optimizer over the same parameters."""
    for name, parameter in ranker.named_parameters():
        found = {key: moments[f"{name}:{key}"] for key in _MOMENTS if f"{name}:{key}" in moments}
        if found:
            optimizer.state[parameter] = {key: share_like(moment, parameter) for key, moment in found.items()}


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}")


def _recover(folder: Path) -> None:
    """Between its two renames a save leaves no `folder`; then what was there before is put back."""
    old = _beside(folder, "old")
    if not folder.exists() and old.is_dir():
        old.rename(folder)


def _to_disk(*paths: Path) -> None:
    """Waits until files and folders would outlast a loss of power."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
