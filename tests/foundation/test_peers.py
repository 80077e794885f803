"""The transport between the bench and a peer, with small real drivers in real processes: no peer need be installed."""

from __future__ import annotations

import json
import sys
import time
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from foundation.bench.peers import loop, peer
from foundation.bench.peers.peer import Peer, PeerError, installed

CONTEXT, CANDIDATES, ANSWERS = (5, 6, 7), ((1,), (1, 2)), (3, 4)
EXPECTED = [[-7.0, -8.0], [-8.0, -9.0]]
"""What the driver below answers: minus the sizes that it saw and the answer's id."""
COUNTING = """
import os, sys, time

class Counting:
    def __init__(self, *about):
        self.about = dict(zip(("model", "threads", "precision"), about))

    def warm(self, context, candidates):
        self.warmed = len(context)

    def score(self, context, candidates, answers):
        return [[-float(self.warmed + len(each) + answer) for answer in answers] for each in candidates]

load = Counting
"""
NOISY = (
    COUNTING
    + """
print("noise of an import")
os.write(1, b"noise of a C library, with no end of line")

class Noisy(Counting):
    def warm(self, context, candidates):
        super().warm(context, candidates)
        print("noise from Python")
        os.system("echo noise of a child")

load = Noisy
"""
)
RAISING = """
def load(model, threads, precision):
    raise ValueError(f"no {precision} on this processor")
"""
DYING = (
    COUNTING
    + """
class Dying(Counting):
    def score(self, context, candidates, answers):
        os.write(2, b"GGML_ASSERT(rows > 0) failed" + chr(10).encode())
        os._exit(134)

load = Dying
"""
)
SLOW_TO_WARM = (
    COUNTING
    + """
class Slow(Counting):
    def warm(self, context, candidates):
        super().warm(context, candidates)
        time.sleep(0.3)

    def score(self, context, candidates, answers):
        started = time.process_time()
        while time.process_time() - started < 0.1:
            pass
        return super().score(context, candidates, answers)

load = Slow
"""
)
STUBBORN = (
    COUNTING
    + """
import threading
threading.Thread(target=time.sleep, args=(60,)).start()
"""
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(peer, "HOME", tmp_path / "peers")
    monkeypatch.setattr(peer, "DRIVERS", tmp_path)
    return tmp_path


def install(home: Path, driver: str, name: str = "stand_in") -> str:
    environment = home / "peers" / name
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(sys.executable)
    (environment / peer.INSTALLED).touch()
    (home / f"{name}_driver.py").write_text(driver)
    return name


def test_a_peer_says_what_it_is_and_scores(home: Path) -> None:
    with Peer(install(home, COUNTING), home / "model", threads=2, precision="fp16") as found:
        assert found.about == {"model": str(home / "model"), "threads": 2, "precision": "fp16"}
        scored = found.score(CONTEXT, CANDIDATES, ANSWERS)
        assert scored.logp.dtype == np.float64
        assert scored.logp.tolist() == EXPECTED
        assert found.score((5,), CANDIDATES, (1,)).logp.tolist() == [[-3.0], [-4.0]]


def test_what_a_library_prints_does_not_mix_with_the_replies(home: Path) -> None:
    with Peer(install(home, NOISY), home) as found:
        assert found.score(CONTEXT, CANDIDATES, ANSWERS).logp.tolist() == EXPECTED
        assert found.score(CONTEXT, CANDIDATES, ANSWERS).logp.tolist() == EXPECTED
    log = (home / "peers" / "stand_in" / "log.txt").read_text()
    assert all(noise in log for noise in ("an import", "C library", "from Python", "of a child"))


def test_only_scoring_is_timed_and_processor_time_is_the_peers_own(home: Path) -> None:
    with Peer(install(home, SLOW_TO_WARM), home) as found:
        started = time.perf_counter()
        scored = found.score(CONTEXT, CANDIDATES, ANSWERS)
        assert time.perf_counter() - started >= 0.4
        assert 0.1 <= scored.cpu_seconds <= 0.2
        assert scored.wall_seconds >= scored.cpu_seconds * 0.99


def test_a_peer_that_cannot_load_says_why_in_one_line(home: Path) -> None:
    with (
        pytest.raises(PeerError, match="no bf16 on this processor") as caught,
        Peer(install(home, RAISING), home, precision="bf16"),
    ):
        pass
    assert "'stand_in' ended while it loaded the model (status 1)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_peer_that_dies_says_so_at_every_call(home: Path) -> None:
    with Peer(install(home, DYING), home) as found:
        for _ in range(2):
            with pytest.raises(PeerError, match=r"ended while it scored \(status 134\): .*GGML_ASSERT"):
                found.score(CONTEXT, CANDIDATES, ANSWERS)


def test_a_peer_leaves_when_the_bench_is_done_with_it(home: Path) -> None:
    started = time.perf_counter()
    with Peer(install(home, STUBBORN), home) as found:
        pass
    assert found._process.returncode == 0
    assert time.perf_counter() - started < peer.PATIENCE_S


def test_a_peer_that_does_not_leave_is_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "PATIENCE_S", 0.1)
    busy = COUNTING + "\nclass Busy(Counting):\n    def score(self, *_):\n        time.sleep(60)\n\nload = Busy\n"
    with Peer(install(home, busy), home) as found:
        found._requests.write('{"context": [], "candidates": [], "answers": []}\n')
        found._requests.flush()
    assert found._process.returncode == -9


def test_a_peer_that_is_not_installed_is_told_with_the_way_to_install_it(home: Path) -> None:
    install(home, COUNTING)
    with pytest.raises(PeerError, match=r"'vllm' is not installed \(installed: stand_in\): run `make bench-peers`"):
        Peer("vllm", home)


def test_an_environment_that_has_gone_is_told(home: Path) -> None:
    found = Peer(install(home, COUNTING), home)
    (home / "peers" / "stand_in" / "bin" / "python").unlink()
    with pytest.raises(PeerError, match="does not start"):
        found.__enter__()


def test_only_complete_environments_count_as_installed(home: Path) -> None:
    assert installed() == []
    install(home, COUNTING, "b")
    install(home, COUNTING, "a")
    (home / "peers" / "half_made").mkdir()
    assert installed() == ["a", "b"]


def test_each_peer_that_ships_has_a_driver_that_loads_nothing_before_it_is_asked() -> None:
    drivers = sorted(path.name for path in Path(peer.__file__).parent.glob("*_driver.py"))
    assert drivers == ["llama_cpp_driver.py", "vllm_driver.py"]
    for name in drivers:
        assert callable(loop.driver_module(str(Path(peer.__file__).parent / name)).load)


def test_the_loop_warms_before_it_scores() -> None:
    calls: list[str] = []
    driver = SimpleNamespace(
        about={"name": "x"},
        warm=lambda context, candidates: calls.append(f"warm {context} {candidates}"),
        score=lambda context, candidates, answers: calls.append(f"score {context} {candidates} {answers}") or [[0.5]],
    )
    replies = StringIO()
    asked = json.dumps({"context": [1], "candidates": [[2]], "answers": [3]})
    loop.serve(driver, [asked, asked], replies)
    about, first, _ = [json.loads(line) for line in replies.getvalue().splitlines()]
    assert about == {"about": {"name": "x"}}
    assert first["logp"] == [[0.5]]
    assert set(first) == {"logp", "cpu_s", "wall_s"}
    assert calls == ["warm [1] [[2]]", "score [1] [[2]] [3]"] * 2


@pytest.mark.slow
def test_the_peers_that_are_installed_agree_with_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=4096, initializer_range=0.2,
        tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    context = torch.randint(3, 512, (40,)).tolist()
    candidates = [torch.randint(3, 512, (size,)).tolist() for size in (5, 1, 9, 5)]
    with torch.inference_mode():
        whole = [model(torch.tensor([context + each])).logits[0, -1].log_softmax(-1)[[3, 4]] for each in candidates]
    for name in installed():
        with Peer(name, tmp_path) as found:
            for _ in range(2):
                scored = found.score(context, candidates, (3, 4))
                assert np.abs(scored.logp - torch.stack(whole).double().numpy()).max() <= 1e-3
                assert scored.cpu_seconds > 0
