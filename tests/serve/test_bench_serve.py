"""`prismrank bench serve`: that its figures are there and mean what they say, never that they are good."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from foundation.engine.torch import TorchEngine
from serve.bench import picture, run
from serve.bench.clients import clients
from serve.bench.endings import Tally
from serve.bench.flood import flood
from serve.bench.load import NONE, Load, Sample, arrivals, closed_loop, open_loop
from serve.bench.process import Server
from serve.bench.reading import Bound, Found, between, degraded, errors, parsed, percentile, read, slope, statuses
from serve.bench.soak import MIX, drawn
from serve.bench.stage import ALONE, Asked, Stage, Workload, copied
from serve.bench.wire import Connection, NoAnswerError, Pool, encoded
from serve.cli import main
from serve.figures import Figures
from serve.services import Services
from serve.settings import Settings
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from tests.serve.conftest import served

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
REPLY = b'{"surface": "movies", "degraded": false, "model": "tiny@1"}'


@asynccontextmanager
async def listening(handle: Handler) -> AsyncIterator[str]:
    """A server that does what the handler does to each connection; gives its URL."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def answering(delay_s: float, times: int = 1_000, more: str = "") -> Handler:
    """Answers so many requests of a connection, each after a while, then closes it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(times):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
            await asyncio.sleep(delay_s)
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(REPLY)}\r\n{more}\r\n".encode() + REPLY)
        writer.close()

    return handle


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert percentile([7.0], 0.99) == percentile([7.0], 0.0) == 7.0
    assert math.isnan(percentile([], 0.5))


def test_a_slope_is_what_grows_with_time() -> None:
    minutes = list(np.linspace(0, 10, 50))
    noise = np.random.default_rng(0).normal(0, 0.1, 50)
    assert slope(minutes, [300 + 2.5 * at + wrong for at, wrong in zip(minutes, noise, strict=True)]) == pytest.approx(
        2.5, abs=0.1
    )
    assert slope(minutes, [300.0] * 50) == pytest.approx(0, abs=1e-9)
    assert slope([1.0], [5.0]) == slope([], []) == 0.0


def test_arrivals_are_a_poisson_process() -> None:
    due = arrivals(200, 50, seed=3)
    assert due == sorted(due) == arrivals(200, 50, seed=3) != arrivals(200, 50, seed=4)
    assert 0 < due[0] < due[-1] < 50
    assert len(due) == pytest.approx(200 * 50, rel=0.05)
    assert arrivals(1e-9, 1) == [0.0]
    gaps = [later - sooner for sooner, later in pairwise(due)]
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.05), (
        "gaps of a Poisson process spread as far as they last"
    )


async def _slow(ways: str) -> Load:
    busy = asyncio.Lock()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with busy:  # one connection after the other
            await answering(0.1, times=1, more="Connection: close\r\n")(reader, writer)

    async with listening(handle) as url:
        pool, request = Pool(url), repeat(encoded("POST", "/", {}))
        if ways == "open":
            return await open_loop(pool, request, [0.0, 0.01, 0.02, 0.03], 0.1)
        return await closed_loop(pool, request, 2, 0.3)


def test_in_an_open_loop_time_counts_from_when_a_request_was_due() -> None:
    load = asyncio.run(_slow("open"))
    took = [sample.took for sample in load.samples]
    assert [sample.due for sample in load.samples] == [0.0, 0.01, 0.02, 0.03]
    assert took[-1] > 0.35, "it waited for three others"
    assert all(sample.sent - sample.due < 0.09 for sample in load.samples), "the generator waits for nobody"
    assert all(sample.good and sample.model == "tiny@1" for sample in load.samples)


def test_in_a_closed_loop_a_client_waits_for_its_reply() -> None:
    load = asyncio.run(_slow("closed"))
    assert 2 <= len(load.samples) <= 5
    assert [sample.due for sample in load.samples] == sorted(sample.due for sample in load.samples)


async def _connections(times: int, more: str = "") -> tuple[list[int], list[NoAnswerError]]:
    """Statuses of four requests to a server that answers so many a connection, and what was raised."""
    found, raised = list[int](), list[NoAnswerError]()
    async with listening(answering(0.0, times, more)) as url:
        pool, request = Pool(url), encoded("POST", "/", {"k": 1})
        for _ in range(4):
            try:
                found.append((await pool.ask(request)).status)
            except NoAnswerError as error:
                raised.append(error)
        pool.close()
    with pytest.raises(NoAnswerError) as refused:
        await Connection.open(url)
    return found, [*raised, refused.value]


def test_a_connection_is_used_again_and_one_that_ends_is_not() -> None:
    found, (refused,) = asyncio.run(_connections(1_000))
    assert found == [200] * 4
    assert (refused.sent, refused.accepted) == (False, False)
    found, errors = asyncio.run(_connections(1, "Connection: close\r\n"))
    assert (found, len(errors)) == ([200] * 4, 1)
    found, errors = asyncio.run(_connections(0))
    assert found == []
    assert all(error.sent and not error.accepted for error in errors[:-1])


def test_what_is_read_off_a_load() -> None:
    good = [Sample(at / 10, at / 10 + 0.001, at / 10 + 0.2, 200) for at in range(8)]
    late = Sample(0.8, 0.8, 2.5, 200)
    slow, gone = Sample(0.85, 0.85, 1.9, 200, "deadline"), Sample(0.9, 0.98, 1.0, NONE)
    load = Load(1.0, [*good, late, slow, gone])
    row = read(load, 1.0)
    assert (row["requests"], row["offered_per_s"], row["goodput_per_s"]) == (11, 11.0, 8.0)
    assert (row["replies_per_s"], row["kept_up"]) == (8.0, "no")
    assert [row["p50_ms"], row["p99_ms"]] == pytest.approx([200, 1700])
    assert degraded(load)["degraded"] == degraded(load)["degraded_deadline"] == pytest.approx(1 / 11)
    assert statuses([*load.samples, Sample(0, 0, 0, 500)]) == "none: 1, 200: 10, 500: 1"
    assert errors(Load(1.0, [*load.samples, Sample(0, 0, 0, 500), Sample(0, 0, 0, 503)])) == 2


def test_what_is_read_off_the_metrics() -> None:
    figures = Figures()
    figures.batched(2, 500, 0.02)
    before = parsed(figures.text())
    for trees, seconds in ((4, 0.05), (8, 0.07)):
        figures.batched(trees, 900, seconds)
    hits = "prismrank_cache_hit_slots_total 30.0\nprismrank_cache_missed_slots_total 10.0\n"
    told = between(before, parsed(figures.text() + hits))
    assert told == pytest.approx({"batch_trees": 6.0, "batch_ms": 60.0, "cache_hit": 0.75})
    assert between(before, before) == {"batch_trees": 0.0, "batch_ms": 0.0, "cache_hit": 0.0}


def test_a_curve_is_drawn_with_gaps() -> None:
    names = [figure for panel in picture.PANELS for figure in panel.figures]
    full, empty = dict.fromkeys(names, 2.0), dict.fromkeys(names)
    assert picture.draw([{"load": 1.0, **full}, {"load": 2.0, **empty}]).startswith(b"\x89PNG")
    assert picture.draw([{"load": 1.0, **empty}]).startswith(b"\x89PNG")


def test_a_promise_is_kept_or_not() -> None:
    assert [Bound("", value, 2).kept for value in (1, 2, 3)] == [True, True, False]
    assert [Bound("", value, 2, at_least=True).kept for value in (1, 2, math.nan)] == [False, True, False]


def test_what_counts_as_lost_when_a_process_ends() -> None:
    tally = Tally(told=10.0)
    sent, used, half = ((True, False), (True, True), (False, True))
    for (whole, accepted), began in ((sent, 9.0), (used, 9.0), (used, 11.0), (sent, 11.0), (half, 9.0)):
        tally.count(NoAnswerError(sent=whole, accepted=accepted), began)
    assert (tally.lost, tally.late, tally.refused) == (2, 1, 2)


def test_the_mix_of_a_soak() -> None:
    assert sum(MIX.values()) == pytest.approx(1)
    kinds = drawn(20_000)
    assert {kind: kinds.count(kind) / 20_000 for kind in MIX} == pytest.approx(MIX, abs=0.02)


def test_a_figure_of_nothing_is_null_and_shown(tmp_path: Path) -> None:
    found = {"curve": Found("nothing", [{"load": 1.0, "p99_ms": math.nan, "kept_up": "no"}], [Bound("x", math.nan, 1)])}
    told = run.to_json(found, Asked("", "m", "movies", tmp_path))
    assert told["scenarios"]["curve"]["rows"][0]["p99_ms"] is None
    assert told["scenarios"]["curve"]["bounds"][0]["kept"] is False
    assert [table.row_count for table in run.to_tables(found)] == [2, 1]
    assert run.to_tables(found)[0].caption


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "flod"], "no scenario is called 'flod'; did you mean 'flood'?"),
        (["--only", "flood,flood"], "each once"),
        (["--only", "flood", "--plot", "x.png"], "--plot draws the scenario 'curve'"),
        (["--ledger", "sqlite:////nowhere/at/all.sqlite"], "no folder /nowhere/at"),
        (["--json", "/nowhere/x.json"], "there is no folder /nowhere"),
        (["--surface", "jobs"], "the ledger has too few members"),
        (["--candidates", "1000"], "or fewer than 1000 items to rank"),
    ],
)
def test_what_cannot_be_measured_is_told_first(
    arguments: list[str], words: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "serve", "--ledger", url, *arguments]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_the_usual_scenarios_take_five_minutes_at_most() -> None:
    assert run.USUAL == "curve,clients,flood"
    assert run.budget(run.named(run.USUAL), None).endswith("about 5 minutes")


class Here(Server):
    """A server in a thread of this process, as if it were one of its own."""

    def __init__(self, url: str) -> None:
        self.url, self._pool = url, None
        self.process = cast("Any", SimpleNamespace(pid=os.getpid(), poll=lambda: 0, wait=lambda _: 0))


@pytest.fixture
def stage(ledger: Ledger, tiny_engine: TorchEngine, tmp_path: Path) -> Iterator[Stage]:
    """A stage with a server whose batches are as large as they may be, and one whose batches are one tree."""
    asked = Asked("", "", "movies", tmp_path, seconds=1.2, rounds=1)
    made = Stage(asked, Workload(ledger, "movies"))
    registry = Registry.load([Path(str(Registry.shipped().declared("movies").where)).parent, made.surfaces()])
    with (
        served(Services.open(ledger, tiny_engine, registry)) as usual,
        served(Services.open(ledger, tiny_engine, registry, settings=Settings(batch_slots=64))) as alone,
    ):
        usual.until_ready()
        alone.until_ready()
        made._running = {"": Here(usual.url), ALONE: Here(alone.url)}
        yield made


def test_clients_and_floods(stage: Stage) -> None:
    async def both() -> tuple[Found, Found]:
        try:
            return await clients(stage), await flood(stage)
        finally:
            await stage.close()

    company, flooded = asyncio.run(both())
    one, sixteen, alone = company.rows[:3]
    assert [one["way"], alone["way"]] == ["one client", "sixteen, no batching"]
    assert one["batch_trees"] == alone["batch_trees"] == 1.0
    assert float(sixteen["batch_trees"]) >= 1.0
    assert len(company.bounds) == 4
    assert [float(row["flood_requests"]) > 0 for row in flooded.rows] == [False, True, True]
    assert [bound.allowed > 0 for bound in flooded.bounds] == [True, True]


def test_a_ledger_of_the_user_is_copied(url: str, tmp_path: Path) -> None:
    copy = copied(url, tmp_path)
    assert copy != url
    with Ledger.open(copy) as made, Ledger.open(url) as known:
        assert made.counts() == known.counts()
    assert copied("postgresql://me@host/films", tmp_path) == "postgresql://me@host/films"


def measured(names: str, model: str, url: str, tmp_path: Path, *more: str) -> dict[str, Any]:
    """The scenarios' figures, through the command line."""
    out = tmp_path / "figures.json"
    common = ["bench", "serve", "--model", model, "--ledger", url, "--only", names, "--json", str(out)]
    assert main([*common, *more]) == 0
    told = json.loads(out.read_text("utf-8"))
    assert told["machine"]["processor"]
    scenarios: dict[str, Any] = told["scenarios"]
    assert list(scenarios) == names.split(",")
    return scenarios


def test_a_curve_and_an_overload_of_a_process(
    model: str, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    few = ("--candidates", "5")
    png, before = tmp_path / "curve.png", Path(url.removeprefix("sqlite:///")).read_bytes()
    found = measured("curve,overload", model, url, tmp_path, "--seconds", "0.7", "--plot", str(png), *few)
    told = capsys.readouterr()
    assert "curve, overload: about" in told.err
    assert "promises" in told.out
    assert png.read_bytes().startswith(b"\x89PNG")
    assert all("5 candidates" in each["title"] for each in found.values())
    curve = found["curve"]["rows"]
    assert [row["load"] for row in curve] == [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0]
    assert all(row["goodput_per_s"] <= row["offered_per_s"] and 0 <= row["degraded"] <= 1 for row in curve)
    assert any(row["batch_trees"] >= 1 and row["batch_ms"] > 0 and row["cache_hit"] > 0 for row in curve)
    assert found["overload"]["rows"][3]["grown_mb"] < 1_000
    assert len(found["overload"]["bounds"]) == 4
    assert Path(url.removeprefix("sqlite:///")).read_bytes() == before, "the ledger that was named is not written to"


@pytest.mark.slow
def test_an_engine_that_is_killed_leaves_nobody_without_a_slate(model: str, url: str, tmp_path: Path) -> None:
    (row,) = measured("killed", model, url, tmp_path, "--seconds", "1.5")["killed"]["rows"]
    assert row["processes_killed"] >= 1
    assert row["degraded_engine"] > 0.5
    assert row["answered_in_time"] > 0.5


@pytest.mark.slow
def test_a_soak_tells_memory_and_files(model: str, url: str, tmp_path: Path) -> None:
    (row,) = measured("soak", model, url, tmp_path, "--seconds", "2")["soak"]["rows"]
    assert row["first_mb"] > 50
    assert row["first_files"] > 5
    assert row["connections_left"] == 0
    assert row["unexpected"] == 0, row["unexpected_told"]


@pytest.mark.slow
def test_a_process_is_killed_and_asked_to_end(model: str, url: str, tmp_path: Path) -> None:
    found = measured("kill9,signals", model, url, tmp_path, "--rounds", "1")
    (killed,), (ended,) = found["kill9"]["rows"], found["signals"]["rows"]
    assert killed["acknowledged"] == killed["kept"] == killed["sent"] > 0
    assert (killed["lost"], killed["doubled"]) == (0, 0)
    assert ended["answered"] > 0
    assert ended["signals"] == 1


@pytest.mark.slow
def test_a_model_is_exchanged(model: str, url: str, tmp_path: Path) -> None:
    (row,) = measured("swap", model, url, tmp_path, "--rounds", "2")["swap"]["rows"]
    assert (row["swaps"], row["unknown_model"]) == (2, 0)
    assert row["requests"] > 0
