"""What a surface file says of its traffic: which visits the model ranks, and which experiment runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, Self, get_args

from pydantic import Field, model_validator

from prompts.suggest import suggest
from surfaces.fields import Duration, Name, Strict, listed, wrong

Route = Literal["foundation", "fused", "classical"]
"""Who orders the candidates: the model, the model and the sources together, or the order of retrieval."""
ROUTES: tuple[Route, ...] = get_args(Route)

ExperimentKind = Literal["ab", "interleave"]

MODEL: Literal["foundation"] = "foundation"
"""Under this name the model's utility stands beside the sources in the weights of the fused order."""

Count = Annotated[int, Field(ge=0, le=1_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=100)]


class Bounds(Strict):
    """From `min` to `max`, both included; one of them may be left out."""

    min: float | None = Field(None, description="At least that.")
    max: float | None = Field(None, description="At most that.")

    @model_validator(mode="after")
    def _say_something(self) -> Self:
        if self.min is None and self.max is None:
            raise wrong("says nothing; give it a 'min', a 'max' or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise wrong("is below 'min', so that nothing is between them; exchange the two", "max")
        return self

    def hold(self, value: float) -> bool:
        """Whether the value is within."""
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


class CountBounds(Bounds):
    """A number of things, from `min` to `max`, both included."""

    min: Count | None = Field(None, description="At least so many.")
    max: Count | None = Field(None, description="At most so many.")


class ShareBounds(Bounds):
    """A share from 0 to 1, from `min` to `max`, both included."""

    min: Share | None = Field(None, description="At least that share.")
    max: Share | None = Field(None, description="At most that share.")


class DurationBounds(Bounds):
    """A time, from `min` to `max`, both included."""

    min: Duration | None = Field(None, description="At least so long.")
    max: Duration | None = Field(None, description="At most so long.")


class Traits(NamedTuple):
    """What rules see of a visit.

    `history`: how many items of the surface's kind the member chose. `cold_items`, `tail_items`: the shares of the
    candidates that nobody had chosen, and that few had, when the sources were fitted. `gap`: seconds since the
    member's last event, None where there is none.
    """

    history: int
    cold_items: float
    tail_items: float
    gap: float | None


class WhenSpec(Strict):
    """What must be true of a visit: every condition that is named here."""

    history: CountBounds | None = Field(None, description="How many items of the surface's kind the member chose.")
    cold_items: ShareBounds | None = Field(None, description="Share of the candidates that nobody chose yet.")
    tail_items: ShareBounds | None = Field(None, description="Share of the candidates that only few chose.")
    gap: DurationBounds | None = Field(
        None, description="How long ago the member's last event was; never true of a member without events."
    )

    @model_validator(mode="after")
    def _say_something(self) -> Self:
        if not self.conditions:
            known = ", ".join(type(self).model_fields)
            raise wrong(f"says nothing; name a condition ({known}), or set 'default' for every other visit")
        return self

    @property
    def conditions(self) -> Mapping[str, Bounds]:
        """Those that are named."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: bounds for name, bounds in named.items() if bounds is not None}

    def holds(self, traits: Traits) -> bool:
        """Whether all of it is true of a visit."""
        values = {name: getattr(traits, name) for name in self.conditions}
        return all(values[name] is not None and bounds.hold(values[name]) for name, bounds in self.conditions.items())


class RuleSpec(Strict):
    """Where a visit goes for which the conditions hold."""

    when: WhenSpec = Field(description="The conditions; all of them must hold.")
    to: Route = Field(description="Who orders the candidates then.")


class RoutingSpec(Strict):
    """Which visits the model ranks: the first rule that holds decides, and where none does, the default.

    On the way `classical` the candidates keep the order of retrieval, and the model is not asked.
    """

    rules: Annotated[tuple[RuleSpec, ...], listed(max_length=16)] = Field(
        (), description="Rules, tried one after the other."
    )
    default: Route = Field(MODEL, description="Who orders the candidates where no rule holds.")
    fused: dict[Name, Weight] | None = Field(
        None, description="Weights of the fused order: of the model as `foundation`, and of sources by their names."
    )


class ArmsSpec(Strict):
    """The arms of an experiment, each a way that a visit may go, with its share of the members."""

    foundation: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="The model's order.")
    fused: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="The order of model and sources.")
    classical: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="The order of retrieval.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        shares = self.shares
        if len(shares) < 2:
            raise wrong(f"an experiment needs two arms or more; name some of {', '.join(ROUTES)}")
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise wrong(f"the shares sum to {sum(shares.values()):g}; they should sum to 1")
        return self

    @property
    def shares(self) -> Mapping[Route, float]:
        """The arms that are named, always in the same order, with their shares."""
        named: dict[Route, float | None] = {route: getattr(self, route) for route in ROUTES}
        return {route: share for route, share in named.items() if share is not None}


class ExperimentSpec(Strict):
    """Two ways or more tried against each other: a member gets one of them, or a slate drawn from both in turn."""

    name: Name = Field(description="The experiment's name: another one assigns members anew.")
    kind: ExperimentKind = Field(description="`ab`: each member has one arm. `interleave`: each slate has both.")
    arms: ArmsSpec = Field(description="The ways that are compared, with their shares.")

    @model_validator(mode="after")
    def _two_alike(self) -> Self:
        if self.kind == "ab":
            return self
        shares = self.arms.shares
        if len(shares) != 2:
            raise wrong(f"interleaving compares exactly two arms, not {len(shares)}; or take kind: ab", "arms")
        if len(set(shares.values())) != 1:
            raise wrong("interleaved, both arms fill half of a slate; give each the share 0.5", "arms")
        return self


def check_traffic(routing: RoutingSpec, experiment: ExperimentSpec | None, sources: Sequence[str]) -> None:
    """Raises where weights name no source of the surface, or where a fused order is wanted without weights."""
    if routing.fused is not None:
        _check_weights(routing.fused, sources)
        return
    problem = "the fused order has no weights; say them under 'routing', like fused: {foundation: 1.0, popular: 0.5}"
    for index, rule in enumerate(routing.rules):
        if rule.to == "fused":
            raise wrong(problem, "routing", "rules", index, "to")
    if routing.default == "fused":
        raise wrong(problem, "routing", "default")
    if experiment is not None and experiment.arms.fused is not None:
        raise wrong(problem, "experiment", "arms", "fused")


def _check_weights(weights: Mapping[str, float], sources: Sequence[str]) -> None:
    at = ("routing", "fused")
    if MODEL in sources:
        raise wrong(f"'{MODEL}' is the model here; give the source another name", "sources", sources.index(MODEL))
    for name in weights:
        if name != MODEL and name not in sources:
            raise wrong(f"'{name}' is no source of this surface{suggest(name, [MODEL, *sources])}", *at, name)
    if not weights.get(MODEL):
        raise wrong(f"the model has no weight; give '{MODEL}' one, or send visits to 'classical'", *at)
