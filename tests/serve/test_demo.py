"""The demo tells its whole story on a small ledger; on the real one it is run by `make test-all`."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from foundation.engine.torch import TorchEngine
from serve import demo
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from tests.serve.conftest import fill


@pytest.fixture
def model(tiny_engine: TorchEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny model as a folder, beside a cache that has its ledger."""
    monkeypatch.setenv("PRISMRANK_CACHE", str(tmp_path))
    with Ledger.open(f"sqlite:///{tmp_path / demo.LEDGER_FILE}") as ledger:
        fill(ledger)
    folder = tmp_path / "tiny"
    tiny_engine.ranker.save(folder, tiny_engine.encoder)
    return str(folder)


@pytest.fixture
def told(model: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the demo prints without a terminal."""
    demo.run(model, 0)
    return capsys.readouterr().out


def test_the_story_is_whole(told: str) -> None:
    assert told.count("rated on") == demo.MEMBERS
    assert told.count("ranked by the model") == demo.MEMBERS + 1
    assert "degraded: deadline" in told
    assert demo.FAMILY.splitlines()[0] in told
    assert "on 'movies'" in told
    for method in ("model", "popular", "co_visitation"):
        assert re.search(rf"^{method} +[01]\.\d{{3}} \[", told, re.MULTILINE), method
    for part in ("retrieve", "compose", "queue", "score", "total"):
        assert part in told


def test_it_fits_a_hundred_columns_and_shows_whole_probabilities(told: str) -> None:
    assert max(len(line) for line in told.splitlines()) <= 100
    rows = [line for line in told.splitlines() if re.match(r"^\d+ +Film", line)]
    assert len(rows) == 8 * demo.MEMBERS + 5 + 8
    assert all(re.search(r" (\.\d{3}|1\.000|–) ", row) for row in rows)
    assert not any(re.search(r"\.\d…", row) for row in rows)


def test_it_is_honest_about_a_model_that_is_not_the_shipped_one(told: str) -> None:
    assert "for its maker to say" in told
    assert "last two films of each held out" not in told


def test_the_family_surface_is_ten_lines_and_right() -> None:
    assert len(demo.FAMILY.splitlines()) == 10
    assert Registry.shipped().add(demo.FAMILY, "family_evening.yaml").version


def test_with_a_terminal_it_serves_on_and_says_how_to_call_it(model: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "serve.cli", "demo", "--model", model]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        try:
            said = ""
            while "Ctrl-C ends it" not in said:
                said += os.read(ours, 65_536).decode()
            url = re.search(r"curl -s (http://127\.0\.0\.1:\d+/v1/surfaces/movies/rank)", said)
            body = re.search(r"-d '(\{.*?\})'", said, re.DOTALL)
            assert url
            assert body
            request = urllib.request.Request(url[1], body[1].encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=20) as reply:
                assert json.load(reply)["slate"]
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()
            os.close(ours)
            os.close(theirs)


@pytest.mark.slow
def test_the_command_runs_on_movielens_and_ends_without_a_terminal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serve.cli", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "1,682 films, 943 members and 100,000 ratings" in done.stdout
    assert "last two films of each held out" in " ".join(done.stdout.split())
