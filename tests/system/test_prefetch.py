import threading
import time

import pytest
import torch

from ssondo.errors import SsondoError
from ssondo.system import prefetch as module
from ssondo.system.prefetch import HostToDevice, TimedIterator, prefetch


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_prefetch_keeps_the_order(num_workers):
    def make(i):
        time.sleep(0.002 * (i % 3))
        return i

    assert list(prefetch(make, range(20), num_workers)) == list(range(20))


def test_prefetch_makes_a_few_items_ahead_in_other_threads():
    made, third_made = [], threading.Event()

    def make(i):
        made.append((i, threading.current_thread().name))
        if len(made) == 3:
            third_made.set()
        return i

    items = prefetch(make, range(100), 2)
    assert next(items) == 0
    # Without another request: two threads work ahead, and no more than two items were submitted.
    assert third_made.wait(60)
    items.close()
    assert sorted(i for i, _ in made) == [0, 1, 2]
    assert all(name.startswith("loader") for _, name in made)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_error_of_a_worker_is_raised_to_the_caller(num_workers):
    def make(i):
        if i == 3:
            raise SsondoError("clip x cannot be read")
        return i

    with pytest.raises(SsondoError, match="clip x cannot be read"):
        list(prefetch(make, range(10), num_workers))


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `clock.pass_s(seconds)` moves."""

    class Clock:
        now_s = 0.0

        def pass_s(self, seconds):
            self.now_s += seconds

    clock = Clock()
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now_s)
    return clock


def slow_items(clock):
    for i in range(3):
        clock.pass_s(2)
        yield i


def test_only_the_time_spent_on_waiting_for_items_is_counted(clock):
    items = TimedIterator(slow_items(clock))
    for _ in items:
        clock.pass_s(5)
    assert items.waited_s == 6


def test_waiting_is_not_counted_while_the_device_is_busy(clock):
    busy = iter([True, True, False, False])
    items = TimedIterator(slow_items(clock), busy=lambda: next(busy))
    list(items)
    assert items.waited_s == 2


def test_batches_for_a_cpu_are_neither_pinned_nor_copied():
    move, tensor = HostToDevice(torch.device("cpu")), torch.zeros(3)
    assert move.pinned(tensor) is tensor
    assert move(tensor) is tensor


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_reach_a_gpu_unchanged_while_it_computes():
    device = torch.device("cuda")
    move = HostToDevice(device)
    for value in range(20):
        tensor = move.pinned(torch.full((1 << 20,), float(value)))
        assert tensor.is_pinned()
        work = torch.rand(2000, 2000, device=device) @ torch.rand(2000, 2000, device=device)
        assert (move(tensor) == value).all()
        assert work.isfinite().all()
