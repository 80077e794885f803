"""The ranker: a Hugging Face causal decoder with tree attention, and a compressor where it learned one.

Made from a `ModelConfig`, loaded from and saved to a Hugging Face folder; weights are safetensors only, and code that a
folder brings is never run. Shapes: N slots, D hidden size, L leaves, A the largest number of answers of a leaf.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedModel
from transformers.utils import logging

from foundation.attention.merge import Plan
from foundation.attention.registry import Hear, register
from foundation.compressor import Compressor
from foundation.config import ModelConfig
from foundation.engine.base import Summed, Vector
from foundation.engine.pack import Packed
from foundation.lowrank import UNADAPTED, Adapted, Adapter
from foundation.tokenizer import TextEncoder
from prompts.errors import CheckpointError

COMPRESSOR_FILE = "compressor.safetensors"
Compress = Callable[[Sequence[tuple[int, ...]]], torch.Tensor]


class Ranker(nn.Module):
    """A decoder, read at its answers only; `adapters` are those that are trained with it."""

    def __init__(self, lm: PreTrainedModel, compressor: Compressor | None = None) -> None:
        super().__init__()
        lm.set_attn_implementation(register())
        self.lm = lm
        self.compressor = compressor
        self.adapters = nn.ModuleList()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.lm.device

    @property
    def hidden_size(self) -> int:
        return int(self.lm.config.hidden_size)

    def compress(self, texts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """Vectors [texts, D]. Raises CheckpointError for a model that never learned to."""
        if self.compressor is None:
            raise CheckpointError("this checkpoint has no compressor: give its nodes as text")
        return cast(torch.Tensor, self.compressor(self.lm.get_input_embeddings(), texts))

    @property
    def layers(self) -> int:
        """How many layers the decoder has."""
        return int(self.lm.config.num_hidden_layers)

    @property
    def attached(self) -> dict[str, Adapter]:
        """Its adapters by name."""
        return {adapter.name: adapter for adapter in cast(Iterable[Adapter], self.adapters)}

    def hidden(
        self, x_ND: torch.Tensor, positions: torch.Tensor, plan: Plan, rows: torch.Tensor, hear: Hear | None = None,
        adapted: Adapted = UNADAPTED,
    ) -> torch.Tensor:  # fmt: skip
        """Last hidden states [R, D] of `rows`, by transformers' own forward; differentiable without `hear`."""
        with adapted.inside(self.lm):
            states = self.lm.base_model(
                inputs_embeds=x_ND[None], position_ids=positions[None], tree_plan=plan, tree_hear=hear, use_cache=False
            )
        return cast(torch.Tensor, states.last_hidden_state[0, rows])

    def forward(self, packed: Packed, compress: Compress | None = None) -> torch.Tensor:
        """Answer logits [L, A]; columns past a leaf's own answers are -inf. Raises TreeError for an unknown adapter."""
        x_ND = self.embed_slots(packed.slots, packed.vectors, compress)
        positions, rows = (torch.from_numpy(each).to(self.device) for each in (packed.positions, packed.rows))
        adapted = Adapted.of(packed.adapted, self.attached, self.device)
        return self.answer_logits(self.hidden(x_ND, positions, packed.plan, rows, adapted=adapted), packed.answers)

    def answer_logits(self, hidden_LD: torch.Tensor, answers: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """Logits [L, A] of each row's answers; columns past its own are -inf. Only these rows of the head are read."""
        used = sorted({answer for each in answers for answer in each})
        column = {answer: n for n, answer in enumerate(used)}
        logits_LU = self.logits(hidden_LD, torch.tensor(used, dtype=torch.long, device=hidden_LD.device))
        width = max((len(each) for each in answers), default=0)
        pick = torch.tensor([[column[a] for a in each] + [-1] * (width - len(each)) for each in answers])
        pick = pick.view(len(answers), width).to(hidden_LD.device)
        return logits_LU.gather(1, pick.clamp(min=0)).masked_fill(pick < 0, float("-inf"))

    def logits(self, hidden_RD: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        """[R, tokens] of the LM head, in fp32 at least; None: of the whole vocabulary."""
        head = cast(nn.Linear, self.lm.get_output_embeddings())  # type: ignore[no-untyped-call]
        wide = torch.promote_types(hidden_RD.dtype, torch.float32)
        if tokens is None:
            logits = (hidden_RD @ head.weight.T).to(wide)
        else:
            logits = hidden_RD.to(wide) @ head.weight[tokens].to(wide).T
        cap = getattr(self.lm.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def embed_slots(
        self, slots: npt.NDArray[np.int64], vectors: Sequence[Vector], compress: Compress | None = None
    ) -> torch.Tensor:
        """Input vectors [N, D] of slots: token ids, or -1-i for `vectors[i]`."""
        slots_N = torch.from_numpy(slots).to(self.device)
        embeds_ND = cast(torch.Tensor, self.lm.get_input_embeddings()(slots_N.clamp(min=0)))
        if not vectors:
            return embeds_ND
        vectors_VD = gather_vectors(vectors, compress or self.compress).to(embeds_ND)
        at = (slots_N < 0).nonzero().squeeze(1)
        return embeds_ND.index_copy(0, at, vectors_VD[-1 - slots_N[at]])

    def save(self, folder: Path, encoder: TextEncoder, dtype: torch.dtype = torch.float32) -> None:
        """A Hugging Face folder (config, tokenizer, safetensors) in place of whatever was there."""
        shutil.rmtree(folder, ignore_errors=True)  # nothing of another model may stay
        folder.mkdir(parents=True)
        tied = set(getattr(self.lm, "all_tied_weights_keys", None) or ())
        state = {name: tensor.to(dtype) for name, tensor in self.lm.state_dict().items() if name not in tied}
        with without_bars():
            self.lm.save_pretrained(folder, state_dict=state, safe_serialization=True)
        encoder.tokenizer.save_pretrained(folder)
        if self.compressor is not None:
            save_file(
                {n: t.to(dtype).contiguous() for n, t in self.compressor.state_dict().items()}, folder / COMPRESSOR_FILE
            )


def gather_vectors(vectors: Sequence[Vector], compress: Compress) -> torch.Tensor:
    """[V, D]: tensors as they are, texts compressed, each different text once, and sums of those."""
    texts = [vector.texts if isinstance(vector, Summed) else (vector,) for vector in vectors
             if not isinstance(vector, torch.Tensor)]  # fmt: skip
    place = {text: n for n, text in enumerate(dict.fromkeys(text for each in texts for text in each))}
    given = [vector for vector in vectors if isinstance(vector, torch.Tensor)]
    tables = [_summed(compress(list(place)), texts, place)] if place else []
    if given:
        stacked = torch.stack(given)
        tables.append(stacked.to(tables[0]) if tables else stacked)
    made, next_given = iter(range(len(texts))), iter(range(len(texts), len(vectors)))
    order = [next(next_given if isinstance(vector, torch.Tensor) else made) for vector in vectors]
    return torch.cat(tables).index_select(0, torch.tensor(order, device=tables[0].device))


def _summed(
    table_UD: torch.Tensor, texts: Sequence[tuple[tuple[int, ...], ...]], place: Mapping[tuple[int, ...], int]
) -> torch.Tensor:
    """[texts, D]: the sums of the rows of each one's parts."""
    first = torch.tensor([place[each[0]] for each in texts], device=table_UD.device)
    found = table_UD.index_select(0, first)
    more = [(n, place[text]) for n, each in enumerate(texts) for text in each[1:]]
    if not more:
        return found
    rows, parts = torch.tensor(more, device=table_UD.device).unbind(1)
    return found.index_add(0, rows, table_UD.index_select(0, parts))


def build(config: ModelConfig, seed: int = 0) -> Ranker:
    """A new model with random weights."""
    torch.manual_seed(seed)
    lm = MixtralForCausalLM(lm_config(config))
    return Ranker(lm, Compressor(config.hidden_size) if config.compressor else None)


def lm_config(config: ModelConfig) -> MixtralConfig:
    """The decoder that a description asks for, in transformers' terms."""
    return MixtralConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.expert_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        num_local_experts=config.experts,
        num_experts_per_tok=config.experts_per_token,
        max_position_embeddings=config.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        initializer_range=config.initializer_range,
        tie_word_embeddings=config.tie_word_embeddings,
        sliding_window=None,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )


def load(folder: Path) -> tuple[Ranker, TextEncoder]:
    """Model (fp32) and tokenizer of a Hugging Face folder. Raises CheckpointError: what is missing or damaged."""
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder}: no {name}; a model folder holds config.json, tokenizer.json, *.safetensors"
            )
    _check_weight_files(folder)
    encoder = TextEncoder.load(folder)
    from foundation.tryout import check

    try:
        ranker = Ranker(_load_lm(folder), _load_compressor(folder)).eval()
        check(ranker, encoder)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    except Exception as error:  # whatever a library makes of a folder that is wrong
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
        raise CheckpointError(f"{folder}: cannot be loaded: {reason}") from None
    return ranker, encoder


def _check_weight_files(folder: Path) -> None:
    """Safetensors of this folder, and nothing that an index may point to elsewhere."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            raise CheckpointError(f"{index}: damaged") from None
        odd = [name for name in names if Path(str(name)).name != name or not str(name).endswith(".safetensors")]
        if odd:
            raise CheckpointError(f"{index}: names {odd[0]!r}; only *.safetensors of the same folder are read")
    elif not (folder / "model.safetensors").is_file():
        raise CheckpointError(f"{folder}: no *.safetensors; other weight formats can run code and are not read")


def _load_lm(folder: Path) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    with without_bars():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False,
            local_files_only=True, output_loading_info=True,
        )  # fmt: skip
    lm, report = loaded
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if wrong := sorted(map(str, report.get(kind) or ())):
            raise CheckpointError(f"weights do not fit its config.json ({kind.replace('_', ' ')}), such as {wrong[0]}")
    return cast(PreTrainedModel, lm)


@contextmanager
def without_bars() -> Iterator[None]:
    """transformers draws a progress bar for every file, however small."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _load_compressor(folder: Path) -> Compressor | None:
    if not (folder / COMPRESSOR_FILE).is_file():
        return None
    state = {name: tensor.float() for name, tensor in load_file(folder / COMPRESSOR_FILE).items()}
    queries, hidden_size = state["query_QD"].shape
    compressor = Compressor(hidden_size, queries)
    compressor.load_state_dict(state)
    return compressor


def version(folder: Path) -> str:
    """A short hash of a folder's weights; the same weights have the same version."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def shipped_names() -> list[str]:
    """The checkpoints that come with the package."""
    return sorted(path.name for path in _checkpoints().iterdir() if path.is_dir())


def _checkpoints() -> Path:
    return Path(str(files("foundation"))) / "checkpoints"


def shipped(name: str) -> Path:
    """The folder of a checkpoint that comes with the package."""
    folder = _checkpoints() / name
    if name not in shipped_names():
        raise CheckpointError(f"no checkpoint '{name}' comes with prismrank; give a model folder")
    return folder
