"""Another model while the server runs: at once, back again, and never a wrong one."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from foundation import model as models
from foundation import tokenizer
from foundation.engine.torch import TorchEngine
from foundation.tokenizer import TextEncoder
from prompts.errors import CheckpointError, UnknownError
from serve.commands.parts import open_calibrations
from serve.models import Opened, Shelf
from serve.server import bind, serving
from serve.services import Services
from surfaces.ledger.records import Item
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from tests.conftest import tiny_config
from tests.serve.conftest import Client, Reply

LONG = 20_000
ASKED = {"member_id": "m1", "candidates": [f"f{n}" for n in range(12)], "k": 12, "deadline_ms": LONG}


@pytest.fixture(scope="module")
def written(tiny_encoder: TextEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models that differ in their weights alone."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("one", "two", "three")):
        models.build(tiny_config(vocab_size=len(tiny_encoder.tokenizer)), seed).save(folder / name, tiny_encoder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """The models, to be changed."""
    return Path(shutil.copytree(written, tmp_path / "models"))


@pytest.fixture
def client(ledger: Ledger, folder: Path) -> Iterator[Client]:
    """A client to a server that serves `one` and may be told to serve others."""
    services = Services.open(ledger, read(folder / "one").engine, Registry.shipped())
    with bind("127.0.0.1", 0) as bound, serving(services, bound, shelf=Shelf(read, folder)) as url:
        client = Client(url, services)
        client.until_ready()
        yield client


OTHER = """\
surface: other
description: Films once more
item_kind: movie
prompt: {instruction: Films., item: "{{ title }}"}
sources: [{type: popular, k: 20}]
heads: [{name: share, type: choice, weight: 1}, {name: save, type: choice, weight: 1}]
"""


def read(folder: Path) -> Opened:
    return Opened(TorchEngine.load(folder), open_calibrations(str(folder)))


def change(client: Client, name: str) -> Reply:
    return client.ask("PUT", "/v1/model", {"model": name})


def near(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether the same model gave both: from the cache a number may differ in its last digits."""
    return one.keys() == other.keys() and all(abs(one[name] - other[name]) <= 1e-5 for name in one)


def utilities(client: Client) -> tuple[str, dict[str, float]]:
    reply = client.rank(**ASKED)
    assert (reply.status, reply.json["degraded"]) == (200, False), reply.text
    return reply.json["model"], {entry["item_id"]: entry["utility"] for entry in reply.json["slate"]}


def test_another_model_serves_and_the_former_one_comes_back(client: Client) -> None:
    version, first = utilities(client)
    assert version.startswith("one@")
    reply = change(client, "two")
    assert reply.status == 200, reply.text
    assert (reply.json["name"], reply.json["former"]) == ("two", {"name": "one", "version": version})
    assert reply.json["available"] == ["nano", "one", "three", "two"]
    now, second = utilities(client)
    assert now == reply.json["version"] == client.ask("GET", "/readyz").json["model"]
    assert not near(first, second)
    for wanted, slate in ((version, first), (now, second)):
        assert client.ask("POST", "/v1/model/rollback").json["version"] == wanted
        again = utilities(client)
        assert again[0] == wanted
        assert near(again[1], slate)


def test_without_a_former_model_there_is_no_way_back(client: Client) -> None:
    reply = client.ask("POST", "/v1/model/rollback")
    assert (reply.status, "no former model" in reply.json["detail"]) == (409, True)
    assert client.ask("GET", "/v1/model").json["former"] is None


def test_only_what_asks_the_model_is_made_anew(client: Client) -> None:
    before = client.services.surface("movies")
    change(client, "two")
    after = client.services.surface("movies")
    pairs = zip(before.spec.sources, before.retrieval.sources, after.retrieval.sources, strict=True)
    same = {kind.type: old.source is new.source for kind, old, new in pairs}
    assert same["co_visitation"]
    assert not same["embedding"]
    assert after.retrieval.advisers is before.retrieval.advisers


def test_a_new_item_is_known_after_a_change(client: Client) -> None:
    client.ask("PUT", "/v1/items", {"items": [{"item_id": "late", "kind": "movie", "title": "Late"}]})
    assert "late" not in client.services.surface("movies").retrieval.index
    change(client, "two")
    assert "late" in client.services.surface("movies").retrieval.index


def test_every_reply_under_changes_is_whole_and_of_one_model(client: Client) -> None:
    """Eight clients rank while the model changes ten times: none fails, and each slate is its version's own."""
    known = dict([utilities(client)])
    change(client, "two")
    known.update([utilities(client)])
    done = threading.Event()

    def work(_: int) -> list[tuple[str, dict[str, float]]]:
        found = []
        while not done.is_set():
            found.append(utilities(client))
        return found

    with ThreadPoolExecutor(8) as pool:
        working = [pool.submit(work, number) for number in range(8)]
        for number in range(10):
            swap = change(client, ("one", "two")[number % 2])
            reply = client.ask("POST", "/v1/model/rollback") if number % 3 == 2 else swap
            assert reply.status == 200, reply.text
        done.set()
        replies = [each for one in working for each in one.result()]
    assert len({version for version, _ in replies}) == 2
    assert all(near(slate, known[version]) for version, slate in replies)


class Held(TorchEngine):
    """An engine that says when it was let go."""

    closed: ClassVar[list[str]] = []

    def close(self) -> None:
        self.closed.append(self.model_version.partition("@")[0])


def test_an_engine_is_closed_when_its_model_goes(ledger: Ledger, folder: Path) -> None:
    def read(path: Path) -> Opened:
        return Opened(Held.load(path), None)

    Held.closed.clear()
    services = Services.open(ledger, read(folder / "one").engine, Registry.shipped())
    with bind("127.0.0.1", 0) as bound, serving(services, bound, shelf=Shelf(read, folder)) as url:
        client = Client(url, services)
        client.until_ready()
        assert [change(client, name).status for name in ("two", "three")] == [200, 200]
        end = time.monotonic() + 10
        while Held.closed != ["one"]:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert sorted(Held.closed) == ["one", "three", "two"]


def test_a_model_that_goes_takes_its_thread_along(client: Client) -> None:
    for name in ("two", "three", "one", "two", "three"):
        assert change(client, name).status == 200
        utilities(client)
    end = time.monotonic() + 10
    while sum(thread.name.startswith("engine") for thread in threading.enumerate()) > 2:
        assert time.monotonic() < end, "only the model that serves and the former one have a thread"
        time.sleep(0.02)


def weights(folder: Path, alter: Callable[[torch.Tensor], torch.Tensor]) -> None:
    file = folder / "model.safetensors"
    save_file({name: alter(tensor) for name, tensor in load_file(file).items()}, file, {"format": "pt"})


def _truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _corrupt(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(b"\xff" * 64 + file.read_bytes()[64:])


def _pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _wrong_shape(folder: Path) -> None:
    weights(folder, lambda tensor: tensor[..., :-1].contiguous() if tensor.ndim == 2 else tensor)


def _not_numbers(folder: Path) -> None:
    weights(folder, lambda tensor: torch.full_like(tensor, float("nan")))


def _layers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 9}))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


DAMAGES = (_truncate, _corrupt, _pickle, _wrong_shape, _not_numbers, _layers, _empty)


def test_a_wrong_model_is_refused_and_the_old_one_serves_on(client: Client, folder: Path, written: Path) -> None:
    before, threads = utilities(client), threading.active_count()
    for damage in DAMAGES:
        shutil.copytree(written / "two", folder / "two", dirs_exist_ok=True)
        damage(folder / "two")
        reply = change(client, "two")
        assert (reply.status, reply.headers["content-type"]) == (422, "application/problem+json"), damage.__name__
        assert "two" in reply.json["detail"]
        assert str(folder) not in reply.text
        version, slate = utilities(client)
        assert version == before[0]
        assert near(slate, before[1])
    assert client.ask("GET", "/v1/model").json["former"] is None
    assert threading.active_count() <= threads + 1, "none of them left a thread"
    assert change(client, "three").status == 200


def test_only_names_of_the_shelf_are_taken(client: Client) -> None:
    for name in ("four", "../one", "one/../two", "/tmp", ".", "two\x00", "a" * 65, ""):
        assert change(client, name).status in (404, 422)
    assert client.ask("GET", "/v1/model").json["name"] == "one"


def test_a_model_that_cannot_rank_a_surface_is_refused(client: Client, folder: Path) -> None:
    """Where a tokenizer knows bytes alone, `share` and `save` begin with the same token."""
    encoder = TextEncoder(tokenizer.train(["0"], 300))
    shutil.rmtree(folder / "two")
    models.build(tiny_config(vocab_size=len(encoder.tokenizer))).save(folder / "two", encoder)
    assert client.ask("PUT", "/v1/surfaces/other", OTHER.encode()).status == 201
    reply = change(client, "two")
    assert (reply.status, "begin with the same token" in reply.json["detail"]) == (422, True), reply.text
    assert utilities(client)[0].startswith("one@")


def test_a_calibration_of_other_weights_is_left_aside(client: Client, folder: Path) -> None:
    (folder / "two" / "calibration.json").write_text(json.dumps({"model": "0" * 12, "surfaces": {}}))
    assert change(client, "two").status == 200
    (folder / "three" / "calibration.json").write_text("{")
    assert change(client, "three").status == 422


def test_a_rollback_makes_ready_what_changed_meanwhile(client: Client) -> None:
    change(client, "two")
    text = client.ask("GET", "/v1/surfaces/movies").json["text"]
    assert (
        client.ask("PUT", "/v1/surfaces/movies", text.replace("deadline_ms: 1000", "deadline_ms: 999").encode()).status
        == 200
    )
    version = client.ask("GET", "/v1/surfaces/movies").json["version"]
    assert client.ask("POST", "/v1/model/rollback").json["name"] == "one"
    reply = client.rank(**ASKED)
    assert (reply.json["surface_version"], reply.json["model"].partition("@")[0]) == (version, "one")


def test_an_erased_member_is_no_item_of_the_former_model(client: Client, ledger: Ledger) -> None:
    ledger.put_items([Item("person", "person", {"name": "M One"}, "m1"), Item("p2", "person", {"name": "M Two"}, "m2")])
    client.services.prepare("people")
    change(client, "two")
    client.ask("DELETE", "/v1/members/m1")
    for _ in range(2):
        assert not client.services.surface("people").knows("m1")
        client.ask("POST", "/v1/model/rollback")


def test_a_shelf_names_what_it_has(folder: Path) -> None:
    (folder / ".hidden").mkdir()
    (folder / "a file").write_text("")
    shelf = Shelf(read, folder)
    assert shelf.names() == ["nano", "one", "three", "two"]
    with pytest.raises(UnknownError, match=r"no model is called 'tow'; did you mean 'two'"):
        shelf.take("tow")
    (folder / "two" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"^two: ") as caught:
        shelf.take("two")
    assert str(folder) not in str(caught.value)
