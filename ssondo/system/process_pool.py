"""Work spread over processes: results in order, memory bounded."""

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
# Items in flight a worker: enough that none waits, few enough that a shard's sound is never all in memory.
_IN_FLIGHT = 4


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    n_workers: int,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Yield function(item) for each of `items`, in their order.

    Args:
        function: defined at the top level of a module, so that a worker can import it.
        items: read no further than a few items a worker ahead of what was yielded.
        n_workers: processes; with 1 all runs in this one.
        initializer: called once in each process with `initargs`, before `function`.
        initargs: its arguments.

    Raises:
        TransientError: if a worker was killed, which is most often for want of memory.
    """
    if n_workers <= 1:
        if initializer is not None:
            initializer(*initargs)
        yield from map(function, items)
        return
    # Not fork: a copied process must not hold the parent's HDF5 files and thread pools.
    context = multiprocessing.get_context("forkserver")
    source = iter(items)
    pool = ProcessPoolExecutor(n_workers, context, _begin, (initializer, initargs))
    waiting: deque[Future[Result]] = deque()
    try:
        waiting.extend(pool.submit(function, item) for item in islice(source, _IN_FLIGHT * n_workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(source, 1))
            yield result
    except BrokenProcessPool:
        raise TransientError(
            "a worker process was killed, most often for want of memory; give the job more or fewer workers"
        ) from None
    finally:
        _end(pool)


def _end(pool: ProcessPoolExecutor) -> None:
    """Wait for the items that run, and start no more."""
    try:
        pool.shutdown(cancel_futures=True)
    except KeyboardInterrupt:
        # The second one: they are not waited for either. Python itself would wait for the workers for ever.
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise


def _begin(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Decoding takes and frees megabytes for each clip; asking the system anew costs a fifth of its time.
    disable_malloc_trim()
    if initializer is not None:
        initializer(*initargs)


def _end_with_parent() -> None:
    """End this worker when the process that has its results is killed: it would wait for more work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
