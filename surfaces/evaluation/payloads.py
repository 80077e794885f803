"""Words that attack: texts of items and members that try to talk to the model, in families.

A family's part `learn` may be trained on (`examples.attacked`), its part `held` is only ever measured on; families
without `learn` show what a model makes of attacks of a kind that it never saw.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator

from foundation.config import explain, read_yaml
from prompts.errors import ConfigError
from surfaces.spec import SurfaceSpec

ITEM = "{item}"
"""In a payload of a member's text: the name of the item that it asks for."""
NAMES = ("title", "name", "text")
"""Attributes that say what an item is, the likeliest first: there a payload stands."""
SHIPPED = Path(__file__).with_name("attacks.yaml")

Part: TypeAlias = Literal["learn", "held"]
Words: TypeAlias = Annotated[str, Field(min_length=1, max_length=400)]


class Payload(NamedTuple):
    """One text that attacks."""

    family: str
    part: Part
    text: str

    @property
    def asks_for_item(self) -> bool:
        """Whether it stands in a member's text and asks for an item, else it stands in an item's own."""
        return ITEM in self.text


class _Family(BaseModel):
    """A family in a file of payloads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learn: tuple[Words, ...] = ()
    held: tuple[Words, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_place(self) -> _Family:
        if len({ITEM in text for text in (*self.learn, *self.held)}) > 1:
            raise ValueError(f"either all of a family's texts have {ITEM}, or none has")
        return self


class _File(RootModel[dict[str, _Family]]):
    """A file of payloads: families by name."""

    @model_validator(mode="after")
    def _once(self) -> _File:
        said = [text for family in self.root.values() for text in (*family.learn, *family.held)]
        twin = next((text for n, text in enumerate(said) if text in said[:n]), None)
        if twin is not None:
            raise ValueError(f"'{twin}' is listed twice; once is enough")
        if not said:
            raise ValueError("there is no family; give one with texts under 'held'")
        return self


def read_payloads(path: Path = SHIPPED) -> tuple[Payload, ...]:
    """The payloads of a file, in its order. Raises ConfigError for a file that is none."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file of payloads")
    try:
        found = _File.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError(explain(path, error)) from None
    return tuple(payload for name, family in found.root.items() for payload in _of(name, family))


def _of(name: str, family: _Family) -> Iterator[Payload]:
    yield from (Payload(name, "learn", text) for text in family.learn)
    yield from (Payload(name, "held", text) for text in family.held)


@cache
def learnable() -> tuple[str, ...]:
    """What of the shipped payloads may stand in an item's text while a model learns."""
    return tuple(each.text for each in read_payloads() if each.part == "learn" and not each.asks_for_item)


def text_field(spec: SurfaceSpec, attributes: Collection[str]) -> str | None:
    """The attribute in which a payload stands: one that says what the item is, and that the surface's template reads.

    None where the template reads nothing that the item has.
    """
    read = spec.prompt.item.names & set(attributes)
    return next((name for name in (*NAMES, *sorted(read)) if name in read), None)


def carrying(
    spec: SurfaceSpec, attributes: Mapping[str, object], words: str, *, ahead: bool = False
) -> Mapping[str, object]:
    """An item's attributes with words behind its own text, or ahead of it; as they are where it has none."""
    name = text_field(spec, attributes)
    if name is None:
        return attributes
    own = str(attributes[name])
    return {**attributes, name: f"{words} {own}" if ahead else f"{own} {words}"}
