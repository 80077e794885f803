"""The JSON Schema that editors read: valid draft 7, kept in step with the code, and of one mind with the reader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from prompts.errors import SpecError
from surfaces.included import Folder
from surfaces.kinds import FAMILIES, kinds
from surfaces.registry import shipped_folder
from surfaces.spec import SurfaceSpec, TrunkSpec
from surfaces.spec_file import SpecFile, as_yaml, read_spec
from surfaces.spec_schema import SURFACE_FILE, TRUNK_FILE, first_line, surface_schema, trunk_schema
from surfaces.yaml_reader import read_yaml

SCHEMAS = {SURFACE_FILE: surface_schema(), TRUNK_FILE: trunk_schema()}
COMMANDS = {SURFACE_FILE: "prismrank surface schema", TRUNK_FILE: "prismrank surface schema --trunk"}
SHIPPED = sorted(shipped_folder().glob("*.yaml"))

SURFACE = """\
surface: films
description: Films
item_kind: movie
prompt:
  instruction: Films.
  item: "{{ title }}"
sources:
  - {type: popular, k: 20}
heads:
  - {name: watch, type: pointwise, weight: 1.0}
"""
TRUNK = """\
trunk: viewer
description: A viewer
profile: "{{ name }}"
timeline: {events: {default: "{{ title }}"}}
"""

EVERYTHING = """\
surface: everything
description: {file: texts/description.txt}
item_kind: thing
trunk: viewer
locale: en-GB
prompt:
  instruction: {file: instruction.txt}
  context: {file: context.j2}
  item: {file: item.j2}
  detail: text
  examples:
    - {member: Likes tea, item: {title: Tea, price: 3, tags: [hot, {green: true}], none: null}, answer: buy}
    - {member: {file: instruction.txt}, item: {}, answer: none}
  locales:
    de: {instruction: Dinge., item: "{{ titel }}"}
    pt-BR: {context: {file: context.j2}}
sources:
  - {type: popular, k: 20, half_life: 14d, segment: town}
  - {type: popular, name: lately, k: 20, half_life: 3600}
  - {type: popular, name: just-now, k: 20, half_life: 0.5, weight: 2}
  - {type: co_visitation, k: 1}
  - {type: itemknn, k: 5, neighbours: 100, shrink: 0, weighting: tf-idf, decay: 1}
  - {type: ease, k: 5, l2: 500, decay: 0.8}
  - {type: slist, k: 5, l2: 100, decay: 0.5}
  - {type: sasrec, k: 5, dim: 32, layers: 1, dropout: 0.5, max_length: 50, epochs: 20, fewest: 100}
  - {type: als, k: 5, factors: 32, regularization: 10, alpha: 8, iterations: 10, decay: 0.5}
  - {type: embedding, k: 1000}
  - {type: bm25, k: 5, from: query}
  - {type: recent, k: 5, by: posted_at}
  - {type: request, k: 100}
  - {type: sql, k: 5, query: SELECT item_id FROM items}
  - {type: sql, name: filed, k: 5, query: {file: query.sql}}
evidence: [popular, co_visitation, itemknn, ease, als, slist, sasrec, bm25, embedding, recent, overall]
filters:
  - seen
  - available
  - blocked
  - {type: blocked, actions: [block, hide], by: author}
  - {type: where, keep: "item.price < 100 and item.town == member.town"}
heads:
  - {name: buy, type: choice, weight: 1, times: bid, calibration: {slope: 0.5, intercept: -1}}
  - {name: look, type: choice, actions: [look, click]}
  - {name: good, type: pointwise, weight: -0.5}
  - {name: fits, type: likelihood, weight: 0.1, calibration: {}}
  - {name: stars, type: value, weight: 0.2, answers: {one: 1, two: 2.5, 3x: 3}}
  - {name: near, type: embedding, weight: 0.3}
reciprocal: {top: 10, mean: product}
policies:
  - seen
  - {type: cap, by: shop, max: 2}
  - {type: diversity, strength: 0.2}
  - {type: freshness, by: posted_at, half_life: 2w, strength: 1}
  - {type: boost, where: item.local, strength: -0.5}
  - {type: pin, items: [a, b], position: 3}
  - {type: match, slots: 5, capacity: 5, candidates: 20}
  - {type: explore, rate: 0.1, every: 6h, seed: 3}
fallback: {deadline_ms: 250, order: [lately, popular]}
"""
FILES = {
    "texts/description.txt": "Everything there is\n", "instruction.txt": "Things.\n", "context.j2": "{{ query }}",
    "item.j2": "{{ title }}\n", "query.sql": "SELECT item_id FROM items",
}  # fmt: skip


def problems(text: str) -> list[str]:
    """What the schema has against a file."""
    data = read_yaml(text, "f.yaml").data
    trunk = isinstance(data, dict) and "trunk" in data and "surface" not in data
    schema = SCHEMAS[TRUNK_FILE if trunk else SURFACE_FILE]
    return [error.message for error in Draft7Validator(schema).iter_errors(data)]


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(inner)


@pytest.mark.parametrize("name", SCHEMAS)
def test_it_is_draft_7_and_whole(name: str) -> None:
    schema = SCHEMAS[name]
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    Draft7Validator.check_schema(schema)
    assert "$defs" not in schema
    refs = {node["$ref"] for node in nodes(schema) if isinstance(node.get("$ref"), str)}
    assert refs == {f"#/definitions/{name}" for name in schema["definitions"]}
    for node in nodes(schema):
        if isinstance(node.get("$ref"), str):
            assert set(node) == {"$ref"}, "draft 7 reads nothing beside a reference"
    json.dumps(schema, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "required"),
    [
        (SURFACE_FILE, {"surface", "description", "item_kind", "prompt", "sources", "heads"}),
        (TRUNK_FILE, {"trunk", "description", "profile", "timeline"}),
    ],
)
def test_every_mapping_is_closed_and_every_key_described(name: str, required: set[str]) -> None:
    schema = SCHEMAS[name]
    assert set(schema["required"]) == required
    for called, mapping in {name: schema, **schema["definitions"]}.items():
        assert mapping["additionalProperties"] is False
        assert mapping["description"], called
        bare = [key for key, value in mapping["properties"].items() if not value.get("description")]
        assert not bare, f"{called}: give {bare} a description"


def test_every_kind_and_every_key_of_it_is_there() -> None:
    definitions = SCHEMAS[SURFACE_FILE]["definitions"]
    assert set(SCHEMAS[SURFACE_FILE]["properties"]) == set(SurfaceSpec.model_fields)
    assert set(SCHEMAS[TRUNK_FILE]["properties"]) == set(TrunkSpec.model_fields)
    for family in FAMILIES:
        refs = {node["$ref"] for node in nodes(SCHEMAS[SURFACE_FILE]["properties"][family]) if "$ref" in node}
        assert refs == {f"#/definitions/{kind.__name__}" for kind in kinds(family).values()}
        for name, kind in kinds(family).items():
            told = definitions[kind.__name__]
            assert set(told["properties"]) == {field.alias or key for key, field in kind.model_fields.items()}
            assert told["properties"]["type"]["const"] == name
            assert told["properties"]["type"]["description"] == (kind.__doc__ or "").partition("\n\n")[0]


def test_what_a_key_is_when_it_is_left_out_stands_as_a_file_would_have_it() -> None:
    assert SCHEMAS[SURFACE_FILE]["definitions"]["ExplorePolicy"]["properties"]["every"]["default"] == "1d"
    for schema in SCHEMAS.values():
        for mapping in (schema, *schema["definitions"].values()):
            for key, value in mapping["properties"].items():
                within = {**value, "definitions": schema["definitions"]}
                assert "default" not in value or Draft7Validator(within).is_valid(value["default"]), key


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_file_in_the_repository_is_what_the_code_says(name: str) -> None:
    path = shipped_folder() / name
    told = json.dumps(SCHEMAS[name], indent=2) + "\n"
    how = f"run '{COMMANDS[name]} > surfaces/plugins/{name}', with no package installed that brings kinds of its own"
    assert path.is_file(), how
    assert path.read_text(encoding="utf-8") == told, how


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_name_their_schema_and_follow_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    file = read_spec(text, path.name)
    assert text.startswith(first_line(SURFACE_FILE if isinstance(file.spec, SurfaceSpec) else TRUNK_FILE))
    assert problems(text) == []
    assert problems(as_yaml(file.spec)) == []
    assert path.stem == file.name


@pytest.fixture
def everything(tmp_path: Path) -> SpecFile:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return read_spec(EVERYTHING, "everything.yaml", Folder(tmp_path))


def test_a_file_that_says_everything_is_right_for_both(everything: SpecFile) -> None:
    spec = everything.spec
    assert isinstance(spec, SurfaceSpec)
    for family in FAMILIES:
        assert {entry.type for entry in getattr(spec, family)} == set(kinds(family)), f"a kind of {family} is missing"
    assert problems(EVERYTHING) == []


def test_a_spec_that_is_written_out_is_right_for_both(everything: SpecFile) -> None:
    text = as_yaml(everything.spec)
    assert read_spec(text, "again.yaml").spec == everything.spec
    assert problems(text) == []


@pytest.mark.parametrize(
    ("right", "other"),
    [
        ("{type: popular, k: 20}", "{type: popular, k: 20, half_life: null}"),
        ("{type: popular, k: 20}", "{type: popular, k: 20, half_life: 999999w}"),
        ("{type: popular, k: 20}", "{type: popular, k: 20, weight: 0.5}"),
        ("weight: 1.0", "weight: 1"),
        ("heads:", "filters: []\nheads:"),
        ("heads:", "filters: [seen]\nheads:"),
        ("heads:", "filters: [{type: seen, within: 30d}, available]\nheads:"),
        ("heads:", "policies: [seen]\nheads:"),
        ("heads:", "reciprocal: null\nheads:"),
        ("heads:", "reciprocal: {}\nheads:"),
        ("heads:", "fallback: {}\nheads:"),
        ("Films.", "'Ünïcode, 日本語'"),
    ],
)
def test_what_the_reader_accepts_the_schema_accepts(right: str, other: str) -> None:
    text = SURFACE.replace(right, other, 1)
    assert text != SURFACE
    read_spec(text, "f.yaml")
    assert problems(text) == []


WRONG = [
    ("item_kind: movie\n", ""),
    ("surface: films", "surface: Films"),
    ("surface: films", "surface: 3"),
    ("item_kind", "item_knd"),
    ("Films.", "3"),
    ("Films.", "[a]"),
    ("Films.", "{fil: x}"),
    ("Films.", "{file: x, more: y}"),
    ("Films.", "null"),
    ('"{{ title }}"', "true"),
    ("  item:", "  itm:"),
    ("  item:", "  detail: vectors\n  item:"),
    ("  item:", "  locales: {german: {}}\n  item:"),
    ("  item:", "  locales: {de: {instrction: x}}\n  item:"),
    ("  item:", "  examples: [{member: x, item: {}}]\n  item:"),
    ("  item:", "  examples: {member: x}\n  item:"),
    ("sources:\n  - {type: popular, k: 20}", "sources: []"),
    ("sources:\n  - {type: popular, k: 20}", "sources: popular"),
    ("- {type: popular, k: 20}", "- popular"),
    ("popular", "populr"),
    ("popular", "3"),
    ("type: popular, ", ""),
    (", k: 20", ""),
    ("k: 20", "k: '20'"),
    ("k: 20", "k: 2.5"),
    ("k: 20", "k: 0"),
    ("k: 20", "k: 1001"),
    ("k: 20", "k: true"),
    ("k: 20", "k: 20, kk: 1"),
    ("k: 20", "k: 20, half_life: 14 days"),
    ("k: 20", "k: 20, half_life: 0d"),
    ("k: 20", "k: 20, half_life: 1234567d"),
    ("k: 20", "k: 20, half_life: 14D"),
    ("k: 20", "k: 20, half_life: -3"),
    ("k: 20", "k: 20, half_life: 0"),
    ("k: 20", "k: 20, half_life: true"),
    ("heads:", "evidence: [request]\nheads:"),
    ("heads:", "evidence: popular\nheads:"),
    ("heads:", "filters: [where]\nheads:"),
    ("heads:", "filters: [seeen]\nheads:"),
    ("heads:", "filters: seen\nheads:"),
    ("heads:", "filters: [{type: where, keep: 3}]\nheads:"),
    ("heads:", "policies: [cap]\nheads:"),
    ("heads:", "policies: [{type: cap, by: x, max: 0}]\nheads:"),
    ("heads:", "policies: [{type: explore, rate: 2}]\nheads:"),
    ("heads:", "reciprocal: {mean: geometric}\nheads:"),
    ("heads:", "fallback: {order: popular}\nheads:"),
    ("heads:", "fallback: 500\nheads:"),
    ("name: watch, ", ""),
    ("name: watch", "name: wa tch"),
    ("pointwise", "pointwse"),
    ("weight: 1.0", "weight: '1'"),
    ("weight: 1.0", "weight: 1e9"),
    ("weight: 1.0", "weight: 1, actions: []"),
    ("weight: 1.0", "weight: 1, actions: watch"),
    ("weight: 1.0", "weight: 1, calibration: {slope: 0}"),
    ("pointwise, weight: 1.0", "value, weight: 1, answers: {one: 1}"),
    ("pointwise, weight: 1.0", "value, weight: 1, answers: {one: 1, TWO: 2}"),
    ("pointwise, weight: 1.0", "value, weight: 1, answers: [1, 2]"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "other"), WRONG)
def test_what_the_reader_refuses_for_its_keys_and_types_the_schema_refuses(right: str, other: str) -> None:
    text = SURFACE.replace(right, other, 1)
    assert text != SURFACE
    with pytest.raises(SpecError):
        read_spec(text, "f.yaml")
    assert problems(text)


@pytest.mark.parametrize(
    ("right", "other"),
    [
        ("trunk: viewer", "trunk: Viewer"),
        ("profile:", "profil:"),
        ("default", "Default"),
        ("default:", "default: 3, other:"),
        ("timeline: {", "timeline: {budget: 3, "),
        ("timeline: {", "timeline: {detail: vectors, "),
        ("timeline:", "actions: {Like it: liked}\ntimeline:"),
        ("timeline:", "actions: {like: 3}\ntimeline:"),
        ("timeline:", "actions: [like]\ntimeline:"),
    ],
)
def test_trunk_files_likewise(right: str, other: str) -> None:
    assert problems(TRUNK) == []
    text = TRUNK.replace(right, other, 1)
    assert text != TRUNK
    with pytest.raises(SpecError):
        read_spec(text, "f.yaml")
    assert problems(text)
