"""The surface `headlines` over HTTP: the request of docs/preferences.md, with texts of its own and no member."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from foundation.engine.torch import TorchEngine
from serve.services import Services
from surfaces.examples.ab_tests import ABTest
from surfaces.examples.ab_trees import scored
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from tests.serve.conftest import served

PAGE = (Path(__file__).parents[2] / "docs" / "preferences.md").read_text(encoding="utf-8")
REQUEST = json.loads(next(iter(re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL))))


def test_a_request_is_ranked_as_the_bench_scores_it(tiny_engine: TorchEngine, tmp_path: Path) -> None:
    registry = Registry.shipped()
    spec = registry.surface("headlines")
    texts = {each["item_id"]: each["text"] for each in REQUEST["candidates"]}
    test = ABTest("a", REQUEST["context"]["about"], tuple(texts.values()), (1,) * len(texts), (0,) * len(texts))
    (expected_K,) = scored(spec, registry.trunk(spec.trunk), tiny_engine, [test])
    with (
        Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger,
        served(Services.open(ledger, tiny_engine, registry)) as client,
    ):
        client.until_ready()
        reply = client.rank("headlines", **REQUEST, k=len(texts))
    assert reply.status == 200
    assert not reply.json["degraded"]
    slate = reply.json["slate"]
    assert [each["item_id"] for each in slate] == [list(texts)[n] for n in np.argsort(-expected_K, kind="stable")]
    found = {each["item_id"]: each["heads"]["click"] for each in slate}
    assert list(map(found.__getitem__, texts)) == pytest.approx(expected_K.tolist(), abs=1e-5)
