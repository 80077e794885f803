"""What an experiment showed to whom, as the ledger keeps it: one row for each slate.

Exposures are no events: a member's timeline is what they did, and stays as short as that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row

from surfaces.ledger import schema
from surfaces.ledger.records import check_name, check_number, check_position, check_propensity, named

COLUMNS = tuple(column for column in schema.exposures.c if column.name not in ("tenant", "experiment"))


class Placement(NamedTuple):
    """An item on a slate: `position` 0 is the first, `team` the arm that picked it where two were drawn together.

    `propensity` is the probability with which the item got its place, as far as policies drew it.
    """

    item_id: str
    position: int
    team: str | None = None
    propensity: float = 1.0


class Exposure(NamedTuple):
    """A slate that a member got while an experiment ran.

    `arm` is the one assigned to the member, None where the slate shows two. `degraded`: the model did not answer, and
    the slate is not what the arm would have shown. `timestamp` is in seconds since 1970.
    """

    exposure_id: str
    member_id: str
    surface: str
    experiment: str
    kind: str
    arm: str | None
    degraded: bool
    timestamp: float
    slate: Sequence[Placement]


class Shown(NamedTuple):
    """One item that was shown in an experiment, for estimators.

    `arm` is the member's, or the one that picked the item where two were drawn together; None on a degraded slate of
    the latter kind. `position` 0 is the first place.
    """

    exposure_id: str
    member_id: str
    surface: str
    kind: str
    degraded: bool
    timestamp: float
    item_id: str
    position: int
    arm: str | None
    propensity: float


def row_of(exposure: Exposure) -> dict[str, object]:
    """The exposure as a row, without its tenant. Raises LedgerError for what cannot be one."""
    names = {key: named(key, check_name, getattr(exposure, key)) for key in ("exposure_id", "member_id", "surface")}
    more = {key: named(key, check_name, getattr(exposure, key)) for key in ("experiment", "kind")}
    slate = [_checked(place)._asdict() for place in exposure.slate]
    return {
        **names,
        **more,
        "arm": None if exposure.arm is None else named("arm", check_name, exposure.arm),
        "degraded": bool(exposure.degraded),
        "timestamp": named("timestamp", check_number, exposure.timestamp),
        "slate": json.dumps(slate, separators=(",", ":")),
    }


def shown_of(row: Row[*tuple[Any, ...]]) -> Iterator[Shown]:
    """The items of a row of `COLUMNS`, first place first."""
    for each in json.loads(row.slate):
        place = Placement(**each)
        about = (row.exposure_id, row.member_id, row.surface, row.kind, row.degraded, row.timestamp)
        yield Shown(*about, place.item_id, place.position, place.team or row.arm, place.propensity)


def _checked(place: Placement) -> Placement:
    return Placement(
        named("slate: item_id", check_name, place.item_id),
        named("slate: position", check_position, place.position),
        None if place.team is None else named("slate: team", check_name, place.team),
        named("slate: propensity", check_propensity, place.propensity),
    )


def without_item(slate: str, item_id: str) -> str:
    """A row's slate without an item; the others keep their positions."""
    kept = [place for place in json.loads(slate) if place["item_id"] != item_id]
    return json.dumps(kept, separators=(",", ":"))
