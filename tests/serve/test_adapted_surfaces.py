"""Surfaces that name an adapter: loaded at the start, by PUT and from files; one trunk for all; never a 500."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from foundation import adapters
from foundation.engine.base import LeafScores
from foundation.engine.torch import TorchEngine
from foundation.model import build
from foundation.tokenizer import TextEncoder
from prompts.errors import ConfigError, SpecError
from serve.batcher import Batcher, Limits, Scored
from serve.cli import main
from serve.degraded import DegradedError
from serve.live import Live
from serve.pipeline import write
from serve.schemas import RankRequest
from serve.server import bind, serving
from serve.services import Services
from serve.shortlist import draw_up
from surfaces.adapters import Adapters
from surfaces.evaluation.suite import Asked, Suite
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry, shipped_folder
from tests.conftest import tiny_config
from tests.serve.conftest import Client, Controlled, tree_of
from tests.serve.test_live import EVENING, put

LONG = 20_000


def named(surface: str, adapter: str | None = None) -> str:
    """A surface file, whose second line names an adapter."""
    named = "" if adapter is None else f"\nadapter: {adapter}"
    return EVENING.replace("surface: evening", f"surface: {surface}{named}")


def made(engine: TorchEngine, folder: Path, seed: int) -> Path:
    """An adapter's folder for the engine's weights, with updates that tell."""
    ranker = build(tiny_config(vocab_size=len(engine.encoder.tokenizer)))
    torch.manual_seed(seed)
    adapter = adapters.attach(ranker, "new", rank=2)
    for update in adapter.updates:
        nn.init.normal_(update.up_OR, std=0.3)
    adapters.save(adapter, folder, engine.model_version)
    return folder


@pytest.fixture
def base(tiny_encoder: TextEncoder) -> TorchEngine:
    """An engine that no other test adds adapters to."""
    return TorchEngine(build(tiny_config(vocab_size=len(tiny_encoder.tokenizer))), tiny_encoder, "tiny@random")


@pytest.fixture
def folder(base: TorchEngine, tmp_path: Path) -> Path:
    """Two adapters, by name."""
    for seed, name in enumerate(("late", "early")):
        made(base, tmp_path / "adapters" / name, seed)
    return tmp_path / "adapters"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Three surfaces that differ in their adapters alone."""
    path = tmp_path / "surfaces"
    path.mkdir()
    for surface, adapter in (("plain", None), ("one", "late"), ("two", "early")):
        (path / f"{surface}.yaml").write_text(named(surface, adapter), encoding="utf-8")
    return path


@pytest.fixture
def services(ledger: Ledger, base: TorchEngine, folder: Path, files: Path) -> Services:
    registry = Registry.load([shipped_folder(), files])
    return Services.open(ledger, base, registry, adapters=folder)


@pytest.fixture
def client(services: Services, files: Path) -> Iterator[Client]:
    """A client to a server that follows the files."""
    with bind("127.0.0.1", 0) as bound, serving(services, bound, files) as url:
        client = Client(url, services)
        client.until_ready()
        yield client


def utilities(client: Client, surface: str) -> dict[str, float]:
    reply = client.rank(surface, member_id="m1", k=40, deadline_ms=LONG)
    assert (reply.status, reply.json["degraded"]) == (200, False), reply.text
    return {entry["item_id"]: entry["utility"] for entry in reply.json["slate"]}


def far(one: dict[str, float], other: dict[str, float]) -> float:
    assert one.keys() == other.keys()
    return max(abs(one[item_id] - other[item_id]) for item_id in one)


def test_each_surface_is_ranked_under_its_own_adapter(client: Client) -> None:
    plain, one, two = (utilities(client, name) for name in ("plain", "one", "two"))
    assert min(far(plain, one), far(plain, two), far(one, two)) > 1e-3
    assert client.ask("GET", "/v1/surfaces/one").json["spec"]["adapter"] == "late"


def test_surfaces_of_a_member_share_one_trunk_whatever_their_adapters(services: Services, base: TorchEngine) -> None:
    """In one batch the trunk is computed once, and found when it comes again; the scores are those of each alone."""
    request = RankRequest(member_id="m1", k=5)
    trees = []
    for name in ("plain", "one", "two"):
        surface = services.surface(name)
        trees.append(write(surface, draw_up(request, surface, services.ledger), services).tokens)
    trunks, stems = {tree.nodes[0] for tree in trees}, [len(tree.nodes[1].slots) for tree in trees]
    assert len(trunks) == 1
    before = replace(base.cache_stats)
    together = base.score(trees)
    assert base.cache_stats.missed_slots - before.missed_slots == len(trees[0].nodes[0].slots) + sum(stems)
    again = replace(base.cache_stats)
    base.score(trees)
    assert base.cache_stats.missed_slots == again.missed_slots
    for tree, found in zip(trees, together, strict=True):
        base.forget()
        assert np.abs(base.score([tree])[0].table() - found.table()).max() <= 1e-5


def test_a_surface_whose_adapter_is_not_there_is_refused_with_its_line(
    ledger: Ledger, base: TorchEngine, folder: Path, files: Path
) -> None:
    (files / "one.yaml").write_text(named("one", "lade"), encoding="utf-8")
    registry = Registry.load([shipped_folder(), files])
    place = f"{files / 'one.yaml'}:2:10: adapter: "
    with pytest.raises(SpecError) as caught:
        Services.open(ledger, base, registry, adapters=folder)
    assert str(caught.value) == f"{place}no adapter is called 'lade' in the folder of adapters; did you mean 'late'?"
    with pytest.raises(SpecError, match="the folder that holds it is given with --adapters"):
        Services.open(ledger, base, registry)
    with pytest.raises(ConfigError, match="no such folder; give one that holds a folder for each adapter"):
        Services.open(ledger, base, registry, adapters=folder / "none")
    with pytest.raises(SpecError, match="the engine 'torch' takes no adapters"):
        Services.open(ledger, Controlled(base), registry, adapters=folder)


def test_an_adapter_that_the_engine_has_already_needs_no_folder(
    ledger: Ledger, base: TorchEngine, folder: Path
) -> None:
    base.add_adapter("late", folder / "late")
    services = Services.open(ledger, base, Registry.shipped())
    assert services.add(named("one", "late"), "one.yaml").spec.adapter == "late"


def test_put_loads_what_the_surface_names_or_refuses_it(client: Client, base: TorchEngine, folder: Path) -> None:
    reply = put(client, named("plain", "third"), "plain")
    assert reply.status == 422
    assert reply.json["detail"].startswith("plain.yaml:2:10: adapter: no adapter is called 'third' in the folder")
    before = utilities(client, "plain")
    made(base, folder / "third", seed=7)
    assert put(client, named("plain", "third"), "plain").status == 200
    assert far(before, utilities(client, "plain")) > 1e-3
    assert put(client, named("four", "Third"), "four").status == 422


def test_put_of_another_models_adapter_names_the_file_and_no_path(
    client: Client, base: TorchEngine, folder: Path
) -> None:
    base.model_version = "tiny@other"
    made(base, folder / "alien", seed=7)
    base.model_version = "tiny@random"
    reply = put(client, named("plain", "alien"), "plain")
    assert reply.status == 422
    assert "alien/adapter_config.json: revision: it belongs to version 'other'" in reply.json["detail"]
    assert str(folder) not in reply.text


def test_an_adapter_that_is_removed_degrades_its_own_surface_only(client: Client, base: TorchEngine) -> None:
    base.remove_adapter("late")
    reply = client.rank("one", member_id="m1", k=5, deadline_ms=LONG)
    assert (reply.status, reply.json["degraded"], reply.json["reason"]) == (200, True, "engine")
    assert len(reply.json["slate"]) == 5
    assert utilities(client, "two")
    assert put(client, named("one", "late"), "one").status == 200, "the same file again brings it back"
    assert utilities(client, "one")


def test_a_removed_adapter_does_not_take_the_batch_with_it(base: TorchEngine, folder: Path) -> None:
    base.add_adapter("early", folder / "early")
    plain = base.read(tree_of(3))
    trees = [plain, plain.adapted("late"), plain.adapted("early"), plain.adapted("late")]
    alone: list[LeafScores] = [base.score([tree])[0] for tree in (plain, trees[2])]

    async def work() -> list[Scored | BaseException]:
        batcher = Batcher(base, Limits(gather_s=0.05))
        with batcher.running():
            until = asyncio.get_running_loop().time() + 10
            asked = (batcher.score(tree, until) for tree in trees)
            return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(work())
    for place, expected in zip((0, 2), alone, strict=True):
        scored = found[place]
        assert isinstance(scored, Scored)
        assert np.abs(scored.scores.table() - expected.table()).max() <= 1e-5
    assert [each.reason for each in found if isinstance(each, DegradedError)] == ["engine", "engine"]


def test_new_weights_in_the_folder_are_taken_up_and_wrong_ones_refused(
    services: Services, base: TorchEngine, folder: Path, files: Path
) -> None:
    live = Live(services, files)
    live.scan()
    tree = base.read(tree_of(3)).adapted("late")
    first = base.score([tree])[0].table()
    surface = services.surface("one")
    made(base, folder / "late", seed=9)
    assert live.scan() == [], "no surface changed"
    second = base.score([tree])[0].table()
    assert np.abs(first - second).max() > 1e-3
    weights = folder / "late" / adapters.WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:100])
    live.scan()
    assert set(live.problems) == {"one.yaml"}
    assert live.problems["one.yaml"].startswith(
        "one.yaml:2:10: adapter: late/adapter_model.safetensors: cannot be read"
    )
    assert np.abs(second - base.score([tree])[0].table()).max() <= 1e-6
    assert services.surface("one") is surface
    (files / "two.yaml").write_text(named("two", "early") + "# a remark\n", encoding="utf-8")
    assert live.put("plain", named("plain", "early")).spec.adapter == "early", "another surface's adapter is wrong"
    made(base, folder / "late", seed=0)
    live.scan()
    assert live.problems == {}
    assert np.abs(first - base.score([tree])[0].table()).max() <= 1e-6


def test_a_dropped_in_file_may_wait_for_its_adapter(
    services: Services, base: TorchEngine, folder: Path, files: Path
) -> None:
    live = Live(services, files)
    (files / "new.yaml").write_text(named("new", "soon"), encoding="utf-8")
    assert live.scan() == []
    assert "no adapter is called 'soon'" in live.problems["new.yaml"]
    made(base, folder / "soon", seed=5)
    assert live.scan() == ["new"]
    assert live.problems == {}


def test_an_evaluation_ranks_under_the_adapter_and_says_so(
    ledger: Ledger, base: TorchEngine, folder: Path, files: Path
) -> None:
    registry = Registry.load([shipped_folder(), files])
    told = {
        name: Suite(
            Asked(name, against=("popular",), budget=1), registry, ledger, base, adapters=Adapters(base, folder)
        ).run()
        for name in ("plain", "one")
    }
    version = Adapters(base, folder)
    version.load(registry.declared("one"))
    assert told["plain"].told["model"] == "tiny@random"
    assert told["one"].told["model"] == f"tiny@random+late@{version.version('late')}"
    values = [np.array(told[name].results["foundation"].values("auc")) for name in ("plain", "one")]
    assert np.abs(values[0] - values[1]).max() > 0


def test_evaluate_takes_a_folder_of_adapters(
    ledger: Ledger, base: TorchEngine, folder: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base.ranker.save(tmp_path / "model", base.encoder)
    base.model_version = TorchEngine.load(tmp_path / "model").model_version
    shutil.rmtree(folder / "late")
    made(base, folder / "late", seed=3)
    common = ["evaluate", "one", "--ledger", f"sqlite:///{tmp_path / 'ledger.sqlite'}", "--surfaces", str(files)]
    common += ["--model", str(tmp_path / "model"), "--against", "random"]
    assert main([*common, "--adapters", str(folder), "--json", str(tmp_path / "found.json")]) == 0
    assert "+late@" in (tmp_path / "found.json").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(common) == 2
    assert "one.yaml:2:10: adapter: no adapter is called 'late'; the folder" in capsys.readouterr().err


def test_serve_refuses_a_folder_of_adapters_that_is_none(
    ledger: Ledger, base: TorchEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base.ranker.save(tmp_path / "model", base.encoder)
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    common = ["serve", "--ledger", url, "--model", str(tmp_path / "model"), "--port", "0"]
    assert main([*common, "--adapters", str(tmp_path / "none")]) == 2
    assert "none: no such folder; give one that holds a folder for each adapter" in capsys.readouterr().err
