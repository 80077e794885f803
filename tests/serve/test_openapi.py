"""The OpenAPI document is complete and true: what it allows is taken, what it forbids is refused, no answer surprises.

Every operation is sent what its schemas allow and what they forbid, over HTTP, by a fixed seed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, NamedTuple

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.specs.openapi import checks
from schemathesis.specs.openapi.schemas import OpenApiSchema

from foundation.engine.torch import TorchEngine
from serve.doors import ROUTES
from serve.keys import Keys, make
from serve.models import Opened, Shelf
from serve.problems import ProblemDetail
from serve.routes.surfaces import EXAMPLE
from serve.server import bind, serving
from serve.services import Services
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from tests.serve.conftest import Client, fill

PAGES = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
OPERATIONS = [(method, path) for path, methods in ROUTES.items() if path not in PAGES for method in methods]
TAKING = [each for each in OPERATIONS if "{" in each[1] or each[0] in ("POST", "PUT")]
TAKING.remove(("POST", "/v1/model/rollback"))
"""Those that take anything that could be wrong."""
FEW, MANY = 15, 500
POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
FILES = {("PUT", "/v1/surfaces/{surface}")}
"""Whose body holds templates and names of others, of which a schema cannot say which are right; the reply does."""
EXPLAINED = ("the ledger has no ", "candidates must differ", "which this model's vectors have")
"""What a schema cannot say of a request: names that must be known, and be there once."""


class Server(NamedTuple):
    """A server that asks for keys, its document, and who may do everything."""

    client: Client
    schema: OpenApiSchema
    headers: dict[str, str]
    poor: dict[str, str]


@pytest.fixture(scope="module")
def server(tiny_engine: TorchEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("openapi")
    boss, slow = (bearer(make(folder / "keys.yaml", name, ["admin"], rate=rate, burst=rate and 1))
                  for name, rate in (("boss", None), ("slow", 0.001)))  # fmt: skip
    keys = Keys.load(folder / "keys.yaml")
    with Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}") as ledger, bind("127.0.0.1", 0) as bound:
        fill(ledger)
        services = Services.open(ledger, tiny_engine, Registry.shipped())
        tiny_engine.ranker.save(folder / "models" / "tiny", tiny_engine.encoder)
        shelf = Shelf(lambda path: Opened(TorchEngine.load(path), None), folder / "models")
        with serving(services, bound, keys=keys, shelf=shelf) as url:
            client = Client(url, services)
            client.until_ready()
            schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=boss, config=fixed())
            yield Server(client, schema, boss, slow)


@schemathesis.serializer("text/yaml", "application/yaml")  # the first of its family is taken
def as_file(_: Any, value: Any) -> bytes:
    """A surface file: the name of the surface comes first, and JSON is YAML."""
    if isinstance(value, dict) and "surface" in value:
        value = {"surface": value["surface"], **value}
    return value if isinstance(value, bytes) else json.dumps(value, default=str).encode()


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def fixed() -> SchemathesisConfig:
    """The same cases each time; keys are ours to send."""
    generation = GenerationConfig(deterministic=True, with_security_parameters=False)
    return SchemathesisConfig(seed=1, projects=ProjectsConfig(default=ProjectConfig(generation=generation)))


def cases(server: Server, method: str, path: str, mode: GenerationMode) -> st.SearchStrategy[Case]:
    """What an operation may be sent; half of what is right names what there is."""
    generated = server.schema[path][method].as_strategy(generation_mode=mode)
    return generated | generated.map(lambda case: with_known_names(case, server)) if mode is POSITIVE else generated


def with_known_names(case: Case, server: Server) -> Case:
    """The case with names that the server knows in place of those that were made up."""
    for name in case.path_parameters:
        case.path_parameters[name] = {"surface": "family_evening", "member_id": "m11"}[name]
    if (case.method, case.path) in FILES:
        case.body = EXAMPLE
    elif case.path == "/v1/surfaces/{surface}/rollback":
        case.body = {"version": server.client.services.surface("family_evening").version}
    elif case.path in MODELS and isinstance(case.body, dict):
        case.body = {**case.body, "model": MODELS[case.path]}
    else:
        case.body = known(case.body)
    return case


def known(body: Any) -> Any:
    """The body with names that the ledger knows, each item once in a list."""
    if isinstance(body, list):
        return [f"f{place % 40}" if isinstance(each, str) else known_at(each, place) for place, each in enumerate(body)]
    if isinstance(body, dict):
        return {key: "m1" if key == "member_id" and value else known(value) if key in PARTS else value
                for key, value in body.items()}  # fmt: skip
    return body


MODELS = {"/v1/model": "tiny", "/v1/embeddings": "tiny", "/v1/rerank": "documents", "/v2/rerank": "documents"}
PARTS = {"member", "timeline", "candidates", "events", "items", "members", "requests"}


def known_at(part: Any, place: int) -> Any:
    return {**known(part), **({"item_id": f"f{place % 40}"} if "item_id" in part else {})}


def put_what_is_named(server: Server) -> None:
    """What other tests may have taken away."""
    server.client.ask("PUT", "/v1/surfaces/family_evening", EXAMPLE, **server.headers)
    server.client.ask("PUT", "/v1/model", {"model": "tiny"}, **server.headers)
    server.client.ask("PUT", "/v1/members", {"members": [{"member_id": "m1"}, {"member_id": "m11"}]}, **server.headers)


def sent(server: Server, method: str, path: str, mode: GenerationMode, examples: int) -> Counter[int]:
    """Sends so many cases; returns how often each status came. Fails at an answer that the document does not allow."""
    put_what_is_named(server)
    statuses: Counter[int] = Counter()
    with requests.Session() as session:

        @settings(
            max_examples=examples, derandomize=True, database=None, deadline=None,
            phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=cases(server, method, path, mode))
        def send(case: Case) -> None:
            response = case.call(server.client.url, session, server.headers)
            statuses[response.status_code] += 1
            answers_as_documented(case, response, mode)

        send()
    return statuses


def answers_as_documented(case: Case, response: Response, mode: GenerationMode) -> None:
    status = response.status_code
    forbidden = mode is NEGATIVE and (case.method, case.path) not in FILES and status != 413  # that is no refusal to it
    more = [checks.negative_data_rejection] if forbidden else []
    case.validate_response(response, checks=[*CHECKS, *more])
    if status >= 400:
        assert response.headers["content-type"] == ["application/problem+json"]
        problem = ProblemDetail.model_validate_json(response.content, strict=True)
        assert (problem.status, problem.title) == (status, HTTPStatus(status).phrase)
    if mode is POSITIVE and status >= 400 and status != 404:
        told = response.json()["detail"]
        assert (case.method, case.path) in FILES or status == 409 or any(words in told for words in EXPLAINED), told


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_what_the_document_allows_is_taken(server: Server, method: str, path: str) -> None:
    assert min(sent(server, method, path, POSITIVE, FEW)) < 300


@pytest.mark.parametrize(("method", "path"), TAKING)
def test_what_the_document_forbids_is_refused(server: Server, method: str, path: str) -> None:
    sent(server, method, path, NEGATIVE, FEW)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "mode"), [*((*each, POSITIVE) for each in OPERATIONS), *((*each, NEGATIVE) for each in TAKING)]
)
def test_the_document_holds_for_many_requests(server: Server, method: str, path: str, mode: GenerationMode) -> None:
    print(method, path, mode.value, dict(sent(server, method, path, mode, MANY)))


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_an_operation_tells_everything(server: Server, method: str, path: str) -> None:
    page = server.schema.raw_schema
    operation, needs = page["paths"][path][method.lower()], ROUTES[path][method]
    assert ((method, path) in TAKING) == bool(operation.get("parameters") or "requestBody" in operation)
    assert operation["description"]
    assert operation["security"] == ([] if needs == "open" else [{"key": [needs]}])
    assert set(operation["responses"]) >= statuses_of(operation, needs)
    assert "default" not in operation["responses"], "nothing hides behind it"
    for response in operation["responses"].values():
        assert response["description"]
        assert "X-Request-ID" in response["headers"]
    for parameter in operation.get("parameters", ()):
        assert parameter["description"]
        assert parameter["schema"]["examples"]
    for content in operation.get("requestBody", {"content": {}})["content"].values():
        assert content["schema"]


def statuses_of(operation: dict[str, Any], needs: str) -> set[str]:
    keyed = set() if needs == "open" else {"401", "403", "429"}
    return keyed | ({"400", "408", "413", "415", "422"} if "requestBody" in operation else set()) | {"500"}


def test_the_limits_of_the_server_are_told(server: Server) -> None:
    schemas, limits = server.schema.raw_schema["components"]["schemas"], server.client.services.settings
    assert schemas["RankRequest"]["properties"]["candidates"]["anyOf"][0]["maxItems"] == limits.max_candidates
    assert schemas["InlineMember"]["properties"]["timeline"]["maxItems"] == limits.max_timeline
    assert schemas["BatchRequest"]["properties"]["requests"]["maxItems"] == limits.max_batch
    for name in ("Events", "Items", "Members"):
        assert schemas[f"{name}Request"]["properties"][name.lower()]["maxItems"] == limits.max_rows


def test_the_key_is_told(server: Server) -> None:
    (scheme,) = server.schema.raw_schema["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


@pytest.mark.parametrize(("method", "path"), [each for each in OPERATIONS if ROUTES[each[1]][each[0]] != "open"])
def test_without_a_key_or_too_often_the_refusal_is_as_documented(server: Server, method: str, path: str) -> None:
    case = server.schema[path][method].Case(path_parameters={"surface": "movies", "member_id": "m1"})
    for headers, status in (({}, 401), (server.poor, 429)):
        response = [case.call(server.client.url, headers=headers) for _ in range(2)][-1]
        assert response.status_code == status
        answers_as_documented(case, response, NEGATIVE)
