"""Batches made ahead of time by threads, brought to the device, and how long the device waited for them."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def prefetch(make: Callable[[int], T], numbers: Iterable[int], num_workers: int) -> Generator[T, None, None]:
    """Yield `make(n)` for each of `numbers`, in order, made ahead of time by threads.

    Args:
        make: called in another thread; decoding and reading leave Python's lock to the others.
        numbers: what to make.
        num_workers: threads; 0 makes each when it is asked for.
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
    """Brings tensors to a device, on a GPU beside the work that is going on there.

    A step is only launched, not waited for, so the next one's data are copied while it is computed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def pinned(self, tensor: Tensor) -> Tensor:
        """`tensor` in memory that a GPU reads by itself; for the threads that make batches."""
        return tensor if self._stream is None else tensor.pin_memory()

    def __call__(self, tensor: Tensor) -> Tensor:
        """`tensor` on the device."""
        if self._stream is None:
            return tensor.to(self._device)
        with torch.cuda.stream(self._stream):
            moved = tensor.to(self._device, non_blocking=True)
        working = torch.cuda.current_stream(self._device)
        working.wait_stream(self._stream)
        moved.record_stream(working)
        return moved


class TimedIterator(Iterator[T]):
    """An iterator that counts the seconds that the device waited for it: `waited_s`.

    Args:
        items: to iterate over.
        busy: whether the device still has work; if so when an item comes, it has not waited.
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
