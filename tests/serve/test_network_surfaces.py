"""The four surfaces of a professional network, over HTTP, on a simulated one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from foundation.engine.torch import TorchEngine
from prompts.tree import PromptTree
from serve.pipeline import write
from serve.schemas import RankRequest
from serve.services import Services
from serve.shortlist import draw_up
from surfaces.heads.reading import read_heads
from surfaces.ledger.records import Item
from surfaces.ledger.store import Ledger
from surfaces.ledger.tables import import_tables
from surfaces.reciprocal import joined
from surfaces.registry import Registry
from surfaces.worlds.network import Network
from tests.serve.conftest import Client, served

SURFACES = ("feed", "jobs", "ads", "people")
LONG = 20_000


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A network of 300 simulated members."""
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('network')}/ledger.sqlite") as ledger:
        import_tables(Network(members=300, seed=1).tables(), ledger)
        yield ledger


@pytest.fixture(scope="module")
def services(network: Ledger, tiny_engine: TorchEngine) -> Services:
    """Services over the network."""
    return Services.open(network, tiny_engine, Registry.shipped())


@pytest.fixture(scope="module")
def client(services: Services) -> Iterator[Client]:
    """A client to a server of the network."""
    with served(services) as client:
        client.until_ready()
        yield client


@pytest.fixture(scope="module")
def active(network: Ledger) -> str:
    """The member with most events."""
    return Counter(event.member_id for event in network.all_events()).most_common(1)[0][0]


def tree_of(services: Services, surface: str, **body: object) -> PromptTree:
    ready = services.surface(surface)
    return write(ready, draw_up(RankRequest.model_validate(body), ready, services.ledger), services).tree


@pytest.mark.parametrize("surface", SURFACES)
def test_every_surface_ranks_active_and_cold_members(
    client: Client, network: Ledger, active: str, surface: str
) -> None:
    seen = {event.member_id for event in network.all_events()}
    cold = next(name for name in network.member_ids() if name not in seen)
    for member in (active, cold):
        reply = client.rank(surface, member_id=member, k=10, deadline_ms=LONG)
        assert reply.status == 200, reply.text
        assert (reply.json["degraded"], len(reply.json["slate"])) == (False, 10), "a cold member is never empty-handed"
        assert sum(reply.json["shares"].values()) == pytest.approx(1.0)
        kinds = {item.kind for item in network.items(reply.item_ids).values()}
        assert kinds == {services_kind(client, surface)}


def services_kind(client: Client, surface: str) -> str:
    return client.services.surface(surface).spec.item_kind


def test_the_trunk_is_the_same_on_all_four_and_computed_once(services: Services, active: str) -> None:
    engine = services.engine
    assert isinstance(engine, TorchEngine)
    trees = [tree_of(services, surface, member_id=active, k=5) for surface in SURFACES]
    assert len({tree.nodes[0] for tree in trees}) == 1
    tokens = [replace(engine.read(tree), salt=services.ledger.tenant) for tree in trees]
    engine.forget()
    before = engine.cache_stats.missed_slots
    for tree in tokens:
        engine.score([tree])
    trunk, stems = len(tokens[0].nodes[0].slots), sum(len(tree.nodes[1].slots) for tree in tokens)
    assert trunk > 8
    computed = engine.cache_stats.missed_slots - before
    assert trunk + stems - 8 <= computed <= trunk + stems, "stems may begin with the same words"


def test_the_probability_of_a_click_is_one_and_multiplies_the_bid(client: Client, network: Ledger, active: str) -> None:
    slate = client.rank("ads", member_id=active, k=20, deadline_ms=LONG).json["slate"]
    items = network.items(entry["item_id"] for entry in slate)
    for entry in slate:
        click, hide = entry["heads"]["click"], entry["heads"]["hide"]
        assert 0 < click < 1
        assert click + hide < 1, "the rest is for an ad that is only seen"
        bid = items[entry["item_id"]].attributes["bid"]
        assert isinstance(bid, float)
        assert entry["utility"] == pytest.approx(bid * (click - 0.1 * hide), rel=1e-6)


def test_ads_that_are_over_or_spent_are_not_shown(services: Services, network: Ledger, active: str) -> None:
    now = network.now
    assert now is not None
    ready = services.surface("ads")
    shortlist = draw_up(RankRequest(member_id=active), ready, network)
    assert shortlist.listed
    for item in shortlist.listed:
        assert float(str(item.attributes["expires_at"])) > now
        assert float(str(item.attributes["budget"])) > 0
    everything = network.all_items("ad")
    assert any(float(str(item.attributes["expires_at"])) <= now for item in everything)


def test_no_more_than_two_jobs_of_a_company(client: Client, network: Ledger) -> None:
    for member in network.member_ids()[:15]:
        slate = client.rank("jobs", member_id=member, k=15, deadline_ms=LONG).item_ids
        companies = Counter(item.attributes["company"] for item in network.items(slate).values())
        assert max(companies.values()) <= 2


def test_a_query_is_looked_for_and_told(client: Client, services: Services, network: Ledger, active: str) -> None:
    job = network.all_items("job")[0]
    word = str(job.attributes["title"]).split()[0]
    stem = tree_of(services, "jobs", member_id=active, context={"query": word}).nodes[1]
    assert f"Searching for {word}." in "".join(piece.text for piece in stem.pieces)
    ready = services.surface("jobs")
    shortlist = draw_up(RankRequest(member_id=active, context={"query": word}), ready, network)
    found = [each.item_id for each in shortlist.candidates if "bm25" in each.sources]
    assert found
    assert all(word.lower() in str(item.attributes).lower() for item in network.items(found).values())


def test_nobody_is_a_candidate_for_themselves_nor_one_they_know(services: Services, network: Ledger) -> None:
    mine = {item.member_id: item.item_id for item in network.all_items("person")}
    for member in network.member_ids()[:40]:
        shortlist = draw_up(RankRequest(member_id=member), services.surface("people"), network)
        brought = {each.item_id for each in shortlist.candidates}
        assert mine[member] not in brought
        known = {event.item_id for event in network.timeline(member) if event.action == "connect"}
        assert not brought & known


def test_the_other_side_counts_on_people(client: Client, services: Services, active: str) -> None:
    """By hand: the same question put to the other side, in a tree of its own."""
    slate = client.rank("people", member_id=active, k=1000, deadline_ms=LONG).json["slate"]
    asked = [entry for entry in slate if "connect_back" in entry["heads"]]
    assert len(asked) == len(slate)
    people = {item.item_id: item for item in services.ledger.all_items("person")}
    myself = next(item_id for item_id, item in people.items() if item.member_id == active)
    ready = services.surface("people")
    answers = Counter(entry["heads"]["connect_back"] for entry in slate)
    single = [entry for entry in slate if answers[entry["heads"]["connect_back"]] == 1]
    assert len(single) >= 25, "the first thirty candidates' other sides are asked, the rest count as their mean"
    for entry in single[:5]:
        other = people[entry["item_id"]].member_id
        back = draw_up(RankRequest.model_validate({"member_id": other, "candidates": [myself]}), ready, services.ledger)
        scores = services.engine.score([write(ready, back, services).tokens])[0]
        theirs, mine = read_heads(ready.spec, scores.table()).values["connect"][0], entry["heads"]["connect"]
        assert entry["heads"]["connect_back"] == pytest.approx(theirs, abs=1e-5)
        assert entry["utility"] == pytest.approx(2 * mine * theirs / (mine + theirs), abs=1e-5)


def test_joined_probabilities() -> None:
    mine, theirs = np.array([0.5, 0.2, 0.0, 0.0]), np.array([0.5, 0.8, 0.7, 0.0])
    assert joined(mine, theirs, "product") == pytest.approx([0.25, 0.16, 0, 0])
    assert joined(mine, theirs, "harmonic") == pytest.approx([0.5, 0.32, 0, 0])


def test_what_a_member_hides_is_no_choice_and_its_author_is_gone(network: Ledger, tiny_engine: TorchEngine) -> None:
    services = Services(network, tiny_engine, Registry.shipped())
    ready = services.prepare("feed")
    assert ready.spec.unwanted == {"hide"}
    assert ready.retrieval.unwanted == {"hide"}
    post = network.all_items("post")[3]
    author = post.attributes["author_id"]
    member = {"profile": {}, "timeline": [{"item_id": post.item_id, "action": "hide"}]}
    request = RankRequest.model_validate({"member": member, "k": 100})
    shortlist = draw_up(request, ready, network)
    assert not len(ready.retrieval.history(shortlist.visit))
    assert author not in {item.attributes["author_id"] for item in shortlist.listed}


def test_a_feed_prefers_new_posts(services: Services, network: Ledger, active: str, client: Client) -> None:
    slate = client.rank("feed", member_id=active, k=1000, deadline_ms=LONG).json["slate"]
    assert len({entry["item_id"] for entry in slate}) == len(slate)
    authors = Counter(item.attributes["author_id"] for item in network.items(e["item_id"] for e in slate).values())
    assert max(authors.values()) <= 2


def test_an_order_that_repeats(client: Client, active: str) -> None:
    for surface in SURFACES:
        one, other = (client.rank(surface, member_id=active, k=10, deadline_ms=LONG) for _ in range(2))
        assert one.item_ids == other.item_ids
        utilities = [[entry["utility"] for entry in reply.json["slate"]] for reply in (one, other)]
        assert utilities[0] == pytest.approx(utilities[1], abs=1e-5)


def test_utilities_fall_where_no_policy_moves_anything(client: Client, active: str) -> None:
    slate = client.rank("ads", member_id=active, k=20, deadline_ms=LONG).json["slate"]
    assert all(before["utility"] >= after["utility"] for before, after in pairwise(slate))


def test_a_surface_that_takes_candidates_merges_them(network: Ledger, tiny_engine: TorchEngine) -> None:
    services = Services(network, tiny_engine, Registry.shipped())
    ready = services.add(
        """
        surface: mixed
        description: Jobs, and those that the caller brings
        item_kind: job
        prompt: {instruction: Jobs., item: "{{ title }}"}
        sources: [{type: popular, k: 5}, {type: request, k: 3}]
        heads: [{name: apply, type: pointwise, weight: 1}]
        """,
        "mixed.yaml",
    )
    told = {"item_id": "new", "title": "A job that the ledger does not know"}
    known = [item.item_id for item in network.all_items("job")][-2:]
    request = RankRequest.model_validate({"member_id": network.member_ids()[0], "candidates": [told, *known], "k": 50})
    shortlist = draw_up(request, ready, network)
    by_id = {each.item_id: each.sources for each in shortlist.candidates}
    assert by_id["new"] == {"request": 1}
    assert {by_id[name]["request"] for name in known} == {2, 3}
    assert len(by_id) >= 6
    assert not shortlist.whole


def test_members_of_whom_the_ledger_knows_nothing_can_be_asked(tiny_engine: TorchEngine, network: Ledger) -> None:
    services = Services(network, tiny_engine, Registry.shipped())
    ready = services.prepare("people")
    member = {"profile": {"occupation": "Actuaries"}, "timeline": []}
    request = RankRequest.model_validate({"member": member, "candidates": ["u1", {"item_id": "x", "name": "Ann"}]})
    prompt = write(ready, draw_up(request, ready, network), services)
    assert len(prompt.back) == 1, "one of the two is a member"


def test_a_surface_by_vectors_alone_and_a_boost(network: Ledger, tiny_engine: TorchEngine, active: str) -> None:
    services = Services.open(network, tiny_engine, Registry.shipped())
    services.add(
        """
        surface: near
        description: Jobs by their vectors
        item_kind: job
        prompt: {instruction: Jobs., item: "{{ title }}"}
        sources: [{type: popular, k: 60}]
        heads: [{name: near, type: embedding, weight: 1}]
        policies: [{type: boost, where: item.location == context.city, strength: 1.0}]
        """,
        "near.yaml",
    )
    city = str(network.all_items("job")[0].attributes["location"])
    with served(services) as client:
        client.until_ready()
        reply = client.rank("near", member_id=active, k=60, context={"city": city}, deadline_ms=LONG)
        plain = client.rank("near", member_id=active, k=60, deadline_ms=LONG)
    assert not reply.json["degraded"]
    assert set(reply.item_ids) == set(plain.item_ids)
    utilities = [entry["utility"] for entry in plain.json["slate"]]
    assert utilities == sorted(utilities, reverse=True)
    assert all(-1.0001 <= value <= 1.0001 for value in utilities)
    places = [network.item(item_id).attributes["location"] == city for item_id in reply.item_ids]
    assert any(places)
    assert places == sorted(places, reverse=True), "those in the city come first, each in the model's order"


def test_the_other_sides_are_not_asked_with_the_visitors_query(services: Services, active: str) -> None:
    ready = services.surface("people")
    asked = []
    for context in ({}, {"query": "nurse in Vienna"}):
        body = {"member_id": active, "candidates": ["u1", "u2", "u3"], "context": context}
        shortlist = draw_up(RankRequest.model_validate(body), ready, services.ledger)
        trees = write(ready, shortlist, services).sides.trees
        asked.append(sorted(repr([node.pieces for node in tree.nodes]) for tree in trees))
    assert asked[0] == asked[1], "only the order of the candidates may differ"


def test_bids_beyond_measure_keep_their_order(client: Client, active: str) -> None:
    ads = [
        {"item_id": name, "title": "An ad", "bid": bid}
        for name, bid in (("low", -1.7e308), ("mid", 1), ("high", 1e308))
    ]
    slate = client.rank("ads", member_id=active, candidates=ads, k=3, deadline_ms=LONG)
    assert slate.item_ids == ["high", "mid", "low"]
    assert all(isinstance(entry["utility"], float) for entry in slate.json["slate"])


def test_a_pin_of_what_is_not_there_is_left_out_and_a_brought_stranger_is_told(
    network: Ledger, tiny_engine: TorchEngine, active: str
) -> None:
    network.put_items([Item("deep", "job", {"title": "Deep", "company": json.loads("[" * 500 + "]" * 500)})])
    services = Services.open(network, tiny_engine, Registry.shipped())
    file = """
    surface: pinned
    description: Jobs
    item_kind: job
    prompt: {instruction: Jobs., item: "{{ title }}"}
    sources: [{type: popular, k: 5}, {type: request, k: 5}]
    heads: [{name: apply, type: pointwise, weight: 1}]
    policies: [{type: pin, items: [gone, deep, j1]}, {type: cap, by: company, max: 1}]
    """
    services.add(file, "pinned.yaml")
    with served(services) as client:
        client.until_ready()
        reply = client.rank("pinned", member_id=active, k=5, deadline_ms=LONG)
        assert (reply.status, reply.json["degraded"]) == (200, False)
        assert reply.item_ids[:2] == ["deep", "j1"]
        told = client.rank("pinned", member_id=active, candidates=["nobody"], deadline_ms=LONG)
        assert (told.status, "unknown item 'nobody'" in told.json["detail"]) == (404, True)


def test_a_full_house_is_told_as_such(client: Client, services: Services) -> None:
    room, services.retrieval.room = services.retrieval.room, 0
    try:
        reply = client.ask("POST", "/v1/surfaces/jobs/preview", {"member_id": "m1"})
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert client.ask("GET", "/v1/surfaces").status == 200
    finally:
        services.retrieval.room = room
