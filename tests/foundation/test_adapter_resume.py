"""A run of adapters that is killed ends as one that was not, to the bit; what a checkpoint keeps of adapters."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from foundation import adapters
from foundation.lowrank import Target
from foundation.model import Ranker, build
from foundation.tokenizer import TextEncoder
from foundation.training import checkpoint
from foundation.training.labels import LabelledTree
from foundation.training.trainer import Trainer, Watcher
from prompts.errors import CheckpointError
from tests.conftest import tiny_config
from tests.foundation.runs import Uneven, encoder, processes, settings

STEPS = 12
ODD: tuple[Target, ...] = ("v_proj", "o_proj", "q_proj")
CHOSEN = settings(STEPS, checkpoint_every=2, validate_every=4, clip=0.05)
"""A clip that bites: the norm of the gradient is in every step, and with it the order of what is summed."""


class Adapted:
    """Trees under two adapters, in turn; the process is killed where the trees of step `until` are wanted."""

    def __init__(self, until: int | None = None) -> None:
        self.until = until

    def batch(self, step: int) -> list[LabelledTree]:
        if step == self.until:
            os.kill(os.getpid(), signal.SIGKILL)
        trees = Uneven().batch(step)
        return [each._replace(tree=each.tree.adapted("ba"[place % 2])) for place, each in enumerate(trees)]


def new(folder: Path) -> Trainer:
    """A run of two adapters, whose order is not that of their names."""
    reader = encoder()
    ranker = build(tiny_config(vocab_size=len(reader.tokenizer)))
    torch.manual_seed(3)
    adapters.attach(ranker, "b", rank=3, targets=ODD)
    adapters.attach(ranker, "a", rank=2)
    return Trainer(ranker, reader, CHOSEN, folder)


def train(folder: Path, until: int | None) -> None:
    torch.set_num_threads(1)
    run = Trainer.resume(CHOSEN, folder) if checkpoint.exists(folder / checkpoint.LAST) else new(folder)
    run.fit(Adapted(until), Watcher(lambda _: None, lambda *_: None, _moved))


def _moved(ranker: Ranker) -> float:
    """Something that grows while adapters learn."""
    return float(sum(update.up_OR.detach().abs().sum() for each in ranker.attached.values() for update in each.updates))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An unbroken run, and one that was killed."""
    whole, broken = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("broken")
    ends = [(whole, None, 0), (broken, 8, -signal.SIGKILL), (broken, None, 0)]
    for folder, until, exitcode in ends:
        process = processes().Process(target=train, args=(folder, until))
        process.start()
        process.join()
        assert process.exitcode == exitcode
    return whole, broken


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the one that tells the time, and the one that says whether it was ever read."""
    files = (path for path in folder.rglob("*") if path.is_file())
    apart = {"run.json", "tokenizer_config.json"}
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name not in apart}


@pytest.mark.parametrize("name", [checkpoint.LAST, checkpoint.BEST])
def test_a_killed_run_of_adapters_ends_as_an_unbroken_one_to_the_bit(runs: tuple[Path, Path], name: str) -> None:
    whole, broken = (contents(run / name) for run in runs)
    assert {f"adapters/{adapter}/{adapters.WEIGHTS_FILE}" for adapter in "ab"} <= whole.keys()
    assert whole == broken


def test_only_the_adapters_have_learned(runs: tuple[Path, Path]) -> None:
    ranker, _, moments, state = checkpoint.restore(runs[0] / checkpoint.LAST)
    first = new(runs[0]).ranker
    assert state["step"] == STEPS
    assert "adapters" not in state
    assert {name.split(".")[0] for name in moments} == {"adapters"}
    for (name, then), now in zip(first.named_parameters(), ranker.parameters(), strict=True):
        assert then.requires_grad == now.requires_grad == name.startswith("adapters."), name
        assert name.endswith("down_RI") or torch.equal(then, now) != name.startswith("adapters."), name


def test_adapters_come_back_in_their_order_with_their_targets(runs: tuple[Path, Path]) -> None:
    ranker = checkpoint.restore(runs[0] / checkpoint.LAST)[0]
    assert list(ranker.attached) == ["b", "a"]
    assert ranker.attached["b"].settings.target_modules == ODD
    assert [name for name, _ in ranker.named_parameters()] == [
        name for name, _ in new(runs[0]).ranker.named_parameters()
    ]


def test_a_checkpoints_adapters_belong_to_its_own_weights(runs: tuple[Path, Path], tmp_path: Path) -> None:
    copied = shutil.copytree(runs[0] / checkpoint.LAST, tmp_path / checkpoint.LAST)
    ranker, reader, _, _ = checkpoint.restore(copied)
    with torch.no_grad():
        next(ranker.lm.parameters()).add_(1.0)
    ranker.save(tmp_path / "other", reader)
    shutil.copy(tmp_path / "other" / "model.safetensors", copied)
    with pytest.raises(CheckpointError, match="revision: it belongs to version"):
        checkpoint.restore(copied)


@pytest.mark.parametrize("name", ["..", "a/b"])
def test_a_name_that_no_folder_can_have_is_refused_before_anything_is_written(
    name: str, tiny_encoder: TextEncoder, tmp_path: Path
) -> None:
    ranker = build(tiny_config(vocab_size=len(tiny_encoder.tokenizer)))
    adapters.attach(ranker, name)
    with pytest.raises(CheckpointError, match="cannot be saved: its name should be one that a file may have"):
        checkpoint.save(tmp_path / "last", ranker, tiny_encoder, {}, {"step": 0, "best": None, "seconds": 0.0})
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_from_before_adapters_is_read(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    ranker = build(tiny_config(vocab_size=len(tiny_encoder.tokenizer)))
    checkpoint.save(tmp_path / "last", ranker, tiny_encoder, {}, {"step": 1, "best": None, "seconds": 0.0})
    state = json.loads((tmp_path / "last" / "run.json").read_text(encoding="utf-8"))
    assert state.pop("adapters") == []
    (tmp_path / "last" / "run.json").write_text(json.dumps(state), encoding="utf-8")
    again, _, _, found = checkpoint.restore(tmp_path / "last")
    assert found["step"] == 1
    assert all(parameter.requires_grad for parameter in again.parameters())
