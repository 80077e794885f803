"""Routing and experiments over HTTP: who ranks which visit, what is shown of it, and what is logged."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import zscore
from sqlalchemy import event

from serve.experiments import ExposureLog
from serve.services import Services
from surfaces.ledger.exposures import Exposure, Placement, Shown
from surfaces.ledger.records import Member
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.visit import Visit
from tests.serve.conftest import Client, Controlled, Reply, served

FILMS = """\
surface: films
description: Films
item_kind: movie
prompt: {instruction: Which film?, item: "{{ title }}"}
sources: [{type: popular, k: 40}, {type: co_visitation, k: 40}]
heads: [{name: watch, type: pointwise, weight: 1.0}]
fallback: {deadline_ms: 20000}
"""
NEWCOMERS = "routing: {rules: [{when: {history: {max: 0}}, to: classical}]}\n"
CLASSICAL = "routing: {default: classical}\n"
FUSED = "routing: {default: fused, fused: {foundation: 1.0, co_visitation: 0.7}}\n"
AB = "experiment: {name: one, kind: ab, arms: {foundation: 0.5, classical: 0.5}}\n"
INTERLEAVE = "experiment: {name: two, kind: interleave, arms: {foundation: 0.5, classical: 0.5}}\n"
MEMBERS = [f"m{n}" for n in range(12)]


def add(client: Client, more: str, name: str = "films") -> None:
    client.services.add(FILMS.replace("surface: films", f"surface: {name}") + more, f"{name}.yaml")


def films(client: Client, member_id: str = "m1", **body: object) -> Reply:
    reply = client.rank("films", member_id=member_id, **body)
    assert reply.status == 200, reply.json
    return reply


def in_retrieval_order(client: Client, member_id: str) -> list[str]:
    surface = client.services.surface("films")
    ledger = client.services.ledger
    brought = surface.retrieval.gather(Visit(ledger.timeline(member_id), member_id, lookup=ledger.items))
    first, second = surface.spec.fallback.order
    by_first = sorted((each.sources[first], each.item_id) for each in brought if first in each.sources)
    others = [each for each in brought if first not in each.sources]
    by_second = sorted((each.sources[second], each.item_id) for each in others)
    return [item_id for _, item_id in (*by_first, *by_second)]


def logged(client: Client, experiment: str, slates: int) -> list[Shown]:
    """What the ledger holds of an experiment, once so many slates are written."""
    end = time.monotonic() + 10
    while client.services.traffic.log.written < slates:
        assert time.monotonic() < end, "it was never written"
        time.sleep(0.01)
    return list(client.services.ledger.exposures(experiment))


def figures(client: Client) -> dict[str, float]:
    lines = [line for line in client.ask("GET", "/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


# ---------------------------------------------------------------- routing


def test_a_rule_sends_newcomers_the_cheap_way(client: Client) -> None:
    add(client, NEWCOMERS)
    newcomer, known = films(client, "new"), films(client, "m1")
    assert (newcomer.json["route"], known.json["route"]) == ("classical", "foundation")
    assert all(entry["utility"] is None and entry["heads"] == {} for entry in newcomer.json["slate"])
    assert all(entry["utility"] is not None for entry in known.json["slate"])
    inline = client.rank("films", member={"timeline": [{"item_id": "f1", "action": "watch"}]})
    assert inline.json["route"] == "foundation"
    assert client.rank("films", member={}).json["route"] == "classical"


def test_the_cheap_way_is_the_order_of_retrieval_and_is_not_degraded(client: Client) -> None:
    add(client, CLASSICAL)
    reply = films(client, "m3", k=40)
    assert reply.item_ids == in_retrieval_order(client, "m3")
    assert reply.json["degraded"] is False
    assert "reason" not in reply.json
    assert "experiment" not in reply.json
    assert set(reply.json["slate"][0]) == {"item_id", "rank", "utility", "heads", "sources"}
    assert films(client, "m3", k=40, explain=True).json.get("explain") is None, "the model read nothing"


def test_the_cheap_way_spends_no_tokens_and_waits_for_no_engine(client: Client, engine: Controlled) -> None:
    add(client, CLASSICAL)
    films(client)
    client.until_ready()
    stats, batches = engine.cache_stats, len(engine.batches)
    slots = (stats.hit_slots, stats.missed_slots)
    for member_id in MEMBERS:
        reply = films(client, member_id)
        assert reply.json["timing_ms"]["compose"] == reply.json["timing_ms"]["score"] == 0
    assert len(engine.batches) == batches
    assert (stats.hit_slots, stats.missed_slots) == slots
    engine.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(client.rank, member_id="m1", deadline_ms=20_000)
        end = time.monotonic() + 5
        while len(engine.batches) == batches:
            assert time.monotonic() < end
            time.sleep(0.005)
        began = time.monotonic()
        assert films(client).json["degraded"] is False
        assert time.monotonic() - began < 1
        engine.gate.set()
        assert stuck.result().json["degraded"] is False


def test_a_broken_engine_is_nothing_to_the_cheap_way(client: Client, engine: Controlled) -> None:
    add(client, NEWCOMERS)
    engine.error = RuntimeError("out of order")
    assert films(client, "new").json["degraded"] is False
    broken = films(client, "m1").json
    assert (broken["degraded"], broken["reason"], broken["route"]) == (True, "engine", "foundation")


def test_the_cheap_way_keeps_policies_and_the_callers_list(client: Client) -> None:
    add(client, CLASSICAL + "policies: [{type: pin, items: [f39], position: 2}]\n")
    assert films(client).item_ids[1] == "f39"
    given = films(client, candidates=["f3", "f9", {"item_id": "x", "title": "New"}])
    assert set(given.item_ids) == {"f3", "f9", "x"}


def test_the_fused_order_is_the_one_worked_out_by_hand(client: Client) -> None:
    add(client, "", "films")
    names = [f"f{n}" for n in range(40)]
    plain = films(client, "m2", candidates=names, k=40).json
    utility = {entry["item_id"]: entry["utility"] for entry in plain["slate"]}
    add(client, FUSED)
    fused = films(client, "m2", candidates=names, k=40).json
    assert (plain["route"], fused["route"], fused["degraded"]) == ("foundation", "fused", False)
    surface, ledger = client.services.surface("films"), client.services.ledger
    visit = Visit(ledger.timeline("m2"), "m2", now=time.time(), lookup=ledger.items)
    together = next(each.source for each in surface.retrieval.sources if each.name == "co_visitation")
    said = together.scores(surface.retrieval.history(visit), visit)[[surface.retrieval.index[name] for name in names]]
    assert np.isneginf(said).any(), "it does not know all of them"
    said = np.where(np.isneginf(said), said[np.isfinite(said)].min(), said)
    by_hand = zscore([utility[name] for name in names]) + 0.7 * zscore(said)
    expected = dict(zip(names, by_hand, strict=True))
    told = [expected[entry["item_id"]] for entry in fused["slate"]]
    assert told == sorted(told, reverse=True) or np.diff(told).max() < 1e-4
    assert [entry["item_id"] for entry in fused["slate"]] != [entry["item_id"] for entry in plain["slate"]]
    assert all(entry["utility"] == pytest.approx(utility[entry["item_id"]], abs=1e-5) for entry in fused["slate"]), (
        "the utility stays the model's own"
    )


def test_routes_are_counted(client: Client) -> None:
    add(client, NEWCOMERS)
    add(client, INTERLEAVE, "drawn")
    for member_id in ("new", "new", "m1"):
        films(client, member_id)
    client.rank("drawn", member_id="m1")
    found = figures(client)
    assert found['prismrank_rankings_total{route="classical",surface="films"}'] == 2
    assert found['prismrank_rankings_total{route="foundation",surface="films"}'] == 1
    assert found['prismrank_rankings_total{route="interleaved",surface="drawn"}'] == 1
    logged(client, "two", 1)
    after = figures(client)
    assert (after["prismrank_exposures_total"], after["prismrank_exposures_dropped_total"]) == (1, 0)
    text = client.ask("GET", "/metrics").text
    assert text.count("# TYPE prismrank_rankings_total counter") == 1


def test_a_bad_file_is_refused_with_its_place_and_the_former_goes_on(client: Client) -> None:
    add(client, NEWCOMERS)
    text = FILMS + "routing:\n  rules:\n    - {when: {history: {max: 0}}, to: clasical}\n"
    reply = client.ask("PUT", "/v1/surfaces/films", text.encode(), content_type="application/yaml")
    assert reply.status == 422
    (problem,) = reply.json["errors"]
    assert problem["detail"].endswith(
        ":10:39: routing.rules[0].to: unknown value 'clasical'; did you mean 'classical'?"
    )
    assert films(client, "new").json["route"] == "classical"


# ---------------------------------------------------------------- A/B


def test_a_member_has_one_arm_and_the_reply_tells_it(client: Client) -> None:
    add(client, AB)
    arms = {}
    for member_id in MEMBERS:
        reply = films(client, member_id).json
        arm = arms[member_id] = reply["experiment"]["arm"]
        assert reply["experiment"] == {"name": "one", "kind": "ab", "arm": reply["route"]}
        assert (reply["slate"][0]["utility"] is None) == (arm == "classical")
        assert all("team" not in entry for entry in reply["slate"])
    assert {films(client, m, k=3).json["experiment"]["arm"] == arms[m] for m in MEMBERS} == {True}
    rows = logged(client, "one", 24)
    assert {row.member_id: row.arm for row in rows} == arms
    assert all(not row.degraded and row.surface == "films" and row.kind == "ab" for row in rows)


def test_one_told_in_the_request_is_in_no_experiment(client: Client) -> None:
    add(client, NEWCOMERS + AB)
    reply = client.rank("films", member={}).json
    assert "experiment" not in reply
    assert reply["route"] == "classical"
    assert client.services.traffic.log.written == client.services.traffic.log.dropped == 0


@contextmanager
def anew(path: Path, engine: Controlled, more: str) -> Iterator[Client]:
    """A server that starts on what an earlier one left."""
    with (
        Ledger.open(f"sqlite:///{path}") as ledger,
        served(Services.open(ledger, engine, Registry.shipped())) as client,
    ):
        add(client, more)
        yield client


def arms_of(client: Client, member_ids: list[str]) -> dict[str, str]:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda member: films(client, member, candidates=["f1", "f2"]), member_ids))
    return {m: reply.json["experiment"]["arm"] for m, reply in zip(member_ids, replies, strict=True)}


def test_two_hundred_members_are_shared_out_and_stay_where_they_are(
    services: Services, ledger: Ledger, engine: Controlled, tmp_path: Path
) -> None:
    members = [f"p{n}" for n in range(200)]
    ledger.put_members(Member(name, {}) for name in members)
    with served(services) as client:
        add(client, AB)
        before = arms_of(client, members)
    counts = Counter(before.values())
    assert abs(counts["foundation"] - 100) < 4 * 50**0.5, "four standard errors of a fair coin"
    assert counts["foundation"] + counts["classical"] == 200
    with anew(tmp_path / "ledger.sqlite", engine, AB) as client:
        rows = list(client.services.ledger.exposures("one"))
        assert {row.member_id: row.arm for row in rows} == before, "exposures outlive the server"
        assert len(rows) == 400
        some = members[:40]
        assert arms_of(client, some) == {m: before[m] for m in some}


# ---------------------------------------------------------------- interleaving


def test_an_interleaved_slate_holds_both_teams_and_is_logged_as_shown(client: Client) -> None:
    add(client, "")
    orders = {"foundation": films(client, k=40).item_ids, "classical": in_retrieval_order(client, "m1")}
    add(client, INTERLEAVE)
    reply = films(client, k=10).json
    assert reply["experiment"] == {"name": "two", "kind": "interleave", "arm": None}
    assert "route" not in reply
    slate = reply["slate"]
    teams = Counter(entry["team"] for entry in slate)
    assert teams == {"foundation": 5, "classical": 5}
    placed: set[str] = set()
    for entry in slate:
        best = next(item_id for item_id in orders[entry["team"]] if item_id not in placed)
        assert entry["item_id"] == best, "each team puts its best that is left"
        placed.add(best)
        assert entry["utility"] is not None
    rows = logged(client, "two", 1)
    shown = [(row.item_id, row.position, row.arm, row.propensity) for row in rows]
    assert shown == [(entry["item_id"], entry["rank"] - 1, entry["team"], 1.0) for entry in slate]
    assert {(row.member_id, row.surface, row.kind, row.degraded) for row in rows} == {
        ("m1", "films", "interleave", False)
    }
    assert abs(rows[0].timestamp - time.time()) < 60


def test_policies_come_after_the_draft(client: Client) -> None:
    rules = "policies: [{type: pin, items: [f39], position: 3}, {type: explore, rate: 0.5}]\n"
    add(client, INTERLEAVE + rules.replace(", {type: explore, rate: 0.5}", ""))
    slate = films(client, k=5).json["slate"]
    assert slate[2]["item_id"] == "f39"
    assert {entry["team"] for entry in slate} == {"foundation", "classical"}
    add(client, INTERLEAVE + rules)
    explored = films(client, k=5).json["slate"]
    assert any(entry.get("propensity", 1.0) < 1 for entry in explored)
    rows = logged(client, "two", 2)
    assert [row.propensity for row in rows[5:]] == [entry.get("propensity", 1.0) for entry in explored]


def test_the_draw_is_the_members_at_that_time(client: Client) -> None:
    add(client, INTERLEAVE)

    def drawn(now: float) -> list[tuple[str, str]]:
        slate = films(client, "m2", k=20, context={"now": now}).json["slate"]
        return [(entry["item_id"], entry["team"]) for entry in slate]

    assert drawn(5e8) == drawn(5e8) == drawn(5e8)
    assert len({tuple(team for _, team in drawn(5e8 + n)) for n in range(8)}) > 1


def test_model_and_both_against_each_other(client: Client) -> None:
    arms = "experiment: {name: two, kind: interleave, arms: {foundation: 0.5, fused: 0.5}}\n"
    add(client, FUSED + arms)
    assert {entry["team"] for entry in films(client).json["slate"]} == {"foundation", "fused"}


# ---------------------------------------------------------------- when something is wrong


def test_a_degraded_slate_is_logged_as_such_under_the_arm_that_was_meant(client: Client, engine: Controlled) -> None:
    add(client, AB)
    add(client, INTERLEAVE, "drawn")
    arm_of = {member_id: films(client, member_id).json["experiment"]["arm"] for member_id in MEMBERS}
    asked = next(member_id for member_id, arm in arm_of.items() if arm == "foundation")
    engine.error = RuntimeError("out of order")
    reply = films(client, asked).json
    assert (reply["degraded"], reply["experiment"]["arm"]) == (True, "foundation")
    drawn = client.rank("drawn", member_id="m1").json
    assert drawn["degraded"] is True
    assert all("team" not in entry for entry in drawn["slate"])
    rows = logged(client, "one", 14)
    assert {(row.member_id, row.arm) for row in rows if row.degraded} == {(asked, "foundation")}
    assert {(row.degraded, row.arm) for row in client.services.ledger.exposures("two")} == {(True, None)}


def test_a_log_that_is_full_slows_no_reply(client: Client, tmp_path: Path) -> None:
    add(client, CLASSICAL + AB)
    log = client.services.traffic.log
    films(client)
    logged(client, "one", 1)
    log.room = 3
    writer = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")  # nobody else can write now
    try:
        took = []
        for number in range(30):
            began = time.monotonic()
            assert films(client, f"m{number % 12}").json["degraded"] is False
            took.append(time.monotonic() - began)
        assert sorted(took)[len(took) // 2] < 0.2
        assert max(took) < 2
        assert 20 <= figures(client)["prismrank_exposures_dropped_total"] < 30
    finally:
        writer.execute("ROLLBACK")
        writer.close()
    dropped = log.dropped
    rows = logged(client, "one", 31 - dropped)
    assert len({row.exposure_id for row in rows}) == 31 - dropped, "what had room is written in the end"


def test_a_ledger_that_cannot_be_written_fails_no_reply(client: Client, tmp_path: Path) -> None:
    add(client, AB)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("ALTER TABLE prismrank_exposures RENAME TO gone")
    connection.close()
    assert films(client, "m1").json["degraded"] is False
    end = time.monotonic() + 10
    while not client.services.traffic.log.dropped:
        assert time.monotonic() < end
        time.sleep(0.01)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("ALTER TABLE gone RENAME TO prismrank_exposures")
    connection.close()
    films(client, "m1")
    assert len({row.exposure_id for row in logged(client, "one", 1)}) == 1


def test_a_ledger_that_fails_is_asked_once_for_a_batch(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite") as ledger:
        with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
            connection.execute("DROP TABLE prismrank_exposures")
        connection.close()
        log, asked = ExposureLog(ledger), []
        event.listen(ledger.engine, "before_cursor_execute", lambda *about: asked.append(about[2]))
        for number in range(50):
            log.put(Exposure(f"e{number}", "m1", "movies", "one", "ab", "classical", False, 1.0, []))
        log.start()
        log.close()
        assert (log.written, log.dropped) == (0, 50)
        assert sum("prismrank_exposures" in statement for statement in asked) == 1


def test_what_waits_is_written_at_the_end(services: Services, engine: Controlled, ledger: Ledger) -> None:
    with served(services) as client:
        add(client, INTERLEAVE)
        for member_id in MEMBERS:
            films(client, member_id)
    assert len({row.exposure_id for row in ledger.exposures("two")}) == 12


def test_one_exposure_that_cannot_be_written_takes_no_other_with_it(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite") as ledger:
        log = ExposureLog(ledger)
        for number, propensity in enumerate((1.0, 0.0, 0.5)):
            slate = [Placement("f1", 0, None, propensity)]
            log.put(Exposure(f"e{number}", "m1", "movies", "one", "ab", "classical", False, 1.0, slate))
        log.start()
        log.close()
        assert (log.written, log.dropped) == (2, 1)
        assert [row.exposure_id for row in ledger.exposures("one")] == ["e0", "e2"]
