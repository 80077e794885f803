"""The largest memory of a process that scores one request; each figure needs a process of its own.

python -m foundation.bench.peak FOLDER CONTEXT CANDIDATES CANDIDATE
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import torch

from foundation.bench.workload import Workload
from foundation.engine.torch import TorchEngine


def peak_bytes(folder: Path, work: Workload) -> int:
    """Of a fresh process that loads the model and scores `work` cold, then warm. Raises CalledProcessError."""
    sizes = (work.context, work.candidates, work.candidate, torch.get_num_threads())
    command = [sys.executable, "-m", "foundation.bench.peak", str(folder), *map(str, sizes)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603


def main(folder: str, context: int, candidates: int, candidate: int, threads: int) -> None:
    """Prints the bytes."""
    torch.set_num_threads(threads)
    engine = TorchEngine.load(Path(folder))
    tree = Workload(context, candidates, candidate).tree(len(engine.encoder.tokenizer))
    for _ in range(2):
        engine.score([tree])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
