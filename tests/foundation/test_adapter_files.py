"""Adapters as files: what is no plain LoRA of this very model is refused, and told why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Phi3Config

from foundation import adapters
from foundation.adapters import CONFIG_FILE, WEIGHTS_FILE
from foundation.engine.torch import TorchEngine
from foundation.model import Ranker, build
from foundation.tokenizer import TextEncoder
from prompts.errors import CheckpointError
from tests.conftest import tiny_config
from tests.foundation.adapted import BASE, ByPeft, engine_with, scored, visit
from tests.foundation.llamas import SMALL, dense


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return build(tiny_config()).eval()


@pytest.fixture(scope="module")
def folder(ranker: Ranker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ByPeft(ranker).save(tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def engine(ranker: Ranker, tiny_encoder: TextEncoder, folder: Path) -> TorchEngine:
    """With the three adapters."""
    return engine_with(ranker, tiny_encoder, folder)


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    """A copy of a folder, to be damaged."""
    return shutil.copytree(folder / "a", tmp_path / "a")


def settings_of(folder: Path, **changes: object) -> None:
    file = folder / CONFIG_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"revision": "8"}, r"revision: it belongs to version '8' of a model; this is tiny@7"),
        ({"revision": None}, r"revision: it belongs to version None"),
        ({"peft_type": "IA3"}, r"peft_type: Input should be 'LORA'"),
        ({"r": 0}, r"adapter_config.json: r: Input should be greater than or equal to 1"),
        ({"r": 5}, r"lora_A.weight: has the shape \(4, 48\); this model and rank want \(5, 48\)"),
        ({"lora_alpha": 0}, r"lora_alpha: Input should be greater than 0"),
        ({"lora_alpha": float("nan")}, r"lora_alpha: "),
        ({"target_modules": ["q_proj", "gate_proj"]}, r"target_modules.1: Input should be 'q_proj'"),
        ({"target_modules": "all-linear"}, r"target_modules: Input should be a valid"),
        ({"target_modules": []}, r"target_modules: .*at least 1"),
        ({"target_modules": ["q_proj"]}, r"k_proj.lora_A.weight: no part of this adapter"),
        ({"bias": "all"}, r"bias: Input should be 'none'"),
        ({"use_dora": True}, r"use_dora: not done here; an adapter is plain LoRA on q_proj, k_proj, v_proj, o_proj"),
        ({"rank_pattern": {"q_proj": 8}}, r"rank_pattern: not done here"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save: not done here"),
        ({"layers_to_transform": [0]}, r"layers_to_transform: not done here"),
        ({"init_lora_weights": "pissa"}, r"init_lora_weights: not done here"),
        ({"an_option_of_tomorrow": 1}, r"an_option_of_tomorrow: not done here"),
    ],
)
def test_settings_that_are_not_done_are_refused(
    changes: dict[str, object], message: str, damaged: Path, engine: TorchEngine
) -> None:
    settings_of(damaged, **changes)
    with pytest.raises(CheckpointError, match=message):
        engine.add_adapter("new", damaged)
    assert engine.adapters == ("a", "b", "c")


QUERY = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop(QUERY), rf"{QUERY}: missing"),
        (lambda found: found.update({"base_model.model.lm_head.lora_A.weight": torch.ones(4, 48)}), "no part of this"),
        (lambda found: found.update({QUERY: torch.ones(4, 47)}), r"has the shape \(4, 47\).* want \(4, 48\)"),
        (lambda found: found.update({QUERY: torch.full((4, 48), float("nan"))}), rf"{QUERY}: holds no numbers"),
        (lambda found: found.update({QUERY: torch.ones(4, 48, dtype=torch.int8)}), r"holds no numbers .*int8"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, damaged: Path, engine: TorchEngine
) -> None:
    tensors = load_file(damaged / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, damaged / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match=message):
        engine.add_adapter("new", damaged)


def test_what_cannot_be_read_is_one_clear_error(damaged: Path, engine: TorchEngine) -> None:
    def fails(message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            engine.add_adapter("new", damaged)

    weights = damaged / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:100])
    fails("adapter_model.safetensors: cannot be read")
    weights.rename(damaged / "adapter_model.bin")
    fails("cannot be read .*; other formats of weights can run code and are not read")
    (damaged / CONFIG_FILE).write_text("{")
    fails("adapter_config.json: the file: Invalid JSON")
    shutil.rmtree(damaged)
    fails("adapter_config.json: cannot be read: No such file")


def test_a_decoder_without_such_projections_has_no_adapters(folder: Path, tiny_encoder: TextEncoder) -> None:
    ranker = Ranker(dense(Phi3Config(**SMALL))).eval()
    with pytest.raises(CheckpointError, match=r"no linear [qkv]_proj in each of its layers"):
        TorchEngine(ranker, tiny_encoder, BASE).add_adapter("a", folder / "a")
    with pytest.raises(CheckpointError, match=r"no linear q_proj in each"):
        adapters.attach(ranker, "a")


def test_half_precision_is_read_as_what_the_model_computes_in(damaged: Path, engine: TorchEngine, folder: Path) -> None:
    tensors = {name: tensor.half() for name, tensor in load_file(folder / "a" / WEIGHTS_FILE).items()}
    save_file(tensors, damaged / WEIGHTS_FILE)
    engine.add_adapter("half", damaged)
    apart = torch.stack(scored(engine, [visit("half")])) - torch.stack(scored(engine, [visit("a")]))
    assert 0 < float(apart.abs().max()) < 1e-2
