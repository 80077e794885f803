"""Nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from surfaces.policies.base import Entry, PolicyKind
from surfaces.visit import Visit


class SeenPolicy(PolicyKind):
    """Drops items that the member has acted on; one that was only shown stays. The filter `seen` does it earlier."""

    drops: ClassVar[bool] = True
    single: ClassVar[bool] = True
    type: Literal["seen"]

    def apply(self, slate: Sequence[Entry], visit: Visit, k: int) -> list[Entry]:  # noqa: ARG002 - of any length
        """The entries that are new to the member, in their order."""
        seen = {event.item_id for event in visit.acts}
        return [entry for entry in slate if entry.item_id not in seen]
