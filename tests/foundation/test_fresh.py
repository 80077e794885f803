"""New model folders: whole or not at all, and only around weights that fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from foundation.fresh import assemble, fresh_folder
from prompts.errors import CheckpointError
from tests.foundation.llamas import SMALL, dense

TIED = LlamaConfig(**SMALL, tie_word_embeddings=True)


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "models" / "one"
    with fresh_folder(out) as fresh:
        fresh.mkdir()
        (fresh / "config.json").write_text("{}")
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["config.json"]
    assert [path.name for path in out.parent.iterdir()] == ["one"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_that_failed_is_gone(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), fresh_folder(tmp_path / "one") as fresh:  # noqa: PT012
        fresh.mkdir()
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_there_stays(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "one"
    out.mkdir() if kind == "folder" else out.write_text("mine")
    with pytest.raises(CheckpointError, match=r"one is there already: remove it"), fresh_folder(out):
        pytest.fail("the block must not run")
    assert out.exists()


@pytest.mark.parametrize("tied", [True, False])
def test_a_decoder_around_tensors_is_that_decoder(tied: bool) -> None:
    config = LlamaConfig(**SMALL, tie_word_embeddings=tied)
    state = {name: tensor for name, tensor in dense(config).state_dict().items() if not (tied and "lm_head" in name)}
    found = assemble(config, state).state_dict()
    assert found.keys() == state.keys() | {"lm_head.weight"}
    assert all(found[name] is tensor or torch.equal(found[name], tensor) for name, tensor in state.items())
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"]) == tied


NORM = "model.norm.weight"
CHANGES = {
    "missing": ({NORM: None}, rf"such as {NORM}"),
    "one too many": ({"model.extra.weight": torch.ones(3)}, r"such as model\.extra\.weight"),
    "another shape": ({NORM: torch.ones(7)}, rf"size mismatch for {NORM}"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_weights_that_do_not_fit_are_named(name: str) -> None:
    change, message = CHANGES[name]
    state = {key: tensor for key, tensor in {**dense(TIED).state_dict(), **change}.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=message) as caught:
        assemble(TIED, state)
    assert "\n" not in str(caught.value)
