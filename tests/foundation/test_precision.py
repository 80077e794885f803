"""bf16 products: isolated, close to fp32, and refused where they would be slow or wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from foundation import model as models
from foundation import precision
from foundation.decoder import Decoder
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.torch import EngineSettings, TorchEngine
from foundation.precision import Bf16, has_bf16, make_for, reader_at
from foundation.product import Plain, packed_where_faster
from foundation.tokenizer import TextEncoder
from foundation.tryout import asked_by
from prompts.errors import ConfigError
from tests.conftest import tiny_config

CPU = torch.device("cpu")
ROUNDING = 2.0**-8
"""Half the distance of two neighbouring bf16 numbers around one."""


@pytest.fixture(scope="module")
def nano() -> tuple[models.Ranker, TextEncoder]:
    return models.load(models.shipped("nano"))


@pytest.fixture
def bf16(nano: tuple[models.Ranker, TextEncoder], monkeypatch: pytest.MonkeyPatch) -> TorchEngine:
    """The nano with bf16 products, on any hardware: emulated where it has none."""
    monkeypatch.setattr(precision, "has_bf16", lambda _: True)
    return rounded(*nano)


def rounded(ranker: models.Ranker, encoder: TextEncoder) -> TorchEngine:
    """An engine whose products round, and which remembers nothing."""
    return TorchEngine(ranker, encoder, settings=EngineSettings(cache_bytes=0, precision="bf16"))


def request(leaves: int, vocabulary: int = 6000) -> TokenTree:
    """A trunk of 40 tokens, and leaves of 3 to 12."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(3, 13, leaves)
    texts = [tuple(rng.integers(10, vocabulary, size).tolist()) for size in [40, *sizes]]
    return TokenTree((TokenNode(texts[0]), *(TokenNode(text, 0, None, (20, 30)) for text in texts[1:])))


def odds(engine: TorchEngine, tree: TokenTree) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """[leaves]: log-odds of the first answer."""
    table = engine.score([tree])[0].table()
    return np.asarray(table[:, 0] - table[:, 1])


def test_a_product_is_rounded_and_no_more() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(37, 96), torch.randn(50, 96), torch.randn(50)
    exact, found = Plain(weight, bias)(x), Bf16.of(weight, bias)(x)
    assert found.dtype == torch.float32
    size = x.abs() @ weight.abs().T + bias.abs()
    assert bool(((found - exact).abs() <= 3 * ROUNDING * size).all())
    assert not torch.equal(found, exact)


def test_adding_a_product_is_adding_what_it_gives() -> None:
    torch.manual_seed(1)
    x, target, product = torch.randn(9, 32), torch.randn(9, 16), Bf16.of(torch.randn(16, 32), None)
    expected = target + product(x)
    product.add_to(target, x)
    assert torch.equal(target, expected)


def test_a_row_does_not_depend_on_the_others() -> None:
    torch.manual_seed(2)
    x, product = torch.randn(64, 96), Bf16.of(torch.randn(48, 96), None)
    x[1:] *= 1000  # one scale for all rows, as of dynamic int8, would leave nothing of the first
    torch.testing.assert_close(product(x[:1]), product(x)[:1], rtol=2 * ROUNDING, atol=2 * ROUNDING)


def test_a_leaf_scores_alone_as_beside_others(bf16: TorchEngine) -> None:
    tree = request(20)
    together = odds(bf16, tree)
    alone = [odds(bf16, TokenTree((tree.nodes[0], leaf)))[0] for leaf in tree.nodes[1:]]
    apart = np.abs(together - np.array(alone))
    assert apart.max() <= 8 * ROUNDING  # a sum in another order may round to the next number


def test_the_ranking_stays_near_that_of_fp32(nano: tuple[models.Ranker, TextEncoder], bf16: TorchEngine) -> None:
    tree = request(100)
    exact = odds(TorchEngine(*nano, settings=EngineSettings(cache_bytes=0)), tree)
    assert kendalltau(exact, odds(bf16, tree)).statistic >= 0.97


def test_saving_keeps_the_weights_exact(
    tiny_encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda _: True)
    ranker = models.build(tiny_config(vocab_size=len(tiny_encoder.tokenizer)))
    tree = request(5, vocabulary=200)
    before = odds(rounded(ranker, tiny_encoder), tree)
    ranker.save(tmp_path / "model", tiny_encoder)
    loaded, encoder = models.load(tmp_path / "model")
    states = loaded.lm.state_dict(), ranker.lm.state_dict()
    assert all(torch.equal(state, states[1][name]) for name, state in states[0].items())
    np.testing.assert_allclose(odds(rounded(loaded, encoder), tree), before, atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_bf16_is_refused_without_its_units(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: including_emulation)
    with pytest.raises(ConfigError, match=f"this {device} has no units for it .*; choose fp32"):
        make_for("bf16", torch.device(device))


@pytest.mark.parametrize("unit", ["avx512_bf16", "amx_bf16"])
def test_a_processor_with_one_of_the_units_has_bf16(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {unit: True})
    assert has_bf16(CPU)
    assert make_for("bf16", CPU) == Bf16.of


def test_no_other_device_is_believed_to_have_bf16() -> None:
    assert not has_bf16(torch.device("meta"))


@pytest.mark.parametrize("wrong", ["int8", "fp16", ""])
def test_another_precision_is_refused_and_told_what_there_is(wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"precision '{wrong}': choose fp32 .* or bf16"):
        make_for(wrong, CPU)


def test_fp32_is_whatever_multiplies_exactly() -> None:
    assert make_for("fp32", CPU) is Plain
    assert make_for("fp32", CPU, packed_where_faster) is packed_where_faster


def test_bf16_is_refused_for_an_architecture_that_is_not_ours(
    nano: tuple[models.Ranker, TextEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranker, _ = nano
    monkeypatch.setattr(precision, "has_bf16", lambda _: True)
    with pytest.raises(ConfigError, match="only transformers' forward knows this architecture"):
        reader_at("bf16", ranker, asked_by(ranker), known=False)


def test_fp32_goes_the_fastest_way(nano: tuple[models.Ranker, TextEncoder]) -> None:
    ranker, _ = nano
    assert isinstance(reader_at("fp32", ranker, asked_by(ranker), known=True), Decoder)


def test_an_engine_is_not_loaded_at_a_precision_that_the_hardware_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda _: False)
    with pytest.raises(ConfigError, match="precision bf16"):
        TorchEngine.load(models.shipped("nano"), EngineSettings(precision="bf16"))
