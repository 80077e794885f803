"""The limits of a server, all in one place. `docs/serving.md` lists them; a test holds the two together."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from prompts.errors import ConfigError
from surfaces.fields import Strict

FILE_CAP = 1_000_000


class Settings(Strict):
    """What one server takes at most. A request beyond a limit gets 400, 408, 413, 422 or 431, and the limit by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_head_bytes: int = Field(65_536, ge=1_024, le=1 << 24, description="Bytes of path and headers; beyond, 431.")
    head_s: float = Field(10.0, gt=0, le=3_600, description="How long they may take to arrive; beyond, 408.")
    max_body_bytes: int = Field(2 * 1024 * 1024, ge=1_024, le=1 << 30, description="Bytes of a request's body.")
    body_s: float = Field(30.0, gt=0, le=3_600, description="How long a body may take to arrive; beyond, 408.")
    max_depth: int = Field(64, ge=4, le=150, description="Lists and objects within each other in a body.")
    max_candidates: int = Field(1_000, ge=1, le=10_000, description="Candidates in a request.")
    max_timeline: int = Field(10_000, ge=1, le=100_000, description="Events of a member; of the ledger's, the newest.")
    max_rows: int = Field(1_000, ge=1, le=100_000, description="Events, items or members in one write.")
    max_batch: int = Field(64, ge=1, le=1_000, description="Rankings in one `rank:batch`.")
    max_inputs: int = Field(256, ge=1, le=10_000, description="Texts in one call of `/v1/embeddings`.")
    batch_slots: int = Field(16_384, ge=64, le=1 << 24, description="Slots in a forward: tokens, or vectors.")
    queue_slots: int = Field(65_536, ge=64, le=1 << 28, description="Slots that may wait; beyond, slates are degraded.")
    gather_ms: float = Field(2.0, ge=0, le=1_000, description="How long a forward waits for company.")
    fallback_share: float = Field(0.25, ge=0, le=1, description="Of the computing, for slates that spare the model.")
    retrieval_threads: int = Field(4, ge=1, le=256, description="Threads that gather candidates.")
    retrieval_room: int = Field(256, ge=1, le=100_000, description="Requests that may wait for them; beyond, 503.")
    ingestion_room: int = Field(256, ge=1, le=100_000, description="Writes that may wait; beyond, 503.")

    embedding_room: int = Field(64, ge=1, le=100_000, description="Calls that may wait for vectors; beyond, 503.")
    refit_minutes: float = Field(0.0, ge=0, le=100_000, description="So often sources are fitted again; 0: never.")
    drain_s: float = Field(3.0, ge=0, le=600, description="After SIGTERM, what still comes is taken in for so long.")

    @classmethod
    def load(cls, path: Path) -> Self:
        """The settings of a YAML file. Raises ConfigError that names file, setting, and what would be right."""
        told = read_yaml(path, "settings")
        try:
            return cls.model_validate({} if told is None else told)
        except ValidationError as error:
            found = error.errors(include_input=False)[0]
            name = "/".join(str(part) for part in found["loc"]) or "settings"
            known = f"; known: {', '.join(cls.model_fields)}" if found["type"] == "extra_forbidden" else ""
            raise ConfigError(f"{path}: {name}: {found['msg']}{known}") from None


def read_yaml(path: Path, what: str, advice: str = "") -> object:
    """The value of a small YAML file. Raises ConfigError for one that is not there, too large, or no YAML."""
    try:
        if path.stat().st_size > FILE_CAP:
            raise ConfigError(f"{path}: it is too large for a file of {what}")
        return YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}{advice}") from None
    except (YAMLError, UnicodeDecodeError, RecursionError):
        raise ConfigError(f"{path}: it is no YAML") from None
