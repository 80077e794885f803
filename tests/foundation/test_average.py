"""The mean of two models is a model, and nothing else is averaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foundation import model as models
from foundation.average import average
from foundation.tokenizer import TextEncoder, train
from prompts.errors import CheckpointError, ConfigError
from serve.cli import main
from tests.conftest import tiny_config


def saved(folder: Path, encoder: TextEncoder, seed: int, **changes: object) -> Path:
    models.build(tiny_config(vocab_size=len(encoder.tokenizer), **changes), seed).save(folder, encoder)
    return folder


def test_it_is_the_mean_weight_by_weight(tmp_path: Path, tiny_encoder: TextEncoder) -> None:
    one, other = (saved(tmp_path / name, tiny_encoder, seed) for seed, name in enumerate("ab"))
    assert main(["model", "average", str(one), str(other), "--out", str(tmp_path / "c"), "--share", "0.25"]) == 0
    (first, _), (second, _), (mean, encoder) = (models.load(path) for path in (one, other, tmp_path / "c"))
    assert encoder.encode("Heat (1995)") == tiny_encoder.encode("Heat (1995)")
    for name, tensor in mean.state_dict().items():
        expected = 0.75 * first.state_dict()[name] + 0.25 * second.state_dict()[name]
        torch.testing.assert_close(tensor, expected, atol=1e-3, rtol=1e-3)
    assert first.compressor is not None
    assert mean.compressor is not None


def test_what_has_no_mean_is_told(
    tmp_path: Path, tiny_encoder: TextEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    one, wide = saved(tmp_path / "a", tiny_encoder, 0), saved(tmp_path / "b", tiny_encoder, 0, expert_size=96)
    assert main(["model", "average", str(one), str(wide), "--out", str(tmp_path / "c")]) == 2
    assert "models of two shapes" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
    with pytest.raises(ConfigError, match="share: 2 is outside 0 to 1"):
        average(one, one, tmp_path / "c", 2)
    with pytest.raises(ConfigError, match="it is there already"):
        average(one, one, one, 0.5)
    other = TextEncoder(train(["quite other words, of another world"] * 50, len(tiny_encoder.tokenizer)))
    if len(other.tokenizer) == len(tiny_encoder.tokenizer):
        with pytest.raises(CheckpointError, match="two vocabularies"):
            average(one, saved(tmp_path / "d", other, 0), tmp_path / "c", 0.5)
