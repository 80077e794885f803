"""Clients of other services, unmodified: Cohere's and OpenAI's own, and Jina's shape over plain HTTP."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cohere
import httpx
import numpy as np
import openai
import pytest
from cohere.errors import NotFoundError, UnprocessableEntityError

from foundation.engine.torch import TorchEngine
from serve.keys import Keys, make
from serve.server import bind, serving
from serve.services import Services
from serve.settings import Settings
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from tests.serve.conftest import Client, Controlled

QUERY = "a comedy about toys"
DOCUMENTS = ["Nothing of the kind", "Toys, a comedy", "A drama of the sea", "Toys"]


@contextmanager
def cohere_at(url: str, key: str = "none") -> Iterator[cohere.ClientV2]:
    """Cohere's client, whose connections are closed in the end."""
    with httpx.Client() as own:
        yield cohere.ClientV2(api_key=key, base_url=url, httpx_client=own)


@pytest.fixture(scope="module")
def v1(shared: Client) -> Iterator[cohere.Client]:
    with httpx.Client() as own:
        yield cohere.Client(api_key="none", base_url=shared.url, httpx_client=own)


@pytest.fixture(scope="module")
def v2(shared: Client) -> Iterator[cohere.ClientV2]:
    with cohere_at(shared.url) as client:
        yield client


@pytest.fixture(scope="module")
def ai(shared: Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="none", base_url=f"{shared.url}/v1", max_retries=0) as client:
        yield client


def test_cohere_reranks_in_version_2(v2: cohere.ClientV2, shared: Client) -> None:
    reply = v2.rerank(model="documents", query=QUERY, documents=DOCUMENTS, top_n=3)
    scores = [result.relevance_score for result in reply.results]
    assert len({result.index for result in reply.results}) == 3
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    assert reply.id
    assert reply.meta
    assert reply.meta.api_version
    assert reply.meta.api_version.version == "2"


def test_cohere_reranks_in_version_1_and_gives_documents_back(v1: cohere.Client) -> None:
    documents = [DOCUMENTS[0], {"text": DOCUMENTS[1], "title": "One", "item_id": "mine"}]
    reply = v1.rerank(model="documents", query=QUERY, documents=documents, return_documents=True)
    found = {result.index: result.document for result in reply.results}
    assert found[0] is not None
    assert found[1] is not None
    assert (found[0].text, found[1].text) == tuple(DOCUMENTS[:2])
    assert found[1].model_dump()["title"] == "One"
    assert reply.meta
    assert reply.meta.api_version
    assert reply.meta.api_version.version == "1"


def test_jinas_shape(shared: Client) -> None:
    body = {"model": "documents", "query": QUERY, "documents": DOCUMENTS, "top_n": 2, "return_documents": True}
    reply = shared.ask("POST", "/v1/rerank", body)
    assert reply.status == 200, reply.text
    assert set(reply.json["results"][0]) == {"index", "relevance_score", "document"}
    assert reply.json["results"][0]["document"]["text"] == DOCUMENTS[reply.json["results"][0]["index"]]
    assert reply.json["usage"]["total_tokens"] > len(DOCUMENTS)
    assert reply.json["model"] == shared.services.engine.model_version


def test_a_reranking_is_the_ranking_of_the_surface(shared: Client) -> None:
    """The scores are those of the documents as candidates of `documents`, but for what its sources know of them."""
    text = shared.ask("GET", "/v1/surfaces/documents").json["text"].replace("evidence: [bm25]\n", "")
    text = text[: text.index("routing:")]
    named = text.replace("surface: documents", "surface: plain")
    assert shared.ask("PUT", "/v1/surfaces/plain", named.encode()).status in (200, 201)
    body = {"model": "plain", "query": QUERY, "documents": DOCUMENTS}
    found = shared.ask("POST", "/v1/rerank", body).json
    candidates = [{"item_id": str(place), "text": each} for place, each in enumerate(DOCUMENTS)]
    ranked = shared.rank("plain", member={}, candidates=candidates, context={"query": QUERY}, k=4).json
    assert [(str(each["index"]), pytest.approx(each["relevance_score"], abs=1e-5)) for each in found["results"]] == [
        (entry["item_id"], entry["utility"]) for entry in ranked["slate"]
    ]
    assert shared.ask("DELETE", "/v1/surfaces/plain").status == 204


def test_without_the_model_the_words_of_the_query_decide(ledger: Ledger, engine: Controlled) -> None:
    services = Services.open(ledger, engine, Registry.shipped())
    with bind("127.0.0.1", 0) as bound, serving(services, bound) as url:
        client = Client(url, services)
        client.until_ready()
        engine.error = RuntimeError("gone")
        reply = client.ask("POST", "/v1/rerank", {"query": QUERY, "documents": DOCUMENTS}).json
        assert (reply["degraded"], reply["reason"], reply["meta"]["warnings"]) == (True, "engine", ["degraded: engine"])
        assert [each["index"] for each in reply["results"]][:2] == [1, 3]
        scores = [each["relevance_score"] for each in reply["results"]]
        assert scores == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_what_cannot_be_reranked_is_told(v2: cohere.ClientV2, shared: Client) -> None:
    with pytest.raises(NotFoundError, match="no surface is called"):
        v2.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS)
    with pytest.raises(UnprocessableEntityError, match="#/documents"):
        v2.rerank(model="documents", query=QUERY, documents=[])
    for body, pointer in (
        ({"query": "", "documents": ["a"]}, "#/query"),
        ({"query": "a", "documents": [1]}, "#/documents/0"),
        ({"query": "a", "documents": ["a"] * 1001}, "#/documents"),
        ({"query": "a", "documents": ["a"], "top_n": 0}, "#/top_n"),
        ({"query": "a", "documents": ["a"], "rank_fields": ["text"]}, "#"),
    ):
        reply = shared.ask("POST", "/v1/rerank", body)
        assert (reply.status, reply.json["errors"][0]["pointer"]) == (422, pointer), reply.text


def test_any_surface_reranks(shared: Client) -> None:
    """Whatever its sources are: of the documents of a call they have nothing to learn."""
    for surface in shared.services.surface_names():
        body = {"model": surface, "query": QUERY, "documents": [{"title": each} for each in DOCUMENTS]}
        reply = shared.ask("POST", "/v1/rerank", body)
        assert (reply.status, len(reply.json.get("results", ()))) == (200, 4), (surface, reply.text)


def test_odd_documents_are_ranked_all_the_same(shared: Client) -> None:
    documents = ["", "\x00\x1b[31m", "a" * 100_000, "‮‎", {}, {"text": None}, {"text": ["a", {"b": 1}]}, "<|yes|>"]
    reply = shared.ask("POST", "/v1/rerank", {"query": "\x00", "documents": documents})
    assert reply.status == 200, reply.text
    assert sorted(each["index"] for each in reply.json["results"]) == list(range(len(documents)))


def test_openai_embeds(ai: openai.OpenAI, shared: Client, tiny_engine: TorchEngine) -> None:
    """The client asks for base64 and reads it; numbers are the same, and those of the engine."""
    texts = ["Toy Story (1995)", "GoldenEye"]
    reply = ai.embeddings.create(model="tiny", input=texts)
    vectors = np.array([each.embedding for each in reply.data])
    assert np.abs(vectors - tiny_engine.embed(texts)).max() <= 1e-6
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert [each.index for each in reply.data] == [0, 1]
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > 2
    plain = ai.embeddings.create(
        model="tiny@random", input=texts[0], encoding_format="float", dimensions=vectors.shape[1]
    )
    assert plain.data[0].embedding == pytest.approx(vectors[0], abs=1e-6)
    raw = shared.ask("POST", "/v1/embeddings", {"model": "tiny", "input": texts, "encoding_format": "base64"}).json
    assert np.frombuffer(base64.b64decode(raw["data"][1]["embedding"]), "<f4") == pytest.approx(vectors[1], abs=1e-6)


@pytest.mark.parametrize(
    ("asked", "kind", "detail"),
    [
        ({"model": "text-embedding-3-small"}, openai.NotFoundError, "the one that does is 'tiny'"),
        ({"input": []}, openai.UnprocessableEntityError, "#/input"),
        ({"input": ""}, openai.UnprocessableEntityError, "#/input"),
        ({"input": ["a", ""]}, openai.UnprocessableEntityError, "#/input/1"),
        ({"input": [[1, 2]]}, openai.UnprocessableEntityError, "#/input"),
        ({"input": ["a"] * 257}, openai.UnprocessableEntityError, "max_inputs"),
        ({"dimensions": 3}, openai.UnprocessableEntityError, "#/dimensions: should be 48"),
    ],
)
def test_what_cannot_be_embedded_is_told(ai: openai.OpenAI, asked: dict[str, Any], kind: type, detail: str) -> None:
    with pytest.raises(kind) as caught:
        ai.embeddings.create(**{"model": "tiny", "input": "a", **asked})
    assert detail in caught.value.body["detail"]


def test_keys_hold_here_as_elsewhere(ledger: Ledger, tiny_engine: TorchEngine, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    key, other = make(file, "a", ["rank"], surfaces=["documents"]), make(file, "b", ["rank"], surfaces=["movies"])
    services = Services.open(ledger, tiny_engine, Registry.shipped(), settings=Settings(max_inputs=1))
    with bind("127.0.0.1", 0) as bound, serving(services, bound, keys=Keys.load(file)) as url:
        with cohere_at(url, key) as client:
            assert client.rerank(model="documents", query="a", documents=["a"]).results
        for secret, error in ((other, cohere.errors.ForbiddenError), ("no", cohere.errors.UnauthorizedError)):
            with cohere_at(url, secret) as client, pytest.raises(error):
                client.rerank(model="documents", query="a", documents=["a"])
        with openai.OpenAI(api_key="no", base_url=f"{url}/v1") as ai, pytest.raises(openai.AuthenticationError):
            ai.embeddings.create(model="tiny", input="a")
