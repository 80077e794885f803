"""Calibrated probabilities: fitted by the command, kept beside the model, served over HTTP."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation import model as models
from foundation.engine.torch import TorchEngine
from serve.cli import main
from serve.commands.parts import open_engine
from serve.services import Services
from surfaces.calibrated import FILE, CalibratedSurface, Calibrations, HeadFigures, Line, Map, Shares, Steps
from surfaces.ledger.store import Ledger
from surfaces.ledger.tables import import_tables
from surfaces.registry import Registry
from surfaces.worlds.network import Network
from tests.serve.conftest import Client, served

LONG = 20_000
STEPS = Steps(log_odds=(-30.0, -1.0, 0.0, 1.0, 30.0), probabilities=(0.001, 0.02, 0.03, 0.08, 0.09))
HALF = Line(slope=0.5, intercept=-2.0)


def fitted(name: str, choices: Shares | None = None, **maps: Map | None) -> Calibrations:
    """Calibrations of one shipped surface as its file is now."""
    found = CalibratedSurface(
        version=Registry.shipped().declared(name).version, fitted_on="rankings", members=1, rankings=1, answers=1,
        choices=choices,
        heads={head: HeadFigures(map=each, rate=0.1, ece_before=0.2, ece_after=0.01) for head, each in maps.items()},
    )  # fmt: skip
    return Calibrations(model="0" * 12).plus(name, found)


def slate(client: Client, surface: str = "movies", **body: object) -> list[dict[str, Any]]:
    reply = client.rank(surface, k=100, deadline_ms=LONG, **body)
    assert reply.status == 200
    assert not reply.json["degraded"]
    found: list[dict[str, Any]] = reply.json["slate"]
    return found


def calibrated(services: Services, calibrations: Calibrations) -> Services:
    return Services.open(services.ledger, services.engine, services.registry, calibrations=calibrations)


# Over HTTP


@pytest.mark.parametrize("mapped", [HALF, STEPS], ids=lambda mapped: mapped.form)
def test_served_probabilities_are_calibrated_in_the_same_order(services: Services, client: Client, mapped: Map) -> None:
    with served(calibrated(services, fitted("movies", watch=mapped))) as other:
        other.until_ready()
        raw, found = (slate(each, member_id="m1") for each in (client, other))
    assert [entry["item_id"] for entry in found] == [entry["item_id"] for entry in raw]
    for before, after in zip(raw, found, strict=True):
        expected = mapped(np.array([before["heads"]["watch"]]))[0]
        assert after["heads"]["watch"] == pytest.approx(expected, abs=1e-6)
        assert after["utility"] == pytest.approx(expected, abs=1e-6)
        assert after["heads"]["like"] == pytest.approx(before["heads"]["like"], abs=1e-6)


def test_served_shares_are_calibrated_together(services: Services, client: Client) -> None:
    shares = Shares(slope=0.5, bias={"like": -2.0, "dislike": 0.5})
    with served(calibrated(services, fitted("movies", shares, like=None, dislike=None))) as other:
        other.until_ready()
        raw, found = (
            {entry["item_id"]: entry["heads"] for entry in slate(each, member_id="m1")} for each in (client, other)
        )
    for item_id, heads in raw.items():
        none = 1 - heads["like"] - heads["dislike"]
        weights = np.sqrt([heads["like"], heads["dislike"], none]) * np.exp([-2.0, 0.5, 0.0])
        told = [found[item_id][name] for name in ("like", "dislike")]
        assert told == pytest.approx((weights / weights.sum())[:2], abs=1e-5)
        assert found[item_id]["watch"] == pytest.approx(heads["watch"], abs=1e-6)


def test_the_other_side_is_calibrated_too(tiny_engine: TorchEngine, tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'network.sqlite'}") as ledger:
        import_tables(Network(members=100, seed=1).tables(), ledger)
        heads = []
        for calibrations in (None, fitted("people", connect=HALF)):
            services = Services(ledger, tiny_engine, Registry.shipped(), calibrations=calibrations)
            services.prepare("people")
            with served(services) as client:
                client.until_ready()
                heads.append({entry["item_id"]: entry["heads"] for entry in slate(client, "people", member_id="m3")})
    raw, found = heads
    often = Counter(told["connect_back"] for told in raw.values())  # those who were not asked share a mean
    asked = [item_id for item_id in raw if often[raw[item_id]["connect_back"]] == 1 and item_id in found]
    assert len(asked) > 3
    for item_id in asked:
        for name in ("connect", "connect_back"):
            assert found[item_id][name] == pytest.approx(HALF(np.array([raw[item_id][name]]))[0], abs=1e-5)


def test_a_surface_that_changed_is_served_uncalibrated_with_one_warning(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        other = calibrated(services, fitted("movies", watch=HALF))
        assert other.surface("movies").calibration is not None
        text = other.registry.declared("movies").text.replace("Which one does", "Which of them does")
        ready = other.add(text, "movies.yaml")
    assert ready.calibration is None
    assert [record.getMessage() for record in caplog.records if "uncalibrated" in record.getMessage()] == [
        f"surface 'movies' is uncalibrated: its file changed from version {services.surface('movies').version} to "
        f"{ready.version}; run `prismrank calibrate movies`"
    ]


# The command


@pytest.fixture
def model(tiny_engine: TorchEngine, tmp_path: Path) -> Path:
    """The tiny model as a folder."""
    tiny_engine.ranker.save(tmp_path / "tiny", tiny_engine.encoder)
    return tmp_path / "tiny"


def command(url: str, model: Path, *more: object, surface: str = "movies") -> list[str]:
    return ["calibrate", surface, "--ledger", url, "--model", str(model), *map(str, more)]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("prismrank: ")
    return captured.err


def test_the_command_writes_beside_the_model_and_the_server_applies_it(
    url: str, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(command(url, model)) == 0
    out = capsys.readouterr().out
    assert "movies: 12 rankings of 12 members" in out
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["watch", "like", "dislike"]
    assert str(model / FILE) in out.replace("\n", "")
    found = Calibrations.load(model)
    assert found.model == models.version(model)
    told = found.surfaces["movies"]
    assert (told.rankings, told.members, told.fitted_on) == (12, 12, "rankings")
    assert all(head.ece_after <= head.ece_before for head in told.heads.values())
    assert told.heads["watch"].map is not None
    with served_by_the_command(url, model) as served_slate, Ledger.open(url) as ledger:
        engine = open_engine(str(model))
        services = Services(ledger, engine, Registry.shipped())
        services.prepare("movies")
        with served(services) as client:
            client.until_ready()
            raw = {entry["item_id"]: entry["heads"]["watch"] for entry in slate(client, member_id="m1")}
        assert len(served_slate) == len(raw) > 20
        for entry in served_slate:
            near = raw[entry["item_id"]] + np.array([-1e-5, 1e-5])  # steps are steep on so few answers
            low, high = told.heads["watch"].map(np.clip(near, 0, 1))
            assert low - 1e-6 <= entry["heads"]["watch"] <= high + 1e-6


class served_by_the_command:  # noqa: N801 - read as a function
    """`prismrank serve` in a process of its own; gives the slate of a member, over HTTP."""

    def __init__(self, url: str, model: Path) -> None:
        arguments = ["serve", "--ledger", url, "--model", str(model), "--port", "0"]
        self._command = [sys.executable, "-m", "serve.cli", *arguments]

    def __enter__(self) -> list[dict[str, Any]]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True, env=environment)
        assert self._process.stderr is not None
        line = next(line for line in self._process.stderr if "serves at " in line)
        return self._slate(line.partition("serves at ")[2].partition(";")[0])

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=20)

    @staticmethod
    def _slate(address: str) -> list[dict[str, Any]]:
        body = json.dumps({"member_id": "m1", "k": 100, "deadline_ms": LONG}).encode()
        asked = urllib.request.Request(f"{address}/v1/surfaces/movies/rank", body, {"Content-Type": "application/json"})
        for _ in range(200):
            with suppress(OSError), urllib.request.urlopen(asked, timeout=20) as reply:
                found = json.load(reply)
                if not found["degraded"]:
                    return list(found["slate"])
            time.sleep(0.05)
        raise AssertionError("it never answered by the model")


def test_the_same_twice_writes_the_same_bytes_elsewhere(url: str, model: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert main(command(url, model, "--out", tmp_path / name)) == 0
    assert (tmp_path / "one" / FILE).read_bytes() == (tmp_path / "two" / FILE).read_bytes()
    assert not (model / FILE).exists()
    assert [path.name for path in (tmp_path / "one").iterdir()] == [FILE]


def test_what_was_fitted_for_other_surfaces_stays(url: str, model: Path) -> None:
    known = fitted("feed", engage=HALF).model_copy(update={"model": models.version(model)})
    known.save(model)
    assert main(command(url, model, "--members", 11)) == 0
    found = Calibrations.load(model)
    assert found.surfaces["feed"] == known.surfaces["feed"]
    assert found.surfaces["movies"].members == 11


def test_bad_input_is_one_clear_line(url: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'movies'?" in refused(command(url, model, surface="movie"), capsys)
    assert "no ledger at" in refused(command(f"sqlite:///{tmp_path / 'none.sqlite'}", model), capsys)
    assert "no checkpoint 'bert'" in refused(command(url, Path("bert")), capsys)
    assert "'--members'" in refused(command(url, model, "--members", 1), capsys)
    assert "came true; 10 must, of several members" in refused(command(url, model, "--members", 2), capsys)
    assert "nothing to hold out" in refused(command(url, model, surface="jobs"), capsys)
    assert not (model / FILE).exists()
    (tmp_path / "file").touch()
    assert "--out names a folder" in refused(command(url, model, "--out", tmp_path / "file"), capsys)


def test_a_damaged_file_stops_the_server_and_the_command_in_one_line(
    url: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / FILE).write_text('{"model": NaN}')
    for arguments in (command(url, model), ["serve", "--ledger", url, "--model", str(model), "--port", "0"]):
        assert f"{model / FILE}: model: " in refused(arguments, capsys)


def test_the_preview_shows_what_is_served(url: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preview = ["surface", "preview", "movies", "--ledger", url, "--model", str(model), "--member", "m1"]
    assert main(preview) == 0
    before = capsys.readouterr().out
    fitted("movies", watch=STEPS).model_copy(update={"model": models.version(model)}).save(model)
    assert main(preview) == 0
    assert capsys.readouterr().out != before


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--help"]) == 0
    assert "Usage: prismrank calibrate" in capsys.readouterr().out
