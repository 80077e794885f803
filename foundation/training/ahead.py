"""Trees made ahead of the step that learns from them, beside it: in a thread, or in a process of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from torch.utils.data import DataLoader, Dataset

from foundation.training.labels import LabelledTree

Batch = Sequence[LabelledTree]

STEPS_AHEAD = 2


class Data(Protocol):
    """Where a run's trees come from."""

    def batch(self, step: int) -> Batch:
        """The trees of a step; the same step gives the same trees, in every process."""
        ...


def ahead(data: Data, start: int, end: int, *, workers: int = 0) -> Iterator[Batch]:
    """Batches in order, the next ones made while one is learned from.

    With a worker they are made in a process that is forked off here, which the interpreter's lock does not hold back.
    """
    if not workers:
        yield from _in_a_thread(data, start, end)
        return
    yield from DataLoader(
        _Steps(data),
        sampler=range(start, end),
        batch_size=None,
        collate_fn=_as_made,
        num_workers=1,
        prefetch_factor=STEPS_AHEAD,
        multiprocessing_context="fork",
    )


class _Steps(Dataset[Batch]):
    """Data by step; what only teachers read stays in the process that makes it."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def __getitem__(self, step: int) -> Batch:
        return [labelled._replace(prompt=None) for labelled in self._data.batch(step)]


def _as_made(batch: Batch) -> Batch:
    return batch


def _in_a_thread(data: Data, start: int, end: int) -> Iterator[Batch]:
    with ThreadPoolExecutor(1) as pool:
        coming: deque[Future[Batch]] = deque()
        for step in range(start, end + 1):
            if step < end:
                coming.append(pool.submit(data.batch, step))
            if step > start:
                yield coming.popleft().result()
