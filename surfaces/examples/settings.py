"""How trees are made of a ledger."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ExampleSettings(BaseModel):
    """How many leaves a tree gets, and where; and how much of what it says is varied."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    positions: int = Field(12, ge=1, le=1024, description="Positions of a timeline where leaves hang.")
    likely: int = Field(24, ge=0, le=4096, description="Others at each choice, of those that the evidence favours.")
    others: int = Field(24, ge=1, le=4096, description="Others at each choice, of the rest.")
    shown: int = Field(24, ge=1, le=1024, description="Items of a slate, where the ledger has impressions.")
    slates: float = Field(0.5, ge=0, le=1, description="Share of positions that are slates, where there are any.")
    holdout: int = Field(2, ge=0, le=100, description="Last choices of each member that nothing is learned from.")
    event_dropout: float = Field(0.0, ge=0, lt=1, description="Share of a trunk's events that are left out at random.")
    evidence_dropout: float = Field(0.0, ge=0, lt=1, description="Share of trees in which a source is not heard.")
    without_evidence: float = Field(0.0, ge=0, le=1, description="Share of trees in which no source is heard.")
    new_items: float = Field(0.0, ge=0, lt=1, description="Share of leaves whose item is judged as if it were new.")
    attacked: float = Field(0.0, ge=0, lt=1, description="Share of leaves whose item has words that attack.")
    short_trunks: float = Field(0.0, ge=0, le=1, description="Share of trees whose trunk holds less than it could.")
    styles: int = Field(0, ge=0, le=64, description="Other ways to say what the surface says, beside its own.")
    plain: float = Field(0.5, ge=0, le=1, description="Share of trees that say it as the surface does.")
    field_dropout: float = Field(0.3, ge=0, lt=1, description="Share of styles that leave an attribute unsaid.")
    instructions: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Other instructions that mean the same, by surface."
    )
    words: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="Other words for actions, by action.")
    focus: str | None = Field(None, description="An attribute (a list) that the stem's context sometimes names.")
    focus_share: float = Field(0.0, ge=0, le=1, description="Share of positions whose stem names it.")
