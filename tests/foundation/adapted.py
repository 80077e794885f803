"""The reference that adapters are held against: transformers and peft over each leaf's path alone.

An adapter's delta is let through at the slots of its own nodes and nowhere else.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from torch import nn

from foundation.bench.naive import path
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.forest import Forest
from foundation.engine.torch import EngineSettings, TorchEngine
from foundation.lowrank import TARGETS
from foundation.model import Ranker
from foundation.tokenizer import TextEncoder
from tests.foundation.reference import leaves_of, random_tree

VOCABULARY, BASE = 300, "tiny@7"
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "a": {"r": 4, "lora_alpha": 6, "target_modules": list(TARGETS)},
    "b": {"r": 7, "lora_alpha": 9, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
    "c": {"r": 1, "lora_alpha": 3, "target_modules": ["o_proj", "k_proj"]},
}


class ByPeft:
    """A model with adapters of random weights, made and saved by peft."""

    def __init__(self, ranker: Ranker, options: Mapping[str, Mapping[str, Any]] = OPTIONS, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.ranker, self.names = ranker, list(options)
        lm = copy.deepcopy(ranker.lm)
        lm.set_attn_implementation("sdpa")
        configs = {name: peft.LoraConfig(**each, init_lora_weights=False) for name, each in options.items()}
        first, *others = self.names
        with warnings.catch_warnings(action="ignore"):
            self.model = peft.get_peft_model(lm, configs[first], adapter_name=first)
        for name in others:
            self.model.add_adapter(name, configs[name])
        self.model.base_model.set_adapter(self.names)
        self._at: dict[str, torch.Tensor] = {}
        self._known: dict[object, torch.Tensor] = {}
        for where, module in self.model.named_modules():
            if where.split(".")[-2:-1] == ["lora_B"]:
                module.register_forward_hook(partial(self._let_through, where.split(".")[-1]))

    def _let_through(self, name: str, _module: nn.Module, _inputs: object, out: torch.Tensor) -> torch.Tensor:
        return out * self._at[name]

    def save(self, folder: Path, base: str = BASE) -> Path:
        """A folder for each adapter, by its name."""
        for config in self.model.peft_config.values():
            config.revision = base.rpartition("@")[2]
        with warnings.catch_warnings(action="ignore"):
            self.model.save_pretrained(folder)
        return folder

    def states(self, tree: TokenTree, leaf: int) -> torch.Tensor:
        """Logits [T, V] along the path of one leaf."""
        found = path(tree, leaf)
        own = [tree.nodes[node].adapter for node, _ in found.origin]
        self._at = {name: torch.tensor([each == name for each in own])[:, None] for name in self.names}
        embeds = self.ranker.embed_slots(np.array(found.slots), found.vectors)[None]
        logits: torch.Tensor = self.model.base_model.model(inputs_embeds=embeds, use_cache=False).logits[0]
        return logits

    def logp(self, tree: TokenTree, leaf: int) -> torch.Tensor:
        """Of one leaf's answers."""
        return self.states(tree, leaf)[-1, list(tree.nodes[leaf].answers)].log_softmax(dim=-1)

    @torch.inference_mode()
    def off(self, trees: Sequence[TokenTree], found: Sequence[torch.Tensor]) -> float:
        """The largest difference of leaves' log-probabilities, in the order of trees and nodes."""
        largest = 0.0
        for one, (number, leaf) in zip(found, leaves_of(trees), strict=True):
            tree = trees[number]
            said = (Forest.of([tree], merge=False).path(leaf), tree.nodes[leaf].answers)
            if said not in self._known:
                self._known[said] = self.logp(tree, leaf)
            largest = max(largest, float((one - self._known[said]).abs().max()))
        return largest


def scored(engine: TorchEngine, trees: Sequence[TokenTree]) -> list[torch.Tensor]:
    return [torch.from_numpy(logp) for scores in engine.score(trees) for logp in scores.logp]


def engine_with(
    ranker: Ranker, encoder: TextEncoder, folder: Path, settings: EngineSettings | None = None
) -> TorchEngine:
    engine = TorchEngine(ranker, encoder, BASE, settings)
    for each in sorted(folder.iterdir()):
        if each.is_dir():
            engine.add_adapter(each.name, each)
    return engine


def mixed(
    rng: random.Random, trunk: TokenNode, names: Sequence[str] = ("", "a", "b", "c"), hidden: int = 48
) -> TokenTree:
    """A random tree below a trunk, each node under any adapter or none."""
    nodes = []
    for node in random_tree(rng, VOCABULARY, hidden).nodes[1:]:
        after = None if node.parent == 0 and (node.after or 0) > len(trunk.slots) else node.after
        nodes.append(replace(node, after=after, adapter=rng.choice(names)))
    return TokenTree((trunk, *nodes))


def visit(adapter: str = "", stem: tuple[int, ...] = (60, 61, 62), salt: str = "") -> TokenTree:
    """A trunk of thirty slots, a stem, five candidates."""
    leaves = [TokenNode((100 + number, 99), 1, None, (3, 4)) for number in range(5)]
    return TokenTree((TokenNode(tuple(range(10, 40))), TokenNode(stem, 0), *leaves), salt).adapted(adapter)
