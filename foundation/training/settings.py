"""What a training run needs to know besides its data."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class LossWeights(BaseModel):
    """How much each loss counts, and what two of them need; see the modules of the same names beside this one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listwise: float = Field(1.0, ge=0)
    pointwise: float = Field(0.1, ge=0)
    choice: float = Field(0.2, ge=0)
    contrast: float = Field(0.0, ge=0, description="Of texts' vectors with those chosen before; needs a compressor.")
    distill: float = Field(0.0, ge=0, description="Of a teacher's answers; needs a teacher.")
    distill_temperature: float = Field(2.0, gt=0, le=100, description="Of both models' softmaxes while they compare.")
    preference: float = Field(0.0, ge=0, description="Of pairs of leaves; needs a model folder to start from.")
    preference_beta: float = Field(0.1, gt=0, le=100, description="How strongly the model is held to where it began.")
    balance: float = Field(
        0.01, ge=0, description="Load balancing of the experts (Fedus et al. 2021, equations 4 to 6)."
    )


class TrainSettings(BaseModel):
    """One run. Step n's trees depend on `seed` and n alone, so a resumed run sees what an unbroken one would."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(ge=1)
    trees_per_step: int = Field(4, ge=1, le=4096)
    accumulate: int = Field(1, ge=1, description="Parts that a step's trees are learned from in, one after another.")
    learning_rate: float = Field(1e-3, gt=0, le=1)
    warmup: int = Field(50, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    vector_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on compressed texts.")
    gradient_checkpointing: bool = Field(False, description="Compute layers again in the backward: time for memory.")
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp", description="Of several processes, each holds the whole model (ddp) or its share of it (fsdp)."
    )
    seed: int = 0
    threads: int = Field(2, ge=1, le=256, description="Of each process.")
    workers: Literal[0, 1] = Field(0, description="Processes beside this one that make trees; with 0 a thread does.")
    validate_every: int = Field(500, ge=1)
    checkpoint_every: int = Field(250, ge=1)
    loss: LossWeights = LossWeights()

    @model_validator(mode="after")
    def _parts_hold_trees(self) -> TrainSettings:
        if self.accumulate > self.trees_per_step:
            raise ValueError("accumulate is larger than trees_per_step: a part holds one tree at least")
        return self

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then linear to zero."""
        rising = min(1.0, (step + 1) / max(1, self.warmup))
        falling = max(0.0, (self.steps - step) / max(1, self.steps - self.warmup))
        return self.learning_rate * rising * min(1.0, falling)
