"""The main road: a request over HTTP, a slate back."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from serve.batcher import Limits
from serve.services import Services
from surfaces.heads.reading import read_heads
from surfaces.ledger.records import Event, Item
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from tests.serve.conftest import Client, Controlled, Reply, served

LONG = 20_000
"""A deadline (ms) that does not pass."""


def ids(count: int) -> list[str]:
    return [f"f{n}" for n in range(count)]


def utilities(reply: Reply) -> dict[str, float]:
    return {entry["item_id"]: entry["utility"] for entry in reply.json["slate"]}


def assert_a_whole_slate(reply: Reply, k: int) -> None:
    assert reply.status == 200, reply.json
    slate = reply.json["slate"]
    assert [entry["rank"] for entry in slate] == list(range(1, k + 1))
    assert len(set(reply.item_ids)) == k


def test_a_member_of_the_ledger_gets_a_slate_by_the_model(client: Client) -> None:
    reply = client.rank(member_id="m1", k=5, deadline_ms=LONG)
    assert_a_whole_slate(reply, 5)
    body = reply.json
    surface = client.services.surface("movies")
    assert set(body) == {"surface", "slate", "degraded", "route", "model", "surface_version", "shares", "timing_ms"}
    assert (body["surface"], body["degraded"], body["surface_version"]) == ("movies", False, surface.version)
    assert body["route"] == "foundation"
    assert body["model"] == client.services.engine.model_version
    assert set(body["timing_ms"]) == {"retrieve", "compose", "queue", "score", "total"}
    assert all(ms > 0 for ms in body["timing_ms"].values())
    for entry in body["slate"]:
        assert set(entry) == {"item_id", "rank", "utility", "heads", "sources"}
        assert set(entry["heads"]) == {head.name for head in surface.spec.heads}
        assert all(0 <= p <= 1 for p in entry["heads"].values())
        assert set(entry["sources"]) <= {"popular", "co_visitation", "embedding"}
        assert entry["sources"]


def test_the_slate_is_in_the_order_of_utility(client: Client) -> None:
    slate = client.rank(member_id="m1", k=30, deadline_ms=LONG).json["slate"]
    utilities = [entry["utility"] for entry in slate]
    assert utilities == sorted(utilities, reverse=True)
    heads = client.services.surface("movies").spec.heads
    for entry in slate:
        assert entry["utility"] == pytest.approx(sum(head.weight * entry["heads"][head.name] for head in heads))


def test_seen_items_are_not_retrieved(client: Client, ledger: Ledger) -> None:
    seen = {event.item_id for event in ledger.timeline("m1")}
    retrieved = client.rank(member_id="m1", k=1000, deadline_ms=LONG).item_ids
    assert set(retrieved) == set(ids(40)) - seen


def test_given_candidates_are_all_ranked_seen_or_not(client: Client, ledger: Ledger) -> None:
    seen = [event.item_id for event in ledger.timeline("m1")]
    reply = client.rank(member_id="m1", candidates=seen, k=100, deadline_ms=LONG)
    assert_a_whole_slate(reply, len(seen))
    assert set(reply.item_ids) == set(seen)
    assert all(entry["sources"] == ["request"] for entry in reply.json["slate"])


def test_the_scores_are_those_of_the_tree_that_explain_shows(client: Client, services: Services) -> None:
    reply = client.rank(member_id="m2", candidates=ids(8), k=8, explain=True, deadline_ms=LONG)
    told = reply.json["explain"]
    assert set(told["leaves"]) == set(ids(8))
    assert "Film 3" in told["leaves"]["f3"]
    assert len(told["trunk"]) == 1 + 6
    assert any("liked" in line for line in told["trunk"])
    assert services.surface("movies").spec.prompt.instruction in told["stem"][0]


def test_order_and_company_do_not_change_a_score(client: Client) -> None:
    together = client.rank(member_id="m3", candidates=ids(30), k=30, deadline_ms=LONG).json["slate"]
    shuffled = [f"f{n}" for n in np.random.default_rng(0).permutation(30)]
    again = client.rank(member_id="m3", candidates=shuffled, k=30, deadline_ms=LONG).json["slate"]
    expected = {entry["item_id"]: entry["utility"] for entry in together}
    assert len({round(utility, 6) for utility in expected.values()}) > 5, "the scores tell items apart"
    for entry in again:
        assert entry["utility"] == pytest.approx(expected[entry["item_id"]], abs=1e-5)
    for name in ("f0", "f17"):
        alone = client.rank(member_id="m3", candidates=[name], deadline_ms=LONG).json["slate"]
        assert alone[0]["utility"] == pytest.approx(expected[name], abs=1e-5)


def test_a_member_told_in_the_request_is_ranked_as_the_same_member_of_the_ledger(
    client: Client, ledger: Ledger
) -> None:
    timeline = [
        {"item_id": event.item_id, "action": event.action, "timestamp": event.timestamp, "surface": event.surface}
        for event in ledger.timeline("m4")
    ]
    told = {"profile": dict(ledger.member("m4").profile), "timeline": timeline}
    inline = client.rank(member=told, k=20, deadline_ms=LONG).json["slate"]
    known = client.rank(member_id="m4", k=20, deadline_ms=LONG).json["slate"]
    assert [entry["item_id"] for entry in inline] == [entry["item_id"] for entry in known]
    for mine, theirs in zip(inline, known, strict=True):
        assert mine["utility"] == pytest.approx(theirs["utility"], abs=1e-5)


def test_everything_can_be_told_in_the_request(client: Client) -> None:
    event = {"item_id": "x9", "action": "like", "item": {"title": "An unknown film", "genres": ["Opera"]}}
    candidates = [
        {"item_id": "x1", "title": "Another film", "year": 2020, "genres": ["Opera"]},
        {"item_id": "f1", "title": "A film under another title"},
        "f2",
    ]
    reply = client.rank(member={"timeline": [event]}, candidates=candidates, explain=True, deadline_ms=LONG)
    assert_a_whole_slate(reply, 3)
    told = reply.json["explain"]
    assert "liked An unknown film Opera" in told["trunk"][1]
    assert "Another film (2020) Opera" in told["leaves"]["x1"]
    assert "another title" in told["leaves"]["f1"]
    assert "Film 2" in told["leaves"]["f2"]


@pytest.mark.parametrize("body", [{"member_id": "new"}, {"member": {}}])
def test_a_newcomer_gets_a_slate(client: Client, body: dict[str, Any]) -> None:
    assert_a_whole_slate(client.rank(**body, k=10, deadline_ms=LONG), 10)


def test_a_member_who_saw_everything_gets_an_empty_slate(client: Client, ledger: Ledger) -> None:
    ledger.add_events(Event("new", name, "movies", "watch", 1.0) for name in ids(40))
    reply = client.rank(member_id="new", deadline_ms=LONG)
    assert (reply.status, reply.json["slate"], reply.json["degraded"]) == (200, [], False)


def test_impressions_are_neither_seen_nor_in_the_trunk(client: Client, ledger: Ledger) -> None:
    ledger.add_events([Event("new", "f0", "movies", "show", 1.0)])
    reply = client.rank(member_id="new", k=1000, explain=True, deadline_ms=LONG)
    assert "f0" in reply.item_ids
    assert len(reply.json["explain"]["trunk"]) == 1


def test_new_events_count_at_the_next_request(client: Client, ledger: Ledger) -> None:
    first = client.rank(member_id="new", k=1000, deadline_ms=LONG).item_ids
    ledger.add_events([Event("new", first[0], "movies", "like", 1.0)])
    assert first[0] not in client.rank(member_id="new", k=1000, deadline_ms=LONG).item_ids


def test_the_context_reaches_the_stem(client: Client) -> None:
    services = client.services
    services.add(SEASONAL, "seasonal.yaml")
    reply = client.rank("seasonal", member_id="m1", context={"season": "winter"}, explain=True, deadline_ms=LONG)
    assert "It is winter." in "".join(reply.json["explain"]["stem"])
    assert reply.json["slate"][0]["heads"].keys() == {"take", "skip"}


SEASONAL = """\
surface: seasonal
description: Films for a time of the year
item_kind: movie
prompt:
  instruction: Which film suits the season?
  context: "It is {{ season }}."
  item: "{{ title }}"
sources: [{type: popular, k: 40}]
heads:
  - {name: take, type: choice, weight: 1.0}
  - {name: skip, type: choice, weight: -0.5}
fallback: {deadline_ms: 20000}
"""


def test_surfaces_of_any_kind_share_one_forward(services: Services, engine: Controlled) -> None:
    services.batcher.limits = Limits(gather_s=0.3)
    services.add(SEASONAL, "seasonal.yaml")
    with served(services) as client:
        client.until_ready()
        engine.batches.clear()
        asked = [("movies", "m1"), ("seasonal", "m1"), ("movies", "m2"), ("seasonal", "new")]

        def ask(each: tuple[str, str]) -> Reply:
            return client.rank(each[0], member_id=each[1], k=40, deadline_ms=LONG)

        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(ask, asked))
        assert engine.batches == [4]
        alone = [ask(each) for each in asked]
    for mine, theirs in zip(replies, alone, strict=True):
        assert utilities(mine) == pytest.approx(utilities(theirs), abs=1e-5)


def test_many_at_once_all_get_their_own_slate(client: Client, ledger: Ledger) -> None:
    members = [f"m{n % 12}" for n in range(60)]
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda member: client.rank(member_id=member, k=40, deadline_ms=LONG), members))
    for member, reply in zip(members, replies, strict=True):
        seen = {event.item_id for event in ledger.timeline(member)}
        assert set(reply.item_ids) == set(ids(40)) - seen
        assert not reply.json["degraded"], reply.json["reason"]
    assert client.services.batcher.waiting == 0


def test_the_reply_reads_the_heads_of_the_engines_answers(
    client: Client, services: Services, engine: Controlled
) -> None:
    """The whole chain by hand: the same tree, straight from the engine."""
    from serve.pipeline import write
    from serve.schemas import RankRequest
    from serve.shortlist import draw_up

    request = RankRequest.model_validate({"member_id": "m5", "candidates": ids(6)})
    surface = services.surface("movies")
    shortlist = draw_up(request, surface, services.ledger)
    scores = engine.engine.score([write(surface, shortlist, services).tokens])[0]
    reading = read_heads(surface.spec, scores.table())
    slate = client.rank(member_id="m5", candidates=ids(6), deadline_ms=LONG).json["slate"]
    for entry in slate:
        place = [candidate.item_id for candidate in shortlist.candidates].index(entry["item_id"])
        assert entry["utility"] == pytest.approx(reading.utility[place], abs=1e-5)
        for head, p in entry["heads"].items():
            assert p == pytest.approx(reading.values[head][place], abs=1e-5)


def test_the_engine_runs_in_one_thread_that_is_no_other(client: Client, engine: Controlled) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: client.rank(member_id=f"m{n % 12}", deadline_ms=LONG), range(24)))
    assert len(engine.threads) == 1
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    assert names[next(iter(engine.threads))].startswith("engine")


def test_it_waits_for_no_one_who_stays_silent(client: Client) -> None:
    """A client that connects and says nothing does not hold up the others."""
    import socket

    silent = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(20)]
    began = time.monotonic()
    assert client.rank(member_id="m1", deadline_ms=LONG).status == 200
    assert time.monotonic() - began < 5
    for each in silent:
        each.close()


def test_a_ledger_of_another_kind_of_item(tmp_path_factory: pytest.TempPathFactory, engine: Controlled) -> None:
    """No film at all: an empty slate, no failure."""
    folder = tmp_path_factory.mktemp("books")
    with Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}") as ledger:
        ledger.put_items([Item("b0", "book", {"title": "A book"})])
        with served(Services.open(ledger, engine, Registry.shipped())) as client:
            reply = client.rank(member={}, deadline_ms=LONG)
    assert (reply.status, reply.json["slate"]) == (200, [])


def test_times_are_finer_than_the_clock_of_the_loop(client: Client) -> None:
    """libuv's tells whole milliseconds."""
    told = [client.rank(member_id="m1", deadline_ms=20_000).json["timing_ms"] for _ in range(3)]
    assert all(timing["total"] >= timing["retrieve"] > 0 for timing in told)
    assert any(timing[part] % 1 for timing in told for part in ("retrieve", "compose"))
