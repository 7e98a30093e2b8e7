"""Map a function over items in several processes, with results in order and bounded memory."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from ssondo.errors import TransientError
from ssondo.system.allocator import disable_malloc_trim

Item = TypeVar("Item")
Result = TypeVar("Result")
# Submitted items per worker: enough that no worker waits, few enough that a shard is never completely in memory.
_ITEMS_PER_WORKER = 4


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    n_workers: int,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Yield function(item) for each of `items`, in order.

    Args:
        function: Function defined at the top level of a module, so that workers can import it.
        items: Arguments of the function; only a few per worker are read in advance.
        n_workers: Number of processes; with 1 the function runs in this process.
        initializer: Function that is called once in each process before `function`.
        initargs: Arguments of `initializer`.

    Raises:
        TransientError: If a worker was killed, usually because memory ran out.
    """
    if n_workers <= 1:
        if initializer is not None:
            initializer(*initargs)
        yield from map(function, items)
        return
    # Not fork: a forked process would share the open HDF5 files and thread pools of its parent.
    context = multiprocessing.get_context("forkserver")
    source = iter(items)
    pool = ProcessPoolExecutor(n_workers, context, _start_worker, (initializer, initargs))
    waiting: deque[Future[Result]] = deque()
    try:
        waiting.extend(pool.submit(function, item) for item in islice(source, _ITEMS_PER_WORKER * n_workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(source, 1))
            yield result
    except BrokenProcessPool:
        raise TransientError(
            "a worker process was killed, usually because memory ran out; give the job more memory or fewer workers"
        ) from None
    finally:
        _shut_down(pool)


def _shut_down(pool: ProcessPoolExecutor) -> None:
    """Wait for the running items and cancel the others."""
    try:
        pool.shutdown(cancel_futures=True)
    except KeyboardInterrupt:
        # A second interrupt ends the workers at once; without this, Python would wait for them forever.
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise


def _start_worker(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    # Decoding allocates and frees megabytes per clip; returning them to the system takes a fifth of its time.
    disable_malloc_trim()
    if initializer is not None:
        initializer(*initargs)


def _exit_with_parent() -> None:
    """End this worker when its parent is killed; otherwise it would wait for more work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
