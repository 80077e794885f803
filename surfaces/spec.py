"""What a surface file and a trunk file may say, and what they say when a key is left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from prompts.errors import SpecError
from prompts.suggest import suggest
from prompts.verbalize import Detail, TrunkForm
from surfaces.fields import Duration, Name, Strict, TemplateText, Text, Word, listed, wrong

NONE, YES, NO = "none", "yes", "no"
"""Answer words that no head may take as its name: nothing done; a pointwise head's two answers."""

K = Annotated[int, Field(ge=1, le=1_000, description="How many candidates the source brings.")]


class Hashed(Strict):
    """A file with a version."""

    @cached_property
    def version(self) -> str:
        """Twelve hex digits of the content; order of keys and comments do not count."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


class TimelineSpec(Strict):
    """How events become pieces of the trunk."""

    detail: Detail = Field("vector", description="Old and new events as text, as one vector each, or old ones only.")
    budget: int = Field(128, ge=16, le=32_768, description="Slots (tokens, or vectors in their place) of the trunk.")
    step: int = Field(32, ge=1, le=4_096, description="By how many events the window moves when the budget is full.")
    events: dict[Name, TemplateText] = Field(description="A template by kind of item, and one for `default`.")

    @field_validator("events")
    @classmethod
    def _has_default(cls, events: dict[Name, TemplateText]) -> dict[Name, TemplateText]:
        if "default" not in events:
            raise wrong("a template for 'default' is missing; it serves every other kind of item")
        return events

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.budget < 2 * self.step:
            raise wrong(f"holds less than two steps of {self.step}; raise it, or lower the step", "budget")
        return self


class TrunkSpec(Hashed):
    """A trunk file: how a member is put into words, for every surface that names it."""

    trunk: Name
    description: Text
    profile: TemplateText
    timeline: TimelineSpec
    actions: dict[Word, Text] = Field(default_factory=dict, description="The word that the model reads for an action.")

    @cached_property
    def form(self) -> TrunkForm:
        """What prompts/verbalize.py works with."""
        line = self.timeline
        return TrunkForm(self.profile, line.events, self.actions, line.detail, line.budget, line.step)


class PromptSpec(Strict):
    """The stem and the leaves."""

    instruction: Text
    context: TemplateText | None = Field(None, description="Reads the keys of a request's context.")
    item: TemplateText
    detail: Literal["text", "vector"] = Field("vector", description="A candidate as its tokens or as one vector.")

    @property
    def compress(self) -> bool:
        """Whether what a leaf says goes in as vectors, where the model can."""
        return self.detail == "vector"


class PopularSource(Strict):
    """The items with most events; with a half-life, recent events count for more."""

    type: Literal["popular"]
    k: K
    half_life: Duration | None = None


class CoVisitationSource(Strict):
    """Items that members with a similar timeline chose."""

    type: Literal["co_visitation"]
    k: K


class EmbeddingSource(Strict):
    """Items whose text is near to what the member chose."""

    type: Literal["embedding"]
    k: K


SourceSpec = Annotated[PopularSource | CoVisitationSource | EmbeddingSource, Field(discriminator="type")]


class HeadSpec(Strict):
    """One question that the model answers of every candidate, and what the answer weighs in the utility."""

    name: Word
    type: Literal["choice", "pointwise", "likelihood"]
    weight: float = Field(0.0, ge=-1_000, le=1_000)
    actions: Annotated[tuple[Word, ...], listed(min_length=1)] = Field(
        default_factory=lambda data: (data["name"],) if "name" in data else (),
        description="Actions in the ledger that make the label positive; by default the head's name.",
    )


class SeenSpec(Strict):
    """Drops items that the member has acted on."""

    type: Literal["seen"]


PolicySpec = SeenSpec
"""An entry of `policies`."""


class FallbackSpec(Strict):
    """What a caller gets when the model does not answer in time."""

    deadline_ms: int = Field(500, ge=1, le=60_000)
    order: Annotated[tuple[str, ...], listed()] = Field((), description="Sources, best first; by default as listed.")


class SurfaceSpec(Hashed):
    """A surface file: what is ranked, from where, by which heads."""

    surface: Name
    description: Text
    item_kind: Name
    trunk: Name = "member"
    prompt: PromptSpec
    sources: Annotated[tuple[SourceSpec, ...], listed(min_length=1, max_length=16)]
    evidence: Annotated[tuple[Literal["popular", "co_visitation"], ...], listed()] = Field(
        (), description="What a leaf tells of its candidate in words: these sources' opinions."
    )
    heads: Annotated[tuple[HeadSpec, ...], listed(min_length=1, max_length=32)]
    policies: Annotated[tuple[PolicySpec, ...], listed(max_length=16)] = ()
    fallback: FallbackSpec = Field(default_factory=FallbackSpec)

    @field_validator("sources", "policies")
    @classmethod
    def _types_once(cls, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        twin = _twin([entry.type for entry in entries])
        if twin is not None:
            raise wrong(f"'{entries[twin].type}' is listed twice; once is enough", twin, "type")
        return entries

    @field_validator("evidence")
    @classmethod
    def _evidence_once(cls, evidence: tuple[str, ...]) -> tuple[str, ...]:
        twin = _twin(evidence)
        if twin is not None:
            raise wrong(f"'{evidence[twin]}' is listed twice; once is enough", twin)
        return evidence

    @field_validator("heads")
    @classmethod
    def _heads_agree(cls, heads: tuple[HeadSpec, ...]) -> tuple[HeadSpec, ...]:
        names = [head.name for head in heads]
        for index, head in enumerate(heads):
            if head.name in {NONE, YES, NO}:
                raise wrong("is an answer of its own; give the head another name", index, "name")
            if head.type != "choice" and head.type in [other.type for other in heads[:index]]:
                raise wrong(f"is the second {head.type} head; a surface has at most one", index, "type")
        twin = _twin(names)
        if twin is not None:
            raise wrong(f"'{names[twin]}' is the name of two heads; rename one", twin, "name")
        if not any(head.weight for head in heads):
            raise wrong("every weight is 0; give the head that ranks a weight, like 1.0")
        return heads

    @field_validator("fallback")
    @classmethod
    def _order_known(cls, fallback: FallbackSpec, info: ValidationInfo) -> FallbackSpec:
        types = tuple(source.type for source in info.data.get("sources", ()))
        if not types:
            return fallback
        for index, name in enumerate(fallback.order):
            if name not in types:
                raise wrong(f"'{name}' is no source of this surface{suggest(name, types)}", "order", index)
        twin = _twin(fallback.order)
        if twin is not None:
            raise wrong(f"'{fallback.order[twin]}' is listed twice; once is enough", "order", twin)
        return fallback.model_copy(update={"order": fallback.order or types})

    @cached_property
    def choices(self) -> tuple[HeadSpec, ...]:
        """The heads that share one softmax."""
        return tuple(head for head in self.heads if head.type == "choice")

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """All answer words: the choice heads' names and `none`, then `yes` and `no`, as far as there are such heads."""
        choices = tuple(head.name for head in self.choices)
        pointwise = any(head.type == "pointwise" for head in self.heads)
        return (*choices, *((NONE,) if choices else ()), *((YES, NO) if pointwise else ()))

    @cached_property
    def likelihood(self) -> bool:
        """Whether a head asks how much the member makes a candidate's text more likely."""
        return any(head.type == "likelihood" for head in self.heads)


def check_answers(spec: SurfaceSpec, encode: Callable[[str], Sequence[int]]) -> None:
    """Raises SpecError when two answers begin with the same token, or one has none: the model could not tell them."""
    owner: dict[int, str] = {}
    for word in spec.answers:
        tokens = encode(word)
        if not tokens:
            raise SpecError(f"surface '{spec.surface}': the answer '{word}' has no tokens; rename the head")
        twin = owner.setdefault(tokens[0], word)
        if twin != word:
            raise SpecError(
                f"surface '{spec.surface}': the answers '{twin}' and '{word}' begin with the same token; rename a head"
            )


def surface_schema() -> dict[str, Any]:
    """JSON Schema of surface files, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **SurfaceSpec.model_json_schema()}


def trunk_schema() -> dict[str, Any]:
    """JSON Schema of trunk files."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **TrunkSpec.model_json_schema()}


def _twin(words: Sequence[str]) -> int | None:
    """Where a word stands for the second time."""
    return next((index for index, word in enumerate(words) if word in words[:index]), None)
