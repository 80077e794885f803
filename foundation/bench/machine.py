"""What a figure was measured on, and how ways are timed against each other."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch


def machine() -> dict[str, object]:
    """A description for people: processor, threads, versions."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            names = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def interleaved(ways: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each way, after one warm-up, the ways taking turns: a slow moment hits all alike."""
    for way in ways:
        way()
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for number, way in enumerate(ways):
            started = time.perf_counter()
            way()
            seconds[number].append(time.perf_counter() - started)
    return [median(each) for each in seconds]
