"""A run that learns an adapter: how it begins, what its model must stay, and what it gives away."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from foundation import adapters
from foundation import model as models
from foundation.lowrank import TARGETS, Target
from foundation.model import Ranker
from foundation.training.settings import TrainSettings
from prompts.errors import CheckpointError, ConfigError
from surfaces.fields import Name


class AdapterSettings(BaseModel):
    """A new adapter: it is what the run learns, for its surfaces, while the model stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0, allow_inf_nan=False, description="Its update counts alpha / rank times.")
    targets: tuple[Target, ...] = Field(TARGETS, min_length=1, description="The projections that it updates.")

    def check(self, base: Path, training: TrainSettings) -> None:
        """Raises ConfigError where `base` is no model folder, or the training is not one that adapters have."""
        if not base.is_dir():
            raise ConfigError(f"adapter: it belongs to a model: 'model' should be its folder, and '{base}' is none")
        if training.gradient_checkpointing:
            raise ConfigError("adapter: it is trained without training.gradient_checkpointing; set that to false")

    def attach(self, ranker: Ranker, seed: int) -> None:
        """Puts it on a ranker, whose own weights are frozen. Raises ConfigError, CheckpointError (see `attach`)."""
        torch.manual_seed(seed)
        adapters.attach(ranker, self.name, self.rank, self.alpha, self.targets)

    def save(self, ranker: Ranker, base: Path, folder: Path) -> None:
        """The adapter as peft writes it, bound to the model folder `base`. Raises CheckpointError as `check_base`."""
        check_base(ranker, base)
        adapters.save(ranker.attached[self.name], folder, f"{base.name}@{models.version(base)}")


def check_base(ranker: Ranker, base: Path) -> None:
    """Raises CheckpointError where a folder no longer holds the model below a ranker's adapters, to the bit."""
    weights = models.load(base)[0].state_dict()
    below = {name: tensor for name, tensor in ranker.state_dict().items() if not name.startswith("adapters.")}
    if weights.keys() != below.keys() or not all(torch.equal(weights[name], below[name]) for name in weights):
        raise CheckpointError(f"{base}: no longer the model that the adapter was begun on; put it back, or start anew")
