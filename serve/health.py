"""Whether the engine answers: it is asked, not assumed."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from foundation.engine.base import Engine, TokenTree
from prompts.tree import Piece, PromptNode, PromptTree
from serve.batcher import Batcher
from serve.degraded import DegradedError
from serve.timing import clock

logger = logging.getLogger(__name__)

ANSWERS = ("yes", "no")


def probe(*, leaves: int = 1, words: int = 8) -> PromptTree:
    """A tree of any size that says nothing."""
    trunk = PromptNode((Piece("a member " * (words // 2)),))
    leaf = PromptNode((Piece("an item"),), parent=0, answers=ANSWERS)
    return PromptTree((trunk, *[leaf] * leaves))


@dataclass(eq=False)
class Health:
    """Asks the engine, through the batcher as any request does, and remembers the answer for `fresh_s` seconds."""

    batcher: Batcher
    engine: Engine
    limit_s: float = 2.0
    fresh_s: float = 1.0
    warm_limit_s: float = 60.0
    _ready: bool = False
    _asked: float = float("-inf")
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def warm_up(self) -> None:
        """A forward of the usual size, so that the first caller does not pay for what happens once."""
        await self._ask(probe(leaves=64, words=256), self.warm_limit_s)

    async def ready(self) -> bool:
        """Whether the engine scored a tiny tree within the limit, just now or a moment ago."""
        async with self._asking:  # callers at the same moment share one question
            if clock() - self._asked > self.fresh_s:
                await self._ask(probe(), self.limit_s)
        return self._ready

    async def _ask(self, tree: PromptTree, limit_s: float) -> None:
        deadline = clock() + limit_s
        try:
            async with asyncio.timeout_at(deadline):
                read: TokenTree = await asyncio.to_thread(self.engine.read, tree)
            await self.batcher.score(read, deadline)
        except DegradedError as error:
            self._ready = False
            logger.warning("not ready: %s", error)
        except Exception:
            self._ready = False
            logger.exception("not ready: the engine could not read a tree")
        else:
            self._ready = True
        finally:
            self._asked = clock()
