"""What happens to a slate after the model: one module a policy, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from surfaces.policies.base import Policy
from surfaces.policies.seen import Seen
from surfaces.spec import PolicySpec

POLICIES: dict[str, Callable[..., Policy]] = {"seen": Seen}
"""By `type` in a surface file; the other keys of an entry are the arguments."""


def build_policies(specs: Sequence[PolicySpec]) -> list[Policy]:
    """The policies of a surface, in the order in which they are applied."""
    return [POLICIES[spec.type](**spec.model_dump(exclude={"type"})) for spec in specs]
