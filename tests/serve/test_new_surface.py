"""From a ledger to the first ranked slate of a surface that no model has ever seen: one file, no Python, no restart.

pytest -s tests/serve/test_new_surface.py     # prints how long each step took
"""

from __future__ import annotations

import json
import random
import time
from itertools import pairwise
from pathlib import Path

import pytest

from serve.cli import main
from serve.commands.parts import open_engine
from serve.server import bind, serving
from serve.services import Services
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry, shipped_folder
from tests.serve.conftest import Client

LIMIT_S = 120.0
DISHES = ("soup", "salad", "curry", "pie", "stew", "noodles")
PLACES = ("Naples", "Osaka", "Lima", "Tbilisi", "Oaxaca")


def recipes(folder: Path) -> Path:
    """A ledger folder of recipes that members cook, save or skip: a kind of item that no shipped surface knows."""
    rng = random.Random(0)
    items = [
        {
            "item_id": f"r{n}",
            "kind": "recipe",
            "title": f"{DISHES[n % 6].title()} of {PLACES[n % 5]} number {n}",
            "cuisine": PLACES[n % 5],
            "minutes": 10 + n % 50,
        }
        for n in range(120)
    ]
    members = [{"member_id": f"m{n}", "home": PLACES[n % 5]} for n in range(60)]
    events = [
        {
            "member_id": f"m{n}",
            "item_id": f"r{rng.randrange(24) * 5 + n % 5}",
            "surface": "kitchen",
            "action": rng.choices(("show", "cook", "save", "skip"), (6, 3, 2, 1))[0],
            "timestamp": 1_700_000_000 + 3_600 * place + n,
        }
        for n in range(60)
        for place in range(30)
    ]
    for name, rows in (("items", items), ("members", members), ("events", events)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_a_new_surface_online_in_minutes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url, out = f"sqlite:///{tmp_path / 'kitchen.sqlite'}", tmp_path / "mine"
    out.mkdir()
    (tmp_path / "folder").mkdir()
    assert main(["import", str(recipes(tmp_path / "folder")), "--ledger", url]) == 0
    services = Services.open(Ledger.open(url), open_engine("nano"), Registry.load([shipped_folder()]))
    with bind("127.0.0.1", 0) as bound, serving(services, bound) as address:
        client = Client(address, services)
        client.until_ready()
        laps = [("", time.monotonic())]
        made = ["surface", "init", "kitchen", "--kind", "recipe", "--ledger", url, "--out", str(out), "--no-input"]
        assert main(made) == 0
        laps.append(("init", time.monotonic()))
        (file,) = out.glob("*.yaml")
        assert main(["surface", "check", str(file), "--ledger", url]) == 0
        laps.append(("check", time.monotonic()))
        assert main(["surface", "preview", str(file), "--ledger", url, "--member", "m3"]) == 0
        laps.append(("preview", time.monotonic()))
        put = client.ask("PUT", "/v1/surfaces/kitchen", file.read_bytes(), content_type="application/yaml")
        assert put.status == 201, put.text
        laps.append(("PUT", time.monotonic()))
        reply = client.rank("kitchen", member_id="m3", k=10, deadline_ms=20_000)
        laps.append(("first slate", time.monotonic()))
    assert (reply.status, reply.json["degraded"]) == (200, False)
    assert reply.json["surface_version"] == put.json["version"]
    assert len(reply.json["slate"]) == 10
    assert all(name.startswith("r") for name in reply.item_ids)
    assert [path.suffix for path in out.iterdir() if path.suffix != ".json"] == [".yaml"], "one file"
    assert laps[-1][1] - laps[0][1] < LIMIT_S
    with capsys.disabled():
        steps = [f"{name} {now - before:.1f} s" for (_, before), (name, now) in pairwise(laps)]
        print(f"\na new surface: {', '.join(steps)}")
