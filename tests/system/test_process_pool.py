import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ssondo.errors import SsondoError, TransientError
from ssondo.system.process_pool import ordered_map

_base = 0


def set_base(value: int) -> None:
    global _base
    _base = value


def add(item: int) -> int:
    time.sleep(0.02 * (item % 3))  # so that later items may finish first
    return _base + item


def kill_own_process(item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def fail(item: int) -> int:
    raise SsondoError(f"item {item}")


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 2])
def test_results_are_in_order_and_workers_are_initialised(n_workers: int) -> None:
    found = list(ordered_map(add, range(20), n_workers, set_base, (100,)))
    assert found == list(range(100, 120))
    set_base(0)


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 2])
def test_only_a_few_items_are_read_ahead(n_workers: int) -> None:
    n_read = 0

    def items() -> Iterator[int]:
        nonlocal n_read
        for n in range(1000):
            n_read += 1
            yield n

    results = ordered_map(add, items(), n_workers)
    for _ in range(10):
        next(results)
    assert n_read <= 10 + 4 * n_workers
    results.close()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_killed_worker_is_a_transient_error() -> None:
    with pytest.raises(TransientError, match="killed, usually because memory ran out"):
        list(ordered_map(kill_own_process, range(10), 2))


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 2])
def test_error_of_a_worker_is_raised_unchanged(n_workers: int) -> None:
    with pytest.raises(SsondoError, match=r"^item 0$"):
        list(ordered_map(fail, range(10), n_workers))


def own_process(item_s: float, item: int) -> int:
    time.sleep(item_s)
    return os.getpid()


def started(item_s: float) -> "subprocess.Popen[str]":
    """Start a process that prints the worker of each item endlessly, in its own process group as in a terminal."""
    code = (
        "import functools, signal, test_process_pool\n"
        "from ssondo.system.process_pool import ordered_map\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # also when the tests run in the background\n"
        f"for pid in ordered_map(functools.partial(test_process_pool.own_process, {item_s}), range(1_000_000), 2):\n"
        "    print(pid, flush=True)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def assert_all_end(process: "subprocess.Popen[str]", workers: set[int]) -> None:
    try:
        # Workers inherit the pipe, so it is closed when the last of them ends.
        process.communicate(timeout=30)
    finally:
        for pid in (process.pid, *workers):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_when_their_parent_is_killed(how: signal.Signals) -> None:
    with started(0.1) as process:
        assert process.stdout is not None
        workers = {int(process.stdout.readline()) for _ in range(10)}
        process.send_signal(how)
        assert_all_end(process, workers)


@pytest.mark.slow
def test_second_interrupt_ends_all_processes() -> None:
    with started(1.0) as process:
        assert process.stdout is not None
        workers = {int(process.stdout.readline()) for _ in range(4)}
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.2)
        assert_all_end(process, workers)
