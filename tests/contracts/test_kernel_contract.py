"""What every kernel of tree attention does, wherever it runs: outputs and log-sum-exps equal a dense mask.

There need be no GPU here. flash-attn's one call is stood in for by a plain loop that demands what flash-attn demands;
FlexAttention is PyTorch's own, on the CPU.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from transformers import MistralConfig

from foundation.attention.cpu import CpuKernel
from foundation.attention.flash import FlashKernel
from foundation.attention.flex import BLOCK, FlexKernel, FlexPart, compiled
from foundation.attention.geometry import Geometry
from foundation.attention.gpu import kernel_for
from foundation.attention.merge import Remembered, merged_attention
from foundation.attention.parts import Kernel
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.forest import Forest
from foundation.engine.pack import Memory, Work, lay_out, pack
from foundation.engine.torch import EngineSettings, TorchEngine
from foundation.model import Ranker
from foundation.tokenizer import TextEncoder
from prompts.errors import CheckpointError
from tests.foundation.llamas import SMALL, dense
from tests.foundation.reference import random_tree

CPU = torch.device("cpu")
SCALE = 0.3
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def varlen_stand_in(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens_q: torch.Tensor, cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int, max_seqlen_k: int, *, softmax_scale: float, causal: bool, return_attn_probs: bool,
) -> tuple[torch.Tensor, torch.Tensor, None]:  # fmt: skip
    """`flash_attn_varlen_func` of flash-attn 2.8, sequence by sequence. Raises AssertionError where that would fail."""
    q_ends, k_ends = (_ends(*each) for each in ((q, cu_seqlens_q, max_seqlen_q), (k, cu_seqlens_k, max_seqlen_k)))
    assert len(q_ends) == len(k_ends)
    assert k.shape == v.shape
    assert return_attn_probs, "it would give the output alone"
    out, lse = torch.empty_like(q), q.new_empty(q.shape[1], len(q), dtype=torch.float32)
    for sequence in range(len(q_ends) - 1):
        queries, keys = (slice(*ends[sequence : sequence + 2]) for ends in (q_ends, k_ends))
        mask = torch.ones(queries.stop - queries.start, keys.stop - keys.start, dtype=torch.bool)
        if causal:
            mask = mask.tril(mask.shape[1] - mask.shape[0])
        assert mask.any(dim=1).all(), "flash-attn gives a query without keys a log-sum-exp of +inf"
        out[queries], lse[:, queries] = masked(q[queries], k[keys], v[keys], mask, softmax_scale)
    return out, lse, None


def _ends(x: torch.Tensor, cu_seqlens: torch.Tensor, longest: int) -> list[int]:
    assert cu_seqlens.dtype == torch.int32
    assert cu_seqlens.device == x.device
    assert x.ndim == 3
    assert x.stride(-1) == 1
    ends = cu_seqlens.tolist()
    sizes = np.diff(ends)
    assert (ends[0], ends[-1], longest) == (0, len(x), sizes.max())
    assert sizes.min() > 0
    return ends


def masked(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float = SCALE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [Q, H, D] and log-sum-exp [H, Q] in fp32, by a mask [Q, K]; heads of keys are shared by groups."""
    k, v = (x.float().repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q.float(), k) * scale
    scores = scores.masked_fill(~mask, float("-inf"))
    return torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), v).to(q.dtype), scores.logsumexp(dim=-1)


KERNELS = {
    "cpu": CpuKernel(),
    "flash": FlashKernel(CPU, varlen_stand_in),
    "flex": FlexKernel(CPU),
}


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return KERNELS[request.param]


@pytest.fixture(params=["cpu", "flex"])
def windowed_kernel(request: pytest.FixtureRequest) -> Kernel:
    """Those that can cut a window through a rectangle."""
    return KERNELS[request.param]


class Slot(NamedTuple):
    node: int
    slot: int


class Case(NamedTuple):
    """A geometry, and by its definition alone who sees whom: [new slots, new and then remembered ones]."""

    geometry: Geometry
    mask: torch.Tensor

    @property
    def held(self) -> int:
        return self.mask.shape[1] - self.mask.shape[0]


def make_case(seed: int, *, remembered: bool, window: int | None = None, trees: int = 2) -> Case:
    """Random trees, of which the first slots of some nodes are remembered."""
    rng = random.Random(seed)
    forest = Forest.of([random_tree(rng, 300) for _ in range(trees)], merge=False)
    known = [_known(rng, forest, node) if remembered else 0 for node in range(len(forest.nodes))]
    return case_of(forest, known, rng, window)


def _known(rng: random.Random, forest: Forest, node: int) -> int:
    size = forest.nodes[node].size
    return rng.choice([0, size, rng.randint(0, size)]) if forest.nodes[node].children else rng.choice([0, size // 2])


def long_case(window: int | None) -> Case:
    """A long trunk with one long leaf, and many short ones in its middle."""
    leaves = [TokenNode(tuple(range(24)), 0, 200) for _ in range(20)]
    tree = TokenTree((TokenNode(tuple(range(385))), TokenNode(tuple(range(300)), 0), *leaves))
    return case_of(Forest.of([tree], merge=False), [0] * len(tree.nodes), random.Random(0), window)


def case_of(forest: Forest, known: Sequence[int], rng: random.Random, window: int | None) -> Case:
    """The first `known` slots of each node are remembered, in one run or in two."""
    memory, held = Memory(), []
    cuts = [rng.randint(0, slots) for slots in known]
    for froms, tos in (([0] * len(known), cuts), (cuts, known)):
        for node in rng.sample(range(len(known)), len(known)):
            if froms[node] < tos[node]:
                memory.add(Work(node, froms[node], tos[node]), len(held), forest.nodes[node].depth)
                held += [Slot(node, slot) for slot in range(froms[node], tos[node])]
    works = [Work(node, known[node], forest.nodes[node].size) for node in forest.depth_first()]
    works = [work for work in works if work.size]
    new = [Slot(work.node, slot) for work in works for slot in range(work.start, work.stop)]
    return Case(lay_out(forest, works, memory).geometry, visible(forest, new, new + held, window))


def visible(forest: Forest, queries: Sequence[Slot], keys: Sequence[Slot], window: int | None) -> torch.Tensor:
    """[Q, K]: a slot sees its node up to itself and each ancestor up to where the branch hangs, within the window."""
    node_K, slot_K = np.array(keys).T
    position_K = np.array([forest.nodes[key.node].depth + key.slot for key in keys])
    mask = np.zeros((len(queries), len(keys)), dtype=bool)
    for row, (node, slot) in enumerate(queries):
        upto = slot + 1
        for above in forest.ancestors(node):
            mask[row] |= (node_K == above) & (slot_K < upto)
            upto = forest.nodes[above].seen
        if window is not None:
            mask[row] &= forest.nodes[node].depth + slot - position_K < window
    return torch.from_numpy(mask)


def drawn(case: Case, heads: tuple[int, int], dtype: torch.dtype = torch.float32) -> Iterator[torch.Tensor]:
    """q, k and v; keys are views into what holds more than them, as a decoder's are."""
    size, held = case.mask.shape[0], case.held
    generator = torch.Generator().manual_seed(size)
    joined = torch.randn(size + held, heads[0] + 2 * heads[1], 16, generator=generator).to(dtype)
    q, k, v = torch.split(joined, [heads[0], heads[1], heads[1]], dim=1)
    yield from (q[:size], k, v)


def check(
    kernel: Kernel, case: Case, *, heads: tuple[int, int] = (2, 2), window: int | None = None,
    rows: np.ndarray | None = None, dtype: torch.dtype = torch.float32, bound: float = 1e-5,
) -> None:  # fmt: skip
    """Raises AssertionError where a kernel differs from the dense mask."""
    q, k, v = drawn(case, heads, dtype)
    size = len(q)
    geometry, mask = case.geometry, case.mask
    if rows is not None:
        geometry, mask, q = geometry.only(rows), mask[rows], q[rows]
    remembered = Remembered(k[size:].contiguous(), v[size:].contiguous()) if case.held else None
    out, lse = merged_attention(q, k[:size], v[:size], kernel.parts(geometry, window), SCALE, remembered)
    expected, expected_lse = masked(q, k, v, mask)
    assert (out.dtype, lse.dtype) == (dtype, torch.float32)
    assert (out - expected).abs().max() <= bound
    assert (lse - expected_lse.T).abs().max() <= bound


@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_equals_a_dense_mask(kernel: Kernel, seed: int, remembered: bool) -> None:
    check(kernel, make_case(seed, remembered=remembered))


def test_many_and_long_trees(kernel: Kernel) -> None:
    check(kernel, make_case(9, remembered=True, trees=16))
    check(kernel, long_case(None))


@pytest.mark.parametrize("heads", [(4, 2), (9, 3), (4, 1)])
def test_queries_share_heads_of_keys_in_groups(kernel: Kernel, heads: tuple[int, int]) -> None:
    check(kernel, make_case(10, remembered=True), heads=heads)


@pytest.mark.parametrize("seed", range(20, 24))
def test_only_some_rows(kernel: Kernel, seed: int) -> None:
    case, rng = make_case(seed, remembered=True), random.Random(seed)
    size = len(case.mask)
    check(kernel, case, rows=np.array(sorted(rng.sample(range(size), max(1, size // 5)))))


def test_no_rows_at_all(kernel: Kernel) -> None:
    geometry = make_case(30, remembered=True).geometry.only(np.zeros(0, dtype=np.int64))
    assert kernel.parts(geometry, None) == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(kernel: Kernel, dtype: torch.dtype) -> None:
    check(kernel, make_case(31, remembered=True), dtype=dtype, bound=8 * torch.finfo(dtype).eps)


def test_a_slot_alone(kernel: Kernel) -> None:
    geometry = pack([TokenTree((TokenNode((5,)),))]).plan.geometry
    check(kernel, Case(geometry, torch.ones(1, 1, dtype=torch.bool)))


@pytest.mark.parametrize("window", [1, 2, 5, 16, 1000])
def test_a_sliding_window(windowed_kernel: Kernel, window: int) -> None:
    case = make_case(window, remembered=True, window=window)
    check(windowed_kernel, case, window=window)
    rows = np.arange(0, len(case.mask), 3)
    check(windowed_kernel, case, window=window, rows=rows)


def test_flash_attn_does_windows_that_cut_through_nothing() -> None:
    check(KERNELS["flash"], make_case(40, remembered=True, window=1000), window=1000)
    case = make_case(40, remembered=True, window=5)
    check(KERNELS["flash"], case, window=5, rows=np.array([len(case.mask) - 1]))
    with pytest.raises(CheckpointError, match=r"sliding window of 5 positions.*FlexAttention can"):
        KERNELS["flash"].parts(case.geometry, 5)


def test_flash_attn_is_called_once_a_level() -> None:
    geometry = make_case(41, remembered=False).geometry
    deepest = max(sum(one.q_start <= slot < one.q_start + one.q_size for one in geometry.above) for slot in range(500))
    assert len(KERNELS["flash"].parts(geometry, None)) == 1 + deepest


@pytest.mark.parametrize("window", [None, 7, 100])
def test_flex_lists_the_blocks_that_a_mask_touches(window: int | None) -> None:
    for case in (long_case(window), make_case(1, remembered=True), make_case(2, remembered=True, trees=16)):
        for part in KERNELS["flex"].parts(case.geometry, window):
            assert isinstance(part, FlexPart)
            _check_blocks(part)


def _check_blocks(part: FlexPart) -> None:
    mask = part.mask
    queries, keys = mask.seq_lengths
    sees = mask.mask_mod(torch.tensor(0), torch.tensor(0), torch.arange(queries)[:, None], torch.arange(keys))
    for row, some, which, whole, whole_which in zip(
        range(queries // BLOCK), mask.kv_num_blocks[0, 0], mask.kv_indices[0, 0],
        mask.full_kv_num_blocks[0, 0], mask.full_kv_indices[0, 0], strict=True,
    ):  # fmt: skip
        blocks = sees[row * BLOCK : (row + 1) * BLOCK].split(BLOCK, dim=1)
        full = [n for n, block in enumerate(blocks) if block.all() and block.shape[1] == BLOCK]
        assert whole_which[:whole].tolist() == full
        assert which[:some].tolist() == [n for n, block in enumerate(blocks) if block.any() and n not in full]


def test_flex_is_compiled_for_a_few_kinds_of_shapes() -> None:
    """What a GPU runs fused is traced here alike; a graph takes seconds there."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    kernel = FlexKernel(CPU, compiled(backend))
    cases = [*(make_case(n, remembered=n > 2, trees=n) for n in range(1, 7)), long_case(None)]
    jobs = [(case, step) for case in cases for step in (1, 5, len(case.mask), None)]
    with torch.inference_mode():
        for case, step in reversed(jobs):
            check(kernel, case, heads=(9, 3), rows=None if step is None else np.arange(0, len(case.mask), step))
    assert 1 <= len(graphs) <= 2


def test_what_a_part_needs_is_on_the_kernels_device() -> None:
    device, geometry = torch.device("meta"), make_case(80, remembered=True).geometry
    flash = FlashKernel(device, varlen_stand_in).parts(geometry, None)
    found = [x for part in flash for x in (part.over.ends, part.keys.ends, part.over.rows.index, part.keys.rows.index)]
    for part in FlexKernel(device).parts(geometry, None):
        assert part.mask.mask_mod.__closure__ is not None
        found += [part.queries.index, *(cell.cell_contents for cell in part.mask.mask_mod.__closure__)]
        found += [
            part.mask.kv_num_blocks,
            part.mask.kv_indices,
            part.mask.full_kv_num_blocks,
            part.mask.full_kv_indices,
        ]
    assert sum(x is not None for x in found) > len(flash) * 8
    assert {x.device for x in found if x is not None} == {device}


class Found(NamedTuple):
    """A machine: its device, what is installed there, and the GPU's compute capability."""

    device: str
    flash_attn: object
    capability: tuple[int, int] = (9, 0)


WHOLE, BROKEN = SimpleNamespace(flash_attn_varlen_func=varlen_stand_in), SimpleNamespace()


@pytest.mark.parametrize(
    ("machine", "dtype", "windows", "name"),
    [
        (Found("cpu", WHOLE), torch.float32, [None], "cpu"),
        (Found("cpu", WHOLE), torch.bfloat16, [None], "cpu"),
        (Found("cuda", WHOLE), torch.bfloat16, [None, None], "flash"),
        (Found("cuda:1", WHOLE), torch.float16, [None], "flash"),
        (Found("cuda", WHOLE), torch.float32, [None], "flex"),
        (Found("cuda", WHOLE), torch.bfloat16, [None, 4096], "flex"),
        (Found("cuda", WHOLE, (7, 5)), torch.float16, [None], "flex"),
        (Found("cuda", None), torch.bfloat16, [None], "flex"),
        (Found("cuda", BROKEN), torch.bfloat16, [None], "flex"),
        (Found("mps", WHOLE), torch.bfloat16, [None], "flex"),
    ],
)
def test_the_device_decides(
    monkeypatch: pytest.MonkeyPatch, machine: Found, dtype: torch.dtype, windows: list[int | None], name: str
) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", machine.flash_attn)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: machine.capability)
    found = kernel_for(torch.device(machine.device), dtype, windows)
    assert found.name == name
    assert isinstance(found, {"cpu": CpuKernel, "flash": FlashKernel, "flex": FlexKernel}[name])


def scores(
    monkeypatch: pytest.MonkeyPatch, kernel: Kernel, ranker: Ranker, encoder: TextEncoder, settings: EngineSettings,
    trees: Sequence[TokenTree],
) -> list[np.ndarray]:  # fmt: skip
    """What an engine with this kernel answers when it is cold, and then from what it remembers."""
    monkeypatch.setattr("foundation.engine.torch.kernel_for", lambda *_: kernel)
    engine = TorchEngine(ranker, encoder, settings=settings)
    return [np.concatenate([logp for found in engine.score(trees) for logp in found.logp]) for _ in range(2)]


@pytest.mark.parametrize(
    "settings", [EngineSettings(cache_bytes=0), EngineSettings(chunk_slots=32)], ids=["whole", "chunks"]
)
def test_an_engine_scores_alike(
    monkeypatch: pytest.MonkeyPatch, kernel: Kernel, tiny_engine: TorchEngine, settings: EngineSettings
) -> None:
    rng = random.Random(70)
    given = (tiny_engine.ranker, tiny_engine.encoder, settings, [random_tree(rng, 300, 48) for _ in range(3)])
    expected = scores(monkeypatch, CpuKernel(), *given)[0]
    for found in scores(monkeypatch, kernel, *given):
        assert np.abs(found - expected).max() <= 1e-5


def test_an_engine_with_a_sliding_window(monkeypatch: pytest.MonkeyPatch, tiny_encoder: TextEncoder) -> None:
    ranker = Ranker(dense(MistralConfig(**{**SMALL, "sliding_window": 6})))
    given = (ranker, tiny_encoder, EngineSettings(), [random_tree(random.Random(71), 300)])
    expected = scores(monkeypatch, CpuKernel(), *given)[0]
    for found in scores(monkeypatch, KERNELS["flex"], *given):
        assert np.abs(found - expected).max() <= 1e-5
    with pytest.raises(CheckpointError, match="flash-attn cannot do a sliding window"):
        scores(monkeypatch, KERNELS["flash"], *given)
