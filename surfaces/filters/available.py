"""Only what can be had now."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from surfaces.filters.base import FilterKind, Test
from surfaces.ledger.records import Item
from surfaces.moments import moment
from surfaces.visit import Visit

Attribute = Annotated[str, Field(min_length=1, max_length=256)]
NO = frozenset({"false", "no", "n", "off", "0"})


class AvailableFilter(FilterKind):
    """Drops items that are switched off, not there yet, over, or sold out, as far as their attributes say so.

    What an attribute does not say, or says in a way that cannot be read, drops nothing.
    """

    model_config = ConfigDict(serialize_by_alias=True)
    single: ClassVar[bool] = True
    type: Literal["available"]
    flag: Attribute = Field("available", description="The attribute that says false, no or 0 of what is not to be had.")
    start: Attribute = Field(
        "available_from", alias="from", description="The attribute with the time before which it is not there yet."
    )
    until: Attribute = Field("expires_at", description="The attribute with the time after which it is over.")
    stock: Attribute | None = Field(None, description="The attribute with how many are left; at 0 it is sold out.")

    def test(self, visit: Visit) -> Test:
        """Without a time of the visit, times say nothing."""
        now = visit.now if visit.now > 0 else None

        def available(item: Item) -> bool:
            says = item.attributes.get
            left = None if self.stock is None else _number(says(self.stock))
            if _is_no(says(self.flag)) or (left is not None and left <= 0):
                return False
            return now is None or self._open(moment(says(self.start)), now, moment(says(self.until)))

        return available

    @staticmethod
    def _open(start: float | None, now: float, until: float | None) -> bool:
        return (start is None or start <= now) and (until is None or now <= until)


def _is_no(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in NO
    return isinstance(value, bool | int | float) and value == 0


def _number(value: object) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None
