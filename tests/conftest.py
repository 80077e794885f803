"""What every test may use: a tiny real model, real databases, property tests without a deadline on a busy machine."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import settings

from foundation import model as models
from foundation import tokenizer
from foundation.config import ModelConfig
from foundation.engine.torch import TorchEngine
from foundation.tokenizer import TextEncoder
from surfaces.ledger.store import Ledger
from tests.databases import BACKENDS, POSTGRES, Open

torch.set_num_threads(1)
settings.register_profile("prismrank", deadline=None)
settings.load_profile("prismrank")

TEXTS = (
    "Films. Which one does the member watch next? liked watched disliked like dislike none yes no apply dismiss",
    "like comment share hide none apply save dismiss none click hide none connect none buy read tag",
    "Member. 24 M technician 53 F writer student engineer",
    "Toy Story (1995) Animation, Children's, Comedy GoldenEye Action, Adventure, Thriller The Godfather Drama Crime",
    "popularity top low chosen together alike in text none",
)


def tiny_config(**changes: object) -> ModelConfig:
    """The nano, smaller: two layers of a mixture of four experts."""
    small = {
        "vocab_size": 512, "hidden_size": 48, "layers": 2, "heads": 4, "kv_heads": 2, "experts": 4, "expert_size": 64,
        "experts_per_token": 2, "initializer_range": 0.15,
    }  # fmt: skip
    return ModelConfig.load("nano").model_copy(update={**small, **changes})


@pytest.fixture(scope="session", autouse=True)
def learned_sequences(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache for this run's tests alone, so that none finds there what another run has learned."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("surfaces.sources.sasrec.cache_folder", lambda: folder)
        yield folder


@pytest.fixture(scope="session")
def tiny_encoder() -> TextEncoder:
    """A byte-level BPE of 512 tokens."""
    return TextEncoder(tokenizer.train([text for text in TEXTS for _ in range(50)], 512))


@pytest.fixture(scope="session")
def tiny_engine(tiny_encoder: TextEncoder) -> TorchEngine:
    """A real engine over a tiny mixture of experts with random weights and a compressor."""
    size = len(tiny_encoder.tokenizer)
    return TorchEngine(models.build(tiny_config(vocab_size=size)), tiny_encoder, "tiny@random")


@pytest.fixture(params=BACKENDS)
def open_tenant(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens a tenant; all of a test's tenants share one database."""
    opened: list[Ledger] = []
    prefix = uuid.uuid4().hex if request.param == "postgres" else ""
    url = str(POSTGRES) if request.param == "postgres" else f"sqlite:///{tmp_path}/ledger.sqlite"

    def open_one(tenant: str) -> Ledger:
        opened.append(Ledger.open(url, prefix + tenant))
        return opened[-1]

    yield open_one
    for ledger in opened:
        ledger.close()
