"""`python -m serve.bench.failing serve …`: what `prismrank serve` is, until a file appears; then every forward fails.

The file is what the environment's PRISMRANK_BENCH_BREAK names. It is there for `prismrank bench serve --only killed`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from foundation.engine.base import LeafScores, TokenTree
from foundation.engine.torch import TorchEngine
from serve import cli

BREAK = "PRISMRANK_BENCH_BREAK"


def main(arguments: Sequence[str], file: Path) -> int:
    """Runs a command line over an engine that fails once the file is there; returns the exit status."""
    score = TorchEngine.score

    def failing(engine: TorchEngine, trees: Sequence[TokenTree]) -> list[LeafScores]:
        if file.exists():
            raise RuntimeError(f"{file} says that this engine is broken")
        return score(engine, trees)

    with patch.object(TorchEngine, "score", failing):
        return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(os.environ[BREAK])))
