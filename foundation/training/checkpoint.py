"""Checkpoints of a run: the model as a Hugging Face folder, the optimizer as safetensors, the state as JSON.

A checkpoint is written beside its place and moved there whole, so one that exists is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from foundation.model import Ranker, load
from foundation.tokenizer import TextEncoder
from prompts.errors import CheckpointError

LAST, BEST = "last", "best"
OPTIMIZER_FILE = "optimizer.state"
"""Safetensors under a name that model loaders do not take for weights."""

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
State = dict[str, float | int | str | None]


def save(folder: Path, ranker: Ranker, encoder: TextEncoder, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Replaces `folder` by the run's state at this moment."""
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    ranker.save(fresh, encoder)
    save_file(_flat(ranker, optimizer), fresh / OPTIMIZER_FILE)
    (fresh / "run.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path) -> tuple[Ranker, TextEncoder, dict[str, torch.Tensor], State]:
    """What `save` wrote; where a save was killed between two renames, what was there before. Raises CheckpointError."""
    old = folder.with_name(f".{folder.name}.old")
    if not folder.exists() and old.is_dir():
        old.rename(folder)
    ranker, encoder = load(folder)
    try:
        state: State = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        moments = load_file(folder / OPTIMIZER_FILE)
        if not {"step", "best", "seconds"} <= state.keys():
            raise ValueError("run.json lacks its keys")
    except (OSError, ValueError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: not a checkpoint to resume from: {error}") from None
    return ranker, encoder, moments, state


def exists(folder: Path) -> bool:
    """Whether there is something to resume from."""
    return folder.is_dir() or folder.with_name(f".{folder.name}.old").is_dir()


def load_moments(ranker: Ranker, optimizer: torch.optim.Optimizer, moments: dict[str, torch.Tensor]) -> None:
    """Puts saved moments into a new optimizer over the same parameters."""
    for name, parameter in ranker.named_parameters():
        found = {key: moments[f"{name}:{key}"] for key in _MOMENTS if f"{name}:{key}" in moments}
        if found:
            optimizer.state[parameter] = found


def _flat(ranker: Ranker, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}:{key}": torch.as_tensor(optimizer.state[parameter][key]).contiguous()
        for name, parameter in ranker.named_parameters()
        for key in _MOMENTS
        if key in optimizer.state.get(parameter, {})
    }
