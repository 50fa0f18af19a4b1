"""Work on several CPU cores whose bits do not depend on how many there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_in_order(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Yield ``work(item)`` in the order of the items, some of which are worked on at the same time.

    There are as many workers as torch has threads here (OMP_NUM_THREADS), and each computes alone: torch rounds
    differently when several threads share a convolution. At most one result per worker waits to be taken.

    Parameters
    ----------
    work
        Function that is called in other threads.
    items
        Its arguments.

    Yields
    ------
        The results; an exception of ``work`` is raised in the place of its result.
    """
    workers = torch.get_num_threads()
    with ThreadPoolExecutor(workers, initializer=_compute_alone) as pool:
        waiting: deque[Future[_Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * workers - 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            # What new threads start with is one number of the whole process, which the workers have set.
            torch.set_num_threads(workers)


def _compute_alone() -> None:
    # Asked for first, since torch sets the number of a thread when the thread first needs it.
    torch.get_num_threads()
    torch.set_num_threads(1)
