"""What a run's log says of its steps, and what is kept of it when a run goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from foundation.training.labels import Losses
from foundation.training.progress import BOARD, EVERY, TrainingProgress, curves, cut_log, evenness, figures
from foundation.training.trainer import StepReport

LOAD_ME = torch.tensor([[10, 10, 10, 10], [40, 0, 0, 0]])


def report(step: int, load_ME: torch.Tensor = LOAD_ME, seconds: float = 0.5) -> StepReport:
    found = Losses(*(torch.tensor(float(place)) for place, _ in enumerate(Losses._fields)))
    return StepReport(step, found, 30, seconds, 200, 1.5 + step, 0.25, 1e-3, load_ME)


def lines(log: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def test_a_step_has_its_losses_its_speed_and_its_experts() -> None:
    found = figures(report(6))
    assert found["step"] == 7
    assert found["loss"] == 7.5
    assert [found[name] for name in Losses._fields] == [float(place) for place, _ in enumerate(Losses._fields)]
    assert (found["leaves_per_s"], found["tokens_per_s"], found["seconds"]) == (60.0, 400.0, 0.5)
    assert found["expert_least"] == [0.25, 0.0]
    assert found["expert_most"] == [0.25, 1.0]
    assert found["expert_evenness"] == [1.0, 0.0]


def test_a_dense_model_has_no_experts_to_tell_of() -> None:
    found = figures(report(0, torch.zeros(0, 0, dtype=torch.long)))
    assert not [name for name in found if name.startswith("expert")]


def test_evenness_is_entropy_over_its_largest() -> None:
    share = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.7, 0.1, 0.1, 0.1]])
    entropy = -(0.7 * math.log(0.7) + 0.3 * math.log(0.1))
    assert evenness(share).tolist() == pytest.approx([0.5, entropy / math.log(4)])
    assert evenness(torch.ones(1, 1)).tolist() == [0.0]


def test_every_layer_has_its_curve() -> None:
    assert curves({"step": 3, "loss": 0.5, "expert_most": [0.2, 0.3]}) == {
        "training/loss": 0.5,
        "expert_most/layer_0": 0.2,
        "expert_most/layer_1": 0.3,
    }


def test_the_time_to_go_is_that_of_the_steps_left(tmp_path: Path) -> None:
    with TrainingProgress(100, tmp_path / "log.jsonl") as progress:
        progress.step(report(0, seconds=2.0))
        progress.step(report(1, seconds=2.0))
    first, second = lines(tmp_path / "log.jsonl")
    assert first["eta_s"] == pytest.approx(99 * 2.0, rel=0.05)
    assert 0 < second["eta_s"] < first["eta_s"]


def test_people_get_a_line_a_hundred_steps_and_each_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with TrainingProgress(EVERY, tmp_path / "log.jsonl") as progress:
        for step in range(EVERY):
            progress.step(report(step))
        progress.validation(EVERY, 0.5)
    means, validation = map(json.loads, capsys.readouterr().err.splitlines())
    assert means["step"] == EVERY
    assert means["loss"] == 1.5 + (EVERY - 1) / 2
    assert means["eta_s"] == 0.0
    assert validation == {"step": EVERY, "validation_ndcg@10": 0.5}
    assert len(lines(tmp_path / "log.jsonl")) == EVERY + 1


def test_what_comes_after_the_steps_done_goes(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "validation_ndcg@10": 0.1}\n{"step": 3}\n{"st')
    cut_log(log, 2)
    assert lines(log) == [{"step": 1}, {"step": 2}, {"step": 2, "validation_ndcg@10": 0.1}]
    cut_log(log, 0)
    assert log.read_text() == ""
    cut_log(tmp_path / "none.jsonl", 2)
    assert [path.name for path in tmp_path.iterdir()] == [log.name]


def test_curves_of_a_run_that_goes_on_have_each_step_once(tmp_path: Path) -> None:
    for steps in (range(5), range(3, 6)):
        with TrainingProgress(6, tmp_path / "log.jsonl") as progress:
            for step in steps:
                progress.step(report(step))
    points = EventAccumulator(str(tmp_path / BOARD)).Reload().Scalars("training/loss")
    assert [point.step for point in points] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_takes_no_step_leaves_the_log_alone(tmp_path: Path) -> None:
    with TrainingProgress(6, tmp_path / "log.jsonl"):
        pass
    assert list(tmp_path.iterdir()) == []
