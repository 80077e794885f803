"""Runs that are killed: what they end as, what a kill leaves behind at any moment, and what their figures say."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from foundation.model import build
from foundation.tokenizer import TextEncoder
from foundation.training import checkpoint
from foundation.training.progress import BOARD
from foundation.training.settings import TrainSettings
from foundation.training.trainer import Trainer
from tests.conftest import tiny_config
from tests.foundation.runs import LOG, Uneven, contents, processes, settings, train

STEPS = 60
TIMINGS = {"seconds", "eta_s", "leaves_per_s", "tokens_per_s"}
CHANGED = {"os.rename", "os.rmdir", "open"}
"""Audit events by which a save shows on the disk."""


def lines(folder: Path) -> list[dict[str, object]]:
    """The log, without what no two runs have in common."""
    text = (folder / LOG).read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMINGS} for line in text]


def told(folder: Path) -> dict[str, object]:
    state: dict[str, object] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {key: value for key, value in state.items() if key != "seconds"}


def grown(log: Path, steps: int) -> bool:
    return log.is_file() and log.read_bytes().count(b"\n") >= steps


def killed_at(folder: Path, chosen: TrainSettings, wanted: int, moment: float) -> None:
    """Starts or resumes a run, and kills it some `moment` after its log has so many lines."""
    process = processes().Process(target=train, args=(folder, chosen, Uneven()))
    process.start()
    while process.is_alive() and not grown(folder / LOG, wanted):
        time.sleep(0.001)
    time.sleep(moment)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An unbroken run, and one of the same settings that was killed five times."""
    whole, broken = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("broken")
    chosen = settings(STEPS, checkpoint_every=4, validate_every=6, vector_dropout=0.1, accumulate=2)
    unbroken = processes().Process(target=train, args=(whole, chosen, Uneven()))
    unbroken.start()
    rng = random.Random(2)
    for wanted in sorted(rng.sample(range(2, STEPS - 20), 5)):
        killed_at(broken, chosen, wanted, rng.uniform(0, 0.05))
    last = processes().Process(target=train, args=(broken, chosen, Uneven()))
    last.start()
    for process in (unbroken, last):
        process.join()
        assert process.exitcode == 0
    return whole, broken


@pytest.mark.parametrize("name", [checkpoint.LAST, checkpoint.BEST])
def test_a_run_that_was_killed_ends_as_an_unbroken_one_to_the_bit(runs: tuple[Path, Path], name: str) -> None:
    whole, broken = (run / name for run in runs)
    assert {"model.safetensors", "compressor.safetensors", checkpoint.OPTIMIZER_FILE} <= contents(whole).keys()
    assert contents(broken) == contents(whole)
    assert told(broken) == told(whole)


def test_its_log_holds_every_step_once_with_the_same_figures(runs: tuple[Path, Path]) -> None:
    whole, broken = map(lines, runs)
    assert broken == whole
    assert [line["step"] for line in broken if "loss" in line] == list(range(1, STEPS + 1))
    assert [line["step"] for line in broken if "loss" not in line] == list(range(6, STEPS + 1, 6))


def test_its_curves_go_on_where_they_were(runs: tuple[Path, Path]) -> None:
    boards = [EventAccumulator(str(run / BOARD)).Reload() for run in runs]
    whole, broken = ({tag: board.Scalars(tag) for tag in board.Tags()["scalars"]} for board in boards)
    assert {"training/listwise", "training/tokens_per_s", "expert_evenness/layer_1"} <= broken.keys() == whole.keys()
    for tag, points in broken.items():
        assert [point.step for point in points] == [point.step for point in whole[tag]]
    for tag in ("training/loss", "expert_most/layer_0", "training/validation_ndcg@10"):
        assert [point.value for point in broken[tag]] == [point.value for point in whole[tag]]


def test_nothing_is_left_of_what_kills_cut_short(runs: tuple[Path, Path]) -> None:
    names = {path.name for path in runs[1].iterdir()}
    assert names == {checkpoint.LAST, checkpoint.BEST, LOG, BOARD}


def save_and_die(folder: Path, at: int) -> None:
    """Saves the second of two states, and is killed as it makes its change number `at` to the disk."""
    run = Trainer.resume(settings(10), folder)
    run.step = 2
    changes = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal changes
        if event in CHANGED and str(arguments[0]).startswith(str(folder)):
            changes += 1
            if changes == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    run._save(checkpoint.LAST)


def test_a_save_may_be_killed_at_any_moment(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    run = Trainer(build(tiny_config(vocab_size=len(tiny_encoder.tokenizer))), tiny_encoder, settings(10), tmp_path)
    run.step = 1
    run._save(checkpoint.LAST)
    found, at, exitcode = [], 0, -signal.SIGKILL
    while exitcode == -signal.SIGKILL:
        at += 1
        process = processes().Process(target=save_and_die, args=(tmp_path, at))
        process.start()
        process.join()
        exitcode = process.exitcode or 0
        assert checkpoint.exists(tmp_path / checkpoint.LAST)
        found.append(Trainer.resume(settings(10), tmp_path).step)
        run._save(checkpoint.LAST)
    assert exitcode == 0
    assert at > 10
    assert found == sorted(found)
    assert set(found) == {1, 2}
    assert {path.name for path in tmp_path.iterdir()} == {checkpoint.LAST}


def test_the_first_steps_may_be_killed_before_any_checkpoint(tmp_path: Path) -> None:
    chosen = settings(STEPS, checkpoint_every=STEPS, validate_every=STEPS)
    killed_at(tmp_path, chosen, 3, 0.0)
    assert not checkpoint.exists(tmp_path / checkpoint.LAST)
    train(tmp_path, chosen, Uneven())
    assert [line["step"] for line in lines(tmp_path) if "loss" in line] == list(range(1, STEPS + 1))


def test_weights_are_read_back_to_the_bit(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    train(tmp_path, settings(3), Uneven())
    ranker, _, moments, state = checkpoint.restore(tmp_path / checkpoint.LAST)
    again = Trainer.resume(settings(3), tmp_path)
    assert state["step"] == 3
    assert all(torch.equal(a, b) for a, b in zip(ranker.parameters(), again.ranker.parameters(), strict=True))
    held = dict(checkpoint.moments_of(again.ranker, again.optimizer))
    assert held.keys() == moments.keys()
    assert all(torch.equal(held[name], moments[name]) for name in held)
    assert math.isfinite(again.best)
