"""Limits: what they stop, what they are called, and where they are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prompts.errors import ConfigError
from serve.cli import main
from serve.services import Services
from serve.settings import Settings
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from tests.serve.conftest import Client, Controlled, served

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"
SMALL = Settings(max_body_bytes=1_024, max_depth=6, max_candidates=3, max_timeline=2, max_rows=2)
LIKE = {"member_id": "m1", "item_id": "f3", "surface": "movies", "action": "like", "timestamp": 1.0}


@pytest.fixture
def small(ledger: Ledger, engine: Controlled) -> Iterator[Client]:
    with served(Services.open(ledger, engine, Registry.shipped(), settings=SMALL)) as client:
        client.until_ready()
        yield client


def nested(depth: int) -> object:
    return [] if depth == 0 else [nested(depth - 1)]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("surfaces/movies/rank", {"member_id": "m1", "context": {"a": nested(3)}}, 200, ""),
        ("surfaces/movies/rank", {"member_id": "m1", "context": {"a": nested(4)}}, 400, "at most 6 lists"),
        ("surfaces/movies/rank", {"member_id": "m1", "candidates": ["f1", "f2", "f3"]}, 200, ""),
        ("surfaces/movies/rank", {"member_id": "m1", "candidates": ["f1", "f2", "f3", "f4"]}, 422, "max_candidates"),
        ("surfaces/movies/rank", {"member": {"timeline": [{}] * 3}}, 422, "#/member/timeline: should have at most 2"),
        ("surfaces/movies/rank", {"member_id": "m1", "context": {"a": "b" * 1_024}}, 413, "max_body_bytes"),
        ("events", {"events": [LIKE] * 2}, 200, ""),
        ("events", {"events": [LIKE] * 3}, 422, "max_rows"),
    ],
)
def test_a_limit_stops_what_is_beyond_it_and_says_its_name(
    small: Client, path: str, body: object, status: int, words: str
) -> None:
    reply = small.ask("POST", f"/v1/{path}", body)
    assert reply.status == status, reply.text
    assert words in reply.text


def test_of_a_long_history_the_newest_events_are_read(small: Client) -> None:
    for item in ("f1", "f2", "f3", "f4"):
        assert small.ask("POST", "/v1/events", {"events": [{**LIKE, "item_id": item}]}).status == 200
    told = small.ask("POST", "/v1/surfaces/movies/preview", {"member_id": "m1", "candidates": ["f5"]}).json
    assert told["events"] == SMALL.max_timeline


def test_the_table_of_limits_is_that_of_the_settings() -> None:
    rows = [line.split("|") for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| `")]
    told = {row[1].strip().strip("`"): row[2].strip().replace(",", "") for row in rows}
    known = {
        name: f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert {name: told.get(name) for name in known} == known


def test_settings_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text("max_candidates: 50\ngather_ms: 0.5\n")
    assert Settings.load(file) == Settings(max_candidates=50, gather_ms=0.5)
    file.write_text("")
    assert Settings.load(file) == Settings()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("max_candidate: 5", "max_candidate: .*known: max_head_bytes"),
        ("max_candidates: 0", "max_candidates: .*greater than or equal to 1"),
        ("max_candidates: many", "max_candidates: .*integer"),
        ("- 1", "settings: "),
        ("{", "it is no YAML"),
        ("a: 1\na: 2", "it is no YAML"),
    ],
)
def test_what_is_no_setting_is_told(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=why):
        Settings.load(file)


def test_serve_tells_of_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--ledger", f"sqlite:///{tmp_path}/a.sqlite", "--settings", str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml: No such file" in capsys.readouterr().err
