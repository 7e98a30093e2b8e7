import threading
import time

import pytest
import torch

from ssondo.errors import SsondoError
from ssondo.system.prefetch import HostToDevice, TimedIterator, prefetch


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_prefetch_keeps_the_order(num_workers):
    def make(i):
        time.sleep(0.002 * (i % 3))
        return i

    assert list(prefetch(make, range(20), num_workers)) == list(range(20))


def test_prefetch_works_ahead_in_other_threads():
    made = []

    def make(i):
        made.append((i, threading.current_thread().name))
        return i

    items = prefetch(make, range(100), 2)
    assert next(items) == 0
    time.sleep(0.1)
    assert 1 < len(made) < 6
    assert all(name.startswith("loader") for _, name in made)
    items.close()
    assert len(made) < 6


@pytest.mark.parametrize("num_workers", [0, 2])
def test_fault_of_a_worker_reaches_the_user(num_workers):
    def make(i):
        if i == 3:
            raise SsondoError("clip x cannot be read")
        return i

    with pytest.raises(SsondoError, match="clip x cannot be read"):
        list(prefetch(make, range(10), num_workers))


def test_waiting_is_counted():
    def slow():
        for i in range(3):
            time.sleep(0.02)
            yield i

    items = TimedIterator(slow())
    for _ in items:
        time.sleep(0.05)
    assert 0.06 <= items.waited_s < 0.15


def test_time_in_which_the_device_still_had_work_is_no_waiting():
    def slow():
        for i in range(3):
            time.sleep(0.02)
            yield i

    busy = iter([True, True, False, False])
    items = TimedIterator(slow(), busy=lambda: next(busy))
    list(items)
    assert 0.02 <= items.waited_s < 0.06


def test_batches_for_a_cpu_are_neither_pinned_nor_copied():
    move, tensor = HostToDevice(torch.device("cpu")), torch.zeros(3)
    assert move.pinned(tensor) is tensor
    assert move(tensor) is tensor


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_reach_a_gpu_whole_beside_its_work():
    device = torch.device("cuda")
    move = HostToDevice(device)
    for value in range(20):
        tensor = move.pinned(torch.full((1 << 20,), float(value)))
        assert tensor.is_pinned()
        work = torch.rand(2000, 2000, device=device) @ torch.rand(2000, 2000, device=device)
        assert (move(tensor) == value).all()
        assert work.isfinite().all()
