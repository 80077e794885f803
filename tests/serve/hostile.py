"""What the tests of hostile requests share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundation.engine.torch import TorchEngine
from serve.problems import ProblemDetail
from serve.services import Services
from serve.settings import Settings
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from tests.serve.conftest import Client, Reply, fill, served

LIMITS = Settings(body_s=0.4, head_s=0.4)
SECRET = "zebra-4711"
"""Must come back in no answer."""
RANK, EVENTS, FILE = "POST /v1/surfaces/movies/rank", "POST /v1/events", "PUT /v1/surfaces/extra"


@contextmanager
def impatient(engine: TorchEngine, folder: Path) -> Iterator[Client]:
    """A client to a server that waits for nobody."""
    with Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}") as ledger:
        fill(ledger)
        with served(Services.open(ledger, engine, Registry.shipped(), settings=LIMITS)) as client:
            client.until_ready()
            yield client


def check_ranks(client: Client) -> None:
    """The server ranks on."""
    reply = client.rank(member_id="m1", candidates=["f1"], deadline_ms=20_000)
    assert (reply.status, reply.json["degraded"]) == (200, False)


def check(reply: Reply, status: int) -> None:
    """The status is this one, and an error is a problem that repeats nothing."""
    assert reply.status == status, reply.text[:500]
    if status >= 400:
        assert reply.headers["content-type"] == "application/problem+json"
        assert ProblemDetail.model_validate_json(reply.text, strict=True).status == status
        assert SECRET not in reply.text
        assert len(reply.text) < 5_000
