"""Learned weights that are kept in the cache folder, by a hash of what they were learned from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from surfaces.sources.base import Indices

NEWEST = 64
"""So many files stay in a folder."""

EPOCHS = "epochs"

logger = logging.getLogger(__name__)


def key_of(settings: Mapping[str, object], sequences: Sequence[Indices]) -> str:
    """A hash of settings, sequences and the release of torch; it tells nothing of the members."""
    told = json.dumps([torch.__version__, settings, [len(sequence) for sequence in sequences]], sort_keys=True)
    digest = hashlib.sha256(told.encode())
    digest.update(np.concatenate(sequences).astype(np.int64).tobytes())
    return digest.hexdigest()[:32]


class Kept(NamedTuple):
    """Weights by name, and after how many epochs they were so."""

    weights: Mapping[str, torch.Tensor]
    epochs: int


def kept(path: Path) -> Kept | None:
    """What is in a file; None where it is not there, or is not what was written."""
    try:
        with safe_open(path, framework="pt") as file:
            found = Kept({name: file.get_tensor(name) for name in file.keys()}, int(file.metadata()[EPOCHS]))  # noqa: SIM118
        os.utime(path)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s: not readable, learned again: %s", path, error)
        return None
    return found


def keep(path: Path, module: nn.Module, epochs: int) -> None:
    """Writes weights, and removes the files that were not used for longest. Where that fails, nothing is kept."""
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.contiguous() for name, tensor in module.state_dict().items()}, part, {EPOCHS: str(epochs)}
        )
        part.replace(path)
        files = sorted(path.parent.glob("*.safetensors"), key=lambda file: -file.stat().st_mtime)
        for old in files[NEWEST:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("%s: not kept: %s", path, error)
