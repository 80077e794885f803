"""What a surface file and a trunk file may say, and what they say when a key is left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import CoreSchema, core_schema

from prompts.errors import SpecError
from prompts.render import Template
from prompts.suggest import suggest
from prompts.verbalize import Detail, TrunkForm
from surfaces.fields import Locale, Name, Strict, TemplateText, Text, Word, listed, wrong
from surfaces.filters.base import FilterKind
from surfaces.heads.base import NO, NONE, YES, HeadKind
from surfaces.kinds import OneOf, kinds
from surfaces.policies.base import PolicyKind
from surfaces.sources.base import SourceKind
from surfaces.sources.overall import OVERALL
from surfaces.traffic import ExperimentSpec, RoutingSpec, check_traffic

BACK = "_back"
"""What is added to a head's name for the other side's answer."""


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

    trunk: Name = Field(description="The trunk's name, by which surfaces choose it.")
    description: Text = Field(description="What it tells of a member, in a line.")
    profile: TemplateText = Field(description="A template over the member's profile: the first line of the trunk.")
    timeline: TimelineSpec = Field(description="How the member's events are told, oldest first.")
    actions: dict[Word, Text] = Field(default_factory=dict, description="The word that the model reads for an action.")

    @cached_property
    def form(self) -> TrunkForm:
        """What prompts/verbalize.py works with."""
        line = self.timeline
        return TrunkForm(self.profile, line.events, self.actions, line.detail, line.budget, line.step)


class Wording(NamedTuple):
    """What a surface says, in one language."""

    instruction: str
    context: Template | None
    item: Template

    def stem(self, context: Mapping[str, object]) -> str:
        """What is said of a request's context; empty when there is nothing to say."""
        return self.context.render(context) if self.context else ""

    def leaf(self, attributes: Mapping[str, object]) -> str:
        """A candidate as text; empty for an item of which the template says nothing."""
        return self.item.recall(attributes)


class TranslationSpec(Strict):
    """The prompt in another language; what is left out stays as it is."""

    instruction: Text | None = Field(None, description="The question to the model, in this language.")
    context: TemplateText | None = Field(None, description="What is said of a request's context, in this language.")
    item: TemplateText | None = Field(None, description="A candidate as text, in this language.")


class ExampleSpec(Strict):
    """One example for the model to follow: what a member is like, an item, and the right answer."""

    member: Text = Field(description="A member in a few words, as a trunk would tell it.")
    item: Annotated[dict[str, Any], Field(max_length=64)] = Field(
        description="The item's attributes, for the item template."
    )
    answer: str = Field(max_length=32, description="One of the surface's answers.")


class PromptSpec(Strict):
    """The stem and the leaves."""

    instruction: Text = Field(description="The question to the model: what is ranked, and by what.")
    context: TemplateText | None = Field(
        None, description="Reads a request's context: query, page, any other key; `now` and `locale` are always there."
    )
    item: TemplateText = Field(description="A template over an item's attributes: the candidate as text.")
    detail: Literal["text", "vector"] = Field("vector", description="A candidate as its tokens or as one vector.")
    examples: Annotated[tuple[ExampleSpec, ...], listed(max_length=8)] = Field(
        (), description="A few examples that stand in the stem."
    )
    locales: Annotated[dict[Locale, TranslationSpec], Field(max_length=64)] = Field(
        default_factory=dict, description="The prompt in other languages, chosen by `locale` in a request's context."
    )

    @property
    def compress(self) -> bool:
        """Whether what a leaf says goes in as vectors, where the model can."""
        return self.detail == "vector"

    def language(self, locale: object = None) -> str:
        """That of `locales` which is asked for (`de-AT`, else `de`); empty for the file's own."""
        asked = locale if isinstance(locale, str) and self.locales else ""
        return next((name for name in (asked, asked.partition("-")[0]) if name in self.locales), "")

    def wording(self, locale: object = None) -> Wording:
        """The prompt in the language asked for, or as the file has it."""
        found = self.locales.get(self.language(locale)) or TranslationSpec()
        return Wording(found.instruction or self.instruction, found.context or self.context, found.item or self.item)


SourceSpec = Annotated[SourceKind, OneOf("sources")]
FilterSpec = Annotated[FilterKind, OneOf("filters")]
HeadSpec = Annotated[HeadKind, OneOf("heads")]
PolicySpec = Annotated[PolicyKind, OneOf("policies")]


class _Adviser:
    """Marks a word that must be the type of a source whose opinion leaves can carry."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """One of the sources that have a label, or what the others of the list say together."""
        named = kinds("sources").items()
        labelled = [name for name, kind in named if getattr(kind, "label", "")]
        return core_schema.literal_schema([*labelled, OVERALL])


class ReciprocalSpec(Strict):
    """The other side's interest: for the first candidates, the model is asked how they would answer to this member.

    Where the item of a candidate is a member, a probability that ranks becomes the mean of both directions. RECON
    takes the harmonic mean: L. Pizzato et al., "RECON: a reciprocal recommender for online dating", RecSys 2010.
    """

    top: int = Field(50, ge=1, le=200, description="Of so many candidates the other side is asked.")
    mean: Literal["harmonic", "product"] = Field("harmonic", description="How the two sides' probabilities become one.")


class FallbackSpec(Strict):
    """What a caller gets when the model does not answer in time."""

    deadline_ms: int = Field(
        500, ge=1, le=60_000, description="Milliseconds that the model has, unless the request gives others."
    )
    order: Annotated[tuple[str, ...], listed()] = Field((), description="Sources, best first; by default as listed.")


def _is_none(value: object) -> bool:
    """Of a key that came later: while it is not used, a surface keeps its version, and what was fitted to it."""
    return value is None


class SurfaceSpec(Hashed):
    """A surface file: what is ranked, from where, by which heads."""

    model_config = ConfigDict(defer_build=True)  # the kinds of other packages are looked up when a file is read

    surface: Name = Field(description="The surface's name: it stands in the address of its rankings.")
    description: Text = Field(description="What the surface ranks, in a line.")
    item_kind: Name = Field(description="The kind of item, as the ledger has it.")
    trunk: Name = Field("member", description="The trunk file that puts members into words.")
    adapter: Name | None = Field(
        None, exclude_if=_is_none, description="The adapter under which the model ranks; by default none."
    )
    locale: Locale = Field("en", description="The language of the file's own words.")
    prompt: PromptSpec = Field(description="What the model reads: the question, the context, each candidate.")
    sources: Annotated[tuple[SourceSpec, ...], listed(min_length=1, max_length=16)] = Field(
        description="Where candidates come from: the first stage of every ranking."
    )
    evidence: Annotated[tuple[Annotated[str, _Adviser()], ...], listed()] = Field(
        (),
        description="What a leaf tells of its candidate in words: these sources' opinions; overall is all of theirs.",
    )
    filters: Annotated[tuple[FilterSpec, ...], listed(max_length=16)] = Field(
        (), description="Which candidates may be ranked at all."
    )
    heads: Annotated[tuple[HeadSpec, ...], listed(min_length=1, max_length=32)] = Field(
        description="What the model answers of every candidate, and how much each answer counts."
    )
    reciprocal: ReciprocalSpec | None = Field(
        None, description="For surfaces where items are members: the other side is asked, too."
    )
    policies: Annotated[tuple[PolicySpec, ...], listed(max_length=16)] = Field(
        (), description="What happens to the order before a caller gets it, one after the other."
    )
    fallback: FallbackSpec = Field(
        default_factory=FallbackSpec, description="The deadline, and whose candidates count when it has passed."
    )
    routing: RoutingSpec = Field(
        default_factory=RoutingSpec, description="Which visits the model ranks; by default all of them."
    )
    experiment: ExperimentSpec | None = Field(
        None, description="Ways to rank that are tried against each other, on the members that the ledger knows."
    )

    @field_validator("sources")
    @classmethod
    def _names_once(cls, sources: tuple[SourceKind, ...]) -> tuple[SourceKind, ...]:
        twin = _twin([source.called for source in sources])
        if twin is not None:
            again = sources[twin]
            key = "name" if again.name else "type"
            raise wrong(f"'{again.called}' is listed twice; give one of the two another 'name'", twin, key)
        return sources

    @field_validator("filters", "policies")
    @classmethod
    def _single_once(cls, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        twin = _twin([entry.type if entry.single else str(place) for place, entry in enumerate(entries)])
        if twin is not None:
            raise wrong(f"'{entries[twin].type}' is listed twice; once is enough", twin, "type")
        return entries

    @field_validator("evidence")
    @classmethod
    def _evidence_once(cls, evidence: tuple[str, ...]) -> tuple[str, ...]:
        twin = _twin(evidence)
        if twin is not None:
            raise wrong(f"'{evidence[twin]}' is listed twice; once is enough", twin)
        if evidence == (OVERALL,):
            raise wrong(f"'{OVERALL}' is what the others say together; list those, too", 0)
        return evidence

    @field_validator("heads")
    @classmethod
    def _heads_agree(cls, heads: tuple[HeadKind, ...]) -> tuple[HeadKind, ...]:
        names = [head.name for head in heads]
        taken = {NONE, YES, NO}.union(*(head.words for head in heads))
        for index, head in enumerate(heads):
            if head.name in taken:
                raise wrong("is an answer of its own; give the head another name", index, "name")
            if head.single and head.type in [other.type for other in heads[:index]]:
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
        types = tuple(source.called for source in info.data.get("sources", ()))
        if not types:
            return fallback
        for index, name in enumerate(fallback.order):
            if name not in types:
                raise wrong(f"'{name}' is no source of this surface{suggest(name, types)}", "order", index)
        twin = _twin(fallback.order)
        if twin is not None:
            raise wrong(f"'{fallback.order[twin]}' is listed twice; once is enough", "order", twin)
        return fallback.model_copy(update={"order": fallback.order or types})

    @model_validator(mode="after")
    def _sides_apart(self) -> Self:
        names = [head.name for head in self.heads]
        for index, name in enumerate(names):
            if self.reciprocal and name.endswith(BACK) and name.removesuffix(BACK) in names:
                raise wrong("is what the other side's answer is called; rename the head", "heads", index, "name")
        return self

    @model_validator(mode="after")
    def _traffic_has_ways(self) -> Self:
        check_traffic(self.routing, self.experiment, [source.called for source in self.sources])
        return self

    @model_validator(mode="after")
    def _examples_answer(self) -> Self:
        known = (*self.answers, *((NONE,) if self.choices else ()))
        for index, example in enumerate(self.prompt.examples):
            if example.answer not in known:
                problem = f"'{example.answer}' is no answer of this surface{suggest(example.answer, known)}"
                raise wrong(problem, "prompt", "examples", index, "answer")
        return self

    @cached_property
    def choices(self) -> tuple[HeadKind, ...]:
        """The heads that share one softmax."""
        return tuple(head for head in self.heads if head.type == "choice")

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """All answer words: the choice heads' names and `none`, as far as there are such heads, then the others'."""
        choices = tuple(head.name for head in self.choices)
        others = (word for head in self.heads for word in head.words)
        return tuple(dict.fromkeys([*choices, *((NONE,) if choices else ()), *others]))

    @cached_property
    def likelihood(self) -> bool:
        """Whether a head asks how much the member makes a candidate's text more likely."""
        return any(head.likelihood for head in self.heads)

    @cached_property
    def reads_vectors(self) -> bool:
        """Whether a head or a policy works with the items' vectors."""
        return any(head.reads_vectors for head in self.heads) or any(each.reads_vectors for each in self.policies)

    @cached_property
    def unwanted(self) -> frozenset[str]:
        """Actions that only heads with a negative weight name: such an event is no choice of its item."""
        wanted = {action for head in self.heads if head.weight >= 0 for action in head.actions}
        return frozenset(action for head in self.heads for action in head.actions) - wanted


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


def _twin(words: Sequence[str]) -> int | None:
    """Where a word stands for the second time."""
    return next((index for index, word in enumerate(words) if word in words[:index]), None)
