"""What a ledger holds: items, members and events, and the rules that every one of them keeps."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from prompts.errors import LedgerError

Clock: TypeAlias = Literal["time", "order"]
"""What timestamps mean: `time` is seconds since 1970 (UTC); `order` is only a position."""

IMPRESSION = "show"
"""The action of an event that says an item was shown, and nothing was done with it."""

ITEM_FIELDS = ("item_id", "kind", "member_id")
MEMBER_FIELDS = ("member_id",)
"""Names that no attribute and no part of a profile may have: a ledger folder has them as columns of their own."""

NAME_LIMIT = 256
ATTRIBUTES_LIMIT = 1_000_000
EARLIEST, LATEST = -62_135_596_800.0, 253_402_300_799.0  # the years 1 to 9999, which a date can be written for

_Value = TypeVar("_Value")
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class Item(NamedTuple):
    """A thing that can be ranked. `member_id` is the person that this item is, where it is one."""

    item_id: str
    kind: str
    attributes: Mapping[str, object]
    member_id: str | None = None


class Member(NamedTuple):
    """A person for whom things are ranked."""

    member_id: str
    profile: Mapping[str, object]


class Event(NamedTuple):
    """A member did `action` with an item on a surface.

    `timestamp` is in seconds (or a position, see `Clock`); `position` is the place on the slate, 0 first;
    `propensity` is the probability with which the slate showed the item, above 0 and at most 1.
    """

    member_id: str
    item_id: str
    surface: str
    action: str
    timestamp: float
    value: float | None = None
    position: int | None = None
    propensity: float | None = None
    event_id: str | None = None


class Counts(NamedTuple):
    """How many rows there are, or how many a write brought."""

    items: int
    members: int
    events: int


class Erased(NamedTuple):
    """How many rows went with a member."""

    events: int
    items: int
    exposures: int


def quoted(value: object) -> str:
    """The value as an error message may show it: short and on one line."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # a number of thousands of digits; lists in lists without end
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_name(value: object) -> str:
    """The value, when it can be an id or a word. Raises LedgerError."""
    if not isinstance(value, str):
        raise LedgerError(f"{quoted(value)} is not text")
    if not value or len(value) > NAME_LIMIT:
        raise LedgerError(f"{quoted(value)} is {len(value)} characters long; 1 to {NAME_LIMIT} are allowed")
    if _CONTROL.search(value):
        raise LedgerError(f"{quoted(value)} holds a control character or half a character")
    return value


def is_name(value: object) -> bool:
    """Whether the value can be an id or a word at all."""
    return isinstance(value, str) and 0 < len(value) <= NAME_LIMIT and not _CONTROL.search(value)


def check_number(value: object) -> float:
    """The value as a finite float. Raises LedgerError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise LedgerError(f"{quoted(value)} is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise LedgerError(f"{quoted(value)} is not a finite number; leave it out where there is none")
    return number


def check_timestamp(value: object, clock: Clock) -> float:
    """The value as a timestamp of that clock. Raises LedgerError."""
    number = check_number(value)
    if clock == "time" and not EARLIEST <= number <= LATEST:
        raise LedgerError(f"{number:.0f} is outside the years 1 to 9999; it must be in seconds since 1970")
    return number


def dump_attributes(attributes: Mapping[str, object], what: str, reserved: Collection[str]) -> str:
    """Attributes as JSON text, without those that are None: an attribute that is not there is not there.

    Raises LedgerError for a name that is reserved, and for what JSON cannot hold, NaN and half characters included.
    """
    for name in attributes:
        named(f"{what}: name of an attribute", check_name, name)
        if name in reserved:
            raise LedgerError(f"{what}: attribute {name!r}: this name is taken; give the attribute another")
    attributes = {name: value for name, value in attributes.items() if value is not None}
    try:
        text = json.dumps(attributes, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except UnicodeEncodeError:
        raise LedgerError(f"{what}: {_culprit(attributes)} holds half a character (a lone surrogate)") from None
    except (TypeError, ValueError, RecursionError):
        raise LedgerError(f"{what}: {_culprit(attributes)} is not text, a finite number or a list of them") from None
    if len(text) > ATTRIBUTES_LIMIT:
        raise LedgerError(f"{what}: {len(text)} characters of attributes; at most {ATTRIBUTES_LIMIT} are allowed")
    return text


def _culprit(attributes: Mapping[str, object]) -> str:
    """The name and value of the first attribute that cannot be written as JSON."""
    for name, value in attributes.items():
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            shown = type(value).__name__ if isinstance(error, RecursionError) else quoted(value)
            return f"attribute {name!r}, {shown},"
    return "an attribute"


def check_event(event: Event, clock: Clock) -> Event:
    """The event with its numbers as floats. Raises LedgerError that says which field is wrong."""
    return event._replace(
        member_id=named("member_id", check_name, event.member_id),
        item_id=named("item_id", check_name, event.item_id),
        surface=named("surface", check_name, event.surface),
        action=named("action", check_name, event.action),
        timestamp=named("timestamp", lambda value: check_timestamp(value, clock), event.timestamp),
        value=None if event.value is None else named("value", check_number, event.value),
        position=None if event.position is None else named("position", check_position, event.position),
        propensity=None if event.propensity is None else named("propensity", check_propensity, event.propensity),
        event_id=None if event.event_id is None else named("event_id", check_name, event.event_id),
    )


def named(what: str, check: Callable[[object], _Value], value: object) -> _Value:
    """The value as checked; LedgerError tells what it was to be."""
    try:
        return check(value)
    except LedgerError as error:
        raise LedgerError(f"{what}: {error}") from None


def check_position(value: object) -> int:
    """The value as a place on a slate. Raises LedgerError."""
    number = check_number(value)
    if not number.is_integer() or not 0 <= number < 2**31:
        raise LedgerError(f"{quoted(value)} is not a place on a slate; 0, 1, 2 and so on are")
    return int(number)


def check_propensity(value: object) -> float:
    """The value as a probability above 0. Raises LedgerError."""
    number = check_number(value)
    if not 0 < number <= 1:
        raise LedgerError(f"{number} is not a probability above 0 and at most 1")
    return number
