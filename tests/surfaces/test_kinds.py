"""Kinds of other packages: installed beside prismrank, named in a surface file, as good as the shipped ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from surfaces.fields import Strict
from surfaces.filters.base import FilterKind
from surfaces.heads.base import HeadKind
from surfaces.kinds import FAMILIES, SHIPPED, Family, kinds
from surfaces.policies.base import PolicyKind
from surfaces.sources.base import SourceKind

ROOT = Path(__file__).parents[2]
BASES: dict[Family, type[Strict]] = {
    "sources": SourceKind, "filters": FilterKind, "heads": HeadKind, "policies": PolicyKind,
}  # fmt: skip

PACKAGE = '''
"""A source, a filter, a head and a policy of another package."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from surfaces.filters.base import FilterKind
from surfaces.heads.base import HeadKind
from surfaces.policies.base import PolicyKind
from surfaces.sources.base import SourceKind


class Alphabetical:
    def __init__(self, backwards):
        self.sign = 1.0 if backwards else -1.0
        self.scores_I = np.zeros(0)

    def fit(self, data):
        order = np.argsort(np.argsort(np.array(data.item_ids, dtype=object))) if data.item_ids else np.zeros(0)
        self.scores_I = self.sign * order.astype(np.float64)

    def scores(self, history_H, visit=None):
        return self.scores_I


class AlphabeticalSource(SourceKind):
    """Items by the alphabet."""

    label: ClassVar[str] = "alphabet"
    type: Literal["alphabetical"]
    backwards: bool = Field(False, description="From Z to A.")

    def build(self, materials):
        return Alphabetical(self.backwards)


class ShortFilter(FilterKind):
    """Keeps items with a short title."""

    single: ClassVar[bool] = True
    type: Literal["short"]
    letters: int = Field(6, ge=1, description="How many letters a title may have.")

    def test(self, visit):
        def short(item):
            title = item.attributes.get("title")
            return not isinstance(title, str) or len(title) <= self.letters
        return short


class CertainHead(HeadKind):
    """The square of yes against no."""

    type: Literal["certain"]

    @property
    def words(self):
        return ("sure", "unsure")

    def read(self, answers):
        sure, unsure = answers.logp["sure"], answers.logp["unsure"]
        return np.exp(2 * (sure - np.logaddexp(sure, unsure)))


class ReversedPolicy(PolicyKind):
    """The worst first."""

    type: Literal["reversed"]

    def apply(self, slate, visit, k):
        return list(slate)[::-1]
'''
ENTRY_POINTS = """
[prismrank.sources]
alphabetical = shelf:AlphabeticalSource
[prismrank.filters]
short = shelf:ShortFilter
[prismrank.heads]
certain = shelf:CertainHead
[prismrank.policies]
reversed = shelf:ReversedPolicy
"""
SURFACE = """\
surface: things
description: Things
item_kind: thing
prompt: {instruction: Things., item: "{{ title }}"}
evidence: [alphabetical]
sources: [{type: alphabetical, k: 3, backwards: true}]
filters: [short]
heads: [{name: like, type: certain, weight: 1}]
policies: [reversed]
"""


def install(folder: Path, name: str, entry_points: str, **modules: str) -> None:
    """A package as an installer leaves it."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


def run(folder: Path, script: str) -> tuple[Any, str]:
    """What a script prints as JSON where the folder's packages are installed, and what it logs."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "SURFACE": SURFACE}
    done = subprocess.run(
        [sys.executable, "-c", f"import json, os\nSURFACE = os.environ['SURFACE']\n{script}"],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    install(tmp_path / "site", "shelf", ENTRY_POINTS, shelf=PACKAGE)
    return tmp_path / "site"


@pytest.mark.parametrize("family", FAMILIES)
def test_shipped_kinds_are_of_their_family_under_their_own_names(family: Family) -> None:
    found = kinds(family)
    assert set(SHIPPED[family]) <= set(found)
    for name, kind in found.items():
        assert issubclass(kind, BASES[family])
        assert kind.model_json_schema()["properties"]["type"]["const"] == name
        assert kind.__doc__


RANKING = """
import numpy as np
from jsonschema import Draft7Validator
from surfaces.heads.reading import read_heads
from surfaces.ledger.records import Item
from surfaces.ledger.store import Ledger
from surfaces.policies.base import Entry
from surfaces.sources.base import Materials
from surfaces.sources.fit import fit_sources, interactions_of
from surfaces.spec_file import as_yaml, read_spec
from surfaces.spec_schema import surface_schema
from surfaces.visit import Visit
from surfaces.yaml_reader import read_yaml

spec = read_spec(SURFACE, "things.yaml").spec
schema = surface_schema()
titles = {"a": "Anna", "b": "Bert", "c": "Christopher", "d": "Dora", "e": "Emil"}
with Ledger.open("sqlite:///ledger.sqlite") as ledger:
    ledger.write(items=[Item(name, "thing", {"title": title}) for name, title in titles.items()])
    retrieval = fit_sources(Materials(spec, interactions_of(spec, ledger), ledger, None))
    visit = Visit(lookup=ledger.items)
    found = [candidate.item_id for candidate in retrieval.gather(visit)]
    said = [piece.text for piece in retrieval.evidence(visit, found, compress=False)]
reading = read_heads(spec, np.log([[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]]))
slate = [Entry(item_id, float(worth)) for item_id, worth in zip(found, reading.utility)]
shown = [entry.item_id for entry in spec.policies[0].build(None).apply(slate, visit, 2)]
print(json.dumps({
    "types": [entry.type for family in ("sources", "filters", "heads", "policies") for entry in getattr(spec, family)],
    "answers": spec.answers, "found": found, "said": said, "utility": reading.utility.tolist(), "shown": shown,
    "again": read_spec(as_yaml(spec), "again.yaml").spec == spec,
    "described": schema["definitions"]["AlphabeticalSource"]["properties"]["backwards"]["description"],
    "valid": Draft7Validator(schema).is_valid(read_yaml(SURFACE, "things.yaml").data),
    "short": [one["enum"] for one in schema["properties"]["filters"]["items"]["anyOf"] if "enum" in one],
}))
"""


def test_kinds_of_a_package_rank(shelf: Path) -> None:
    told, _ = run(shelf, RANKING)
    assert told["types"] == ["alphabetical", "short", "certain", "reversed"]
    assert told["answers"] == ["sure", "unsure"]
    assert told["found"] == ["e", "d", "b"], "backwards, and without Christopher"
    assert told["said"] == [" (alphabet top 5)", " (alphabet top 4)", " (alphabet top 2)"], (
        "the evidence is as it comes"
    )
    assert told["utility"] == pytest.approx([0.25, 0.5625, 0.0625])
    assert told["shown"] == ["b", "d", "e"]
    assert told["again"]
    assert told["described"] == "From Z to A."
    assert told["valid"]
    assert "short" in told["short"][0]


CONTRACTS = """
from hypothesis import settings
settings.register_profile("few", max_examples=20, deadline=None)
settings.load_profile("few")
from surfaces.kinds import kinds
from tests.contracts.test_filter_contract import check_filter
from tests.contracts.test_head_contract import check_head, make
from tests.contracts.test_policy_contract import check_policy, check_settings
from tests.contracts.test_source_contract import Bench, check_source

source = kinds("sources")["alphabetical"].model_validate({"type": "alphabetical", "k": 5})
check_source(Bench(lambda items: source.build(None)))
check_filter(kinds("filters")["short"].model_validate({"type": "short"}))
check_head(make({"type": "certain"}))
policy = kinds("policies")["reversed"].model_validate({"type": "reversed"})
check_settings(policy)
check_policy(policy.build(None), drops=policy.drops)
print(json.dumps("kept"))
"""


def test_kinds_of_a_package_can_be_held_to_the_contracts(shelf: Path) -> None:
    assert run(shelf, CONTRACTS)[0] == "kept"


NO_KINDS = """
[prismrank.sources]
popular = shelf:AlphabeticalSource
explodes = exploding:Source
exits = exiting:Source
missing = nowhere:Source
nameless = shelf:NoSuchSource
misnamed = shelf:AlphabeticalSource
function = loose:function
number = loose:number
plain = loose:Plain
of_another_family = shelf:ShortFilter
[prismrank.filters]
seen = loose:Seen
[prismrank.nonsense]
anything = loose:number
"""
LOOSE = """
from typing import Literal
from pydantic import BaseModel
from surfaces.filters.base import FilterKind

number = 3

def function():
    return None

class Plain(BaseModel):
    type: Literal["plain"]

class Seen(FilterKind):
    type: Literal["seen"]
"""
BESIDE = """
import logging
logging.basicConfig(level=logging.WARNING)
from prompts.errors import SpecError
from surfaces.kinds import SHIPPED, kinds
from surfaces.registry import Registry
from surfaces.spec_file import read_spec

def told(kind):
    try:
        read_spec(SURFACE.replace("type: alphabetical", f"type: {kind}"), "things.yaml")
    except SpecError as error:
        return str(error)
    return ""

print(json.dumps({
    "kinds": {family: sorted(kinds(family)) for family in SHIPPED},
    "shipped": {family: sorted(SHIPPED[family]) for family in SHIPPED},
    "popular": kinds("sources")["popular"].__module__, "seen": kinds("filters")["seen"].__module__,
    "surfaces": len(Registry.shipped().names()), "right": told("alphabetical"), "wrong": told("explodes"),
}))
"""


def test_a_package_that_is_broken_leaves_everything_else_as_it_is(shelf: Path) -> None:
    exploding = "raise RuntimeError('a broken package')"
    install(shelf, "loose", NO_KINDS, loose=LOOSE, exploding=exploding, exiting="import nothing_that_there_is")
    told, logged = run(shelf, BESIDE)
    more = {"sources": "alphabetical", "filters": "short", "heads": "certain", "policies": "reversed"}
    for family, own in more.items():
        assert told["kinds"][family] == sorted([*told["shipped"][family], own])
    assert told["popular"] == "surfaces.sources.popular"
    assert told["seen"] == "surfaces.filters.seen"
    assert told["surfaces"] >= 8
    assert told["right"] == ""
    assert told["wrong"].startswith(
        "things.yaml:6:18: sources[0].type: unknown value 'explodes'; known: alphabetical, "
    )
    names = ["explodes", "exits", "missing", "nameless", "misnamed", "function", "number", "plain", "of_another_family"]
    for name in names:
        assert f"prismrank.sources: the kind '{name}'" in logged
    assert "the kind 'misnamed' (shelf:AlphabeticalSource) cannot be used" in logged
    assert "prismrank.sources: the kind 'popular' (shelf:AlphabeticalSource)" in logged
    assert "prismrank.filters: the kind 'seen' (loose:Seen) is taken" in logged
    assert "a broken package" in logged
