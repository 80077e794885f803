"""Small runs for the tests of training, each of which may be a process of its own.

torchrun --nproc-per-node 2 -m tests.foundation.runs FOLDER '{"steps": 4}'
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import socket
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import torch

from foundation import tokenizer
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.pack import pack
from foundation.model import Ranker, build
from foundation.tokenizer import TextEncoder
from foundation.training import checkpoint
from foundation.training.ahead import Data
from foundation.training.distributed import joined
from foundation.training.labels import Choice, Graded, LabelledTree, Listwise, losses
from foundation.training.progress import TrainingProgress
from foundation.training.settings import TrainSettings
from foundation.training.trainer import Trainer, Watcher
from tests.conftest import TEXTS, tiny_config

LOG = "log.jsonl"
ANSWERS = (3, 4, 5, 6)


class Copying:
    """A task that only reading the trunk solves: the leaf that repeats the trunk's token is the right one."""

    def batch(self, step: int) -> list[LabelledTree]:
        generator = torch.Generator().manual_seed(step)
        return [self._tree(generator) for _ in range(8)]

    def _tree(self, generator: torch.Generator) -> LabelledTree:
        tokens = (torch.randperm(12, generator=generator)[:5] + 20).tolist()
        leaves = [TokenNode((token,), 0, None, ANSWERS) for token in tokens]
        tree = TokenTree((TokenNode((10, tokens[2])), *leaves))
        return LabelledTree(tree, (Listwise((0, 1, 2, 3, 4), 2, 0, 1, (1.0,) * 5),), (Choice(2, (2, 3), 1),))


class Uneven:
    """Trees that differ in all there is: slots, vectors, lists, the leaves of a list, choices, labels at all.

    Of a list's leaves the one with the largest token was chosen. There are no trees for the step `until`, at which a
    run that goes so far breaks.
    """

    def __init__(self, trees: int = 7, until: int | None = None) -> None:
        self.trees, self.until = trees, until

    def batch(self, step: int) -> list[LabelledTree]:
        if step == self.until:
            raise EOFError
        rng = random.Random(step)
        return [self._tree(rng, labelled=place != 2) for place in range(self.trees)]

    def _tree(self, rng: random.Random, *, labelled: bool) -> LabelledTree:
        nodes, lists, choices, graded = [self._trunk(rng)], [], [], []
        for _ in range(rng.randint(1, 3)):
            first, tokens = len(nodes) - 1, rng.sample(range(20, 40), rng.randint(2, 6))
            nodes += [TokenNode((token,) * rng.randint(1, 3), 0, None, ANSWERS) for token in tokens]
            places = tuple(range(first, first + len(tokens)))
            lists.append(Listwise(places, tokens.index(max(tokens)), 0, 1, (1.0,) * len(tokens)))
            graded.append(Graded(places, tuple(float(token == max(tokens)) for token in tokens), 0, 1))
            choices += [Choice(place, (2, 3), rng.randrange(2)) for place in places[: rng.randint(0, 2)]]
        tree = TokenTree(tuple(nodes))
        if not labelled:
            return LabelledTree(tree, (), ())
        return LabelledTree(tree, tuple(lists), tuple(choices), tuple(graded))

    def _trunk(self, rng: random.Random) -> TokenNode:
        texts = tuple(tuple(rng.randrange(20, 40) for _ in range(3)) for _ in range(rng.randint(0, 2)))
        slots = tuple(rng.randrange(20, 40) for _ in range(rng.randint(1, 6)))
        return TokenNode((*slots, *(-1 - place for place in range(len(texts)))), vectors=texts)


def settings(steps: int, **changes: object) -> TrainSettings:
    fields = {"steps": steps, "learning_rate": 3e-3, "warmup": 5, "threads": 1, "checkpoint_every": 5}
    return TrainSettings.model_validate(fields | {"validate_every": 10} | changes)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a checkpoint but the one that tells the time, and the one that says whether it was ever read."""
    apart = {"run.json", "tokenizer_config.json"}
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in apart}


def encoder() -> TextEncoder:
    return TextEncoder(tokenizer.train([text for text in TEXTS for _ in range(50)], 512))


def train(folder: Path, chosen: TrainSettings, data: Data) -> None:
    """A run from wherever it is, with its log."""
    torch.set_num_threads(1)
    with joined():
        if checkpoint.exists(folder / checkpoint.LAST):
            run = Trainer.resume(chosen, folder)
        else:
            reader = encoder()
            run = Trainer(build(tiny_config(vocab_size=len(reader.tokenizer))), reader, chosen, folder)
        with TrainingProgress(chosen.steps, folder / LOG) as progress:
            run.fit(data, Watcher(progress.step, progress.validation, validate))


@torch.no_grad()
def validate(ranker: Ranker) -> float:
    """How well a batch is ranked that no run learns from: minus its loss."""
    batch = Uneven().batch(-1)
    return -float(losses(ranker(pack([labelled.tree for labelled in batch])), batch).listwise)


def processes() -> ForkServerContext:
    """Where processes come from: forked from one that has imported all this, and has no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def together(number: int, target: Callable[..., None], *arguments: object) -> list[ForkServerProcess]:
    """Starts processes that know each other, as torchrun would."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    started = [
        processes().Process(target=_member, args=(rank, number, port, target, arguments)) for rank in range(number)
    ]
    for process in started:
        process.start()
    return started


def _member(rank: int, number: int, port: int, target: Callable[..., None], arguments: tuple[object, ...]) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    target(*arguments)


if __name__ == "__main__":
    train(Path(sys.argv[1]), settings(**json.loads(sys.argv[2])), Uneven())
