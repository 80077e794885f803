"""What travels over HTTP: the request for a slate, the slate, and what a surface tells of itself."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from fastapi import Path
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from surfaces.ledger.records import EARLIEST, LATEST, MEMBER_FIELDS, is_name
from surfaces.traffic import ExperimentKind, Route

Reason = Literal["deadline", "engine", "capacity"]
"""Why a slate is degraded: time ran out, the engine failed, or there was more work than it has room for."""


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_whole)
"""5.0 is a whole number, too, as in JSON Schema."""

NAME: dict[str, JsonValue] = {"minLength": 1, "maxLength": 256, "pattern": r"^[^\x00-\x1f\x7f]+$"}
"""What an id or a word may be, as JSON Schema."""
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Attributes = dict[str, JsonValue]
Count = Annotated[int, Field(ge=1), Whole]
Length = Annotated[int, Field(ge=1, le=1_000), Whole]
Milliseconds = Annotated[int, Field(ge=1, le=60_000), Whole]
Position = Annotated[int, Field(ge=0, lt=2**31), Whole]
Timestamp = Annotated[float, Field(ge=EARLIEST, le=LATEST)]
"""Seconds since 1970, of the years that a date can be written for."""

# What does not fit these is unknown, as any other name that nobody has, and so 404: no request is refused by them.
SurfaceName = Annotated[
    str,
    Path(
        description="the surface's name", examples=["movies"], json_schema_extra={"pattern": "^[a-z][a-z0-9_-]{0,63}$"}
    ),
]
MemberId = Annotated[str, Path(description="the member's id", examples=["196"], json_schema_extra=NAME)]


def _keys(*taken: str) -> dict[str, JsonValue]:
    """What the keys of attributes that the ledger keeps may be, as JSON Schema."""
    return {"propertyNames": {**NAME, "not": {"enum": [*taken]}} if taken else NAME}


def _check_keys(attributes: Attributes, taken: Sequence[str] = ()) -> None:
    """The ledger's rules for names of attributes, without a word of the names."""
    if not all(map(is_name, attributes)):
        raise PydanticCustomError("name", "the name of an attribute should have 1 to 256 characters, none of control")
    if name := next((each for each in taken if each in attributes), None):
        raise PydanticCustomError("taken", "'{name}': this name is taken; give the attribute another", {"name": name})


class Strict(BaseModel):
    """A part of a request: exact types, and no key that nobody reads."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        """Refuses unknown keys without repeating them."""
        if isinstance(data, dict) and cls.model_config.get("extra") == "forbid":
            unknown = [key for key in data if key not in cls.model_fields]
            if unknown:
                raise PydanticCustomError("unknown_key", "{advice}", {"advice": _advice(unknown[0], cls)})
        return data


def _advice(unknown: str, model: type[BaseModel]) -> str:
    known = list(model.model_fields)
    close = get_close_matches(unknown[:64], known, n=1)
    meant = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
    return f"an unknown key; {meant}"


class TimelineEvent(Strict):
    """Something that the member did, oldest first."""

    item_id: Identifier
    action: Identifier = Field(examples=["like"])
    surface: Identifier | None = Field(default=None, description="where it happened; default: the surface asked for")
    timestamp: Timestamp | None = Field(default=None, description="seconds since 1970; default: the order given")
    item: Attributes | None = Field(default=None, description="the item's attributes, if the ledger does not know it")


class InlineMember(Strict):
    """A member that the ledger need not know."""

    profile: Attributes = Field(default={}, examples=[{"age": 24, "gender": "F", "occupation": "artist"}])
    timeline: list[TimelineEvent] = Field(default=[])


class InlineCandidate(Strict):
    """A candidate that the ledger need not know: `item_id`, and its attributes beside it."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    item_id: Identifier

    def attributes(self) -> Attributes:
        """Everything but the `item_id`."""
        return dict(self.__pydantic_extra__)


def _candidate_form(value: object) -> str:
    return "(id)" if isinstance(value, str) else "(inline)"


Candidate = Annotated[
    Annotated[Identifier, Tag("(id)")] | Annotated[InlineCandidate, Tag("(inline)")], Discriminator(_candidate_form)
]


ONE_MEMBER: dict[str, JsonValue] = {
    "oneOf": [
        {"required": [one], "properties": {one: {"type": kind}, other: {"type": "null"}}}
        for one, kind, other in (("member_id", "string", "member"), ("member", "object", "member_id"))
    ]
}
"""Exactly one of the two, as JSON Schema; null is as good as not there."""


class RankRequest(Strict):
    """For whom to rank what. Either `member_id` or `member`."""

    model_config = ConfigDict(json_schema_extra=ONE_MEMBER)

    member_id: Identifier | None = Field(default=None, description="a member of the ledger", examples=["196"])
    member: InlineMember | None = Field(default=None, description="a member told in the request itself")
    candidates: list[Candidate] | None = Field(
        default=None,
        min_length=1,
        description="what to rank, each item once; default: what the sources retrieve",
        json_schema_extra={"uniqueItems": True},
    )
    k: Length = Field(default=10, description="how long the slate may be")
    context: Attributes | None = Field(default=None, description="what the surface's `context` template may read")
    deadline_ms: Milliseconds | None = Field(
        default=None, description="from the request's arrival; default: the surface's own"
    )
    explain: bool = Field(default=False, description="return the text that the model read")

    @model_validator(mode="after")
    def _one_member(self) -> Self:
        if (self.member_id is None) == (self.member is None):
            raise PydanticCustomError("one_member", "exactly one of 'member_id' and 'member' is required")
        return self

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        seen: dict[str, int] = {}
        for index, candidate in enumerate(self.candidates or ()):
            name = candidate if isinstance(candidate, str) else candidate.item_id
            if seen.setdefault(name, index) != index:
                message = "candidates must differ: number {index} repeats number {first} (counted from 0)"
                raise PydanticCustomError("repeated", message, {"index": index, "first": seen[name]})
        return self


class BatchRequest(Strict):
    """Rankings of one surface for many members at once."""

    requests: list[RankRequest] = Field(min_length=1)


class EventIn(Strict):
    """Something that a member did with an item."""

    member_id: Identifier = Field(examples=["196"])
    item_id: Identifier = Field(examples=["242"])
    surface: Identifier = Field(description="where it happened", examples=["movies"])
    action: Identifier = Field(description="what was done; `show` says that the item was only shown", examples=["like"])
    timestamp: Timestamp | None = Field(
        default=None,
        description="seconds since 1970, or the position where the ledger's clock is `order`, which must be told; "
        "default: when the request came",
    )
    value: float | None = Field(default=None, allow_inf_nan=False, description="how much, such as a rating or a price")
    position: Position | None = Field(default=None, description="the place on the slate, 0 first")
    propensity: float | None = Field(default=None, gt=0, le=1, description="as the slate's entry told it")
    event_id: Identifier | None = Field(
        default=None, description="makes the event one, however often it is sent; default: a hash of its content"
    )


class EventsRequest(Strict):
    """What members did."""

    events: list[EventIn] = Field(min_length=1)


class ItemIn(Strict):
    """An item: `item_id`, `kind`, and its attributes beside them."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_keys())
    __pydantic_extra__: dict[str, JsonValue]

    item_id: Identifier
    kind: Identifier = Field(examples=["movie"])
    member_id: Identifier | None = Field(default=None, description="the person that the item is, where it is one")

    @model_validator(mode="after")
    def _names(self) -> Self:
        _check_keys(self.__pydantic_extra__)
        return self

    def attributes(self) -> Attributes:
        """Everything beside the fields."""
        return dict(self.__pydantic_extra__)


class ItemsRequest(Strict):
    """Items to write."""

    items: list[ItemIn] = Field(min_length=1)


class MemberIn(Strict):
    """A member, with what is known of them."""

    member_id: Identifier
    profile: Attributes = Field(
        default={},
        examples=[{"age": 24, "gender": "F", "occupation": "artist"}],
        json_schema_extra=_keys(*MEMBER_FIELDS),
    )

    @model_validator(mode="after")
    def _names(self) -> Self:
        _check_keys(self.profile, MEMBER_FIELDS)
        return self


class MembersRequest(Strict):
    """Members to write."""

    members: list[MemberIn] = Field(min_length=1)


class RerankRequest(Strict):
    """Texts to rank for a query, in the shape of Cohere's and Jina's APIs."""

    model: str = Field(
        default="documents",
        min_length=1,
        max_length=64,
        description="the surface that ranks; `documents` comes with us",
    )
    query: str = Field(min_length=1, examples=["films about space"])
    documents: list[str | Attributes] = Field(
        min_length=1, description="texts; or objects, whose fields the surface's template reads (`text`, `title`)"
    )
    top_n: Count | None = Field(default=None, description="so many results; default: all")
    return_documents: bool = Field(default=False, description="give each result its document")


def _input_form(value: object) -> str:
    return "(text)" if isinstance(value, str) else "(texts)"


Said = Annotated[str, Field(min_length=1)]
Input = Annotated[
    Annotated[Said, Tag("(text)")] | Annotated[list[Said], Field(min_length=1), Tag("(texts)")],
    Discriminator(_input_form),
]


class EmbeddingRequest(Strict):
    """Texts to make vectors of, in the shape of OpenAI's API."""

    model: str = Field(min_length=1, max_length=128, description="the model that serves, by its name or its version")
    input: Input = Field(description="a text or texts, none of them empty")
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="numbers, or their bytes: float32, the lowest byte first"
    )
    dimensions: Count | None = Field(default=None, description="how long the vectors are; the model's own, or none")


_BODIES: tuple[type[BaseModel], ...] = (
    BatchRequest, RankRequest, InlineMember, TimelineEvent, InlineCandidate, EventsRequest, EventIn, ItemsRequest,
    ItemIn, MembersRequest, MemberIn, RerankRequest, EmbeddingRequest,
)  # fmt: skip
FIELDS = frozenset(name for model in _BODIES for name in model.model_fields)
"""Every key that a request may have by this module's word, and so may be named in an error."""


def _absent(value: object) -> bool:
    return value is None


def _certain(value: object) -> bool:
    return value == 1.0


class RankedItem(BaseModel):
    """One place of the slate."""

    item_id: str
    rank: int = Field(description="1 is best")
    utility: float | None = Field(
        description="what the model thinks of it, and by default orders the slate by; null where the model had no part"
    )
    heads: dict[str, float] = Field(
        description="each head's value, mostly a probability; `_back`: the other side's; empty where utility is null"
    )
    sources: list[str] = Field(
        description="where the candidate came from, best rank first; `request`: from the caller, `policy`: pinned"
    )
    propensity: float = Field(
        default=1.0,
        exclude_if=_certain,
        description="with which probability the item got this place, where a policy explores; log it with the event",
    )
    team: str | None = Field(
        default=None, exclude_if=_absent, description="the arm that picked the item, where an experiment interleaves"
    )


class Timing(BaseModel):
    """Where the time went, in milliseconds. A part that was not reached is 0."""

    retrieve: float = Field(description="reading the member, and gathering candidates")
    compose: float = Field(description="writing the text, and reading it into tokens")
    queue: float = Field(description="waiting for the engine")
    score: float = Field(description="the forward that the request was part of")
    total: float = Field(description="from the request's arrival to the reply")


class Explanation(BaseModel):
    """The text that the model read."""

    trunk: list[str] = Field(description="the member: the profile, then one piece for each event that fits")
    stem: list[str] = Field(description="the surface and the context")
    leaves: dict[str, str] = Field(description="each candidate of the slate")


class Experiment(BaseModel):
    """The experiment that a slate is part of."""

    name: str
    kind: ExperimentKind = Field(description="`ab`: a member has one arm; `interleave`: each entry tells its `team`")
    arm: Route | None = Field(description="the arm assigned to the member; null where the slate shows two")


class RankReply(BaseModel):
    """A slate."""

    surface: str
    slate: list[RankedItem]
    degraded: bool = Field(description="true if the model was asked, and had no part in the order")
    reason: Reason | None = Field(default=None, exclude_if=_absent, description="why the slate is degraded")
    route: Route | None = Field(
        default=None,
        exclude_if=_absent,
        description="who orders the candidates: the model (`foundation`), model and sources (`fused`), or the order of "
        "retrieval (`classical`); of a degraded slate, who was meant to; absent where two are interleaved",
    )
    experiment: Experiment | None = Field(
        default=None, exclude_if=_absent, description="which experiment the slate is part of, if any"
    )
    model: str
    surface_version: str = Field(description="changes with the surface file, and with the trunk's")
    shares: dict[str, float] = Field(
        default={}, description="each source's share in what put the slate's candidates forward (reciprocal ranks)"
    )
    timing_ms: Timing
    explain: Explanation | None = Field(default=None, exclude_if=_absent)
