"""Make batches in advance in threads, copy them to the device, and measure how long the device waits for them."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def prefetch(make: Callable[[int], T], numbers: Iterable[int], num_workers: int) -> Generator[T, None, None]:
    """Yield `make(n)` for each of `numbers`, in order, computed in advance by threads.

    Args:
        make: Function that is called in a thread; decoding and reading release the global interpreter lock.
        numbers: Arguments of `make`.
        num_workers: Number of threads; with 0 each item is computed when it is requested.
    """
    if num_workers == 0:
        yield from map(make, numbers)
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="loader")
    ahead: deque[Future[T]] = deque()
    try:
        for number in numbers:
            ahead.append(pool.submit(make, number))
            if len(ahead) > num_workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class HostToDevice:
    """Copies tensors to a device; to a GPU on a separate stream, concurrently with its computation.

    A training step is launched asynchronously, so the data of the next one are copied while it computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def pinned(self, tensor: Tensor) -> Tensor:
        """Copy a tensor to pinned memory, which a GPU reads directly; for the threads that make batches."""
        return tensor if self._stream is None else tensor.pin_memory()

    def __call__(self, tensor: Tensor) -> Tensor:
        """Copy a tensor to the device."""
        if self._stream is None:
            return tensor.to(self._device)
        with torch.cuda.stream(self._stream):
            moved = tensor.to(self._device, non_blocking=True)
        working = torch.cuda.current_stream(self._device)
        working.wait_stream(self._stream)
        moved.record_stream(working)
        return moved


class TimedIterator(Iterator[T]):
    """An iterator that measures in `waited_s` how many seconds the device waited for its items.

    Args:
        items: Iterator to measure.
        busy: Function that returns whether the device still has work; if it has when an item is
            ready, the device did not wait.
    """

    def __init__(self, items: Iterator[T], busy: Callable[[], bool] = lambda: False) -> None:
        self._items = items
        self._busy = busy
        self.waited_s = 0.0

    def __next__(self) -> T:
        began = time.perf_counter()
        try:
            return next(self._items)
        finally:
            if not self._busy():
                self.waited_s += time.perf_counter() - began
