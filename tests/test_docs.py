"""The page on surfaces knows every kind and every key, the page on evaluation every method and figure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from surfaces.evaluation.suite import PROTOCOLS, names
from surfaces.evidence import labels
from surfaces.kinds import FAMILIES, SHIPPED, Family, kinds
from surfaces.spec import PromptSpec, SurfaceSpec

PAGE = Path(__file__).parents[1] / "docs" / "surfaces.md"
TEXT = PAGE.read_text(encoding="utf-8")
CODE = " ".join(re.findall(r"`([^`]*)`", TEXT) + re.findall(r"(?m)^    (.*)$", TEXT))
WORDS = set(re.findall(r"[a-z_][a-z0-9_]*", CODE))


@pytest.mark.parametrize(("family", "name"), [(family, name) for family in FAMILIES for name in SHIPPED[family]])
def test_every_kind_and_every_key_of_it_is_explained(family: Family, name: str) -> None:
    assert f"| `{name}` |" in TEXT
    keys = {field.alias or key for key, field in kinds(family)[name].model_fields.items()}
    assert keys <= WORDS, f"{sorted(keys - WORDS)} of {name} are not in {PAGE.name}"


def test_every_key_of_a_surface_file_is_explained() -> None:
    assert set(SurfaceSpec.model_fields) | set(PromptSpec.model_fields) <= WORDS


def test_every_evidence_is_shown_in_its_words() -> None:
    for name, label in labels().items():
        assert f"| `{name}` | `{label} top " in TEXT


@pytest.mark.parametrize("page", sorted(PAGE.parent.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def test_every_method_is_explained() -> None:
    text = (PAGE.parent / "evaluation.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in (*names(model=True), *PROTOCOLS))
