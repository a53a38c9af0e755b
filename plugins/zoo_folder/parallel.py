"""Work on many files at once; results come in the files' order."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

SAMPLES = 8
MOST = 16
"""Threads at most: each holds one decoded picture in memory."""

HELD = 0.00025
"""Seconds for which a file keeps Python's lock, roughly: the rest is decoding, hashing, waiting.

Of small pictures a second thread would only stand in the way of the first.
"""


def in_order(work: Callable[[T], R], items: Sequence[T]) -> Generator[R]:
    """Yield `work(item)` for each item, in order, on as many threads as these items repay.

    Close it when it is left early (`contextlib.closing`): what has not begun is then dropped.
    """
    sampled: dict[int, R] = {}
    started = time.perf_counter()
    for i in range(0, len(items), max(1, len(items) // SAMPLES)):
        sampled[i] = work(items[i])
    seconds = (time.perf_counter() - started) / max(1, len(sampled))
    threads = max(1, min(MOST, _cores(), round(seconds / HELD)))
    if threads == 1:
        for i, item in enumerate(items):
            yield sampled.pop(i) if i in sampled else work(item)
        return

    size = max(1, min(64, round(0.01 / seconds)))
    stop = threading.Event()

    def some(start: int) -> list[R]:
        part: list[R] = []
        for i in range(start, min(start + size, len(items))):
            if stop.is_set():
                break
            part.append(sampled.pop(i) if i in sampled else work(items[i]))
        return part

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[list[R]]] = deque()
        try:
            for start in range(0, len(items), size):
                waiting.append(pool.submit(some, start))
                if len(waiting) > 2 * threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            stop.set()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
