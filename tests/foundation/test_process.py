"""An engine in a process of its own says what one in this process says, and comes back when it was killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from foundation.engine.base import LeafScores, TokenNode, TokenTree
from foundation.engine.message import from_scores, to_scores
from foundation.engine.process import ProcessEngine
from foundation.engine.torch import TorchEngine
from foundation.model import build, version
from foundation.tokenizer import TextEncoder
from prompts.errors import CheckpointError, ConfigError, EngineError, TreeError
from prompts.tree import Piece, PromptNode, PromptTree
from tests.conftest import tiny_config
from tests.foundation.adapted import ByPeft, mixed, visit
from tests.foundation.reference import random_node

BACK_S = 60.0


@pytest.fixture(scope="module")
def folder(tiny_encoder: TextEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two adapters beside it."""
    folder = tmp_path_factory.mktemp("model")
    ranker = build(tiny_config(vocab_size=len(tiny_encoder.tokenizer))).eval()
    ranker.save(folder / "tiny", tiny_encoder)
    ByPeft(ranker).save(folder / "adapters", f"tiny@{version(folder / 'tiny')}")
    return folder


@pytest.fixture(scope="module")
def here(folder: Path) -> TorchEngine:
    """The same model, in this process."""
    engine = TorchEngine.load(folder / "tiny")
    engine.add_adapter("a", folder / "adapters" / "a")
    engine.add_adapter("b", folder / "adapters" / "b")
    return engine


@pytest.fixture(scope="module")
def apart(folder: Path) -> Iterator[ProcessEngine]:
    with closing(ProcessEngine(folder / "tiny")) as engine:
        engine.add_adapter("a", folder / "adapters" / "a")
        engine.add_adapter("b", folder / "adapters" / "b")
        yield engine


def random_trees(count: int) -> list[TokenTree]:
    """Trees of every kind: texts, sums and tensors as vectors, answers of any number, adapters, salts."""
    rng = random.Random(5)
    trunk = random_node(rng, 300, 48, parent=-1)
    return [mixed(rng, trunk, ("", "a", "b")) for _ in range(count)]


def same(found: Sequence[LeafScores], wanted: Sequence[LeafScores]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert len(one.logp) == len(other.logp)
        for logp, right in zip(one.logp, other.logp, strict=True):
            np.testing.assert_allclose(logp, right, atol=1e-6)
        np.testing.assert_allclose(one.likelihood, other.likelihood, atol=1e-6)


def pid(engine: ProcessEngine) -> int:
    return engine._keeper._worker.process.pid


def until_back(engine: ProcessEngine, asked: Callable[[], object]) -> None:
    end = time.monotonic() + BACK_S
    while True:
        with suppress(EngineError):
            asked()
            return
        assert time.monotonic() < end
        time.sleep(0.02)


def until_gone(process: int) -> None:
    end = time.monotonic() + BACK_S
    while Path(f"/proc/{process}").exists() and " Z " not in Path(f"/proc/{process}/stat").read_text("ascii"):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_scores_as_an_engine_in_this_process_does(apart: ProcessEngine, here: TorchEngine) -> None:
    trees = random_trees(12)
    same(apart.score(trees), here.score(trees))
    for tree in trees:
        same(apart.score([tree]), here.score([tree]))
    assert apart.score([]) == []
    same(apart.score([TokenTree((TokenNode((5, 6)),))]), here.score([TokenTree((TokenNode((5, 6)),))]))


def test_it_reads_and_embeds_as_one_in_this_process_does(apart: ProcessEngine, here: TorchEngine) -> None:
    leaf = PromptNode((Piece("Toy Story", compress=True, parts=("Toy", " Story")),), 0, answers=("yes", "no"))
    tree = PromptTree((PromptNode((Piece("a member"), Piece("likes", compress=True))), leaf))
    assert apart.read(tree) == here.read(tree)
    for piece in tree.nodes[0].pieces:
        assert apart.count(piece) == here.count(piece)
    np.testing.assert_allclose(apart.embed(["Toy Story", "x"], "me"), here.embed(["Toy Story", "x"], "me"), atol=1e-6)
    assert apart.embed([]).shape == here.embed([]).shape
    assert (apart.name, apart.model_version) == (here.name, here.model_version)


def test_what_it_remembers_is_told_and_forgotten(apart: ProcessEngine) -> None:
    apart.forget()
    apart.score([visit(salt="mine")])
    before = apart.cache_stats
    apart.score([visit(salt="mine")])
    assert apart.cache_stats.hit_slots > before.hit_slots
    assert apart.cache_stats.bytes > 0
    apart.forget()
    assert apart.cache_stats.bytes == 0


def test_what_it_refuses_is_refused_here(apart: ProcessEngine, folder: Path) -> None:
    with pytest.raises(TreeError, match="nobody") as raised:
        apart.score([visit("nobody")])
    assert any("Traceback" in note for note in raised.value.__notes__), "where it came from is told"
    with pytest.raises(CheckpointError):
        apart.add_adapter("c", folder / "tiny")
    with pytest.raises(ConfigError):
        apart.remove_adapter("c")
    assert apart.adapters == ("a", "b")


def test_a_folder_that_is_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "tiny", tmp_path / "tiny")
    (tmp_path / "tiny" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError) as wanted:
        TorchEngine.load(tmp_path / "tiny")
    with pytest.raises(CheckpointError) as raised:
        ProcessEngine(tmp_path / "tiny")
    assert str(raised.value) == str(wanted.value)


def test_signals_for_its_parent_do_not_end_it(apart: ProcessEngine) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid(apart), number)
    assert len(apart.score([visit()])) == 1


def test_a_killed_process_has_a_successor_with_the_same_adapters(apart: ProcessEngine, here: TorchEngine) -> None:
    before = pid(apart)
    os.kill(before, signal.SIGKILL)
    until_gone(before)
    with pytest.raises(EngineError, match="being started"):
        apart.score([visit("a")])
    apart.forget()  # which has nothing to forget
    until_back(apart, lambda: apart.score([visit("a")]))
    assert pid(apart) != before
    for engine in (apart, here):  # a trunk that is read is rounded another way than one that is kept
        engine.forget()
    same(apart.score([visit("a"), visit("b")]), here.score([visit("a"), visit("b")]))


@pytest.mark.slow
def test_another_model_in_the_same_folder_does_not_take_its_place(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "tiny", tmp_path / "tiny")
    with closing(ProcessEngine(tmp_path / "tiny")) as engine:
        weights = tmp_path / "tiny" / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-4] + b"\0\0\0\0")
        os.kill(first := pid(engine), signal.SIGKILL)
        end = time.monotonic() + BACK_S
        while pid(engine) == first or engine._keeper._worker.process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.02)
        with pytest.raises(EngineError):
            engine.score([visit()])
        weights.write_bytes(whole)
        until_back(engine, lambda: engine.score([visit()]))


def test_a_closed_engine_has_no_process(folder: Path) -> None:
    engine = ProcessEngine(folder / "tiny")
    process = pid(engine)
    engine.close()
    engine.close()
    until_gone(process)
    with pytest.raises(EngineError):
        engine.score([visit()])


PARENT = """
import os, sys, time
from pathlib import Path
from foundation.engine.process import ProcessEngine
engine = ProcessEngine(Path(sys.argv[1]))
print(engine._keeper._worker.process.pid, flush=True)
time.sleep(600)
"""


def test_it_does_not_outlive_its_parent(folder: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(folder / "tiny")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        process = int(parent.stdout.readline())
        parent.kill()
    until_gone(process)


def test_scores_as_a_message_keep_their_leaves_apart() -> None:
    scores = [
        LeafScores([np.array([1, 2], np.float32), np.array([3], np.float32)], np.array([np.nan, 0.5])),
        LeafScores([], np.zeros(0)),
        LeafScores([np.zeros(0, np.float32)], np.array([0.25])),
    ]
    same(to_scores(from_scores(scores)), scores)
    assert to_scores(from_scores([])) == []
