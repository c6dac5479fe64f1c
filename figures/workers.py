"""Jobs shared among processes of one thread each, which end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any

import torch

__all__ = ["CONTEXT", "begin", "finished"]

CONTEXT = multiprocessing.get_context("spawn")
_POLL = 0.5


def begin() -> None:
    """What a worker does first: one thread, and an end when the parent ends, however that comes about."""
    torch.set_num_threads(1)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def finished(
    work: Callable[[Any], Any], jobs: Iterable[Any], workers: int, initializer: Callable[..., None], *arguments: Any
) -> Iterator[list[Any]]:
    """Yield the results of the jobs that have just been done, twice a second, until all are.

    The first error of a job, and leaving the loop, ends all workers.
    """
    with ProcessPoolExecutor(workers, CONTEXT, initializer=initializer, initargs=arguments) as pool:
        left = {pool.submit(work, job) for job in jobs}
        try:
            while left:
                done, left = wait(left, _POLL, FIRST_COMPLETED)
                yield [future.result() for future in done]
        except BaseException:
            # The others would be waited for.
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
