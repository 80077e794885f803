"""What a checkpoint has learned from: `trained.json`, beside the weights that a run releases."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError

from prompts.errors import CheckpointError
from surfaces.fields import Name, Strict

TRAINED_FILE = "trained.json"
SIZE_CAP = 1 << 20
"""Bytes of the file."""


class Learned(Strict):
    """Of one surface: the time of the newest event that was learned from, and how many spots there were.

    A spot is a choice or a slate. `newest` is in seconds since 1970; None where the ledger's clock is `order`.
    """

    newest: float | None
    spots: Annotated[int, Field(ge=1)]


class Trained(Strict):
    """The whole file: the configuration's name, and what was learned from by surface."""

    config: Annotated[str, Field(min_length=1, max_length=255)]
    surfaces: Annotated[dict[Name, Learned], Field(min_length=1, max_length=1_000)]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """That of a model folder. Raises CheckpointError where there is none, or it is damaged."""
        path = folder / TRAINED_FILE
        try:
            with path.open("rb") as file:
                return cls.model_validate_json(file.read(SIZE_CAP + 1))
        except OSError:
            raise CheckpointError(
                f"{path}: not there or not to be read: what the model learned from is unknown; "
                "give --since a time instead of 'last'"
            ) from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part)[:64] for part in first["loc"])
            told = ": ".join(filter(None, (str(path), where, first["msg"][:200])))
            raise CheckpointError(f"{told}; give --since a time instead of 'last'") from None

    def save(self, folder: Path) -> Path:
        """Writes it into a model folder, whole or not at all; returns the file's path."""
        scratch = folder / f".{TRAINED_FILE}.part"
        scratch.write_text(json.dumps(self.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
        os.replace(scratch, folder / TRAINED_FILE)
        return folder / TRAINED_FILE
