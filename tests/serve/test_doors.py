"""Who comes in, and who does not."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prompts.errors import ConfigError, UnknownError
from serve.app import create_app
from serve.cli import main
from serve.doors import ROUTES, UNKNOWN, check_host, place_of
from serve.keys import Bucket, Key, Keys, digest, make, revoke
from serve.server import bind, serving
from serve.services import Services
from tests.serve.conftest import Client, Reply

OPEN_PATHS = {"/livez", "/readyz"}


def every_route(services: Services) -> Iterator[tuple[str, str]]:
    """Method and path of everything that the application answers."""
    app = create_app(services)
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            yield method.upper(), path
    for route in app.routes:
        if path := getattr(route, "path", None):
            yield "GET", path


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "keys.yaml"
    return {
        "ranker": make(file, "ranker", ["rank"]),
        "movies": make(file, "movies", ["rank"], surfaces=["movies"]),
        "writer": make(file, "writer", ["write"]),
        "scraper": make(file, "scraper", ["metrics"]),
        "boss": make(file, "boss", ["admin"]),
        "slow": make(file, "slow", ["rank"], rate=0.5, burst=2),
    }


@pytest.fixture
def locked(services: Services, tmp_path: Path, secrets: dict[str, str]) -> Iterator[Client]:
    with bind("127.0.0.1", 0) as bound, serving(services, bound, keys=Keys.load(tmp_path / "keys.yaml")) as url:
        client = Client(url, services)
        client.until_ready()
        yield client


def ask(client: Client, secret: str, method: str = "GET", path: str = "/v1/surfaces", body: object = None) -> Reply:
    return client.ask(method, path, body, authorization=f"Bearer {secret}")


def test_every_route_is_classed(services: Services) -> None:
    """A new route fails here until `ROUTES` says whom it is for."""
    found = set(every_route(services))
    assert {(method, path) for path, methods in ROUTES.items() for method in methods} == found
    assert {path for path, methods in ROUTES.items() if "open" in methods.values()} == OPEN_PATHS


def test_without_a_key_only_the_probes_answer(locked: Client, services: Services) -> None:
    for method, path in {*every_route(services), ("GET", "/nothing"), ("PATCH", "/v1/surfaces"), ("OPTIONS", "/docs")}:
        reply = locked.ask(method, path.replace("{surface}", "movies"))
        if path in OPEN_PATHS:
            assert reply.status == 200
        else:
            assert reply.status == 401, path
            assert reply.headers["content-type"] == "application/problem+json"
            assert reply.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic abc", "Bearer pr_wrong", "bearer " + "x" * 5000, "\xff"]
)
def test_what_is_no_key_opens_nothing(locked: Client, value: str) -> None:
    assert locked.ask("GET", "/v1/surfaces", authorization=value).status == 401


def test_without_keys_everything_is_open(shared: Client) -> None:
    assert shared.ask("GET", "/v1/surfaces").status == 200
    assert shared.ask("GET", "/metrics").status == 200


def test_a_key_opens_what_its_scope_says(locked: Client, secrets: dict[str, str]) -> None:
    rank = {"member_id": "m1", "k": 1}
    asked = {
        "rank": ("POST", "/v1/surfaces/movies/rank", rank),
        "list": ("GET", "/v1/surfaces", None),
        "figures": ("GET", "/metrics", None),
        "change": ("DELETE", "/v1/surfaces/movies", None),
    }
    opened = {
        name: {
            what
            for what, (method, path, body) in asked.items()
            if ask(locked, secrets[name], method, path, body).status < 400
        }
        for name in ("ranker", "movies", "writer", "scraper")
    }
    assert opened == {"ranker": {"rank", "list"}, "movies": {"rank", "list"}, "writer": set(), "scraper": {"figures"}}
    reply = ask(locked, secrets["ranker"], "DELETE", "/v1/surfaces/movies")
    assert (reply.status, reply.headers["content-type"]) == (403, "application/problem+json")
    assert "needs the scope 'admin'" in reply.json["detail"]
    assert ask(locked, secrets["boss"], "GET", "/metrics").status == 200
    assert ask(locked, secrets["boss"], "DELETE", "/v1/surfaces/movies").status == 409, "it comes with the package"
    assert ask(locked, secrets["boss"], "PATCH", "/v1/surfaces").status == 405
    assert ask(locked, secrets["boss"], "GET", "/nothing").status == 404


def test_a_key_for_one_surface_names_no_other(locked: Client, secrets: dict[str, str]) -> None:
    reply = ask(locked, secrets["movies"], "POST", "/v1/surfaces/feed/rank", {"member_id": "m1"})
    assert (reply.status, "for other surfaces: movies" in reply.json["detail"]) == (403, True)
    assert ask(locked, secrets["movies"], "GET", "/v1/surfaces/nothing").status == 403, "nor whether there is one"
    assert [line["surface"] for line in ask(locked, secrets["movies"]).json["surfaces"]] == ["movies"]


def test_the_rate_of_a_key_is_its_own_and_retry_after_is_true(locked: Client, secrets: dict[str, str]) -> None:
    assert [ask(locked, secrets["slow"]).status for _ in range(2)] == [200, 200]
    reply = ask(locked, secrets["slow"])
    assert (reply.status, reply.headers["content-type"]) == (429, "application/problem+json")
    assert ask(locked, secrets["ranker"]).status == 200
    wait = int(reply.headers["retry-after"])
    assert 1 <= wait <= 2
    time.sleep(wait)
    assert ask(locked, secrets["slow"]).status == 200


def test_a_body_is_not_read_without_a_key(locked: Client) -> None:
    """The answer comes while the body still waits for its first byte."""
    with socket.create_connection(("127.0.0.1", locked.port), timeout=10) as connection:
        head = "POST /v1/surfaces/movies/rank HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 401")


def test_a_bucket_fills_at_its_rate() -> None:
    bucket = Bucket(rate=2.0, burst=3)
    start = bucket.since
    assert [bucket.take(start) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(start + 0.4) == pytest.approx(0.1)
    assert bucket.take(start + 0.6) == 0
    assert [bucket.take(start + 100) for _ in range(4)] == [0, 0, 0, 0.5], "never more than the burst"


def test_the_place_of_a_request() -> None:
    assert place_of("POST", "/v1/surfaces/movies/rank") == ("/v1/surfaces/{surface}/rank", "rank", "movies")
    assert place_of("HEAD", "/v1/surfaces").needs == "rank"
    assert place_of("PURGE", "/v1/surfaces").needs == "admin"
    for path in ("/v1/surfaces/a/b/rank", "/v1/surfaces//rank", "/livez/", "/livez\n", "/xlivez", "//livez", ""):
        assert place_of("GET", path) == (UNKNOWN, "admin", None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", "", "fe80::1%eth0"])
def test_beyond_this_machine_it_needs_keys(host: str) -> None:
    with pytest.raises(ConfigError, match="there are no keys: make one with `prismrank keys new NAME"):
        check_host(host, Keys())
    check_host(host, Keys([Key(name="a", hash="0" * 64, scopes=("rank",))]))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_this_machine_it_needs_none(host: str) -> None:
    check_host(host, Keys())


def test_serve_refuses_to_listen_beyond_this_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", "--ledger", f"sqlite:///{tmp_path}/absent.sqlite", "--host", "0.0.0.0"]) == 2
    assert "there are no keys" in capsys.readouterr().err


def test_a_file_of_keys_holds_no_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "keys.yaml")
    assert main(["keys", "new", "site", "--file", file, "--scope", "rank", "--surface", "movies", "--rate", "5"]) == 0
    secret = capsys.readouterr().out.strip()
    assert secret.startswith("pr_")
    assert len(secret) > 40
    text = Path(file).read_text()
    assert secret not in text
    assert digest(secret) in text
    assert Path(file).stat().st_mode & 0o077 == 0
    found = Keys.load(Path(file)).find(secret)
    assert found
    assert (found.name, found.scopes, found.surfaces, found.rate) == ("site", ("rank",), ("movies",), 5)
    assert main(["keys", "list", "--file", file]) == 0
    assert capsys.readouterr().out == "site: rank; on movies; 5 a second\n"
    assert main(["keys", "revoke", "site", "--file", file]) == 0
    assert list(Keys.load(Path(file))) == []
    with pytest.raises(UnknownError, match="no key is called 'site'"):
        revoke(Path(file), "site")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a file of keys is 'keys:'"),
        ("keys: 3", "a file of keys is 'keys:'"),
        ("keys: []\nmore: 1", "a file of keys is 'keys:'"),
        ("{", "it is no YAML"),
        ("[" * 5000, "it is no YAML"),
        ("keys: [{name: a}]", "keys/0: hash: Field required"),
        ("keys: [{name: a, hash: abc, scopes: [rank]}]", "keys/0: hash: "),
        (f"keys: [{{name: a, hash: '{'0' * 64}', scopes: [fly]}}]", "keys/0: scopes/0: "),
        (f"keys: [{{name: a, hash: '{'0' * 64}', scopes: []}}]", "keys/0: scopes: "),
        (f"keys: [{{name: a, hash: '{'0' * 64}', scopes: [rank], rate: 0}}]", "keys/0: rate: "),
        (f"keys: [{{name: a, hash: '{'0' * 64}', scopes: [rank], secret: x}}]", "keys/0: secret: "),
        ("keys:\n" + f"- {{name: a, hash: '{'0' * 64}', scopes: [rank]}}\n" * 2, "two keys are called 'a'"),
    ],
)
def test_what_is_no_file_of_keys_is_told(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=why):
        Keys.load(file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`prismrank keys new NAME --file .*` makes one"):
        Keys.load(tmp_path / "keys.yaml")


def test_a_name_is_given_once(tmp_path: Path) -> None:
    make(tmp_path / "keys.yaml", "site", ["rank"])
    with pytest.raises(ConfigError, match="two keys are called 'site'"):
        make(tmp_path / "keys.yaml", "site", ["rank"])
    with pytest.raises(ConfigError, match="key 'other': scopes/0"):
        make(tmp_path / "keys.yaml", "other", ["fly"])
