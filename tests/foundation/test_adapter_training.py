"""Adapters trained: the base stays as it is, and what is served is what training saw."""

from __future__ import annotations

import copy
import random
import re
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from foundation import adapters
from foundation import model as models
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.pack import pack
from foundation.engine.torch import TorchEngine
from foundation.lowrank import TARGETS, Target
from foundation.model import Ranker, build
from foundation.tokenizer import TextEncoder
from foundation.training.labels import Choice, LabelledTree, Listwise, losses
from prompts.errors import ConfigError
from tests.conftest import tiny_config
from tests.foundation.adapted import BASE, VOCABULARY, ByPeft, engine_with, mixed, scored, visit
from tests.foundation.reference import leaves_of, random_node, widen

PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"


class Task:
    """Labelled trees whose right leaf repeats a token of the trunk, all under one adapter."""

    def __init__(self, adapter: str) -> None:
        self.adapter = adapter

    def batch(self, step: int) -> list[LabelledTree]:
        generator = torch.Generator().manual_seed(step)
        return [self._tree(generator) for _ in range(8)]

    def _tree(self, generator: torch.Generator) -> LabelledTree:
        tokens = (torch.randperm(12, generator=generator)[:5] + 20).tolist()
        leaves = [TokenNode((token,), 1, None, (3, 4, 5, 6)) for token in tokens]
        tree = TokenTree((TokenNode((10, tokens[2], 11)), TokenNode((12, 13), 0), *leaves)).adapted(self.adapter)
        return LabelledTree(tree, (Listwise((0, 1, 2, 3, 4), 2, 0, 1, (1.0,) * 5),), (Choice(2, (2, 3), 1),))


def learn(ranker: Ranker, task: Task, steps: int) -> list[float]:
    """The loss of each step; of the ranker, what is not frozen learns."""
    optimizer = torch.optim.AdamW([p for p in ranker.parameters() if p.requires_grad], lr=1e-2)
    found = []
    for step in range(steps):
        batch = task.batch(step)
        each = losses(ranker(pack([labelled.tree for labelled in batch])), batch)
        loss = each.listwise + each.pointwise + each.choice
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        found.append(float(loss.detach()))
    return found


def test_trained_saved_and_served_it_gives_what_training_saw(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    ranker = build(tiny_config())
    frozen = {name: tensor.clone() for name, tensor in ranker.state_dict().items()}
    adapters.attach(ranker, "task", rank=8)
    found = learn(ranker, Task("task"), 40)
    assert sum(found[-5:]) < 0.8 * sum(found[:5])
    after = ranker.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in frozen.items())
    trees = [labelled.tree for labelled in Task("task").batch(1000)] + [visit(), visit("task")]
    with torch.inference_mode():
        expected = [row[row.isfinite()] for row in ranker(pack(trees)).log_softmax(dim=-1)]

    adapters.save(ranker.attached["task"], tmp_path / "task", BASE)
    served = build(tiny_config())
    served.load_state_dict(frozen)
    engine = engine_with(served, tiny_encoder, tmp_path)
    for way in (engine, TorchEngine(ranker, tiny_encoder)):
        assert max(float((a - b).abs().max()) for a, b in zip(scored(way, trees), expected, strict=True)) <= 1e-5


def test_the_page_on_adapters_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code, in the order in which one needs it: training, then serving."""
    monkeypatch.chdir(tmp_path)
    served, trained = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    known: dict[str, Any] = {
        "adapters": adapters, "model": models, "torch": torch, "pack": pack, "losses": losses, "Path": Path,
        "TorchEngine": TorchEngine, "batches": [Task("").batch(step) for step in range(3)], "tree": visit(),
    }  # fmt: skip
    exec(trained, known)
    exec(served, known)
    base, jobs = (scores.table() for scores in known["scores"])
    assert float(abs(base - jobs).max()) > 1e-4
    assert known["engine"].adapters == ()


def test_what_is_saved_is_what_peft_reads(tmp_path: Path) -> None:
    ranker = build(tiny_config())
    adapter = adapters.attach(ranker, "task", rank=3, alpha=5.0, targets=("v_proj", "o_proj"))
    learn(ranker, Task("task"), 3)
    adapters.save(adapter, tmp_path, "tiny@7")
    with warnings.catch_warnings(action="ignore"):
        model = peft.PeftModel.from_pretrained(copy.deepcopy(ranker.lm), str(tmp_path))
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.revision, config.base_model_name_or_path) == (3, 5.0, "7", "tiny")
    updates = {update.path: update for update in adapter.updates}
    assert len(updates) == 2 * 2
    for where, update in updates.items():
        delta = model.get_submodule(f"base_model.model.{where}").get_delta_weight("default")
        assert float(delta.abs().max()) > 1e-3
        assert torch.equal(delta, update.up_OR @ update.down_RI * (5 / 3))


def test_before_it_learned_it_changes_nothing() -> None:
    own = build(tiny_config())
    with torch.inference_mode():
        before = own(pack([visit(), visit("")]))
        modules = {id(module) for module in own.lm.modules()}
        adapter = adapters.attach(own, "new")
        assert torch.equal(own(pack([visit("new"), visit()])), before)
    assert {id(module) for module in own.lm.modules()} == modules
    learning = [name for name, parameter in own.named_parameters() if parameter.requires_grad]
    assert len(learning) == len(list(adapter.parameters())) == 2 * 4 * 2


@pytest.mark.parametrize("targets", [TARGETS, ("v_proj",), ("k_proj",), ("o_proj",), ("q_proj", "v_proj")])
def test_its_gradient_is_that_of_every_leaf_alone(targets: tuple[Target, ...], tmp_path: Path) -> None:
    """In fp64, against autograd through transformers, peft and plain attention; the trunk's slots give none."""
    ranker = widen(build(tiny_config()).eval())
    by_peft = ByPeft(ranker, {"a": {"r": 3, "lora_alpha": 4, "target_modules": list(targets)}})
    by_peft.model.double()
    adapter = adapters.load(by_peft.save(tmp_path) / "a", "a", ranker, BASE).requires_grad_()
    ranker.requires_grad_(requires_grad=False)
    ranker.adapters.append(adapter)
    rng = random.Random(5)
    trees = [mixed(rng, random_node(rng, VOCABULARY), ["a", "a", ""], hidden=0) for _ in range(2)]
    expected = sum((by_peft.logp(trees[n], leaf).square().sum() for n, leaf in leaves_of(trees)), torch.zeros(()))
    expected.backward()  # type: ignore[no-untyped-call]
    logp_LA = ranker(pack(trees)).log_softmax(dim=-1)
    logp_LA[logp_LA.isfinite()].square().sum().backward()
    theirs = {
        name.replace(".a.", "."): each.grad for name, each in by_peft.model.named_parameters() if ".lora_" in name
    }
    for update in adapter.updates:
        for kind, own in (("A", update.down_RI.grad), ("B", update.up_OR.grad)):
            grad = theirs[f"base_model.model.{update.path}.lora_{kind}.weight"]
            assert own is not None
            assert float(grad.abs().max()) > 1e-4
            assert float((own - grad).abs().max()) <= 1e-9 * max(1.0, float(grad.abs().max()))


def test_adapters_that_learn_together_learn_from_their_own_trees() -> None:
    """Two of one batch come to the same as each trained alone, the other frozen or not there."""

    def trained(*names: str) -> dict[str, torch.Tensor]:
        ranker = build(tiny_config())
        torch.manual_seed(7)
        for name in ("x", "y"):
            adapters.attach(ranker, name, rank=2)
        optimizer = torch.optim.SGD(ranker.adapters.parameters(), lr=0.1)
        for step in range(3):
            batches = [Task(name).batch(10 * place + step) for place, name in enumerate(("x", "y")) if name in names]
            logits_LA = ranker(pack([each.tree for batch in batches for each in batch]))
            parts = zip(logits_LA.chunk(len(batches)), batches, strict=True)
            optimizer.zero_grad()
            torch.stack([losses(part, batch).listwise for part, batch in parts]).sum().backward()
            optimizer.step()
        return {
            f"{name} {update.path}": update.up_OR.detach() for name in names for update in ranker.attached[name].updates
        }

    together, alone = trained("x", "y"), trained("x") | trained("y")
    assert together.keys() == alone.keys()
    assert all(float(tensor.abs().max()) > 1e-4 for tensor in together.values())
    assert all((together[where] - tensor).abs().max() <= 1e-6 for where, tensor in alone.items())


def test_an_engine_over_a_ranker_in_training_sees_what_it_learns(tiny_encoder: TextEncoder) -> None:
    ranker = build(tiny_config())
    adapters.attach(ranker, "task")
    engine = TorchEngine(ranker, tiny_encoder)
    before = scored(engine, [visit("task")])
    learn(ranker, Task("task"), 5)
    engine.forget()
    with torch.inference_mode():
        expected = ranker(pack([visit("task")])).log_softmax(dim=-1)
    found = torch.stack(scored(engine, [visit("task")]))
    assert (found - expected).abs().max() <= 1e-5
    assert (found - torch.stack(before)).abs().max() > 1e-3


def test_saving_a_ranker_saves_its_base_alone(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    ranker = build(tiny_config(vocab_size=len(tiny_encoder.tokenizer)))
    ranker.save(tmp_path / "before", tiny_encoder)
    adapters.attach(ranker, "task")
    ranker.save(tmp_path / "after", tiny_encoder)
    files = [sorted(each.name for each in (tmp_path / name).iterdir()) for name in ("before", "after")]
    assert files[0] == files[1]
    name = "model.safetensors"
    assert (tmp_path / "before" / name).read_bytes() == (tmp_path / "after" / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("", {}, "needs a name"),
        ("taken", {}, "a name that no other has, not 'taken'"),
        ("new", {"rank": 0}, "adapter 'new': r: Input should be greater"),
        ("new", {"alpha": -1.0}, "adapter 'new': lora_alpha"),
        ("new", {"targets": ()}, "adapter 'new': target_modules"),
        ("new", {"targets": ("router",)}, "adapter 'new': target_modules.0"),
    ],
)
def test_what_is_no_adapter_is_not_attached(name: str, changes: dict[str, Any], message: str) -> None:
    ranker = build(tiny_config())
    adapters.attach(ranker, "taken")
    with pytest.raises(ConfigError, match=message):
        adapters.attach(ranker, name, **changes)
    assert list(ranker.attached) == ["taken"]
