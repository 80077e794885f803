"""Several processes make one run: the same weights as one process, checkpoints for any number, one clear error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from foundation.engine.pack import pack
from foundation.engine.torch import TorchEngine
from foundation.model import Ranker, build
from foundation.tokenizer import TextEncoder
from foundation.training import checkpoint, distributed
from foundation.training.distributed import Processes, cut, joined
from foundation.training.labels import LabelledTree, Losses, losses
from foundation.training.settings import TrainSettings
from foundation.training.trainer import StepReport, Trainer, Watcher, recompute
from prompts.errors import TrainingError
from tests.conftest import tiny_config
from tests.foundation.runs import LOG, Copying, Uneven, encoder, settings, together, train

STEPS = 6
TOLERANCE = 1e-5


def finished(number: int, target: Callable[..., None], *arguments: object) -> list[int | None]:
    """Exit codes of processes that know each other."""
    started = together(number, target, *arguments)
    for process in started:
        process.join(120)
    return [process.exitcode for process in started]


def weights(folder: Path) -> tuple[Ranker, dict[str, torch.Tensor]]:
    ranker, _, moments, _ = checkpoint.restore(folder / checkpoint.LAST)
    return ranker, moments


def furthest(ours: Path, theirs: Path) -> float:
    """The largest difference of any weight or moment of two runs."""
    (ranker, moments), (other, others) = weights(ours), weights(theirs)
    assert moments.keys() == others.keys()
    pairs = [*zip(ranker.parameters(), other.parameters(), strict=True), *((moments[n], others[n]) for n in moments)]
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of it."""
    folder = tmp_path_factory.mktemp("alone")
    train(folder, chosen(), Uneven())
    return folder


def chosen(**changes: object) -> TrainSettings:
    """The rate is a low one: Adam makes a step of the whole rate of a gradient that is nothing but rounding."""
    return settings(STEPS, **({"checkpoint_every": 3, "validate_every": 3, "learning_rate": 1e-4} | changes))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_make_the_weights_of_one(alone: Path, tmp_path: Path, strategy: str) -> None:
    assert finished(2, train, tmp_path, chosen(strategy=strategy), Uneven()) == [0, 0]
    assert furthest(tmp_path, alone) <= TOLERANCE
    ours, theirs = logged(tmp_path), logged(alone)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        for name in ("loss", *Losses._fields, "gradient_norm", "expert_most", "validation_ndcg@10"):
            assert mine.get(name, 0.0) == pytest.approx(other.get(name, 0.0), abs=1e-4), name


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_parts_and_recomputation_change_nothing_of_it(tmp_path: Path, strategy: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train(one, chosen(accumulate=3), Uneven())
    assert finished(2, train, two, chosen(accumulate=3, gradient_checkpointing=True, strategy=strategy), Uneven()) == [
        0,
        0,
    ]
    assert furthest(one, two) <= TOLERANCE


def test_a_run_goes_on_with_another_number_of_processes(alone: Path, tmp_path: Path) -> None:
    fsdp = chosen(strategy="fsdp")
    assert finished(2, train, tmp_path, fsdp, Uneven(until=4)) == [1, 1]
    assert checkpoint.restore(tmp_path / checkpoint.LAST)[3]["step"] == 3
    with pytest.raises(EOFError):
        train(tmp_path, fsdp, Uneven(until=5))
    assert finished(3, train, tmp_path, fsdp, Uneven()) == [0, 0, 0]
    assert furthest(tmp_path, alone) <= TOLERANCE
    assert [line["step"] for line in logged(tmp_path)] == [line["step"] for line in logged(alone)]


def test_what_shares_wrote_is_served_by_one_process(tmp_path: Path) -> None:
    assert finished(2, train, tmp_path, settings(1, strategy="fsdp"), Uneven()) == [0, 0]
    files = {path.name for path in (tmp_path / checkpoint.BEST).iterdir()}
    assert {"model.safetensors", "compressor.safetensors", "config.json", "tokenizer.json"} <= files
    engine = TorchEngine.load(tmp_path / checkpoint.BEST)
    assert len(engine.score([Uneven().batch(0)[0].tree])[0].logp) > 1


def test_torchrun_starts_a_run(alone: Path, tmp_path: Path) -> None:
    told = chosen(strategy="ddp").model_dump_json()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, "-m", "tests.foundation.runs", str(tmp_path), told], check=True, timeout=120)
    assert furthest(tmp_path, alone) <= TOLERANCE


def takes_turns(folder: Path) -> None:
    with joined() as group, group.in_turn():
        found = (folder / "made").exists()
        (folder / "made").touch()
        assert found != group.first
        (folder / str(group.rank)).touch()


def test_what_the_first_makes_the_others_find(tmp_path: Path) -> None:
    assert finished(2, takes_turns, tmp_path) == [0, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"made", "0", "1"}


def hears(folder: Path) -> None:
    with joined() as group:
        assert group.told(0.1 + group.rank) == 0.1
        assert group.total(torch.tensor([1.0, group.rank])).tolist() == [2.0, 1.0]


def test_what_the_first_says_all_know(tmp_path: Path) -> None:
    assert finished(2, hears, tmp_path) == [0, 0]


def test_one_process_needs_no_others(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    with joined() as group, group.in_turn():
        assert group == Processes(0, 1)
        assert group.told(0.3) == 0.3
    assert Processes.here() == Processes(0, 1)


def test_processes_that_do_not_know_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="2 processes that do not know each other"):
        Processes.here()


def test_shares_are_of_every_tree_once() -> None:
    batch = Uneven(11).batch(0)
    found = [tree for rank in range(2) for part in cut(batch, 3, Processes(rank, 2)) for tree in part]
    assert sorted(map(id, found)) == sorted(map(id, batch))


def test_too_few_trees_are_one_clear_error() -> None:
    with pytest.raises(TrainingError, match=r"5 trees a step are too few for 2 processes and 3 parts: .* 6 or more"):
        cut(Uneven(5).batch(0), 3, Processes(0, 2))


def test_losses_of_parts_add_up_to_those_of_the_whole() -> None:
    batch = Uneven(9).batch(1)
    leaves = [sum(1 for node in each.tree.nodes if node.answers) for each in batch]
    logits = [torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in leaves]
    whole = losses(torch.cat(logits), batch)
    added = [0.0] * len(Losses._fields)
    for part in (slice(0, 9, 2), slice(1, 9, 4), slice(3, 9, 4)):
        found = distributed.shared(losses(torch.cat(logits[part]), batch[part]), batch[part], batch)
        added = [total + float(each) for total, each in zip(added, found, strict=True)]
    assert added == pytest.approx([float(each) for each in whole], abs=1e-5)


def one_step(encoder: TextEncoder, folder: Path, **changes: object) -> tuple[StepReport, Trainer]:
    run = Trainer(build(tiny_config(vocab_size=len(encoder.tokenizer))), encoder, settings(1, **changes), folder)
    reports: list[StepReport] = []
    run.fit(Uneven(), Watcher(reports.append, lambda *_: None, lambda _: 0.0))
    return reports[0], run


def test_parts_make_the_gradient_of_a_whole_step(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    no_balance = {"loss": {"balance": 0.0}}
    whole, _ = one_step(tiny_encoder, tmp_path / "whole", **no_balance)
    parts, _ = one_step(tiny_encoder, tmp_path / "parts", accumulate=4, **no_balance)
    assert parts.loss == pytest.approx(whole.loss, abs=1e-5)
    assert parts.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-5)
    assert torch.equal(parts.load_ME, whole.load_ME)
    assert (parts.leaves, parts.slots) == (whole.leaves, whole.slots)


def test_recomputation_makes_the_same_gradient_with_less_kept(tiny_encoder: TextEncoder) -> None:
    batch, kept, gradients = Copying().batch(0), [], []
    for again in (False, True):
        ranker = build(tiny_config(vocab_size=len(tiny_encoder.tokenizer), layers=4)).train()
        if again:
            recompute(ranker)
        held, gradient = gradient_of(ranker, batch)
        kept.append(held)
        gradients.append(gradient)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    assert kept[1] < 0.5 * kept[0]


def gradient_of(ranker: Ranker, batch: list[LabelledTree]) -> tuple[int, torch.Tensor]:
    """Numbers that the forward keeps for the backward, and the gradient."""
    sizes = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = ranker(pack([each.tree for each in batch]))
    held = sum(sizes)
    losses(logits, batch).listwise.backward()
    return held, torch.cat([p.grad.flatten() for p in ranker.parameters() if p.grad is not None])


def test_a_part_without_labels_is_learned_from_as_nothing(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    batch = [each._replace(lists=(), choices=(), graded=()) for each in Uneven().batch(0)]
    run = Trainer(build(tiny_config(vocab_size=len(tiny_encoder.tokenizer))), tiny_encoder, settings(1), tmp_path)
    learned = run._backward(batch, batch)
    assert [float(each) for each in learned.losses] == [0.0] * len(Losses._fields)
    assert float(learned.loss) > 0  # the experts' balance


class Spoiled(Uneven):
    """Before a step is learned from, something happens."""

    def __init__(self, step: int, happens: Callable[[], None]) -> None:
        super().__init__()
        self._step, self._happens = step, happens

    def batch(self, step: int) -> list[LabelledTree]:
        if step == self._step:
            self._happens()
        return super().batch(step)


def run_away(folder: Path) -> None:
    """A run of two processes, of which the second gets a weight that is no number after the checkpoint of step 3."""
    with joined() as group:
        reader = encoder()
        run = Trainer(build(tiny_config(vocab_size=len(reader.tokenizer))), reader, chosen(), folder)

        def spoil() -> None:
            if not group.first:
                next(run.ranker.parameters()).data.fill_(float("nan"))

        run.fit(Spoiled(5, spoil), Watcher(lambda _: None, lambda *_: None, lambda _: 0.0))


def test_numbers_that_run_away_in_one_process_stop_them_all(tmp_path: Path) -> None:
    assert finished(2, run_away, tmp_path) == [1, 1]
    ranker, _, _, state = checkpoint.restore(tmp_path / checkpoint.LAST)
    assert state["step"] == 3
    assert all(parameter.isfinite().all() for parameter in ranker.parameters())
