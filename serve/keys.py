"""API keys: who may do what, on which surfaces, and how often.

A file of keys holds hashes alone; a key itself is shown once, when it is made. A key is 32 random bytes, so that one
SHA-256 is as good as a slow hash: there is nothing to guess. Keys are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, StringConstraints, ValidationError
from ruamel.yaml import YAML

from prompts.errors import ConfigError, UnknownError
from serve.settings import read_yaml
from surfaces.fields import Name, Strict, listed

Scope = Literal["rank", "write", "metrics", "admin"]
"""What a key may do: rank (and read what surfaces there are); write events, items and members; read figures; change
surfaces and models. `admin` may do everything."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "pr_"


class Key(Strict):
    """One key, as the file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = Field(description="Whose key it is; it stands in logs and figures.")
    hash: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = Field(description="SHA-256 of the key.")
    scopes: Annotated[tuple[Scope, ...], listed(min_length=1)] = Field(description="What it may do.")
    surfaces: Annotated[tuple[Name, ...], listed()] | None = Field(
        None, description="The surfaces that it may name; by default all."
    )
    rate: Annotated[float, Field(gt=0, le=1e6)] | None = Field(None, description="Requests a second; by default any.")
    burst: Annotated[int, Field(ge=1, le=10**6)] | None = Field(
        None, description="So many at once; by default the rate of one second."
    )

    def allows(self, scope: Scope) -> bool:
        """Whether the key may do what needs this scope."""
        return scope in self.scopes or "admin" in self.scopes

    def names(self, surface: str) -> bool:
        """Whether the key may name this surface."""
        return self.surfaces is None or surface in self.surfaces


ANYONE = Key(name="anyone", hash="0" * 64, scopes=("admin",))
"""Who calls where no keys are configured."""


@dataclass(slots=True)
class Bucket:
    """How many requests a key has left: so many at once, filled again at its rate."""

    rate: float
    burst: float
    left: float = field(init=False)
    since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.left = self.burst

    def take(self, now: float, count: int = 1) -> float:
        """0 if there were so many left, or all that there can be; else the seconds until there are."""
        self.left = min(self.burst, self.left + (now - self.since) * self.rate)
        self.since = now
        wanted = min(float(count), self.burst)
        if self.left >= wanted:
            self.left -= count  # a request for more than the burst leaves a debt, which the next ones wait for
            return 0.0
        return (wanted - self.left) / self.rate


class Keys:
    """The keys of a server. Without any, everyone may do everything."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        """Raises ConfigError for two keys of one name."""
        names = [key.name for key in keys]
        twin = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if twin is not None:
            raise ConfigError(f"two keys are called '{twin}'; rename one")
        self._keys = tuple(keys)
        self._buckets = {key.name: Bucket(key.rate, key.burst or max(1.0, key.rate)) for key in keys if key.rate}
        self._lock = Lock()

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def find(self, secret: str) -> Key | None:
        """The key whose secret that is; every one is compared, whichever it is."""
        told, found = digest(secret), None
        for key in self._keys:
            if hmac.compare_digest(told, key.hash):
                found = key
        return found

    def wait(self, key: Key, count: int = 1) -> float:
        """Counts requests of a key; the seconds until they may come again, 0 where they may now."""
        bucket = self._buckets.get(key.name)
        if bucket is None:
            return 0.0
        with self._lock:
            return bucket.take(time.monotonic(), count)

    @classmethod
    def load(cls, path: Path) -> Keys:
        """The keys of a file. Raises ConfigError that names file, entry and what would be right."""
        return cls(_read(path))


def digest(secret: str) -> str:
    """The hash of a key."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def make(path: Path, name: str, scopes: Sequence[str], **limits: Any) -> str:
    """Adds a key to a file, which is made if it is not there, and returns its secret: it is nowhere else.

    Raises ConfigError for a name that is taken, and for what makes no key.
    """
    keys = list(_read(path)) if path.exists() else []
    secret = PREFIX + secrets.token_urlsafe(32)
    told = {"name": name, "hash": digest(secret), "scopes": list(scopes), **limits}
    try:
        keys.append(Key.model_validate(told))
    except ValidationError as error:
        raise ConfigError(f"key '{name[:64]}': {_first(error)}") from None
    Keys(keys)
    _write(path, keys)
    return secret


def revoke(path: Path, name: str) -> None:
    """Takes a key out of a file. Raises UnknownError for a name that is not there."""
    keys = _read(path)
    if name not in [key.name for key in keys]:
        raise UnknownError(f"{path}: no key is called '{name[:64]}'")
    _write(path, [key for key in keys if key.name != name])


def _read(path: Path) -> list[Key]:
    told = read_yaml(path, "keys", f"; `prismrank keys new NAME --file {path}` makes one")
    entries = told.get("keys") if isinstance(told, dict) and set(told) == {"keys"} else None
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: a file of keys is 'keys:' and a list of them")
    found = []
    for number, entry in enumerate(entries):
        try:
            found.append(Key.model_validate(entry))
        except ValidationError as error:
            raise ConfigError(f"{path}: keys/{number}: {_first(error)}") from None
    return found


def _first(error: ValidationError) -> str:
    found = error.errors(include_input=False)[0]
    where = "/".join(str(part) for part in found["loc"])
    return f"{where}: {found['msg']}" if where else str(found["msg"])


def _write(path: Path, keys: Sequence[Key]) -> None:
    """The file as a whole, for its owner's eyes only."""
    text, yaml = io.StringIO(), YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.width = 4096
    yaml.dump({"keys": [key.model_dump(mode="json", exclude_none=True) for key in keys]}, text)
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as scratch:
            scratch.write(text.getvalue())
        os.replace(scratch.name, path)
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be written: {error.strerror}") from None
