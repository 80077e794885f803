"""Model descriptions: YAML files in `configs/model`, found by name or by path."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from prompts.errors import ConfigError


class ModelConfig(BaseModel):
    """A decoder-only mixture of experts, in the terms of its file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["mixtral"] = "mixtral"
    vocab_size: int = Field(ge=512, le=262_144)
    hidden_size: int = Field(ge=16, multiple_of=8)
    layers: int = Field(ge=1, le=256)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    experts: int = Field(ge=1)
    expert_size: int = Field(ge=8)
    experts_per_token: int = Field(ge=1)
    max_positions: int = Field(ge=128)
    rope_theta: float = Field(gt=0)
    initializer_range: float = Field(gt=0)
    tie_word_embeddings: bool = True
    compressor: bool = False

    @model_validator(mode="after")
    def _shapes_fit(self) -> ModelConfig:
        if self.hidden_size % self.heads or self.heads % self.kv_heads:
            raise ValueError("heads must divide hidden_size, and kv_heads must divide heads")
        if self.hidden_size // self.heads % 2:
            raise ValueError("hidden_size / heads must be even: positions turn pairs of numbers")
        if self.experts_per_token > self.experts:
            raise ValueError("experts_per_token is larger than experts")
        return self

    @classmethod
    def load(cls, name: str) -> ModelConfig:
        """From a shipped name ("nano") or a path. Raises ConfigError."""
        path = find_config("model", name)
        try:
            return cls.model_validate(read_yaml(path))
        except ValidationError as error:
            raise ConfigError(explain(path, error)) from None


def find_config(kind: str, name: str | Path) -> Path:
    """The file of a shipped configuration's name, or `name` itself where it is a file."""
    if Path(name).is_file():
        return Path(name)
    shipped = Path(str(files("configs"))) / kind
    if (found := shipped / f"{name}.yaml").is_file():
        return found
    names = ", ".join(sorted(path.stem for path in shipped.glob("*.yaml")))
    raise ConfigError(f"no {kind} configuration '{name}': give a file, or one of {names}")


def read_yaml(path: Path) -> object:
    """The file's data. Raises ConfigError with line and column."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from None


def explain(path: Path, error: ValidationError) -> str:
    """One line: the first thing wrong, and where."""
    first = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "the file"
    return f"{path}: {key}: {first['msg']}"
