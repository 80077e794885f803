"""A folder of surfaces as people and editors treat it: renamed, swapped, half written, edited under the server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foundation.engine.base import Engine
from prompts.errors import ConfigError, SpecError
from serve.live import Live
from serve.services import Services
from surfaces.ledger.records import Item
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry, shipped_folder
from tests.serve.conftest import Client, Reply, served
from tests.serve.test_live import EVENING, SHORTER, VIEWER


def named(name: str, text: str = EVENING) -> str:
    return text.replace("surface: evening", f"surface: {name}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two surfaces."""
    path = tmp_path / "mine"
    path.mkdir()
    (path / "a.yaml").write_text(named("a1"), encoding="utf-8")
    (path / "b.yaml").write_text(named("b1"), encoding="utf-8")
    return path


@pytest.fixture
def live(ledger: Ledger, tiny_engine: Engine, folder: Path) -> Live:
    """Surfaces of the folder, as a server would have them that started a moment ago."""
    return Live(Services.open(ledger, tiny_engine, Registry.load([shipped_folder(), folder])), folder)


def test_a_file_may_be_renamed(live: Live, folder: Path) -> None:
    (folder / "a.yaml").rename(folder / "z.yaml")
    assert live.scan() == []
    assert {"a1", "b1"} <= set(live.services.surface_names())
    (folder / "z.yaml").write_text(named("a1", SHORTER), encoding="utf-8")
    assert live.scan() == ["a1"]
    assert live.services.surface("a1").spec.sources[0].k == 5
    assert live.problems == {}


def test_files_may_swap_their_names(live: Live, folder: Path) -> None:
    (folder / "a.yaml").write_text(named("b1"), encoding="utf-8")
    (folder / "b.yaml").write_text(named("a1", SHORTER), encoding="utf-8")
    assert live.scan() == ["a1"]
    assert live.services.surface("a1").spec.sources[0].k == 5
    assert live.problems == {}


def test_a_trunk_file_may_be_renamed(live: Live, folder: Path) -> None:
    (folder / "own.yaml").write_text(VIEWER, encoding="utf-8")
    (folder / "a.yaml").write_text(named("a1") + "trunk: viewer\n", encoding="utf-8")
    live.scan()
    (folder / "own.yaml").rename(folder / "zz.yaml")
    live.scan()
    assert live.problems == {}
    assert live.services.surface("a1").spec.trunk == "viewer"


def test_a_trunk_that_is_needed_stays_when_its_file_goes(live: Live, folder: Path) -> None:
    (folder / "own.yaml").write_text(VIEWER, encoding="utf-8")
    (folder / "a.yaml").write_text(named("a1") + "trunk: viewer\n", encoding="utf-8")
    live.scan()
    (folder / "own.yaml").unlink()
    live.scan()
    assert live.services.surface("a1").spec.trunk == "viewer"
    assert "no trunk is called 'viewer'" in "".join(live.problems.values())


def test_put_and_delete_lose_nothing_that_is_in_the_folder(live: Live, folder: Path) -> None:
    (folder / "films.yaml").write_text(named("vacancies"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"films\.yaml: the folder has this file, and it declares something else"):
        live.put("films", named("films"))
    assert "films" not in live.services.surface_names()
    (folder / "c.yaml").write_text(named("c1"), encoding="utf-8")
    live.put("a1", named("a1", SHORTER))
    assert {"a1", "b1", "c1", "vacancies"} <= set(live.services.surface_names())
    (folder / "b.yaml").write_text(named("b9"), encoding="utf-8")
    live.remove("a1")
    live.scan()
    assert not (folder / "a.yaml").exists()
    assert (folder / "b.yaml").read_text(encoding="utf-8") == named("b9")
    assert {"b9", "c1"} <= set(live.services.surface_names())
    Registry.load([shipped_folder(), folder])


def test_what_changed_while_the_server_started_is_seen(ledger: Ledger, tiny_engine: Engine, folder: Path) -> None:
    services = Services.open(ledger, tiny_engine, Registry.load([shipped_folder(), folder]))
    (folder / "a.yaml").write_text(named("a1", SHORTER), encoding="utf-8")
    (folder / "n.yaml").write_text(named("n1"), encoding="utf-8")
    (folder / "half.yaml").write_text("surface: ha", encoding="utf-8")
    live = Live(services, folder)
    assert set(live.scan()) == {"a1", "n1"}
    assert set(live.problems) == {"half.yaml"}


def test_editors_files_and_pipes_are_no_surfaces(live: Live, folder: Path) -> None:
    (folder / ".#a.yaml").write_text("surface: [", encoding="utf-8")
    os.mkfifo(folder / "pipe.yaml")
    live.scan()
    assert live.problems == {"pipe.yaml": "pipe.yaml: cannot be read: no plain file"}
    (folder / "pipe.yaml").unlink()
    assert "a1" in Registry.load([shipped_folder(), folder]).names()


def test_a_folder_that_takes_no_file_changes_nothing(live: Live, folder: Path) -> None:
    (folder / "c1.yaml").mkdir()
    with pytest.raises(SpecError, match=r"c1\.yaml: the folder has this file"):
        live.put("c1", named("c1"))
    live.folder = folder / "gone"
    with pytest.raises(ConfigError, match=r"d1\.yaml cannot be written: No such file"):
        live.put("d1", named("d1"))
    assert not {"c1", "d1"} & set(live.services.surface_names())
    assert [path.name for path in folder.iterdir() if path.name.startswith(".put-")] == []


def test_a_new_comment_is_a_new_text_of_the_same_version(live: Live) -> None:
    before = live.services.surface("a1").version
    after = live.put("a1", named("a1") + "# a remark\n")
    assert (after.version, after.text.endswith("# a remark\n")) == (before, True)


def test_a_version_with_another_trunk_cannot_come_back_alone(live: Live, folder: Path) -> None:
    (folder / "own.yaml").write_text(VIEWER, encoding="utf-8")
    (folder / "a.yaml").write_text(named("a1") + "trunk: viewer\n", encoding="utf-8")
    live.scan()
    first = live.services.surface("a1").version
    (folder / "own.yaml").write_text(VIEWER.replace("Viewer.", "One who views."), encoding="utf-8")
    live.scan()
    with pytest.raises(SpecError, match=f"'a1' cannot be {first} again: its trunk is another now"):
        live.roll_back("a1", first)


def test_a_shipped_surface_that_cannot_be_served_does_not_come_back(ledger: Ledger, tiny_engine: Engine) -> None:
    """Its items are no members here: `people` is left out at the start, and again when its replacement goes."""
    ledger.put_items([Item("p", "person", {"name": "Ann"})])
    services = Services.open(ledger, tiny_engine, Registry.shipped())
    assert "people" not in services.surface_names()
    plain = named("people").replace("item_kind: movie", "item_kind: person")
    with served(services) as client:
        client.until_ready()
        assert put(client, "people", plain).status == 201
        assert client.ask("DELETE", "/v1/surfaces/people").status == 204
        assert client.ask("GET", "/v1/surfaces/people").status == 404


def put(client: Client, name: str, text: str) -> Reply:
    return client.ask("PUT", f"/v1/surfaces/{name}", text.encode(), content_type="application/yaml")
