"""Surfaces that change while they are served: by file, by PUT, back again; what is wrong changes nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serve.live import HISTORY, Live
from serve.server import bind, serving
from serve.services import Services
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry, shipped_folder
from tests.serve.conftest import Client, Controlled, Reply

EVENING = """\
surface: evening
description: Films for a family evening
item_kind: movie
prompt:
  instruction: A film for the whole family, tonight.
  item: "{{ title }} {{ genres | join(', ') }}"
sources: [{type: popular, k: 20}]
heads: [{name: watch, type: pointwise, weight: 1.0}]
"""
SHORTER = EVENING.replace("k: 20", "k: 5")
WRONG = EVENING.replace("k: 20", "kk: 20")
VIEWER = """\
trunk: viewer
description: A viewer
profile: "Viewer."
timeline: {budget: 64, step: 8, events: {default: "{{ action }} {{ title }}"}}
"""
LONG = 20_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder of surfaces."""
    path = tmp_path / "surfaces"
    path.mkdir()
    return path


@pytest.fixture
def live(ledger: Ledger, engine: Controlled, folder: Path) -> Live:
    """Living surfaces over an empty folder, looked at by hand."""
    return Live(Services.open(ledger, engine, Registry.shipped()), folder)


@pytest.fixture
def living(ledger: Ledger, engine: Controlled, folder: Path) -> Iterator[Client]:
    """A client to a server that follows the folder."""
    services = Services.open(ledger, engine, Registry.load([shipped_folder(), folder]))
    with bind("127.0.0.1", 0) as bound, serving(services, bound, folder) as url:
        client = Client(url, services)
        client.until_ready()
        yield client


def put(client: Client, text: str, name: str = "evening") -> Reply:
    return client.ask("PUT", f"/v1/surfaces/{name}", text.encode(), content_type="application/yaml")


def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


def test_a_file_that_is_dropped_in_serves_and_one_that_is_taken_away_does_not(live: Live, folder: Path) -> None:
    path = folder / "evening.yaml"
    path.write_text(EVENING, encoding="utf-8")
    assert live.scan() == ["evening"]
    assert live.services.surface("evening").spec.sources[0].k == 20
    assert live.scan() == [], "nothing changed"
    path.write_text(SHORTER, encoding="utf-8")
    assert live.scan() == ["evening"]
    assert live.services.surface("evening").spec.sources[0].k == 5
    path.unlink()
    assert live.scan() == ["evening"]
    assert "evening" not in live.services.surface_names()


def test_a_wrong_file_is_told_and_the_former_version_goes_on(live: Live, folder: Path) -> None:
    path = folder / "evening.yaml"
    path.write_text(EVENING, encoding="utf-8")
    live.scan()
    before = live.services.surface("evening")
    path.write_text(WRONG, encoding="utf-8")
    assert live.scan() == []
    assert live.services.surface("evening") is before
    assert live.problems["evening.yaml"] == "evening.yaml:7:27: sources[0].kk: unknown key; did you mean 'k'?"
    path.write_text(EVENING, encoding="utf-8")
    live.scan()
    assert live.problems == {}
    assert live.services.surface("evening") is before


def test_a_wrong_file_does_not_keep_others_out(live: Live, folder: Path) -> None:
    (folder / "a.yaml").write_text("surface: [", encoding="utf-8")
    (folder / "b.yaml").write_text(EVENING, encoding="utf-8")
    (folder / "c.yaml").write_bytes(b"\xff\xfe")
    assert live.scan() == ["evening"]
    assert set(live.problems) == {"a.yaml", "c.yaml"}


def test_a_surface_and_the_trunk_that_it_names_may_come_together(live: Live, folder: Path) -> None:
    (folder / "a.yaml").write_text(EVENING + "trunk: viewer\n", encoding="utf-8")
    (folder / "b.yaml").write_text(VIEWER, encoding="utf-8")
    assert live.scan() == ["evening"]
    assert live.problems == {}
    before = live.services.surface("evening")
    (folder / "b.yaml").write_text(VIEWER.replace("Viewer.", "A viewer."), encoding="utf-8")
    assert live.scan() == ["evening"], "a trunk is part of what a surface is"
    assert live.services.surface("evening").version != before.version


def test_a_shipped_surface_comes_back_when_its_replacement_goes(live: Live, folder: Path) -> None:
    shipped = live.services.surface("movies").version
    (folder / "mine.yaml").write_text(EVENING.replace("surface: evening", "surface: movies"), encoding="utf-8")
    assert live.scan() == ["movies"]
    assert live.services.surface("movies").version != shipped
    (folder / "mine.yaml").unlink()
    live.scan()
    assert live.services.surface("movies").version == shipped


def test_a_file_may_take_another_name(live: Live, folder: Path) -> None:
    path = folder / "mine.yaml"
    path.write_text(EVENING, encoding="utf-8")
    live.scan()
    path.write_text(EVENING.replace("surface: evening", "surface: morning"), encoding="utf-8")
    assert set(live.scan()) == {"morning", "evening"}
    assert "evening" not in live.services.surface_names()
    assert "morning" in live.services.surface_names()


def test_two_files_with_one_name_are_refused(live: Live, folder: Path) -> None:
    (folder / "a.yaml").write_text(EVENING, encoding="utf-8")
    (folder / "b.yaml").write_text(SHORTER, encoding="utf-8")
    live.scan()
    assert live.services.surface("evening").spec.sources[0].k == 20
    assert "also declared in" in live.problems["b.yaml"]


def test_a_text_beside_the_file_is_part_of_the_surface(live: Live, folder: Path) -> None:
    (folder / "evening.yaml").write_text(
        EVENING.replace("A film for the whole family, tonight.", "{file: texts/tonight.txt}"), encoding="utf-8"
    )
    (folder / "texts").mkdir()
    (folder / "texts" / "tonight.txt").write_text("Tonight, one film.\n", encoding="utf-8")
    assert live.scan() == ["evening"]
    assert live.services.surface("evening").spec.prompt.instruction == "Tonight, one film."
    first = live.services.surface("evening").version
    (folder / "texts" / "tonight.txt").write_text("Another.\n", encoding="utf-8")
    assert live.scan() == ["evening"]
    assert live.roll_back("evening", first).spec.prompt.instruction == "Tonight, one film."


def test_put_brings_a_surface_online_without_a_restart(living: Client, folder: Path) -> None:
    assert living.ask("GET", "/v1/surfaces/evening").status == 404
    reply = put(living, EVENING)
    assert reply.status == 201, reply.text
    version = reply.json["version"]
    ranked = living.rank("evening", member_id="m1", k=20, deadline_ms=LONG)
    assert (ranked.status, ranked.json["surface_version"], ranked.json["degraded"]) == (200, version, False)
    assert len(ranked.json["slate"]) == 20
    assert (folder / "evening.yaml").read_text(encoding="utf-8") == EVENING
    again = put(living, SHORTER)
    assert (again.status, again.json["version"] != version) == (200, True)
    shorter = living.rank("evening", member_id="m1", k=20, deadline_ms=LONG)
    assert (len(shorter.json["slate"]), shorter.json["surface_version"]) == (5, again.json["version"])
    told = living.ask("GET", "/v1/surfaces/evening")
    assert told.json["text"] == SHORTER


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (WRONG, "evening.yaml:7:27: sources[0].kk: unknown key; did you mean 'k'?"),
        (EVENING.replace("evening\n", "morning\n", 1), "evening.yaml:1:10: surface: the file declares 'morning'"),
        (VIEWER, "evening.yaml:1:1: a surface file begins with 'surface: NAME'"),
        ("a: &a [*a]", "evening.yaml:1:4: an anchor"),
        (EVENING + "trunk: nobody\n", "evening.yaml:9:8: trunk: no trunk is called 'nobody'"),
        (EVENING.replace("A film for the whole family, tonight.", "{file: /etc/passwd}"), "evening.yaml:5:"),
        ("", "evening.yaml:1:1: the file is empty"),
    ],
)
def test_a_wrong_put_is_refused_with_its_place_and_changes_nothing(
    living: Client, folder: Path, text: str, problem: str
) -> None:
    put(living, SHORTER)
    before = living.ask("GET", "/v1/surfaces/evening").text
    reply = put(living, text)
    assert reply.status == 422, reply.text
    assert reply.json["detail"].startswith(problem)
    assert reply.json["errors"][0]["detail"].startswith(problem)
    assert living.ask("GET", "/v1/surfaces/evening").text == before
    assert (folder / "evening.yaml").read_text(encoding="utf-8") == SHORTER
    assert "root:" not in reply.text


def test_bodies_that_are_no_text_or_too_large(living: Client) -> None:
    assert put(living, "x" * (3 << 20)).status == 413
    reply = living.ask("PUT", "/v1/surfaces/evening", b"\xff\xfe", content_type="application/yaml")
    assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")


def test_versions_and_the_way_back(living: Client, folder: Path) -> None:
    first, second = put(living, EVENING).json["version"], put(living, SHORTER).json["version"]
    listed = living.ask("GET", "/v1/surfaces/evening/versions").json
    assert [(one["version"], one["current"]) for one in listed["versions"]] == [(second, True), (first, False)]
    back = living.ask("POST", "/v1/surfaces/evening/rollback", {"version": first})
    assert (back.status, back.json["version"]) == (200, first)
    assert living.rank("evening", member_id="m1", deadline_ms=LONG).json["surface_version"] == first
    assert (folder / "evening.yaml").read_text(encoding="utf-8") == EVENING
    assert living.ask("POST", "/v1/surfaces/evening/rollback", {"version": "nothing"}).status == 404
    assert living.ask("GET", "/v1/surfaces/nothing/versions").status == 404
    assert living.ask("GET", "/v1/surfaces/..%2F..%2Fetc/versions").status == 404


def test_versions_outlive_the_server(live: Live, folder: Path) -> None:
    first = live.put("evening", EVENING).version
    live.put("evening", SHORTER)
    services = Services.open(live.services.ledger, live.services.engine, Registry.load([shipped_folder(), folder]))
    anew = Live(services, folder)
    assert {one.version for one in anew.versions("evening")} >= {first}
    assert anew.roll_back("evening", first).spec.sources[0].k == 20
    assert (folder / HISTORY / "evening" / f"{first}.yaml").read_text(encoding="utf-8") == EVENING


def test_without_a_folder_changes_live_in_memory(client: Client) -> None:
    first = put(client, EVENING).json["version"]
    put(client, SHORTER)
    assert client.ask("POST", "/v1/surfaces/evening/rollback", {"version": first}).json["version"] == first
    assert client.ask("DELETE", "/v1/surfaces/evening").status == 204
    assert client.ask("GET", "/v1/surfaces/evening").status == 404


def test_delete_takes_the_file_away_and_leaves_shipped_ones(living: Client, folder: Path) -> None:
    put(living, EVENING)
    assert living.ask("DELETE", "/v1/surfaces/evening").status == 204
    assert not (folder / "evening.yaml").exists()
    assert living.ask("DELETE", "/v1/surfaces/evening").status == 404
    refused = living.ask("DELETE", "/v1/surfaces/movies")
    assert (refused.status, "comes with the package" in refused.json["detail"]) == (409, True)
    put(living, EVENING.replace("surface: evening", "surface: movies"), "movies")
    assert living.ask("DELETE", "/v1/surfaces/movies").status == 204
    assert living.ask("GET", "/v1/surfaces/movies").status == 200, "the shipped one is back"


def test_a_server_follows_its_folder(living: Client, folder: Path) -> None:
    (folder / "evening.yaml").write_text(EVENING, encoding="utf-8")
    until(lambda: living.rank("evening", member_id="m1", deadline_ms=LONG).status == 200)
    (folder / "evening.yaml").write_text(WRONG, encoding="utf-8")
    until(lambda: "evening.yaml" in living.ask("GET", "/v1/surfaces").json["problems"])
    assert living.rank("evening", member_id="m1", deadline_ms=LONG).status == 200


def test_every_reply_names_one_version_while_surfaces_change(living: Client) -> None:
    versions = {put(living, text).json["version"]: size for text, size in ((EVENING, 20), (SHORTER, 5))}
    replies: list[Reply] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            replies.append(living.rank("evening", member_id="m1", k=40, deadline_ms=LONG))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(12):
        put(living, (EVENING, SHORTER)[n % 2])
    done.set()
    for thread in threads:
        thread.join()
    assert len(replies) > 5
    for reply in replies:
        assert reply.status == 200
        assert len(reply.json["slate"]) == versions[reply.json["surface_version"]]


def test_preview_tells_what_the_model_reads(living: Client) -> None:
    reply = living.ask("POST", "/v1/surfaces/movies/preview", {"member_id": "m1", "context": {"genres": ["Comedy"]}})
    assert reply.status == 200, reply.text
    told = reply.json
    assert told["trunk"][0]["text"].startswith("Member. 21 F artist")
    assert "Only Comedy." in "".join(piece["text"] for piece in told["stem"])
    pieces = [*told["trunk"], *told["stem"], *(piece for leaf in told["leaves"] for piece in leaf["pieces"])]
    assert told["slots"] == sum(piece["slots"] for piece in pieces)
    assert told["events"] == told["events_told"] == 6
    assert living.ask("POST", "/v1/surfaces/movies/preview", {"member_id": "nobody"}).status == 404
