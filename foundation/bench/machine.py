"""What a figure was measured on, and how ways are timed against each other."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

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


QUICK_S = 1.0
"""Below this, what happens only the first time may count."""


def clock() -> Callable[[], float]:
    """Processor time with one thread, which other jobs disturb less; else the time on the wall."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


class Turn(NamedTuple):
    """Something to be timed, and what is done before it each time, untimed."""

    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


def interleaved(ways: Sequence[Callable[[], object] | Turn], rounds: int) -> list[float]:
    """Median seconds of each way; they take turns, so a slow moment hits all alike. A quick way is warmed up first."""
    turns = [way if isinstance(way, Turn) else Turn(way) for way in ways]
    now = clock()
    seconds: list[list[float]] = [[] for _ in turns]
    for number in range(rounds + 1):
        for place, turn in enumerate(turns):
            if len(seconds[place]) == rounds:
                continue
            turn.prepare()
            started = now()
            turn.run()
            if number or now() - started > QUICK_S:
                seconds[place].append(now() - started)
    return [median(each) for each in seconds]
